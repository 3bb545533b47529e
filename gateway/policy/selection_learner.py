"""Learns what each model of a scope is good for, from labels as they come. Pure; the same labels give the same model.

Theory of operation
* A label is the score (0 to 1) of one model on one prompt. The newest `KEPT` of each model are kept; a label counts
  half as much after `HALF_LIFE` further ones, so that a model that changes is followed.
* Every `REFIT` labels the weights are fitted anew, from where they are (selection_trust): a few passes are enough.
* The weight of cost is solved on what each prompt was expected to score *before* it was learned from. A score that is
  not known (the model was not asked) is taken as expected; where the true one of the chosen model is known, it counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from msgspec import Struct

from gateway.policy.selection import Goal, Model, solve
from gateway.policy.selection_curve import Point, curve, means, single
from gateway.policy.selection_features import Features
from gateway.policy.selection_fit import Label
from gateway.policy.selection_trust import Expected, teach

KEPT = 8_000
HALF_LIFE = 4_000
REFIT = 100
JUDGED = 2_000  # prompts that the weight of cost is solved on
FEW_PASSES = 6
FOLDS = 2


class Judged(Struct, frozen=True):
    expected: tuple[float, ...]  # by weights that had not seen it
    scores: tuple[float, ...]  # the true one where it is known


class Example(Struct, frozen=True):
    """One prompt with the scores that are known."""

    seen: Features
    scores: Mapping[str, float]
    weight: float = 1.0


class Learner:
    """One scope. `costs`: of a call of each model; of `arms` the first is the operator's first choice."""

    def __init__(self, arms: Sequence[str], costs: Sequence[float], goal: Goal) -> None:
        dearest = max(costs, default=0.0) or 1.0
        self.goal = goal
        self._arms = tuple(arms)
        self._costs = tuple([cost / dearest for cost in costs])
        self._labels: tuple[deque[Label], ...] = tuple([deque(maxlen=KEPT) for _ in arms])
        self._judged: deque[Judged] = deque(maxlen=JUDGED)
        self._expected: Expected | None = None
        self._new = 0
        self.labels = 0
        self.model = Model(self._arms, self._costs)

    def learn(self, example: Example) -> bool:
        """Take a label in; true where there is a new `model`."""
        known = self._take(example)
        if not known:
            return False
        if self._expected is not None:
            self._judge(example, self._expected)
        self._new += known
        if self._new < REFIT:
            return False
        self._refit(FEW_PASSES)
        return True

    def warm(self, examples: Sequence[Example]) -> None:
        """Begin with a labelled file."""
        for fold in range(FOLDS):
            rest = [example for index, example in enumerate(examples) if index % FOLDS != fold]
            expected = teach([_labels_of(arm, rest) for arm in self._arms])
            for example in examples[fold::FOLDS]:
                self._judge(example, expected)
        for example in examples:
            self._take(example)
        self._refit(None)

    def _take(self, example: Example) -> int:
        known = 0
        for arm, labels in zip(self._arms, self._labels, strict=True):
            score = example.scores.get(arm)
            if score is not None:
                labels.append(Label(example.seen, min(1.0, max(0.0, score)), example.weight))
                known += 1
        self.labels += known > 0
        return known

    def _judge(self, example: Example, expected: Expected) -> None:
        guesses = expected.of(example.seen)
        scores = [example.scores.get(arm, guess) for arm, guess in zip(self._arms, guesses, strict=True)]
        self._judged.append(Judged(guesses, tuple(scores)))

    def _refit(self, passes: int | None) -> None:
        self._new = 0
        aged = [
            [
                Label(label.seen, label.score, label.weight * 0.5 ** (age / HALF_LIFE))
                for age, label in enumerate(reversed(labels))
            ]
            for labels in self._labels
        ]
        self._expected = teach(aged, self._expected, passes)
        self.model = Model(self._arms, self._costs, self._expected, self._solved(), self.labels)

    def _solved(self) -> float:
        if not self._judged:
            return 0.0
        expected = [one.expected for one in self._judged]
        scores = [one.scores for one in self._judged]
        points = curve(expected, scores, [self._costs] * len(scores))
        top = single(scores)
        return solve(points, Point(0.0, means(scores)[top], self._costs[top]), self.goal)


def _labels_of(arm: str, examples: Sequence[Example]) -> list[Label]:
    return [Label(one.seen, one.scores[arm], one.weight) for one in examples if arm in one.scores]
