"""`python -m tests.bench.goodput [--calls N] [--at-once N] [--seeds N]`: calls refused that could have been let in.

A budget is held by worst cases, which are mostly more than calls cost: while they are under way, others may be refused
that would have fitted. An oracle that knows what each call will really cost lets calls in by their order of arrival
while the sum fits. Counted is what it would have let in and the gateway refused, for each way to treat what does not
fit: `refuse`, `clamp` (a shorter answer), `queue` (wait for others to settle), for budgets of different size. A real
gateway and an upstream that keeps its own books; each call asks for far more than it uses, as agents do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from dataclasses import dataclass
from typing import Any

from gateway.testing.gateway import RunningGateway
from tests.e2e.judge import INPUT_PICO, MODEL, OUTPUT_PICO, PRICES, Judge, prompt_tokens

MANNERS = ("refuse", "clamp", "queue")
SHARES = (0.5, 1.0, 1.05, 1.5)  # of what all calls together really cost
ASKED = 800  # tokens of output that each call asks for at most
QUEUE_SECONDS = 20
HEAD = (
    "| on_exceed | budget / true cost | calls | oracle lets in | let in | refused though it fits | of the oracle's "
    "| answers cut short | spent at most | slowest, s |\n|---|---|---|---|---|---|---|---|---|---|"
)


class Knowing(Judge):
    """Makes as many tokens as the request itself says, or as it is allowed."""

    def output(self, body: dict[str, Any]) -> int:
        return min(int(body["metadata"]["output"]), int(body["max_tokens"]))


@dataclass
class Asked:
    body: dict[str, Any]
    pico: int  # what it really costs, when it is not cut short
    status: int = 0
    seconds: float = 0.0
    short: bool = False  # its answer was cut below what it would have been


def plan(seed: int, count: int) -> list[Asked]:
    """Calls with answers of very different length: most are short, some long."""
    rng = random.Random(f"goodput/{seed}")
    found = []
    for number in range(count):
        output = min(ASKED, max(1, int(rng.lognormvariate(4.6, 0.9))))
        text = " ".join(rng.choice(("plan", "tool", "budget", "agent")) for _ in range(rng.randint(5, 200)))
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": ASKED,
            "user": f"{seed}/{number}",
            "metadata": {"output": str(output)},
        }
        found.append(Asked(body, prompt_tokens(body) * INPUT_PICO + output * OUTPUT_PICO))
    return found


def oracle(calls: list[Asked], limit: int) -> set[int]:
    """The calls that whoever knows their costs lets in, one after another."""
    spent, found = 0, set()
    for number, call in enumerate(calls):
        if spent + call.pico <= limit:
            spent += call.pico
            found.add(number)
    return found


async def ask(port: int, prefix: str, call: Asked) -> None:
    data = json.dumps(call.body).encode()
    head = f"POST {prefix}/v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-type: application/json\r\n"
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{head}connection: close\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data)
        raw = await reader.read(-1)
    finally:
        writer.close()
    call.status, call.seconds = int(raw[9:12]), time.monotonic() - began
    if call.status == 200:
        made = json.loads(raw.partition(b"\r\n\r\n")[2])["usage"]["completion_tokens"]
        call.short = made < int(call.body["metadata"]["output"])


async def crowd(port: int, prefix: str, calls: list[Asked], at_once: int) -> None:
    """So many calls at once, in their order."""
    waiting = iter(calls)

    async def client() -> None:
        for call in waiting:
            await ask(port, prefix, call)

    await asyncio.gather(*(client() for _ in range(at_once)))


@dataclass
class Found:
    manner: str
    share: float
    calls: int = 0
    let_in: int = 0
    oracle: int = 0
    missed: int = 0  # refused, though the oracle let it in
    short: int = 0
    spent: float = 0.0  # largest share of the budget, by the upstream's books
    slowest: float = 0.0

    def __str__(self) -> str:
        return (
            f"| {self.manner} | {self.share:g} | {self.calls} | {self.oracle} | {self.let_in} | {self.missed} "
            f"| {self.missed / max(1, self.oracle):.1%} | {self.short} | {self.spent:.1%} | {self.slowest:.2f} |"
        )


async def measure(manner: str, judge: Knowing, *, count: int, at_once: int, seeds: int) -> list[Found]:
    upstream = {"openai": {"dialect": "openai", "url": judge.url, "provider": "openai"}}
    found = []
    async with RunningGateway(
        upstream,
        prices=PRICES,
        runs={"budget_usd": 1000, "on_exceed": manner},
        spending={"queue_seconds": QUEUE_SECONDS, "clamp_floor": 16},
        telemetry={"log": None},
    ) as gate:
        port = int(gate.config["listen"].rpartition(":")[2])
        for share in SHARES:
            row = Found(manner, share)
            for seed in range(seeds):
                await one(row, seed, judge, port, count, at_once)
            found.append(row)
    return found


async def one(row: Found, seed: int, judge: Knowing, port: int, count: int, at_once: int) -> None:
    calls = plan(seed, count)
    judge.bills.clear()
    limit = int(sum(call.pico for call in calls) * row.share)
    usd = f"{limit / 1e12:.9f}"
    await crowd(port, f"/budget/{usd}/run/{row.manner}-{row.share:g}-{seed}", calls, at_once)
    await judge.quiet()
    right = oracle(calls, limit)
    row.calls += count
    row.oracle += len(right)
    row.let_in += sum(call.status == 200 for call in calls)
    row.missed += sum(calls[number].status != 200 for number in right)
    row.short += sum(call.short for call in calls)
    row.spent = max(row.spent, sum(bill.pico for bill in judge.bills.values()) / limit)
    row.slowest = max(row.slowest, *(call.seconds for call in calls))


async def run(count: int, at_once: int, seeds: int) -> list[Found]:
    found = []
    async with Knowing(1, delay=0.04, faults=0) as judge:
        for manner in MANNERS:
            found += await measure(manner, judge, count=count, at_once=at_once, seeds=seeds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.goodput", description=__doc__)
    parser.add_argument("--calls", type=int, default=200, help="of each run")
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5, help="runs of each kind")
    options = parser.parse_args()
    print(HEAD)
    for row in asyncio.run(run(options.calls, options.at_once, options.seeds)):
        print(row)


if __name__ == "__main__":
    main()
