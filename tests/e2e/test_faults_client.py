"""Clients that are slow, greedy or gone, against a real gateway with short limits."""

from __future__ import annotations

import contextlib
import gzip
import json
import select
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import brotli
import pytest
import zstandard

from gateway.testing.faults import Repeat, Script, Send, Wait, answer, chunked
from gateway.testing.gateway import PATIENCE, RunningGateway
from gateway.testing.raw import NoAnswer, RawAnswer, RawClient, chunks, post, request
from gateway.testing.scripted import Background, ScriptedUpstream, Seen
from tests.soon import soon

CHAT = "/v1/chat/completions"
CHUNK = b'data: {"id":"c","model":"gpt-4o","choices":[{"index":0,"delta":{"content":"Hi you"}}]}\n\n'
COUNT = b'"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}'
USAGE = b'data: {"id":"c","model":"gpt-4o","choices":[],' + COUNT + b"}\n\n"
DONE = b"data: [DONE]\n\n"
ANSWER = b'{"id":"c","model":"gpt-4o","choices":[{"index":0,"message":{"content":"Hi"}}],' + COUNT + b"}"
BODY = b'{"model":"gpt-4o","messages":[]}'
STREAM = b'{"model":"gpt-4o","stream":true,"messages":[]}'
LIMITS = {
    "header_seconds": 1.5,
    "body_seconds": 1,
    "keepalive_seconds": 1.5,
    "write_seconds": 1,
    "body_bytes": 1_000_000,
    "connections": 60,
}
SCRIPTS: dict[str, Script] = {
    "": [Send(answer(ANSWER))],
    "late": [Wait(0.3), Send(answer(b'{"late":1}'))],
    "silent": [Wait(60)],
    "half": [Send(answer(ANSWER, length=len(ANSWER) + 9)), Wait(60)],
    "paced": [Send(chunked(end=b"")), Repeat(b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK), pause=0.05)],
    "ends later": [Send(chunked(CHUNK, end=b"")), Wait(0.5), Send(chunked(USAGE, DONE).partition(b"\r\n\r\n")[2])],
    "begins later": [Wait(0.5), Send(chunked(CHUNK, USAGE, DONE))],
}


