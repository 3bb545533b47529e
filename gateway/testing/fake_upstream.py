"""A fake of the LLM providers: OpenAI, Anthropic and Gemini on one port, over plain HTTP.

In process, in the running loop or (for synchronous tests) on a thread of its own:

    async with FakeUpstream(seed=1) as fake: ...      # fake.url, fake.requests
    with FakeUpstream(seed=1) as fake: ...

or as a process: `python -m gateway.testing.fake_upstream --port 9000 --latency realistic --chance 429=0.02`.

What it answers is decided by the request (`gateway.testing.fake_script`), by `script`, or drawn from the seed; how it
breaks, by `gateway.testing.fake_errors`. Every request is kept byte for byte in `requests`, and over HTTP under
`GET /__fake__/requests`; `DELETE` of the same path forgets all.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import random
import re
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

import msgspec
from aiohttp import WSMessage, web

from gateway.testing import fake_anthropic, fake_gemini, fake_models, fake_openai_chat, fake_openai_stored
from gateway.testing.fake_errors import Facts, masked, refusal
from gateway.testing.fake_openai_responses import create
from gateway.testing.fake_send import Recorded, Sender, Sleep, decoded
from gateway.testing.fake_sockets import Realtime, responses
from gateway.testing.fake_world import INSTANT, REALISTIC, Ids, Incoming, Latency, Script, Wire, World, dump

Endpoint = Callable[..., Wire]

_GEMINI: dict[str, Endpoint] = {
    "generateContent": partial(fake_gemini.generate, stream=False),
    "streamGenerateContent": partial(fake_gemini.generate, stream=True),
    "countTokens": fake_gemini.count_tokens,
    "embedContent": partial(fake_gemini.embed, batch=False),
    "batchEmbedContents": partial(fake_gemini.embed, batch=True),
}

_PATHS: list[tuple[str, str, Endpoint]] = [
    ("POST", "/v1/chat/completions", fake_openai_chat.chat),
    ("POST", "/v1/completions", fake_openai_chat.completions),
    ("POST", "/v1/embeddings", fake_openai_chat.embeddings),
    ("POST", "/v1/moderations", fake_openai_chat.moderations),
    ("POST", "/v1/responses", create),
    ("POST", "/v1/responses/compact", fake_openai_stored.compact),
    ("POST", "/v1/responses/input_tokens", fake_openai_stored.input_tokens),
    ("GET", "/v1/responses/([^/:]+)", fake_openai_stored.retrieve),
    ("DELETE", "/v1/responses/([^/:]+)", fake_openai_stored.delete),
    ("POST", "/v1/responses/([^/:]+)/cancel", fake_openai_stored.cancel),
    ("GET", "/v1/responses/([^/:]+)/input_items", fake_openai_stored.input_items),
    ("POST", "/v1/messages", fake_anthropic.messages),
    ("POST", "/v1/messages/count_tokens", fake_anthropic.count_tokens),
    ("GET", "/v1/models", fake_models.of_v1),
    ("GET", "/v1/models/([^/]+)", fake_models.one_of_v1),
    ("GET", "/v1beta/models", fake_models.of_gemini),
    ("GET", "/v1beta/models/([^/:]+)", fake_models.one_of_gemini),
    *(("POST", f"/v1beta/models/([^/:]+):{name}", endpoint) for name, endpoint in _GEMINI.items()),
]
_ROUTES = [(method, re.compile(pattern + r"\Z"), endpoint) for method, pattern, endpoint in _PATHS]


class FakeUpstream:
    """The server. All arguments but `seed` are by name; `clock` and `sleep` take virtual time."""

    def __init__(
        self,
        seed: int = 0,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        latency: Latency = INSTANT,
        script: Script | None = None,
        chances: Mapping[str, float] | None = None,
        api_keys: frozenset[str] | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Sleep = asyncio.sleep,
        keep: int | None = None,
        **world: Any,
    ) -> None:
        self.world = World(seed, clock=clock, script=script, chances=chances, **world)
        self.requests: deque[Recorded] = deque(maxlen=keep)
        self.host, self.port = host, port
        self._latency, self._api_keys, self._sleep = latency, api_keys, sleep
        self._runner: web.ServerRunner | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def reset(self, salt: int = 0) -> None:
        """Forget all requests and conversations; the next answers are the first ones again (ids too, for one salt)."""
        self.requests.clear()
        self.world.reset(salt)

    async def start(self) -> None:
        # handler_cancellation: a client that leaves must be noticed, as a provider notices it.
        server = web.Server(self._handle, handler_cancellation=True, auto_decompress=False)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake-upstream", daemon=True)
        self._thread.start()
        self._call(self.start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        assert self._thread is not None
        self._call(self.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        target = request.raw_path
        path, _, _ = target.partition("?")
        if path.startswith("/__fake__/"):
            return self._control(request)
        if request.headers.get("expect", "").lower() == "100-continue" and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        record = Recorded(request.method, target, tuple(request.raw_headers), b"", self.world.clock())
        self.requests.append(record)
        try:
            record.body = await request.content.read()
            if request.headers.get("upgrade", "").lower() == "websocket":
                return await self._socket(request, path, record)
            ids = Ids(random.Random(f"{self.world.seed}/{len(record.body)}/{target}"))
            wire = self._answer(self._incoming(request, path, record), ids)
            return await Sender(request, record, self._latency, self._sleep, ids).send(wire)
        except (asyncio.CancelledError, ConnectionResetError):
            if record.ended == "open":
                record.ended = "client_gone"
            raise

    def _incoming(self, request: web.BaseRequest, path: str, record: Recorded) -> Incoming:
        headers = {name.lower(): value for name, value in request.headers.items()}
        try:
            raw = decoded(record.body, headers.get("content-encoding", ""))
            body = msgspec.json.decode(raw) if raw else None
        except ValueError:  # msgspec's errors are ValueErrors
            body = None
        return Incoming(request.method, path, dict(request.query), headers, body)

    def _answer(self, request: Incoming, ids: Ids) -> Wire:
        dialect = _dialect(request)
        if request.path == "/" or request.path.startswith("/api/"):
            return Wire(404 if request.path != "/" else 200)
        if refused := self._unauthorized(dialect, request, ids):
            return refused
        method = "GET" if request.method == "HEAD" else request.method
        for allowed, pattern, endpoint in _ROUTES:
            match = pattern.match(request.path)
            if match and allowed == method:
                try:
                    return endpoint(self.world, request, *match.groups())
                except (AttributeError, KeyError, TypeError, ValueError) as fault:
                    # The JSON is there, its shape is not what the API takes.
                    return refusal(dialect, "invalid", Facts(detail=f"Invalid request: {fault!r}"), ids)
        detail = f"Invalid URL ({request.method} {request.path})"
        return refusal(dialect, "missing", Facts(detail=detail), ids)

    def _unauthorized(self, dialect: str, request: Incoming, ids: Ids) -> Wire | None:
        if self._api_keys is None:
            return None
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        named = (request.headers.get("x-api-key"), request.headers.get("x-goog-api-key"), request.query.get("key"))
        if self._api_keys & {bearer, *named}:
            return None
        return refusal(dialect, "auth", Facts(key=masked(request)), ids)

    async def _socket(self, request: web.BaseRequest, path: str, record: Recorded) -> web.StreamResponse:
        incoming = Incoming("GET", path, dict(request.query), {k.lower(): v for k, v in request.headers.items()}, None)
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        record.status = 101
        pace = partial(self._latency.pace, 1, random.Random(self.world.seed))

        async def say(event: Any) -> None:
            if event["type"].endswith(".delta") and (delay := pace()):
                await self._sleep(delay)
            text = dump(event).decode()
            await socket.send_str(text)
            record.sent += len(text)

        watched = _Watched(socket, record)
        if path == "/v1/realtime":
            await Realtime(self.world, incoming).run(watched, say)
        else:
            await responses(self.world, incoming, watched, say)
        record.ended = "answered"
        return socket

    def _control(self, request: web.BaseRequest) -> web.Response:
        if request.method == "DELETE":
            self.reset()
            return web.Response(status=204)
        rows = [
            {
                "method": one.method,
                "target": one.target,
                "headers": [[k.decode("latin-1"), v.decode("latin-1")] for k, v in one.headers],
                "body": base64.b64encode(one.body).decode(),
                "status": one.status,
                "ended": one.ended,
                "sent": one.sent,
            }
            for one in self.requests
        ]
        return web.Response(body=dump(rows), content_type="application/json")


class _Watched:
    """The messages of a socket, noted as they come in."""

    def __init__(self, socket: AsyncIterator[WSMessage], record: Recorded) -> None:
        self._socket, self._record = socket, record

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WSMessage:
        message = await anext(self._socket)
        self._record.messages.append(message.data)
        return message


def _dialect(request: Incoming) -> str:
    if request.path.startswith("/v1beta"):
        return "gemini"
    return "anthropic" if "anthropic-version" in request.headers or "/messages" in request.path else "openai"


async def _serve(fake: FakeUpstream) -> None:
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, done.set)
    async with fake:
        print(f"fake upstream listening on {fake.url}", flush=True)
        await done.wait()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m gateway.testing.fake_upstream", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--latency", choices=("none", "realistic"), default="none")
    parser.add_argument("--chance", action="append", default=[], metavar="KIND=P", help="e.g. 429=0.02, cut=0.01")
    parser.add_argument("--key", action="append", help="accept only these API keys")
    parser.add_argument("--keep", type=int, default=1000, help="requests to remember")
    options = parser.parse_args(argv)
    chances = {kind: float(value) for kind, _, value in (one.partition("=") for one in options.chance)}
    fake = FakeUpstream(
        options.seed,
        host=options.host,
        port=options.port,
        latency=REALISTIC if options.latency == "realistic" else INSTANT,
        chances=chances,
        api_keys=frozenset(options.key) if options.key else None,
        keep=options.keep,
    )
    asyncio.run(_serve(fake))
    return 0


if __name__ == "__main__":
    sys.exit(main())
