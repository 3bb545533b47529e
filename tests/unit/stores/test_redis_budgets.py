"""RedisBudgets on a real redis-server: the contract of every store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.config.schema import Spending
from gateway.spend import Charge, Level
from gateway.stores import redis_link
from gateway.stores.redis_budgets import RedisBudgets
from tests.redis_server import NEEDS_REDIS, RedisServer
from tests.unit.stores.budgets_contract import SECOND, BudgetsContract, granted, rate, refused, stands, total

pytestmark = NEEDS_REDIS
LEASE = 15.0
# The same script with a clock that tests can move on.
SKEWED = redis_link.script().replace(
    b"tonumber(clock[2])", b"tonumber(clock[2]) + (tonumber(redis.call('GET', 'skew') or 0))", 1
)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


class RedisKit:
    def __init__(self, server: RedisServer, state: Path) -> None:
        self.server, self.state = server, state
        self.skew = 0
        self.workers: list[RedisBudgets] = []

    async def worker(self, on_dead: str = "charge") -> RedisBudgets:
        settings = Spending(redis=self.server.url, timeout=2, on_dead_worker=on_dead, lease_seconds=LEASE)
        store = RedisBudgets(settings, self.state, grace=0)
        self.workers.append(store)
        assert await store.ready(5)
        return store

    async def applied(self, worker: RedisBudgets) -> None:
        await worker.applied()

    async def abandon(self, worker: RedisBudgets) -> None:
        """It is not ticked any more."""

    async def expire(self, survivor: RedisBudgets) -> None:
        survivor.tick()
        for _ in range(4):
            await self.advance(LEASE / 3)
            survivor.renew()
            await survivor.applied()

    async def level(self, account: str) -> Level | None:
        spent, reserved = self.server.ask("HMGET", f"{{tollgate}}:a:{account}", "s", "r")  # type: ignore[misc]
        return Level(account, 0, int(spent or 0), int(reserved or 0))

    async def adjust(self, worker: RedisBudgets, id: str, account: str, delta: int) -> None:
        await worker.adjust(id, account, delta, "because", "somebody")

    async def advance(self, seconds: float) -> None:
        self.skew += round(seconds * 1e6)
        self.server.ask("SET", "skew", self.skew)

    def now(self) -> int:
        seconds, micros = self.server.ask("TIME")  # type: ignore[misc]
        return (int(seconds) * 10**6 + int(micros) + self.skew) * 1000


@pytest.fixture
async def kit(server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RedisKit]:
    monkeypatch.setattr(redis_link, "script", lambda: SKEWED)
    server.ask("FLUSHALL")
    kit = RedisKit(server, tmp_path)
    yield kit
    for worker in kit.workers:
        await worker.close()


class TestContract(BudgetsContract):
    """Everything in budgets_contract."""


async def test_no_lease_runs_out_while_the_server_hears_nobody(kit: RedisKit) -> None:
    """It hung, or nobody reached it: who comes back first does not bury the others, but who does not come is dead."""
    workers = [await kit.worker() for _ in range(3)]
    for worker in workers:
        worker.renew()
        await granted(worker, worker.worker, total("x", 10, 100))
    await kit.advance(LEASE * 4)
    for worker in workers[:2]:
        worker.renew()
        await worker.applied()
        worker.settle(worker.worker, Charge(usd=1))
        await worker.applied()
    assert await stands(kit, "x") == (2, 10)
    await kit.expire(workers[0])
    assert await stands(kit, "x") == (12, 0)


async def test_a_server_whose_clock_was_set_back_reopens_nothing_and_rates_still_drain(kit: RedisKit) -> None:
    store = await kit.worker()
    spent, a_rate = total("x", 60, 100), rate("rpm", 1, 60, period=60 * SECOND, burst=1)
    await granted(store, "a", spent, a_rate)
    await kit.advance(-3600)
    assert (await refused(store, "b", spent)).available == (40,)
    await refused(store, "c", a_rate)
    await kit.advance(2)
    await granted(store, "d", a_rate)


def test_the_clock_of_these_tests_is_in_the_script() -> None:
    assert redis_link.script() != SKEWED
    assert SECOND == 10**9
