"""Relief: how much a worker's caches in memory give back before any call is sent away for want of it. Pure.

Rules
1. From nine tenths of the mark on, they give back half of what they hold, or as much as is above eight tenths where
   that is more; once in a second, since what was given back must show first.
2. At the mark they give back all. Only what is then still above it is held against calls (policy.overload).
3. What they may hold grows again below eight tenths, a sixteenth of what is configured per second, so that a cache that
   fills as fast as it was emptied does not go up and down with the memory.
"""

from __future__ import annotations

FROM, TO = 0.9, 0.8  # shares of the mark
PAUSE = 10**9  # ns
STEP = 16
LEAST = 65_536  # bytes that are not worth halving


class Relief:
    """Of one worker. `room`: bytes that its caches may hold; None: as much as is configured."""

    __slots__ = ("_changed", "room")

    def __init__(self) -> None:
        self.room: int | None = None
        self._changed = -PAUSE

    def look(self, memory: int, mark: int, held: int, full: int, now: int) -> int | None:
        """The room from now on. `memory`, `mark`: bytes that the worker has, and may have (0: any number); `held`:
        those that caches hold; `full`: that they may hold by the configuration; `now`: ns."""
        if not mark:
            self.room = None
        elif memory >= mark:
            self._take(0, now)
        elif now - self._changed >= PAUSE:
            if memory >= FROM * mark:
                left = held - max(held // 2, memory - int(TO * mark))
                self._take(left if left >= LEAST else 0, now)
            elif memory < TO * mark and self.room is not None:
                grown = self.room + max(1, full // STEP)
                self._take(grown if grown < full else None, now)
        return self.room

    def _take(self, room: int | None, now: int) -> None:
        self.room, self._changed = room, now


def shared(room: int | None, last: int) -> tuple[int | None, int | None]:
    """That of the answers, and of what is given up last, of which so much is held."""
    if room is None or room >= last:
        return (None if room is None else room - last), None
    return 0, room
