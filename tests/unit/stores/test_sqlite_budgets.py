"""SqliteBudgets: the contract of every store, and what only a file can suffer."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import BudgetsUnavailable
from gateway.spend import Charge, Demand, Grant, Level, Rule, Unit
from gateway.stores import budget_file, sqlite_budgets
from gateway.stores.budget_reader import BudgetReader
from gateway.stores.sqlite_budgets import SqliteBudgets
from tests.unit.stores.budgets_contract import SECOND, BudgetsContract, granted, rate, refused, stands

START = 1_795_384_800 * SECOND


class SqliteKit:
    """Workers over one file, with clocks that stand still."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wall, self.mono = START, 50 * SECOND
        self.workers: list[SqliteBudgets] = []

    async def worker(self, on_dead: str = "charge") -> SqliteBudgets:
        store = SqliteBudgets(
            self.path,
            f"w{len(self.workers)}",
            charge_dead=on_dead == "charge",
            clock=lambda: self.wall,
            monotonic=lambda: self.mono,
        )
        self.workers.append(store)
        return store

    async def applied(self, worker: SqliteBudgets) -> None:
        await worker.applied()

    async def abandon(self, worker: SqliteBudgets) -> None:
        """It is not ticked any more."""

    async def expire(self, survivor: SqliteBudgets) -> None:
        for _ in range(3):
            await self.advance(6)
            survivor.tick()
            await survivor.applied()

    async def level(self, account: str) -> Level | None:
        found = BudgetReader(self.path, clock=self.now).levels([account])
        return Level(account, *(getattr(found[0], name) for name in LEVEL)) if found else None

    async def adjust(self, worker: SqliteBudgets, id: str, account: str, delta: int) -> None:
        await worker.adjust(id, account, delta, "because", "somebody")

    async def advance(self, seconds: float) -> None:
        self.wall += round(seconds * SECOND)
        self.mono += round(seconds * SECOND)

    def now(self) -> int:
        return self.wall


LEVEL = ("limit", "spent", "reserved", "resets_at")


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[SqliteKit]:
    kit = SqliteKit(tmp_path / "budgets.sqlite")
    yield kit
    for worker in kit.workers:
        worker.close()


class TestContract(BudgetsContract):
    """Everything in budgets_contract."""


# -- what only a file can suffer ----------------------------------------------------------------------------------


def usd(account: str, amount: int, limit: int = 100, **rest: int) -> Demand:
    return Demand(account, Rule.TOTAL, Unit.USD, amount, limit, **rest)


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(path)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


async def test_what_arrives_in_one_turn_is_one_transaction(kit: SqliteKit) -> None:
    store = await kit.worker()
    await granted(store, "first", usd("x", 1))
    statements: list[str] = []
    store._file.connect().set_trace_callback(statements.append)
    answers = await asyncio.gather(*(store.reserve(f"op{n}", [usd("x", 9), usd("y", 9)]) for n in range(20)))
    assert sum(isinstance(answer, Grant) for answer in answers) == 11
    assert [s for s in statements if s in ("BEGIN IMMEDIATE", "COMMIT")] == ["BEGIN IMMEDIATE", "COMMIT"]
    assert sum(s.startswith("UPDATE accounts") or "INTO accounts" in s for s in statements) == 2


async def test_refusals_alone_write_nothing(kit: SqliteKit) -> None:
    store = await kit.worker()
    await granted(store, "a", usd("x", 90))
    log = kit.path.with_name(kit.path.name + "-wal")
    size = log.stat().st_size
    for n in range(50):
        await refused(store, f"op{n}", usd("x", 20), usd("never", 1))
    assert log.stat().st_size == size


async def test_a_clock_set_back_reopens_nothing_and_rates_still_drain(kit: SqliteKit) -> None:
    store = await kit.worker()
    rolling = Demand("r", Rule.ROLLING, Unit.USD, 100, 100, period=3600 * SECOND)
    await granted(store, "a", rolling, rate("rpm", 60, 60, period=60 * SECOND))
    store.settle("a", Charge(usd=100, calls=60))
    await store.applied()
    kit.wall -= 7200 * SECOND
    first = await refused(store, "b", rolling)
    other = await kit.worker()
    assert (await refused(other, "b", rolling)).at >= first.at
    assert (await refused(other, "b", rate("rpm", 1, 60, period=60 * SECOND))).retry_after > 0
    kit.mono += 10 * SECOND
    later = await refused(other, "b", rolling)
    assert later.at == first.at + 5 * SECOND  # half speed, until the machine's clock is there again
    assert later.retry_after < first.retry_after
    await granted(other, "c", rate("rpm", 5, 60, period=60 * SECOND))
    kit.wall += 7300 * SECOND
    assert (await refused(other, "d", rolling)).at == kit.wall


