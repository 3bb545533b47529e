"""How far a prompt is like those that were learned from, and what is expected of models for one that is not. Pure.

Words teach what a subject asks of a model; of another subject they teach next to nothing, and a choice by them is then
worse than one by length. So the more of a prompt's neighbouring words were never seen, the more the expected score is
that of the length alone (`selection_fit.Line`). What is usual is what was usual among the labelled prompts themselves.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from msgspec import Struct, structs

from gateway.policy.selection_features import PAIRS, Features
from gateway.policy.selection_fit import Label, Line, Weights, fit, line

SEEN = 2  # prompts that make a pair of words familiar
FULL = 0.3  # from this part of the labelled prompts on, in order of familiarity, nothing is held back
LEANING = 4.0  # labels' worth of the mean of all models in that of each
_MOST = 255
_QUANTILES = 100


class Familiar(Struct, frozen=True):
    """`counts`: in how many prompts each pair was seen; `usual`: familiarity of the labelled prompts, ascending."""

    counts: bytes = b""
    usual: list[float] = []

    def trust(self, seen: Features) -> float:
        """0 (by its length alone) to 1 (as learned)."""
        if not self.usual:
            return 0.0
        place = bisect_right(self.usual, _share(seen, self.counts, SEEN)) / len(self.usual)
        return min(1.0, place / FULL) ** 2


def familiar(prompts: Sequence[Features]) -> Familiar:
    counts = bytearray(PAIRS)
    for seen in prompts:
        for pair in seen.pairs:
            if counts[pair] < _MOST:
                counts[pair] += 1
    # Each of these prompts was counted itself: without it, its pairs would have been seen once less.
    shares = sorted([_share(seen, counts, SEEN + 1) for seen in prompts])
    step = max(1, len(shares) // _QUANTILES)
    return Familiar(bytes(counts), shares[::step])


def _share(seen: Features, counts: bytes | bytearray, least: int) -> float:
    if not seen.pairs:
        return 0.0
    return sum([count >= least for count in map(counts.__getitem__, seen.pairs)]) / len(seen.pairs)


class Expected(Struct, frozen=True):
    """What one scope has taught: the same number of weights and lines, one for each model."""

    weights: tuple[Weights, ...] = ()
    lines: tuple[Line, ...] = ()
    known: Familiar = Familiar()

    def of(self, seen: Features) -> tuple[float, ...]:
        """The score expected of each model."""
        trust = self.known.trust(seen)
        if trust == 1:
            return tuple([weights.predict(seen) for weights in self.weights])
        rest = 1 - trust
        return tuple(
            [
                trust * weights.predict(seen) + rest * by_length.predict(seen) if trust else by_length.predict(seen)
                for weights, by_length in zip(self.weights, self.lines, strict=True)
            ]
        )


def teach(labels: Sequence[Sequence[Label]], before: Expected | None = None, passes: int | None = None) -> Expected:
    """From the labels of each model. `before`: where to begin; then a few `passes` are enough.

    A model's weights say how prompts differ from its mean score. Of few labels that mean leans on that of all models.
    """
    weights = []
    usual = _mean([label for own in labels for label in own], 0.0)
    for index, own in enumerate(labels):
        start = before.weights[index] if before is not None and before.weights[index].words else None
        base = _mean(own, usual)
        apart = [Label(label.seen, label.score - base, label.weight) for label in own]
        found = fit(apart, start, passes=passes) if passes is not None else fit(apart, start)
        weights.append(structs.replace(found, base=base))
    prompts = {id(label.seen): label.seen for own in labels for label in own}
    return Expected(tuple(weights), tuple([line(own) for own in labels]), familiar(list(prompts.values())))


def _mean(labels: Sequence[Label], usual: float) -> float:
    total = sum([label.weight for label in labels])
    return (sum([label.weight * label.score for label in labels]) + LEANING * usual) / (total + LEANING)
