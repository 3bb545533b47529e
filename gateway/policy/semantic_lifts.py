"""Guards that do not hold in a scope: what they forbid there has turned out right. Pure.

A guard is a belief about language, and some scopes are otherwise: where every question about the weather has one
answer, another town is no other question. What a guard forbids is compared with fresh answers like everything else.
Where hardly any of it was wrong, by what is known of the answers of a group and, as far as little is, of the scope,
the guard no longer forbids; the verifier then decides, and knows that a guard was lifted. Directions, numbers and
opposites stay forbidden in any scope.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

LIFTABLE = frozenset(("code", "kind", "name", "negation", "exchanged"))
TOLERATED = 4.0  # times the target: the share of wrong ones up to which a guard is lifted
_STRENGTH = 20.0  # labels of its own that outweigh what is known of the scope
_DOUBT = 4.0  # wrong labels that are assumed of each guard
_MOST_GROUPS = 20_000


class Count(Struct, gc=False):
    right: float = 0.0
    wrong: float = 0.0

    def add(self, right: bool) -> None:
        if right:
            self.right += 1
        else:
            self.wrong += 1


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

    def learn(self, pairs: Sequence[tuple[int, str, bool]]) -> None:
        """What came of the pairs that one fresh answer was compared with: group, guard that forbids it or would, was it
        right. They are alike: they count as one label, and one wrong is enough to make it wrong."""
        here: dict[tuple[int, str], bool] = {}
        everywhere: dict[str, bool] = {}
        for group, guard, right in pairs:
            if guard in LIFTABLE:
                here[group, guard] = right and here.get((group, guard), True)
                everywhere[guard] = right and everywhere.get(guard, True)
        for guard, right in everywhere.items():
            self.scope.setdefault(guard, Count()).add(right)
        for place, right in here.items():
            if place not in self.groups and len(self.groups) >= _MOST_GROUPS:
                self.groups.pop(next(iter(self.groups)))
            self.groups.setdefault(place, Count()).add(right)

    def of(self, group: int) -> frozenset[str]:
        """The guards that are lifted for this group."""
        return frozenset([guard for guard in self.scope if self.share(group, guard) <= self.limit])

    def share(self, group: int, guard: str) -> float:
        """The share of wrong ones to be expected."""
        everywhere = _get(self.scope, guard)
        right, wrong = everywhere.right, everywhere.wrong + _DOUBT
        here = _get(self.groups, (group, guard))
        return (here.wrong + _STRENGTH * wrong / (right + wrong)) / (here.right + here.wrong + _STRENGTH)


def _get(counts: Mapping[Any, Count], key: object) -> Count:
    return counts.get(key) or Count()
