"""Attempted: what one attempt of a call has of others while it is under way, and gives back when it is over."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from gateway.call import Call
from gateway.errors import BreakerOpen, UpstreamFault
from gateway.policy.bulkhead import Place
from gateway.policy.retry import Verdict, of_fault
from gateway.ports import Downstream, Exchange, Gateway
from gateway.stages.breaking import Breakers, Pass, is_held_open
from gateway.stages.bulkheads import Bulkheads
from gateway.stages.goals import Goals


class Shared(Protocol):
    """What the calls of a worker have in common; see stages.trials.RetryingTrials."""

    breakers: Breakers | None
    bulkheads: Bulkheads | None


class Attempted(Struct, eq=False):
    """The permits of its breakers, its place in a pool, and its answer."""

    _shared: Shared
    _call: Call
    _down: Downstream
    _gw: Gateway
    _goals: Goals
    hand: Exchange | None = None  # an answer that was not passed on yet
    ended: bool = False  # it was passed on to its end, or came to it
    admitted: Pass | None = None  # through the breaker
    seat: Place | None = None  # in the pool of its target
    _verdict: Verdict | None = None  # on the attempt under way
    _broke: UpstreamFault | None = None  # what ended it behind the commit point

    def enter(self, breakers: Breakers) -> None:
        """Raises BreakerOpen where another target is to be asked, or none."""
        self._verdict = None
        try:
            self.admitted = breakers.enter(self._call, self._gw)
        except BreakerOpen:
            if breakers.refuse or is_held_open(self._call, self._gw) or self._goals.left("failure"):
                raise

    def obey(self) -> None:
        """Nothing is counted, but a person may have held it open. Raises BreakerOpen."""
        if is_held_open(self._call, self._gw):
            raise BreakerOpen(f"{self._call.route.upstream} is not asked for now: opened by hand", retry_after=1)

    def leave(self) -> None:
        """Tell the breaker what became of the attempt; once."""
        one, breakers = self.admitted, self._shared.breakers
        if one is None or breakers is None:
            return
        call, verdict, self.admitted = self._call, self._verdict, None
        if verdict is None and (call.fault is not None or self._broke is not None):
            broke = call.fault if isinstance(call.fault, UpstreamFault) else self._broke
            verdict = of_fault(broke) if broke is not None else None
        breakers.leave(one, call, verdict, well=self.ended, gw=self._gw)

    def rise(self) -> None:
        """Give its place in the pool to the next."""
        self.free(self.seat, self._call)
        self.seat = None

    def free(self, seat: Place | None, call: Call) -> None:
        pools = self._shared.bulkheads
        if seat is not None and pools is not None:
            pools.leave(seat, call, self._gw)

    def give(self) -> Exchange:
        """The answer in hand, to be passed on: who does that closes it."""
        hand, self.hand = self.hand, None
        assert hand is not None
        return hand

    def drop(self) -> None:
        """Let go of the answer in hand."""
        hand, self.hand = self.hand, None
        if hand is not None:
            hand.close()
