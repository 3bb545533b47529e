"""Cascade: of the targets of a rule the cheap one is asked first, its answer is checked before anything of it is passed
on, and the next dearer one is asked where it has not the form that the request demands.

    cheap ── whole answer ──▶ of the form? ── yes ──▶ passed on, byte for byte
                                   └── no: charged, recorded ──▶ next ── … ──▶ the last one's passes, whatever it is

Rules
1. Only what can be checked without knowing better than a model: JSON, its schema, a tool call that must be made (see
   policy.answer_check). Every other call goes as it would without a cascade.
2. An answer is held back as long as a dearer target is left, at most `hold_bytes` of it; a longer one is passed on
   unchecked. What cannot be read is not held against its model.
3. Its provider did what it was asked: to breakers that is a success, and to retries nothing.
4. The next attempt holds its own worst case. Where that is not granted, nothing is free there, or there is no time, the
   answer in hand is passed on all the same, and its record says so. Where it was sent and failed, it has failed.
5. A client that waits for a stream is kept waiting by pings, as at the beginning of any. From the first of them on it
   has the head of an answer, and what follows is an event stream or the event of an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from msgspec import Struct

from gateway.call import Call, Route
from gateway.errors import BreakerOpen, ClientGone, GatewayError, Unverified
from gateway.policy.answer_check import FAILURES, LENGTH, OK, SIZE, UNREAD, verdict
from gateway.policy.routing import Plan
from gateway.ports import Checker, Downstream, Form, Gateway, Reading
from gateway.stages.ending import Ending

VERDICTS, WITHHELD = "cascade", "cascade_withheld"  # notes of a record
# What an attempt makes of its call, and the booking of it takes away.
OF_ANSWER = (
    *("answer", "money", "spent", "booked", "meter", "response_bytes", "upstream_first_byte", "upstream_last_byte"),
    *("captured", "stated", "notes", "request", "route", "edits", "model_sent", "away", "translated"),
)
Later = Callable[[float, Callable[[], None]], Callable[[], None]]


class Limit(Protocol):
    """See config.Cascade."""

    @property
    def hold_bytes(self) -> int: ...


class Check(Struct, eq=False):
    """What the answers to a call are held against, and what was found of each."""

    demand: Form
    rungs: tuple[Any, ...]  # policy.routing.Target, from cheap to dear
    limit: int  # bytes
    checker: Checker
    verdicts: tuple[str, ...] = ()

    def reading(self, route: Route) -> Reading:
        return self.checker.reading(route, self.limit)

    @property
    def valid(self) -> bool | None:
        """Of the last answer; None: it could not be checked."""
        last = self.verdicts[-1] if self.verdicts else UNREAD
        return True if last == OK else False if last in FAILURES else None


class Cascades:
    """The cascades of one configuration; `limits`: of each rule, None for one without."""

    def __init__(self, limits: Sequence[Limit | None], checker: Checker) -> None:
        self._limits, self._checker = limits, checker

    def watch(self, call: Call, plan: Plan) -> None:
        """Check the answers of a call that goes as planned, if they can be."""
        limit = self._limits[plan.rule]
        if limit is None or not plan.rungs:
            return
        demand = self._checker.demand(call.route, call.asked)
        if demand is not None:
            call.check = Check(demand, plan.rungs, limit.hold_bytes, self._checker)


class Beheld(Protocol):
    """What this needs of stages.passage.Passage."""

    call: Call
    down: Downstream
    seen: Reading | None
    stopped: bool


def weigh(passage: Beheld, finish: Callable[[], Ending]) -> None:
    """An answer has come whole and is accounted for: check it. `finish` passes it on. Raises Unverified where another
    target is asked, and ClientGone."""
    call, check = passage.call, passage.call.check
    found = judged(passage, check)
    check.verdicts = (*check.verdicts, found)
    call.notes = {**call.notes, VERDICTS: ",".join(check.verdicts)}
    if found not in FAILURES or call.committed:
        return
    if passage.down.gone:
        raise ClientGone()
    if call.trial is not None and call.trial.rises():
        spare = Spare(call, finish)
        fault = call.attempts[-1].fault = Unverified(f"the answer has not the form that was demanded: {found}")
        fault.spare = spare
        raise fault


def judged(passage: Beheld, check: Check) -> str:
    call, seen = passage.call, passage.seen
    if "answer" in call.notes or seen is None:
        return UNREAD  # its content coding is unknown
    if passage.stopped:
        return LENGTH
    if seen.full:
        return SIZE
    return verdict(check.demand, seen.given())


class Spare:
    """An answer that did not hold, with all that its call was then: it is passed on where no other can be asked for."""

    def __init__(self, call: Call, finish: Callable[[], Ending]) -> None:
        self._finish, self._hold, self._injected = finish, call.hold, call.asked.injected
        self._kept = {name: getattr(call, name) for name in OF_ANSWER}

    def give(self, call: Call, gw: Gateway, why: str) -> Ending:
        """No attempt was sent since it was booked. Never waits."""
        if gw.admission is not None and call.hold is not self._hold:
            gw.admission.release(call, whole=False)  # of the attempt that did not come to be
        for name, value in self._kept.items():
            setattr(call, name, value)
        call.asked.injected, call.hold = self._injected, self._hold  # which was settled, and is not once more
        last = call.attempts[-1]
        last.fault, last.cost, last.usage, last.usage_source = None, 0, None, ""
        withhold(call, why)
        if call.fill is not None:
            call.fill.forsake()
        return self._finish()


def withhold(call: Call, why: str) -> None:
    """Note why no dearer target is asked: budget, place, breaker, deadline or target (none is well)."""
    call.notes = {**call.notes, WITHHELD: why}


def why_not(fault: GatewayError) -> str:
    """`fault`: what kept the next attempt from being sent; that of the answer itself: its cost was not granted."""
    return "budget" if isinstance(fault, Unverified) else "breaker" if isinstance(fault, BreakerOpen) else "place"


class Promising(Beheld, Protocol):
    """What `Pings` needs of it."""

    gw: Gateway
    interruptible: bool

    def promise(self) -> None: ...


class Pings:
    """Keeps the client of a stream that is held back waiting, from the first answer on until something is sent."""

    def __init__(self, later: Later) -> None:
        self._later = later
        self._off: Callable[[], None] | None = None

    def begin(self, passage: Promising) -> None:
        call = passage.call
        waits, ping = call.attempts[-1].waits, passage.gw.dialects[call.route.dialect].ping
        if self._off is not None or waits is None or waits.ping is None or not ping or not passage.interruptible:
            return
        seconds, down = waits.ping, passage.down

        def say() -> None:
            if call.committed or down.gone:
                return
            if not call.promised:
                passage.promise()
            if not down.paused:
                down.write(ping)
            self._off = self._later(seconds, say)

        self._off = self._later(seconds, say)

    def end(self) -> None:
        off, self._off = self._off, None
        if off is not None:
            off()
