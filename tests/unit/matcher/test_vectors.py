"""Vectors of texts: who is served first, what is dropped, what happens when the embedder fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from gateway.errors import EmbedderUnavailable
from gateway.matcher.vectors import Embeddings
from gateway.testing.fake_embedder import FakeEmbedder


class Source:
    name = "s"

    def __init__(self) -> None:
        self.fake = FakeEmbedder()
        self.batches: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fault: EmbedderUnavailable | None = None

    async def embed(self, texts: Sequence[str]) -> Any:
        await self.gate.wait()
        self.batches.append(list(texts))
        if self.fault is not None:
            raise self.fault
        return self.fake.embed(texts)


class Clock:
    def __init__(self) -> None:
        self.time = 0

    def __call__(self) -> int:
        return self.time


@pytest.fixture
async def made() -> AsyncIterator[tuple[Embeddings, Source, Clock]]:
    clock = Clock()
    source = Source()
    embeddings = Embeddings(source, clock)
    runner = asyncio.create_task(embeddings.run())
    yield embeddings, source, clock
    runner.cancel()


async def test_calls_go_before_what_can_wait(made: Any) -> None:
    embeddings, source, _ = made
    source.gate.clear()
    asked = [asyncio.create_task(embeddings.of(f"later {n}", 0)) for n in range(3)]
    await asyncio.sleep(0)
    asked += [asyncio.create_task(embeddings.of(f"now {n}", 100)) for n in range(3)]
    await asyncio.sleep(0)
    source.gate.set()
    found = await asyncio.gather(*asked)
    assert all(vector is not None for vector in found)
    assert source.batches == [["later 0"], ["now 0", "now 1", "now 2"], ["later 1"], ["later 2"]]


async def test_a_text_is_computed_once(made: Any) -> None:
    embeddings, source, _ = made
    one, two = await embeddings.of("a", 100), await embeddings.of("a", 100)
    assert (one == two).all()
    assert source.batches == [["a"]]


async def test_what_nobody_waits_for_any_more_is_not_computed(made: Any) -> None:
    embeddings, source, clock = made
    source.gate.clear()
    first = asyncio.create_task(embeddings.of("first", 100))
    for _ in range(3):
        await asyncio.sleep(0)
    late = asyncio.create_task(embeddings.of("late", 100))
    await asyncio.sleep(0)
    clock.time = 200
    source.gate.set()
    assert await late is None
    assert await first is not None
    assert source.batches == [["first"]]


async def test_an_embedder_that_fails_is_left_alone_for_a_while(made: Any) -> None:
    embeddings, source, clock = made
    source.fault = EmbedderUnavailable("gone")
    assert await embeddings.of("a", 100) is None
    assert embeddings.trouble == "gone"
    assert await embeddings.of("b", 100) is None
    assert source.batches == [["a"]]
    source.fault = None
    clock.time = 6 * 10**9
    assert await embeddings.of("b", clock.time + 100) is not None
    assert embeddings.trouble == ""


async def test_too_many_are_refused_at_once(made: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("gateway.matcher.vectors.MOST_OTHER", 2)
    embeddings, source, _ = made
    source.gate.clear()
    tasks = [asyncio.create_task(embeddings.of(str(n), 0)) for n in range(5)]
    for _ in range(3):
        await asyncio.sleep(0)
    source.gate.set()
    found = await asyncio.gather(*tasks)
    assert [vector is None for vector in found] == [False, False, True, True, True]
    assert embeddings.dropped == 3


async def test_without_a_source_there_are_none_and_another_one_is_asked_anew(made: Any) -> None:
    embeddings, source, _ = made
    await embeddings.of("a", 100)
    embeddings.forget()
    assert await embeddings.of("a", 100) is None
    embeddings.source = source
    assert await embeddings.of("a", 100) is not None
    assert source.batches == [["a"], ["a"]]