class Flood:
    """An upstream that streams as fast as it is read, and counts."""

    def __init__(self) -> None:
        self.sent = 0
        self.ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        piece = CHUNK * 600
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            self.sent = 0
            self.ended.clear()
            with peer:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
                peer.recv(65_536)
                peer.sendall(chunked(end=b""))
                try:
                    while True:
                        peer.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
                        self.sent += len(piece)
                except OSError:
                    self.ended.set()

    def __enter__(self) -> Flood:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def settles(self) -> int:
        """Bytes sent, once no more are taken."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            before = self.sent
            time.sleep(0.2)
            if before == self.sent:
                return before
        raise AssertionError(f"still sending after {self.sent} bytes")


class Stage:
    def __init__(self, up: ScriptedUpstream, flood: Flood, full: str, gate: RunningGateway) -> None:
        self.up, self.flood, self.gate = up, flood, gate
        self.port = int(gate.config["listen"].rpartition(":")[2])
        self.runs = 0

    def client(self, **options: Any) -> RawClient:
        return RawClient(self.port, **options)

    def send(self, raw: bytes) -> RawAnswer:
        with self.client() as client:
            client.send(raw)
            return client.answer()

    def ask(self, script: str = "", *, upstream: str = "openai", body: bytes = BODY) -> tuple[bytes, str]:
        """The bytes of a call, and the run that it will be found by."""
        self.runs += 1
        run = f"run-{self.runs}"
        return post(f"/run/{run}/{upstream}{CHAT}", body, b"x-script: " + script.encode()), run

    def call(self, run: str) -> dict[str, Any]:
        """The record of the one call of this run."""
        (call,) = self.gate.calls(1, run=run)
        return call

    def seen(self, script: str) -> Seen:
        """The request that asked for this script last, once it is there."""
        until = time.monotonic() + PATIENCE
        while not self.up.of(script):
            assert time.monotonic() < until, "the request never came"
            time.sleep(0.005)
        return self.up.of(script)[-1]

    def resident(self) -> int:
        """Bytes of memory that the worker occupies."""
        (worker,) = self.gate.pids("worker")
        with open(f"/proc/{worker}/status") as status:
            (line,) = [line for line in status if line.startswith("VmRSS")]
        return int(line.split()[1]) * 1024


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with ExitStack() as stack:
        up = stack.enter_context(Background(ScriptedUpstream(SCRIPTS)))
        flood = stack.enter_context(Flood())
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(2):  # its queue is full: whoever connects now waits
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        plain = {"dialect": "openai", "url": up.url, "provider": "openai"}
        drain = {**plain, "on_client_gone": "drain"}
        upstreams = {
            "openai": plain,
            "drain": {**drain, "drain_seconds": 5},
            "hasty": {**drain, "drain_seconds": 0.3},
            "stingy": {**drain, "drain_usd": 0.0000001},
            "flood": {**plain, "url": flood.url},
            "draining-flood": {**drain, "url": flood.url, "drain_usd": 50},
            "full": {**plain, "url": f"http://127.0.0.1:{full.getsockname()[1]}"},
            "anthropic": {"dialect": "anthropic", "url": up.url},
            "gemini": {"dialect": "gemini", "url": up.url},
        }
        gate = stack.enter_context(RunningGateway(upstreams, limits=LIMITS, telemetry={"log": None}))
        yield Stage(up, flood, "", gate)


def code_of(got: RawAnswer) -> str:
    return str(json.loads(got.body)["error"]["code"])


# -- slow


def test_a_head_that_does_not_end_is_given_up(stage: Stage) -> None:
    began = time.monotonic()
    with stage.client() as client:
        client.send(b"POST /v1/messages HTTP/1.1\r\nHost: gate\r\n")
        got = client.answer()
        assert client.ends() == "closed"
    assert 1.4 < time.monotonic() - began < 9  # it would be ten by itself
    assert (got.status, got.get("connection"), got.get("x-should-retry")) == (408, "close", "true")
    assert json.loads(got.body)["error"]["details"]["error_code"] == "client_too_slow"


def test_a_dripping_head_is_given_no_more_time(stage: Stage) -> None:
    with stage.client() as client:
        client.send(b"GET /v1/models HTTP/1.1\r\n")
        drops = 0
        with contextlib.suppress(ConnectionError):
            while drops < 400 and not select.select([client.socket], [], [], 0.05)[0]:
                client.send(b"X: 1\r\n")
                drops += 1
        assert drops < 400, "twenty seconds of it"
        assert client.answer().status == 408


def test_a_silent_connection_is_closed(stage: Stage) -> None:
    with stage.client() as client:
        assert client.ends(9) == "closed"


def test_an_idle_connection_is_closed_without_a_word(stage: Stage) -> None:
    with stage.client() as client:
        client.send(request("GET", "/v1/models"))
        assert client.answer().status == 200
        assert client.socket.recv(1) == b""


def test_the_time_of_a_head_begins_with_its_first_byte(stage: Stage) -> None:
    raw = request("GET", "/v1/models")
    with stage.client() as client:
        client.send(raw)
        assert client.answer().status == 200
        time.sleep(0.8)
        client.send(raw[:9])
        time.sleep(0.8)  # later than the connection might have stayed idle
        client.send(raw[9:])
        assert client.answer().status == 200


def test_a_body_that_does_not_come_is_given_up(stage: Stage) -> None:
    raw, run = stage.ask()
    with stage.client() as client:
        client.send(raw[:-5])
        got = client.answer()
        assert client.ends() == "closed"
    assert (got.status, code_of(got)) == (408, "client_too_slow")
    call = stage.call(run) if got.get("x-tollgate-run-id") else None
    assert call is None or call["outcome"] == "refused"


def test_a_body_that_comes_slowly_is_waited_for(stage: Stage) -> None:
    raw, _ = stage.ask()
    with stage.client() as client:
        client.send(raw[: -len(BODY)])
        client.send(BODY, piece=3, pause=0.15)
        assert client.answer().status == 200


def test_slow_clients_delay_nobody(stage: Stage) -> None:
    def take(_: int) -> float:
        with ExitStack() as stack:
            for _ in range(30):
                slow = stack.enter_context(stage.client())
                slow.send(b"POST /v1/chat/completions HTTP/1.1\r\nX: ")
            began = time.monotonic()
            for _ in range(20):
                assert stage.send(stage.ask()[0]).status == 200
            return time.monotonic() - began

    soon(take, 1)


def test_too_many_connections_are_told_so_and_recover(stage: Stage) -> None:
    time.sleep(0.1)
    with ExitStack() as stack:
        clients = [stack.enter_context(stage.client()) for _ in range(LIMITS["connections"] + 1)]
        got = clients[-1].answer()
        assert (got.status, got.get("retry-after"), got.get("x-should-retry")) == (503, "1", "true")
        assert code_of(got) == "overloaded"
        assert clients[-1].ends() == "closed"
        clients[0].send(request("GET", "/v1/models"))
        assert clients[0].answer().status == 200
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            if stage.send(request("GET", "/v1/models")).status == 200:
                return
        except (ConnectionError, NoAnswer):
            pass
        time.sleep(0.05)
    raise AssertionError("it never recovered")


# -- order


def test_expect_is_answered_before_the_body_is_sent(stage: Stage) -> None:
    raw = post(CHAT, BODY, b"Expect: 100-continue")
    with stage.client() as client:
        client.send(raw[: -len(BODY)])
        assert client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(BODY)
        got = client.answer()
    assert (got.status, got.body) == (200, ANSWER)
    assert b"xpect" not in stage.up.received[-1]


def test_a_body_that_is_too_large_is_not_asked_for(stage: Stage) -> None:
    with stage.client() as client:
        client.send(request("POST", CHAT, b"Expect: 100-continue", b"Content-Length: 1000001"))
        got = client.answer()
    assert (got.status, got.interim, code_of(got)) == (413, [], "request_too_large")


@pytest.mark.parametrize(
    ("path", "where"),
    [
        (CHAT, ("error", "code")),
        ("/v1/messages", ("error", "details", "error_code")),
        ("/v1beta/models/g:generateContent", ("error", "details", 0, "metadata", "code")),
    ],
)
@pytest.mark.parametrize("in_chunks", [False, True])
def test_the_413_can_be_read_while_megabytes_are_still_sent(
    stage: Stage, path: str, where: tuple[Any, ...], in_chunks: bool
) -> None:
    piece = b" " * 65_536
    head = request("POST", path, b"Transfer-Encoding: chunked" if in_chunks else b"Content-Length: 20000000")
    with stage.client() as client:
        client.send(head)
        client.send((chunks(piece, end=b"") if in_chunks else piece) * 300)
        got = client.answer()
    found: Any = json.loads(got.body)
    for key in where:
        found = found[key]
    assert (got.status, got.get("connection"), found) == (413, "close", "request_too_large")


def test_pipelined_requests_are_answered_in_order(stage: Stage) -> None:
    first, second, third = (stage.ask(script)[0] for script in ("late", "", "late"))
    with stage.client() as client:
        client.send(first + second + third[:20])
        time.sleep(0.05)
        client.send(third[20:])
        got = [client.answer().body for _ in range(3)]
    assert got == [b'{"late":1}', ANSWER, b'{"late":1}']


def test_many_pipelined_requests_wait_in_bounded_memory(stage: Stage) -> None:
    first, _ = stage.ask("late")
    many = request("GET", "/v1/models", b"X-Padding: " + b"x" * 3000)
    with stage.client() as client:
        sender = threading.Thread(target=client.send, args=(first + many * 100,), kwargs={"piece": 7000})
        sender.start()
        assert client.answer().body == b'{"late":1}'
        assert all(client.answer().body == ANSWER for _ in range(100))
        sender.join()


def test_behind_a_chunked_body_nothing_is_guessed(stage: Stage) -> None:
    before = len(stage.up.seen)
    head = request("POST", CHAT, b"Transfer-Encoding: chunked", b"x-script: late")
    with stage.client() as client:
        client.send(head + chunks(BODY) + post(CHAT, b'{"model":"smuggled","messages":[]}'))
        got = client.answer()
        assert (got.status, got.get("connection")) == (200, "close")
        assert client.ends() == "closed"
    assert len(stage.up.seen) == before + 1
    assert b"smuggled" not in b"".join(stage.up.received[before:])


# -- bodies

DEEP = b'{"model":"gpt-4o","messages":%b1%b}'
BODIES = {
    "twice model": (b'{"model":"a","messages":[],"model":"b"}', "duplicate_key"),
    "twice stream": (b'{"stream":true,"model":"a","messages":[],"stream":false}', "duplicate_key"),
    "twice max_tokens": (b'{"max_tokens":1,"model":"a","max_tokens":999,"messages":[]}', "duplicate_key"),
    "escaped twin": (b'{"model":"a","mod\\u0065l":"b","messages":[]}', "duplicate_key"),
    "twin in capitals": (b'{"model":"a","Model":"b","messages":[]}', "duplicate_key"),
    "depth": (DEEP % (b"[" * 200, b"]" * 200), "json_too_deep"),
    "great depth": (DEEP % (b"[" * 100_000, b"]" * 100_000), "json_too_deep"),
    "digits": (b'{"model":"a","messages":[],"seed":%b}' % (b"9" * 100_000), "invalid_number"),
    "exponent": (b'{"model":"a","messages":[],"seed":1e999999}', "invalid_number"),
    "NaN": (b'{"model":"a","messages":[],"temperature":NaN}', "invalid_json"),
    "no JSON": (b"model=a", "invalid_json"),
    "cut": (b'{"model":"a","messages":[', "invalid_json"),
    "trailing": (b'{"model":"a","messages":[]}x', "invalid_json"),
    "no object": (b"[1]", "not_an_object"),
    "bytes": (b'{"model":"a\xff","messages":[]}', "invalid_utf8"),
    "surrogate": (b'{"model":"\\ud800","messages":[]}', "invalid"),
    "model is no text": (b'{"model":5,"messages":[]}', "invalid_model"),
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_that_parsers_could_read_differently_are_refused(stage: Stage, name: str) -> None:
    body, code = BODIES[name]
    before = len(stage.up.seen)

    def take(_: int) -> float:
        began = time.monotonic()
        got = stage.send(post(CHAT, body))
        took = time.monotonic() - began
        assert got.status == 400
        assert code_of(got).startswith(code)
        assert (got.get("x-should-retry"), got.get("connection")) == ("false", "")
        return took

    soon(take, 0.5)
    assert len(stage.up.seen) == before


CODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "raw deflate": lambda data: zlib.compress(data, wbits=-15),
    "br": lambda data: brotli.compress(data, quality=4),  # the best takes ten seconds for the bomb
    "zstd": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("coding", CODERS)
def test_compressed_bodies_pass_as_they_are_and_are_read(stage: Stage, coding: str) -> None:
    packed = CODERS[coding](b'{"model":"gpt-4o-mini","messages":[]}')
    name = coding.removeprefix("raw ").encode()
    got = stage.send(post(f"/run/{name.decode()}-{len(packed)}{CHAT}", packed, b"Content-Encoding: " + name))
    assert got.status == 200
    assert stage.up.received[-1].endswith(b"\r\n\r\n" + packed)
    assert b"Content-Encoding: " + name in stage.up.received[-1]
    assert stage.call(f"{name.decode()}-{len(packed)}")["model_requested"] == "gpt-4o-mini"


@pytest.mark.parametrize("coding", CODERS)
def test_a_compressed_stream_is_not_asked_for_usage(stage: Stage, coding: str) -> None:
    packed = CODERS[coding](STREAM)
    name = coding.removeprefix("raw ").encode()
    stage.send(post(CHAT, packed, b"Content-Encoding: " + name, b"x-script: begins later"))
    assert stage.up.received[-1].endswith(b"\r\n\r\n" + packed)


@pytest.mark.parametrize("coding", CODERS)
def test_what_hides_in_compression_is_found(stage: Stage, coding: str) -> None:
    name = b"Content-Encoding: " + coding.removeprefix("raw ").encode()
    got = stage.send(post(CHAT, CODERS[coding](BODIES["twice model"][0]), name))
    assert (got.status, code_of(got)) == (400, "duplicate_key")


@pytest.mark.parametrize("coding", CODERS)
def test_bombs_are_refused_in_bounded_memory(stage: Stage, coding: str) -> None:
    before = stage.resident()
    bomb = CODERS[coding](b'{"model":"a","messages":["' + b"x" * 200_000_000 + b'"]}')
    assert len(bomb) < 1_000_000
    got = stage.send(post(CHAT, bomb, b"Content-Encoding: " + coding.removeprefix("raw ").encode()))
    assert (got.status, code_of(got)) == (400, "invalid_encoding")
    assert stage.resident() - before < 100_000_000


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (b"gzip", BODY),
        (b"gzip", gzip.compress(BODY, mtime=0)[:-12]),
        (b"gzip, br", BODY),
        (b"compress", BODY),
        (b"br", BODY),
    ],
)
def test_what_cannot_be_decoded_cannot_be_judged(stage: Stage, coding: bytes, body: bytes) -> None:
    before = len(stage.up.seen)
    got = stage.send(post(CHAT, body, b"Content-Encoding: " + coding))
    assert (got.status, code_of(got)[:8]) == (400, "invalid_")
    assert len(stage.up.seen) == before


def test_where_no_tokens_pass_any_coding_does(stage: Stage) -> None:
    got = stage.send(post("/v1/files", b"anything", b"Content-Encoding: aws-chunked"))
    assert got.status == 200


# -- readers


def test_a_reader_that_stops_stops_the_upstream(stage: Stage) -> None:
    before = stage.resident()
    raw, run = stage.ask(upstream="flood", body=STREAM)
    with stage.client(receive_buffer=16_384) as client:
        client.send(raw)
        assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 OK")
        held = stage.flood.settles()
        assert held < 12_000_000, "what the kernels of both sides and two small buffers hold"
        assert stage.resident() - before < 12_000_000
        for _ in range(300):
            client.more()
        assert stage.flood.settles() > held, "it goes on when the reader does"
        assert stage.flood.ended.wait(20), "and who takes nothing for too long is cut"
    call = stage.call(run)
    assert (call["outcome"], call["error"]["code"]) == ("cancelled", "client_gone")
    assert (call["usage_source"], call["cost_usd"] > 0) == ("estimated", True)


def test_a_reader_that_leaves_while_it_is_waited_for(stage: Stage) -> None:
    raw, run = stage.ask(upstream="flood", body=STREAM)
    with stage.client(receive_buffer=16_384) as client:
        client.send(raw)
        client.until(b"\r\n\r\n")
        stage.flood.settles()
        client.reset()
        assert stage.flood.ended.wait(20)
    assert stage.call(run)["outcome"] == "cancelled"


def test_a_reader_that_leaves_while_it_is_waited_for_is_drained_for(stage: Stage) -> None:
    raw, run = stage.ask(upstream="draining-flood", body=STREAM)
    with stage.client(receive_buffer=16_384) as client:
        client.send(raw)
        client.until(b"\r\n\r\n")
        before = stage.flood.settles()
        client.reset()
        assert stage.flood.ended.wait(20), "until the bound in money"
    assert stage.flood.sent > before
    assert stage.call(run)["outcome"] == "cancelled"


# -- leaving


@pytest.fixture(params=["closes", "resets"])
def leave(request: pytest.FixtureRequest) -> Callable[[RawClient], None]:
    return RawClient.close if request.param == "closes" else RawClient.reset


def left_after(seen: Seen, moment: float) -> float:
    """Seconds until the upstream saw that it was left."""
    until = time.monotonic() + PATIENCE
    while not seen.left_at and time.monotonic() < until:
        time.sleep(0.005)
    assert seen.left_at, "the upstream was never left"
    return seen.left_at - moment


@pytest.mark.parametrize(("script", "body"), [("silent", BODY), ("silent", STREAM), ("half", BODY), ("paced", STREAM)])
def test_who_leaves_takes_the_upstream_along(
    stage: Stage, leave: Callable[[RawClient], None], script: str, body: bytes
) -> None:
    def take(_: int) -> float:
        raw, run = stage.ask(script, body=body)
        client = stage.client()
        known = len(stage.up.of(script))
        client.send(raw)
        while len(stage.up.of(script)) == known:
            time.sleep(0.005)
        seen = stage.seen(script)
        if script == "paced":
            client.until(CHUNK)
        moment = time.monotonic()
        leave(client)
        late = left_after(seen, moment)
        call = stage.call(run)
        error = call["error"]
        assert (call["outcome"], error["code"], error["source"]) == ("cancelled", "client_gone", "client")
        assert call["usage_source"] == ("provider" if script == "half" else "estimated")
        assert call["cost_usd"] is not None
        if script == "paced":
            assert call["usage"]["output_tokens"] > 0
        return late

    soon(take, 0.25)


def test_who_leaves_before_there_is_a_connection_owes_nothing(stage: Stage) -> None:
    raw, run = stage.ask(upstream="full")
    with stage.client() as client:
        client.send(raw)
        stage.gate.until(stage.gate.in_flight, lambda count: count == 1)
    call = stage.call(run)
    assert (call["outcome"], call["cost_usd"], call["usage_source"]) == ("cancelled", 0, "none")


def test_who_leaves_right_away(stage: Stage, leave: Callable[[RawClient], None]) -> None:
    raw, run = stage.ask("silent")
    client = stage.client()
    client.send(raw)
    leave(client)
    time.sleep(0.1)
    calls = stage.gate.calls(0, run=run)
    assert all(call["outcome"] == "cancelled" for call in calls)


def begun(stage: Stage, script: str, upstream: str, *, heard: bool) -> tuple[RawClient, str]:
    """A client whose stream the upstream was asked for, and of which it has a piece where `heard`; and its run."""
    raw, run = stage.ask(script, upstream=upstream, body=STREAM)
    known = len(stage.up.of(script))
    client = stage.client()
    client.send(raw)
    while len(stage.up.of(script)) == known:
        time.sleep(0.005)
    if heard:
        client.until(CHUNK)
    return client, run


@pytest.mark.parametrize("script", ["ends later", "begins later"])
def test_what_was_left_can_be_drained_for_its_usage(
    stage: Stage, leave: Callable[[RawClient], None], script: str
) -> None:
    client, run = begun(stage, script, "drain", heard=script == "ends later")
    leave(client)
    call = stage.call(run)
    assert (call["outcome"], call["usage_source"]) == ("cancelled", "injected")
    assert (call["usage"]["input_tokens"], call["usage"]["output_tokens"]) == (5, 2)
    assert stage.up.of(script)[-1].left_at == 0


@pytest.mark.parametrize(("upstream", "script"), [("hasty", "paced"), ("hasty", "silent"), ("stingy", "paced")])
def test_draining_has_bounds(stage: Stage, upstream: str, script: str) -> None:
    def take(_: int) -> float:
        client, run = begun(stage, script, upstream, heard=script == "paced")
        moment = time.monotonic()
        client.close()
        late = left_after(stage.seen(script), moment)
        call = stage.call(run)
        assert (call["outcome"], call["usage_source"]) == ("cancelled", "estimated")
        return late

    soon(take, 2)


def test_the_gateway_is_well(stage: Stage) -> None:
    assert stage.gate.status("/readyz") == 200
    assert "Traceback" not in stage.gate.log
    assert stage.send(stage.ask()[0]).status == 200
    stage.gate.until(stage.gate.in_flight, lambda count: count == 0)
