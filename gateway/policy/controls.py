"""What people decide about runs while they go on: stop, let go on, give more budget, set limits. Pure.

Rules
1. A *decision* is an event and is kept for ever; a *standing* is what all decisions about one subject add up to.
2. A kill stops the subject's next call and the calls under way; the first reason given stays until it is resumed.
3. Resuming takes the kill away, and nothing else. A raise replaces the budget of the run; it does not resume it.
4. Limits of a run are set as a whole: what is not named in the last decision is not limited by it. So are those of
   every other scope (`Caps`), which hold beside what is configured: they tighten it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import TypeVar

from msgspec import Struct, structs

from gateway.call import Call
from gateway.spend import RunLimits

K = TypeVar("K")
T = TypeVar("T")


class Kind(enum.StrEnum):
    KILL = "kill"
    RESUME = "resume"
    RAISE = "raise"
    LIMIT = "limit"  # of a run
    CAP = "cap"  # of any other scope; without caps: none any more
    OPEN = "open"  # a breaker: nothing goes there; its subject is an UPSTREAM, or "upstream/model"
    CLOSE = "close"  # everything does
    AUTO = "auto"  # it goes by what it counts


LOOP_BREAKER = "loop breaker"
"""Who stopped a run that no person did."""
FORCED = {Kind.OPEN: "open", Kind.CLOSE: "closed", Kind.AUTO: ""}


class Scope(enum.StrEnum):
    RUN = "run"
    AGENT = "agent"  # with the sub-agents it starts
    KEY = "key"  # by id or name, with the keys below it
    TEAM = "team"
    GLOBAL = "global"  # this one, and those below, have caps alone
    MODEL = "model"
    UPSTREAM = "upstream"


class Cap(Struct, frozen=True, array_like=True, gc=False):
    """A budget that was set while the gateway runs; as config.Budget."""

    usd: int | None = None  # nano-USD
    tokens: int | None = None
    per: str = "month"
    rolling: bool = False
    on_exceed: str = "refuse"


class Caps(Struct, frozen=True, array_like=True):
    """All that was set for one scope and value (a name, with * as wildcard). None: not limited so."""

    budgets: tuple[Cap, ...] = ()
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    burst: int | None = None


class Decision(Struct, frozen=True):
    """`amount` (of RAISE) is in nano-USD, `at` in ns since the epoch. RAISE and LIMIT are about runs only."""

    kind: Kind
    scope: Scope
    value: str
    amount: int = 0
    reason: str = ""
    who: str = ""
    at: int = 0
    limits: RunLimits | None = None
    caps: Caps | None = None


class Standing(Struct, frozen=True, array_like=True):
    """How a subject stands. `revision` ascends over all subjects of a store."""

    scope: Scope
    value: str
    revision: int = 0
    at: int = 0  # of the last decision
    killed_at: int = 0  # 0: it may go on
    reason: str = ""  # of the kill
    who: str = ""
    budget: int | None = None  # nano-USD
    limits: RunLimits | None = None
    caps: Caps | None = None
    forced: str = ""  # of a breaker: open | closed; "": it goes by what it counts

    @property
    def matters(self) -> bool:
        return bool(self.killed_at or self.forced) or any(x is not None for x in (self.budget, self.limits, self.caps))


def after(before: Standing | None, decision: Decision, revision: int) -> Standing:
    """How a subject stands once `decision` is taken."""
    now = before if before is not None else Standing(decision.scope, decision.value)
    now = structs.replace(now, revision=revision, at=decision.at)
    match decision.kind:
        case Kind.KILL:
            mine, first = (decision.at or 1, decision.who, decision.reason), (now.killed_at, now.who, now.reason)
            if now.killed_at and first <= mine:  # machines that learn of two kills in another order still agree
                return now
            return structs.replace(now, killed_at=decision.at or 1, reason=decision.reason, who=decision.who)
        case Kind.RESUME:
            return structs.replace(now, killed_at=0, reason="", who="")
        case Kind.RAISE:
            return structs.replace(now, budget=decision.amount)
        case Kind.LIMIT:
            return structs.replace(now, limits=decision.limits)
        case Kind.CAP:
            return structs.replace(now, caps=decision.caps)
        case Kind.OPEN | Kind.CLOSE | Kind.AUTO:
            return structs.replace(now, forced=FORCED[decision.kind])


def words(standing: Standing) -> str:
    """Why a call is refused, for the agent that reads it."""
    by = f" by {standing.who}" if standing.who else ""
    why = f": {standing.reason.rstrip('.')}" if standing.reason else ""
    return f"{standing.scope} {standing.value} was stopped{by}{why}. Every call is refused until it is resumed."


class Standings:
    """All standings, in memory: the reading half of ports.Controls."""

    def __init__(self) -> None:
        self.revision = 0
        self.stops: dict[tuple[str, str], str] = {}
        self._budgets: dict[str, int] = {}
        self._limits: dict[str, RunLimits] = {}
        self.caps: Mapping[tuple[str, str], Caps] = {}  # another one whenever it changes
        self.forced: dict[str, str] = {}  # breakers, by name

    def take(self, standings: Iterable[Standing]) -> None:
        """Take changed standings in."""
        caps = dict(self.caps)
        for standing in standings:
            self.revision = max(self.revision, standing.revision)
            subject = (str(standing.scope), standing.value)
            if standing.killed_at:
                self.stops[subject] = words(standing)
            else:
                self.stops.pop(subject, None)
            if standing.scope is Scope.RUN:
                _keep(self._budgets, standing.value, standing.budget)
                _keep(self._limits, standing.value, standing.limits)
            elif standing.scope is Scope.UPSTREAM:
                _keep(self.forced, standing.value, standing.forced or None)
            _keep(caps, subject, standing.caps)
        if caps != self.caps:
            self.caps = caps

    def replace(self, standings: Iterable[Standing]) -> None:
        """Forget everything, and take these."""
        standings = list(standings)
        stay = {(str(standing.scope), standing.value) for standing in standings}
        if not stay.issuperset(self.caps):
            self.caps = {subject: caps for subject, caps in self.caps.items() if subject in stay}
        self.stops.clear()
        self.forced.clear()
        self._budgets.clear()
        self._limits.clear()
        self.take(standings)

    def stopped(self, call: Call) -> str | None:
        stops = self.stops
        if not stops:
            return None
        who, key = call.who, call.key
        subjects = [("run", who.run_id), ("agent", who.agent), ("agent", who.parent_agent)]
        subjects.append(("team", who.team or who.tenant))  # as the scopes of limits have it
        subjects.append(("key", who.key_id))
        for one in (key, *key.above) if key is not None else ():
            subjects += (("key", one.id), ("key", one.name))
        return next((stops[subject] for subject in subjects if subject in stops), None)

    def raised(self, run_id: str) -> int | None:
        return self._budgets.get(run_id)

    def limits(self, run_id: str) -> RunLimits | None:
        return self._limits.get(run_id)


def _keep(into: dict[K, T], key: K, value: T | None) -> None:
    if value is None:
        into.pop(key, None)
    else:
        into[key] = value
