"""The verifier's model: a logistic regression that learns from one label at a time and knows how sure it is. Pure.

Theory of operation
* Weights have a normal distribution. A label moves mean and covariance to those of the Laplace approximation of the
  posterior (assumed-density filtering: Spiegelhalter and Lauritzen 1990), one step of cost n^2. No pass over old
  labels, no random order: the same labels give the same weights.
* The dense features share one covariance. Unmatched words have a weight each, independent of the rest: what a word
  does to a question differs from scope to scope, and is learned where it occurs.
* A chance is the mean of the sigmoid over the distribution (MacKay 1992), so that a weight of which little is known
  pulls it towards one half, not to a side.
* It forgets: each label takes a little certainty back, so that a scope that changes is followed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul

from msgspec import Struct

WORD_VARIANCE = 1.0
_FORGET = 1.0002  # growth of variances per label, up to where they began
_STEPS = 8  # of Newton's method in one dimension
MOST_WORDS = 20_000
_STEEP = math.pi / 8


class Guess(Struct, frozen=True, gc=False):
    mean: float  # of the logit
    variance: float

    @property
    def logit(self) -> float:
        """Of the chance, with what is not known taken into account."""
        return self.mean / math.sqrt(1 + _STEEP * self.variance)

    @property
    def chance(self) -> float:
        return sigmoid(self.logit)


def sigmoid(value: float) -> float:
    if value < -30:
        return math.exp(-30)
    return 1 / (1 + math.exp(-value)) if value < 30 else 1 - 1e-13


class Learned(Struct, frozen=True):
    """A learner's state."""

    mean: list[float]
    rows: list[list[float]]
    words: dict[str, tuple[float, float]]
    labels: int


class Learner:
    """`mean` and `deviation` of the weights of the dense features before anything was learned."""

    def __init__(self, mean: Sequence[float], deviation: Sequence[float]) -> None:
        self._most = [value * value for value in deviation]
        self.mean = list(mean)
        self._rows = [
            [self._most[row] if row == column else 0.0 for column in range(len(mean))] for row in range(len(mean))
        ]
        self._words: dict[str, tuple[float, float]] = {}  # word -> mean, variance
        self.labels = 0

    def state(self) -> Learned:
        return Learned(list(self.mean), [list(row) for row in self._rows], dict(self._words), self.labels)

    def restore(self, learned: Learned) -> None:
        """Raises ValueError where it was learned of other features."""
        size = len(self.mean)
        if len(learned.mean) != size or [len(row) for row in learned.rows] != [size] * size:
            raise ValueError("learned of other features")
        self.mean, self._rows = list(learned.mean), [list(row) for row in learned.rows]
        self._words, self.labels = dict(learned.words), learned.labels

    def knows(self, word: str) -> bool:
        return word in self._words

    def guess(self, dense: Sequence[float], words: Sequence[str]) -> Guess:
        """`words`: the unmatched ones, each once."""
        mean = sum(map(mul, dense, self.mean))
        variance = sum(map(mul, dense, [sum(map(mul, row, dense)) for row in self._rows]))
        share = _share(words)
        for word in words:
            known = self._words.get(word)
            if known is None:
                variance += share * share * WORD_VARIANCE
            else:
                mean += share * known[0]
                variance += share * share * known[1]
        return Guess(mean, variance)

    def learn(self, dense: Sequence[float], words: Sequence[str], right: bool, weight: float = 1.0) -> None:
        before = self.guess(dense, words)
        if before.variance <= 0:
            return
        at = _mode(before, float(right), weight)
        curve = sigmoid(at)
        curve = max(weight * curve * (1 - curve), 1e-9)
        step = (at - before.mean) / before.variance
        shrink = curve / (1 + curve * before.variance)
        along = [sum(map(mul, row, dense)) for row in self._rows]
        self.mean = [mean + step * move for mean, move in zip(self.mean, along, strict=True)]
        for row, move in zip(self._rows, along, strict=True):
            scaled = shrink * move
            row[:] = [value - scaled * other for value, other in zip(row, along, strict=True)]
        self._learn_words(words, step, shrink)
        self._forget()
        self.labels += 1

    def _learn_words(self, words: Sequence[str], step: float, shrink: float) -> None:
        share = _share(words)
        for word in words:
            mean, variance = self._words.get(word) or (0.0, WORD_VARIANCE)
            along = share * variance
            if word not in self._words and len(self._words) >= MOST_WORDS:
                self._words.pop(next(iter(self._words)))
            self._words[word] = (mean + step * along, max(variance - shrink * along * along, 1e-3))

    def _forget(self) -> None:
        for place, row in enumerate(self._rows):
            row[place] = min(row[place] * _FORGET, self._most[place])


def _share(words: Sequence[str]) -> float:
    return 1 / math.sqrt(max(1, len(words)))


def _mode(before: Guess, label: float, weight: float) -> float:
    """Where the posterior of the logit has its top."""
    at = before.mean
    for _ in range(_STEPS):
        chance = sigmoid(at)
        slope = weight * (label - chance) - (at - before.mean) / before.variance
        move = slope / (weight * chance * (1 - chance) + 1 / before.variance)
        at += max(-3.0, min(3.0, move))
        if abs(move) < 1e-6:
            break
    return at
