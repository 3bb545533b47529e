"""Redis forgets, is replaced, or its clients are killed: what was spent stays spent, and the limit stays a limit."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.config.schema import Spending
from gateway.errors import BudgetsUnavailable
from gateway.spend import Charge, Demand, Grant, Refusal, Rule, Unit
from gateway.stores.redis_budgets import RedisBudgets
from gateway.stores.redis_reader import RedisReader
from gateway.testing.gateway import dead_port
from tests.redis_server import NEEDS_REDIS, RedisServer

pytestmark = NEEDS_REDIS
ROOT = Path(__file__).parents[3]
TEAM = "team:a|usd|day|2026-11-27"


class Machines:
    """Each name is a machine: a state directory. Workers are ticked until they end."""

    def __init__(self, server: RedisServer, place: Path) -> None:
        self.server, self.place = server, place
        self.ticking: dict[RedisBudgets, asyncio.Task[None]] = {}

    async def worker(self, machine: str, *, learn: float = 10, grace: float = 0.1, wait: bool = True) -> RedisBudgets:
        settings = Spending(redis=self.server.url, timeout=0.5, lease_seconds=1)
        store = RedisBudgets(settings, self.place / machine, learn=learn, grace=grace)
        self.ticking[store] = asyncio.create_task(_tick(store))
        assert not wait or await store.ready(10)
        return store

    async def kill(self, store: RedisBudgets) -> None:
        """As SIGKILL would: nothing is said to anybody, and its lock is gone."""
        self.ticking.pop(store).cancel()
        store._task.cancel()
        await asyncio.wait([store._task])
        await store.link.close()
        store.disk.shutdown()
        store.mirror.close()

    async def close(self) -> None:
        for store, task in self.ticking.items():
            task.cancel()
            await store.close()


async def _tick(store: RedisBudgets) -> None:
    while True:
        store.tick()
        await asyncio.sleep(0.05)


@pytest.fixture
async def machines(server: RedisServer, tmp_path: Path) -> AsyncIterator[Machines]:
    machines = Machines(server, tmp_path)
    yield machines
    await machines.close()


def usd(amount: int, limit: int = 1000, account: str = TEAM) -> Demand:
    return Demand(account, Rule.TOTAL, Unit.USD, amount, limit)


def counts(server: RedisServer, account: str = TEAM) -> tuple[int, int]:
    spent, reserved = server.ask("HMGET", f"{{tollgate}}:a:{account}", "s", "r")  # type: ignore[misc]
    return int(spent or 0), int(reserved or 0)


async def spend(store: RedisBudgets, op: str, amount: int, *more: Demand) -> None:
    answer = await store.reserve(op, [usd(amount), *more])
    assert isinstance(answer, Grant), answer
    store.settle(op, Charge(usd=amount))
    await store.applied()


async def back(store: RedisBudgets) -> None:
    """It notices what happened, and what it does about it is over."""
    for _ in range(300):
        rebuilds = store.rebuilds + store.outages
        if rebuilds and await store.ready(0.1):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not notice, or did not come back")


async def have_met(*workers: RedisBudgets) -> None:
    """Each has all of them on its disk."""
    for _ in range(1000):
        if all(len(store.mirror._members or ()) >= len(workers) for store in workers):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("they have not heard of each other")


async def test_a_flush_is_noticed_at_the_next_call_and_nothing_is_forgotten(
    server: RedisServer, machines: Machines
) -> None:
    one, two = await machines.worker("one"), await machines.worker("two")
    rolling = Demand("rolling", Rule.ROLLING, Unit.USD, 300, 500, period=3600 * 10**9)
    age = Demand("run:1|age", Rule.AGE, Unit.SECONDS, 0, 1)
    await spend(one, "a", 300, rolling, age)
    await spend(two, "b", 250)
    assert isinstance(await two.reserve("c", [usd(100)]), Grant)
    await one.adjust("gift", TEAM, -50, "sorry", "ann")
    await asyncio.sleep(1)
    server.ask("FLUSHALL")
    with pytest.raises(BudgetsUnavailable):
        await one.reserve("d", [usd(1)])
    await asyncio.gather(back(one), back(two))
    assert counts(server) == (500, 100)
    answer = await one.reserve("d", [usd(401)])
    assert isinstance(answer, Refusal)
    assert answer.available[0] == 400
    assert isinstance(await one.reserve("e", [rolling]), Refusal)
    assert isinstance(await one.reserve("f", [age]), Refusal)
    two.settle("c", Charge(usd=60))
    await two.applied()
    assert counts(server) == (560, 0)


async def test_every_known_machine_must_have_told_before_anything_is_granted(
    server: RedisServer, machines: Machines
) -> None:
    one, two = await machines.worker("one"), await machines.worker("two")
    await spend(one, "a", 300)
    await spend(two, "b", 600)
    await have_met(one, two)
    await machines.kill(two)
    server.ask("FLUSHALL")
    with pytest.raises(BudgetsUnavailable):
        await one.reserve("c", [usd(1)])
    assert not await one.ready(0.5)  # the other machine is missing
    again = await machines.worker("two")  # its new worker has only the disk
    await back(one)
    assert counts(server) == (900, 0)
    assert isinstance(await again.reserve("d", [usd(101)]), Refusal)


async def test_learning_ends_some_time_and_who_comes_later_is_counted_then(
    server: RedisServer, machines: Machines
) -> None:
    one, two = await machines.worker("one", learn=0.6), await machines.worker("two")
    await spend(one, "a", 300)
    await spend(two, "b", 600)
    await have_met(one, two)
    await machines.kill(two)
    server.ask("FLUSHALL")
    began = time.monotonic()
    with pytest.raises(BudgetsUnavailable):
        await one.reserve("c", [usd(1)])
    await back(one)
    assert 0.5 < time.monotonic() - began < 3
    assert counts(server) == (300, 0)
    await machines.worker("two")
    assert counts(server) == (900, 0)


async def test_a_restart_without_persistence(server: RedisServer, machines: Machines) -> None:
    one = await machines.worker("one")
    await spend(one, "a", 300)
    held = await one.reserve("b", [usd(200)])
    assert isinstance(held, Grant)
    server.stop()
    one.settle("b", Charge(usd=150))
    await asyncio.sleep(0.2)
    server.start()
    await back(one)
    assert counts(server) == (450, 0)


async def test_a_stale_server_that_takes_over_is_brought_up_to_date(server: RedisServer, machines: Machines) -> None:
    one = await machines.worker("one")
    await spend(one, "a", 300)
    old = server.ask("HGETALL", f"{{tollgate}}:a:{TEAM}")
    await spend(one, "b", 400)
    await asyncio.sleep(0.3)
    # What a replica would have that had missed the last seconds: less, and the epoch of another server.
    assert isinstance(old, list)
    server.ask("DEL", f"{{tollgate}}:a:{TEAM}")
    server.ask("HSET", f"{{tollgate}}:a:{TEAM}", *old)
    server.ask("HSET", "{tollgate}:e", "run", "another")
    await back(one)  # by its next tick, without any call
    assert counts(server) == (700, 0)


async def test_a_server_that_was_a_replica_in_between_is_brought_up_to_date(
    server: RedisServer, machines: Machines
) -> None:
    """It is the same process, and the epoch is its own: the replica that it had for a while never saw a worker."""
    one = await machines.worker("one")
    await spend(one, "a", 300)
    server.ask("HSET", f"{{tollgate}}:a:{TEAM}", "s", 0, f"c|{one.worker}", 0)  # as the replica, which lagged, had it
    server.ask("REPLICAOF", "127.0.0.1", dead_port())
    server.ask("REPLICAOF", "NO", "ONE")
    await back(one)
    assert counts(server) == (300, 0)


async def test_a_worker_that_starts_brings_what_the_last_one_could_not_send(
    server: RedisServer, machines: Machines
) -> None:
    one = await machines.worker("one")
    await one.reserve("a", [usd(300)])
    await asyncio.sleep(0.3)
    server.hang()
    one.settle("a", Charge(usd=200))
    await asyncio.sleep(0.8)
    machines.ticking.pop(one).cancel()
    await one.close()
    server.go_on()
    await asyncio.sleep(0.1)
    await machines.worker("one")
    spent, _ = counts(server)
    assert spent >= 200


async def test_a_reader_sees_accounts_as_people_do(server: RedisServer, machines: Machines) -> None:
    one = await machines.worker("one")
    rolling = Demand("team:r*|usd", Rule.ROLLING, Unit.USD, 30, 50, period=3600 * 10**9, label="team r, per hour")
    rate = Demand("team:q|rpm", Rule.RATE, Unit.CALLS, 1, 60, period=60 * 10**9, burst=5)
    await spend(one, "a", 300, rolling, rate)
    await one.adjust("gift", TEAM, -50, "sorry", "ann")
    await one.applied()
    reader = RedisReader(one.settings)
    found = {standing.account: standing for standing in reader.under("team:")}
    assert set(found) == {TEAM, "team:r*|usd", "team:q|rpm"}
    assert [standing.account for standing in reader.under("team:r*")] == ["team:r*|usd"]
    assert (found[TEAM].limit, found[TEAM].spent, found[TEAM].unit) == (1000, 250, Unit.USD)
    assert (found["team:r*|usd"].label, found["team:r*|usd"].rule) == ("team r, per hour", Rule.ROLLING)
    assert found["team:r*|usd"].spent == 300
    assert found["team:q|rpm"].spent == 1
    note = reader.adjustments()[0]
    assert (note.id, note.delta, note.who) == ("gift", -50, "ann")
    reader.close()
    server.stop()
    with pytest.raises(BudgetsUnavailable):
        RedisReader(one.settings).levels([TEAM])
    server.start()


# -- real processes -----------------------------------------------------------------------------------------------

CLIENTS = 20  # of each process
IN_FLIGHT = 3 * CLIENTS * 100  # may still be written to the meters after a grant of earlier


def hammer(server: RedisServer, place: Path, machine: str, limit: int, meter: str = "meter") -> subprocess.Popen[str]:
    program = str(Path(__file__).with_name("redis_hammer.py"))
    state = str(place / machine)
    command = [sys.executable, program, server.url, state, str(place / meter), str(limit), str(CLIENTS)]
    environment: dict[str, Any] = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=environment, **pipes)  # type: ignore[call-overload,no-any-return]


def ready(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"


def metered(place: Path) -> list[int]:
    """Whole lines: the last may be under way."""
    return [int(line) for meter in place.glob("meter*") for line in meter.read_text().split("\n")[:-1]]


def goes_on(place: Path, spent: int = 0) -> int:
    """Wait until calls have been granted that were asked for from now on; what has been spent by then."""
    until(lambda: sum(metered(place)) > spent + IN_FLIGHT)
    return sum(metered(place))


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ended(*processes: subprocess.Popen[str]) -> list[int]:
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None  # communicate() would flush it
    return [int(process.communicate(timeout=60)[0]) for process in processes]


def test_sixty_clients_of_three_processes_never_exceed_one_budget(server: RedisServer, tmp_path: Path) -> None:
    limit = 20_000
    processes = [hammer(server, tmp_path, machine, limit) for machine in ("one", "one", "two")]
    ready(*processes)
    until(lambda: sum(metered(tmp_path)) > limit - 100)
    time.sleep(0.3)  # they go on asking
    granted = ended(*processes)
    meter = metered(tmp_path)
    assert sum(granted) == len(meter) > limit // 100
    assert limit - 100 < sum(meter) <= limit  # used to the end, and not beyond
    assert counts(server) == (sum(meter), 0)
    assert counts(server, "global|usd|life") == (sum(meter), 0)
    assert counts(server, "global|calls") == (0, 0)


def test_no_flush_lets_anybody_spend_more_than_the_limit(server: RedisServer, tmp_path: Path) -> None:
    limit = 100_000
    processes = [hammer(server, tmp_path, machine, limit) for machine in ("one", "two", "two")]
    ready(*processes)
    spent = 0
    for _ in range(4):
        spent = goes_on(tmp_path, spent)
        assert spent < limit - IN_FLIGHT, "there is something left to spend after it"
        server.ask("FLUSHALL")
    until(lambda: sum(metered(tmp_path)) > limit - 100)
    time.sleep(0.3)  # they go on asking
    ended(*processes)
    meter = sum(metered(tmp_path))
    assert limit - 100 < meter <= limit
    assert counts(server) == (meter, 0)


def test_a_flush_and_a_hang_under_load_cost_nothing(server: RedisServer, tmp_path: Path) -> None:
    limit = 10**9
    processes = [hammer(server, tmp_path, machine, limit) for machine in ("one", "two")]
    ready(*processes)
    spent = goes_on(tmp_path)
    server.ask("FLUSHALL")
    spent = goes_on(tmp_path, spent)
    server.hang()
    time.sleep(0.4)  # longer than it may take to answer
    server.go_on()
    spent = goes_on(tmp_path, spent)
    server.stop()
    server.start()
    goes_on(tmp_path, spent)
    granted = ended(*processes)
    meter = metered(tmp_path)
    assert sum(granted) == len(meter) > 200
    assert counts(server) == (sum(meter), 0)
    assert counts(server, "global|calls") == (0, 0)


def test_a_killed_process_is_charged_and_the_limit_holds(server: RedisServer, tmp_path: Path) -> None:
    limit = 30_000
    victim = hammer(server, tmp_path, "two", limit, "meter.victim")
    ready(victim)
    until(lambda: len(metered(tmp_path)) > 5)
    victim.send_signal(signal.SIGKILL)  # most of its clients are in a call
    victim.communicate()
    others = [hammer(server, tmp_path, machine, limit) for machine in ("one", "two")]
    ready(*others)
    until(lambda: counts(server)[0] > limit - 100)  # which is used up once what the victim held has been charged
    ended(*others)
    meter = sum(metered(tmp_path))
    spent, reserved = counts(server)
    assert meter < spent <= limit  # it held something, and that is charged as it was reserved
    assert reserved == 0
    assert spent - meter <= CLIENTS * 90  # of at most twenty calls, each of which cost something
