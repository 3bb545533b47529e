"""Upstreams that fail, behind a real gateway: what the client is told, in its dialect, and what is recorded and billed.

`test_faults` holds broken HTTP against the relay; here the providers' own ways to fail are told apart, by dialect.
"""

from __future__ import annotations

import gzip
import json
import re
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import brotli
import pytest
import zstandard

from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.faults import Close, Repeat, Reset, Send, Wait, answer, chunked
from gateway.testing.gateway import RunningGateway, dead_port
from gateway.testing.raw import RawAnswer, RawClient, post, request
from gateway.testing.scripted import Background, ScriptedUpstream

TIMEOUTS = {"connect": 1, "first_byte": 2, "idle": 1.5, "total": 4}
TEXT = "one two three four five six seven eight nine ten"
CHUNK = b'data: {"id":"c","model":"gpt-4o","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
COUNT = b'"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}'
USAGE = b'data: {"id":"c","model":"gpt-4o","choices":[],' + COUNT + b"}\n\n"
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"Overloaded","type":"server_error","code":null}}\n\n'
ANSWER = b'{"id":"c","model":"gpt-4o","choices":[{"index":0,"message":{"content":"Hi"}}],' + COUNT + b"}"
CHAT = "/v1/chat/completions"


def question(dialect: str, text: str, *, stream: bool) -> tuple[str, bytes]:
    """Target and body of a question in this dialect."""
    ask: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}
    path = CHAT
    if dialect == "responses":
        path, ask = "/v1/responses", {"model": "gpt-4o", "input": text}
    elif dialect == "anthropic":
        path, ask = "/v1/messages", {**ask, "model": "claude-sonnet-4-5", "max_tokens": 1000}
    elif dialect == "gemini":
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return f"/v1beta/models/gemini-2.5-flash:{method}", json.dumps(
            {"contents": [{"parts": [{"text": text}]}]}
        ).encode()
    if stream:
        ask["stream"] = True
    return path, json.dumps(ask).encode()


DIALECTS = ["openai", "responses", "anthropic", "gemini"]
BEGUN = {"openai": 5, "responses": 8, "anthropic": 6, "gemini": 2}  # events by which some text has come


BROKEN = {"cut": "upstream_cut", "reset": "upstream_cut", "eof": "upstream_truncated", "stall": "upstream_stalled"}
CODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: zlib.decompress(data, 31),
    "deflate": lambda data: zlib.decompress(data, 15),
    "br": brotli.decompress,
    "zstd": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
}
Question = tuple[str, str, str, bool]  # dialect, text, content coding of the answer, stream


def breaking(dialect: str, fault: str) -> str:
    """A stream that breaks after some of its text."""
    return f"[[tokens 200]] [[fault {fault} after={BEGUN[dialect]} seconds=5]]"


def questions() -> Iterator[Question]:
    for dialect in DIALECTS:
        for fault in [*BROKEN, "mid_frame"]:
            yield dialect, breaking(dialect, fault), "", True
        for fault in ("cut", "reset", "stall"):
            yield dialect, f"[[say {TEXT}]] [[fault {fault} seconds=5]]", "", False
        yield dialect, "[[fault first_frame]]", "", True
        for stream in (False, True):
            yield dialect, "[[fault html]]", "", stream
            yield dialect, "[[fault garbage]]", "", stream
            yield dialect, "[[wait 5]]", "", stream
            for coding in ("", *CODERS):
                yield dialect, f"[[say {TEXT}]]", coding, stream


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeUpstream]:
    with FakeUpstream(3) as running:
        yield running


def rejecting(raw: bytes) -> list[Any]:
    """An upstream that knows nothing of `stream_options`."""
    if b"stream_options" in raw:
        return [Send(answer(b'{"error":{"message":"Unrecognized: stream_options"}}', status=b"400 Bad Request"))]
    return [Send(chunked(CHUNK, DONE))]


def choosy(raw: bytes) -> list[Any]:
    """An upstream that refuses the call, whatever its options."""
    return [Send(answer(b'{"error":{"message":"no such model"}}', status=b"400 Bad Request"))]


