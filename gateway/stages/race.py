"""Race: two attempts of one call beside each other, and one of the two answers. Before the commit point.

                         the second begins           whichever says something first is passed on
    first  ─────────────────────┬──────────────────────────────┬──────────────▶ pump
                                └─ second ─────────────────────┘ the other is broken off, and charged

Rules
1. Only for what may be done twice (`may_race`). The second attempt holds its own worst case in the accounts, at once or
   not at all: it neither waits for money nor makes do with less.
2. The attempt that loses is charged as one is that its client left, and both stand in the record, the answering one
   last. Its breaker is not told that it failed, unless it did.
3. Until one of them says something nothing is committed. Where no second one came to be, the first goes on as ever.
4. A probe of a breaker that is overtaken goes on behind its call, charged all the same, until it has shown how its
   upstream is (`Rivals.behind`): what is well and only slower than another target must be found well.

Both run beside the call, each with a copy of it in hand. What becomes of them is decided here, in one step: the call
takes over the state of one copy, and the other is settled; what its attempt still does touches nothing but that copy.
When a second one begins, and why, is decided by those who make a race: stages.hedge and stages.probe.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Protocol, cast

from gateway.call import Attempt, Call
from gateway.errors import BudgetsUnavailable, GatewayError, GatewayFault, Overtaken, Rejected, UpstreamFault
from gateway.policy.retry import Verdict
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


class Rivals(Protocol):
    """What this needs of the trial of a call (stages.rivals), to make a copy of the call one that goes elsewhere."""

    @property
    def open(self) -> bool:
        """Is there another target?"""
        ...

    def aim(self, other: Call, *, elsewhere: bool) -> Any:
        """At the next target that is well; `elsewhere`: at no other than the first goes to. What it was given for that;
        None where nothing lets it through."""
        ...

    def lost(self, other: Call, given: Any, verdict: Verdict | None) -> None:
        """The attempt beside is over, and was not taken."""
        ...

    def taken(self, first: Call, given: Any, verdict: Verdict | None) -> None:
        """It was, in the place of the first one. `verdict`: on the first; None: it did not fail."""
        ...

    def behind(self, first: Call) -> Behind | None:
        """The first is overtaken: asked before `taken`. None: it is no probe."""
        ...


class Behind(Protocol):
    """A probe that goes on behind its call."""

    @property
    def seconds(self) -> float:
        """For how long; endless: as long as its time limits let it."""
        ...

    def end(self, lane: Lane) -> None: ...


def may_race(call: Call, gw: Gateway) -> bool:
    """May this call be done twice, beside each other? Not where the provider keeps something of it, runs tools of its
    own for it, or works on it later."""
    asked = call.asked
    if call.route.operation not in OPERATIONS or call.websocket or asked.calls or call.request.method != b"POST":
        return False
    if not REFERS.isdisjoint(asked.fields) or bytes(asked.fields.get("background", b"")) == TRUE:
        return False
    return not gw.dialects[call.route.dialect].bounds(call.route, asked).server_tools


class Race:
    """The two attempts of one call."""

    name: ClassVar[str] = ""  # of what the record says of it
    elsewhere: ClassVar[bool] = False  # the second goes to another target, or nowhere

    def __init__(self, aside: Aside, call: Call, rivals: Rivals, down: Downstream, gw: Gateway) -> None:
        self._aside, self._call, self._rivals, self._down, self._gw = aside, call, rivals, down, gw
        self._bell = aside.bell()
        self._here = call.route.upstream
        self._before = len(call.attempts)
        self._beside: list[Attempt] = []  # that are over, and were not taken
        self._first = self._lane(call)
        self._other: Lane | None = None
        self._result = self._there = ""

    def _lane(self, call: Call) -> Lane:
        copied = copy.copy(call)
        copied.asked, copied.trial, copied.spent = copy.copy(call.asked), None, None
        copied.attempts = [*call.attempts, *self._beside]
        return Lane(copied, Side(self._down), len(copied.attempts))

    async def run(self, wait: float) -> Exchange:
        """`wait`: seconds until the second begins. Raises as stages.attempt does."""
        first = self._first
        self._down.on_gone = self._tell
        call_off = self._aside.later(wait, self.late)
        first.task = self._aside.start(self._carry(first))
        try:
            while not self._decided():
                await self._bell.heard()
                other = self._other
                if other is not None and other.failed and not first.done:
                    self.failed(other)
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

    # -- when the second begins ------------------------------------------------------------------------------------

    def late(self) -> None:
        """It is time: begin the second attempt, if one may be."""
        if not self._first.done:
            self.begin()

    def failed(self, other: Lane) -> None:
        """The second failed, and the first has said nothing yet."""

    def begin(self) -> None:
        other = self._other = self._lane(self._call)  # as it was before the first attempt
        other.call.hold, other.call.booked = None, other.before
        other.task = self._aside.start(self._carry(other))

    def alone(self, why: str) -> None:
        """Without a second attempt the first goes on as ever: what is no content may be passed on, too."""
        self._result = self._result or why
        self._first.alone = True
        if self._first.exchange is not None and not self._first.done:  # else whoever reads on would be told
            self._first.side.tell(Overtaken())  # wakes it where it reads

    # -- beside the call -------------------------------------------------------------------------------------------

    async def _carry(self, lane: Lane) -> None:
        """From the request to the first content. Never raises a GatewayError."""
        try:
            if lane is self._other and not await self._granted(lane):
                lane.void = True
                if not lane.side.over:
                    self.alone("refused")
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
            (lane.ended or self._bell.ring)()

    async def _granted(self, lane: Lane) -> bool:
        """Aim the copy, and hold what it may cost."""
        call, admission = lane.call, self._gw.admission
        lane.given = self._rivals.aim(call, elsewhere=self.elsewhere)
        if lane.given is None:
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
        self._rivals.lost(call, lane.given, None)
        return False

    # -- the end: nothing waits in here ----------------------------------------------------------------------------

    def _pass(self, winner: Lane) -> None:
        """The call is that of this attempt from now on; the other, if it was sent, is broken off and charged."""
        call, first, other = self._call, self._first, self._other
        loser = first if winner is other else other
        self.learn(winner)
        for name in TAKEN:
            setattr(call, name, getattr(winner.call, name))
        verdict = loser.verdict(self._gw) if loser is not None else None
        if loser is not None:
            self.lose(loser, verdict)
        call.attempts = [*call.attempts[: self._before], *self._beside, *winner.own]
        call.booked = self._before + len(self._beside) if self._beside else call.booked
        if winner is other:
            self._rivals.taken(first.call, winner.given, verdict)
            self._result, self._there = "won", winner.call.route.upstream
        if self._result:
            there = self._there or (other.call.route.upstream if other is not None else "")
            said = {self.name: self._result, f"{self.name}_from": self._here, f"{self.name}_to": there}
            call.notes = {**call.notes, **said}
        self._down.on_gone = winner.side.on_gone

    def learn(self, winner: Lane) -> None:
        """What the attempts took."""

    def lose(self, lane: Lane, verdict: Verdict | None) -> None:
        """Break off whatever it waits for, unless it goes on behind the call, and charge it."""
        first, own = lane is self._first, lane.own
        behind = self._rivals.behind(lane.call) if first and own and not lane.done else None
        if behind is not None:
            self._charge(apart(lane), whole=True)
            go_on(lane, behind, self._aside)
            return
        lane.side.over = True
        if not lane.done:
            lane.side.tell(Overtaken())
        if lane.exchange is not None:
            lane.exchange.close()
        if lane.void or (not own and not lane.done):
            return  # it is still asking for money, and gives that back by itself
        if not first:
            self._rivals.lost(lane.call, lane.given, verdict)
            self._result, self._there = "lost" if verdict is None else "failed", lane.call.route.upstream
        self._charge(lane, whole=first)

    def _charge(self, lane: Lane, *, whole: bool) -> None:
        """`whole`: it is the first, which holds for the call as such."""
        gw, own = self._gw, lane.own
        for one in own[-1:]:
            if one.fault is None and one.status < 400:
                one.fault, one.ended = lane.fault or lane.errored or Overtaken(), gw.monotonic()
                if lane.errored is not None:
                    one.status = lane.errored.status  # what its 200 should have been: such an answer is not billed
            one.ended = one.ended or gw.monotonic()
        lane.call.meter = lane.meter
        book_beside(lane.call, self._call, gw, whole=whole)
        self._beside += own


def apart(lane: Lane) -> Lane:
    """What is charged and recorded of an attempt that goes on: a copy, as it stands."""
    call = copy.copy(lane.call)
    call.attempts = [copy.copy(one) for one in call.attempts]
    return Lane(call, lane.side, lane.before)


def go_on(lane: Lane, behind: Behind, aside: Aside) -> None:
    """Until it is known how it goes, or its time is over. What was not sent yet is not sent any more: how connecting
    goes is all that it finds out."""
    side = lane.side
    side.apart, side.over = True, not lane.own[-1].sent

    def over() -> None:
        lane.late = side.over = True
        side.tell(Overtaken())

    call_off = aside.later(behind.seconds, over)

    def ended() -> None:
        call_off()
        if lane.exchange is not None:
            lane.exchange.close()
        behind.end(lane)

    lane.ended = ended
