"""The matcher in memory: for worlds of doubles (see gateway.testing.doubles). The test says what it answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.call import Request
from gateway.config.schema import SemanticCache
from gateway.errors import ClientGone
from gateway.policy.semantic_rules import SemanticRules
from gateway.ports import Inquiry, Lesson, Match
from gateway.stages.semantic import SemanticTier
from gateway.testing.turns import Stop


class MemoryMatcher:
    """`ports.Matcher`. Without `verdict` nothing is ever similar."""

    def __init__(self) -> None:
        self.inquiries: list[Inquiry] = []
        self.lessons: list[Lesson] = []
        self.checks: list[Request] = []
        self.verdict: Callable[[Inquiry], Match] = lambda inquiry: Match(why="empty")

    async def ask(self, inquiry: Inquiry, down: Any) -> Match:
        if down.gone:
            raise ClientGone()
        await Stop("matcher")
        self.inquiries.append(inquiry)
        return self.verdict(inquiry)

    def teach(self, lesson: Lesson) -> None:
        self.lessons.append(lesson)

    def check(self, request: Request) -> bool:
        self.checks.append(request)
        return True

    def latest(self, **more: Any) -> None:
        """From now on the answer that was learned last may be given."""
        key = self.lessons[-1].key
        self.verdict = lambda inquiry: Match(**{"ticket": 7, "key": key, "score": 0.99, **more})

    def tier(self, settings: SemanticCache) -> SemanticTier:
        return SemanticTier(SemanticRules(settings), self, self.check)