async def test_a_reserve_that_was_cancelled_holds_nothing(kit: SqliteKit) -> None:
    store = await kit.worker()
    early = asyncio.ensure_future(store.reserve("early", [usd("x", 60)]))
    await asyncio.sleep(0)
    early.cancel()
    late = asyncio.ensure_future(store.reserve("late", [usd("y", 60)]))
    await asyncio.sleep(0)
    while not store._file.book.holds:
        store._flush()  # granted, but its caller has not run since
    late.cancel()
    for task in (early, late):
        with pytest.raises(asyncio.CancelledError):
            await task
    await store.applied()
    assert await stands(kit, "x") == (0, 0)
    assert await stands(kit, "y") == (0, 0)
    store.settle("late", Charge(usd=7))  # it had cost something after all
    store.settle("late", Charge(usd=7))
    await store.applied()
    assert await stands(kit, "y") == (7, 0)


async def test_an_operation_that_another_worker_holds_is_replaced_too(kit: SqliteKit) -> None:
    first, second = await kit.worker(), await kit.worker()
    await granted(first, "op", usd("x", 60))
    await granted(second, "op", usd("x", 100), usd("y", 5))  # fits only in the place of the other
    assert await stands(kit, "x") == (0, 100)
    await granted(first, "op", usd("x", 40))
    await granted(second, "op", usd("x", 50))  # fits beside it too, but replaces it
    assert await stands(kit, "x") == (0, 50)
    assert await stands(kit, "y") == (0, 0)
    first.settle("op", Charge(usd=30))
    await first.applied()
    second.settle("op", Charge(usd=30))
    await second.applied()
    assert await stands(kit, "x") == (30, 0)


