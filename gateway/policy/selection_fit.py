"""Ridge regression on features by conjugate gradients (Hestenes and Stiefel 1952): exact, in no order. Pure.

It minimises sum(weight * (answer - prediction)^2) + sum(penalty * weights^2). A pass over a label costs about 5 us;
`start` from the weights of the last time makes a few passes enough.

Measures are few and have much to go by in every prompt, so they explain whatever tells the labelled subjects apart, and
mislead on others: their penalty is the heavier one.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import mul

from msgspec import Struct

from gateway.policy.selection_features import BUCKETS, Features

PENALTY = 20.0  # of words
OF_MEASURES = 1000.0
PASSES = 25
LEANING = 4.0  # labels' worth of the usual line in that of a model
_CLOSE = 1e-6


class Weights(Struct, frozen=True):
    measures: list[float] = []
    words: list[float] = []

    def predict(self, seen: Features) -> float:
        """The answer expected for it."""
        score: float = sum(map(mul, self.measures, seen.measures))
        return score + seen.weight * sum(map(self.words.__getitem__, seen.words))


class Line(Struct, frozen=True, gc=False):
    """What the length of a prompt alone says."""

    start: float = 0.0
    slope: float = 0.0

    def predict(self, seen: Features) -> float:
        return self.start + self.slope * seen.length


class Label(Struct):
    """May be amended: the last report on a run counts."""

    seen: Features
    score: float  # 0 to 1
    weight: float = 1.0


def fit(
    labels: Sequence[Label],
    start: Weights | None = None,
    *,
    penalty: float = PENALTY,
    of_measures: float = OF_MEASURES,
    passes: int = PASSES,
) -> Weights:
    """The weights that explain the labels best."""
    size = len(labels[0].seen.measures) if labels else 0
    x = _flat(start, size)
    penalties = [of_measures] * size + [penalty] * BUCKETS
    residual = _gradient(labels, size, [label.score for label in labels])
    if start is not None:
        residual = [b - a for a, b in zip(_applied(labels, size, x, penalties), residual, strict=True)]
    direction = residual[:]
    square = first = sum(map(mul, residual, residual))
    for _ in range(passes):
        if square <= _CLOSE * first or not square:
            break
        image = _applied(labels, size, direction, penalties)
        step = square / sum(map(mul, direction, image))
        x = [value + step * way for value, way in zip(x, direction, strict=True)]
        residual = [value - step * way for value, way in zip(residual, image, strict=True)]
        last, square = square, sum(map(mul, residual, residual))
        ratio = square / last
        direction = [value + ratio * way for value, way in zip(residual, direction, strict=True)]
    return Weights(x[:size], x[size:])


def _flat(start: Weights | None, size: int) -> list[float]:
    if start is None or len(start.measures) != size:
        return [0.0] * (size + BUCKETS)
    return [*start.measures, *start.words]


def _applied(labels: Sequence[Label], size: int, x: list[float], penalties: list[float]) -> list[float]:
    """(X'WX + penalties) x"""
    weights = Weights(x[:size], x[size:])
    out = _gradient(labels, size, [weights.predict(label.seen) for label in labels])
    return [value + penalty * old for value, penalty, old in zip(out, penalties, x, strict=True)]


def _gradient(labels: Sequence[Label], size: int, values: Sequence[float]) -> list[float]:
    """X'W values"""
    measures, words = [0.0] * size, [0.0] * BUCKETS
    for label, value in zip(labels, values, strict=True):
        amount = value * label.weight
        measures = [total + amount * one for total, one in zip(measures, label.seen.measures, strict=True)]
        amount *= label.seen.weight
        for bucket in label.seen.words:
            words[bucket] += amount
    return measures + words


def line(labels: Sequence[Label], usual: Line | None = None) -> Line:
    """The line through scores over lengths, by least squares. Of few labels it leans on the usual one, if there is
    one."""
    leaning, usual = (0.0, Line()) if usual is None else (LEANING, usual)
    total = sum([label.weight for label in labels])
    if not total:
        return usual
    apart = [label.score - usual.predict(label.seen) for label in labels]
    center = sum([label.weight * label.seen.length for label in labels]) / total
    shift = sum([label.weight * off for label, off in zip(labels, apart, strict=True)]) / (total + leaning)
    spread = sum([label.weight * (label.seen.length - center) ** 2 for label in labels]) + leaning
    if spread < 1e-9 * total:
        return Line(usual.start + shift, usual.slope)
    both = sum([label.weight * (label.seen.length - center) * off for label, off in zip(labels, apart, strict=True)])
    tilt = both / spread
    return Line(usual.start + shift - tilt * center, usual.slope + tilt)
