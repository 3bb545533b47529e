"""Learns what each model of a scope is good for, from labels as they come. Pure; the same labels give the same model.

Theory of operation
* A label is the score (0 to 1) of one model on one prompt. The newest `KEPT` of each model are kept; a label counts
  half as much after `HALF_LIFE` further ones, so that a model that changes is followed. It may be amended in place.
* Once `due`, the weights are fitted anew from where they are (selection_trust): a few passes are enough. That is
  seconds for tens of thousands of labels, so `work` hands out what it takes, to be done elsewhere, and `adopt` takes
  the result.
* The weight of cost is solved on what each prompt was expected to score *before* it was learned from. A score that is
  not known (the model was not asked) is taken as expected; where the true one of the chosen model is known, it counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from msgspec import Struct

from gateway.policy.selection import Goal, Model, solve
from gateway.policy.selection_curve import Point, curve, means, point, single
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


class Fitted(Struct, frozen=True):
    """What came of a `Work`. `quality`, `cost`: shares of the best single model's that the goal is expected to bring,
    on prompts that were not learned from; None: nothing says."""

    model: Model
    judged: tuple[Judged, ...]
    quality: float | None = None
    cost: float | None = None
    best: str = ""  # the single model they are shares of


class Work(Struct, frozen=True):
    """All that a new fit takes; changes nothing."""

    arms: tuple[str, ...]
    costs: tuple[float, ...]
    goal: Goal
    labels: tuple[tuple[Label, ...], ...]
    judged: tuple[Judged, ...]
    counted: float
    before: Expected | None

    def done(self) -> Fitted:
        """Takes milliseconds to many seconds. With nothing to begin from, the prompts are judged by halves: each by
        what the other half teaches."""
        aged = [_aged(labels) for labels in self.labels]
        judged = self.judged or (_by_halves(aged) if self.before is None else ())
        expected = teach(aged, self.before, None if self.before is None else FEW_PASSES)
        counts = tuple([sum([label.weight for label in labels]) for labels in self.labels])
        model = Model(self.arms, self.costs, expected, 0.0, self.counted, counts)
        if not judged:
            return Fitted(model, ())
        guesses = [one.expected for one in judged]
        scores = [one.scores for one in judged]
        costs = [self.costs] * len(scores)
        points = curve(guesses, scores, costs)
        top = single(scores)
        reference = Point(0.0, means(scores)[top], self.costs[top])
        weight = solve(points, reference, self.goal)
        found = point(guesses, scores, costs, weight)
        return Fitted(
            Model(self.arms, self.costs, expected, weight, self.counted, counts),
            tuple(judged),
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
        self._judged: deque[Judged] = deque(maxlen=JUDGED)
        self._expected: Expected | None = None
        self.price(costs)
        self.new = 0.0  # weight of the labels since the last fit
        self.labels = 0.0
        self.fitted = Fitted(Model(self._arms, self._costs), ())

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

    def price(self, costs: Sequence[float]) -> None:
        """What a call of each model costs, from the next fit on."""
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
            if self._expected is not None:
                self._judge(example, self._expected)
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
        self._judged.clear()
        for example in examples[-KEPT:]:
            self.take(example)
        self.labels = counted + sum([example.weight for example in examples])
        for labels, rest in zip(self._labels, later, strict=True):
            labels.extend(rest)

    def work(self) -> Work:
        """What the next fit takes. Labels that come meanwhile are for the one after."""
        self.new = 0.0
        labels = tuple([tuple([_copy(label) for label in labels]) for labels in self._labels])
        judged = tuple(self._judged)
        return Work(self._arms, self._costs, self.goal, labels, judged, self.labels, self._expected)

    def adopt(self, fitted: Fitted) -> None:
        self.fitted = fitted
        self._expected = fitted.model.expected
        if not self._judged:
            self._judged.extend(fitted.judged)

    def _judge(self, example: Example, expected: Expected) -> None:
        guesses = expected.of(example.seen)
        scores = [example.scores.get(arm, guess) for arm, guess in zip(self._arms, guesses, strict=True)]
        self._judged.append(Judged(guesses, tuple(scores)))


def _copy(label: Label) -> Label:
    return Label(label.seen, label.score, label.weight)


def _aged(labels: Sequence[Label]) -> list[Label]:
    count = len(labels)
    return [
        Label(label.seen, label.score, label.weight * 0.5 ** ((count - 1 - place) / HALF_LIFE))
        for place, label in enumerate(labels)
    ]


def _by_halves(labels: Sequence[Sequence[Label]]) -> tuple[Judged, ...]:
    """The newest prompts, each judged by what the other half of all prompts teaches."""
    known: dict[int, dict[int, Label]] = {}  # by prompt: its label of each model
    for arm, own in enumerate(labels):
        for label in own:
            known.setdefault(id(label.seen), {})[arm] = label
    half = {prompt: place % FOLDS for place, prompt in enumerate(known)}
    judges = [
        teach([[label for label in own if half[id(label.seen)] != fold] for own in labels]) for fold in range(FOLDS)
    ]
    found = []
    for prompt in list(known)[-JUDGED:]:
        scored = known[prompt]
        guesses = judges[half[prompt]].of(next(iter(scored.values())).seen)
        scores = tuple([scored[arm].score if arm in scored else guess for arm, guess in enumerate(guesses)])
        found.append(Judged(guesses, scores))
    return tuple(found)
