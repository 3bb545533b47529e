"""What a worker does while Redis is away, hangs, forgets or answers late: nobody waits twice, nothing counts twice."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop

from gateway.config.schema import Spending
from gateway.errors import BudgetsUnavailable
from gateway.spend import Charge, Demand, Grant, Refusal, Rule, Unit
from gateway.stores import late
from gateway.stores import redis_wire as wire
from gateway.stores.redis_budgets import RedisBudgets
from gateway.stores.redis_link import Link
from gateway.testing.doubles import at_once
from gateway.testing.fault_proxy import FaultProxy
from gateway.testing.gateway import free_port
from tests.redis_server import NEEDS_REDIS, RedisServer

pytestmark = NEEDS_REDIS
TIMEOUT = 0.5  # shorter than any that a busy machine needs by itself
Make = Callable[..., "asyncio.Future[RedisBudgets]"]


@pytest.fixture
async def make(server: RedisServer, tmp_path: Path) -> AsyncIterator[Make]:
    made: list[RedisBudgets] = []

    async def store(state: str = "state", *, learn: float = 5, grace: float = 0, **settings: object) -> RedisBudgets:
        options = {"redis": server.url, "timeout": TIMEOUT, **settings}
        store = RedisBudgets(Spending(**options), tmp_path / state, learn=learn, grace=grace)  # type: ignore[arg-type]
        made.append(store)
        assert await store.ready(10)
        return store

    yield store  # type: ignore[misc]
    await asyncio.gather(*(store.close() for store in made))


def usd(amount: int, limit: int = 1000, account: str = "x") -> Demand:
    return Demand(account, Rule.TOTAL, Unit.USD, amount, limit)


def counts(server: RedisServer, account: str = "x") -> tuple[int, int]:
    spent, reserved = server.ask("HMGET", f"{{tollgate}}:a:{account}", "s", "r")  # type: ignore[misc]
    return int(spent or 0), int(reserved or 0)


async def until(true: Callable[[], object], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


async def test_a_server_that_hangs_costs_one_timeout_and_then_nothing(
    server: RedisServer, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    store = await make()
    await store.reserve("before", [usd(10)])
    server.hang()
    began = time.perf_counter()
    waiting = [asyncio.ensure_future(store.reserve(f"op{n}", [usd(10)])) for n in range(50)]
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(answer, BudgetsUnavailable) for answer in answers)
    assert TIMEOUT * 0.9 <= time.perf_counter() - began < TIMEOUT * 10  # of fifty
    for n in range(500):
        with pytest.raises(BudgetsUnavailable, match="away"):
            at_once(store.reserve(f"later{n}", [usd(10)]))  # nobody waits for what is known to be away
    store.settle("before", Charge(usd=7))
    assert (store.available, store.outages) == (False, 1)
    assert store.queued > 0
    server.go_on()
    await until(lambda: store.available)
    await store.applied()
    await until(lambda: counts(server) == (7, 0))  # what hung was carried out late, and given back
    assert isinstance(await store.reserve("after", [usd(993)]), Grant)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [line.split(" (")[0].split(" after")[0] for line in told] == ["Redis is away", "Redis is back"]


async def test_a_reserve_carried_out_after_its_timeout_holds_nothing_for_long(server: RedisServer, make: Make) -> None:
    store = await make()
    for round_ in range(3):
        server.hang()
        with pytest.raises(BudgetsUnavailable):
            await store.reserve(f"late{round_}", [usd(1000)])
        server.go_on()
        await until(lambda: store.available)
        await until(lambda: counts(server) == (0, 0))
    assert isinstance(await store.reserve("next", [usd(1000)]), Grant)


def test_a_connection_that_was_reset_while_nobody_asked_is_away_and_comes_back(
    server: RedisServer, tmp_path: Path
) -> None:
    """On the loop of the workers, which says so in words of its own."""

    async def scene() -> None:
        async with FaultProxy("127.0.0.1", server.port) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}/0"
            store = RedisBudgets(Spending(redis=url, timeout=TIMEOUT), tmp_path, grace=0)
            assert await store.ready(10)
            transport = store.link._connection._writer.transport  # type: ignore[union-attr]
            proxy.cut()
            await until(transport.is_closing)
            async with asyncio.timeout(20):
                with pytest.raises(BudgetsUnavailable):
                    await store.reserve("a", [usd(1)])
            assert await store.ready(10)
            assert isinstance(await store.reserve("b", [usd(1)]), Grant)
            await store.close()

    uvloop.run(scene())


async def test_nobody_waits_for_what_a_bug_has_ended(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await make()
    with monkeypatch.context() as patch:
        patch.setattr(store.session, "say", lambda *entries: 1 / 0)
        async with asyncio.timeout(20):
            with pytest.raises(BudgetsUnavailable):
                await store.reserve("a", [usd(1)])
    assert await store.ready(10)
    assert isinstance(await store.reserve("b", [usd(1)]), Grant)


async def test_a_reserve_that_arrives_when_nobody_waits_is_given_back(server: RedisServer, make: Make) -> None:
    """As where a network delivers what a connection that is closed by now had sent."""
    store = await make(lease_seconds=1)
    slow = Link(server.url, "{tollgate}", TIMEOUT)
    await slow.open()
    await slow.run(wire.batch(store.session.epoch, store.worker, [wire.entry("r", "late", [usd(900)])]))
    await slow.close()
    assert isinstance(await store.reserve("held", [usd(100)]), Grant)
    assert counts(server) == (0, 1000)
    async with asyncio.timeout(20):
        while counts(server) != (0, 100):
            store.tick()
            await asyncio.sleep(0.01)


async def test_a_refused_connection_and_the_way_back(server: RedisServer, make: Make) -> None:
    store = await make(learn=1)
    await store.reserve("a", [usd(40)])
    server.stop()
    with pytest.raises(BudgetsUnavailable):
        await store.reserve("b", [usd(10)])
    store.settle("a", Charge(usd=25))
    await asyncio.sleep(0.3)
    assert not store.available
    server.start()
    await until(lambda: store.available)
    await until(lambda: counts(server) == (25, 0))


@pytest.mark.parametrize(
    ("break_", "mend"),
    [
        (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"]),
        (["REPLICAOF", "127.0.0.1", "1"], ["REPLICAOF", "NO", "ONE"]),
        (["CONFIG", "SET", "min-replicas-to-write", "1"], ["CONFIG", "SET", "min-replicas-to-write", "0"]),
    ],
    ids=["OOM", "READONLY", "NOREPLICAS"],
)
async def test_a_server_that_cannot_write_grants_nothing(
    server: RedisServer, make: Make, break_: list[str], mend: list[str]
) -> None:
    store = await make()
    await store.reserve("a", [usd(40)])
    server.ask(*break_)
    with pytest.raises(BudgetsUnavailable):
        await store.reserve("b", [usd(10)])
    store.settle("a", Charge(usd=25))
    await asyncio.sleep(0.2)
    with pytest.raises(BudgetsUnavailable):
        await store.reserve("c", [usd(10)])
    server.ask(*mend)
    await until(lambda: store.available)
    await until(lambda: counts(server) == (25, 0))
    assert isinstance(await store.reserve("d", [usd(975)]), Grant)


async def test_a_password_that_changes(server: RedisServer, make: Make) -> None:
    store = await make()
    server.ask("CONFIG", "SET", "requirepass", "secret")
    server.password = "secret"
    assert isinstance(await store.reserve("before", [usd(10)]), Grant)  # who is in stays in
    server.ask("CLIENT", "KILL", "TYPE", "normal")
    with pytest.raises(BudgetsUnavailable):
        await store.reserve("a", [usd(10)])
    assert not await store.ready(0.3)


async def test_scripts_that_were_flushed_are_loaded_again(server: RedisServer, make: Make) -> None:
    store = await make()
    for n in range(3):
        server.ask("SCRIPT", "FLUSH")
        assert isinstance(await store.reserve(f"op{n}", [usd(100)]), Grant)
    assert store.outages == 0
    assert counts(server) == (0, 300)


async def test_an_answer_cut_or_late_is_applied_once(server: RedisServer, make: Make, tmp_path: Path) -> None:
    async with FaultProxy("127.0.0.1", server.port) as proxy:
        store = await make(redis=f"redis://127.0.0.1:{proxy.port}/0")
        spent = 0
        for n in range(6):
            await until(lambda: store.available)
            grant = await store.reserve(f"op{n}", [usd(10, 10**6), Demand("n", Rule.TOTAL, Unit.CALLS, 1, 1000)])
            assert isinstance(grant, Grant)
            if n % 2:
                proxy.down.latency = TIMEOUT * 2
            else:
                proxy.down.cut_after = 1
            store.settle(f"op{n}", Charge(usd=7))
            spent += 7
            await until(lambda: not store.available)
            proxy.down.latency, proxy.down.cut_after = 0, None
            proxy.cut()
        await until(lambda: store.available and not store.queued)
        assert counts(server) == (spent, 0)
        assert counts(server, "n") == (6, 0)


async def test_while_open_each_worker_grants_its_share_and_books_it_later(server: RedisServer, make: Make) -> None:
    first = await make("one", on_failure="open", local_share=0.1)
    second = await make("two", on_failure="open", local_share=0.1)
    await first.reserve("held", [usd(100)])
    server.hang()
    granted = 0
    for store in (first, second):
        with_answers = [await store.reserve(f"{store.worker}{n}", [usd(30)]) for n in range(10)]
        here = [answer for answer in with_answers if isinstance(answer, Grant)]
        assert len(here) == 3  # 90 of 100, a tenth of the limit
        assert all(isinstance(answer, Refusal) for answer in with_answers[3:])
        for answer in here:
            store.settle(answer.op, Charge(usd=30))
        granted += len(here)
    first.settle("held", Charge(usd=50))
    server.go_on()
    for store in (first, second):
        await until(lambda store=store: store.available and not store.queued)
    assert counts(server) == (30 * granted + 50, 0)
    server.hang()  # once more: the share of this window is used up
    assert isinstance(await first.reserve("again", [usd(30)]), Refusal)


async def test_what_was_granted_here_and_goes_on_is_held_there_later(server: RedisServer, make: Make) -> None:
    store = await make(on_failure="open", local_share=0.5)
    server.hang()
    assert isinstance(await store.reserve("long", [usd(400)]), Grant)
    server.go_on()
    await until(lambda: store.available)
    await until(lambda: counts(server) == (0, 400))
    assert isinstance(await store.reserve("other", [usd(601)]), Refusal)
    store.settle("long", Charge(usd=300))
    await store.applied()
    assert counts(server) == (300, 0)


async def test_a_reserve_that_nobody_waits_for_any_more_holds_nothing(server: RedisServer, make: Make) -> None:
    store = await make(timeout=2)
    for turns in range(6):
        task = asyncio.ensure_future(store.reserve(f"op{turns}", [usd(1000)]))
        for _ in range(turns):
            await asyncio.sleep(0.0005 * turns)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled():
            store.settle(f"op{turns}", Charge())
        await store.applied()
        await until(lambda: counts(server)[1] == 0)
    assert isinstance(await store.reserve("after", [usd(1000)]), Grant)


async def test_it_is_loaded_late(server: RedisServer, tmp_path: Path) -> None:
    settings = Spending(redis=server.url, timeout=1)
    store = late.redis_budgets(settings, tmp_path / "late")
    assert await store.ready(10)
    assert isinstance(await store.reserve("a", [usd(10)]), Grant)
    reader = late.redis_reader(settings)
    assert [(standing.account, standing.reserved) for standing in reader.levels(["x", "y"])] == [("x", 10)]
    reader.close()
    await store.close()
    await store.close()
    with pytest.raises(BudgetsUnavailable):
        await store.reserve("b", [usd(10)])
    with pytest.raises(ValueError, match="scheme"):
        late.redis_budgets(Spending(redis="http://127.0.0.1"), tmp_path / "other")


async def test_the_first_calls_wait_until_their_worker_has_joined(server: RedisServer, tmp_path: Path) -> None:
    store = RedisBudgets(Spending(redis=server.url, timeout=1), tmp_path / "state", grace=0.3)
    began = time.perf_counter()
    assert isinstance(await store.reserve("a", [usd(10)]), Grant)
    assert time.perf_counter() - began >= 0.25
    await store.close()
    server.stop()
    other = RedisBudgets(Spending(redis=server.url, timeout=1), tmp_path / "state")
    began = time.perf_counter()
    with pytest.raises(BudgetsUnavailable):
        await other.reserve("a", [usd(10)])
    assert time.perf_counter() - began < 1.5  # there is nothing to wait for
    await other.close()


async def test_settings_that_are_reloaded_hold_at_once(server: RedisServer, make: Make) -> None:
    store = await make()
    server.hang()
    with pytest.raises(BudgetsUnavailable):
        await store.reserve("a", [usd(10)])
    store.configure(Spending(redis=server.url, timeout=TIMEOUT, on_failure="open", local_share=0.1))
    assert isinstance(await store.reserve("b", [usd(100)]), Grant)
    server.go_on()


async def test_a_server_that_may_evict_is_told_of(
    server: RedisServer, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    server.ask("CONFIG", "SET", "maxmemory", "100mb")
    server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    await make()
    assert "maxmemory-policy allkeys-lru" in caplog.text


async def test_numbers_that_are_too_large_harm_nobody_else(make: Make) -> None:
    store = await make()
    good = asyncio.ensure_future(store.reserve("good", [usd(10)]))
    with pytest.raises(ValueError, match="64 bits"):
        await store.reserve("bad", [usd(2**70)])
    assert isinstance(await good, Grant)
    store.settle("good", Charge(usd=2**70, tokens=-5))
    await store.applied()


async def test_in_a_cluster_the_one_who_has_the_slot_is_found(tmp_path: Path) -> None:
    nodes = [RedisServer("--cluster-enabled", "yes", "--cluster-port", str(free_port())) for _ in range(2)]
    try:
        away, here = nodes
        slot = _slot("{tollgate}")
        here.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        away.ask("CLUSTER", "MEET", "127.0.0.1", here.port, here.ask("CONFIG", "GET", "cluster-port")[1])  # type: ignore[index]
        await until(lambda: str(away.ask("CLUSTER", "SLOTS")).count(str(here.port)), 20)
        await until(lambda: "cluster_state:ok" in str(here.ask("CLUSTER", "INFO")), 20)
        await until(lambda: "cluster_state:ok" in str(away.ask("CLUSTER", "INFO")), 20)
        store = RedisBudgets(Spending(redis=away.url, timeout=1), tmp_path / "state", grace=0)
        assert await store.ready(10)
        assert isinstance(await store.reserve("a", [usd(100)]), Grant)
        store.settle("a", Charge(usd=70))
        await store.applied()
        assert counts(here) == (70, 0)
        keys = here.ask("CLUSTER", "COUNTKEYSINSLOT", slot)
        assert keys == here.ask("DBSIZE")
        await store.close()
    finally:
        for node in nodes:
            node.close()


async def test_all_keys_share_one_slot_of_a_cluster(server: RedisServer, make: Make) -> None:
    store = await make()
    demands = [
        usd(10),
        Demand("r", Rule.ROLLING, Unit.USD, 1, 10, period=10**10),
        Demand("q", Rule.RATE, Unit.CALLS, 1, 10, period=10**10),
        Demand("s", Rule.SLOTS, Unit.CONCURRENCY, 1, 10),
        Demand("a", Rule.AGE, Unit.SECONDS, 0, 10),
    ]
    await store.reserve("a", demands)
    await store.reserve("b", demands)
    store.settle("a", Charge(usd=3))
    store.renew()
    await store.applied()
    await store.adjust("id", "x", 5, "why", "who")
    keys = server.ask("KEYS", "*")
    assert isinstance(keys, list)
    assert len(keys) > 8
    assert {_slot(key) for key in keys} == {_slot("{tollgate}")}


def _slot(key: str) -> int:
    """As the cluster specification has it: CRC16 (XMODEM) of what stands between the first braces, modulo 16384."""
    start = key.find("{")
    end = key.find("}", start + 1)
    data = (key[start + 1 : end] if start >= 0 and end > start + 1 else key).encode()
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc % 16384
