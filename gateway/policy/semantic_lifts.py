"""Guards that do not hold in a scope: what they forbid there has turned out right. Pure.

A guard is a belief about language, and some scopes are otherwise: where every question about the weather has one
answer, another town is no other question. What a guard forbids is compared with fresh answers like everything else.
Where hardly any of it was wrong, by what is known of the answers of a group and, as far as little is, of the scope,
the guard no longer forbids; the verifier then decides, and knows that a guard was lifted. Directions and opposites stay
forbidden in any scope.

What is known is kept apart by whether the neighbours *agree*: where many stored questions lie around, that share one
answer though they differ in their names, another name is hardly ever another question; elsewhere it often is. Where
they all have the same name, they say nothing about another one. Another number is nowhere else let through.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from gateway.policy.semantic_text import Said

LIFTABLE = frozenset(("code", "kind", "name", "negation", "exchanged", "number"))
AGREED_ONLY = frozenset(("number",))
TOLERATED = 4.0  # times the target: the share of wrong ones up to which a guard is lifted
_STRENGTH = 20.0  # labels of its own that outweigh what is known of the scope
_DOUBT = 4.0  # wrong labels that are assumed of each guard
_MOST_GROUPS = 20_000


_AT_ISSUE: dict[str, Callable[[Said], Hashable]] = {
    "code": lambda said: said.codes,
    "kind": lambda said: frozenset(said.kinds.items()),
    "name": lambda said: said.names,
    "negation": lambda said: said.negations % 2,
    "number": lambda said: said.numbers,
}
"""What a text has of that by which a guard forbids."""
Held = tuple[int, str, bool, bool]
"""Of a pair that was compared: group, guard that forbids it or would, do neighbours that differ there agree, was it
right?"""


class Count(Struct, gc=False):
    right: float = 0.0
    wrong: float = 0.0

    def add(self, right: bool) -> None:
        if right:
            self.right += 1
        else:
            self.wrong += 1


class Mates:
    """Neighbours that agree: in what do they differ among themselves?"""

    __slots__ = ("_alike", "_contents")

    def __init__(self, texts: Sequence[Said]) -> None:
        self._contents = [said.content for said in texts]
        self._alike = {guard: Counter(map(read, texts)) for guard, read in _AT_ISSUE.items()}

    def vary(self, said: Said) -> frozenset[str]:
        """The guards at whose issue at most half of them have what this text has."""
        return frozenset([guard for guard, read in _AT_ISSUE.items() if self._few(self._alike[guard][read(said)])])

    def lack(self, words: frozenset[str]) -> bool:
        """Have at most half of them all of these words?"""
        return self._few(sum([words <= content for content in self._contents]))

    def _few(self, count: int) -> bool:
        return 2 * count <= len(self._contents)


class Lifts:
    """`target`: tolerated share of wrong hits."""

    __slots__ = ("groups", "limit", "scope")

    def __init__(self, target: float) -> None:
        self.limit = TOLERATED * target
        self.scope: dict[str, Count] = {}
        self.groups: dict[tuple[int, str], Count] = {}

    def state(self) -> list[tuple[int, str, float, float]]:
        return [(group, guard, one.right, one.wrong) for (group, guard), one in self.groups.items()]

    def restore(self, state: list[tuple[int, str, float, float]], scope: dict[str, Count]) -> None:
        self.groups = {(group, guard): Count(right, wrong) for group, guard, right, wrong in state}
        self.scope = dict(scope)

    def learn(self, pairs: Sequence[Held]) -> None:
        """What came of the pairs that one fresh answer was compared with. They are alike: they count as one label, and
        one wrong is enough to make it wrong."""
        here: dict[tuple[int, str], bool] = {}
        everywhere: dict[str, bool] = {}
        for group, guard, agreed, right in pairs:
            if guard in LIFTABLE:
                name = _known_as(guard, agreed)
                here[group, name] = right and here.get((group, name), True)
                everywhere[name] = right and everywhere.get(name, True)
        for guard, right in everywhere.items():
            self.scope.setdefault(guard, Count()).add(right)
        for place, right in here.items():
            if place not in self.groups and len(self.groups) >= _MOST_GROUPS:
                self.groups.pop(next(iter(self.groups)))
            self.groups.setdefault(place, Count()).add(right)

    def of(self, group: int, agreed: frozenset[str]) -> frozenset[str]:
        """The guards that are lifted for this group. `agreed`: those at whose issue agreeing neighbours differ."""
        return frozenset([guard for guard in LIFTABLE if self.lifted(group, guard, guard in agreed)])

    def lifted(self, group: int, guard: str, agreed: bool) -> bool:
        if guard in AGREED_ONLY and not agreed:
            return False
        return self.share(group, _known_as(guard, agreed)) <= self.limit

    def share(self, group: int, guard: str) -> float:
        """The share of wrong ones to be expected."""
        everywhere = _get(self.scope, guard)
        right, wrong = everywhere.right, everywhere.wrong + _DOUBT
        here = _get(self.groups, (group, guard))
        return (here.wrong + _STRENGTH * wrong / (right + wrong)) / (here.right + here.wrong + _STRENGTH)


def _known_as(guard: str, agreed: bool) -> str:
    return f"{guard}, agreed" if agreed else guard


def _get(counts: Mapping[Any, Count], key: object) -> Count:
    return counts.get(key) or Count()
