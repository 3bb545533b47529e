"""A matcher's mind over a real file, with an embedder that needs no weights and a clock that the test moves."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numpy", reason="the extra `semantic` is not installed")

from gateway.matcher.engine import Engine, Outside
from gateway.matcher.memory import Memory
from gateway.matcher.scopes import Scopes
from gateway.matcher.shelf import Shelf
from gateway.ports import Inquiry, Lesson, Match, MatcherState, Topic
from gateway.ports_semantic import Vectors
from gateway.testing.fake_embedder import FakeEmbedder

HOUR = 3600 * 10**9
THINGS = [f"{how} {what}" for how in ("red", "old", "tall") for what in ("barn", "tower", "bridge", "mill")]
WAYS = ("who built the {}", "by whom was the {} built", "tell me who built the {}", "the {} was built by whom")
WRONG_WAY = "when was the {} built"


def topic(**more: Any) -> Topic:
    return Topic(**{
        "scope": "t/a/m", "tenant": "t", "target": 0.02, "sample": 0.04, "ttl": HOUR, "serve": True, **more
    })  # fmt: skip


class Mind:
    """The engine, and what a worker does with it."""

    def __init__(self, path: Path, seed: int = 1) -> None:
        self.path = path
        self.now = 1_790_000_000 * 10**9
        self.time = 0
        self.draw = random.Random(seed)
        self.embedder = FakeEmbedder()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.numbers = 0
        self.keys = 0
        self.away = False  # the embedder
        self.answers: dict[bytes, str] = {}
        self.open()

    def open(self) -> None:
        """As a process begins."""
        self.memory = Memory(self.path, "fake/1")
        self.shelf = Shelf(10_000)
        self.scopes = Scopes(self.memory)
        outside = Outside(
            embed=self.embed,
            same=self.same,
            event=lambda kind, **detail: self.events.append((kind, detail)),
            now=lambda: self.now,
            monotonic=lambda: self.time,
            draw=self.draw.random,
            unique=self.number,
        )
        self.engine = Engine(self.shelf, self.memory, self.scopes, outside)
        self.engine.ttl = HOUR
        self.scopes.load(self.now)
        self.engine.load()

    def state(self) -> MatcherState:
        return self.engine.state(embedder="fake", trouble="", waiting=0, dropped=0)

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    async def embed(self, text: str, until: int) -> Vectors | None:
        return None if self.away else self.embedder.embed([text])[0]

    async def same(self, question: str, stored: str, fresh: str, first: bool) -> bool | None:
        return stored == fresh

    async def ask(self, text: str, partition: bytes = b"p", **more: Any) -> tuple[Inquiry, Match]:
        inquiry = Inquiry(f"call-{self.number()}", partition, text, topic(**more))
        return inquiry, await self.engine.ask(inquiry, self.time + 10**9)

    async def answer(
        self, inquiry: Inquiry, match: Match, answer: str, *, checked: bool = False, cost: int = 100
    ) -> bytes:
        self.keys += 1
        key = self.keys.to_bytes(32, "big")
        self.answers[key] = answer
        await self.engine.learn(Lesson(inquiry, match.ticket, key, answer, self.now, cost, checked))
        return key

    async def live(self, count: int, **more: Any) -> tuple[int, int]:
        """So many questions with known answers: how many were served, how many of those wrongly."""
        served = wrong = 0
        for _ in range(count):
            thing = self.draw.choice(THINGS)
            way, answer = self.draw.choice(WAYS), f"the builder of {thing}"
            if self.draw.random() < 0.3:
                way, answer = WRONG_WAY, f"the year of {thing}"
            inquiry, match = await self.ask(way.format(thing), **more)
            if match.key:
                served += 1
                wrong += self.answers[match.key] != answer
            if not match.key or match.sampled:
                await self.answer(inquiry, match, answer, checked=bool(match.key))
        return served, wrong


@pytest.fixture
def mind(tmp_path: Path) -> Iterator[Mind]:
    found = Mind(tmp_path / "semantic.sqlite")
    yield found
    found.memory.close()
