"""What makes a provider go over one request more than once, and bill each time: a summary of what came before, and
models that stand ready where the first one declines.

Rules
1. A compaction reads all of the request once more, from the size on at which it is to be made, and writes `SUMMARY`
   tokens, which the answer is then made from. The limit of the answer does not hold it.
2. Each of the `fallbacks` is a try of its own, billed beside those before it, with a limit of its own where it has one.
   Of `models` only one answers.
3. What cannot be read counts as if it were there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

SUMMARY = 8_000  # tokens
DEFAULT_TRIGGER = 150_000  # tokens, of Anthropic's
FIELDS = frozenset({"context_management", "compaction", "fallbacks"})
NAMED = frozenset({"models", "fallbacks"})
MOST = 16  # of a list that is read

_FAULTS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_NULL = b"null"


class Passes(Struct, frozen=True, gc=False):
    summary: int = 0  # tokens written that are no part of the answer
    reads: int = 1  # how often the request is read
    tries: int = 1  # how often it is answered
    longest: int = 0  # the largest limit of an answer that a fallback states

    def tokens(self, once: int) -> int:
        """Input tokens in all, of a request that has so many."""
        return (once * self.reads + self.summary) * self.tries


ONCE = Passes()


def passes_of(fields: Mapping[str, Raw], tokens: int) -> Passes:
    """`tokens`: the most that the request may have."""
    if FIELDS.isdisjoint(fields):
        return ONCE
    summary = SUMMARY if _stated(fields, "compaction") else 0
    reads = 1
    if _stated(fields, "context_management") and tokens >= trigger(_decoded(fields["context_management"])):
        summary, reads = SUMMARY, 2
    entries = list(_entries(_decoded(fields["fallbacks"]))) if _stated(fields, "fallbacks") else []
    longest = max((limit for _, limit in entries), default=0)
    return Passes(summary, reads, 1 + len(entries), longest)


def trigger(management: Any) -> float:
    """From how many tokens on a compaction is made; infinite where none is asked for."""
    if management is None:
        return 0
    edits = management.get("edits") if isinstance(management, dict) else management
    found = [_threshold(edit) for edit in edits if isinstance(edit, dict)] if isinstance(edits, list) else []
    return min(found, default=float("inf"))


def _threshold(edit: Mapping[str, Any]) -> float:
    kind = edit.get("type")
    if isinstance(kind, str) and "compact" not in kind:
        return float("inf")  # it only takes something away
    if kind == "compaction":
        stated = edit.get("compact_threshold")
        return stated if type(stated) is int else 0
    at = edit.get("trigger")
    value = at.get("value") if isinstance(at, dict) else DEFAULT_TRIGGER if at is None else None
    return value if type(value) is int else 0


def models_beside(fields: Mapping[str, Raw]) -> tuple[str, ...]:
    """Models other than the one asked for that may answer, by the name that the request gives them."""
    if NAMED.isdisjoint(fields):
        return ()
    return tuple(
        name
        for field in ("models", "fallbacks")
        if _stated(fields, field)
        for name, _ in _entries(_decoded(fields[field]))
        if name
    )


def _entries(value: Any) -> Iterator[tuple[str, int]]:
    """(model, its own limit of the answer) of each entry; the names of some proxies stand in lists by model."""
    for entry in (value if isinstance(value, list) else [value])[:MOST]:
        if isinstance(entry, str):
            yield entry, 0
        elif isinstance(entry, dict) and "model" in entry:
            name, limit = entry["model"], entry.get("max_tokens")
            yield name if isinstance(name, str) else "", limit if type(limit) is int else 0
        elif isinstance(entry, dict):
            for names in entry.values():
                yield from (
                    ((name, 0) for name in names[:MOST] if isinstance(name, str)) if isinstance(names, list) else ()
                )
        else:
            yield "", 0


def _stated(fields: Mapping[str, Raw], name: str) -> bool:
    return name in fields and bytes(fields[name]) != _NULL


def _decoded(raw: Raw) -> Any:
    """None for what cannot be read."""
    try:
        return msgspec.json.decode(raw)
    except _FAULTS:
        return None
