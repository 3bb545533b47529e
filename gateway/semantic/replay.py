"""A stream of questions, asked again: what would have been answered from a cache, and how often wrongly.

The cache starts empty. A question that was asked exactly so is answered by what was stored first; of the others,
what a rule serves is a hit, and what it does not serve is asked afresh and stored. Two answers are equal when their
labels are.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import lru_cache

from msgspec import Struct, field

from gateway.policy.semantic_evidence import Interval, wilson
from gateway.policy.semantic_scope import NEIGHBOURS, Entry, Near, Scope
from gateway.policy.semantic_text import Said
from gateway.ports_semantic import Vectors
from gateway.semantic.search import Found, Index

Stored = dict[tuple[str, str], str]  # part and text: answer


class Asked(Struct, frozen=True):
    text: str
    answer: str  # equal for questions that one answer serves
    part: str = ""  # only questions of one part may share answers
    before: bool = False  # the model has said something before


class Played(Struct):
    """What came of a stream."""

    asked: int = 0
    exact: int = 0
    similar: int = 0  # served by likeness
    wrong: int = 0  # of those
    stale: int = 0  # exact ones that were wrong: the stream itself is of two minds
    shadowed: int = 0  # similar ones that were asked for nevertheless
    apart: dict[str, int] = field(default_factory=dict)  # why no similar ones were looked for: of how many questions
    interval: Interval = wilson(0, 0)  # what the gateway itself would say of the share of wrong ones

    @property
    def hits(self) -> int:
        return self.exact + self.similar

    @property
    def wrong_hits(self) -> int:
        return self.wrong + self.stale


Progress = Callable[[int], None]  # told of each question


def none(_: int) -> None:
    """No progress is shown."""


def fixed(stream: Sequence[Asked], vectors: Vectors, least: float, progress: Progress = none) -> Played:
    """With whatever is nearest, from a cosine of `least` on; above 1 that is none."""
    played, stored, parts = Played(), Stored(), _Parts(vectors.shape[1])
    for number, (one, vector) in enumerate(zip(stream, vectors, strict=True)):
        progress(number)
        if _exact(played, stored, one):
            continue
        index = parts[one.part]
        nearest = index.near(vector, 1) if least <= 1 else []
        if nearest and nearest[0].cosine >= least:
            played.similar += 1
            played.wrong += stream[nearest[0].id].answer != one.answer
        else:
            stored[one.part, one.text] = one.answer
            index.add(number, vector)
    return played


class _Parts(dict[str, Index]):
    """The vectors of each part."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self._dimension = dimension

    def __missing__(self, part: str) -> Index:
        self[part] = index = Index(self._dimension)
        return index


def _exact(played: Played, stored: Stored, one: Asked) -> bool:
    played.asked += 1
    if (one.part, one.text) not in stored:
        return False
    played.exact += 1
    played.stale += stored[one.part, one.text] != one.answer
    return True


def suits(_: Asked) -> str:
    """Every question does."""
    return ""


class Ours:
    """With the verifier of a scope. `unsuited`: why no similar questions are looked for, "" where they are."""

    def __init__(
        self,
        stream: Sequence[Asked],
        vectors: Vectors,
        scope: Scope,
        seed: int = 1,
        *,
        unsuited: Callable[[Asked], str] = suits,
    ) -> None:
        self.scope = scope
        self.played = Played()
        self._unsuited = unsuited
        self._stream, self._vectors = stream, vectors
        self._draw = random.Random(seed)  # noqa: S311 - which hits are verified, not a secret
        self._stored = Stored()
        self._entries: dict[int, Entry] = {}
        self._parts = _Parts(vectors.shape[1])

    def run(self, progress: Progress = none) -> Played:
        for number, one in enumerate(self._stream):
            progress(number)
            if not _exact(self.played, self._stored, one):
                self._ask(number, one)
        self.played.interval = self.scope.interval
        return self.played

    def _ask(self, number: int, one: Asked) -> None:
        why = self._unsuited(one)
        if why:
            self.played.apart[why] = self.played.apart.get(why, 0) + 1
            self._stored[one.part, one.text] = one.answer
            return
        said, index = _said(one.text), self._parts[one.part]
        near = [self._near(found) for found in index.near(self._vectors[number], NEIGHBOURS)]
        decision = self.scope.decide(said, near, self._draw.random())
        best = decision.best
        if decision.serve and best is not None:
            self.played.similar += 1
            self.played.wrong += self._stream[best.entry.id].answer != one.answer
            self.played.shadowed += decision.sampled
        if decision.serve and not decision.sampled:
            return
        right = {near.entry.id: self._stream[near.entry.id].answer == one.answer for near in near}
        self.scope.settle(decision, right)
        same = [near.entry.group for near in near if right[near.entry.id]]
        self._entries[number] = Entry(number, said, same[0] if same else number)
        index.add(number, self._vectors[number])
        self._stored.setdefault((one.part, one.text), one.answer)
        self.scope.rarity.add(said)

    def _near(self, found: Found) -> Near:
        return Near(self._entries[found.id], found.cosine)


@lru_cache(200_000)  # of runs over one stream
def _said(text: str) -> Said:
    return Said(text)
