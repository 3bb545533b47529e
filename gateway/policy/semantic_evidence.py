"""What is known about wrong hits, and what may be promised on it: intervals, the cut, the breaker. Pure."""

from __future__ import annotations

import math

from msgspec import Struct

NINETY_FIVE = 1.959964  # standard deviations of a two-sided interval of 95 %


class Interval(Struct, frozen=True, gc=False):
    lower: float
    upper: float


def wilson(wrong: float, count: float, z: float = NINETY_FIVE) -> Interval:
    """Of a share, from `count` trials (an effective number, where they have weights); all of 0 to 1 without any.

    Wilson 1927; it keeps its level also near 0 and for few trials, where the plain normal interval has none.
    """
    if count <= 0:
        return Interval(0.0, 1.0)
    share, square = min(1.0, wrong / count), z * z
    centre = (share + square / (2 * count)) / (1 + square / count)
    half = z * math.sqrt(share * (1 - share) / count + square / (4 * count * count)) / (1 + square / count)
    # the ends are exact where nothing, or everything, is wrong: a difference of two roundings need not be
    return Interval(max(0.0, centre - half) if wrong > 0 else 0.0, min(1.0, centre + half) if share < 1 else 1.0)


class Seen(Struct, frozen=True, gc=False):
    """One verified candidate: its logit when it was decided on, was its answer right, how many labels it counts for."""

    logit: float
    right: bool
    weight: float = 1.0


class Tally(Struct):
    """Verified hits of a scope, each with the number of hits it stands for."""

    count: int = 0
    wrong: int = 0
    weights: float = 0.0
    squares: float = 0.0
    wrong_weights: float = 0.0
    wrong_squares: float = 0.0

    def add(self, right: bool, weight: float, fade: float = 1.0) -> None:
        """`fade`: what all that came before still counts."""
        self.count += 1
        self.weights = self.weights * fade + weight
        self.squares = self.squares * fade * fade + weight * weight
        self.wrong_weights *= fade
        self.wrong_squares *= fade * fade
        if not right:
            self.wrong += 1
            self.wrong_weights += weight
            self.wrong_squares += weight * weight

    @property
    def effective(self) -> float:
        """The number of equal trials that would say as much (Kish 1965): of all, or, where that is less, the number of
        which the wrong ones would be the share that they are. One wrong hit that stands for fifty is one event."""
        if not self.squares:
            return 0.0
        every = self.weights * self.weights / self.squares
        return min(every, self.wrong_weights * self.weights / self.wrong_squares) if self.wrong_squares else every

    @property
    def share(self) -> float:
        """Of wrong hits; 0 without any."""
        return self.wrong_weights / self.weights if self.weights else 0.0

    @property
    def interval(self) -> Interval:
        return wilson(self.share * self.effective, self.effective)
