"""What it comes to that a model is asked first of a cascade: where its answer is withheld, the next dearer one is too.

A withheld answer is a label of 0 for its model (selection_watch), so the score of asking it first is its own, and that
of the next one in the share of calls in which that is asked; the cost likewise. The share is that of all its calls: of
a single prompt nobody knows it. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

Rises = tuple[tuple[int, int, float], ...]
"""(place of a model, of the one asked in its stead, share of its answers that were withheld), from dear to cheap; ()
without a cascade."""


def rises_of(costs: Sequence[float], withheld: Sequence[float]) -> Rises:
    """`costs`, `withheld`: of each model, as by `policy.routing.by_cost`."""
    dear_first = sorted(range(len(costs)), key=costs.__getitem__)[::-1]
    return tuple([(place, above, withheld[place]) for above, place in pairwise(dear_first) if withheld[place]])


def with_next(values: Sequence[float], rises: Rises) -> Sequence[float]:
    """Costs or scores of each model -> of asking it first."""
    if not rises:
        return values
    found = list(values)
    for place, above, share in rises:
        found[place] += share * found[above]
    return found
