"""How an answer of the fake goes over the wire: pace, content encodings, and every way to break it."""

from __future__ import annotations

import socket
import struct
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import brotli
import zstandard
from aiohttp import web

from gateway.testing.fake_errors import DURING
from gateway.testing.fake_script import Fault
from gateway.testing.fake_world import Ids, Latency, Wire

Sleep = Callable[[float], Awaitable[None]]

GARBAGE = b'\x00\xff<<< this is neither an event nor JSON >>>\r\n{"a":\n\n'
HTML = b"<!doctype html><html><head><title>502</title></head><body><h1>Bad gateway</h1></body></html>\n"


@dataclass(slots=True)
class Recorded:
    """A request exactly as it arrived, and what became of it."""

    method: str
    target: str  # raw request target with the query
    headers: tuple[tuple[bytes, bytes], ...]  # order, case and duplicates as received
    body: bytes  # as received: not content-decoded
    at: float
    status: int = 0
    ended: str = "open"  # answered | broken (by a fault) | client_gone
    sent: int = 0  # body bytes written
    messages: list[str] = field(default_factory=list)  # WebSocket text messages from the client

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for key, value in self.headers if key.lower() == wanted), None)


class _Encoder(Protocol):
    def add(self, data: bytes) -> bytes: ...

    def end(self) -> bytes: ...


class _Zlib:
    def __init__(self, wbits: int) -> None:
        self._state = zlib.compressobj(wbits=wbits)

    def add(self, data: bytes) -> bytes:
        return self._state.compress(data) + self._state.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self._state.flush()


class _Brotli:
    def __init__(self) -> None:
        self._state = brotli.Compressor(quality=4)

    def add(self, data: bytes) -> bytes:
        return bytes(self._state.process(data) + self._state.flush())

    def end(self) -> bytes:
        return bytes(self._state.finish())


class _Zstd:
    def __init__(self) -> None:
        self._state = zstandard.ZstdCompressor().compressobj()

    def add(self, data: bytes) -> bytes:
        return self._state.compress(data) + self._state.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def end(self) -> bytes:
        return self._state.flush()


class _Plain:
    def add(self, data: bytes) -> bytes:
        return data

    def end(self) -> bytes:
        return b""


_ENCODERS: dict[str, Callable[[], _Encoder]] = {
    "": _Plain,
    "gzip": lambda: _Zlib(31),
    "deflate": lambda: _Zlib(15),
    "br": _Brotli,
    "zstd": _Zstd,
}


class Sender:
    """Sends one answer on one request."""

    def __init__(self, request: web.BaseRequest, record: Recorded, latency: Latency, sleep: Sleep, ids: Ids) -> None:
        self._request, self._record = request, record
        self._latency, self._sleep, self._rng = latency, sleep, ids.rng
        self._encoding = request.headers.get("x-fake-encoding", "")
        self._encoder = _ENCODERS[self._encoding]()

    async def send(self, wire: Wire) -> web.StreamResponse:
        fault = wire.fault if wire.fault is not None and wire.fault.kind in DURING else None
        await self._pause(wire.wait + self._latency.first(self._rng) if wire.status == 200 else 0)
        if fault is not None and fault.kind == "html":
            wire = Wire(200, [("content-type", "text/html; charset=utf-8")], HTML)
        self._record.status = wire.status
        if wire.frames is None:
            return await self._whole(wire, fault)
        return await self._stream(wire, fault)

    async def _pause(self, seconds: float) -> None:
        if seconds > 0:
            await self._sleep(seconds)

    def _response(self, wire: Wire) -> web.StreamResponse:
        response = web.StreamResponse(status=wire.status)
        for name, value in wire.headers:
            response.headers.add(name, value)
        if self._encoding:
            response.headers["content-encoding"] = self._encoding
        return response

    async def _write(self, response: web.StreamResponse, data: bytes) -> None:
        await response.write(data)
        self._record.sent += len(data)

    async def _whole(self, wire: Wire, fault: Fault | None) -> web.StreamResponse:
        await self._pause(self._latency.pace(wire.tokens, self._rng))
        response = self._response(wire)
        body = GARBAGE if fault is not None and fault.kind == "garbage" else wire.body
        body = self._encoder.add(body) + self._encoder.end()
        response.content_length = len(body)
        await response.prepare(self._request)
        if fault is not None and fault.kind not in {"garbage", "html"}:
            await self._write(response, body[: len(body) // 2])
            if fault.kind in {"stall", "pings"}:
                await self._sleep(fault.seconds)
            self._cut(reset=fault.kind == "reset")
            return response
        if self._request.method != "HEAD":
            await self._write(response, body)
        await response.write_eof()
        self._record.ended = "answered"
        return response

    async def _stream(self, wire: Wire, fault: Fault | None) -> web.StreamResponse:
        frames = wire.frames or ()
        response = self._response(wire)
        response.headers.setdefault("content-type", "text/event-stream; charset=utf-8")
        response.headers.setdefault("cache-control", "no-cache")
        response.enable_chunked_encoding()
        await response.prepare(self._request)
        limit = -1
        if fault is not None:
            limit = 0 if fault.kind == "first_frame" else min(fault.after, len(frames) - 1)
        for number, frame in enumerate(frames):
            if fault is not None and number == limit and await self._broken(response, wire, fault, number):
                return response
            if frame.tokens:
                await self._pause(self._latency.pace(frame.tokens, self._rng))
            await self._write(response, self._encoder.add(frame.data))
        await self._write(response, self._encoder.end())
        await response.write_eof()
        self._record.ended = "answered"
        return response

    async def _broken(self, response: web.StreamResponse, wire: Wire, fault: Fault, number: int) -> bool:
        """Apply the fault; true when the stream ends with it."""
        if fault.kind in {"stall", "pings"}:
            await self._silence(response, fault)
            return False
        if fault.kind == "garbage":
            await self._write(response, self._encoder.add(GARBAGE))
            return False
        self._record.ended = "broken"
        if fault.kind in {"first_frame", "mid_frame"} and wire.broken is not None:
            await self._write(response, self._encoder.add(wire.broken(number)))
        if fault.kind in {"cut", "reset"}:
            self._cut(reset=fault.kind == "reset")
        else:
            await self._write(response, self._encoder.end())
            await response.write_eof()
        return True

    async def _silence(self, response: web.StreamResponse, fault: Fault) -> None:
        if fault.kind == "stall":
            await self._sleep(fault.seconds)
            return
        beat = 0.5
        for _ in range(round(fault.seconds / beat)):
            await self._sleep(beat)
            await self._write(response, self._encoder.add(b": ping\n\n"))

    def _cut(self, *, reset: bool) -> None:
        self._record.ended = "broken"
        transport = self._request.transport
        if transport is None:
            return
        if reset:
            raw = transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


def decoded(body: bytes, encoding: str) -> bytes:
    """A request body without its content encoding. Raises ValueError where it is not what it says."""
    try:
        if encoding in {"gzip", "deflate"}:
            return zlib.decompress(body, 47)
        if encoding == "br":
            return bytes(brotli.decompress(body))
        if encoding == "zstd":
            return zstandard.ZstdDecompressor().decompressobj().decompress(body)
    except (zlib.error, brotli.error, zstandard.ZstdError) as fault:
        raise ValueError(f"the body is not {encoding}") from fault
    return body
