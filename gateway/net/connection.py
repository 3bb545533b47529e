"""One connection of a client: requests in order, answers in order.

Theory of operation
1. A connection is read head by head (gateway.net.head). A request is handed on only when its body is complete; the next
   one is read when the answer to this one has ended, so pipelined requests are answered in order. Behind a chunked body
   the boundary of a pipelined request is not ours to guess: the connection is closed after the answer.
2. One task per connection carries its calls one after the other. It never sleeps on a timer: every wait has a deadline,
   a number that `tick` compares with the clock.
3. While a call is under way reading goes on (a client that leaves is noticed at once) up to EARLY_LIMIT bytes.
4. `ClientConnection` is the `Downstream` of its call: it frames, writes, and holds back (`drained`) for slow readers.
5. A request that is refused before its body was read is answered, and the rest of the body is swallowed for a moment,
   so that the answer is not lost in a reset.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable
from typing import Protocol

from gateway.call import Request
from gateway.config.schema import Limits
from gateway.errors import (
    BadFraming,
    BodyTooLarge,
    ClientGone,
    GatewayError,
    HeadersTooLarge,
    SlowClient,
)
from gateway.net.head import RequestHead, RequestParser, apparent, size_line, status_line
from gateway.net.repeat import HeadReader

EARLY_LIMIT = 65_536
WRITE_HIGH, WRITE_LOW = 262_144, 65_536
LINGER_SECONDS = 2.0
APPARENT_BYTES = 1024
NEVER = float("inf")

Handler = Callable[[Request, "ClientConnection", GatewayError | None], Awaitable[None]]


class Host(Protocol):
    """What a connection needs of its server."""

    loop: asyncio.AbstractEventLoop
    limits: Limits
    handle: Handler
    connections: set[ClientConnection]
    closing: bool  # every answer closes its connection

    def crowded(self, connection: ClientConnection) -> GatewayError | None: ...
    def lost(self, connection: ClientConnection) -> None: ...


class State(enum.Enum):
    HEAD = "reading a head"
    BODY = "reading a body"
    BUSY = "carrying a call"
    RAW = "relaying another protocol"
    CLOSING = "swallowing what the client still sends"


class ClientConnection(asyncio.Protocol):
    """One connection of a client; implements ports.Downstream for the call under way."""

    def __init__(self, server: Host) -> None:
        self.server = server
        self.state = State.HEAD
        self.transport: asyncio.Transport
        self.peer, self.port = "", 0
        self.gone = False
        self.on_gone: Callable[[GatewayError], None] | None = None
        self.deadline = NEVER
        self._in = b""
        self._early: list[bytes] = []  # what came behind the request under way
        self._early_size = 0
        self.resting = False  # between two requests: the deadline is that of keep-alive
        self._heads = HeadReader()
        self._head: RequestHead | None = None
        self._parser: RequestParser | None = None
        self._body: list[bytes] = []
        self._unread = b""  # the beginning of a head that was refused
        self._left = 0  # bytes of the body still to come; -1: chunked
        self._framing_bytes = 0  # of a chunked body, since the last byte of its data
        self._keep_alive = True
        self._out = b""  # head of the answer, not yet written
        self._chunked_out = False
        self._bodiless = False  # the answer has no body, whatever its headers say
        self.paused = False
        self._stuck = (0, NEVER)  # bytes in the write buffer, and until when that may stay so
        self._drain_waiter: asyncio.Future[None] | None = None
        self._next: asyncio.Future[None] | None = None
        self._ready: tuple[Request, GatewayError | None] | None = None  # read, waiting to be carried
        self._sink: Callable[[bytes], None] | None = None
        self._task: asyncio.Task[None] | None = None

    # -- connection
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.transport.set_write_buffer_limits(WRITE_HIGH, WRITE_LOW)
        address = transport.get_extra_info("peername")
        if isinstance(address, tuple):
            self.peer, self.port = address[:2]
        self.deadline = self.server.loop.time() + self.server.limits.header_seconds
        self.server.connections.add(self)
        self._task = self.server.loop.create_task(self._carry())
        if (fault := self.server.crowded(self)) is not None:
            self._refuse_unread(fault)

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        self.server.lost(self)
        if self._next is not None and not self._next.done():
            self._next.set_result(None)
        self.interrupt(ClientGone())

    def data_received(self, data: bytes) -> None:
        state = self.state
        if state is State.HEAD and not self._early:
            self._in = self._in + data if self._in else data
            self._read_head()
        elif state is State.BODY:
            self._read_body(data)
        elif state is State.RAW:
            assert self._sink is not None
            self._sink(data)
        elif state is not State.CLOSING:
            self._early.append(data)
            self._early_size += len(data)
            if self._early_size > EARLY_LIMIT:
                self.transport.pause_reading()

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        if self._drain_waiter is not None and not self._drain_waiter.done():
            self._drain_waiter.set_result(None)

    # -- reading
    def _read_head(self) -> None:
        raw = self._in
        if raw.startswith(b"\r\n"):
            raw = self._in = raw[2:]  # one empty line before a request is ignored (RFC 9112 2.2)
        limits = self.server.limits
        end = raw.find(b"\r\n\r\n")
        if end < 0 and len(raw) <= limits.header_bytes:
            if raw.count(b"\n") != raw.count(b"\r\n"):
                self._refuse_unread(BadFraming("lines must end with CRLF"))
            elif raw and self.resting:
                self.resting = False
                self.deadline = self.server.loop.time() + limits.header_seconds
            return
        try:
            if end < 0 or end > limits.header_bytes:
                raise HeadersTooLarge(f"the request head is larger than {limits.header_bytes} bytes")
            head = self._head = self._heads.read(raw[: end + 4], limits.headers)
            self._parser = self._heads.parser
            if head.length is not None and head.length > limits.body_bytes:
                raise BodyTooLarge(f"the request body is larger than {limits.body_bytes} bytes")
        except GatewayError as fault:
            self._refuse_unread(fault)
            return
        self._in = b""
        self._begin_body(head, raw[end + 4 :])

    def _begin_body(self, head: RequestHead, rest: bytes) -> None:
        self._keep_alive = head.keep_alive and not self.server.closing
        self._body = []
        self._framing_bytes = 0
        length = head.length or 0
        if not head.chunked and len(rest) >= length:
            if len(rest) > length:
                self._early.append(rest[length:])
                rest = rest[:length]
            self._dispatch(rest)
            return
        self.state = State.BODY
        self._left = -1 if head.chunked else length
        self.deadline = self.server.loop.time() + self.server.limits.body_seconds
        if head.expects_continue and not rest:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if rest:
            self._read_body(rest)

    def _read_body(self, data: bytes) -> None:
        self.deadline = self.server.loop.time() + self.server.limits.body_seconds
        if self._left < 0:
            self._read_chunks(data)
            return
        surplus = len(data) - self._left
        if surplus < 0:
            self._body.append(data)
            self._left -= len(data)
            return
        if surplus:
            self._early.append(data[self._left :])
            data = data[: self._left]
        self._body.append(data)
        self._dispatch(b"".join(self._body))

    def _read_chunks(self, data: bytes) -> None:
        parser = self._parser
        assert parser is not None
        try:
            parser.feed(data)
            piece = b"".join(parser.body)
            parser.body.clear()
            self._framing_bytes = (0 if piece else self._framing_bytes) + len(data) - len(piece)
            if self._framing_bytes > self.server.limits.header_bytes + 16 * len(piece):
                raise HeadersTooLarge("chunk extensions or trailers without end")
            self._body.append(piece)
            self._left -= len(piece)  # -1 - bytes so far
            if -1 - self._left > self.server.limits.body_bytes:
                raise BodyTooLarge(f"the request body is larger than {self.server.limits.body_bytes} bytes")
        except GatewayError as fault:
            self._refuse_unread(fault)
            return
        if parser.complete:
            self._keep_alive = self._keep_alive and not parser.pipelined
            self._dispatch(b"".join(self._body))

    def _dispatch(self, body: bytes, fault: GatewayError | None = None) -> None:
        """Hand a request to the task of this connection."""
        head = self._head
        self._body = []
        if self._parser is not None:
            self._parser.release()
            self._parser = None
        self.state = State.BUSY
        self.deadline = NEVER
        if head is None:
            method, target = apparent(self._unread)
            request = Request(method, target, (), b"", self.peer, port=self.port)
        else:
            facts = self._heads.facts
            request = Request(head.method, head.target, head.headers, body, self.peer, head.names, self.port, facts)
        self._ready = (request, fault)
        if self._next is not None and not self._next.done():
            self._next.set_result(None)

    def _refuse_unread(self, fault: GatewayError) -> None:
        """Answer what was not read to its end; nothing more is read on this connection."""
        self._unread = self._in[:APPARENT_BYTES]
        self._in = b""
        self._early.clear()
        self._keep_alive = False
        self._dispatch(b"", fault)

    # -- one call after the other
    async def _carry(self) -> None:
        loop, handle = self.server.loop, self.server.handle
        while not self.gone:
            if self.state is State.HEAD and self._early:
                early, self._early, self._early_size = self._early, [], 0
                self.transport.resume_reading()
                self.data_received(b"".join(early))
            if self._ready is None:
                self._next = loop.create_future()
                await self._next
            if self._ready is None:
                return
            (request, fault), self._ready = self._ready, None
            try:
                await handle(request, self, fault)
            finally:
                self.on_gone = None
                if self.state is State.BUSY and not self.gone:
                    self.transport.abort()  # the call ended without an end of its answer: a bug, already recorded

    def _ended(self) -> None:
        """The answer is written: read the next request, or close."""
        self._head = None
        if self._keep_alive and not self.server.closing:
            self.state = State.HEAD
            self.resting = True
            self.deadline = self.server.loop.time() + self.server.limits.keepalive_seconds
        else:
            self._linger()

    def _linger(self) -> None:
        """Close, but swallow for a moment what the client still sends, so that it reads the answer and not a reset."""
        self.state = State.CLOSING
        self.deadline = self.server.loop.time() + LINGER_SECONDS
        if self.transport.can_write_eof():
            self.transport.resume_reading()
            self.transport.write_eof()
        else:
            self.transport.close()

    def interrupt(self, fault: GatewayError) -> None:
        """Make the call under way end with `fault`, wherever it waits."""
        if self._drain_waiter is not None and not self._drain_waiter.done():
            self._drain_waiter.set_exception(fault)
        elif self.on_gone is not None:
            self.on_gone(fault)

    def idle(self) -> bool:
        """No request is under way, nor has one begun to arrive."""
        return self.state is State.HEAD and not self._in

    def tick(self, now: float) -> None:
        """Enforce the deadlines of this connection."""
        if self.paused:
            waiting = self.transport.get_write_buffer_size()
            if waiting != self._stuck[0]:
                self._stuck = (waiting, now + self.server.limits.write_seconds)
            elif self._stuck[1] <= now:
                self.transport.abort()
        if self.deadline > now:
            return
        if self.state is State.CLOSING:
            self.transport.abort()
        elif self.idle():
            self.state = State.CLOSING
            self.deadline = now + self.server.limits.write_seconds  # for a client that does not take its answer
            self.transport.close()
        elif self.state in (State.HEAD, State.BODY):
            self._refuse_unread(SlowClient("the request did not arrive in time"))

    # -- ports.Downstream
    def start(self, status: int, reason: bytes, block: bytes, length: int | None) -> None:
        head = self._head
        bodiless = status in (204, 304) or (head is not None and head.method == b"HEAD") or status == 101
        http10 = head is not None and head.http10
        self._chunked_out = length is None and not bodiless and not http10
        self._bodiless = bodiless
        if length is None and not bodiless and http10:
            self._keep_alive = False
        framing = b"transfer-encoding: chunked\r\n" if self._chunked_out else b""
        if not self._keep_alive or self.server.closing:
            self._keep_alive = False
            framing += b"connection: close\r\n"
        elif http10:
            framing += b"connection: keep-alive\r\n"
        self._out = status_line(status, reason) + block + framing + b"\r\n"

    def write(self, data: bytes) -> None:
        if self._bodiless:
            data = b""
        if self._chunked_out and data:
            data = b"".join((self._out, size_line(len(data)), data, b"\r\n"))
        elif self._out:
            data = self._out + data
        if data and not self.gone:
            self._out = b""
            self.transport.write(data)

    async def drained(self) -> None:
        if self.paused and not self.gone:
            self._drain_waiter = self.server.loop.create_future()
            self._stuck = (
                self.transport.get_write_buffer_size(),
                self.server.loop.time() + self.server.limits.write_seconds,
            )
            await self._drain_waiter
        if self.gone:
            raise ClientGone()

    def finish(self, tail: bytes = b"") -> None:
        if self._bodiless:
            tail = b""
        if self._chunked_out:
            tail = b"%x\r\n%b\r\n0\r\n\r\n" % (len(tail), tail) if tail else b"0\r\n\r\n"
            self._chunked_out = False
        if not self.gone:
            if self._out or tail:
                self.transport.write(self._out + tail)
            self._ended()
        self._out = b""

    def abort(self, tail: bytes = b"") -> None:
        """Send what stands and the tail, then cut without the end that framing promised."""
        if tail:
            self.write(tail)
        if not self.gone:
            self.state = State.CLOSING
            if self.transport.get_write_buffer_size() == 0:
                self.transport.abort()
            else:
                self.deadline = self.server.loop.time() + LINGER_SECONDS
                self.transport.close()

    def upgrade(self, sink: Callable[[bytes], None]) -> None:
        """From now on every byte of the client goes to `sink`, and `write` sends bytes as they are."""
        self._chunked_out = False
        self.write(b"")
        self._keep_alive = self._bodiless = False
        self.state = State.RAW
        self._sink = sink
        if self._early:
            early, self._early = self._early, []
            sink(b"".join(early))

    def hold(self, paused: bool) -> None:
        """Stop or go on reading from the client (the upstream is behind)."""
        self.transport.pause_reading() if paused else self.transport.resume_reading()
