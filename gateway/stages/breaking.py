"""Breaking: which cells of the breaker an attempt passes, and what they are told of its end. See policy.breaker.

Rules
1. An upstream has a cell for whether it can be reached and talks HTTP, and one for each model, for what it answers: a
   model that is overloaded takes no other with it. A tool has one for both.
2. What a person forced (open or closed) stands, whatever was counted; the outcomes go on being counted. What was forced
   of an upstream is so for each of its models, but for those of which something else was.
3. Where no cell refuses, both are told the end; where one does, the other gets its permit back.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from gateway.call import Call
from gateway.errors import BreakerOpen, UpstreamFault
from gateway.policy.breaker import NANO, Breaker, Change, Outcome, Permit, State, Terms
from gateway.policy.retry import Cause, Verdict
from gateway.ports import Gateway

CELLS = 1024
LIMITED = 429
FORCED_CLOSED = "closed"
CLOSED = State.CLOSED
SUCCESS, SLOW, NEITHER = Outcome.SUCCESS, Outcome.SLOW, Outcome.NEITHER  # an attribute of an enum costs more
Tell = Callable[[str, Change], None]


class Pass(Struct, frozen=True, eq=False):
    """The permits of one attempt: of the upstream's cell, and of the model's. Where all cells are closed, every attempt
    has the same."""

    where: tuple[tuple[str, Breaker, Permit], ...]
    probe: bool = False  # for one of them at least


class Breakers:
    """All cells of a worker. `tell` hears of every change of state."""

    def __init__(self, terms: Terms, *, slow: int, refuse: bool, tell: Tell) -> None:
        self.refuse = refuse  # also where there is no other target
        self._terms, self._slow, self._tell = terms, slow, tell
        self.ajar: set[str] = set()  # names of the cells that are not closed
        self._named: dict[str, Breaker] = {}
        self._cells: dict[tuple[str, str], tuple[tuple[str, Breaker], ...]] = {}  # by upstream and model
        self._closed: dict[tuple[str, str], Pass] = {}  # the same, while every cell that there is is closed

    @property
    def open(self) -> int:
        """How many cells are not closed."""
        return len(self.ajar)

    def refuses(self, name: str, now: int) -> bool:
        """Would the cell of this name turn a call away?"""
        cell = self._named.get(name) if name in self.ajar else None
        return cell is not None and cell.refuses(now)

    def are_closed(self, upstream: str, model: str) -> bool:
        """Both cells of a target?"""
        return not self.ajar or (upstream not in self.ajar and f"{upstream}/{model}" not in self.ajar)

    def adopt(self, name: str, *, opened: bool, until: int, at: int, now: int) -> Change | None:
        """What another gateway found of the cell of this name; times of the monotonic clock, in ns."""
        cell = self._named.get(name)
        if cell is None:
            if not opened or len(self._named) >= CELLS:
                return None
            cell = self._cell(name)
        change = cell.adopt(opened=opened, until=until, at=at, now=now)
        if change is not None:
            self._turned(name, change)
        return change

    def enter(self, call: Call, gw: Gateway) -> Pass:
        """Raises BreakerOpen where a cell refuses."""
        forced = gw.controls.forced
        if not self.ajar and not forced:
            one = self._closed.get((call.route.upstream, call.model_sent or call.asked.model))
            if one is not None:
                return one
        now = gw.monotonic()
        passed: list[tuple[str, Breaker, Permit]] = []
        for name, cell in self._of(call, gw):
            how = forced.get(name, forced.get(call.route.upstream, "")) if forced else ""
            permit = self._permit(name, cell, now, how) if how or cell.state is not CLOSED else cell.admit(now)
            if permit is None:
                for other, known, given in passed:
                    self._told(other, known.report(given, Outcome.NEITHER, now))
                raise self._refusal(name, cell, now)
            passed.append((name, cell, permit))
        one = Pass(tuple(passed), any([permit.probe for _, _, permit in passed]))
        if not self.ajar and not forced:
            self._closed[call.route.upstream, call.model_sent or call.asked.model] = one
        return one

    def _of(self, call: Call, gw: Gateway) -> tuple[tuple[str, Breaker], ...]:
        """The cells of a call, the one for reaching its upstream first."""
        upstream, model = call.route.upstream, call.model_sent or call.asked.model
        found = self._cells.get((upstream, model))
        if found is None:
            spec = gw.specs.get(upstream)
            names = (
                (upstream, f"{upstream}/{model}") if model and spec is not None and spec.tool is None else (upstream,)
            )
            if len(self._cells) >= CELLS:  # names of models come from clients
                self._forget()
            found = self._cells[upstream, model] = tuple([(name, self._cell(name)) for name in names])
        return found

    def _cell(self, name: str) -> Breaker:
        known = self._named.get(name)
        if known is None:
            known = self._named[name] = Breaker(self._terms)
        return known

    def _forget(self) -> None:
        """All that is closed, or everything."""
        kept = {name: cell for name, cell in self._named.items() if cell.state is not CLOSED}
        self._cells, self._closed, self._named = {}, {}, kept if len(kept) < CELLS else {}
        self.ajar = set(self._named)

    def leave(self, one: Pass, call: Call, verdict: Verdict | None, *, well: bool, gw: Gateway) -> None:
        """The attempt is over. `verdict`: of one that failed; `well`: else, that it came to its end."""
        now = gw.monotonic()
        if verdict is None:
            outcome = self._succeeded(call, one) if well else NEITHER
            tenth = self._terms.tenth(now)
            for name, cell, permit in one.where:
                if outcome is not SUCCESS or not cell.went_well(permit, tenth):
                    self._told(name, cell.report(permit, outcome, now))
            return
        spec = gw.specs.get(call.route.upstream)
        if call.attempts and call.attempts[-1].status == LIMITED and not (spec is not None and spec.auth):
            verdict = Verdict(Cause.FINAL)  # of the client's own key: no other has to do with it
        wait = int((verdict.wait or 0) * NANO)
        for at, (name, cell, permit) in enumerate(one.where):
            outcome = failed(call, verdict, answers=at == len(one.where) - 1, reaches=at == 0)
            self._told(name, cell.report(permit, outcome, now, wait if outcome is Outcome.FAILURE else 0))

    def bound(self, one: Pass, call: Call, gw: Gateway) -> float:
        """Seconds that a probe which was overtaken may still take until it is slow: see Breaker.bound."""
        whole = one.where[-1][1].bound(stream=call.asked.stream)
        return max(0.0, (call.attempts[-1].began + whole - gw.monotonic()) / NANO)

    def overtaken(self, one: Pass, gw: Gateway) -> None:
        """Another attempt, which began later, said something before this one. That is no failure; but a probe that says
        nothing for as long as its `bound` shows that its upstream is not well."""
        now = gw.monotonic()
        for name, cell, permit in one.where:
            self._told(name, cell.report(permit, SLOW if permit.probe else NEITHER, now))

    def _succeeded(self, call: Call, one: Pass) -> Outcome:
        last = call.attempts[-1]
        if not 100 < last.status < 400:
            return NEITHER
        took = (call.first_byte or last.ended) - last.began
        one.where[-1][1].learn(took, stream=call.asked.stream)
        return SLOW if self._slow and took > self._slow else SUCCESS

    def _permit(self, name: str, cell: Breaker, now: int, forced: str) -> Permit | None:
        if forced:
            return Permit(cell.era) if forced == FORCED_CLOSED else None
        era = cell.era
        permit = cell.admit(now)
        if cell.era != era:
            self._told(name, Change(cell.state, cell.why))
        return permit

    def _told(self, name: str, change: Change | None) -> None:
        if change is not None:
            self._turned(name, change)
            self._tell(name, change)

    def _turned(self, name: str, change: Change) -> None:
        self._closed.clear()  # whose permits are of another era now
        (self.ajar.discard if change.state is CLOSED else self.ajar.add)(name)

    def _refusal(self, name: str, cell: Breaker, now: int) -> UpstreamFault:
        left = max(1, -(-(cell.until - now) // NANO)) if cell.state is State.OPEN else 1
        why = cell.why if cell.state is not CLOSED else "opened by hand"
        return BreakerOpen(f"{name} is not asked for now: {why}", retry_after=left)


def is_held_open(call: Call, gw: Gateway) -> bool:
    """By a person: where the call goes is not to be asked."""
    upstream, forced = call.route.upstream, gw.controls.forced
    model = call.model_sent or call.asked.model
    return bool(forced) and "open" in (forced.get(upstream), forced.get(f"{upstream}/{model}"))


def shut(breakers: Breakers | None, upstream: str, model: str, gw: Gateway) -> bool:
    """Would a call to this target be turned away? A half-open cell that has no probe under way turns none away."""
    forced = gw.controls.forced
    if not forced and (breakers is None or not breakers.ajar):
        return False
    now = gw.monotonic()
    for name in (upstream, f"{upstream}/{model}"):
        if how := forced.get(name, forced.get(upstream, "")):
            if how != FORCED_CLOSED:
                return True
        elif breakers is not None and breakers.refuses(name, now):
            return True
    return False


def failed(call: Call, verdict: Verdict, *, answers: bool, reaches: bool) -> Outcome:
    """What a failed attempt is to the cell that counts answers, or to the one that counts whether it is reached."""
    last = call.attempts[-1] if call.attempts else None
    if last is None or len(call.attempts) == call.booked:
        return Outcome.NEITHER
    if last.status >= 400 and reaches and not answers:
        return Outcome.SUCCESS  # it is there, and says no
    if verdict.cause in (Cause.FINAL, Cause.CONTEXT, Cause.POLICY):
        return Outcome.NEITHER
    if last.status >= 400:
        return Outcome.FAILURE
    return Outcome.FAILURE if reaches or last.sent else Outcome.NEITHER
