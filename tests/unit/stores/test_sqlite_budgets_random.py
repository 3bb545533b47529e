"""Random workers over one file, in virtual time: reserving, settling, dying with what they had not written.

What may be said of the money afterwards is known to the nano-dollar for all that was acknowledged, and within the
reserved amount for a settle that died in the memory of its worker.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.spend import Charge, Demand, Grant, Refusal, Rule, Unit
from gateway.stores.budget_reader import BudgetReader
from gateway.stores.sqlite_budgets import SqliteBudgets

SECOND = 10**9
START = 1_795_384_800 * SECOND
LIMIT = 1000
NAMES = ("global", "team", "run:1", "run:2")


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="budgets-"))
        self.path = self.directory / "budgets.sqlite"
        self.loop = asyncio.new_event_loop()
        self.wall, self.mono, self.owners = START, SECOND, 0
        self.stores = [self.open(), self.open()]
        self.held: dict[str, tuple[int, list[Demand]]] = {}  # op -> worker, demands
        self.queued: dict[str, tuple[int, list[Demand], int]] = {}  # settled, not known to be written
        self.orphans: list[tuple[str, list[Demand], int | None]] = []  # of dead workers; what was settled in memory
        self.settled: list[tuple[list[Demand], int]] = []
        self.limits = dict.fromkeys(NAMES, LIMIT)
        self.debt = dict.fromkeys(NAMES, 0)
        self.count = 0

    def open(self) -> SqliteBudgets:
        self.owners += 1
        return SqliteBudgets(
            self.path, f"w{self.owners}", clock=lambda: self.wall, monotonic=lambda: self.mono, lease_seconds=15
        )

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def written(self, worker: int) -> None:
        for op, (whose, demands, amount) in list(self.queued.items()):
            if whose == worker:
                self.settled.append((demands, amount))
                del self.queued[op]

    @rule(
        worker=st.integers(0, 1),
        asks=st.lists(
            st.tuples(st.lists(st.sampled_from(NAMES), unique=True, min_size=1), st.integers(0, 400)),
            min_size=1,
            max_size=4,
        ),
    )
    def reserve(self, worker: int, asks: list[tuple[list[str], int]]) -> None:
        """Several in one turn of the loop."""
        batch = []
        for names, amount in asks:
            self.count += 1
            demands = [Demand(name, Rule.TOTAL, Unit.USD, amount, self.limits[name]) for name in names]
            demands.append(Demand("busy", Rule.SLOTS, Unit.CONCURRENCY, 1, 50))
            batch.append((f"op{self.count}", demands))

        async def ask() -> list[Grant | Refusal]:
            return await asyncio.gather(*(self.stores[worker].reserve(*one) for one in batch))

        answers = self.run(ask())
        self.written(worker)  # what was settled before went with it
        for (op, demands), answer in zip(batch, answers, strict=True):
            if isinstance(answer, Grant):
                self.held[op] = (worker, demands)
            else:
                assert answer.level.spent + answer.level.reserved + demands[0].amount > answer.level.limit

    @rule(data=st.data(), percent=st.integers(0, 100), twice=st.booleans())
    def settle(self, data: st.DataObject, percent: int, twice: bool) -> None:
        if not self.held:
            return
        op = data.draw(st.sampled_from(sorted(self.held)))
        worker, demands = self.held.pop(op)
        amount = demands[0].amount * percent // 100
        self.run(self.tell(worker, op, amount, 1 + twice))
        self.queued[op] = (worker, demands, amount)

    async def tell(self, worker: int, op: str, amount: int, times: int) -> None:
        for _ in range(times):
            self.stores[worker].settle(op, Charge(usd=amount))

    @rule(worker=st.integers(0, 1))
    def flush(self, worker: int) -> None:
        self.run(self.stores[worker].applied())
        self.written(worker)

    @rule(worker=st.integers(0, 1))
    def die(self, worker: int) -> None:
        """As by SIGKILL: what was in memory is gone."""
        store = self.stores[worker]
        if store._handle is not None:
            store._handle.cancel()
        store._queue.clear()
        store._file.close()
        self.stores[worker] = self.open()
        for op, (whose, demands) in list(self.held.items()):
            if whose == worker:
                self.orphans.append((op, demands, None))
                del self.held[op]
        for op, (whose, demands, amount) in list(self.queued.items()):
            if whose == worker:
                self.orphans.append((op, demands, amount))
                del self.queued[op]

    @rule(seconds=st.integers(0, 10), back=st.integers(0, 3))
    def pass_time(self, seconds: int, back: int) -> None:
        """The clock of the machine may be set back; every living worker ticks in time."""
        self.wall += seconds * SECOND - back * 3600 * SECOND
        self.mono += seconds * SECOND
        for worker in (0, 1):
            self.tick(worker)

    def tick(self, worker: int) -> None:
        async def tick() -> None:
            self.stores[worker].tick()
            await self.stores[worker].applied()

        self.run(tick())
        self.written(worker)

    @rule(name=st.sampled_from(NAMES), limit=st.integers(LIMIT, 2 * LIMIT))
    def reload(self, name: str, limit: int) -> None:
        """A raised limit; a lower one could be below what is spent."""
        self.limits[name] = max(limit, self.limits[name])

    @rule()
    def lose_the_cache(self) -> None:
        for store in self.stores:
            store._file.close()

    @invariant()
    def never_more_than_the_limit(self) -> None:
        for standing in BudgetReader(self.path, lambda: self.wall).levels(NAMES):
            assert standing.spent + standing.reserved <= self.limits[standing.account]
            assert standing.spent >= 0
            assert standing.reserved >= 0

    def teardown(self) -> None:
        try:
            for worker in (0, 1):
                self.flush(worker)
            for _ in range(4):
                self.pass_time(9, 0)
            self.count_up()
        finally:
            for store in self.stores:
                store.close()
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            shutil.rmtree(self.directory)

    def count_up(self) -> None:
        standings = {s.account: s for s in BudgetReader(self.path, lambda: self.wall).under()}
        for name in NAMES:
            least = sum(amount for demands, amount in self.settled if name in {d.account for d in demands})
            most = least
            for _, demands, amount in self.orphans:
                if name in {d.account for d in demands}:
                    least += demands[0].amount if amount is None else amount
                    most += demands[0].amount
            live = sum(d.amount for _, demands in self.held.values() for d in demands if d.account == name)
            if name in standings:
                assert least <= standings[name].spent <= most
                assert standings[name].reserved == live
            else:
                assert (most, live) == (0, 0)
        if "busy" in standings:
            assert standings["busy"].reserved == len(self.held)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
