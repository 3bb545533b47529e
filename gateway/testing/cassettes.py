"""Recorded provider exchanges, served again as an upstream.

A cassette is a JSON file with `request{method,url,headers,body}`, `response{status,headers,wire,body}` and, optionally,
`source` and `expected_usage`. Bodies are `{"text": ...}` or `{"base64": ...}`. `CassetteUpstream` answers a request
with the exchange that its header `x-cassette` names, or else with the next one recorded for the same method, path
and body; the body goes out in pieces cut at random, byte for byte as recorded.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import random
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from aiohttp import web

# Framing is made anew, and bodies were recorded decoded.
_NOT_REPLAYED = frozenset(
    {"connection", "content-encoding", "content-length", "date", "keep-alive", "transfer-encoding"}
)


PROVIDERS = {"anthropic": "anthropic", "gemini": "gemini", "vertex": "gemini"}  # the others speak OpenAI's
PLACES = (
    ("bedrock-agent", "opaque"),
    ("localhost:8787/google", "opaque"),
    ("bedrock-runtime", "bedrock"),
    ("/bedrock/model/", "bedrock"),
    ("api.cohere.com/v", "cohere"),
    (":11434/api/", "ollama"),
)
FAMILIES = ("openai", "anthropic", "gemini", "bedrock", "cohere", "ollama", "opaque")


@dataclass(slots=True)
class Exchange:
    name: str
    method: str
    target: str  # path and query
    host: str
    request_headers: list[tuple[str, str]]
    request_body: bytes
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    wire: str  # json | sse | ndjson | ...
    usage: list[dict[str, Any]] = field(default_factory=list)  # as recorded, nothing computed
    source: dict[str, Any] = field(default_factory=dict)

    @property
    def stream(self) -> bool:
        return self.wire in ("sse", "ndjson", "aws-eventstream")

    @property
    def family(self) -> str:
        """The API family of an upstream that speaks as this one did."""
        place = self.host + self.target
        return next(
            (family for part, family in PLACES if part in place), PROVIDERS.get(self.name.partition("/")[0], "openai")
        )


def _bytes(body: Any) -> bytes:
    if not body:
        return b""
    if "base64" in body:
        return base64.b64decode(body["base64"])
    text: str = body["text"]
    return text.encode("utf-8", "surrogatepass")


def _headers(recorded: Any) -> list[tuple[str, str]]:
    pairs = []
    for name, values in (recorded or {}).items():
        if name.lower() not in _NOT_REPLAYED:
            pairs += [(name, value) for value in ([values] if isinstance(values, str) else values)]
    return pairs


def load(path: Path) -> Exchange:
    """Raises KeyError or ValueError for what is not a cassette."""
    data = json.loads(path.read_text())
    request, response = data["request"], data["response"]
    url = urlsplit(request["url"])
    return Exchange(
        name=f"{path.parent.name}/{path.name}",
        method=request["method"],
        target=url.path + ("?" + url.query if url.query else ""),
        host=url.netloc,
        request_headers=_headers(request.get("headers")),
        request_body=_bytes(request.get("body")),
        status=int(response["status"]),
        headers=_headers(response.get("headers")),
        body=_bytes(response.get("body")),
        wire=str(response.get("wire", "")),
        usage=list(data.get("expected_usage") or ()),
        source=dict(data.get("source") or {}),
    )


def load_all(directory: Path) -> list[Exchange]:
    """Every cassette under a directory, by name."""
    return [load(path) for path in sorted(directory.rglob("*.json"))]


class CassetteUpstream:
    """`received` holds (exchange name, raw target, raw headers, body) of every request it knew."""

    def __init__(self, exchanges: Iterable[Exchange], *, seed: int = 0, largest_piece: int = 4096) -> None:
        self.received: list[tuple[str, str, Sequence[tuple[bytes, bytes]], bytes]] = []
        self._named: dict[str, Exchange] = {}
        self._queues: dict[bytes, deque[Exchange]] = defaultdict(deque)
        for exchange in exchanges:
            self._named[exchange.name] = exchange
            self._queues[_key(exchange.method, exchange.target, exchange.request_body)].append(exchange)
        self._rng, self._largest = random.Random(seed), largest_piece
        self._runner: web.ServerRunner | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        server = web.Server(self._handle, handler_cancellation=True, auto_decompress=False)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def _find(self, request: web.BaseRequest, body: bytes) -> Exchange | None:
        name = request.headers.get("x-cassette")
        if name is not None:
            return self._named.get(name)
        queue = self._queues.get(_key(request.method, request.raw_path, body))
        if not queue:
            return None
        queue.rotate(-1)  # recorded in turn, then from the start again
        return queue[-1]

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.content.read()
        exchange = self._find(request, body)
        if exchange is None:
            return web.Response(status=501, text=f"no cassette for {request.method} {request.raw_path}")
        self.received.append((exchange.name, request.raw_path, tuple(request.raw_headers), body))
        response = web.StreamResponse(status=exchange.status)
        for name, value in exchange.headers:
            response.headers.add(name, value)
        if exchange.stream:
            response.enable_chunked_encoding()
        else:
            response.content_length = len(exchange.body)
        await response.prepare(request)
        if request.method != "HEAD":
            await self._pieces(response, exchange.body)
        await response.write_eof()
        return response

    async def _pieces(self, response: web.StreamResponse, body: bytes) -> None:
        at = 0
        while at < len(body):
            size = self._rng.randint(1, self._largest)
            await response.write(body[at : at + size])
            await asyncio.sleep(0)
            at += size


def _key(method: str, target: str, body: bytes) -> bytes:
    return hashlib.sha256(f"{method} {target}\n".encode() + body).digest()
