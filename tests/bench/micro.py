"""`python -m tests.bench.micro [--rounds N]`: microseconds of CPU per single operation of a worker, and of the whole.

A worker as it runs in production, without its sockets. Thread CPU time, in a warm loop: what an operation costs when
everything it needs is in the processor's caches. In service, between system calls, the same takes more.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import orjson
from msgspec import structs

from gateway.app import Worker
from gateway.call import Attempt, Call, Request
from gateway.config.schema import Config
from gateway.dialects.body import read_object, scan
from gateway.journal.convert import Converter
from gateway.journal.read import JournalReader
from gateway.journal.record import encode
from gateway.journal.segment import frame
from gateway.net.head import RequestParser, ResponseParser, read_request_head, read_response_head
from gateway.pipeline import serve
from gateway.policy.forward import request_head
from gateway.process.control import Configure
from gateway.stages.account import account
from gateway.stages.arrive import arrive, new_call
from tests.bench.bodies import bodies
from tests.bench.slices import CLAUDE
from tests.bench.targets import CHAT

BATCH = 200
ROUNDS = 7
SDK = ("user-agent: OpenAI/Python 2.8.0", "x-stainless-lang: python", "x-stainless-async: async:asyncio")
OPENAI_ANSWER = orjson.dumps(
    {
        "id": "chatcmpl-BenchAbCdEfGhIjKlMnOpQrStUv",
        "object": "chat.completion",
        "created": 1795384800,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "A circuit breaker stops calls to a failing dependency, and probes it.",
                    "refusal": None,
                    "annotations": [],
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 220,
            "completion_tokens": 24,
            "total_tokens": 244,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        },
        "service_tier": "default",
        "system_fingerprint": "fp_bench000001",
    }
)
ANTHROPIC_ANSWER = orjson.dumps(
    {
        "id": "msg_01BenchAbCdEfGhIjKlMnOp",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5-20250929",
        "content": [{"type": "text", "text": "A circuit breaker stops calls to a failing dependency, and probes it."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 220, "cache_read_input_tokens": 0, "output_tokens": 24},
    }
)
CHUNK = (
    b'data: {"id":"chatcmpl-BenchAbCdEfGhIjKlMnOp","object":"chat.completion.chunk","created":1795384800,'
    b'"model":"gpt-4o-mini-2024-07-18","choices":[%b]%b}\n\n'
)
EVENTS = [
    *(CHUNK % (b'{"index":0,"delta":{"content":" tok%02d"},"finish_reason":null}' % n, b"") for n in range(63)),
    CHUNK % (b'{"index":0,"delta":{},"finish_reason":"stop"}', b""),
    CHUNK % (b"", b',"usage":{"prompt_tokens":220,"completion_tokens":64,"total_tokens":284}'),
    b"data: [DONE]\n\n",
]


def response(body: bytes, kind: str = "application/json") -> bytes:
    """An answer's head with the headers providers send."""
    lines = (
        "HTTP/1.1 200 OK",
        f"content-type: {kind}",
        "date: Sun, 22 Nov 2026 22:00:00 GMT",
        "server: mock",
        "openai-organization: org-bench",
        "openai-processing-ms: 12",
        "openai-version: 2020-10-01",
        "x-ratelimit-limit-requests: 10000",
        "x-ratelimit-limit-tokens: 2000000",
        "x-ratelimit-remaining-requests: 9999",
        "x-ratelimit-remaining-tokens: 1999700",
        "x-request-id: req_0123456789abcdef0123456789abcdef",
        f"content-length: {len(body)}",
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


class Wire:
    """Client, pool and exchange in one: answers at once with `pieces`, takes what is written."""

    reused = True
    paused = gone = False
    on_gone = None

    def __init__(self, head: bytes, pieces: Sequence[bytes], length: int | None) -> None:
        read = read_response_head(head, ResponseParser())
        self.status, self.reason, self.headers = read.status, read.reason, read.headers
        self.names, self.block, self.length = read.names, read.block, length
        self.pieces = pieces
        self.left: Iterator[bytes] = iter(())

    async def open(self, attempt: Any, head: bytes, body: bytes, owner: Any, **options: Any) -> Wire:
        self.left = iter(self.pieces)
        return self

    async def read(self) -> bytes:
        return next(self.left, b"")

    async def relay(self, sink: Callable[[bytes], bool]) -> bool:
        return all(sink(piece) for piece in self.left)

    async def drained(self) -> None: ...

    def start(self, status: int, reason: bytes, block: bytes, length: int | None) -> None:
        if status != 200:
            raise SystemExit(f"the pipeline answered {status}")

    def write(self, data: bytes) -> None: ...
    def finish(self, tail: bytes = b"") -> None: ...
    def abort(self, tail: bytes = b"") -> None:
        raise RuntimeError("the call failed")

    def expire_in(self, seconds: float) -> None: ...
    def heard(self) -> None: ...
    def close(self) -> None: ...


class Bench:
    """Prepared calls of one kind, and the operations on them in the order of a call's life."""

    def __init__(
        self, worker: Worker, path: str, body: bytes, answer: bytes, headers: Sequence[str], rounds: int
    ) -> None:
        self.gw, self.answer, self.rounds = worker.gateway, answer, rounds
        lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1:8787", "content-type: application/json", *headers]
        self.head = "\r\n".join([*lines, f"content-length: {len(body)}"]).encode() + b"\r\n\r\n"
        self.body = body
        self.answer_head = response(answer)
        self.serial = 0

    def request(self) -> Request:
        self.serial += 1
        body = self.body.replace(b"@" * 8, b"%08x" % self.serial)
        head = read_request_head(self.head, RequestParser())
        return Request(head.method, head.target, head.headers, body, "127.0.0.1", head.names, 40_000 + self.serial % 32)

    def timed(self, prepare: Callable[[], Any], work: Callable[[Any], object], batch: int = BATCH) -> float:
        """Median over the rounds, µs per item; `prepare` makes an item outside of the time."""
        times = []
        for _ in range(self.rounds):
            items = [prepare() for _ in range(batch)]
            began = time.thread_time_ns()
            for item in items:
                work(item)
            times.append((time.thread_time_ns() - began) / batch / 1e3)
        return statistics.median(times)

    def called(self, until: str) -> Call:
        """A call that has come so far."""
        gw = self.gw
        call = new_call(self.request(), gw)
        if until == "new":
            return call
        if until == "routed":
            call.route = gw.routes.resolve(call.request.method, call.request.path, "")
            return call
        if until == "read":
            call = self.called("routed")
            call.asked = gw.dialects[call.route.dialect].read(call.route, call.request)
            return call
        arrive(call, gw)
        if until == "arrived":
            return call
        call.meter = self.meter(call)
        call.meter.feed(self.answer)
        call.attempts = [self.attempt(call)]
        call.status, call.ended = 200, gw.monotonic()
        if until == "metered":
            return call
        account(call, call.meter, gw)
        if until == "learned":
            gw.identity.learn(call)
        return call

    def meter(self, call: Call) -> Any:
        return self.gw.dialects[call.route.dialect].meter(call.route, call.asked, 200, b"application/json")

    def attempt(self, call: Call) -> Any:
        from_spec = self.gw.specs[call.route.upstream]
        return Attempt(from_spec.target, self.gw.monotonic(), self.gw.monotonic(), 200, True)

    def steps(self) -> Iterator[tuple[str, float]]:
        gw, body = self.gw, self.body
        yield "request head", self.timed(lambda: self.head, lambda raw: read_request_head(raw, RequestParser()))
        yield "scan of the body", self.timed(lambda: body, scan)
        yield "object of the body, items split", self.timed(lambda: body, lambda raw: read_object(raw, ("messages",)))
        yield "new call", self.timed(self.request, lambda request: new_call(request, gw))
        yield "route", self.timed(lambda: self.called("new"), self.route)
        yield "read (dialect)", self.timed(lambda: self.called("routed"), self.read)
        yield "identify", self.timed(lambda: self.called("read"), gw.identity.identify)
        yield "journal begin", self.timed(lambda: self.called("read"), self.begin)
        yield "request head for upstream", self.timed(lambda: self.called("arrived"), self.forward)
        yield (
            "response head",
            self.timed(lambda: self.answer_head, lambda raw: read_response_head(raw, ResponseParser())),
        )
        yield "meter, feed and end", self.timed(lambda: self.called("arrived"), self.metered)
        yield "price", self.timed(lambda: self.called("accounted"), self.price)
        yield "account (meter's end, price)", self.timed(lambda: self.called("metered"), self.account)
        yield "learn", self.timed(lambda: self.called("accounted"), gw.identity.learn)
        yield "journal record", self.timed(lambda: self.called("learned"), Converter(0).record_of)
        yield "journal append, all of it", self.timed(lambda: self.called("learned"), self.append)
        wire = Wire(self.answer_head, [self.answer], len(self.answer))
        yield "the whole pipeline", self.timed(self.request, self.server(wire))

    def route(self, call: Call) -> None:
        self.gw.routes.resolve(call.request.method, call.request.path, "")

    def read(self, call: Call) -> None:
        self.gw.dialects[call.route.dialect].read(call.route, call.request)

    def begin(self, call: Call) -> None:
        call.slot = self.gw.journal.begin(call)

    def forward(self, call: Call) -> None:
        request_head(call, self.gw.specs[call.route.upstream], len(call.request.body))

    def metered(self, call: Call) -> None:
        meter = self.meter(call)
        meter.feed(self.answer)
        meter.end()

    def price(self, call: Call) -> None:
        answer = call.answer
        assert answer is not None
        assert answer.usage is not None
        provider = self.gw.specs[call.route.upstream].target.provider
        self.gw.prices.price(provider, answer.model, answer.usage, call.started_at / 1e9, answer.pricing)

    def account(self, call: Call) -> None:
        account(call, call.meter, self.gw)

    def append(self, call: Call) -> None:
        self.gw.journal.append(call, call.slot)

    def server(self, wire: Wire) -> Callable[[Request], None]:
        gw: Any = structs.replace(self.gw, upstreams=wire)
        down: Any = wire

        def work(request: Request) -> None:
            try:
                serve(request, down, gw).send(None)
            except StopIteration:
                return
            raise RuntimeError("the pipeline waits, though everything is there")

        return work


def streams(bench: Bench) -> Iterator[tuple[str, float]]:
    """A stream of 66 events, as one piece and as 66."""
    head = response(b"", "text/event-stream").replace(b"content-length: 0", b"transfer-encoding: chunked")
    whole = b"".join(EVENTS)

    def fed(pieces: Sequence[bytes]) -> Callable[[Call], None]:
        def work(call: Call) -> None:
            meter = bench.gw.dialects[call.route.dialect].meter(call.route, call.asked, 200, b"text/event-stream")
            for piece in pieces:
                meter.feed(piece)
            meter.end()

        return work

    for name, pieces in (("one piece", [whole]), ("66 pieces", EVENTS)):
        yield f"meter of 66 events in {name}", bench.timed(lambda: bench.called("arrived"), fed(pieces), 50)
        yield f"the whole pipeline, {name}", bench.timed(bench.request, bench.server(Wire(head, pieces, None)), 50)


def recorded(bench: Bench, journal: Path) -> Iterator[tuple[str, float]]:
    """The journal's other side, and its parts."""
    record = Converter(0).record_of(bench.called("learned"))
    yield "bytes of a record", float(len(frame(encode(record), 0)))
    yield "encode, with checksum", bench.timed(lambda: record, lambda each: frame(encode(each), 0))
    reader, began, count = JournalReader(journal), time.thread_time_ns(), 0
    while batch := reader.read():
        count += len(batch)
    reader.close()
    yield f"read a record ({count:,} of them)", (time.thread_time_ns() - began) / max(count, 1) / 1e3


@contextmanager
def worker_in(
    place: Path,
    new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
    limits: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[Worker]:
    state = {name: place / name for name in ("state", "journal", "inflight")}
    for directory in state.values():
        directory.mkdir()
    url = "https://api.%s.com"
    upstreams = {
        "openai": {"dialect": "openai", "url": url % "openai"},
        "anthropic": {"dialect": "anthropic", "url": url % "anthropic"},
    }
    first = Configure(
        config=msgspec.convert({"upstreams": upstreams, "state": str(state["state"]), **limits}, Config),
        generation=1,
        state=str(state["state"]),
        inflight=str(state["inflight"]),
        journal=str(state["journal"]),
        listen="127.0.0.1:8787",
        admin="127.0.0.1:8788",
        index=0,
    )
    loop = new_loop()
    worker = Worker(loop, first)
    try:
        yield worker
    finally:
        loop.run_until_complete(worker.close())
        loop.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.micro", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    made = bodies()
    with tempfile.TemporaryDirectory() as directory, worker_in(Path(directory)) as worker:
        chat = Bench(worker, CHAT, made["chat_new"], OPENAI_ANSWER, SDK, rounds)
        stream = Bench(worker, CHAT, made["chat_stream"], OPENAI_ANSWER, SDK, rounds)
        agent = Bench(worker, "/v1/messages", made["agent"], ANTHROPIC_ANSWER, CLAUDE, rounds)
        loads = agent.timed(lambda: agent.body, orjson.loads, 20)
        for title, steps in (
            ("JSON, 1 KB, every call a new run", chat.steps()),
            ("SSE, 66 events", streams(stream)),
            ("a coding agent's body of 300 KB", agent.steps()),
            ("", iter([("orjson.loads of it", loads)])),
            ("journal", recorded(chat, Path(directory) / "journal")),
        ):
            if title:
                print(f"\n{title}")
            for name, value in steps:
                print(f"  {name:34}{value:10.2f}", flush=True)


if __name__ == "__main__":
    main()
