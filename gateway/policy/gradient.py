"""Gradient: how many calls an upstream takes at once, found out from how long its answers take. Pure.

After Gradient2Limit of Netflix's concurrency-limits (Apache-2.0, limit/Gradient2Limit.java): latency now is held
against its long average. Where it has grown by more than `TOLERANCE` the limit falls in proportion, by half at most;
else it grows by `ROOM`, what may queue at the upstream. Both are smoothed, and a limit that is not used does not grow.

Ours is different in two ways: samples are gathered for a second, ten of them at least (answers of models differ more
than those of services), and an answer that says "too much" (429, 503, 529, a timeout) lowers the limit by a tenth at
once, as AIMD does; Gradient2 leaves those out.
"""

from __future__ import annotations

TOLERANCE = 1.5
SMOOTHING = 0.2
ROOM = 4
LONG = 600  # windows in the long average
WARM = 10  # windows that are plainly averaged at first
WINDOW = 10**9  # ns
SAMPLES = 10
BACKOFF = 0.9


class Gradient:
    """The limit of one pool, from `least` to `most`."""

    __slots__ = ("_began", "_busy", "_count", "_exact", "_long", "_sum", "_windows", "least", "most")

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most
        self._exact = float(most)  # it begins where the operator would have set it
        self._long = 0.0
        self._windows = 0
        self._clear(-1)

    def _clear(self, began: int) -> None:
        self._began, self._sum, self._count, self._busy = began, 0, 0, 0

    @property
    def limit(self) -> int:
        return max(self.least, min(self.most, int(self._exact)))

    def bound(self, least: int, most: int) -> None:
        """Other bounds, of a new configuration."""
        self.least, self.most = least, most
        self._exact = max(float(least), min(float(most), self._exact))

    def dropped(self) -> None:
        """The upstream said that this was too much."""
        self._exact = max(float(self.least), self._exact * BACKOFF)

    def sample(self, took: int, busy: int, now: int) -> None:
        """An answer came after `took` ns while `busy` calls were under way."""
        if self._began < 0:
            self._began = now
        self._sum += took
        self._count += 1
        self._busy = max(self._busy, busy)
        if self._count >= SAMPLES and now - self._began >= WINDOW:
            self._update(max(1.0, self._sum / self._count), self._busy)
            self._clear(now)

    def _update(self, short: float, busy: int) -> None:
        self._windows += 1
        share = 1 / self._windows if self._windows <= WARM else 2 / (LONG + 1)
        self._long += (short - self._long) * share
        if self._long > 2 * short:  # back from a time of load: forget it faster
            self._long *= 0.95
        if busy < self._exact / 2:
            return
        gradient = max(0.5, min(1.0, TOLERANCE * self._long / short))
        wanted = self._exact * gradient + ROOM
        self._exact += (wanted - self._exact) * SMOOTHING
        self._exact = max(float(self.least), min(float(self.most), self._exact))
