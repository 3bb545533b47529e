"""The fake over the wire: what it records, how it sends, how it breaks."""

import asyncio
import json
import subprocess
import sys
import zlib
from collections.abc import AsyncIterator

import aiohttp
import brotli
import pytest
import zstandard

from gateway.testing.fake_upstream import FakeUpstream

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "[[say one two three]]"}]}


@pytest.fixture
async def fake() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream(3) as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as running:
        yield running


async def exchange(fake: FakeUpstream, raw: bytes) -> bytes:
    """Send bytes, read until the server closes."""
    reader, writer = await asyncio.open_connection(fake.host, fake.port)
    writer.write(raw)
    data = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return data


async def test_a_request_is_kept_byte_for_byte(fake: FakeUpstream) -> None:
    body = json.dumps(BODY).encode()
    head = (
        b"POST /v1/chat/completions?a=%%20b HTTP/1.1\r\nHost: x\r\nX-Twice: 1\r\nx-twice: 2\r\n"
        b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    answer = await exchange(fake, head + body)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    (seen,) = fake.requests
    assert (seen.method, seen.target, seen.body) == ("POST", "/v1/chat/completions?a=%20b", body)
    assert [pair for pair in seen.headers if pair[0].lower() == b"x-twice"] == [(b"X-Twice", b"1"), (b"x-twice", b"2")]
    assert (seen.status, seen.ended, seen.header("HOST")) == (200, "answered", "x")
    assert seen.sent == len(answer.partition(b"\r\n\r\n")[2])


async def test_expect_100_continue_is_answered_first(fake: FakeUpstream) -> None:
    body = json.dumps(BODY).encode()
    reader, writer = await asyncio.open_connection(fake.host, fake.port)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    writer.write(head % len(body))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()


DECODERS = {
    "gzip": lambda data: zlib.decompress(data, 31),
    "deflate": zlib.decompress,
    "br": brotli.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}


@pytest.mark.parametrize("encoding", DECODERS)
@pytest.mark.parametrize("stream", [False, True])
async def test_content_encodings(fake: FakeUpstream, encoding: str, stream: bool) -> None:
    url, plain = f"{fake.url}/v1/chat/completions", {**BODY, "stream": stream}
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        async with session.post(url, json=plain) as answer:
            expected = await answer.read()
        fake.reset()
        async with session.post(url, json=plain, headers={"x-fake-encoding": encoding}) as answer:
            assert answer.headers["content-encoding"] == encoding
            coded = await answer.read()
    assert coded != expected
    assert DECODERS[encoding](coded) == expected


@pytest.mark.parametrize(
    ("fault", "ended"),
    [("cut after=2", "broken"), ("reset after=2", "broken"), ("eof after=2", "broken"), ("mid_frame", "broken"),
     ("first_frame", "broken"), ("garbage after=1", "answered"), ("pings after=1 seconds=1", "answered"),
     ("html", "answered")],
)  # fmt: skip
async def test_a_stream_breaks_as_told(
    fake: FakeUpstream, session: aiohttp.ClientSession, fault: str, ended: str
) -> None:
    data = b""
    body = {**BODY, "stream": True, "messages": [{"role": "user", "content": f"[[say a b c d]] [[fault {fault}]]"}]}
    try:
        async with session.post(f"{fake.url}/v1/chat/completions", json=body) as answer:
            assert answer.status == 200
            async for piece in answer.content.iter_any():
                data += piece
        cut = False
    except aiohttp.ClientPayloadError:
        cut = True
    kind = fault.partition(" ")[0]
    assert cut == (kind in {"cut", "reset"})
    assert (b"[DONE]" in data) == (kind in {"garbage", "pings"})
    assert (b'"error"' in data) == (kind in {"first_frame", "mid_frame"})
    assert (b"<html>" in data) == (kind == "html")
    assert (b": ping" in data) == (kind == "pings")
    assert (data.count(b"data:") > 0) == (kind != "html")
    assert fake.requests[0].ended == ended


async def test_a_whole_answer_is_cut_in_the_middle(fake: FakeUpstream, session: aiohttp.ClientSession) -> None:
    body = {**BODY, "messages": [{"role": "user", "content": "[[say a b c]] [[fault cut]]"}]}
    async with session.post(f"{fake.url}/v1/chat/completions", json=body) as answer:
        assert int(answer.headers["content-length"]) > 100
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_a_client_that_leaves_is_noticed(fake: FakeUpstream, session: aiohttp.ClientSession) -> None:
    body = {**BODY, "stream": True, "messages": [{"role": "user", "content": "[[say a b c]] [[fault stall after=1]]"}]}
    async with session.post(f"{fake.url}/v1/chat/completions", json=body) as answer:
        await answer.content.readany()
        answer.close()
    async with asyncio.timeout(10):
        while fake.requests[0].ended == "open":
            await asyncio.sleep(0.01)
    assert fake.requests[0].ended == "client_gone"


async def test_only_known_keys_pass_where_keys_are_set(session: aiohttp.ClientSession) -> None:
    async with FakeUpstream(api_keys=frozenset({"sk-good"})) as fake:
        statuses = []
        for headers in (
            {},
            {"authorization": "Bearer sk-bad-and-rather-long"},
            {"authorization": "Bearer sk-good"},
            {"x-api-key": "sk-good"},
        ):
            async with session.post(f"{fake.url}/v1/chat/completions", json=BODY, headers=headers) as answer:
                statuses.append(answer.status)
                assert b"bad-and-rather" not in await answer.read()
        assert statuses == [401, 401, 200, 200]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models", 200),
        ("HEAD", "/v1/models", 200),
        ("GET", "/v1/models/gpt-4o", 200),
        ("GET", "/v1/models/gpt-none", 404),
        ("GET", "/v1beta/models", 200),
        ("GET", "/v1beta/models/gemini-2.5-pro", 200),
        ("HEAD", "/", 200),
        ("HEAD", "/api/hello", 404),
        ("POST", "/v1/nothing", 404),
        ("GET", "/v1/responses/resp_none", 404),
    ],
)
async def test_other_paths(
    fake: FakeUpstream, session: aiohttp.ClientSession, method: str, path: str, status: int
) -> None:
    async with session.request(method, fake.url + path) as answer:
        assert answer.status == status
        assert (await answer.read() == b"") == (method == "HEAD")


