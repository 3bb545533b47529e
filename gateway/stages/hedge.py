"""Hedge: a second attempt beside one whose first content is late. Before the commit point; one of the two answers.

                         the first content is late        whichever says something first is passed on
    first  ─────────────────────┬──────────────────────────────┬──────────────▶ pump
                                └─ second ─────────────────────┘ the other is broken off, and charged

Rules
1. Late is later than most (`quantile`) of the latest answers of this target, once there are enough of them.
2. Only for what may be done twice, and only for a share of an upstream's calls; each call earns that share of a hedge.
3. The second attempt goes to the next target that is well, else once more to the same one. It holds its own worst case
   in the accounts, at once or not at all: it neither waits for money nor makes do with less.
4. The attempt that loses is charged as one is that its client left, and both stand in the record, the answering one
   last. Its breaker is not told that it failed, unless it did.
5. Until one of them says something nothing is committed. Where no second one came to be, the first goes on as ever.

Both run beside the call, each with a copy of it in hand. What becomes of them is decided here, in one step: the call
takes over the state of one copy, and the other is settled; what its attempt still does touches nothing but that copy.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, cast

from msgspec import Struct

from gateway.call import Attempt, Call
from gateway.errors import BudgetsUnavailable, GatewayError, GatewayFault, Overtaken, Rejected, UpstreamFault
from gateway.policy.latest import Delays
from gateway.policy.retry import RetryBudget, Verdict
from gateway.ports import Downstream, Exchange, Gateway
from gateway.stages.account import book_beside
from gateway.stages.attempt import attempt
from gateway.stages.kept import REFERS
from gateway.stages.lanes import Lane, Side, hear

OPERATIONS = frozenset(("chat", "generate_content", "text_completion", "embeddings"))
TRUE = b"true"
# What an attempt makes of its call. All else is the call's own.
TAKEN = (
    *("request", "route", "edits", "model_sent", "away", "asked", "translated", "hold", "stated", "notes"),
    "upstream_first_byte",
)


class Manner(Struct, frozen=True):
    """When hedges are made; see config.Hedging."""

    share: float = 0.05
    quantile: float = 0.95
    sample: int = 20
    least: float = 0.05
    concerns: Callable[[Call], bool] = lambda call: True


class Bell(Protocol):
    def ring(self) -> None: ...

    async def heard(self) -> None: ...


class Aside(Protocol):
    """What goes on beside a call; see stores.aside."""

    def bell(self) -> Bell: ...

    def start(self, work: Coroutine[Any, Any, None]) -> Any:
        """A task, by its `result`."""
        ...

    def later(self, seconds: float, act: Callable[[], None]) -> Callable[[], None]: ...


class Second(Protocol):
    """What this needs of stages.trials.CallTrial, to make a copy of the call one that goes elsewhere."""

    def aim(self, other: Call) -> bool:
        """At the next target that is well. False where its breaker lets nothing through."""
        ...

    def lost(self, other: Call, verdict: Verdict | None) -> None:
        """The attempt beside is over, and was not taken."""
        ...

    def taken(self, first: Call, verdict: Verdict | None) -> None:
        """It was, in the place of the first one. `verdict`: on the first; None: it did not fail."""
        ...


class Hedges:
    """The hedges of one configuration."""

    def __init__(self, manner: Manner, aside: Aside) -> None:
        self.manner, self.aside = manner, aside
        self._delays = Delays()
        self._shares: dict[str, RetryBudget] = {}  # by upstream

    async def attempt(self, call: Call, second: Second, down: Downstream, gw: Gateway) -> Exchange:
        """As stages.attempt; perhaps of another target than asked, with the call made one that went there."""
        if call.asked.gated or not may_hedge(call, gw) or not self.manner.concerns(call):
            return await attempt(call, down, gw)
        share = self.share(call.route.upstream)
        if not call.attempts:
            share.earn()
        late = self._delays.quantile(key_of(call), self.manner.quantile, self.manner.sample, gw.monotonic())
        if late is None or not share.whole:
            return await attempt(call, down, gw)
        return await Race(self, call, second, down, gw).run(max(late / 1e9, self.manner.least))

    def share(self, upstream: str) -> RetryBudget:
        known = self._shares.get(upstream)
        if known is None:
            known = self._shares[upstream] = RetryBudget(self.manner.share, reserve=0.0)
        return known

    def learn(self, call: Call, now: int) -> None:
        """After the end: what the first content of a call took that was one attempt."""
        if len(call.attempts) != 1 or call.early or not call.first_byte or not 200 <= call.status < 300:
            return
        said = call.first_byte if call.asked.stream else call.upstream_first_byte
        self.heard(key_of(call), said - call.attempts[0].began, now)

    def heard(self, key: tuple[str, str, bool], took: int, now: int) -> None:
        """What the first content of an attempt took, or has taken so far; ns."""
        self._delays.add(key, took, now)


def may_hedge(call: Call, gw: Gateway) -> bool:
    """May this call be done twice, beside each other? Not where the provider keeps something of it, runs tools of its
    own for it, or works on it later."""
    asked = call.asked
    if call.route.operation not in OPERATIONS or call.websocket or asked.calls or call.request.method != b"POST":
        return False
    if not REFERS.isdisjoint(asked.fields) or bytes(asked.fields.get("background", b"")) == TRUE:
        return False
    return not gw.dialects[call.route.dialect].bounds(call.route, asked).server_tools


def key_of(call: Call) -> tuple[str, str, bool]:
    return call.route.upstream, call.model_sent or call.asked.model, call.asked.stream


class Race:
    """The two attempts of one call."""

    def __init__(self, hedges: Hedges, call: Call, second: Second, down: Downstream, gw: Gateway) -> None:
        self._hedges, self._call, self._second, self._down, self._gw = hedges, call, second, down, gw
        self._bell = hedges.aside.bell()
        self._key = key_of(call)
        self._before = len(call.attempts)
        self._first = self._lane(call)
        self._other: Lane | None = None
        self._result = ""

    def _lane(self, call: Call) -> Lane:
        copied = copy.copy(call)
        copied.asked, copied.trial, copied.spent = copy.copy(call.asked), None, None
        return Lane(copied, Side(self._down), self._before)

    async def run(self, wait: float) -> Exchange:
        """`wait`: seconds until the second begins. Raises as stages.attempt does."""
        aside, first = self._hedges.aside, self._first
        self._down.on_gone = self._tell
        call_off = aside.later(wait, self._late)
        first.task = aside.start(self._carry(first))
        try:
            while not self._decided():
                await self._bell.heard()
        except BaseException:
            self._first.side.tell(Overtaken())
            self._pass(first)
            raise
        finally:
            call_off()
        other = self._other
        winner = other if other is not None and other.well and not first.well else first
        self._pass(winner)
        if winner.fault is not None:
            if winner.exchange is not None:
                winner.exchange.close()
            raise winner.fault
        if winner.exchange is None:
            winner.task.result()  # a bug of ours is raised
            raise GatewayFault("an attempt ended without an answer")
        return winner.exchange

    def _decided(self) -> bool:
        first, other = self._first, self._other
        if first.well or (other is not None and other.well):
            return True
        if first.done and first.fault is not None and not isinstance(first.fault, UpstreamFault):
            return True  # its client left, or it was stopped
        return first.done and (other is None or other.done)

    def _tell(self, fault: GatewayError) -> None:
        """The client left, or the call must end."""
        self._first.side.tell(fault)
        if self._first.done:  # it waits for the other
            self._first.fault = fault
            self._bell.ring()

    # -- beside the call -----------------------------------------------------------------------------------------

    def _late(self) -> None:
        """The first content is late: begin the second attempt, if one may be."""
        if self._first.done:
            return
        if not self._hedges.share(self._key[0]).spend():
            self._alone("capped")
            return
        self._other = self._lane(self._call)  # as it was before the first attempt
        self._other.call.hold = None
        self._other.task = self._hedges.aside.start(self._carry(self._other))

    def _alone(self, why: str) -> None:
        """Without a second attempt the first goes on as ever: what is no content may be passed on, too."""
        self._result = why
        self._first.alone = True
        if self._first.exchange is not None and not self._first.done:  # else whoever reads on would be told
            self._first.side.tell(Overtaken())  # wakes it where it reads

    async def _carry(self, lane: Lane) -> None:
        """From the request to the first content. Never raises a GatewayError."""
        try:
            if lane is self._other and not await self._granted(lane):
                lane.void = True
                if not lane.side.over:
                    self._alone("refused")
                return
            exchange = await attempt(lane.call, cast(Downstream, lane.side), self._gw)
            if lane.side.over:
                exchange.close()
                return
            lane.exchange = exchange
            if exchange.status < 400:
                await hear(lane, exchange, self._gw)
        except GatewayError as fault:
            lane.fault = fault
            if lane.exchange is not None:
                lane.exchange.close()
                lane.exchange = None
        finally:
            lane.done = True
            self._bell.ring()

    async def _granted(self, lane: Lane) -> bool:
        """Aim the copy, and hold what it may cost."""
        call, admission = lane.call, self._gw.admission
        if not self._second.aim(call):
            return False
        granted = True
        if admission is not None:
            try:
                granted = await admission.beside(call, cast(Downstream, lane.side), self._gw)
            except (Rejected, BudgetsUnavailable):
                granted = False
        if granted and not lane.side.over:
            return True
        if admission is not None:
            admission.release(call, whole=False)
        self._second.lost(call, None)
        return False

    # -- the end: nothing waits in here ---------------------------------------------------------------------------

    def _pass(self, winner: Lane) -> None:
        """The call is that of this attempt from now on; the other, if it was sent, is broken off and charged."""
        call, first, other, now = self._call, self._first, self._other, self._gw.monotonic()
        loser = first if winner is other else other
        self._learn(winner, now)
        for name in TAKEN:
            setattr(call, name, getattr(winner.call, name))
        verdict = loser.verdict(self._gw) if loser is not None else None
        lost = self._lost(loser, verdict) if loser is not None else []
        call.attempts = [*call.attempts[: self._before], *lost, *winner.own]
        call.booked = self._before + len(lost) if lost else call.booked
        if winner is other:
            self._second.taken(first.call, verdict)
            self._result = "won"
        elif lost:
            self._result = "failed" if verdict is not None else "lost"
        if self._result:
            beside = other.call.route.upstream if other is not None else ""
            call.notes = {**call.notes, "hedge": self._result, "hedge_from": self._key[0], "hedge_to": beside}
        self._down.on_gone = winner.side.on_gone

    def _learn(self, winner: Lane, now: int) -> None:
        """Of the first, where there was another: alone it is learned when the call has ended. What was broken off
        would have taken longer than it did, and it took longer than most: it stands for that."""
        first = self._first
        if self._other is None or self._other.void or not first.own:
            return
        if first.said or winner is not first:
            self._hedges.heard(self._key, (first.said or now) - first.own[0].began, now)

    def _lost(self, lane: Lane, verdict: Verdict | None) -> list[Attempt]:
        """Break off whatever it waits for, and charge it; its attempts."""
        gw, own = self._gw, lane.own
        lane.side.over = True
        if not lane.done:
            lane.side.tell(Overtaken())
        if lane.exchange is not None:
            lane.exchange.close()
        if lane.void or (not own and not lane.done):
            return []  # it is still asking for money, and gives that back by itself
        if lane is self._other:
            self._second.lost(lane.call, verdict)
        for one in own[-1:]:
            if one.fault is None and one.status < 400:
                one.fault, one.ended = lane.fault or lane.errored or Overtaken(), gw.monotonic()
                if lane.errored is not None:
                    one.status = lane.errored.status  # what its 200 should have been: such an answer is not billed
            one.ended = one.ended or gw.monotonic()
        lane.call.meter = lane.meter
        book_beside(lane.call, self._call, gw, whole=lane is self._first)
        return own
