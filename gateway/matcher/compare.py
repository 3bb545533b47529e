"""Do two answers mean the same?"""

from __future__ import annotations

from gateway.matcher.engine import Embed


class Comparer:
    def __init__(self, embed: Embed) -> None:
        self._embed = embed

    async def same(self, question: str, stored: str, fresh: str) -> bool | None:
        return " ".join(stored.split()) == " ".join(fresh.split())
