"""Which of several models a call needs: the highest `expected score - weight * cost`, as learned in its scope. Pure.

Rules
1. Nothing is chosen by what was learned before `ENOUGH` labels in the scope: until then the first model of the list
   serves, and the rest is tried on the explored share only. No saving is claimed before either.
2. At most `EXPLORED` of the calls take a model by chance, so that what is learned of the others does not go stale.
3. The weight of cost is solved from the operator's goal (`solve`) on scores that no fit had seen.
4. Learned choices do not carry over to subjects that were never labelled. Where a prompt is unlike what was learned
   from, the expected scores lean back on what its length says: see selection_trust.

Cost: about 0.2 ms for nine models and a usual prompt, most of it for the features.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec import Struct

from gateway.policy.selection_curve import Point, best
from gateway.policy.selection_features import Features
from gateway.policy.selection_trust import Expected

ENOUGH = 500
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
    scores: tuple[float, ...] = ()  # expected, of the candidates


class Model(Struct, frozen=True):
    """What was learned in one scope, as workers use it."""

    arms: tuple[str, ...]  # models, the operator's first choice first
    costs: tuple[float, ...]  # of a call, in units of the dearest
    expected: Expected = Expected()
    weight: float = 0.0  # of cost
    labels: int = 0

    @property
    def ready(self) -> bool:
        return self.labels >= ENOUGH and len(self.expected.weights) == len(self.arms)

    def choose(self, seen: Features, allowed: Collection[str], draw: float, explored: float = EXPLORED) -> Choice:
        """`allowed`: what the hard filters left, not empty; `draw`: by chance, from 0 to 1."""
        indices = [index for index, arm in enumerate(self.arms) if arm in allowed]
        explored = min(explored, EXPLORED)
        if draw < explored:
            return Choice(self.arms[indices[min(int(draw / explored * len(indices)), len(indices) - 1)]], "explored")
        if not self.ready:
            return Choice(self.arms[indices[0]], "first")
        all_scores = self.expected.of(seen)
        scores = tuple([all_scores[index] for index in indices])
        found = best(scores, [self.costs[index] for index in indices], self.weight)
        return Choice(self.arms[indices[found]], "learned", scores)
