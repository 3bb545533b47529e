"""Do two answers mean the same? By what is written; where that leaves it open, by their sense and by a judge, where
the operator wants them.

What is not known to be the same counts as another answer. That errs to one side: a scope whose upstream words every
answer anew learns that nothing may be served, and never that something wrong may.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from gateway.policy.semantic_compare import Verdict, by_sense, compare
from gateway.ports_semantic import Vectors

Judge = Callable[[str, str, str], Awaitable[bool | None]]
"""Question, stored answer, fresh answer; None: it does not know, or does not answer."""
Embed: TypeAlias = "Callable[[str, int], Awaitable[Vectors | None]]"
"""The vector of a text; 0: it can wait."""


class Comparer:
    """`by_sense`: answers in other words are compared by the cosine of their embeddings. `judge` costs money: it is
    asked about the answer that was, or would be, given, and about no other neighbour."""

    def __init__(self, embed: Embed) -> None:
        self.judge: Judge | None = None
        self.by_sense = False
        self._embed = embed

    async def same(self, question: str, stored: str, fresh: str, first: bool) -> bool | None:
        verdict = compare(stored, fresh)
        if verdict is Verdict.UNKNOWN and self.by_sense:
            verdict = await self._by_sense(stored, fresh)
        if verdict is Verdict.SAME or self.judge is None:
            return verdict is Verdict.SAME
        return await self.judge(question, stored, fresh) if first else None

    async def _by_sense(self, stored: str, fresh: str) -> Verdict:
        mine, theirs = await self._embed(stored, 0), await self._embed(fresh, 0)
        if mine is None or theirs is None:
            return Verdict.UNKNOWN
        return by_sense(stored, fresh, float(mine @ theirs))
