"""Decisions over a real Redis: told, read, kept while it is away, told again after it was lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.policy.controls import Decision, Kind, Scope
from gateway.stores.controls_exchange import Exchange
from gateway.stores.redis_controls import RedisControls
from gateway.stores.sqlite_controls import SqliteControls, SqliteDecisions
from tests.redis_server import NEEDS_REDIS, RedisServer

pytestmark = NEEDS_REDIS
KILL = Decision(Kind.KILL, Scope.RUN, "r1", reason="it loops", who="ops", at=time.time_ns())


class Machine:
    def __init__(self, path: Path, url: str) -> None:
        self.decisions = SqliteDecisions(path / "controls.sqlite")
        self.redis = RedisControls(url, "tg", Exchange(self.decisions), time.time_ns)
        self.worker = SqliteControls(self.decisions.path)

    async def stopped(self, run: str, seconds: float = 5) -> float:
        """Seconds until the workers of this machine stop that run."""
        began = time.monotonic()
        while ("run", run) not in self.worker.stops:
            assert time.monotonic() - began < seconds
            await asyncio.sleep(0.01)
            self.worker.refresh()
        return time.monotonic() - began


@pytest.fixture
async def machines(tmp_path: Path, server: RedisServer) -> AsyncIterator[list[Machine]]:
    found = [Machine(tmp_path / name, server.url) for name in ("one", "two")]
    yield found
    for machine in found:
        await machine.redis.close()
        machine.worker.close()


async def test_a_turn_tells_and_reads(machines: list[Machine]) -> None:
    one, two = machines
    one.decisions.record(KILL)
    assert await one.redis.turn(1) == 1
    assert await two.redis.turn(1) == 1
    assert await two.redis.turn(1) == 0
    assert two.worker.refresh()
    assert "it loops" in two.worker.stops["run", "r1"]
    two.decisions.record(Decision(Kind.RESUME, Scope.RUN, "r1", at=time.time_ns()))
    assert await two.redis.turn(1) == 1
    assert await one.redis.turn(1) == 1
    one.worker.refresh()
    assert not one.worker.stops
    assert len(one.decisions.decisions()) == len(two.decisions.decisions()) == 2


async def test_a_kill_crosses_within_a_second_and_waits_while_redis_is_away(
    machines: list[Machine], server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    one, two = machines
    tasks = [asyncio.create_task(machine.redis.run()) for machine in machines]
    try:
        one.decisions.record(KILL)
        assert await two.stopped("r1") < 1.0
        server.stop()
        while not (one.redis.away and two.redis.away):
            await asyncio.sleep(0.01)
        two.decisions.record(Decision(Kind.KILL, Scope.RUN, "r2", at=time.time_ns()))
        assert await two.stopped("r2") < 1.0  # where it was decided it holds all the same
        assert ("run", "r1") in two.worker.stops
        server.start()  # empty: all that it held is lost
        await one.stopped("r2")
        assert caplog.text.count("are not exchanged") == 2
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_log_that_ends_before_our_place_is_read_from_its_beginning(
    machines: list[Machine], server: RedisServer
) -> None:
    one, two = machines
    for machine in machines:
        machine.redis._exchange.take([], f"{2**60}-0")  # as if the clock of the former server had run ahead
    one.decisions.record(KILL)
    assert await one.redis.turn(1) == 1
    for machine in machines:
        machine.redis._exchange.take([], f"{2**60}-0")
    assert await two.redis.turn(1) == 1
    two.worker.refresh()
    assert ("run", "r1") in two.worker.stops
    assert await one.redis.turn(1) == 0


async def test_what_an_older_snapshot_has_not_is_told_again(machines: list[Machine], server: RedisServer) -> None:
    one, two = machines
    one.decisions.record(Decision(Kind.KILL, Scope.RUN, "r0", at=time.time_ns()))
    await one.redis.turn(1)
    await two.redis.turn(1)
    server.ask("SAVE")
    one.decisions.record(KILL)
    assert await one.redis.turn(1) == 1
    server.stop()
    server.start()
    assert await one.redis.turn(1) == 0
    assert await two.redis.turn(1) == 1
    two.worker.refresh()
    assert set(two.worker.stops) == {("run", "r0"), ("run", "r1")}


async def test_every_machine_tells_a_log_that_was_lost_its_own(
    machines: list[Machine], server: RedisServer, tmp_path: Path
) -> None:
    """Also those that find something in it, which others told before."""
    for number, machine in enumerate(machines):
        machine.decisions.record(Decision(Kind.KILL, Scope.RUN, f"r{number}", at=time.time_ns()))
        await machine.redis.turn(1)
    server.ask("FLUSHALL")
    for machine in machines:
        await machine.redis.turn(1)
    third = Machine(tmp_path / "three", server.url)
    machines.append(third)
    assert await third.redis.turn(1) == 2
    third.worker.refresh()
    assert set(third.worker.stops) == {("run", "r0"), ("run", "r1")}


async def test_what_was_told_and_not_read_back_is_told_again(
    machines: list[Machine], server: RedisServer, tmp_path: Path
) -> None:
    """The server goes down behind its answer, or the recorder, too."""
    one, two = machines
    one.decisions.record(KILL)
    await one.redis._tell()
    server.ask("FLUSHALL")
    assert await one.redis.turn(1) == 0
    await one.redis._tell()
    server.ask("FLUSHALL")
    again = Machine(tmp_path / "one", server.url)
    machines.append(again)
    assert await again.redis.turn(1) == 1
    assert await two.redis.turn(1) == 1


async def test_what_is_no_entry_is_left_out(machines: list[Machine], server: RedisServer) -> None:
    one, two = machines
    client = Redis.from_url(server.url)
    await client.xadd(one.redis.key, {"entry": b"[1"})
    await client.xadd(one.redis.key, {"other": b"x"})
    await client.aclose()
    one.decisions.record(KILL)
    assert await one.redis.turn(1) == 1
    assert await two.redis.turn(1) == 1


async def test_a_key_of_another_kind_is_an_error_not_an_end(machines: list[Machine], server: RedisServer) -> None:
    client = Redis.from_url(server.url)
    await client.set(machines[0].redis.key, b"x")
    await client.aclose()
    machines[0].decisions.record(KILL)
    with pytest.raises(RedisError):
        await machines[0].redis.turn(1)
