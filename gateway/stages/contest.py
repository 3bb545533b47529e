"""Contest: what a call's trial does about a second attempt beside the first, wherever that goes. See stages.race."""

from __future__ import annotations

from msgspec import Struct

from gateway.call import Call
from gateway.errors import BreakerOpen, NoPlace
from gateway.policy.bulkhead import Place
from gateway.policy.chains import Goal
from gateway.policy.retry import Verdict
from gateway.ports import Gateway
from gateway.stages.attempted import Attempted
from gateway.stages.breaking import Breakers, Pass, shut
from gateway.stages.lanes import Lane

HERE = Goal()
Given = tuple[Goal, Pass | None, Place | None]


class Contest(Attempted, eq=False):
    """Implements stages.race.Rivals."""

    _goal: Goal = HERE  # asked now
    _tries: int = 1  # of it

    @property
    def probing(self) -> bool:
        """Is the attempt under way a probe of its breaker?"""
        return self.admitted is not None and self.admitted.probe

    def aim(self, other: Call, *, elsewhere: bool) -> Given | None:
        breakers, gw = self._shared.breakers, self._gw
        goal = self._best() or (None if elsewhere else self._goal)
        if goal is None:
            return None
        self._goals.go(other, goal)
        if breakers is None and shut(None, other.route.upstream, other.model_sent or other.asked.model, gw):
            return None
        seat, pools = None, self._shared.bulkheads
        try:
            seat = pools.beside(other, gw) if pools is not None else None
            return goal, breakers.enter(other, gw) if breakers is not None else None, seat
        except (BreakerOpen, NoPlace):
            self.free(seat, other)
            return None

    def _best(self) -> Goal | None:
        """The next target that is well; one that is still to be probed only where there is no other."""
        breakers, doubtful = self._shared.breakers, None
        for goal in self._goals.left("failure"):
            if self._goals.is_well(goal):
                if breakers is None or breakers.are_closed(*self._goals.place(goal)):
                    return goal
                doubtful = doubtful or goal
        return doubtful

    def lost(self, other: Call, given: Given, verdict: Verdict | None) -> None:
        goal, one, seat = given
        self.free(seat, other)
        if verdict is not None:
            self._goals.used(goal)
        if one is not None and self._shared.breakers is not None:
            self._shared.breakers.leave(one, other, verdict, well=False, gw=self._gw)

    def taken(self, first: Call, given: Given, verdict: Verdict | None) -> None:
        breakers = self._shared.breakers
        if self.admitted is not None and breakers is not None:
            if verdict is None:
                breakers.overtaken(self.admitted, self._gw)
            else:
                breakers.leave(self.admitted, first, verdict, well=False, gw=self._gw)
        self.free(self.seat, first)
        self._goal, self.admitted, self.seat = given
        self._goals.used(self._goal)
        self._tries = 1

    def behind(self, first: Call) -> Behind | None:
        one, breakers = self.admitted, self._shared.breakers
        if one is None or not one.probe or breakers is None:
            return None
        seat, self.admitted, self.seat = self.seat, None, None
        return Behind(self, breakers, one, seat, breakers.bound(one, first, self._gw), self._gw)


class Behind(Struct, eq=False):
    """Implements stages.race.Behind: a probe that was overtaken, and has the permits and the place of its attempt."""

    _contest: Contest
    _breakers: Breakers
    _pass: Pass
    _seat: Place | None
    seconds: float
    _gw: Gateway

    def end(self, lane: Lane) -> None:
        call, last = lane.call, lane.call.attempts[-1]
        call.first_byte = lane.said
        if lane.errored is not None:
            last.status = lane.errored.status  # what its 200 should have been
        if not last.sent:
            lane.fault = last.fault
        if lane.late:
            self._breakers.overtaken(self._pass, self._gw)
        else:
            self._breakers.leave(self._pass, call, lane.verdict(self._gw), well=lane.well, gw=self._gw)
        self._contest.free(self._seat, call)
