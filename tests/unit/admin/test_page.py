"""The files of the live page as they are served: whole, small, strict about what may run, and open without a token."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import pytest

from gateway.admin import page

Gate = Any  # of conftest.py
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
FILES = page.load()
DOCS = Path(__file__).parents[3] / "docs"
LIMIT = 200_000  # bytes in all, as they are stored
ZIPPED = 70_000  # bytes in all, as they are sent


def directives(policy: str) -> dict[str, list[str]]:
    return {name: values for name, *values in (part.split() for part in policy.split(";"))}


async def test_browsers_get_the_page_and_others_the_index(gate: Gate) -> None:
    async with gate.client.get("/", headers=BROWSER) as response:
        assert (response.status, response.content_type) == (200, "text/html")
        assert "Accept" in response.headers["Vary"]
        assert "<title>Tollgate" in await response.text()
    assert (await gate.get("/", headers={"Accept": "*/*"}))["name"] == "tollgate"


async def test_the_policy_lets_nothing_in(gate: Gate) -> None:
    async with gate.client.get("/", headers=BROWSER) as response:
        found = directives(response.headers["Content-Security-Policy"])
        assert response.headers["X-Frame-Options"] == "DENY"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert found["default-src"] == ["'none'"]
    assert found["frame-ancestors"] == found["base-uri"] == found["form-action"] == ["'none'"]
    assert {source for name in ("script-src", "style-src", "img-src", "connect-src") for source in found[name]} == {
        "'self'"
    }
    assert found["require-trusted-types-for"] == ["'script'"]


async def test_every_file_the_page_names_is_served(gate: Gate) -> None:
    texts = {name: file.body.decode() for name, file in FILES.items() if not name.startswith("vendor/")}
    named = {name for text in texts.values() for name in re.findall(r'"/page/([\w./-]+)"', text)}
    named |= {name for text in texts.values() for name in re.findall(r'from "\./([\w./-]+)"', text)}
    assert named | {"index.html", "vendor/uplot-LICENSE.txt"} == set(FILES), "and no file is there for nothing"
    for name in sorted(named):
        async with gate.client.get(f"/page/{name}") as response:
            assert response.status == 200
            assert await response.read() == FILES[name].body


async def test_a_file_is_sent_once(gate: Gate) -> None:
    async with gate.client.get("/page/main.js") as response:
        tag = response.headers["ETag"]
        assert response.headers["Cache-Control"] == "no-cache"
    async with gate.client.get("/page/main.js", headers={"If-None-Match": tag}) as response:
        assert (response.status, await response.read()) == (304, b"")


async def test_files_are_sent_compressed_to_whoever_takes_it(gate: Gate) -> None:
    headers = {"Accept-Encoding": "gzip"}
    async with gate.client.get("/page/app.css", headers=headers) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert int(response.headers["Content-Length"]) < len(FILES["app.css"].body) / 2
    async with gate.client.get("/page/app.css", headers={"Accept-Encoding": "identity"}) as response:
        assert "Content-Encoding" not in response.headers


@pytest.mark.parametrize(
    "path", ["/page/", "/page/nope.js", "/page/..%2fpage.py", "/page/../page.py", "/page/%2e%2e/app.py"]
)
async def test_nothing_else_is_served(gate: Gate, path: str) -> None:
    gate.token = "0123456789abcdef"
    async with gate.client.get(path) as response:
        assert response.status in (401, 404)
        assert "import" not in await response.text()


async def test_the_page_needs_no_token_and_shows_nothing_without(gate: Gate) -> None:
    gate.token = "0123456789abcdef"
    async with gate.client.get("/", headers=BROWSER) as response:
        assert response.status == 200
    async with gate.client.get("/page/main.js") as response:
        assert response.status == 200
    await gate.get("/", 401)
    await gate.get("/api/calls", 401, headers=BROWSER)
    await gate.send("POST", "/", 401, headers=BROWSER)
    for path in ("/page/%2e%2e/api/calls", "/api/calls?/page/main.js"):
        async with gate.client.get(path) as response:
            assert response.status in (401, 404)
            assert 'calls":' not in await response.text()


async def test_a_rebound_name_gets_no_page_either(gate: Gate) -> None:
    await gate.get("/", 421, headers={**BROWSER, "Host": "evil.example"})


def test_nothing_is_inline_and_nothing_comes_from_elsewhere() -> None:
    html = FILES["index.html"].body.decode()
    assert re.findall(r"<script(?![^>]*\bsrc=)", html) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=", html) == []
    for name, file in FILES.items():
        text = file.body.decode()
        if not name.startswith("vendor/"):
            assert set(re.findall(r"https?://([\w.]+)", text)) <= {"127.0.0.1", "www.w3.org"}, name
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
            ), name


def test_it_is_small() -> None:
    assert sum(len(file.body) for file in FILES.values()) < LIMIT
    assert sum(len(file.zipped) for file in FILES.values()) < ZIPPED
    assert all(gzip.decompress(file.zipped) == file.body for file in FILES.values())


def test_the_pictures_of_it_are_pictures_and_small() -> None:
    for name in ("live-page.png", "live-page-run.png"):
        data = (DOCS / name).read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        assert len(data) <= 200_000
