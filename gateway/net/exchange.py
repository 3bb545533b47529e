"""The upstream side: one connection, one exchange at a time.

Theory of operation
1. `Pools.open` (gateway.net.pool) sends a request in one piece and waits for the head of the answer. The waiting is one
   future, woken by the protocol; no task, no wait_for.
2. An `UpstreamExchange` owns its connection until `close`. A connection goes back to its pool only when the answer
   ended exactly where its framing said, keep-alive holds, and no byte follows; otherwise it is cut.
3. Deadlines are numbers on the exchange (loop time); `Pools.tick` fails what is overdue. Connect has its own.
4. Reading is paused when the reader is behind by more than HIGH_WATER: a slow client slows its upstream.
5. While an answer is relayed its pieces go straight to a sink, in the callback that brought them; the reader is woken
   only at the end, at a fault, or when the sink wants no more. A stream's event so costs no turn of the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

import httptools

from gateway.call import Waits
from gateway.config.schema import Timeouts
from gateway.errors import BadAnswer, ClientGone, GatewayError, StreamStalled, UpstreamReset, UpstreamTimeout
from gateway.net.head import Header, ResponseHead, ResponseParser, check_beginning, whole_chunk
from gateway.net.origin import UpstreamConnection

HIGH_WATER = 262_144
AGAIN_SECONDS = 0.05  # between two looks at who still waits for an answer that its client has left
NEVER = float("inf")
SAID_NOTHING = "upstream_first_content_timeout"
NO_NAMES: Mapping[bytes, bytes] = MappingProxyType({})
NO_FACTS: dict[str, Any] = {}


class Owner(Protocol):
    """What an exchange needs of the pools it came from."""

    loop: asyncio.AbstractEventLoop
    active: set[UpstreamExchange]

    def give_back(self, connection: UpstreamConnection) -> None: ...


class UpstreamExchange:
    """One answer in progress. `read` gives the body as it arrives; `close` may be called at any time, repeatedly.

    No msgspec Struct: setting an attribute of one costs thirty bytecodes, and an answer sets some twenty."""

    __slots__ = (
        "_buffered", "_connection", "_head_bytes", "_interruption", "_no_body", "_parser", "_paused", "_pieces",
        "_remaining", "_sink", "_waiter", "block", "complete", "deadline", "facts", "fault", "head", "idle_timeout",
        "last_deadline", "length", "names", "patience", "pools", "raw", "reason", "reused", "status", "total_deadline",
    )  # fmt: skip

    def __init__(self, pools: Owner, no_body: bool) -> None:
        self.pools, self._no_body = pools, no_body
        self.patience: Callable[[], float] | None = None  # seconds to wait for the head when the client has left
        self.head: ResponseHead | None = None
        self.status = 0  # this, and what follows up to the length, are those of the head once it is there
        self.reason = self.block = b""
        self.names, self.facts = NO_NAMES, NO_FACTS
        self.length: int | None = None
        self.fault: GatewayError | None = None
        self.complete = self.reused = self.raw = False
        self.deadline = self.idle_timeout = NEVER
        self.total_deadline = NEVER  # the earlier one of the first content, until that was heard
        self.last_deadline = 0.0  # from then on; 0: the same
        self._interruption: GatewayError | None = None
        self._parser: ResponseParser | None = None  # of a head that is not known, or a chunked body
        self._head_bytes, self._pieces = b"", list[bytes]()
        self._buffered, self._paused = 0, False
        self._remaining: int | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Callable[[bytes], bool] | None = None
        self._connection: UpstreamConnection | None = None

    # -- what ports.Exchange promises
    @property
    def headers(self) -> Sequence[Header]:
        return self.head.headers if self.head is not None else ()

    async def read(self) -> bytes:
        while not self._pieces:
            if self.complete:
                return b""
            if self.fault is not None:
                raise self.fault
            await self.moved()
        return self._gathered()

    async def relay(self, sink: Callable[[bytes], bool]) -> bool:
        while True:
            if self._pieces:
                if not sink(self._gathered()):
                    return False
            elif self.complete:
                return True
            elif self.fault is not None:
                raise self.fault
            else:
                self._sink = sink
                try:
                    await self.moved()
                    if self._sink is None:
                        return False
                finally:
                    self._sink = None

    def _gathered(self) -> bytes:
        """What has arrived and was not read; reading goes on."""
        pieces = self._pieces
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._buffered = 0
        if self._paused and self._connection is not None:
            self._paused = False
            self.deadline = min(self.pools.loop.time() + self.idle_timeout, self.total_deadline)
            self._connection.transport.resume_reading()
        return piece

    async def read_within(self, seconds: float) -> bytes | None:
        if self._pieces or self.complete or self.fault is not None:
            return await self.read()
        timer = self.pools.loop.call_later(seconds, self.wake)
        try:
            await self.moved()
        finally:
            timer.cancel()
        return await self.read() if self._pieces or self.complete or self.fault is not None else None

    def heard(self) -> None:
        if self.total_deadline < self.last_deadline:
            self.total_deadline = self.last_deadline
            self.deadline = min(self.pools.loop.time() + self.idle_timeout, self.total_deadline)

    def unread(self, data: bytes) -> None:
        self._pieces.insert(0, data)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        self.pools.active.discard(self)
        if self._parser is not None:
            self._parser.release()
        if connection is None:
            return
        connection.exchange = None
        head = self.head
        clean = self.complete and head is not None and head.keep_alive and not self.raw
        if clean and not connection.lost:
            self.pools.give_back(connection)
        else:
            connection.cut()

    # -- towards the pool
    def allow(self, waits: Waits | Timeouts) -> None:
        """From now on its deadlines run."""
        now = self.pools.loop.time()
        self.last_deadline = now + waits.total
        self.total_deadline = now + min(waits.first_content, waits.total)
        self.deadline = min(now + waits.first_byte, self.total_deadline)
        self.idle_timeout = waits.idle

    def send(self, connection: UpstreamConnection, data: bytes) -> None:
        self._connection = connection
        self.reused = connection.used
        connection.used = True
        connection.exchange = self
        if connection.lost or connection.transport.is_closing():
            self.fail(UpstreamReset("the upstream closed the connection at once"))
        else:
            connection.transport.write(data)

    async def answered(self) -> None:
        while self.head is None:
            if self.fault is not None:
                raise self.fault
            if self._interruption is None:
                self._waiter = self.pools.loop.create_future()
                await self._waiter
            if self.head is None:  # else the news is for whoever reads on: an answer that is there can be accounted for
                self._told()

    def fail(self, fault: GatewayError) -> None:
        """Make the reader see `fault` once it has read what came before."""
        if self.fault is None and not self.complete:
            self.fault = fault
            self.wake()

    def interrupt(self, fault: GatewayError) -> None:
        """Make the reader's next wait raise `fault`, once; the answer stays readable (the client left)."""
        if isinstance(fault, ClientGone) and self._waits_on():
            self.pools.loop.call_later(AGAIN_SECONDS, self._look_again, fault)
        else:
            self._interruption = fault
            self.wake()

    def _look_again(self, fault: ClientGone) -> None:
        """Whoever else waited for the answer may have left as well."""
        if self.head is None and self in self.pools.active:
            self.interrupt(fault)

    def _waits_on(self) -> bool:
        """Is the head still waited for, though the client has left?"""
        seconds = self.patience() if self.patience is not None and self.head is None else 0.0
        if 0 < seconds < NEVER:
            self.total_deadline = min(self.total_deadline, self.pools.loop.time() + seconds)
            self.last_deadline = self.total_deadline
            self.deadline = min(self.deadline, self.total_deadline)
        return seconds > 0

    def overdue(self) -> None:
        if self.head is None:
            self.fail(UpstreamTimeout("the upstream did not begin to answer", code="upstream_first_byte_timeout"))
        elif self.deadline < self.total_deadline:
            self.fail(StreamStalled("the upstream stopped sending"))
        elif self.total_deadline < self.last_deadline:
            self.fail(UpstreamTimeout("the upstream began to answer, and said nothing", code=SAID_NOTHING))
        else:
            self.fail(UpstreamTimeout("the answer took too long as a whole", code="upstream_total_timeout"))

    def expire_in(self, seconds: float) -> None:
        """The answer said that it is over; wait for its framing to end only so long."""
        self.idle_timeout = seconds
        self.deadline = self.pools.loop.time() + seconds

    def upgraded(self, on_pause: Callable[[bool], None]) -> Callable[[bytes], None]:
        assert self._connection is not None
        self.deadline = self.total_deadline = self.idle_timeout = NEVER
        self._connection.on_pause = on_pause
        return self._connection.transport.write

    # -- from the connection
    def received(self, data: bytes) -> None:
        deadline = self.pools.loop.time() + self.idle_timeout
        self.deadline = deadline if deadline < self.total_deadline else self.total_deadline
        sink, parser = self._sink, self._parser
        if sink is not None and parser is not None and parser.between_chunks and (size := whole_chunk(data)):
            if not sink(data[-2 - size : -2]):  # a stream's next event, and nothing else: the shortest way
                self._sink = None
                self.wake()
            return
        try:
            if self.head is None:
                self._receive_head(data)
            else:
                self._receive_body(data)
        except (httptools.HttpParserError, ValueError) as error:
            self.fail(BadAnswer(f"the upstream's answer is not valid HTTP: {error}"))
        if self._sink is not None:
            self._pour(self._sink)
        elif self.head is not None or self.fault is not None:
            self.wake()

    def _pour(self, sink: Callable[[bytes], bool]) -> None:
        """Give what has arrived to the sink; wake the reader if that was the last it wants, or gets."""
        if self._pieces and not sink(self._gathered()):
            self._sink = None
            self.wake()
        elif self.complete or self.fault is not None:
            self.wake()

    def _receive_head(self, data: bytes) -> None:
        raw = self._head_bytes + data
        while True:
            end = raw.find(b"\r\n\r\n")
            if end < 0:
                check_beginning(raw)
                self._head_bytes = raw
                return
            head = self._read_head(raw[: end + 4])
            raw = raw[end + 4 :]
            if head.status >= 200 or head.status == 101:
                break
        self._head_bytes = b""
        self._begin_body(head)
        if raw:
            if self._remaining == len(raw):  # the whole body came with the head: nothing is left to wait for
                self._remaining, self.complete = 0, True
                self._take(raw)
            else:
                self._receive_body(raw)

    def _read_head(self, raw: bytes) -> ResponseHead:
        """By the shape of earlier answers, or by llhttp, which a chunked body needs in any case."""
        if self._parser is not None:
            self._parser.release()  # of a 1xx: not the answer yet
            self._parser = None
        assert self._connection is not None
        head, self._parser = self._connection.origin.answers.parsed(raw)
        return head

    def _begin_body(self, head: ResponseHead) -> None:
        self.head = head
        self.status, self.reason, self.block = head.status, head.reason, head.block
        self.names, self.facts, self.length = head.names, head.facts, head.length
        if head.status == 101:
            self.raw = True
        elif self._no_body or head.status in (204, 304):
            self.complete = True
        elif head.length is not None:
            self._remaining = head.length
            self.complete = head.length == 0

    def _receive_body(self, data: bytes) -> None:
        if self.raw:
            self._take(data)
        elif self.complete:
            self._surplus()
        elif self._remaining is not None:
            self._remaining -= len(data)
            if self._remaining < 0:
                data = data[: self._remaining]
                self._surplus()
            self._take(data)
            self.complete = self._remaining <= 0
        elif self.head is not None and self.head.chunked:
            self._receive_chunks(data)
        else:
            self._take(data)  # until the connection closes

    def _receive_chunks(self, data: bytes) -> None:
        parser = self._parser
        assert parser is not None
        if parser.between_chunks and (size := whole_chunk(data)):
            self._take(data[-2 - size : -2])  # llhttp, which stands between two chunks, need not see it
            return
        try:
            parser.feed(data)
        except httptools.HttpParserError:
            if not parser.complete:
                self._collect(parser)
                raise
            self._surplus()
        self._collect(parser)
        self.complete = parser.complete
        if parser.surplus:
            self._surplus()

    def _collect(self, parser: ResponseParser) -> None:
        if parser.body:
            self._take(parser.body[0] if len(parser.body) == 1 else b"".join(parser.body))
            parser.body.clear()

    def _take(self, data: bytes) -> None:
        self._pieces.append(data)
        self._buffered += len(data)
        if self._buffered > HIGH_WATER and not self._paused and self._connection is not None:
            self._paused = True
            self.deadline = self.total_deadline  # that nothing comes is not the upstream's fault now
            self._connection.transport.pause_reading()

    def _surplus(self) -> None:
        """Bytes behind the end of the answer: the connection is not used again."""
        if self.head is not None:
            self.head.keep_alive = False

    def ended(self) -> None:
        """The upstream closed its side."""
        if self.complete or self.fault is not None:
            return
        head = self.head
        if head is None:
            self.fail(UpstreamReset("the upstream closed the connection before it answered"))
        elif self.raw:
            self.complete = True
        elif self._remaining is None and not head.chunked:
            self.complete = True
            head.keep_alive = False
        else:
            self.fail(UpstreamReset("the upstream closed in the middle of its answer", code="upstream_cut"))
        self.wake()

    def lost(self, exc: Exception | None) -> None:
        if exc is None:
            self.ended()
        elif self.head is None:
            self.fail(UpstreamReset("the upstream reset the connection before it answered"))
        else:
            self.fail(UpstreamReset("the upstream reset in the middle of its answer", code="upstream_cut"))

    async def moved(self) -> None:
        """Wait until something is new. Raises what `interrupt` brought."""
        if self._interruption is None:
            self._waiter = self.pools.loop.create_future()
            await self._waiter
        self._told()

    def _told(self) -> None:
        fault, self._interruption = self._interruption, None
        if fault is not None:
            raise fault

    def wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
