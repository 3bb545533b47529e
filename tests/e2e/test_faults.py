"""Broken and unusual upstreams behind a real gateway: what may pass, passes; nothing broken ever looks complete.

All answers of `gateway.testing.faults` are asked for at once, plain and streamed; then each is judged.
"""

from __future__ import annotations

import asyncio
import json
import re
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from gateway.testing.faults import ANSWERS, FaultUpstream, Send
from gateway.testing.gateway import RunningGateway, dead_port

QUESTION = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]%b}'
TIMEOUTS = {"connect": 2, "first_byte": 1.5, "idle": 1.5, "total": 4}
ENOUGH = 500_000  # of an endless answer; then the client leaves

RELAYED = {
    "continue_first",
    "empty_reason",
    "half_close_then_answer",
    "http_1_0_until_close",
    "huge_headers",
    "informational_first",
    "no_content",
    "redirect",
    "set_cookie_twice",
    "trailers",
    "two_answers",
    "unknown_status",
}
REFUSED = {
    "bare_lf": (502, "upstream_"),
    "broken_gzip": (502, "upstream_bad_answer"),
    "close_at_accept": (502, "upstream_reset"),
    "close_before_answer": (502, "upstream_reset"),
    "endless_header": (502, "upstream_bad_answer"),
    "garbage": (502, "upstream_bad_answer"),
    "gzip_bomb": (502, "upstream_bad_answer"),
    "html": (502, "upstream_bad_answer"),
    "http_0_9": (502, "upstream_bad_answer"),
    "length_and_chunked": (502, "upstream_bad_answer"),
    "length_not_a_number": (502, "upstream_bad_answer"),
    "length_too_short": (502, "upstream_bad_answer"),
    "length_twice": (502, "upstream_bad_answer"),
    "not_gzip": (502, "upstream_bad_answer"),
    "not_http": (502, "upstream_bad_answer"),
    "nobody_listens": (502, "upstream_connect_failed"),
    "obs_fold": (502, "upstream_bad_answer"),
    "one_byte_per_second": (504, "upstream_"),
    "reset_before_answer": (502, "upstream_reset"),
    "silence": (504, "upstream_"),
    "status_line_garbage": (502, "upstream_bad_answer"),
    "switching_protocols": (502, "upstream_bad_answer"),
}
CUT = {  # answered in part: refused where nothing was sent on yet, else ended in a way nobody takes for complete
    "bad_chunk_size",
    "chunk_without_crlf",
    "cut_in_chunk",
    "length_too_long",
    "reset_in_body",
    "stream_reset",
    "stream_stall",
    "stream_without_end",
}
ENDLESS = {"endless_stream", "endless_line"}