async def test_models_come_in_the_shape_of_whoever_asks(fake: FakeUpstream, session: aiohttp.ClientSession) -> None:
    async with session.get(f"{fake.url}/v1/models") as answer:
        assert (await answer.json())["object"] == "list"
    async with session.get(f"{fake.url}/v1/models", headers={"anthropic-version": "2023-06-01"}) as answer:
        assert (await answer.json())["data"][0]["type"] == "model"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b'{"model": 1, "messages": 2}', b'{"model":"m","messages":["x"]}']
)
async def test_nonsense_is_refused_in_the_dialect(
    fake: FakeUpstream, session: aiohttp.ClientSession, body: bytes
) -> None:
    for path in (
        "/v1/chat/completions",
        "/v1/messages",
        "/v1/responses",
        "/v1beta/models/gemini-2.5-pro:generateContent",
    ):
        async with session.post(fake.url + path, data=body) as answer:
            error = (await answer.json())["error"]
            assert answer.status == 400
            assert error["message"]


async def test_websocket_responses(fake: FakeUpstream, session: aiohttp.ClientSession) -> None:
    async with session.ws_connect(f"{fake.url}/v1/responses") as socket:
        await socket.send_json({"type": "response.create", "model": "gpt-5", "input": "[[say a b]]"})
        types = []
        while not types or types[-1] != "response.completed":
            event = await socket.receive_json(timeout=5)
            types.append(event["type"])
        await socket.send_json({"type": "response.create", "model": "gpt-5", "input": ""})
        refused = await socket.receive_json(timeout=5)
    assert types[0] == "response.created"
    assert event["response"]["usage"]["output_tokens"] == 2
    assert (refused["type"], refused["status"]) == ("error", 400)
    assert json.loads(fake.requests[0].messages[0])["model"] == "gpt-5"


async def test_websocket_realtime(fake: FakeUpstream, session: aiohttp.ClientSession) -> None:
    async with session.ws_connect(f"{fake.url}/v1/realtime?model=gpt-realtime") as socket:
        assert (await socket.receive_json(timeout=5))["session"]["model"] == "gpt-realtime"
        part = {"type": "input_text", "text": "[[say a b]]"}
        item = {"type": "message", "role": "user", "content": [part]}
        await socket.send_json({"type": "conversation.item.create", "item": item})
        await socket.send_json({"type": "response.create"})
        await socket.send_json({"type": "nonsense"})
        events = []
        while not events or events[-1]["type"] != "error":
            events.append(await socket.receive_json(timeout=5))
    done = next(event for event in events if event["type"] == "response.done")
    assert done["response"]["usage"]["output_tokens"] == 2
    assert "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta") == "a b"


async def test_the_process_speaks_of_its_requests(session: aiohttp.ClientSession) -> None:
    command = [sys.executable, "-m", "gateway.testing.fake_upstream", "--chance", "500=1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        url = process.stdout.readline().split()[-1]
        async with session.post(f"{url}/v1/chat/completions", json=BODY) as answer:
            assert answer.status == 500
        async with session.get(f"{url}/__fake__/requests") as answer:
            (row,) = await answer.json()
        assert (row["target"], row["status"], row["ended"]) == ("/v1/chat/completions", 500, "answered")
        await session.delete(f"{url}/__fake__/requests")
        async with session.get(f"{url}/__fake__/requests") as answer:
            assert await answer.json() == []
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_it_runs_on_a_thread_of_its_own() -> None:
    with FakeUpstream() as fake:
        assert fake.port > 0
        first = fake.port
    with FakeUpstream(port=first) as fake:
        assert fake.url == f"http://127.0.0.1:{first}"
