"""What a key must look like to be made, said by field. Pure; asked by the store, whoever makes the key."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.key import OPERATIONS, UNREAD, Key

PATTERNS = 100  # of one right
PATTERN_CHARS = 200
ENTRIES, ENTRY_CHARS = 32, 500  # of the metadata
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_TEAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class KeyRefused(Exception):
    """A key, or a change of one, that must not be; the message says why. `field`: the one that is wrong."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


def faults(key: Key, now: int) -> Iterator[tuple[str, str]]:
    """(field, what is wrong with it)."""
    if key.name and not _NAME.fullmatch(key.name):
        yield "name", "letters, digits and ._@- only, at most 64"
    if key.team and not _TEAM.fullmatch(key.team):
        yield "team", "letters, digits and ._- only, at most 64"
    for field in ("models", "upstreams", "tools", "operations"):
        yield from ((field, reason) for reason in _patterns(getattr(key, field)))
    known = OPERATIONS | UNREAD
    for name in key.operations:
        if "*" not in name and name not in known:
            yield "operations", f"there is no {name[:PATTERN_CHARS]}; known are {', '.join(sorted(known))}"
    if key.expires_at and key.expires_at <= now:
        yield "expires_at", "lies in the past"
    yield from _limits(key)
    if len(key.metadata) > ENTRIES or any(len(name) + len(text) > ENTRY_CHARS for name, text in key.metadata.items()):
        yield "metadata", f"at most {ENTRIES} entries of {ENTRY_CHARS} characters each"


def _patterns(patterns: tuple[str, ...]) -> Iterator[str]:
    if len(patterns) > PATTERNS:
        yield f"at most {PATTERNS} patterns"
    for pattern in patterns:
        if not pattern or len(pattern) > PATTERN_CHARS or not pattern.isprintable() or pattern != pattern.strip():
            yield f"a pattern has 1 to {PATTERN_CHARS} printable characters and no space around them"


def _limits(key: Key) -> Iterator[tuple[str, str]]:
    for field in ("rpm", "tpm", "concurrency", "burst"):
        limit = getattr(key, field)
        if limit is not None and not 1 <= limit <= 10**12:
            yield field, "a whole number from 1 to 10^12"
    if key.burst is not None and key.rpm is None:
        yield "burst", "is a number of requests and needs rpm beside it"
    seen = set()
    for budget in key.budgets:
        if budget.usd is None and budget.tokens is None:
            yield "budgets", "a budget names USD, tokens or both"
        if min(budget.usd or 1, budget.tokens or 1) < 0 or 0 in (budget.usd, budget.tokens):
            yield "budgets", "a budget is above zero"
        if budget.rolling and budget.per == "life":
            yield "budgets", "a budget for life has no window that could roll"
        if (budget.per, budget.rolling) in seen:
            yield "budgets", "one budget for each window"
        seen.add((budget.per, budget.rolling))
