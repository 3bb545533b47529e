"""How good a choice between models is: cost against quality, and the measures of the RouteLLM paper. Pure.

Source: Ong et al., "RouteLLM: Learning to Route LLMs with Preference Data", 2024, arXiv:2406.18665, section 3. For a
weak and a strong model of mean quality q(w) < q(s), and a router of mean quality q(r) that sends a share c of the calls
to the strong one:
    performance gap recovered   PGR(c) = (q(r) - q(w)) / (q(s) - q(w))
    average of it               APGR   = integral of PGR(c) over c from 0 to 1; a random router has 0.5
    call-performance threshold  CPT(x) = the least share c of strong calls with PGR(c) >= x
The paper takes ten equally spaced c for the integral; here every c that the rows allow is taken (trapezoids).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

Row = Sequence[float]  # one number for each model
STEPS = 48  # of the weight of cost
_LEAST, _MOST = 1e-3, 1e2


class Gap(Struct, frozen=True):
    """Two models: what a score that says who needs the strong one is worth."""

    apgr: float
    cpt50: float
    cpt80: float
    points: tuple[tuple[float, float], ...]  # (share of strong calls, quality)


def gap(need: Sequence[float], weak: Sequence[float], strong: Sequence[float]) -> Gap:
    """The prompts of the highest `need` go to the strong model first; equal ones in the order given."""
    count = len(need)
    order = sorted(range(count), key=lambda row: -need[row])
    low, high = sum(weak) / count, sum(strong) / count
    qualities = [low]
    for row in order:
        qualities.append(qualities[-1] + (strong[row] - weak[row]) / count)
    if high == low:
        return Gap(0.0, 1.0, 1.0, ())
    recovered = [(quality - low) / (high - low) for quality in qualities]
    area = sum(before + after for before, after in pairwise(recovered)) / 2 / count
    every = max(1, count // 50)
    points = [(at / count, quality) for at, quality in enumerate(qualities)]
    return Gap(area, _threshold(recovered, 0.5), _threshold(recovered, 0.8), (*points[::every], points[-1]))


def _threshold(recovered: Sequence[float], share: float) -> float:
    found = (at for at, value in enumerate(recovered) if value >= share - 1e-12)
    return next(found, len(recovered) - 1) / (len(recovered) - 1)


class Point(Struct, frozen=True):
    """One weight of cost: what the choice by `score - weight * cost` would have brought."""

    weight: float
    quality: float  # mean
    cost: float  # mean


def best(scores: Row, costs: Row, weight: float) -> int:
    """The model with the highest score less its cost; of equal ones the cheaper, then the first."""
    values = [score - weight * cost for score, cost in zip(scores, costs, strict=True)]
    top = max(values)
    return min((cost, index) for index, (value, cost) in enumerate(zip(values, costs, strict=True)) if value == top)[1]


def point(predicted: Sequence[Row], scores: Sequence[Row], costs: Sequence[Row], weight: float) -> Point:
    quality = spent = 0.0
    for guess, score, cost in zip(predicted, scores, costs, strict=True):
        chosen = best(guess, cost, weight)
        quality += score[chosen]
        spent += cost[chosen]
    return Point(weight, quality / len(predicted), spent / len(predicted))


def weights() -> tuple[float, ...]:
    """0, and from light to heavy in equal factors; costs are in units of the dearest model's mean."""
    factor = (_MOST / _LEAST) ** (1 / (STEPS - 1))
    return (0.0, *[_LEAST * factor**step for step in range(STEPS)])


def curve(predicted: Sequence[Row], scores: Sequence[Row], costs: Sequence[Row]) -> tuple[Point, ...]:
    """From quality alone to cost alone."""
    return tuple(point(predicted, scores, costs, weight) for weight in weights())


def single(scores: Sequence[Row]) -> int:
    """The model that is best for all of them; of equal ones the first."""
    found = means(scores)
    return found.index(max(found))


def means(rows: Sequence[Row]) -> list[float]:
    """Of each column."""
    return [sum(column) / len(column) for column in zip(*rows, strict=True)]
