"""A process full of clients of one budget: `python redis_hammer.py URL STATE METER LIMIT CLIENTS`.

Every call reserves 100, costs between 10 and 100, and what it costs is written to METER before it is settled: that file
is the judge. They go on until standard input ends; then the process says on stdout how many calls were granted, and
leaves in order.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

import uvloop

from gateway.config.schema import Spending
from gateway.errors import BudgetsUnavailable
from gateway.spend import Charge, Demand, Grant, Rule, Unit
from gateway.stores.redis_budgets import RedisBudgets

WORST = 100


async def client(store: RedisBudgets, meter: int, limit: int, over: asyncio.Event, rng: random.Random) -> int:
    granted = 0
    while not over.is_set():
        op = f"{rng.getrandbits(64):x}"
        demands = [
            Demand("team:a|usd|day|2026-11-27", Rule.TOTAL, Unit.USD, WORST, limit),
            Demand("global|usd|life", Rule.TOTAL, Unit.USD, WORST, 10**12),
            Demand("global|calls", Rule.SLOTS, Unit.CONCURRENCY, 1, 10**6),
        ]
        try:
            answer = await store.reserve(op, demands)
        except BudgetsUnavailable:
            await asyncio.sleep(0.02)
            continue
        if not isinstance(answer, Grant):
            await store.freed(0.05)
            continue
        granted += 1
        cost = rng.randrange(10, WORST + 1)
        os.write(meter, b"%d\n" % cost)  # from here on the provider has been paid
        await asyncio.sleep(rng.random() * 0.02)
        store.settle(op, Charge(usd=cost))
        if rng.random() < 0.1:
            store.settle(op, Charge(usd=cost))
    return granted


async def main(url: str, state: str, meter: str, limit: str, clients: str) -> None:
    settings = Spending(redis=url, timeout=0.25, lease_seconds=2)
    store = RedisBudgets(settings, Path(state), learn=5, grace=0.6)
    assert await store.ready(60)
    ticking = asyncio.create_task(tick(store))
    fd = os.open(meter, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    print("ready", flush=True)
    rng, over = random.Random(os.getpid()), asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), over.set)
    granted = await asyncio.gather(*(client(store, fd, int(limit), over, rng) for _ in range(int(clients))))
    asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
    assert await store.ready(60)
    await store.applied()
    assert not store.holds
    ticking.cancel()
    await store.close()
    print(sum(granted), flush=True)


async def tick(store: RedisBudgets) -> None:
    while True:
        store.tick()
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