@dataclass(slots=True)
class Got:
    raw: bytes = b""
    ended: str = "eof"  # eof | reset | left | hangs
    call: dict[str, Any] | None = None

    @property
    def head(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[0]

    @property
    def rest(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def status(self) -> int:
        return int(self.raw[9:12] or 0)

    def header(self, name: bytes) -> bytes | None:
        match = re.search(rb"\r\n" + name + rb": *([^\r]*)", self.head, re.I)
        return match[1] if match else None

    def body(self) -> tuple[bytes, bool]:
        """(body, whether its framing says that this is all of it)"""
        length = self.header(b"content-length")
        if length is not None:
            return self.rest[: int(length)], len(self.rest) >= int(length)
        if self.header(b"transfer-encoding") is None:
            return self.rest, True
        body, left = b"", self.rest
        while match := re.match(rb"([0-9a-f]+)\r\n", left, re.I):
            size = int(match[1], 16)
            if size == 0:
                return body, left[match.end() :] == b"\r\n"
            body, left = body + left[match.end() : match.end() + size], left[match.end() + size + 2 :]
        return body, False


async def ask(gate: RunningGateway, name: str, stream: bool) -> Got:
    host, _, port = gate.config["listen"].partition(":")
    body = QUESTION % (b',"stream":true' if stream else b"")
    target = f"/run/{name}-{int(stream)}/{name}/v1/chat/completions"
    head = f"POST {target} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection(host, int(port))
    got = Got()
    try:
        async with asyncio.timeout(15):
            writer.write(head.encode() + body)
            while piece := await reader.read(65_536):
                got.raw += piece
                if len(got.raw) > ENOUGH:
                    got.ended = "left"
                    break
    except ConnectionError:
        got.ended = "reset"
    except TimeoutError:
        got.ended = "hangs"
    finally:
        writer.close()
    return got


async def play() -> dict[tuple[str, bool], Got]:
    async with AsyncExitStack() as stack:
        urls = {"nobody_listens": f"http://127.0.0.1:{dead_port()}"}
        for name, script in ANSWERS.items():
            urls[name] = (await stack.enter_async_context(FaultUpstream(script))).url
        upstreams = {
            # Without injection the request asks for plain bytes or not, as the client wants it.
            name: {"dialect": "openai", "url": url, "timeouts": TIMEOUTS, "inject_usage": False}
            for name, url in urls.items()
        }
        gate = await stack.enter_async_context(
            RunningGateway(upstreams, telemetry={"log": None}, retries={"attempts": 1})
        )
        keys = [(name, stream) for name in urls for stream in (False, True)]
        results = await asyncio.gather(*(ask(gate, name, stream) for name, stream in keys))
        found = dict(zip(keys, results, strict=True))
        for call in await asyncio.to_thread(gate.calls, len(keys), limit=500):
            name, _, stream = call["run_id"].rpartition("-")
            found[name, stream == "1"].call = call
        assert gate.status("/readyz") == 200
        return found


@pytest.fixture(scope="module")
def all_of_them() -> dict[tuple[str, bool], Got]:
    return asyncio.run(play())


@pytest.fixture(params=[False, True], ids=["plain", "stream"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_every_shipped_answer_is_judged() -> None:
    assert RELAYED | CUT | ENDLESS | (REFUSED.keys() - {"nobody_listens"}) == ANSWERS.keys()


@pytest.mark.parametrize("name", sorted(RELAYED))
def test_what_is_odd_but_whole_passes_unchanged(
    all_of_them: dict[tuple[str, bool], Got], name: str, stream: bool
) -> None:
    got = all_of_them[name, stream]
    sent = Got(b"".join(act.data for act in ANSWERS[name] if isinstance(act, Send)))
    if name in {"informational_first", "continue_first"}:
        sent = Got(sent.rest)
    body, complete = got.body()
    assert got.ended == "eof"
    assert (got.status, body, complete) == (sent.status, sent.body()[0], True)
    assert got.header(b"x-trailer") is None
    assert got.call is not None
    assert (got.call["status"], got.call["outcome"]) == (sent.status, "ok")
    if name == "set_cookie_twice":
        assert re.findall(rb"\r\n(set-cookie: a=1|Set-Cookie: b=2)", got.head) == [
            b"set-cookie: a=1",
            b"Set-Cookie: b=2",
        ]


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_is_no_answer_is_an_error_in_the_dialect(
    all_of_them: dict[tuple[str, bool], Got], name: str, stream: bool
) -> None:
    got = all_of_them[name, stream]
    status, code = REFUSED[name]
    body, complete = got.body()
    assert (got.status, got.ended, complete) == (status, "eof", True)
    error = json.loads(body)["error"]
    assert error["code"].startswith(code)
    assert error["message"]
    assert got.call is not None
    assert (got.call["status"], got.call["outcome"]) == (status, "failed")
    assert got.call["error"]["code"] == error["code"]


@pytest.mark.parametrize("name", sorted(CUT))
def test_what_is_cut_never_looks_complete(all_of_them: dict[tuple[str, bool], Got], name: str, stream: bool) -> None:
    got = all_of_them[name, stream]
    assert got.call is not None
    body, complete = got.body()
    if got.status >= 500:
        assert complete
        assert json.loads(body)["error"]["code"].startswith("upstream_")
        assert got.call["outcome"] == "failed"
        return
    assert not complete
    assert b"[DONE]" not in body
    assert (got.call["status"], got.call["outcome"]) == (200, "truncated")
    assert got.call["error"]["code"].startswith("upstream_")
    if stream and got.header(b"content-length") is None:
        event = body.rstrip().rpartition(b"\n\n")[2]
        assert json.loads(event.removeprefix(b"data: "))["error"]["code"] == got.call["error"]["code"]


@pytest.mark.parametrize("name", sorted(ENDLESS))
def test_an_endless_answer_ends_when_the_client_leaves(
    all_of_them: dict[tuple[str, bool], Got], name: str, stream: bool
) -> None:
    got = all_of_them[name, stream]
    assert got.ended == "left"
    assert got.call is not None
    assert (got.call["outcome"], got.call["usage_source"]) == ("cancelled", "estimated")
