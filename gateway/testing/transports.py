"""Transports in memory, and the owners that the two wires of `gateway.net` need, for tests without a socket.

wire = ClientWire(loop, answer)          # a ClientConnection, its server, and what it wrote
wire.feed(b"GET / HTTP/1.1\\r\\n...")
await wire.settle()
wire.transport.written
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.call import Request, Target
from gateway.config.schema import Limits, Timeouts
from gateway.errors import GatewayError, Overloaded
from gateway.net.connection import ClientConnection, Handler
from gateway.net.exchange import UpstreamExchange
from gateway.net.origin import Origin, UpstreamConnection

Carry = Callable[[Request, ClientConnection, GatewayError | None], Awaitable[None]]
TARGET = Target("openai", "openai", "127.0.0.1", 9, False, b"")


class MemoryTransport(asyncio.Transport):
    """Keeps what is written. `held`: bytes that a slow peer leaves in the buffer."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol, *, eof: bool = True) -> None:
        super().__init__()
        self.loop, self.protocol = loop, protocol
        self.written = b""
        self.held = 0
        self.ended = ""  # eof | closed | aborted
        self.reading = True
        self._eof = eof
        self._lost = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("192.0.2.7", 40_000)}.get(name, default)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self.ended:
            self.written += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limits = high, low

    def get_write_buffer_size(self) -> int:
        return self.held

    def can_write_eof(self) -> bool:
        return self._eof

    def write_eof(self) -> None:
        self.ended = self.ended or "eof"

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.ended in ("closed", "aborted")

    def close(self) -> None:
        self._end("closed")

    def abort(self) -> None:
        self._end("aborted")

    def lose(self, error: Exception | None = None) -> None:
        """The connection is gone, now."""
        if not self._lost:
            self._lost = True
            self.protocol.connection_lost(error)

    def _end(self, how: str) -> None:
        if not self.is_closing():
            self.ended = how
            self.loop.call_soon(self.lose)


class MemoryServer:
    """What a ClientConnection needs of its server; `carry` answers the calls."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits, carry: Carry) -> None:
        self.loop, self.limits = loop, limits
        self.connections: set[ClientConnection] = set()
        self.closing = False
        self.calls: list[tuple[Request, GatewayError | None]] = []
        self._carry = carry
        self.handle: Handler = self._handle

    async def _handle(self, request: Request, down: ClientConnection, fault: GatewayError | None) -> None:
        self.calls.append((request, fault))
        await self._carry(request, down, fault)

    def crowded(self, connection: ClientConnection) -> GatewayError | None:
        many = len(self.connections) > self.limits.connections
        return Overloaded("too many connections", retry_after=1) if many else None

    def lost(self, connection: ClientConnection) -> None:
        self.connections.discard(connection)


async def at_once(request: Request, down: ClientConnection, fault: GatewayError | None) -> None:
    """Answer with the code of the fault, or with 200."""
    body = fault.code.encode() if fault is not None else b"ok"
    status = fault.status if fault is not None else 200
    down.start(status, b"Told", b"content-length: %d\r\n" % len(body), len(body))
    down.finish(body)


class ClientWire:
    """One client's connection in memory."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        carry: Carry = at_once,
        limits: Limits | None = None,
        *,
        eof: bool = True,
    ) -> None:
        self.server = MemoryServer(loop, limits or Limits(), carry)
        self.connection = ClientConnection(self.server)
        self.transport = MemoryTransport(loop, self.connection, eof=eof)
        self.connection.connection_made(self.transport)

    @property
    def calls(self) -> list[tuple[Request, GatewayError | None]]:
        return self.server.calls

    def feed(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.connection.data_received(data)

    async def settle(self) -> None:
        """Let everything run that needs no more input."""
        for _ in range(8):
            await asyncio.sleep(0)


class MemoryPools:
    """What an UpstreamExchange needs of its pools."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.active: set[UpstreamExchange] = set()
        self.kept: list[UpstreamConnection] = []

    def give_back(self, connection: UpstreamConnection) -> None:
        self.kept.append(connection)


class UpstreamWire:
    """One connection to an upstream in memory, with an exchange under way on it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, no_body: bool = False) -> None:
        self.pools = MemoryPools(loop)
        self.origin = Origin(TARGET, Timeouts(), None, False, deque())
        self.connection = UpstreamConnection(self.origin, loop)
        self.transport = MemoryTransport(loop, self.connection)
        self.connection.transport = self.transport
        self.exchange = UpstreamExchange(self.pools, no_body)
        self.exchange.send(self.connection, b"GET / HTTP/1.1\r\n\r\n")

    def feed(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.connection.data_received(data)

    def end(self) -> None:
        """The upstream closes its side."""
        if not self.transport.is_closing():
            self.connection.eof_received()

    async def body(self) -> tuple[bytes, str]:
        """(body, "" or the code of the fault that ended it)."""
        found = b""
        try:
            await self.exchange.answered()
            while piece := await self.exchange.read():
                found += piece
        except GatewayError as fault:
            return found, fault.code
        return found, ""
