"""Guards: differences by which two texts ask for different things, whatever a similarity says. Pure.

Measured on pairs made by one swap (design note, section 3): "from A to B" against "from B to A" has a cosine above
.98 in every case, another number in a third of the cases above .95. No cut of a similarity separates them, so these
are told by the words. A guard vetoes: it can cost a hit and never a wrong answer. The verifier decides what no guard
forbids.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import combinations

from gateway.policy.semantic_text import Said
from gateway.policy.semantic_words import ANTONYMS, DIRECTIONS, OPPOSITE_ROLES, TIGHT, undoes

GUARDS = ("number", "code", "direction", "opposite", "kind", "name", "negation")
_SHARED = 12  # shared words that are held against each other, pair by pair


def vetoed(one: Said, other: Said, lifted: frozenset[str] = frozenset()) -> str:
    """The first guard that forbids the answer to one text for the other, or "". `lifted`: guards not asked."""
    for guard, forbids in _FORBIDS.items():
        if guard not in lifted and forbids(one, other):
            return guard
    return ""


def forbidding(one: Said, other: Said, among: frozenset[str]) -> list[str]:
    """All guards among these that forbid it."""
    return [guard for guard in GUARDS if guard in among and _FORBIDS[guard](one, other)]


def other_codes(one: Said, other: Said) -> bool:
    return one.codes != other.codes


def negated(one: Said, other: Said) -> bool:
    """Does one of them deny what the other asks?"""
    return bool((one.negations - other.negations) % 2)


def renumbered(one: Said, other: Said) -> bool:
    """Are there other numbers, or the same ones in another order, of which none keeps a neighbour?"""
    if one.numbers == other.numbers:
        return False
    if sorted(one.numbers) != sorted(other.numbers):
        return True
    moved = [mine for mine, theirs in zip(one.numbers, other.numbers, strict=True) if mine != theirs]
    return not any([_keeps(one, other, number) for number in moved])


def _keeps(one: Said, other: Said, number: str) -> bool:
    mine, theirs = one.beside.get(number), other.beside.get(number)
    return mine is not None and theirs is not None and (mine[0] == theirs[0] or mine[1] == theirs[1])


def turned(one: Said, other: Said) -> bool:
    """Do shared words stand in each other's place: from A to B, from B to A?"""
    shared = one.content & other.content
    for word in shared:
        if (one.roles[word], other.roles[word]) in OPPOSITE_ROLES:
            return True
    if any([_exchanged(one, other, role, shared) for role in DIRECTIONS]):
        return True
    words = sorted(shared, key=one.places.__getitem__)[:_SHARED]
    for first, second in combinations(words, 2):
        if other.places[first] > other.places[second] and _in_place(one, other, first, second):
            return True
    return False


def _exchanged(one: Said, other: Said, role: str, shared: frozenset[str]) -> bool:
    """Has a word lost this role, and another one got it in exchange for its own?"""
    mine, theirs = one.governed(role) & shared, other.governed(role) & shared
    if not mine or not theirs:
        return False
    return any([other.roles[lost] == one.roles[won] for lost in mine - theirs for won in theirs - mine])


def _in_place(one: Said, other: Said, first: str, second: str) -> bool:
    """Has each of two words, whose order is turned, the neighbour that the other one had?"""
    return any(
        [
            mine.get(first) == theirs.get(second) and mine.get(second) == theirs.get(first)
            for mine, theirs in ((one.left, other.left), (one.right, other.right))
        ]
    )


def opposed(one: Said, other: Said) -> bool:
    """Does one text say the opposite of a word of the other, and neither both?"""
    mine, theirs = Counter(one.tokens) - Counter(other.tokens), Counter(other.tokens) - Counter(one.tokens)
    for word in mine:
        against = ANTONYMS.get(word)
        if against is not None and not against.isdisjoint(theirs.keys()):
            return True
    return any([undoes(word, there) for word in mine for there in theirs])


def other_kind(one: Said, other: Said) -> bool:
    """Do they name different ones of a kind (Monday, Tuesday), or only one of them any of a kind that narrows?"""
    for kind in one.kinds.keys() | other.kinds.keys():
        mine, theirs = one.kinds.get(kind), other.kinds.get(kind)
        if mine != theirs and ((mine and theirs) or kind in TIGHT):
            return True
    return False


def other_names(one: Said, other: Said) -> bool:
    """Is a name of one text missing in the other?"""
    words = set(one.tokens), set(other.tokens)
    return not one.names <= words[1] or not other.names <= words[0]


def exchanged(one: Said, other: Said) -> frozenset[str]:
    """Content words of one text that took the place of others, between the same neighbours: `to Boston`, `to Denver`.

    That is what another name, thing or property looks like, and also what a synonym looks like; which it is, is known
    of words that a scope has seen exchanged before.
    """
    mine, theirs = _runs(one, frozenset(other.tokens)), _runs(other, frozenset(one.tokens))
    return frozenset([word for place in mine.keys() & theirs.keys() for word in (*mine[place], *theirs[place])])


def _runs(said: Said, there: frozenset[str]) -> dict[tuple[str, str], list[str]]:
    """The runs of words that are not there, with a word of content among them, by their neighbours."""
    found: dict[tuple[str, str], list[str]] = {}
    left, run = "^", list[str]()
    for word in (*said.frame, "$"):
        if word != "$" and word not in there:
            run.append(word)
            continue
        content = [one for one in run if one in said.content]
        if content:
            found[left, word] = content
        left, run = word, []
    return found


_FORBIDS: dict[str, Callable[[Said, Said], bool]] = {
    **{"number": renumbered, "code": other_codes, "direction": turned, "opposite": opposed},
    **{"kind": other_kind, "name": other_names, "negation": negated},
}
