"""People at the desk and a worker at the same budgets: a file, or a real Redis."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.config.schema import Spending
from gateway.errors import BudgetsUnavailable
from gateway.spend import Charge, Demand, Grant, Refusal, Rule, Unit
from gateway.stores import budget_desk
from gateway.stores.budget_desk import FILE, FileDesk, RedisDesk, desk
from gateway.stores.late import redis_budgets
from gateway.stores.sqlite_budgets import SqliteBudgets
from tests.redis_server import NEEDS_REDIS, RedisServer

HOUR = 3600 * 10**9


@pytest.fixture(params=["file", pytest.param("redis", marks=NEEDS_REDIS)])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Any, Any]]:
    """(a worker, the desk beside it)"""
    if request.param == "file":
        local = SqliteBudgets(tmp_path / FILE, "w0")
        yield local, desk(Spending(), tmp_path)
        local.close()
        return
    settings = Spending(redis=request.getfixturevalue("server").url, timeout=1.0)
    remote = redis_budgets(settings, tmp_path)
    assert await remote.ready(10)
    table = desk(settings, tmp_path)
    assert isinstance(table, RedisDesk)
    yield remote, table
    table.close()
    await remote.close()


def usd(account: str, amount: int = 10, limit: int = 100, **rest: Any) -> Demand:
    return Demand(account, Rule.TOTAL, Unit.USD, amount, limit, label=account.split("|", maxsplit=1)[0], **rest)


async def spend(worker: Any, op: str, *demands: Demand) -> None:
    assert isinstance(await worker.reserve(op, demands), Grant)
    worker.settle(op, Charge(usd=demands[0].amount, tokens=3))
    await worker.applied()


async def test_what_the_desk_adjusts_the_worker_goes_by(place: tuple[Any, Any]) -> None:
    worker, table = place
    account = "team:a|usd|life"
    await spend(worker, "one", usd(account, 90))
    assert isinstance(await worker.reserve("two", [usd(account, 20)]), Refusal)
    level = await table.adjust("gift", account, -50, "sorry", "ann")
    assert level.spent == 40
    assert (await table.adjust("gift", account, -50, "sorry", "ann")).spent == 40  # the same again
    assert isinstance(await worker.reserve("two", [usd(account, 20)]), Grant)
    (standing,) = await asyncio.to_thread(table.levels, [account])
    assert (standing.spent, standing.reserved, standing.limit, standing.label) == (40, 20, 100, "team:a")
    (note,) = await asyncio.to_thread(table.adjustments)
    assert (note.id, note.account, note.delta, note.reason, note.who) == ("gift", account, -50, "sorry", "ann")
    assert abs(note.at - time.time_ns()) < HOUR
    worker.settle("two", Charge(usd=20))
    await worker.applied()
    assert table.levels([account])[0].spent == 60


async def test_what_counts_no_amounts_cannot_be_adjusted(place: tuple[Any, Any]) -> None:
    worker, table = place
    slots = Demand("key:k|concurrency", Rule.SLOTS, Unit.CONCURRENCY, 1, 5)
    await spend(worker, "one", slots)
    if isinstance(table, RedisDesk):  # what an account is, is told to Redis with the next batch
        await spend(worker, "two", slots)
    with pytest.raises(ValueError, match="key:k"):
        await table.adjust("gift", "key:k|concurrency", -1, "", "")
    assert isinstance(await worker.reserve("three", [slots]), Grant)


async def test_accounts_are_listed_page_by_page_and_without_what_is_over(place: tuple[Any, Any]) -> None:
    worker, table = place
    now = time.time_ns()
    over = usd("team:a|usd|hour|1", since=now - 2 * HOUR, until=now - HOUR)
    current = usd("team:a|usd|hour|2", since=now - HOUR, until=now + HOUR)
    names = [f"team:{letter}|usd|life" for letter in "bcd"]
    tokens = Demand("team:e|tokens|life", Rule.TOTAL, Unit.TOKENS, 1, 10)
    demands = [over, current, *map(usd, names), tokens, usd("run:r|usd|life"), usd("upstream:u|usd|life")]
    await spend(worker, "one", *demands)
    await spend(worker, "two", *demands)

    def listed(**query: Any) -> list[str]:
        return [standing.account for standing in table.under("team:", **query)]

    everything = [over.account, current.account, *names, tokens.account]
    assert listed() == everything
    assert listed(over=False) == everything[1:]
    assert listed(limit=2, over=False) == everything[1:3]
    assert listed(limit=2, after=everything[2], over=False) == everything[3:5]
    assert listed(after=everything[-1]) == []
    assert [one.account for one in table.in_money()] == [current.account, *names, "upstream:u|usd|life"]
    assert [one.account for one in table.in_money(2)] == [current.account, names[0]]


async def test_a_file_that_others_write_to_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = SqliteBudgets(tmp_path / FILE, "w0")
    await spend(worker, "one", usd("global|usd|life"))
    worker.close()
    table = FileDesk(tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / FILE, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.2, other.execute, ("COMMIT",))
        timer.start()
        assert (await table.adjust("a", "global|usd|life", 5, "", "")).spent == 15
        timer.join()
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr(budget_desk, "PATIENCE", 0.05)
        with pytest.raises(BudgetsUnavailable):
            await table.adjust("b", "global|usd|life", 5, "", "")
        other.execute("COMMIT")
    assert [note.id for note in table.adjustments()] == ["a"]


@NEEDS_REDIS
async def test_while_redis_is_away_nothing_is_adjusted(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_desk, "PATIENCE", 0.3)
    table = desk(Spending(redis=server.url), tmp_path)
    server.stop()
    with pytest.raises(BudgetsUnavailable):
        await table.adjust("a", "global|usd|life", 5, "", "")
    server.start()
    assert isinstance(table, RedisDesk)
    table.close()
