"""Learns what each model of a scope is good for, from labels as they come. Pure; the same labels give the same model.

Theory of operation
* A label is the score (0 to 1) of one model on one prompt. The newest `KEPT` of each model are kept; a label counts
  half as much after `HALF_LIFE` further ones, so that a model that changes is followed. It may be amended in place.
* Once `due`, the weights are fitted anew from where they are (selection_trust): a few passes are enough. That is
  seconds for tens of thousands of labels, so `work` hands out what it takes, to be done elsewhere, and `adopt` takes
  the result.
* The weight of cost is solved on what each of the newest prompts is expected to score by what four of five others
  teach (`FOLDS`). A score that is not known (the model was not asked) is taken as expected, corrected by how far the
  known ones of that model are from what was expected of them: few labels make expectations too flat, and a model would
  seem worse where it is good.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from msgspec import Struct

from gateway.policy.selection import Goal, Model, solve
from gateway.policy.selection_cascade import Rises, with_next
from gateway.policy.selection_curve import Point, curve, means, point, single
from gateway.policy.selection_features import Features
from gateway.policy.selection_fit import PASSES, Label
from gateway.policy.selection_trust import Expected, teach

KEPT = 8_000
HALF_LIFE = 4_000
REFIT = 100
JUDGED = 8_000  # prompts that the weight of cost is solved on
FEW_PASSES = 6
FOLDS = 5  # with fewer, what is judged is worse than what will be used
FOLD_PASSES = 10
CORRECTED = 20.0  # labels of a model, before its expectations are corrected by them
STEEPEST = 4.0


class Example(Struct, frozen=True):
    """One prompt with the scores that are known."""

    seen: Features
    scores: Mapping[str, float]
    weight: float = 1.0


class Fitted(Struct, frozen=True):
    """What came of a `Work`. `quality`, `cost`: shares of the best single model's that the goal is expected to bring,
    on prompts that were not learned from; None: nothing says."""

    model: Model
    quality: float | None = None
    cost: float | None = None
    best: str = ""  # the single model they are shares of


class Work(Struct, frozen=True):
    """All that a new fit takes; changes nothing."""

    arms: tuple[str, ...]
    costs: tuple[float, ...]
    goal: Goal
    labels: tuple[tuple[Label, ...], ...]
    counted: float
    before: Expected | None
    rises: Rises = ()

    def done(self) -> Fitted:
        """Takes milliseconds to many seconds."""
        aged = [_aged(labels) for labels in self.labels]
        expected = teach(aged, self.before, PASSES if self.before is None else FEW_PASSES)
        counts = tuple([sum([label.weight for label in labels]) for labels in self.labels])
        guesses, scores = [[with_next(row, self.rises) for row in rows] for rows in _judged(aged)]
        if not guesses:
            return Fitted(Model(self.arms, self.costs, expected, 0.0, self.counted, counts, self.rises))
        costs = [self.costs] * len(scores)
        top = single(scores)
        reference = Point(0.0, means(scores)[top], self.costs[top])
        weight = solve(curve(guesses, scores, costs), reference, self.goal)
        found = point(guesses, scores, costs, weight)
        return Fitted(
            Model(self.arms, self.costs, expected, weight, self.counted, counts, self.rises),
            found.quality / reference.quality if reference.quality else None,
            found.cost / reference.cost if reference.cost else None,
            self.arms[top],
        )


class Learner:
    """One scope. `costs`: of a call of each model; of `arms` the first is the operator's first choice."""

    def __init__(self, arms: Sequence[str], costs: Sequence[float], goal: Goal) -> None:
        self.goal = goal
        self._arms = tuple(arms)
        self._labels: tuple[deque[Label], ...] = tuple([deque(maxlen=KEPT) for _ in arms])
        self._expected: Expected | None = None
        self.price(costs)
        self.new = 0.0  # weight of the labels since the last fit
        self.labels = 0.0
        self.fitted = Fitted(Model(self._arms, self._costs))

    @property
    def model(self) -> Model:
        return self.fitted.model

    @property
    def due(self) -> bool:
        return self.new >= REFIT

    @property
    def counts(self) -> tuple[float, ...]:
        """Weight of the labels of each model."""
        return tuple([sum([label.weight for label in labels]) for labels in self._labels])

    @property
    def means(self) -> tuple[float | None, ...]:
        """Mean score of each model; None without labels."""
        found = []
        for labels in self._labels:
            total = sum([label.weight for label in labels])
            found.append(sum([label.weight * label.score for label in labels]) / total if total else None)
        return tuple(found)

    def price(self, costs: Sequence[float], rises: Rises = ()) -> None:
        """What a call of each model costs, from the next fit on. `rises`: of its cascade."""
        self._rises = rises
        costs = with_next(costs, rises)
        dearest = max(costs, default=0.0) or 1.0
        self._costs = tuple([cost / dearest for cost in costs])

    def learn(self, example: Example) -> bool:
        """Take a label in; true where there is a new `model`."""
        if not self.take(example) or not self.due:
            return False
        self.adopt(self.work().done())
        return True

    def take(self, example: Example) -> list[Label]:
        """Take the scores of one prompt in; what is kept of them, to be amended."""
        found = []
        for arm, labels in zip(self._arms, self._labels, strict=True):
            score = example.scores.get(arm)
            if score is not None:
                found.append(Label(example.seen, min(1.0, max(0.0, score)), example.weight))
                labels.append(found[-1])
        if found:
            self.labels += example.weight
            self.new += example.weight
        return found

    def amend(self, label: Label, score: float, weight: float) -> None:
        """Another report on the same answer, which counts in place of the one before."""
        self.labels += weight - label.weight
        self.new += weight
        label.score, label.weight = min(1.0, max(0.0, score)), weight

    def warm(self, examples: Sequence[Example]) -> None:
        """Begin with a labelled file."""
        self.begin(examples)
        self.adopt(self.work().done())

    def begin(self, examples: Sequence[Example]) -> None:
        """Put labels before those there are. The next fit starts from nothing."""
        later = [list(labels) for labels in self._labels]
        for labels in self._labels:
            labels.clear()
        self._expected, counted = None, self.labels
        for example in examples[-KEPT:]:
            self.take(example)
        self.labels = counted + sum([example.weight for example in examples])
        for labels, rest in zip(self._labels, later, strict=True):
            labels.extend(rest)

    def work(self) -> Work:
        """What the next fit takes. Labels that come meanwhile are for the one after."""
        self.new = 0.0
        labels = tuple([tuple([_copy(label) for label in labels]) for labels in self._labels])
        return Work(self._arms, self._costs, self.goal, labels, self.labels, self._expected, self._rises)

    def adopt(self, fitted: Fitted) -> None:
        self.fitted = fitted
        self._expected = fitted.model.expected


