"""Which of several models a call needs: the highest `expected score - weight * cost`, as learned in its scope. Pure.

Rules
1. Nothing is chosen by what was learned before `ENOUGH` labels in the scope: until then the first model of the list
   serves, and the rest is tried on the explored share only. No saving is claimed before either. A model with fewer
   than `KNOWN` labels of its own is not chosen by them.
2. At most `EXPLORED` of the calls take another model by chance, so that what is learned of the others does not go
   stale; the less is known of a model, the more of them are its.
3. The weight of cost is solved from the operator's goal (`solve`) on scores that no fit had seen.
4. What is learned of words hardly carries over to subjects that were never labelled. Expected scores begin with what
   the length says, and keep closer to it where a prompt is unlike what was learned from: see selection_trust.

Cost: about 0.2 ms for nine models and a usual prompt, most of it for the features.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec import Struct

from gateway.policy.selection_cascade import Rises, with_next
from gateway.policy.selection_curve import Point, best
from gateway.policy.selection_features import Features
from gateway.policy.selection_trust import Expected

ENOUGH = 500
KNOWN = 30
EXPLORED = 0.02


class Goal(Struct, frozen=True):
    """Shares of the best single model's quality and cost. `quality`: at least, as cheap as can be; `cost`: at most, as
    good as can be; both: at least this good, and where that costs more than allowed, as good as can be within that."""

    quality: float | None = None
    cost: float | None = None


def solve(points: Sequence[Point], single: Point, goal: Goal) -> float:
    """The weight of cost that reaches the goal; 0 where nothing but the best quality comes near. `points`: what each
    weight would have brought."""
    within = [one for one in points if goal.cost is None or one.cost <= goal.cost * single.cost] or [
        min(points, key=lambda one: one.cost)
    ]
    if goal.quality is not None:
        good = [one for one in within if one.quality >= goal.quality * single.quality]
        if good:
            return min(good, key=lambda one: (one.cost, -one.quality)).weight
    return max(within, key=lambda one: (one.quality, -one.cost)).weight


class Choice(Struct, frozen=True):
    arm: str
    why: str  # learned | explored | first: too little is known
    score: float = -1.0  # expected of it; -1: too little is known


class Model(Struct, frozen=True):
    """What was learned in one scope, as workers use it."""

    arms: tuple[str, ...]  # models, the operator's first choice first
    costs: tuple[float, ...]  # of a call that asks it first, in units of the dearest
    expected: Expected = Expected()
    weight: float = 0.0  # of cost
    labels: float = 0.0  # in the scope; half a label is one of half the weight
    counts: tuple[float, ...] = ()  # of each model
    rises: Rises = ()

    @property
    def ready(self) -> bool:
        return self.labels >= ENOUGH and len(self.expected.beyond) == len(self.arms)

    def choose(self, seen: Features, allowed: Collection[str], draw: float, explored: float = EXPLORED) -> Choice:
        """`allowed`: what the hard filters left, at least one of `arms`; `draw`: by chance, from 0 to 1."""
        indices = [index for index, arm in enumerate(self.arms) if arm in allowed]
        choice = self._by_merit(seen, indices)
        explored = min(explored, EXPLORED)
        others = [index for index in indices if self.arms[index] != choice.arm]
        if draw >= explored or not others:
            return choice
        return Choice(self.arms[self._curious(others, draw / explored)], "explored")

    def _by_merit(self, seen: Features, indices: Sequence[int]) -> Choice:
        known = [index for index in indices if index < len(self.counts) and self.counts[index] >= KNOWN]
        if not self.ready or not known:
            return Choice(self.arms[indices[0]], "first")
        all_scores = with_next(self.expected.of(seen), self.rises)
        scores = tuple([all_scores[index] for index in known])
        found = best(scores, [self.costs[index] for index in known], self.weight)
        return Choice(self.arms[known[found]], "learned", min(1.0, scores[found]))

    def _curious(self, others: Sequence[int], draw: float) -> int:
        """One of them, by chance: in inverse proportion to what is known of it."""
        shares = [1 / (KNOWN + (self.counts[index] if index < len(self.counts) else 0)) for index in others]
        left = draw * sum(shares)
        for index, share in zip(others, shares, strict=True):
            left -= share
            if left < 0:
                return index
        return others[-1]
