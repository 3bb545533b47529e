"""SqliteBudgets: the contract of every store, and what only a file can suffer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.spend import Level
from gateway.stores.budget_reader import BudgetReader
from gateway.stores.sqlite_budgets import SqliteBudgets
from tests.unit.stores.budgets_contract import SECOND, BudgetsContract

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
