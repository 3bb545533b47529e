"""What the first byte of an answer took lately, for each target: an average that forgets. Pure.

What was not asked for a while is taken for quicker than it was, until it is asked again: a target that was slow once
must not stay out for ever.
"""

from __future__ import annotations

from msgspec import Struct

PART = 0.2  # of the newest in the average
HALF_LIFE = 30 * 10**9  # ns without a call, after which a target counts as twice as quick


class _Pace(Struct):
    average: float
    at: int


class Paces:
    def __init__(self) -> None:
        self._of: dict[str, _Pace] = {}

    def learn(self, target: str, took: int, now: int) -> None:
        """`took`: ns to the first byte; of a failure what it took to know."""
        known = self._of.get(target)
        if known is None:
            self._of[target] = _Pace(took, now)
        else:
            known.average += PART * (took - known.average)
            known.at = now

    def expect(self, target: str, now: int) -> float:
        """0: not known, so it is asked soon."""
        known = self._of.get(target)
        return 0.0 if known is None else known.average * 0.5 ** (max(0, now - known.at) / HALF_LIFE)
