"""One connection to an upstream, and what the connections of one target have in common.

A connection carries one exchange at a time (gateway.net.exchange) and tells it what arrives. While idle it belongs to
its origin's pool (gateway.net.pool).
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import ssl
from collections import deque
from collections.abc import Callable
from typing import Protocol

from msgspec import Struct, field

from gateway.call import Target
from gateway.config.schema import Timeouts
from gateway.net.descriptors import Descriptors
from gateway.net.repeat import AnswerReader

RENEW_SECONDS = 55.0  # a connection to a named host is not reused longer: DNS changes are followed within a minute
IDLE_SECONDS = 60.0
GONE = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class Carried(Protocol):
    """What a connection tells to the exchange that it carries."""

    def received(self, data: bytes) -> None: ...

    def ended(self) -> None: ...

    def lost(self, exc: Exception | None) -> None: ...


class Origin(Struct):
    """What a target's connections have in common."""

    target: Target
    timeouts: Timeouts
    tls: ssl.SSLContext | None
    named: bool  # host is a name, not an address
    idle: deque[UpstreamConnection]
    guard: Callable[[str], str] | None = None  # why an address must not be connected to, "" where it may; None: any may
    answers: AnswerReader = field(default_factory=AnswerReader)
    descriptors: Descriptors = field(default_factory=Descriptors)


class UpstreamConnection(asyncio.Protocol):
    """One TCP or TLS connection; carries one exchange at a time."""

    __slots__ = ("_poll", "born", "exchange", "idle_since", "loop", "lost", "on_pause", "origin", "transport", "used")

    def __init__(self, origin: Origin, loop: asyncio.AbstractEventLoop) -> None:
        self.origin = origin
        self.loop = loop
        self.exchange: Carried | None = None
        self.transport: asyncio.Transport
        self.born = self.idle_since = loop.time()
        self.lost = False
        self.used = False
        self._poll = select.poll()
        self.on_pause: Callable[[bool], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.origin.descriptors.upstreams += 1
        sock = transport.get_extra_info("socket")
        self._poll.register(sock.fileno(), select.POLLIN | select.POLLRDHUP)

    def data_received(self, data: bytes) -> None:
        if self.exchange is None:
            self.cut()  # bytes nobody asked for: this connection cannot be trusted any more
        else:
            self.exchange.received(data)

    def eof_received(self) -> bool:
        if self.exchange is not None:
            self.exchange.ended()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self.origin.descriptors.upstreams -= 1
        if self.exchange is not None:
            self.exchange.lost(exc)
        else:
            with contextlib.suppress(ValueError):
                self.origin.idle.remove(self)

    def pause_writing(self) -> None:
        if self.on_pause is not None:
            self.on_pause(True)

    def resume_writing(self) -> None:
        if self.on_pause is not None:
            self.on_pause(False)

    def usable(self, now: float) -> bool:
        """Still open as far as the kernel knows, and neither idle nor old for too long."""
        if self.lost or self.transport.is_closing() or now - self.idle_since > IDLE_SECONDS:
            return False
        if self.origin.named and now - self.born > RENEW_SECONDS:
            return False
        # The end of file, an error, or bytes nobody asked for (over TLS they may be tickets) that the loop has not seen
        # yet: an upstream that closes right behind its answer is not rare, and asking takes a third of a microsecond.
        news = self._poll.poll(0)
        return not news or (self.origin.tls is not None and not news[0][1] & GONE)

    def cut(self) -> None:
        self.lost = True
        self.transport.abort()
