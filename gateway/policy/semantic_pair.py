"""Cheap features of a pair: may the answer to one text serve another? Input of the verifier. Pure.

Every feature is scaled to be of order one. `Around` is what the other neighbours say: texts that got the same answer
stand together, so a candidate is as credible as the part of its neighbourhood that agrees with it.
"""

from __future__ import annotations

import math
from itertools import pairwise

from msgspec import Struct

from gateway.policy.semantic_text import Said

NAMES = (
    "bias", "cosine", "close", "words", "pairs", "grams", "content", "only_cached", "only_asked", "rarest", "unmatched",
    "substituted", "framed", "question", "negation", "kind", "length", "turned", "any_turned", "roles", "repeated",
    "short", "novel", "same_content", "votes", "margin", "members", "alone", "first",
    "lifted",
)  # fmt: skip
SIZE = len(NAMES)
_MANY, _AGREED = 4, 0.9
MOST_WORDS = 50_000


class Around(Struct, frozen=True, gc=False):
    """`share` of the neighbourhood's weight with the candidate's answer, 0 to 1; `margin` of cosine to the best
    neighbour with another answer; `members` of the neighbourhood with this answer; `first`: is it the nearest?"""

    share: float = 1.0
    margin: float = 0.0
    members: int = 1
    alone: bool = True  # no neighbour has another answer
    first: bool = True
    novel: int = 0  # unmatched words of which the scope knows nothing yet
    lifted: int = 0  # guards that would forbid it elsewhere

    @property
    def agreed(self) -> bool:
        """Do many neighbours have this answer, and hardly any another one?"""
        return self.members >= _MANY and self.share >= _AGREED


class Rarity:
    """How rare a content word is among the texts of a scope, 0 (in every text) to 1 (in none)."""

    __slots__ = ("texts", "within")

    def __init__(self, texts: int = 0, within: dict[str, int] | None = None) -> None:
        self.texts = texts
        self.within = within or {}  # word -> texts with it

    def add(self, said: Said) -> None:
        self.texts += 1
        for word in said.content:
            self.within[word] = self.within.get(word, 0) + 1
        if len(self.within) > MOST_WORDS:  # those of one text say the least
            self.within = {word: count for word, count in self.within.items() if count > 1}

    def __call__(self, word: str) -> float:
        return math.log((self.texts + 1) / (self.within.get(word, 0) + 0.5)) / math.log(2 * (self.texts + 1))


def features(cached: Said, asked: Said, cosine: float, rarity: Rarity, around: Around) -> list[float]:
    """In the order of NAMES."""
    gone, come = cached.content - asked.content, asked.content - cached.content
    shared = cached.content & asked.content
    unmatched = [rarity(word) for word in gone], [rarity(word) for word in come]
    common = sum([rarity(word) for word in shared])
    apart = sum(unmatched[0]) + sum(unmatched[1])
    turned, steps = _turned(cached, asked, shared)
    return [
        1.0,
        (cosine - 0.85) * 8,
        max(0.0, cosine - 0.93) * 20,
        _overlap(frozenset(cached.words), frozenset(asked.words)) - 0.5,
        _overlap(cached.pairs, asked.pairs) - 0.3,
        _overlap(cached.grams, asked.grams) - 0.5,
        (common / (common + apart) if common + apart else 1.0) - 0.5,
        min(2.0, sum(unmatched[0])),
        min(2.0, sum(unmatched[1])),
        max(*unmatched[0], *unmatched[1], 0.0, 0.0),
        min(6, len(gone) + len(come)) / 3,
        float(bool(gone) and bool(come)),
        min(2, framed(cached, asked, gone, come)) / 1.0,
        len(cached.questions ^ asked.questions) / 2,
        float((cached.negations - asked.negations) % 2),
        min(2, _kinds(cached, asked)) / 2,
        min(len(cached.words), len(asked.words)) / max(1, len(cached.words), len(asked.words)) - 0.7,
        turned / max(1, steps),
        float(turned > 0),
        min(3, sum([cached.roles[word] != asked.roles[word] for word in shared])) / 2,
        min(2, sum([cached.counts[word] != asked.counts[word] for word in shared])) / 2,
        float(min(len(cached.stems), len(asked.stems)) <= 2),
        min(3, around.novel) / 2,
        float(not gone and not come),
        2 * around.share - 1,
        max(-0.2, min(0.3, around.margin)) * 8,
        math.log(around.members),
        float(around.alone),
        float(around.first),
        float(around.lifted),
    ]


def _overlap(one: frozenset[object], other: frozenset[object]) -> float:
    return len(one & other) / len(one | other) if one or other else 1.0


def _turned(one: Said, other: Said, shared: frozenset[str]) -> tuple[int, int]:
    """How many neighbouring shared words stand in another order, of how many."""
    places = [other.places[word] for word in sorted(shared, key=one.places.__getitem__)]
    return sum([first > second for first, second in pairwise(places)]), len(places) - 1


def _kinds(one: Said, other: Said) -> int:
    return sum([one.kinds.get(kind) != other.kinds.get(kind) for kind in one.kinds.keys() | other.kinds.keys()])


def framed(one: Said, other: Said, gone: frozenset[str], come: frozenset[str]) -> int:
    """Words that took another's place: the same neighbour on a side, one word for the other."""
    if not gone or not come:
        return 0
    before = {one.left.get(word) for word in gone} & {other.left.get(word) for word in come}
    behind = {one.right.get(word) for word in gone} & {other.right.get(word) for word in come}
    return len(before - {None}) + len(behind - {None})
