"""Cassettes are served again byte for byte, found by name or by what is asked."""

import base64
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.testing.cassettes import CassetteUpstream, load, load_all

STREAM = 'data: {"a":"é"}\r\n\r\ndata: [DONE]\n\n'


def write(path: Path, request: dict[str, Any], response: dict[str, Any], **more: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"request": request, "response": response, **more}))
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    ask = {
        "method": "POST",
        "url": "https://api.example.com/v1/chat?x=1",
        "headers": {"a": ["1"]},
        "body": {"text": "q"},
    }
    headers = {
        "Content-Type": ["text/event-stream"],
        "Content-Encoding": ["gzip"],
        "Set-Cookie": "REDACTED",
        "x": ["1", "2"],
    }
    answer = {"status": 200, "headers": headers, "wire": "sse", "body": {"text": STREAM}}
    usage = [{"event": "e", "path": "usage", "usage": {"n": 1}}]
    write(tmp_path / "p" / "one.json", ask, answer, expected_usage=usage, source={"licence": "MIT"})
    binary = {"status": 529, "headers": {}, "wire": "json", "body": {"base64": base64.b64encode(b"\x00\xff").decode()}}
    write(tmp_path / "p" / "two.json", ask, binary)
    write(tmp_path / "p" / "three.json", {"method": "GET", "url": "https://h/v1/models"}, {"status": 404})
    return tmp_path


def test_loading(directory: Path) -> None:
    one = load(directory / "p" / "one.json")
    assert (one.name, one.method, one.target, one.host) == ("p/one.json", "POST", "/v1/chat?x=1", "api.example.com")
    assert one.headers == [("Content-Type", "text/event-stream"), ("Set-Cookie", "REDACTED"), ("x", "1"), ("x", "2")]
    assert (one.body, one.stream, one.usage[0]["usage"]) == (STREAM.encode(), True, {"n": 1})
    assert [exchange.name for exchange in load_all(directory)] == ["p/one.json", "p/three.json", "p/two.json"]


async def test_serving(directory: Path) -> None:
    async with CassetteUpstream(load_all(directory), largest_piece=3) as upstream, aiohttp.ClientSession() as session:
        url = upstream.url + "/v1/chat?x=1"
        async with session.post(url, data=b"anything", headers={"x-cassette": "p/one.json"}) as answer:
            assert (answer.status, await answer.read()) == (200, STREAM.encode())
            assert answer.headers.getall("x") == ["1", "2"]
            assert "content-encoding" not in answer.headers
        bodies = []
        for _ in range(3):
            async with session.post(url, data=b"q") as answer:
                bodies.append((answer.status, await answer.read()))
        assert bodies == [(200, STREAM.encode()), (529, b"\x00\xff"), (200, STREAM.encode())]
        async with session.get(upstream.url + "/v1/models") as answer:
            assert answer.status == 404
        async with session.post(url, data=b"never recorded") as answer:
            assert answer.status == 501
    assert [row[0] for row in upstream.received] == [
        "p/one.json",
        "p/one.json",
        "p/two.json",
        "p/one.json",
        "p/three.json",
    ]
    assert upstream.received[0][3] == b"anything"
