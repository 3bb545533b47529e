"""Names with * as wildcard, as `match` in the configuration and the rights of a key have them.

There is no other special character. Linear in the length of the name, whatever the pattern: no regular expression.
"""

from __future__ import annotations

from collections.abc import Iterable
from unicodedata import normalize


def matches(pattern: str, name: str) -> bool:
    """Is this the name of the pattern, each * standing for any characters or none? Letters count as written."""
    if pattern == "*":
        return True
    first, star, rest = pattern.partition("*")
    if not star:
        return pattern == name
    *middle, last = rest.split("*")
    if len(first) + len(last) > len(name) or not (name.startswith(first) and name.endswith(last)):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        at = name.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


def any_matches(patterns: Iterable[str], name: str) -> bool:
    """Does one of the patterns mean this name?"""
    for pattern in patterns:  # noqa: SIM110 - on the path of a call, where a generator costs more
        if matches(pattern, name):
            return True
    return False


def plainly(name: str) -> str:
    """A name without what some servers do not mind: letter case, space around it, compatible forms of letters."""
    return normalize("NFKC", name).strip().casefold()


def one_name(model: str) -> str:
    """A model under all the names by which upstreams take it for the same: some heed no letter case, and Google's have
    `models/` before them or not."""
    return model.lower().removeprefix("models/")


def covers(wide: str, narrow: str) -> bool:
    """Does `wide` match every name that `narrow` matches? May say no where the answer is yes, never the reverse."""
    if wide in ("*", narrow):
        return True
    if "*" not in narrow:
        return matches(wide, narrow)
    first, star, rest = wide.partition("*")
    if not star or "*" in rest:
        return False
    head, tail = narrow.partition("*")[0], narrow.rpartition("*")[2]
    return head.startswith(first) and tail.endswith(rest)