STREAM = [Send(chunked(CHUNK, CHUNK, USAGE, DONE))]
SCRIPTS: dict[str, Any] = {
    "": [Send(answer(ANSWER))],
    "stream": STREAM,
    "rejecting": rejecting,
    "choosy": choosy,
    "two answers": [Send(answer(ANSWER) + answer(b'{"second":1}'))],
    "two answers in chunks": [
        Send(
            chunked(ANSWER, content_type=b"application/json")
            + chunked(b'{"second":1}', content_type=b"application/json")
        )
    ],
    "closes later": [Send(answer(ANSWER)), Wait(0.05), Close()],
    "resets later": [Send(answer(ANSWER)), Wait(0.05), Reset()],
    "until close": [Send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n" + ANSWER), Close()],
    "1.0": [Send(b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n" + ANSWER), Close()],
    "large": [Send(answer(ANSWER[:-1] + b" " * 3_000_000 + b"}"))],
    "stated length, cut": [Send(answer(ANSWER, length=len(ANSWER) + 10)), Close()],
    "stream, stated length": [
        Send(answer(CHUNK + USAGE + DONE).replace(b"application/json", b"text/event-stream")),
    ],
    "stream, stated length, cut at its end": [
        Send(answer(CHUNK + USAGE + DONE, length=1000).replace(b"application/json", b"text/event-stream")),
        Close(),
    ],
    "no end of the chunks": [Send(chunked(CHUNK, USAGE, DONE, end=b"")), Wait(60)],
    "goes on behind the end": [
        Send(chunked(CHUNK, USAGE, DONE, end=b"")),
        Repeat(b"4000\r\n" + b": comment\n\n".ljust(0x4000, b"\n") + b"\r\n"),
    ],
    "error and done": [
        Send(chunked(CHUNK, CHUNK, end=b"")),
        Wait(0.2),
        Send(chunked(ERROR + DONE).partition(b"\r\n\r\n")[2]),
    ],
    "error, then done": [
        Send(chunked(CHUNK, CHUNK, end=b"")),
        Wait(0.2),
        Send(chunked(ERROR, end=b"").partition(b"\r\n\r\n")[2]),
        Send(chunked(DONE).partition(b"\r\n\r\n")[2]),
    ],
    "only pings": [Send(chunked(b": ping\n\n", end=b"")), Repeat(b"8\r\n: ping\n\n\r\n", pause=0.2)],
    "pings, then nothing": [Send(chunked(b": ping\n\n", b": ping\n\n"))],
    "lines end with LF": [Send(b"HTTP/1.1 200 OK\ncontent-length: 2\n\n{}"), Wait(60)],
    "long line": [Send(chunked(CHUNK, b"data: " + b"x" * 8_000_000 + b"\n\n", USAGE, DONE))],
    "compressed error": [
        Send(
            chunked(gzip.compress(b'data: {"error":{"message":"busy","code":"server_is_overloaded"}}\n\n')).replace(
                b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n", 1
            )
        )
    ],
}  # fmt: skip


class Stage:
    def __init__(self, gate: RunningGateway, fake: FakeUpstream, up: ScriptedUpstream) -> None:
        self.gate, self.fake, self.up = gate, fake, up
        self.port = int(gate.config["listen"].rpartition(":")[2])
        self.asked: dict[Question, tuple[RawAnswer, dict[str, Any]]] = {}

    def send(self, raw: bytes) -> tuple[RawAnswer, dict[str, Any]]:
        """The answer, and its record."""
        with RawClient(self.port) as client:
            client.send(raw)
            got = client.answer()
        return got, self.record(got)

    def record(self, got: RawAnswer) -> dict[str, Any]:
        found = got.get("x-tollgate-request-id")
        path = f"/api/calls/{found}"
        self.gate.until(lambda: self.gate.status(path), lambda status: status == 200)
        call: dict[str, Any] = self.gate.get(path)
        return call

    def ask(self, dialect: str, text: str, coding: str = "", *, stream: bool) -> tuple[RawAnswer, dict[str, Any]]:
        return self.asked[dialect, text, coding, stream]

    def ask_all(self) -> None:
        """Put all questions at once, for they wait more than they work."""
        with ThreadPoolExecutor(16) as threads:
            keys = list(dict.fromkeys(questions()))
            answers = dict(zip(keys, threads.map(self._ask, keys), strict=True))
        self.gate.calls(len(keys), limit=500)
        self.asked = {key: (got, self.record(got)) for key, got in answers.items()}

    def _ask(self, key: Question) -> RawAnswer:
        dialect, text, coding, stream = key
        target, body = question(dialect, text, stream=stream)
        with RawClient(self.port) as client:
            client.send(post(target, body, b"anthropic-version: 2023-06-01", b"x-fake-encoding: " + coding.encode()))
            return client.answer()

    def play(
        self, script: str, *, stream: bool = False, options: bytes = b"", upstream: str = "scripted"
    ) -> tuple[RawAnswer, dict[str, Any]]:
        streamed = b',"stream":true' if stream else b""
        body = b'{"model":"gpt-4o","messages":[]%b%b}' % (streamed, options)
        return self.send(post(f"/{upstream}{CHAT}", body, b"x-script: " + script.encode()))


@pytest.fixture(scope="module")
def stage(fake: FakeUpstream) -> Iterator[Stage]:
    with ExitStack() as stack:
        up = stack.enter_context(Background(ScriptedUpstream(SCRIPTS)))
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(2):  # the queue of connections is full: whoever comes next waits
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        urls = {
            "refused": f"http://127.0.0.1:{dead_port()}",
            "unnamed": "http://nobody.invalid",
            "not tls": fake.url.replace("http:", "https:"),
            "full": f"http://127.0.0.1:{full.getsockname()[1]}",
        }
        upstreams = {
            name: {"dialect": name, "url": fake.url, "timeouts": TIMEOUTS} for name in ("openai", "anthropic", "gemini")
        }
        for name, url in urls.items():
            upstreams[name.replace(" ", "-")] = {"dialect": "openai", "url": url, "timeouts": TIMEOUTS}
        for name in ("scripted", "learning"):
            upstreams[name] = {"dialect": "openai", "url": up.url, "timeouts": TIMEOUTS, "provider": "openai"}
        gate = stack.enter_context(RunningGateway(upstreams, telemetry={"log": None}, retries={"attempts": 1}))
        running = Stage(gate, fake, up)
        running.ask_all()
        yield running


# -- streams that fail in every dialect


def events(body: bytes) -> list[tuple[str, Any]]:
    """(event name, data) of a stream."""
    found = []
    for block in re.split(rb"\r?\n\r?\n", body.strip()):
        fields = dict(line.split(": ", 1) for line in block.decode().splitlines() if ": " in line)
        if "data" in fields:
            found.append(
                (fields.get("event", ""), json.loads(fields["data"]) if fields["data"][0] == "{" else fields["data"])
            )
    return found


def error_of(dialect: str, got: RawAnswer) -> str:
    """The stable code in the last event of a stream, which must be the error event of the dialect."""
    name, data = events(got.body)[-1]
    if dialect == "openai":
        assert set(data["error"]) == {"message", "type", "param", "code"}
        return str(data["error"]["code"])
    if dialect == "responses":
        before = [event["sequence_number"] for _, event in events(got.body)[:-1]]
        assert data["sequence_number"] == before[-1] + 1
        if name == "error":
            return str(data["code"])
        assert (name, data["type"], data["response"]["status"]) == ("response.failed", "response.failed", "failed")
        return str(data["response"]["error"]["code"])
    if dialect == "anthropic":
        assert (name, data["type"]) == ("error", "error")
        return str(data["error"]["details"]["error_code"])
    return str(data["error"]["details"][0]["reason"]).lower()


TERMINAL = {
    "openai": b"[DONE]",
    "responses": b"response.completed",
    "anthropic": b"message_stop",
    "gemini": b'"finishReason"',
}


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_stream_that_breaks_ends_with_the_error_event_of_its_dialect(stage: Stage, dialect: str, fault: str) -> None:
    got, call = stage.ask(dialect, breaking(dialect, fault), stream=True)
    assert got.status == 200
    assert not got.complete, "the connection is cut"
    assert TERMINAL[dialect] not in got.body
    assert error_of(dialect, got) == BROKEN[fault]
    assert (call["status"], call["outcome"], call["error"]["code"]) == (200, "truncated", BROKEN[fault])
    assert call["error"]["source"] == "upstream"
    assert call["usage_source"] == "estimated"
    assert call["usage"]["input_tokens"] > 5
    assert 0 < call["usage"]["output_tokens"] < 150
    assert call["cost_usd"] > 0


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_error_in_mid_stream_passes_once_and_the_stream_is_cut(stage: Stage, dialect: str) -> None:
    got, call = stage.ask(dialect, breaking(dialect, "mid_frame"), stream=True)
    assert (got.status, got.complete) == (200, False)
    assert b"verloaded" in got.body[-400:]
    assert TERMINAL[dialect] not in got.body
    assert b"upstream_" not in got.body, "the provider's own words are enough"
    assert (call["outcome"], call["error"]["code"]) == ("truncated", "upstream_stream_error")
    assert call["cost_usd"] > 0


@pytest.mark.parametrize("script", ["error and done", "error, then done"])
def test_the_done_behind_an_error_in_mid_stream_is_not_passed_on(stage: Stage, script: str) -> None:
    got, call = stage.play(script, stream=True)
    assert (got.status, got.complete) == (200, False)
    assert got.body.endswith(ERROR)
    assert (call["outcome"], call["error"]["code"]) == ("truncated", "upstream_stream_error")


@pytest.mark.parametrize(
    ("dialect", "status"), [("openai", 503), ("responses", 503), ("anthropic", 529), ("gemini", 503)]
)
def test_an_error_in_the_first_event_is_the_status_it_stands_for(stage: Stage, dialect: str, status: int) -> None:
    got, call = stage.ask(dialect, "[[fault first_frame]]", stream=True)
    assert (got.status, got.complete) == (status, True)
    assert got.get("content-type") == "application/json"
    assert "verloaded" in json.loads(got.body)["error"]["message"]
    assert (call["status"], call["outcome"]) == (status, "upstream_error")
    assert (call["cost_usd"], call["usage_source"]) == (0, "none")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_not_json_though_it_says_so_is_no_answer(stage: Stage, dialect: str) -> None:
    got, call = stage.ask(dialect, "[[fault garbage]]", stream=False)
    assert (got.status, got.complete) == (502, True)
    assert "not JSON" in json.loads(got.body)["error"]["message"]
    assert (call["outcome"], call["error"]["code"]) == ("failed", "upstream_bad_answer")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_web_page_is_no_answer(stage: Stage, dialect: str, stream: bool) -> None:
    got, call = stage.ask(dialect, "[[fault html]]", stream=stream)
    assert (got.status, got.complete) == (502, True)
    assert (call["outcome"], call["error"]["code"]) == ("failed", "upstream_bad_answer")


@pytest.mark.parametrize("fault", ["cut", "reset", "stall"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_document_that_breaks_is_an_error_in_the_dialect(stage: Stage, dialect: str, fault: str) -> None:
    got, call = stage.ask(dialect, f"[[say {TEXT}]] [[fault {fault} seconds=5]]", stream=False)
    assert (got.status, got.complete) == (504 if fault == "stall" else 502, True)
    assert "error" in json.loads(got.body)
    assert got.get("x-should-retry") == "true"
    assert (call["outcome"], call["error"]["code"]) == ("failed", BROKEN[fault])


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_upstream_that_says_nothing_is_given_up(stage: Stage, dialect: str, stream: bool) -> None:
    got, call = stage.ask(dialect, "[[wait 5]]", stream=stream)
    assert got.status == 504
    assert (call["outcome"], call["error"]["code"]) == ("failed", "upstream_first_byte_timeout")


# -- no connection


@pytest.mark.parametrize(
    ("upstream", "status", "code"),
    [
        ("refused", 502, "upstream_connect_failed"),
        ("unnamed", 502, "upstream_dns_failed"),
        ("not-tls", 502, "upstream_tls_failed"),
        ("full", 504, "upstream_connect_timeout"),
    ],
)
def test_without_a_connection_nothing_was_sent_and_nothing_costs(
    stage: Stage, upstream: str, status: int, code: str
) -> None:
    got, call = stage.play("", upstream=upstream)
    assert got.status == status
    error = json.loads(got.body)["error"]
    assert (error["code"], error["type"]) == (code, "server_error")
    assert got.get("x-should-retry") == "true"
    assert (call["outcome"], call["error"]["code"], call["error"]["source"]) == ("failed", code, "upstream")
    assert (call["cost_usd"], call["usage_source"]) == (0, "none")
    (attempt,) = call["attempts"]
    assert attempt["upstream"] == upstream


# -- framing and connections


def connection_of(stage: Stage) -> int:
    return stage.up.seen[-1].connection


def test_connections_are_kept(stage: Stage) -> None:
    stage.play("")
    first = connection_of(stage)
    stage.play("")
    assert connection_of(stage) == first


@pytest.mark.parametrize(
    "script", ["two answers", "two answers in chunks", "closes later", "resets later", "until close", "1.0"]
)
def test_a_connection_that_cannot_be_trusted_is_not_used_again(stage: Stage, script: str) -> None:
    got, _ = stage.play(script)
    assert (got.status, got.body, got.complete) == (200, ANSWER, True)
    used = connection_of(stage)
    time.sleep(0.3)  # in which the upstream closes
    got, call = stage.play("")
    assert (got.status, got.body) == (200, ANSWER)
    assert connection_of(stage) != used
    assert len(call["attempts"]) == 1


def test_an_answer_above_a_megabyte_passes_and_is_metered(stage: Stage) -> None:
    got, call = stage.play("large")
    assert (len(got.body), got.complete) == (len(ANSWER) + 3_000_000, True)
    assert json.loads(got.body) == json.loads(ANSWER)
    assert (call["usage"]["input_tokens"], call["usage_source"]) == (5, "provider")


def test_a_document_shorter_than_stated_never_looks_whole(stage: Stage) -> None:
    got, call = stage.play("stated length, cut")
    assert (got.status, call["error"]["code"]) == (502, "upstream_cut")


def test_a_stream_of_stated_length_keeps_it(stage: Stage) -> None:
    got, call = stage.play("stream, stated length", stream=True, options=b',"stream_options":{"include_usage":true}')
    assert (got.body, got.complete, got.get("transfer-encoding")) == (CHUNK + USAGE + DONE, True, "")
    assert call["usage_source"] == "provider"


def test_a_stream_shorter_than_stated_is_cut_even_behind_its_end(stage: Stage) -> None:
    script = "stream, stated length, cut at its end"
    got, call = stage.play(script, stream=True, options=b',"stream_options":{"include_usage":true}')
    assert (got.status, got.complete) == (200, False)
    assert got.body == CHUNK + USAGE + DONE
    assert call["usage_source"] == "provider"


@pytest.mark.parametrize("script", ["no end of the chunks"])
def test_a_stream_that_said_that_it_is_over_is_over(stage: Stage, script: str) -> None:
    got, call = stage.play(script, stream=True)
    assert (got.body, got.complete) == (CHUNK + DONE, True)
    assert (call["outcome"], call["usage_source"]) == ("ok", "injected")


def test_what_comes_without_end_behind_the_end_is_bounded(stage: Stage) -> None:
    with RawClient(stage.port) as client:
        client.send(
            post(
                f"/scripted{CHAT}",
                b'{"model":"gpt-4o","stream":true,"messages":[]}',
                b"x-script: goes on behind the end",
            )
        )
        got = client.answer()
    assert got.status == 200
    assert got.body.startswith(CHUNK + DONE)
    (worker,) = stage.gate.pids("worker")
    assert resident(worker) < 200_000_000


def test_pings_keep_a_stream_alive_for_its_total_time_only(stage: Stage) -> None:
    began = time.monotonic()
    got, call = stage.play("only pings", stream=True)
    assert time.monotonic() - began > 3.5
    assert call["error"]["code"] == "upstream_total_timeout"
    assert (got.status, got.complete) == (504, True) if got.status != 200 else not got.complete


def test_pings_are_no_answer(stage: Stage) -> None:
    got, call = stage.play("pings, then nothing", stream=True)
    assert (got.status, got.complete) == (502, True)
    assert json.loads(got.body)["error"]["code"] == "upstream_truncated"
    assert call["outcome"] == "failed"


def test_lines_without_cr_are_seen_at_once(stage: Stage) -> None:
    got, call = stage.play("lines end with LF")
    assert (got.status, call["error"]["code"]) == (502, "upstream_bad_answer")


def resident(pid: int) -> int:
    """Bytes of memory that a process occupies."""
    with open(f"/proc/{pid}/status") as status:
        (line,) = [line for line in status if line.startswith("VmRSS")]
    return int(line.split()[1]) * 1024


def test_a_line_of_many_megabytes_passes_in_bounded_memory(stage: Stage) -> None:
    (worker,) = stage.gate.pids("worker")
    before = resident(worker)
    got, call = stage.play("long line", stream=True)
    assert got.complete
    assert got.body == CHUNK + b"data: " + b"x" * 8_000_000 + b"\n\n" + DONE
    assert resident(worker) - before < 40_000_000
    assert call["usage"]["output_tokens"] == 2


# -- asking for usage


def test_usage_is_asked_for_and_taken_out_again(stage: Stage) -> None:
    got, call = stage.play("stream", stream=True)
    assert (got.body, got.complete) == (CHUNK + CHUNK + DONE, True)
    assert b'"stream_options":{"include_usage":true}' in stage.up.received[-1]
    assert (call["usage"]["input_tokens"], call["usage"]["output_tokens"], call["usage_source"]) == (5, 2, "injected")


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 11])
def test_it_is_taken_out_at_any_split(stage: Stage, piece: int) -> None:
    null = CHUNK.replace(b'"}}]}', b'"}}],"usage":null}')
    text = CHUNK + null + null.replace(b"\n", b"\r\n") + USAGE + DONE
    stage.up.named["split"] = [Send(chunked(*[text[at : at + piece] for at in range(0, len(text), piece)]), piece=512)]
    got, call = stage.play("split", stream=True)
    assert got.complete
    assert got.body == CHUNK + CHUNK + CHUNK.replace(b"\n", b"\r\n") + DONE
    assert call["usage_source"] == "injected"


def test_an_upstream_that_rejects_it_is_asked_without_and_remembered(stage: Stage) -> None:
    got, call = stage.play("rejecting", stream=True, upstream="learning")
    assert (got.status, got.body, got.complete) == (200, CHUNK + DONE, True)
    assert got.get("x-tollgate-attempts") == "2"
    assert [attempt["status"] for attempt in call["attempts"]] == [400, 200]
    assert (call["outcome"], call["usage_source"]) == ("ok", "estimated")
    got, call = stage.play("rejecting", stream=True, upstream="learning")
    assert got.get("x-tollgate-attempts") == "1"
    assert len(stage.up.of("rejecting")) == 3
    assert b"stream_options" not in stage.up.received[-1]


def test_another_refusal_passes_as_it_is(stage: Stage) -> None:
    got, call = stage.play("choosy", stream=True)
    assert (got.status, got.body) == (400, b'{"error":{"message":"no such model"}}')
    assert (call["outcome"], len(call["attempts"]), call["cost_usd"]) == ("upstream_error", 1, 0)


# -- compressed answers


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("coding", CODERS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_compressed_answers_pass_as_they_are_and_are_metered(
    stage: Stage, dialect: str, coding: str, stream: bool
) -> None:
    plain, _ = stage.ask(dialect, f"[[say {TEXT}]]", stream=stream)
    got, call = stage.ask(dialect, f"[[say {TEXT}]]", coding, stream=stream)
    assert (got.status, got.complete, got.get("content-encoding")) == (200, True, coding)
    decoded = CODERS[coding](got.body)
    assert len(decoded) >= len(plain.body) - 50
    assert TEXT.rsplit(maxsplit=1)[-1].encode() in decoded
    assert call["outcome"] == "ok"
    assert call["usage_source"] in {"provider", "injected"}
    assert call["usage"]["output_tokens"] >= 10
    assert call["cost_usd"] > 0


def test_a_compressed_error_in_the_first_event_is_seen(stage: Stage) -> None:
    got, call = stage.play("compressed error", stream=True)
    assert (got.status, got.get("content-encoding")) == (503, "")
    assert json.loads(got.body)["error"]["message"] == "busy"
    assert call["outcome"] == "upstream_error"


def test_the_gateway_is_well(stage: Stage) -> None:
    assert stage.gate.status("/readyz") == 200
    assert "Traceback" not in stage.gate.log
    with RawClient(stage.port) as client:
        client.send(request("GET", "/scripted/v1/models"))
        assert client.answer().body == ANSWER
