"""`python -m tests.bench.micro_budgets [--rounds N]`: microseconds per reserve and settle, with five scopes each.

One worker alone with its file: a call reserves in five accounts (of the whole, its team, its key, a request rate, and
a run of its own), another turn of the loop passes, and it settles. `batch` is how many calls arrive in one turn.
CPU time of the loop's thread; the copying back of the log, in another thread, is not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import uvloop

from gateway.spend import Charge, Demand, Grant, Rule, Unit
from gateway.stores.sqlite_budgets import SqliteBudgets

BATCHES = (1, 8, 32)
CALLS = 1600
ROUNDS = 7
DAY = 86_400 * 10**9
MICRO_USD = 1000
CHARGE = Charge(usd=4_200_000, tokens=1900)


def demands(run: int, since: int) -> list[Demand]:
    def usd(account: str, until: int = 0) -> Demand:
        return Demand(account, Rule.TOTAL, Unit.USD, 9_000_000, 10**15, since if until else 0, until, label=account)

    return [
        usd("global|usd|day|2026-11-27", since + DAY),
        usd("team:payments|usd|day|2026-11-27", since + DAY),
        usd("key:tg_4f9a1c2e|usd|month|2026-11", since + 30 * DAY),
        Demand(
            "key:tg_4f9a1c2e|calls|rpm", Rule.RATE, Unit.CALLS, 1, 10**6, period=60 * 10**9, burst=10**6, label="rpm"
        ),
        usd(f"run:{run:032x}|usd|life"),
    ]


async def call(store: SqliteBudgets, op: str, asked: list[Demand]) -> None:
    answer = await store.reserve(op, asked)
    assert isinstance(answer, Grant)
    await asyncio.sleep(0)
    store.settle(op, CHARGE)


async def measure(store: SqliteBudgets, batch: int, numbers: itertools.count[int]) -> float:
    """Microseconds per call; each has a run in its tenth call, as agents do."""
    since = time.time_ns() // DAY * DAY
    work = [(f"{n:032x}", demands(n // 10, since)) for n in itertools.islice(numbers, CALLS)]
    started = time.thread_time_ns()
    for group in range(0, CALLS, batch):
        await asyncio.gather(*(call(store, op, asked) for op, asked in work[group : group + batch]))
    await store.applied()
    return (time.thread_time_ns() - started) / CALLS / 1000


async def bare(batch: int) -> float:
    """The same without a store: tasks, futures, turns of the loop."""

    async def nothing() -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future
        await asyncio.sleep(0)

    started = time.thread_time_ns()
    for _ in range(0, CALLS, batch):
        await asyncio.gather(*(nothing() for _ in range(batch)))
    return (time.thread_time_ns() - started) / CALLS / 1000


async def run(rounds: int) -> list[tuple[int, float, float]]:
    """Of each size of batch: the median of the store's microseconds per call, and of the loop's own."""
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        for batch in BATCHES:
            store = SqliteBudgets(Path(directory) / f"{batch}.sqlite", "bench")
            numbers = itertools.count()
            await measure(store, batch, numbers)
            times = []
            for _ in range(rounds):
                store.tick()
                times.append(await measure(store, batch, numbers))
            loops = [await bare(batch) for _ in range(rounds)]
            store.close()
            rows.append((batch, statistics.median(times), statistics.median(loops)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    args = parser.parse_args()
    print("batch  us per call  of which the loop")
    for batch, micros, loop in uvloop.run(run(args.rounds)):
        print(f"{batch:5}  {micros:11.1f}  {loop:17.1f}")


if __name__ == "__main__":
    main()
