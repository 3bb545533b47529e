"""Do two answers say the same? Pure.

Theory of operation
* Equal texts, up to case, space and punctuation at their ends, are the same; so is equal JSON, whatever its order of
  keys. Other JSON is not: what reads it takes each value at its word.
* Texts that the guards tell apart by numbers, codes, directions, opposites or denials are not the same. Other names,
  days or units may be more said of the same: they are never the same and not surely different. What is left is told
  by the cosine of the embeddings: far apart is different, near is the same. Between the two it is not known, which
  teaches nothing: a wrong label costs more than none (design note, finding 4).
* An answer longer than an embedder reads is known by equality alone.
"""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from gateway.policy.semantic_guards import vetoed
from gateway.policy.semantic_text import Said

SAME_FROM, OTHER_BELOW = 0.92, 0.6  # of the cosine of embeddings; see docs/cache-semantic.md for what errs there
MOST_LETTERS = 1_000  # of an answer that is compared by its embedding
_SILENT = frozenset(("kind", "name"))  # guards that tell no difference of answers by themselves
_ENDS = " \t\r\n.!?…\"'“”‘’"


class Verdict(enum.Enum):
    SAME = "same"
    OTHER = "other"
    UNKNOWN = "unknown"


def compare(one: str, other: str) -> Verdict:
    """By what is written alone; UNKNOWN where only the sense can tell."""
    if plain(one) == plain(other):
        return Verdict.SAME
    mine, theirs = _json(one), _json(other)
    if mine is not None or theirs is not None:
        return Verdict.SAME if mine == theirs else Verdict.OTHER
    if max(len(one), len(other)) > MOST_LETTERS:
        return Verdict.UNKNOWN
    guard = vetoed(Said(one), Said(other), _SILENT)
    return Verdict.UNKNOWN if not guard else Verdict.OTHER


def by_sense(one: str, other: str, cosine: float) -> Verdict:
    """With the cosine of both embeddings, for what `compare` does not know."""
    written = compare(one, other)
    if written is not Verdict.UNKNOWN or max(len(one), len(other)) > MOST_LETTERS:
        return written
    if cosine < OTHER_BELOW:
        return Verdict.OTHER
    return Verdict.SAME if cosine >= SAME_FROM and not vetoed(Said(one), Said(other)) else Verdict.UNKNOWN


def plain(text: str) -> str:
    """Without what two equal answers may differ in."""
    return " ".join(text.casefold().split()).strip(_ENDS)


def _json(text: str) -> Any:
    """Of an object or an array, else None."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return _typed(msgspec.json.decode(text))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _typed(value: Any) -> Any:
    """As what compares with its kind: `true` is not 1."""
    if isinstance(value, dict):
        return {key: _typed(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_typed(one) for one in value]
    return (isinstance(value, bool), value)
