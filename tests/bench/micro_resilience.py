"""`python -m tests.bench.micro_resilience [--rounds N]`: microseconds that resilience costs a call which goes well.

The whole pipeline of a worker without its sockets (as in `micro`), in configurations that take turns: every call one
attempt; as it is without configuration (retries); with a breaker and a chain for every call; with a place in a pool;
with a route, a breaker, a chain and a pool for every call. CPU time of the
thread, of the quickest batch: what others do on the machine only adds to it, and makes it uncertain by some per cent.
Function calls are the same in every run. The bar is half of what nginx takes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gateway.call import Request
from tests.bench.bodies import bodies
from tests.bench.micro import OPENAI_ANSWER, SDK, Bench, Wire, worker_in
from tests.bench.targets import CHAT

BATCH = 50
COUNTED = 200
ROUNDS = 150
BOUND_US = 15.0
ONCE = {"retries": {"attempts": 1}}
CHAIN = {
    "fallbacks": [{"model": "o*", "to": ["anthropic"]}, {"model": "gpt-*", "to": [{"model": "gpt-4.1"}]}],
    "breakers": {"enabled": True, "refuse": True, "slow_seconds": 20},
}

POOL = {
    "priorities": [{"agent": "nightly-*", "priority": "batch"}],
    "bulkheads": {
        "tools": {"upstream": "openai", "agent": "tool-*", "max": 20},
        "agents": {"max": 50, "each": "model"},
    },
    "overload": {"lag_seconds": 1},
}
ROUTED = {"routes": [{"model": "gpt-*", "to": ["gpt-4o-mini", "gpt-4.1-mini"]}]}
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "one attempt": ONCE,
    "retries": {},
    "retries, breaker, chain": CHAIN,
    "retries, pool": POOL,
    "route": ROUTED,
    "all of it": {**CHAIN, **POOL, **ROUTED},
}


def calls_of(work: Callable[[Request], None], requests: Sequence[Request]) -> float:
    """Function calls, those into C too, for each request."""
    count = 0

    def look(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(look)
    try:
        for request in requests:
            work(request)
    finally:
        sys.setprofile(None)
    return count / len(requests)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.micro_resilience", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    body = bodies()["chat_new"]
    with ExitStack() as stack:
        timed = {}
        for name, config in CONFIGS.items():
            place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            worker = stack.enter_context(worker_in(place, limits=config))
            bench = Bench(worker, CHAT, body, OPENAI_ANSWER, SDK, rounds)
            timed[name] = (bench, bench.server(Wire(bench.answer_head, [bench.answer], len(bench.answer))))
        times: dict[str, list[float]] = {name: [] for name in timed}
        for _ in range(rounds):
            for name, (bench, work) in timed.items():
                requests = [bench.request() for _ in range(BATCH)]
                began = time.thread_time_ns()
                for request in requests:
                    work(request)
                times[name].append((time.thread_time_ns() - began) / BATCH / 1e3)
        made = {
            name: calls_of(work, [bench.request() for _ in range(COUNTED)]) for name, (bench, work) in timed.items()
        }
    base, worst = min(times["one attempt"]), 0.0
    for name, found in times.items():
        more = min(found) - base
        worst = max(worst, more)
        print(
            f"  {name:28}{min(found):8.1f} us a call, {more:+.1f} ({more / base:+.1%}), {made[name]:.0f} function calls"
        )
    print(f"  bound: {BOUND_US:g} us more, {'met' if worst <= BOUND_US else 'missed'}")
    return 0 if worst <= BOUND_US else 1


if __name__ == "__main__":
    sys.exit(main())
