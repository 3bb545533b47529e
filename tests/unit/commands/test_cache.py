"""`tollgate cache` without a gateway: the file is looked at and cleared all the same."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from gateway import cli
from gateway.call import Answer
from gateway.ports import Entry
from gateway.stores.sqlite_cache import SqliteCache
from gateway.testing.doubles import at_once


def fill(
    options: list[str], *models: str, route: str = "/v1/chat/completions", upstream: str = "u", first: int = 0
) -> None:
    store = SqliteCache(Path(options[1]) / "cache.sqlite", memory_bytes=0, tenant_bytes=10**6)
    now = time.time_ns()
    for number, model in enumerate(models, first):
        key = number.to_bytes(32, "big")
        _, generation = at_once(store.get(key, "", now))
        store.put(
            Entry(
                key, "t", now, now + 10**12, False, True, b"application/json", b"", b"{}", Answer(), 1,
                route, upstream, model, "a", ("red",),
            ),
            generation,
        )  # fmt: skip
    store.close()


def test_nothing_was_ever_cached(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cache", "clear", *options]) == 0
    assert cli.main(["cache", "show", *options]) == 0
    out = capsys.readouterr().out
    assert out.startswith("0 stored answers forgotten; no gateway answers at 127.0.0.1:")
    assert "0 stored answers, 0 bytes, given again 0 times" in out
    assert not (Path(options[1]) / "cache.sqlite").exists()


def test_what_is_stored_is_shown_and_forgotten(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    fill(options, "m", "m", "n")
    assert cli.main(["cache", "show", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["TENANT", "ROUTE", "MODEL", "ANSWERS", "BYTES", "HITS"]
    assert lines[1].split()[:4] == ["t", "/v1/chat/completions", "m", "2"]
    assert lines[-1].startswith("3 stored answers, ")
    assert cli.main(["cache", "clear", "--model", "n", "--tag", "red", *options]) == 0
    assert capsys.readouterr().out.startswith("1 stored answer forgotten; ")
    assert cli.main(["cache", "clear", "--entry", (0).to_bytes(8, "big").hex(), *options]) == 0
    assert capsys.readouterr().out.startswith("2 stored answers forgotten; ")


def test_outputs_are_forgotten_by_tool(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    fill(options, "search")  # a model of that name
    fill(options, "search", route="/tools/{tool}", upstream="tools/search", first=10)
    fill(options, "search", "read", route="/mcp/{server}", upstream="mcp/files", first=20)
    fill(options, "search", "a/b", route="/mcp/{server}", upstream="mcp/docs", first=30)
    for tool, count in (
        ("files/search", 1),
        ("search", 2),
        ("search", 0),
        ("a/b", 1),
        ("docs/a/b", 0),
        ("files/read", 1),
    ):
        assert cli.main(["cache", "clear", "--tool", tool, *options]) == 0
        assert capsys.readouterr().out.startswith(f"{count} stored answer")
    assert cli.main(["cache", "clear", "--model", "search", "--tool", "read", *options]) == 0
    assert capsys.readouterr().out.startswith("0 stored answers")
    assert cli.main(["cache", "clear", *options]) == 0
    assert capsys.readouterr().out.startswith("1 stored answer forgotten")


def test_a_file_that_cannot_be_used_is_said(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (Path(options[1]) / "cache.sqlite").mkdir(parents=True)
    assert cli.main(["cache", "clear", *options]) == 1
    assert "cache.sqlite" in capsys.readouterr().err
