"""What the first content of answers took lately, for each target: the newest so many, in order of size. Pure.

A value that came from an attempt which was broken off is smaller than the truth. As long as it is beyond the quantile
that is asked for, it counts there as the truth would.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Hashable

KEPT = 200  # values of a target
FRESH = 900 * 10**9  # ns for which one counts
TARGETS = 1024


class Latest:
    """The newest values of one target."""

    __slots__ = ("_in_order", "_in_time")

    def __init__(self) -> None:
        self._in_time: deque[tuple[int, int]] = deque()  # when, value
        self._in_order: list[int] = []

    def add(self, value: int, now: int) -> None:
        self._drop(now, KEPT - 1)
        self._in_time.append((now, value))
        insort(self._in_order, value)

    def quantile(self, share: float, sample: int, now: int) -> int | None:
        """The value that this share of the values does not exceed; None while there are fewer than `sample`."""
        self._drop(now, KEPT)
        count = len(self._in_order)
        if count < max(1, sample):
            return None
        return self._in_order[min(count - 1, int(share * count))]

    def _drop(self, now: int, most: int) -> None:
        times = self._in_time
        while times and (len(times) > most or now - times[0][0] > FRESH):
            _, value = times.popleft()
            del self._in_order[bisect_left(self._in_order, value)]


class Delays:
    """The same for each target; a target that is new where there are too many begins them all anew."""

    def __init__(self) -> None:
        self._of: dict[Hashable, Latest] = {}

    def add(self, target: Hashable, value: int, now: int) -> None:
        known = self._of.get(target)
        if known is None:
            if len(self._of) >= TARGETS:  # names of models come from clients
                self._of.clear()
            known = self._of[target] = Latest()
        known.add(value, now)

    def quantile(self, target: Hashable, share: float, sample: int, now: int) -> int | None:
        known = self._of.get(target)
        return None if known is None else known.quantile(share, sample, now)
