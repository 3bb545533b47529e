"""What is expected of models for a prompt: what its length says, and what the rest of it adds. Pure.

Length says much the same of every subject; words and measures teach what one subject asks of a model, and of another
next to nothing. So a line over the length is fitted first (`selection_fit.Line`), and the rest only explains what the
line leaves over: all of it where a prompt is like the labelled ones, down to a third of it where few of its
neighbouring words were seen, and none of it where none were. What is usual is what was usual among the labelled prompts
themselves.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from msgspec import Struct

from gateway.policy.selection_features import PAIRS, Features
from gateway.policy.selection_fit import PASSES, Label, Line, Weights, fit, line

SEEN = 2  # prompts that make a pair of words familiar
FULL = 0.3  # from this part of the labelled prompts on, in order of familiarity, nothing is held back
LEAST = 1 / 3  # of what is expected beyond the length holds for the strangest prompt of which anything was seen
_MOST = 255
_QUANTILES = 100


class Familiar(Struct, frozen=True):
    """`counts`: in how many prompts each pair was seen; `usual`: familiarity of the labelled prompts, ascending."""

    counts: bytes = b""
    usual: list[float] = []

    def trust(self, seen: Features) -> float:
        """0 (nothing of it was seen: by its length alone), or `LEAST` to 1 (as learned)."""
        share = _share(seen, self.counts, SEEN) if self.usual else 0.0
        if not share:
            return 0.0
        place = bisect_right(self.usual, share) / len(self.usual)
        return LEAST + (1 - LEAST) * min(1.0, place / FULL)


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
    """What one scope has taught: the same number of lines and weights, one for each model."""

    lines: tuple[Line, ...] = ()
    beyond: tuple[Weights, ...] = ()  # of what the lines leave over
    known: Familiar = Familiar()

    def of(self, seen: Features) -> tuple[float, ...]:
        """The score expected of each model."""
        trust = self.known.trust(seen)
        if not trust:
            return tuple([by_length.predict(seen) for by_length in self.lines])
        return tuple(
            [
                by_length.predict(seen) + trust * weights.predict(seen)
                for by_length, weights in zip(self.lines, self.beyond, strict=True)
            ]
        )


def teach(labels: Sequence[Sequence[Label]], before: Expected | None = None, passes: int = PASSES) -> Expected:
    """From the labels of each model. `before`: where to begin; then a few `passes` are enough."""
    lines, beyond = [], []
    usual = line([label for own in labels for label in own])
    for index, own in enumerate(labels):
        start = before.beyond[index] if before is not None and before.beyond[index].words else None
        by_length = line(own, usual)
        left = [Label(label.seen, label.score - by_length.predict(label.seen), label.weight) for label in own]
        lines.append(by_length)
        beyond.append(fit(left, start, passes=passes))
    prompts = {id(label.seen): label.seen for own in labels for label in own}
    return Expected(tuple(lines), tuple(beyond), familiar(list(prompts.values())))
