"""Three real processes on one file, killed in the middle: nothing acknowledged is lost, nothing is spent twice."""

from __future__ import annotations

import asyncio
import multiprocessing
import random
import time
from multiprocessing.connection import Connection
from pathlib import Path

from gateway.spend import Charge, Demand, Grant, Rule, Unit
from gateway.stores.budget_reader import BudgetReader
from gateway.stores.sqlite_budgets import SqliteBudgets

LIMIT = 500_000
WORST = 100
LEASE = 1.0
ROUNDS = 6
STEPS = 800  # told between two kills; all rounds spend less than half of the limit
Told = tuple[str, str, int]


def hammer(path: Path, owner: str, seed: int, tell: Connection) -> None:
    asyncio.run(calls(path, owner, random.Random(seed), tell))


async def calls(path: Path, owner: str, rng: random.Random, tell: Connection) -> None:
    """Tells what was granted, what it will settle, and when a settle is in the file; until it is killed or refused."""
    store = SqliteBudgets(path, owner, lease_seconds=LEASE)
    refused = False

    async def call(op: str) -> None:
        nonlocal refused
        demands = [
            Demand("global", Rule.TOTAL, Unit.USD, WORST, LIMIT),
            Demand(f"worker:{owner}", Rule.TOTAL, Unit.USD, WORST, LIMIT),
            Demand("busy", Rule.SLOTS, Unit.CONCURRENCY, 1, 40),
        ]
        answer = await store.reserve(op, demands)
        if not isinstance(answer, Grant):
            refused = refused or answer.index == 0
            return
        tell.send(("granted", op, WORST))
        await asyncio.sleep(rng.random() * 0.004)
        amount = rng.randrange(WORST + 1)
        tell.send(("settling", op, amount))
        store.settle(op, Charge(usd=amount))
        await store.applied()
        tell.send(("applied", op, amount))

    number, ticked = 0, 0.0
    while not refused:
        if time.monotonic() - ticked > LEASE / 5:
            ticked = time.monotonic()
            store.tick()
        await asyncio.gather(*(call(f"{owner}-{number + n}") for n in range(8)))
        number += 8
    store.close()
    tell.send(("done", "", 0))


def test_killed_workers_lose_and_invent_nothing(tmp_path: Path) -> None:
    path = tmp_path / "budgets.sqlite"
    rng = random.Random(7)
    told: list[Told] = []
    living: dict[str, tuple[multiprocessing.Process, Connection]] = {}
    killed = 0
    context = multiprocessing.get_context("spawn")

    def listen() -> None:
        for _, pipe in living.values():
            try:
                while pipe.poll():
                    told.append(pipe.recv())
            except EOFError:
                continue

    def start(owner: str) -> None:
        here, there = context.Pipe(duplex=False)
        process = context.Process(target=hammer, args=(path, owner, len(owner) + killed, there), daemon=True)
        process.start()
        there.close()
        living[owner] = (process, here)

    for n in range(3):
        start(f"w{n}")
    deadline = time.monotonic() + 100
    while killed < ROUNDS and time.monotonic() < deadline:
        enough = len(told) + rng.randrange(STEPS, 2 * STEPS)
        while len(told) < enough and time.monotonic() < deadline:
            listen()
            time.sleep(0.005)
        victim = rng.choice(sorted(living))
        process, pipe = living[victim]
        process.kill()
        process.join()
        listen()
        del living[victim]
        pipe.close()
        killed += 1
        start(f"w{2 + killed}")
        found = {s.account: s for s in BudgetReader(path).levels(["global"])}
        if found:
            assert found["global"].spent + found["global"].reserved <= LIMIT
    while living and time.monotonic() < deadline:
        listen()
        for owner, (process, _) in list(living.items()):
            if not process.is_alive():
                process.join()
                listen()
                del living[owner]
        time.sleep(0.01)
    assert killed == ROUNDS
    assert not living, "they spend until the budget is used up"
    check(path, told)


def check(path: Path, told: list[Told]) -> None:
    async def bury() -> None:
        """The last look: what the killed ones held is charged."""
        store = SqliteBudgets(path, "undertaker", lease_seconds=LEASE)
        for _ in range(5):
            store.tick()
            await store.applied()
            await asyncio.sleep(LEASE / 3)
        store.close()

    asyncio.run(bury())
    granted = {op for what, op, _ in told if what == "granted"}
    settling = {op: amount for what, op, amount in told if what == "settling"}
    applied = {op: amount for what, op, amount in told if what == "applied"}
    unsure = [op for op in granted if op not in applied]
    standings = {s.account: s for s in BudgetReader(path).under()}
    whole = standings["global"]
    assert whole.spent <= LIMIT
    assert (whole.reserved, standings["busy"].reserved) == (0, 0)
    per_worker = [s for s in standings.values() if s.account.startswith("worker:")]
    assert sum(s.spent for s in per_worker) == whole.spent  # the parts are the whole: no half of an operation
    least = sum(applied.values()) + sum(settling.get(op, WORST) for op in unsure)
    most = sum(applied.values()) + WORST * (len(unsure) + 8 * (ROUNDS + 3))  # granted, but killed before telling
    assert least <= whole.spent <= most
    assert len(applied) > 1000
    clean = [s for s in per_worker if not any(op.startswith(s.account[7:] + "-") for op in unsure)]
    for standing in clean:
        mine = sum(amount for op, amount in applied.items() if op.startswith(standing.account[7:] + "-"))
        assert mine <= standing.spent <= mine + 8 * WORST
