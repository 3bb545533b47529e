"""Words that a scope has seen exchanged, dropped or added, and whether the answer stayed right. Pure."""

from __future__ import annotations

from collections.abc import Sequence

MOST_WORDS = 50_000
_SURE = 3  # labels without a fault by which a word is known to be exchanged without harm; as many again for each fault


class Exchanges:
    """How often each word was exchanged, dropped or added, and the answer stayed right or did not."""

    __slots__ = ("counts",)

    def __init__(self, counts: dict[str, tuple[int, int]] | None = None) -> None:
        self.counts: dict[str, tuple[int, int]] = counts or {}

    def add(self, words: Sequence[str], right: bool) -> None:
        for word in words:
            good, bad = self.counts.pop(word, (0, 0))
            self.counts[word] = (good + right, bad + (not right))
        while len(self.counts) > MOST_WORDS:  # what was not seen for longest
            self.counts.pop(next(iter(self.counts)))

    def unsure(self, words: frozenset[str]) -> frozenset[str]:
        return frozenset([word for word in words if not self.harmless(word)])

    def harmless(self, word: str) -> bool:
        good, bad = self.counts.get(word, (0, 0))
        return good >= _SURE * (bad + 1)
