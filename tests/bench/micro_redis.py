"""`python -m tests.bench.micro_redis [--calls N]`: reserve and settle in a real redis-server, five scopes each.

Calls per second, microseconds of CPU per call of the worker and of Redis, and how long a reserve takes, at several
numbers of calls at once; all on this machine.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
import time
from pathlib import Path

import uvloop

from gateway.config.schema import Spending
from gateway.spend import Grant
from gateway.stores.redis_budgets import RedisBudgets
from tests.bench.micro_budgets import CHARGE, DAY, demands
from tests.redis_server import RedisServer

AT_ONCE = (1, 16, 64, 256)


def cpu_of(server: RedisServer) -> float:
    """Seconds."""
    lines = str(server.ask("INFO", "cpu")).split("\r\n")
    return sum(float(line.split(":")[1]) for line in lines if line.startswith(("used_cpu_user:", "used_cpu_sys:")))


async def measure(store: RedisBudgets, server: RedisServer, at_once: int, calls: int) -> tuple[float, ...]:
    numbers, waits = iter(range(calls)), []
    since = time.time_ns() // DAY * DAY
    prepared = [demands(n, since) for n in range(calls // 10 + 1)]
    prefix = f"{at_once}-"

    async def client() -> None:
        for n in numbers:
            began = time.perf_counter()
            assert isinstance(await store.reserve(f"{prefix}{n:026x}", prepared[n // 10]), Grant)
            waits.append(time.perf_counter() - began)
            store.settle(f"{prefix}{n:026x}", CHARGE)

    mine, its, began = time.thread_time(), cpu_of(server), time.perf_counter()
    await asyncio.gather(*(client() for _ in range(at_once)))
    await store.applied()
    seconds = time.perf_counter() - began
    waits.sort()
    micros = [(time.thread_time() - mine) / calls * 1e6, (cpu_of(server) - its) / calls * 1e6]
    return (calls / seconds, *micros, waits[calls // 2] * 1e3, waits[calls * 99 // 100] * 1e3)


async def run(calls: int) -> None:
    with tempfile.TemporaryDirectory() as directory, RedisServer() as server:
        store = RedisBudgets(Spending(redis=server.url, timeout=2), Path(directory), grace=0)
        await store.ready(10)
        print("at once  calls/s  worker us  redis us  p50 ms  p99 ms")
        for at_once, some in zip(AT_ONCE, itertools.chain([calls // 4], itertools.repeat(calls)), strict=False):
            rate, mine, its, middle, high = await measure(store, server, at_once, some)
            print(f"{at_once:7}  {rate:7.0f}  {mine:9.0f}  {its:8.0f}  {middle:6.2f}  {high:6.2f}")
        await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--calls", type=int, default=10_000)
    uvloop.run(run(parser.parse_args().calls))


if __name__ == "__main__":
    main()
