"""Lanes: two attempts of one call beside each other, each with its own copy of the call. See stages.race."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from gateway.call import Attempt, Call
from gateway.errors import GatewayError, Overtaken, StreamErrored, UpstreamFault
from gateway.policy.encoding import decoder_for
from gateway.policy.retry import Cause, Verdict, of_answer, of_fault
from gateway.ports import Blame, Downstream, Exchange, Gateway, Meter
from gateway.stages.passage import is_stream
from gateway.stages.peek import PEEK_LIMIT


class Side:
    """What an attempt sees of the client: it is told to end where the client leaves, and where the other one won; not
    of what becomes of the client, where it goes on behind its call."""

    def __init__(self, down: Downstream) -> None:
        self._down = down
        self._tell: Callable[[GatewayError], None] | None = None
        self.over = self.apart = False

    @property
    def gone(self) -> bool:
        return self.over or (self._down.gone and not self.apart)

    @property
    def on_gone(self) -> Callable[[GatewayError], None] | None:
        return self._tell

    @on_gone.setter
    def on_gone(self, tell: Callable[[GatewayError], None] | None) -> None:
        if self.over or self.apart:
            raise Overtaken()  # before anything more is sent
        self._tell = tell

    def tell(self, fault: GatewayError) -> None:
        if self._tell is not None:
            self._tell(fault)


class Lane(Struct, eq=False):
    """One of the two attempts."""

    call: Call
    side: Side
    before: int  # attempts of the call that are not of this lane
    given: Any = None  # what the second one needs to go where it goes; see stages.race.Rivals
    task: Any = None
    exchange: Exchange | None = None
    fault: GatewayError | None = None
    meter: Meter | None = None
    said: int = 0  # monotonic ns: first content
    alone: bool = False  # there is no other, and will be none
    void: bool = False  # nothing was sent
    mute: bool = False  # a stream that ended before it said something
    done: bool = False
    ended: Callable[[], None] | None = None  # is called at its end, where it goes on behind the call
    late: bool = False  # its time there was over

    @property
    def well(self) -> bool:
        """Has it said something that can be passed on?"""
        if not self.done or self.exchange is None or self.exchange.status >= 400 or self.mute:
            return False
        return self.meter is None or not self.meter.failed

    @property
    def failed(self) -> bool:
        """Was it sent, and is over?"""
        return self.done and not self.void and not self.well

    @property
    def own(self) -> list[Attempt]:
        return self.call.attempts[self.before :]

    @property
    def errored(self) -> GatewayError | None:
        """What its first event said, where that is an error."""
        if self.meter is None or not self.meter.failed:
            return None
        return StreamErrored(f"error in the first event: {self.meter.failed}")

    def verdict(self, gw: Gateway) -> Verdict | None:
        """None: it did not fail."""
        if isinstance(self.fault, UpstreamFault):
            return of_fault(self.fault)
        if self.mute or (self.meter is not None and self.meter.failed):
            return Verdict(Cause.BROKEN)
        if self.exchange is not None and self.exchange.status >= 400:
            return of_answer(self.exchange.status, self.exchange.names, Blame(), gw.now())
        return None


async def hear(lane: Lane, exchange: Exchange, gw: Gateway) -> None:
    """Read until something was said, good or bad, and put it back. Raises what `read` raises."""
    call = lane.call
    kind = exchange.names.get(b"content-type", b"")
    decoder = decoder_for(exchange.names.get(b"content-encoding", b""))
    streams, other = is_stream(call, exchange, kind), call.translated
    meter = other.meter if other is not None else None  # it sees what is read
    if meter is None and streams:
        meter = gw.dialects[call.route.dialect].meter(call.route, call.asked, exchange.status, kind)
    lane.meter = meter
    held: list[bytes] = []
    try:
        while not lane.alone and sum(map(len, held)) <= PEEK_LIMIT:
            data = await exchange.read()
            if not data:
                lane.mute = streams
                break
            held.append(data)
            if meter is not None and other is None:
                meter.feed(decoder.begin(data))
                while decoder.behind:
                    await gw.turns.next()
                    meter.feed(decoder.more())
            if not streams or meter is None or meter.started or meter.failed:
                break
    except Overtaken:
        if not lane.alone:
            raise
    finally:
        if held:
            exchange.unread(b"".join(held))
    lane.said = 0 if lane.alone else gw.monotonic()
