"""Trials: attempt by attempt, until one of them commits. Around `attempt` and `pump`, for both can fail before that.

Rules
1. Nothing is tried again behind the commit point, for a client that left, or where it might be done twice and that is
   not said to be harmless (tools, uploads).
2. Where its rule, or a chain, has a next target that is asked at once, each one once. The same target is asked again
   only where there is no other, after a wait; that takes a token of its budget, and is left to clients that do it by
   themselves.
3. Every attempt is an attempt of its own: sent with the key of its target, held and charged at its price, recorded.
   What one has cost is booked before the next is held.
4. An answer that a cascade finds wanting is followed by an attempt at its next target; that is neither a failure nor a
   retry (see stages.cascade).
5. What is not tried again is answered as it came: an error of the upstream stays in hand until the next attempt may go.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from msgspec import Struct

from gateway.call import Call
from gateway.errors import (
    BreakerOpen,
    BudgetsUnavailable,
    ClientGone,
    GatewayError,
    NoPlace,
    Rejected,
    Unverified,
    UpstreamFault,
)
from gateway.policy.bulkhead import HELD
from gateway.policy.chains import Chains, Goal
from gateway.policy.retry import Cause, RetryBudget, Verdict, backoff, of_answer, of_fault
from gateway.ports import Downstream, Exchange, Gateway
from gateway.stages.account import book
from gateway.stages.admit import SHARE_WAITED, patience_of
from gateway.stages.attempt import ERROR_BODY_LIMIT, attempt, is_repeatable
from gateway.stages.breaking import Breakers, shut
from gateway.stages.bulkheads import Bulkheads
from gateway.stages.cascade import Later, Pings, why_not, withhold
from gateway.stages.contest import HERE, Contest
from gateway.stages.ending import Ending
from gateway.stages.goals import Goals
from gateway.stages.hedge import Hedges
from gateway.stages.probe import Probes
from gateway.stages.pump import pump
from gateway.stages.tunnel import tunnel
from gateway.stages.waiting import waiting

SDK = b"x-stainless-retry-count"
ADVICE = b"x-should-retry"
BUSY_TOOL = frozenset((429, 503))  # any other error of a tool is its answer
CLOSED_TO_US = Verdict(Cause.REFUSED, here=False)  # by the breaker, or for want of a place
TROUBLE = {Cause.CONTEXT: "context", Cause.POLICY: "policy"}


class Manner(Struct, frozen=True):
    """How retries are made; see config.Retries."""

    attempts: int = 3
    budget: float = 0.2
    base: float = 0.5
    longest: float = 10.0
    within: float = 60.0
    with_sdk: bool = False
    timeouts: bool = False


class RetryingTrials:
    """Implements ports.Trials. `pause` waits, and raises what ends the call meanwhile."""

    def __init__(
        self,
        manner: Manner,
        chains: Chains,
        pause: Callable[[Downstream, float], Awaitable[None]],
        breakers: Breakers | None = None,
        *,
        hedges: Hedges | None = None,
        probes: Probes | None = None,
        bulkheads: Bulkheads | None = None,
        later: Later | None = None,
    ) -> None:
        self.manner = manner
        self.chains = chains
        self.pause = pause
        self.breakers = breakers
        self.hedges = hedges  # None: one attempt at a time,
        self.probes = probes  # also where it is a probe of its breaker
        self.bulkheads = bulkheads  # None: no pools
        self.later = later  # calls something then; None: nobody is kept waiting for an answer that is held back
        self._budgets: dict[str, RetryBudget] = {}  # by upstream

    def budget(self, upstream: str) -> RetryBudget:
        known = self._budgets.get(upstream)
        if known is None:
            known = self._budgets[upstream] = RetryBudget(self.manner.budget)
        return known

    def wary(self, gw: Gateway) -> bool:
        return bool(gw.controls.forced) or (self.breakers is not None and bool(self.breakers.ajar))

    def shut(self, upstream: str, model: str, gw: Gateway) -> bool:
        return shut(self.breakers, upstream, model, gw)

    async def carry(self, call: Call, down: Downstream, gw: Gateway) -> Ending:
        trial = call.trial = CallTrial(self, call, down, gw, Goals(call, gw, self.chains))
        (self._budgets.get(call.route.upstream) or self.budget(call.route.upstream)).earn()
        try:
            while True:
                ending = await self._tried(trial, call, down, gw)
                if ending is not None:
                    return ending
        finally:
            if trial.admitted is not None:
                trial.leave()
            if self.hedges is not None:
                self.hedges.learn(call, gw.monotonic())
            if trial.hand is not None:
                trial.drop()
            if trial.pings is not None:
                trial.pings.end()
            if trial.seat is not None:
                trial.rise()
            call.trial = None  # the two would keep each other alive

    async def _tried(self, trial: CallTrial, call: Call, down: Downstream, gw: Gateway) -> Ending | None:
        """One attempt. None: another one follows."""
        fault, pools = None, self.bulkheads
        try:
            seat = trial.seat = pools.enter(call, gw) if pools is not None else None
            if pools is not None and seat is not None and seat.state is not HELD:
                await pools.waited(seat, call, down, gw)
            if self.breakers is not None:
                trial.enter(self.breakers)
            elif gw.controls.forced:
                trial.obey()
            racing = self.probes if trial.probing and self.probes is not None else self.hedges
            if racing is None:
                exchange = trial.hand = await attempt(call, down, gw)
            else:
                exchange = trial.hand = await racing.attempt(call, trial, down, gw)
            if exchange.status < 400 or not await trial.refused(exchange):
                ending = await passed(call, trial.give(), down, gw)
                trial.ended = True
                return ending
        except (UpstreamFault, NoPlace) as error:
            if not trial.failed(error):
                return trial.instead(error)
            trial.drop()
            fault = error
        if await trial.prepared():
            trial.drop()
            return None
        if fault is not None:
            return trial.instead(fault)
        return await passed(call, trial.give(), down, gw)  # what was answered stands


async def passed(call: Call, exchange: Exchange, down: Downstream, gw: Gateway) -> Ending:
    """Pass on an answer whose head is there. Raises UpstreamFault, ClientGone."""
    if exchange.status == 101:
        return await tunnel(call, exchange, down, gw)  # WebSocket: frame by frame
    return await pump(call, exchange, down, gw)  # upstream -> meter -> client


class CallTrial(Contest, eq=False):
    """Implements ports.Trial: one call, and where it goes next."""

    _next: Goal = HERE  # asked next
    _wait: float = 0.0
    _wanting: Unverified | None = None  # the last answer, which a dearer target is asked for
    _rises: bool = False  # the next attempt is for that
    pings: Pings | None = None

    @property
    def _trials(self) -> RetryingTrials:
        assert isinstance(self._shared, RetryingTrials)
        return self._shared

    # -- a cascade ------------------------------------------------------------------------------------------------

    @property
    def above(self) -> bool:
        return self._goals.above(well=False) is not None

    def rises(self) -> bool:
        call = self._call
        goal = self._goals.above()
        took = (self._gw.monotonic() - call.attempts[-1].began) / 1e9
        if goal is None or self._left() <= took:  # a dearer model is hardly quicker
            if self.above:
                withhold(call, "target" if goal is None else "deadline")
            return False
        self._next, self._wait, self._verdict = goal, 0.0, None
        self._rises = self.ended = True
        return True

    def keep_waiting(self, passage: Any) -> None:
        if self._trials.later is not None:
            self.pings = self.pings or Pings(self._trials.later)
            self.pings.begin(passage)

    def instead(self, fault: UpstreamFault | NoPlace) -> Ending:
        """Pass on an answer that was found wanting, as nothing was sent since. Raises the fault where there is none,
        and ClientGone."""
        call, wanting = self._call, self._wanting
        if wanting is not None and self._down.gone:
            raise ClientGone()
        if wanting is None or len(call.attempts) > call.booked:
            raise fault
        ending: Ending = wanting.spare.give(call, self._gw, why_not(fault))
        return ending

    # -- what is decided -----------------------------------------------------------------------------------------

    @property
    def open(self) -> bool:
        return bool(self._goals) and bool(self._goals.left("failure"))

    async def refused(self, exchange: Exchange) -> bool:
        """The upstream answered with an error: shall another attempt follow? What was read of it can be read again."""
        body = b""
        if self._call.route.operation:
            while len(body) <= ERROR_BODY_LIMIT and (piece := await exchange.read()):
                body += piece
            if body:
                exchange.unread(body)
        blame = self._gw.dialects[self._call.route.dialect].blame(exchange.status, body)
        verdict = of_answer(exchange.status, exchange.names, blame, self._gw.now())
        if self._call.asked.gated and exchange.status not in BUSY_TOOL:
            self._verdict = verdict
        elif self._decided(verdict):
            return True
        if len(self._call.attempts) > 1 and ADVICE not in exchange.names:
            self._call.lines += "x-should-retry: false\r\n"  # it was, here
        return False

    def again(self, status: int, body: bytes) -> bool:
        blame = self._gw.dialects[self._call.route.dialect].blame(status, body)
        return self._decided(of_answer(status, {}, blame, self._gw.now()))

    def failed(self, fault: GatewayError) -> bool:
        """An attempt brought nothing: shall another one follow?"""
        call = self._call
        if isinstance(fault, Unverified):
            self._wanting = fault
            return True  # `rises` has decided
        if call.promised and call.attempts[-1].status >= 400:
            return False  # `refused` has
        if call.committed or self._down.gone:
            self._broke = fault if not self._down.gone and isinstance(fault, UpstreamFault) else None
            return False
        if isinstance(fault, (BreakerOpen, NoPlace)):
            return self._decided(CLOSED_TO_US)
        if call.attempts and fault is call.attempts[-1].fault and call.attempts[-1].status >= 400:
            return True  # an error inside a 200: `again` has decided
        if self._decided(of_fault(fault)):
            call.attempts[-1].fault = fault
            return True
        if len(call.attempts) > 1:
            fault.retryable = False  # it was, here
        return False

    def _decided(self, verdict: Verdict) -> bool:
        call, cause = self._call, verdict.cause
        self._verdict = verdict
        if cause is Cause.FINAL or not is_repeatable(call, self._gw) or self._left() <= 0:
            return False
        if self._goals:
            goals = self._goals.left(TROUBLE.get(cause, "failure"))
            while goals and not self._goals.is_sayable(goals[0]):
                goals.pop(0)  # its API cannot say what this client asks
            if goals:
                self._next, self._wait = goals.pop(0), 0.0
                return True
        if cause in TROUBLE or not verdict.here or (cause is Cause.SLOW and not self._trials.manner.timeouts):
            return False
        why = self._withheld(verdict)
        if why:
            if self._trials.manner.attempts > 1:
                call.notes = {**call.notes, "retry_withheld": why}
            return False
        self._next = self._goal
        return True

    def _withheld(self, verdict: Verdict) -> str:
        """Why the same target is not asked again; "" where it is, after `_wait`."""
        manner, call, gw = self._trials.manner, self._call, self._gw
        if self._tries >= manner.attempts:
            return "attempts"
        if SDK in call.request.names and not manner.with_sdk:
            return "sdk"
        wait = backoff(self._tries - 1, manner.base, manner.longest, self._goals.chance())
        if verdict.wait is not None:
            if verdict.wait > manner.longest:
                return "wait"
            wait += verdict.wait  # never earlier than told, and not all at once
        if wait >= min(self._left(), manner.within - (gw.monotonic() - call.began) / 1e9):
            return "deadline"
        if not self._trials.budget(call.route.upstream).spend():
            return "budget"
        self._wait = wait
        return ""

    def _left(self) -> float:
        """Seconds until its client gives up, as far as that says so."""
        call = self._call
        return patience_of(call) / SHARE_WAITED - (self._gw.monotonic() - call.began) / 1e9

    # -- what is done --------------------------------------------------------------------------------------------

    async def prepared(self) -> bool:
        """Book the attempt that failed, wait, and hold what the next one may cost. False where that is not granted:
        the failure stands. Raises what ends the call. An answer in hand is an error, and costs nothing."""
        call, gw = self._call, self._gw
        self.leave()
        self.rise()
        rises, self._rises, self.ended = self._rises, False, False
        if self.hand is None and len(call.attempts) > call.booked:
            self._book()
        if self._wait > 0:
            with waiting(call, gw):
                await self._trials.pause(self._down, self._wait)
        before = (call.route, call.edits, call.model_sent, call.away, call.asked.injected)
        moved = self._next != self._goal
        self._goals.go(call, self._next)
        if gw.admission is not None:
            try:
                await gw.admission.readmit(call, self._down, gw, moved=moved)
            except (Rejected, BudgetsUnavailable):
                call.route, call.edits, call.model_sent, call.away, call.asked.injected = before
                return False
        if self.hand is not None:
            self._book()
        self._tries = 1 if moved else self._tries + 1
        self._goal = self._next
        if moved:
            self._goals.used(self._goal)
            if not rises:
                call.notes = {**call.notes, "fallback": call.route.upstream}
        return True

    def _book(self) -> None:
        book(self._call, self._gw)
        if self._call.fill is not None:
            self._call.fill.restart()
