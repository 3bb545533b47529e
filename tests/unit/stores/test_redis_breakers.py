"""Breakers of many gateways in one Redis: what one found is known to the others, and nobody needs it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.policy.breaker import NANO, Change, State
from gateway.stores.redis_breakers import KEPT_MS, RedisBreakers
from tests.redis_server import NEEDS_REDIS, RedisServer

pytestmark = NEEDS_REDIS
KEY = "tollgate:{breakers}:s"


class Gate:
    """One gateway: what it was told."""

    def __init__(self, url: str) -> None:
        self.heard: dict[str, tuple[bool, float, float]] = {}  # opened, seconds left, seconds since
        self.shared = RedisBreakers(url, "tollgate", self.adopt)

    def adopt(self, name: str, *, opened: bool, until: int, at: int) -> None:
        now = time.monotonic_ns()
        self.heard[name] = (opened, (until - now) / NANO, (now - at) / NANO)

    def opens(self, name: str, seconds: float) -> None:
        self.shared.tell(name, Change(State.OPEN, "5 failures in a row", time.monotonic_ns() + int(seconds * NANO)))


@pytest.fixture
async def gates(server: RedisServer) -> AsyncIterator[tuple[Gate, Gate]]:
    made = (Gate(server.url), Gate(server.url))
    yield made
    await asyncio.gather(*[gate.shared.close() for gate in made])


async def until(true: Callable[[], object], *gates: Gate) -> None:
    async with asyncio.timeout(30):
        while not true():
            for gate in gates:
                gate.shared.tick()
            await asyncio.sleep(0.02)


async def test_what_one_found_the_others_know_and_not_itself(gates: tuple[Gate, Gate]) -> None:
    one, other = gates
    one.opens("openai/gpt-4o", 50)
    one.opens("wéird/ñame", 50)
    await until(lambda: len(other.heard) == 2, one, other)
    opened, left, since = other.heard["openai/gpt-4o"]
    assert opened
    assert 0 < left <= 50
    assert 0 <= since < 30
    assert "wéird/ñame" in other.heard
    await one.shared.exchange()
    assert one.heard == {}
    one.shared.tell("openai/gpt-4o", Change(State.HALF_OPEN, "its time is over"))
    one.shared.tell("openai/gpt-4o", Change(State.CLOSED, "probes went well"))
    await until(lambda: not other.heard["openai/gpt-4o"][0], one, other)


async def test_while_redis_is_away_nothing_happens_and_news_waits(
    server: RedisServer, gates: tuple[Gate, Gate]
) -> None:
    one, other = gates
    await one.shared.exchange()
    await other.shared.exchange()
    server.stop()
    one.opens("openai", 1)
    one.opens("openai", 90)
    for gate in gates:
        await gate.shared.exchange()
    assert other.heard == {}
    server.start()
    await until(lambda: other.heard, one, other)
    assert other.heard["openai"][1] > 60, "the latest"


async def test_a_redis_that_hangs_holds_nobody(server: RedisServer, gates: tuple[Gate, Gate]) -> None:
    one, other = gates
    await one.shared.exchange()
    server.hang()
    one.opens("openai", 90)
    one.shared.tick()
    task = one.shared._task
    assert task is not None
    for _ in range(5):
        one.shared.tick()
    assert one.shared._task is task, "one at a time"
    await task
    server.go_on()
    await until(lambda: other.heard, one, other)


async def test_what_is_old_is_forgotten_and_what_is_not_ours_is_thrown_out(
    server: RedisServer, gates: tuple[Gate, Gate]
) -> None:
    one, other = gates
    one.opens("openai", 5)
    await one.shared.exchange()
    assert 0 < int(str(server.ask("PTTL", KEY))) <= KEPT_MS
    server.ask("HSET", KEY, "odd", "what is this", "old", f"1 {10**15} 1 somebody")
    await other.shared.exchange()
    assert set(other.heard) == {"openai"}
    assert server.ask("HKEYS", KEY) == ["openai"]
