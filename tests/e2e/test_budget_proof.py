"""The proof that a budget is not overspent: many clients at once on one run, and the upstream's own books as the judge.

Each seed is a run with a budget for about 40 calls and 500 clients that all want one, in JSON and in streams; they
retry, leave early, and in every tenth seed a worker is killed under them. `make prove` takes 200 seeds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.testing.gateway import RunningGateway
from tests.e2e.judge import INPUT_PICO, MODEL, OUTPUT_PICO, PRICES, Crowd, Judge, Tally
from tests.redis_server import NEEDS_REDIS, RedisServer

SEEDS = int(os.environ.get("TOLLGATE_PROOF_SEEDS", "40"))
CLIENTS = 500
BUDGET_USD = 0.02
BUDGET_PICO = 20_000_000_000
CEILING = 300  # tokens of output that a call without a ceiling of its own is held to
KILLED = 10  # one seed in so many loses a worker
EXPECTED = {"insufficient_quota", "None"}  # refused by the budget; 503 of the upstream
RELEARNING = {"budgets_unavailable"}  # a worker that was started again first tells Redis what it knows
STORES = [
    "sqlite",
    pytest.param("redis", marks=NEEDS_REDIS),
]


@dataclass
class Report:
    seeds: int = 0
    worst: float = 0.0  # largest share of a budget that was spent
    least: float = 1.0
    statuses: Counter[int] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    left: int = 0
    broken: int = 0

    def add(self, tally: Tally, share: float) -> None:
        self.seeds += 1
        self.worst, self.least = max(self.worst, share), min(self.least, share)
        self.statuses.update(tally.statuses)
        self.codes.update(tally.codes)
        self.left += tally.left
        self.broken += tally.broken

    def __str__(self) -> str:
        return (
            f"{self.seeds} budgets, {sum(self.statuses.values())} answers {dict(self.statuses)}, "
            f"{self.left} left early, {self.broken} cut; spent {self.least:.1%} to {self.worst:.1%}"
        )


@contextlib.asynccontextmanager
async def gates(store: str, judge: Judge) -> AsyncIterator[list[RunningGateway]]:
    """One gateway of two workers on SQLite, or two gateways on one Redis."""
    upstreams: dict[str, Any] = {
        "openai": {"dialect": "openai", "url": judge.url, "on_client_gone": "drain", "drain_seconds": 20}
    }
    common: dict[str, Any] = {"prices": PRICES, "runs": {"budget_usd": BUDGET_USD}, "telemetry": {"log": None}}
    async with contextlib.AsyncExitStack() as stack:
        spending: dict[str, Any] = {"output_ceiling": CEILING, "lease_seconds": 2}
        if store == "redis":
            server = stack.enter_context(RedisServer())
            spending |= {"redis": server.url, "timeout": 2}
        count, workers = (2, 1) if store == "redis" else (1, 2)
        running = [
            await stack.enter_async_context(
                RunningGateway(upstreams, spending=spending, workers=workers, stop_seconds=60, **common)
            )
            for _ in range(count)
        ]
        for gate in running:
            await willing(gate)
        yield running


async def willing(gate: RunningGateway) -> None:
    """Until it grants: on a Redis that knows nothing yet, gateways first tell it what they know."""
    crowd = Crowd(0, [port_of(gate)], "/run/first", "first")
    for _ in range(200):
        if (await crowd.run(1)).statuses[200]:
            return
        await asyncio.sleep(0.05)
    raise TimeoutError(crowd.tally)


def is_killed(seed: int) -> bool:
    return seed % KILLED == KILLED - 1


def port_of(gate: RunningGateway) -> int:
    return int(gate.config["listen"].rpartition(":")[2])


def kill_one(gate: RunningGateway, seed: int) -> None:
    workers = gate.pids("gateway.worker")
    if workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(workers[seed % len(workers)], signal.SIGKILL)


async def one(seed: int, running: list[RunningGateway], judge: Judge, *, ceilings: bool, kills: bool) -> Tally:
    crowd = Crowd(seed, [port_of(gate) for gate in running], f"/run/s{seed}", f"s{seed}")
    crowd.give_ceiling = ceilings
    killing = kills and is_killed(seed)
    tally = await crowd.run(CLIENTS, midway=(lambda: kill_one(running[seed % len(running)], seed)) if killing else None)
    await judge.quiet()
    return tally


@pytest.mark.timeout(300 + 15 * SEEDS)
@pytest.mark.parametrize("store", STORES)
async def test_no_seed_overspends_and_the_ledger_says_what_the_upstream_says(
    store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report()
    async with Judge(7) as judge, gates(store, judge) as running:
        for seed in range(SEEDS):
            tally = await one(seed, running, judge, ceilings=True, kills=True)
            bill = judge.bills[f"s{seed}"]
            assert not tally.unexpected
            assert set(tally.codes) <= EXPECTED | (RELEARNING if store == "redis" and is_killed(seed) else set()), tally
            assert bill.pico <= BUDGET_PICO, f"seed {seed}: {bill}, {tally}"
            report.add(tally, bill.pico / BUDGET_PICO)
        await asyncio.to_thread(same_books, running, judge)
    with capsys.disabled():
        print(f"\n{store}: {report}")
    assert report.statuses[200] > SEEDS * 15
    assert report.statuses[402] > SEEDS


def same_books(running: list[RunningGateway], judge: Judge) -> None:
    """Ledger and meter agree to the micro-dollar on every run in which no worker was killed."""
    for seed in range(SEEDS):
        if is_killed(seed):
            continue
        bill = judge.bills[f"s{seed}"]

        def cost(seed: int = seed) -> float:
            return sum(run_cost(gate, f"s{seed}") for gate in running)

        running[0].until(cost, lambda found, bill=bill: abs(found - bill.pico / 1e12) < 1e-6, seconds=20)


def run_cost(gate: RunningGateway, run: str) -> float:
    if gate.status(f"/api/runs/{run}") != 200:
        return 0.0
    return float(gate.get(f"/api/runs/{run}")["cost_usd"] or 0.0)


@pytest.mark.timeout(300 + 3 * SEEDS)
@pytest.mark.parametrize("store", STORES)
async def test_without_ceilings_at_most_one_call_more_is_spent(store: str) -> None:
    async with Judge(8) as judge, gates(store, judge) as running:
        one_call = 200 * INPUT_PICO + 400 * OUTPUT_PICO  # the largest that the judge makes
        for seed in range(1000, 1000 + max(3, SEEDS // 20)):
            tally = await one(seed, running, judge, ceilings=False, kills=False)
            bill = judge.bills[f"s{seed}"]
            assert bill.pico <= BUDGET_PICO + one_call, f"seed {seed}: {bill}, {tally}"
            assert bill.calls > 5
            assert MODEL
