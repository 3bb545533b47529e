"""Overload: when this worker has more to do than it can, and whom it sends away first. Pure.

What it looks at is how late its event loop is, and how much memory it has. Each has a mark; the level is how far it is
passed by the worse of them:

    level   loop, times its mark   memory, times its mark   who is sent away
    1       1                      1                        batch, and those whose client sends the call again
    2       2                      1.1                      interactive, too
    3       4                      1.2                      all

It rises at once and falls by one where a second has passed below nine tenths of what made it, so that those who come
back do not find it up and down in turns.
"""

from __future__ import annotations

from msgspec import Struct

from gateway.policy.bulkhead import BATCH, Priority

LAG = (1.0, 2.0, 4.0)
MEMORY = (1.0, 1.1, 1.2)
BELOW = 0.9
CALM = 10**9  # ns
MOST = 3
SHED, PRIORITY = "shed", "priority"  # notes of a call that was sent away


class Marks(Struct, frozen=True):
    """From where on; 0: not looked at."""

    lag: int = 0  # ns
    memory: int = 0  # bytes


class Overload:
    """The level of one worker."""

    __slots__ = ("_calm_since", "_lag", "cause", "level", "marks")

    def __init__(self, marks: Marks) -> None:
        self.marks = marks
        self.level = 0
        self.cause = ""  # lag | memory: what made the level
        self._lag = 0.0
        self._calm_since = -1

    def look(self, lag: int, memory: int, now: int) -> None:
        """`lag`: ns that the loop was late this time; half of it counts, and half of what counted before, so that a
        single hiccup is none."""
        self._lag = (self._lag + lag) / 2
        level, cause = self._reached(memory, 1.0)
        if level > self.level:
            self.level, self.cause, self._calm_since = level, cause, -1
        elif not self.level or self._reached(memory, BELOW)[0] >= self.level:
            self._calm_since = -1
        elif self._calm_since < 0:
            self._calm_since = now
        elif now - self._calm_since >= CALM:
            self.level, self._calm_since = self.level - 1, now
            self.cause = self.cause if self.level else ""

    def _reached(self, memory: int, share: float) -> tuple[int, str]:
        found = (0, "")
        for value, mark, factors, cause in (
            (self._lag, self.marks.lag, LAG, "lag"),
            (memory, self.marks.memory, MEMORY, "memory"),
        ):
            level = sum([value >= mark * factor * share for factor in factors]) if mark else 0
            found = max(found, (level, cause)) if level else found
        return found

    def sheds(self, priority: Priority, *, again: bool) -> bool:
        """Is such a call sent away? `again`: its client says that it sent it before."""
        return self.level > 0 and min(BATCH, priority + again) >= MOST - self.level
