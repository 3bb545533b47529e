"""Goals: where one call can go next, and what makes it one that goes there. See stages.trials."""

from __future__ import annotations

from gateway.call import Call
from gateway.errors import Forbidden
from gateway.policy.chains import Chains, Goal
from gateway.policy.keys import may_ask
from gateway.policy.splices import merged
from gateway.ports import Gateway, Spec
from gateway.stages.arrive import readable
from gateway.stages.authorize import may_go
from gateway.stages.kept import REFERS
from gateway.stages.translated import may_lead, sayable

CHANCES = 1 << 32


class Goals:
    """The further targets of a call: those of its rule, then those of its chain."""

    __slots__ = ("_call", "_chains", "_edits", "_first", "_gw", "_left", "_model", "_route", "_used")

    def __init__(self, call: Call, gw: Gateway, chains: Chains) -> None:
        self._call, self._gw, self._chains = call, gw, chains
        self._route, self._edits, self._model = call.route, call.edits, call.model_sent  # before the first attempt
        self._first = (call.route.upstream, call.model_sent or call.asked.model)
        self._left: dict[str, list[Goal]] = {}  # by trouble
        self._used: set[Goal] | None = None  # None: no other target was asked

    def __bool__(self) -> bool:
        """May there be any?"""
        return bool(self._call.further) or bool(self._chains)

    def used(self, goal: Goal) -> None:
        self._used = {*(self._used or ()), goal}

    def left(self, trouble: str) -> list[Goal]:
        """Those that are left for a kind of trouble, and that this call may go to."""
        known = self._left.get(trouble)
        if known is None:
            first = self._call.further if trouble == "failure" else ()  # of its rule, then those of the chain
            known = [Goal(target.upstream, target.model) for target in first]
            known += self._chains.goals(self._call, self._route.upstream, trouble, self.chance)
            known = self._left[trouble] = [goal for goal in dict.fromkeys(known) if self._fits(goal)]
        if self._used:
            known[:] = [goal for goal in known if goal not in self._used]
        return known

    def above(self, *, well: bool = True) -> Goal | None:
        """The next dearer target of its cascade than the one asked now. `well`: that is not left alone, and can be
        asked what the client asks."""
        call, rungs = self._call, self._call.check.rungs if self._call.check is not None else ()
        here = (call.route.upstream, call.model_sent or call.asked.model)
        at = next((at for at, target in enumerate(rungs) if (target.upstream, target.model) == here), len(rungs))
        for target in rungs[at + 1 :]:
            goal = Goal(target.upstream, target.model)
            new = goal not in (self._used or ()) and (target.upstream, target.model) != self._first
            if new and self._fits(goal) and (not well or self.is_well(goal)):
                return goal
        return None

    def chance(self) -> float:
        return int.from_bytes(self._gw.random(4), "little") / CHANCES

    def is_sayable(self, goal: Goal) -> bool:
        """Can its API say what the client asks?"""
        return sayable(self._call, self._spec(goal), self._gw, readable(self._call).body)

    def is_well(self, goal: Goal) -> bool:
        """That, and it is not left alone for now."""
        return not self._gw.trials.shut(*self.place(goal), self._gw) and self.is_sayable(goal)

    def place(self, goal: Goal) -> tuple[str, str]:
        """Its upstream and model."""
        return goal.upstream or self._route.upstream, goal.model or self._model or self._call.asked.model

    def go(self, call: Call, goal: Goal) -> None:
        """Make the call one to this target: as it was before the first attempt, but for upstream and model."""
        route = self._route
        call.edits, call.model_sent, call.asked.injected = self._edits, self._model, False
        call.away = bool(goal.upstream) and goal.upstream != route.upstream
        call.route = route.at(goal.upstream) if call.away else route
        if goal.model:
            call.request = readable(call)  # a compressed body cannot be spliced
            dialect = self._gw.dialects[route.dialect]
            call.route, edits = dialect.rename(call.route, call.asked, goal.model)
            call.edits = merged((*call.edits, *edits))
            call.model_sent = goal.model

    def _spec(self, goal: Goal) -> Spec:
        return self._gw.specs[goal.upstream or self._route.upstream]

    def _fits(self, goal: Goal) -> bool:
        call, gw = self._call, self._gw
        home, name = gw.specs[self._route.upstream], goal.upstream or self._route.upstream
        spec = gw.specs.get(name)
        if spec is None or spec.tool is not None or not may_lead(call, name, gw, home=home):
            return False
        if spec is not home and not REFERS.isdisjoint(call.asked.fields):
            return False
        return call.key is None or self._allowed(goal, spec)

    def _allowed(self, goal: Goal, spec: Spec) -> bool:
        call = self._call
        assert call.key is not None
        try:
            may_go(call, spec)
            if goal.model:
                may_ask(call.key, (goal.model,), needed=True)
        except Forbidden:
            return False
        return True
