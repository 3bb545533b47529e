"""Do two answers mean the same? By what is written; where that differs, by a judge, where there is one.

Without a judge what is written otherwise counts as another answer. That errs to one side: a scope whose upstream words
every answer anew learns that nothing may be served, and never that something wrong may.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

Judge = Callable[[str, str, str], Awaitable[bool | None]]
"""Question, stored answer, fresh answer; None: it does not know, or does not answer."""

_decode = msgspec.json.Decoder().decode
_ENDS = " \t\r\n.!?"


class Comparer:
    """`judge` costs money: it is asked about the answer that was, or would be, given, and about no other neighbour."""

    def __init__(self) -> None:
        self.judge: Judge | None = None

    async def same(self, question: str, stored: str, fresh: str, first: bool) -> bool | None:
        if written_alike(stored, fresh):
            return True
        if self.judge is None:
            return False
        return await self.judge(question, stored, fresh) if first else None


def written_alike(one: str, other: str) -> bool:
    """Equal text, but for case, space and the end of a sentence; or equal JSON."""
    if plain(one) == plain(other):
        return True
    if one.lstrip()[:1] not in ("{", "[") or one.lstrip()[:1] != other.lstrip()[:1]:
        return False
    try:
        return _typed(_decode(one)) == _typed(_decode(other))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False


def plain(text: str) -> str:
    return " ".join(text.casefold().split()).strip(_ENDS)


def _typed(value: object) -> object:
    """`true` is not 1."""
    if isinstance(value, dict):
        return {name: _typed(one) for name, one in value.items()}
    return [_typed(one) for one in value] if isinstance(value, list) else (type(value) is bool, value)