def _copy(label: Label) -> Label:
    return Label(label.seen, label.score, label.weight)


def _aged(labels: Sequence[Label]) -> list[Label]:
    count = len(labels)
    return [
        Label(label.seen, label.score, label.weight * 0.5 ** ((count - 1 - place) / HALF_LIFE))
        for place, label in enumerate(labels)
    ]


def _judged(labels: Sequence[Sequence[Label]]) -> tuple[list[tuple[float, ...]], list[tuple[float, ...]]]:
    """(expected scores of each of the newest prompts by what is taught by those of the other folds, true ones)."""
    known: dict[int, dict[int, Label]] = {}  # by prompt: its label of each model
    for arm, own in enumerate(labels):
        for label in own:
            known.setdefault(id(label.seen), {})[arm] = label
    fold_of = {prompt: place % FOLDS for place, prompt in enumerate(known)}
    judges = [
        teach([[label for label in own if fold_of[id(label.seen)] != fold] for own in labels], passes=FOLD_PASSES)
        for fold in range(FOLDS)
    ]
    newest = list(known)[-JUDGED:]
    guesses = [judges[fold_of[prompt]].of(next(iter(known[prompt].values())).seen) for prompt in newest]
    columns = [
        _completed([guess[arm] for guess in guesses], [known[prompt].get(arm) for prompt in newest])
        for arm in range(len(labels))
    ]
    return guesses, list(zip(*columns, strict=True))


def _completed(guesses: Sequence[float], labels: Sequence[Label | None]) -> list[float]:
    """Scores of one model: the true ones, and in place of the others what is expected, corrected by a line through the
    known ones."""
    pairs = [(guess, label) for guess, label in zip(guesses, labels, strict=True) if label is not None]
    total = sum([label.weight for _, label in pairs]) + 1e-9
    center = sum([label.weight * guess for guess, label in pairs]) / total
    mean = sum([label.weight * label.score for _, label in pairs]) / total
    spread = sum([label.weight * (guess - center) ** 2 for guess, label in pairs])
    slope = 1.0
    if total >= CORRECTED and spread > 1e-6 * total:
        both = sum([label.weight * (guess - center) * (label.score - mean) for guess, label in pairs])
        slope = min(STEEPEST, max(0.0, both / spread))
    shift = mean - center if total >= CORRECTED else 0.0
    return [
        label.score if label is not None else min(1.0, max(0.0, center + shift + slope * (guess - center)))
        for guess, label in zip(guesses, labels, strict=True)
    ]