async def test_a_locked_file_is_waited_for_without_holding_the_loop(
    kit: SqliteKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await kit.worker()
    await granted(store, "a", usd("x", 10))
    db = sqlite3.connect(kit.path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    waiting = asyncio.ensure_future(store.reserve("b", [usd("x", 10)]))
    store.settle("a", Charge(usd=3))
    for _ in range(100):
        await asyncio.sleep(0)
    assert not waiting.done()
    db.execute("COMMIT")
    async with asyncio.timeout(5):
        assert isinstance(await waiting, Grant)
    assert await stands(kit, "x") == (3, 10)

    db.execute("BEGIN IMMEDIATE")
    store.settle("b", Charge(usd=4))
    waiting = asyncio.ensure_future(store.reserve("c", [usd("x", 10)]))
    await asyncio.sleep(0.01)
    kit.mono += 3 * SECOND  # longer than it waits
    async with asyncio.timeout(5):
        with pytest.raises(BudgetsUnavailable, match="locked"):
            await waiting
    assert store.waiting == 1  # the settle stays
    db.execute("COMMIT")
    db.close()
    await store.applied()
    assert await stands(kit, "x") == (7, 0)
    assert store.lost == 0


async def test_a_full_disk_refuses_and_forgets_no_settle(kit: SqliteKit) -> None:
    store = await kit.worker()
    await granted(store, "a", usd("x", 60))

    async def fill() -> None:
        for n in range(200):
            await store.reserve(f"op{n}" + "x" * 300, [usd(f"account{n}" + "y" * 300, 1)])

    pages = store._file.connect().execute("PRAGMA page_count").fetchone()[0]
    store._file.connect().execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(BudgetsUnavailable, match="full"):
        await fill()
    with pytest.raises(BudgetsUnavailable):
        await store.reserve("again", [usd("x", 1)])
    store.settle("a", Charge(usd=45))
    kit.mono += SECOND
    store.tick()
    await store.applied()
    assert await stands(kit, "x") == (45, 0)


async def test_a_file_that_may_not_be_written_refuses_until_it_may(kit: SqliteKit) -> None:
    store = await kit.worker()
    await granted(store, "a", usd("x", 60))
    store.settle("a", Charge(usd=20))
    store._file.connect().execute("PRAGMA query_only = ON")
    with pytest.raises(BudgetsUnavailable, match="readonly"):
        await store.reserve("b", [usd("x", 1)])
    assert store.waiting == 1
    kit.mono += SECOND
    await granted(store, "b", usd("x", 80))  # it was opened anew
    assert await stands(kit, "x") == (20, 80)


@pytest.mark.parametrize("content", [b"this is no database" * 300, b""])
async def test_a_damaged_file_is_not_replaced(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state" / "budgets.sqlite"
    path.parent.mkdir()
    path.write_bytes(content)
    store = SqliteBudgets(path, "w")
    if content:
        with pytest.raises(BudgetsUnavailable, match="not a database"):
            await store.reserve("a", [usd("x", 1)])
        store.settle("b", Charge())
        store.tick()
        await asyncio.sleep(0.05)
        store.close()
        assert path.read_bytes() == content
        assert store.lost == 1
        with pytest.raises(BudgetsUnavailable):
            BudgetReader(path).under()
    else:
        await granted(store, "a", usd("x", 1))
        store.close()


async def test_a_file_of_another_version_is_not_touched(kit: SqliteKit) -> None:
    db = sqlite3.connect(kit.path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    store = await kit.worker()
    with pytest.raises(BudgetsUnavailable, match="another version"):
        await store.reserve("a", [usd("x", 1)])
    assert BudgetReader(kit.path).under() == []


async def test_the_file_is_private(kit: SqliteKit) -> None:
    await granted(await kit.worker(), "a", usd("x", 1))
    assert kit.path.stat().st_mode & 0o077 == 0


async def test_more_settles_than_can_wait_are_counted(kit: SqliteKit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_budgets, "QUEUED", 10)
    store = await kit.worker()
    await granted(store, "a", usd("x", 1))
    store._file.connect().execute("PRAGMA query_only = ON")
    for n in range(25):
        store.settle(f"op{n}", Charge())
    with pytest.raises(BudgetsUnavailable):
        await store.reserve("b", [usd("x", 1)])
    assert (store.waiting, store.lost) == (10, 15)


async def test_closing_writes_what_waits_and_gives_the_rest_to_the_others(kit: SqliteKit) -> None:
    store, other = await kit.worker(), await kit.worker()
    await granted(store, "a", usd("x", 40))
    await granted(store, "b", usd("x", 50))
    store.settle("a", Charge(usd=5))
    store.close()
    assert await stands(kit, "x") == (5, 50)
    other.tick()
    await other.applied()
    assert await stands(kit, "x") == (55, 0)
    assert other.expired == 1
    store.close()


async def test_a_machine_that_was_started_again_finds_the_dead(kit: SqliteKit) -> None:
    kit.mono = 10**6 * SECOND
    await granted(await kit.worker(), "a", usd("x", 40))
    kit.mono = 5 * SECOND
    after = await kit.worker()
    after.tick()
    await after.applied()
    assert await stands(kit, "x") == (40, 0)


async def test_what_is_over_is_forgotten_and_what_is_not_is_kept(kit: SqliteKit) -> None:
    store = await kit.worker()
    day = 86_400 * SECOND
    window = {"since": START, "until": START + 3600 * SECOND}
    demands = [usd("key:k|usd|hour|1", 1, **window), usd("run:r|usd|life", 1), usd("team:t|usd|life", 1)]
    held = usd("key:k|usd|hour|2", 1, **window)
    await granted(store, "a", *demands, rate("key:k|calls|rpm", 1, 60))
    await granted(store, "b", held)
    store.settle("a", Charge(usd=1))

    async def names() -> list[str]:
        for _ in range(sqlite_budgets.PRUNE_EVERY):
            store.tick()
            await store.applied()
        return sorted(name for (name,) in rows(kit.path, "SELECT name FROM accounts"))

    assert len(await names()) == 5
    await kit.advance(0.9 * 86_400)
    assert len(await names()) == 5
    await kit.advance(2 * 86_400)
    assert await names() == ["key:k|calls|rpm", held.account, "run:r|usd|life", "team:t|usd|life"]
    await granted(store, "c", demands[1])
    store.settle("c", Charge(usd=1))
    await store.applied()
    await kit.advance(29 * 86_400)
    assert await names() == [held.account, "run:r|usd|life", "team:t|usd|life"]
    kit.wall += 2 * day
    assert await names() == [held.account, "team:t|usd|life"]
    assert (await granted(store, "d", demands[2])).levels[0].spent == 1


async def test_pruning_goes_through_any_number_of_accounts(kit: SqliteKit) -> None:
    store = await kit.worker()
    until = START + 60 * SECOND
    demands = [usd(f"key:{n:05}", 1, since=START, until=until) for n in range(500)]
    await granted(store, "a", *demands)
    store.settle("a", Charge(usd=1))
    await store.applied()
    await kit.advance(3 * 86_400)
    for _ in range(sqlite_budgets.PRUNE_EVERY * 4):
        store.tick()
        await store.applied()
    assert rows(kit.path, "SELECT count(*) FROM accounts") == [(0,)]


async def test_a_reader_sees_windows_labels_and_adjustments(kit: SqliteKit) -> None:
    reader = BudgetReader(kit.path, kit.now)
    assert reader.under() == []
    store = await kit.worker()
    named = Demand("team:a|usd|day", Rule.TOTAL, Unit.USD, 5, 100, START, START + SECOND, label="team a, per day")
    rolling = Demand("team:b|usd|rolling", Rule.ROLLING, Unit.USD, 5, 100, period=60 * SECOND)
    await granted(store, "a", named, rolling, rate("key:c|calls|rpm", 5, 60, period=60 * SECOND))
    store.settle("a", Charge(usd=5, calls=5))
    await store.adjust("id1", "team:a|usd|day", -3, "a refund", "ops")
    (first,) = reader.levels(["team:a|usd|day", "team:unheard"])
    assert (first.rule, first.unit, first.limit, first.spent, first.reserved) == (Rule.TOTAL, Unit.USD, 100, 2, 0)
    assert (first.since, first.until, first.resets_at, first.label) == (
        START,
        START + SECOND,
        START + SECOND,
        named.label,
    )
    assert [standing.account for standing in reader.under("team:")] == ["team:a|usd|day", "team:b|usd|rolling"]
    assert reader.under("key:")[0].spent == 5
    await kit.advance(62)
    assert reader.under("key:")[0].spent == 0
    assert reader.levels([rolling.account])[0].spent == 0
    (note,) = reader.adjustments()
    assert (note.id, note.account, note.delta, note.reason, note.who) == ("id1", first.account, -3, "a refund", "ops")
    await granted(store, "s", Demand("busy", Rule.SLOTS, Unit.CONCURRENCY, 1, 5))
    with pytest.raises(ValueError, match="under way"):
        await store.adjust("id2", "busy", 1, "", "")


async def test_many_accounts_do_not_stay_in_memory(kit: SqliteKit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_file, "CACHED", 50)
    store = await kit.worker()
    for n in range(300):
        await granted(store, f"op{n}", usd(f"run:{n}", 1), usd("all", 1, 1000))
        store.settle(f"op{n}", Charge(usd=1))
    await store.applied()
    assert len(store._file.book.accounts) <= 53
    assert store._file.book.holds == {}
    assert await stands(kit, "all") == (300, 0)


def test_the_log_is_copied_back_while_others_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_file, "LOG_BYTES", 50_000)
    monkeypatch.setattr(budget_file, "LOG_LIMIT", 100_000)
    path = tmp_path / "budgets.sqlite"

    async def work() -> int:
        store = SqliteBudgets(path, "w")
        most = 0
        for n in range(300):
            await granted(store, f"op{n}", usd(f"run:{n}", 1), usd("all", 1, 1000))
            store.settle(f"op{n}", Charge(usd=1))
            if n % 10 == 0:
                store.tick()
                await store.applied()
                while store._copying is not None and not store._copying.done():
                    await asyncio.sleep(0.001)
            most = max(most, path.with_name(path.name + "-wal").stat().st_size)
        store.close()
        return most

    assert asyncio.run(work()) < 600_000
    assert BudgetReader(path).levels(["all"])[0].spent == 300


async def test_a_fault_of_the_gateway_fails_the_batch_and_not_the_store(kit: SqliteKit) -> None:
    store = await kit.worker()
    await granted(store, "a", usd("x", 1))
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    with pytest.raises(BudgetsUnavailable, match="fault"):
        await store.reserve("b", [usd("x", "much")])  # type: ignore[arg-type]
    assert isinstance(faults[0]["exception"], TypeError)
    await granted(store, "c", usd("x", 99))


def test_workers_that_start_at_once_make_one_file(tmp_path: Path) -> None:
    path = tmp_path / "budgets.sqlite"
    stores = [SqliteBudgets(path, f"w{n}") for n in range(6)]

    async def first_call(store: SqliteBudgets) -> bool:
        try:
            return isinstance(await store.reserve(store._owner, [usd("x", 30)]), Grant)
        finally:
            store.close()

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda store: asyncio.run(first_call(store)), stores))
    assert sum(answers) == 3
    assert BudgetReader(path).levels(["x"])[0].reserved == 90


async def test_what_is_given_back_before_the_wait_begins_ends_it(kit: SqliteKit) -> None:
    store = await kit.worker()
    await granted(store, "a", usd("x", 100), usd("y", 100))
    assert (await refused(store, "b", usd("x", 50))).pending
    store.settle("a", Charge())
    await refused(store, "c", usd("y", 101))  # another caller's refusal comes in between
    async with asyncio.timeout(5):
        await store.freed(60)


async def test_what_expired_does_not_stay_in_memory(kit: SqliteKit) -> None:
    dead, alive = await kit.worker(), await kit.worker()
    for n in range(20):
        await granted(dead, f"op{n}", usd("x", 1))
    await kit.expire(alive)
    assert alive.expired == 20
    assert alive._file.book.holds == {}
