"""When a store is taken for away, and when it is asked again. Pure: a fault or an answer in, a change of state out.

Rules
1. The first fault is enough: whoever waits for a store that hangs pays one timeout, and whoever comes after it none.
2. No call is used to find out whether it is back: one probe at a time does that, at growing distances.
3. Every change of state is told once (`True`), so that one line of log is written for it.
"""

from __future__ import annotations

import enum

FIRST, LONGEST = 0.1, 2.0  # seconds between probes


class State(enum.StrEnum):
    STARTING = "starting"
    HERE = "here"
    LEARNING = "learning"  # it answers, but what it knew is not complete yet
    AWAY = "away"


class Outage:
    """Seconds of any clock that only goes forward."""

    def __init__(self) -> None:
        self.state = State.STARTING
        self.since = 0.0
        self.outages = 0
        self._probes = 0

    @property
    def here(self) -> bool:
        return self.state is State.HERE

    def fault(self, now: float) -> bool:
        """Something failed. True: it was not known to be away."""
        self._probes += 1
        if self.state is State.AWAY:
            return False
        self.outages += 1
        self._probes = 0
        return self._enter(State.AWAY, now)

    def learning(self, now: float) -> bool:
        return self._enter(State.LEARNING, now) if self.state is not State.LEARNING else False

    def back(self, now: float) -> bool:
        self._probes = 0
        return self._enter(State.HERE, now) if self.state is not State.HERE else False

    def pause(self) -> float:
        """Seconds to wait before the next probe."""
        return min(LONGEST, FIRST * 2.0 ** min(self._probes, 10))

    def _enter(self, state: State, now: float) -> bool:
        self.state, self.since = state, now
        return True
