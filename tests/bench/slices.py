"""Slices of load, in turns: a host whose speed changes from second to second treats all alike.

A figure is a ratio of two slices of the same cycle, and what is stated is the median over the cycles with the smallest
and the largest. CPU time says what a call costs even while others use the machine; latency and calls per second do not.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from tests.bench import load, machine
from tests.bench.targets import CHAT, Rig, Target

Row = dict[str, Any]
ANTHROPIC = ("anthropic-version: 2023-06-01", "anthropic-beta: claude-code-20250219", "x-api-key: sk-ant-bench")
CLAUDE = (*ANTHROPIC, "user-agent: claude-cli/2.1.0 (external, cli)", "x-app: cli", "x-stainless-lang: js")
SLOW_SECONDS = 4.0  # a slice of who serves but a few dozen calls per second


@dataclass(frozen=True)
class Phase:
    name: str
    title: str
    body: str
    targets: tuple[str, ...]
    seconds: float
    cycles: tuple[int, int, int]  # repetitions: quick, normal, thorough
    options: dict[str, Any] = field(default_factory=dict)
    path: str = CHAT
    headers: tuple[str, ...] = ()
    events: int = 0  # of one answer
    warm: float = 0.2  # seconds of load before each slice


BOTH = ("nginx", "tollgate")
PHASES = (
    Phase(
        "json",
        "JSON, 1 KB, closed loop of 32, saturated",
        "chat",
        ("nginx", "tollgate", "aiohttp_server", "raw_httptools"),
        0.7,
        (3, 9, 20),
        {"conns": 32},
    ),
    Phase("json_new", "JSON, every call a new run", "chat_new", BOTH, 0.7, (3, 5, 12), {"conns": 32}),
    Phase(
        "limited",
        "the same, calls of one run, with every scope limited: budgets, run limits, rates, on SQLite",
        "chat",
        ("nginx", "tollgate", "tollgate_limited"),
        0.7,
        (3, 7, 12),
        {"conns": 32},
        headers=("x-tollgate-run-id: bench",),
    ),
    Phase(
        "resilient",
        "the same, every call routed, behind a breaker and a fallback, through a pool",
        "chat",
        ("nginx", "tollgate", "tollgate_guarded", "tollgate_resilient"),
        0.7,
        (3, 7, 12),
        {"conns": 32},
    ),
    Phase(
        "cached",
        "the same, answered from the exact cache; beside calls that are looked up and stored every time",
        "chat",
        ("tollgate", "tollgate_refreshed", "tollgate_cached"),
        0.7,
        (3, 7, 12),
        {"conns": 32},
    ),
    Phase(
        "latency",
        "JSON, constant 200 calls/s",
        "chat",
        ("direct", "nginx", "tollgate"),
        1.5,
        (3, 6, 12),
        {"conns": 64, "rate": 200},
    ),
    Phase(
        "burst",
        "SSE, all 66 events at once, closed loop of 16",
        "chat_stream",
        BOTH,
        0.7,
        (3, 8, 16),
        {"conns": 16},
        events=load.EVENTS,
    ),
    Phase(
        "burst_spliced",
        "the same, usage spliced into the request and cut from the answer",
        "chat_stream_bare",
        BOTH,
        0.7,
        (3, 5, 10),
        {"conns": 16},
        events=load.EVENTS,
    ),
    Phase(
        "paced",
        "SSE, 40 streams of 50 events/s each",
        "chat_paced",
        BOTH,
        1.0,
        (3, 6, 10),
        {"conns": 40},
        events=load.EVENTS,
        warm=0,  # a stream takes longer than that anyway
    ),
    Phase(
        "agent",
        "a coding agent's body of 300 KB, closed loop of 8",
        "agent",
        BOTH,
        0.7,
        (3, 8, 16),
        {"conns": 8, "bare": 1},
        path="/v1/messages",
        headers=CLAUDE,
    ),
    Phase(
        "peers",
        "JSON, 1 KB, closed loop of 32, saturated, beside other gateways",
        "chat",
        ("nginx", "tollgate", "portkey", "litellm", "litellm granian"),
        1.0,
        (3, 5, 10),
        {"conns": 32},
    ),
)


def run_phase(rig: Rig, phase: Phase, cycles: int, max_noise: float) -> list[dict[str, Row]]:
    """One row per target and cycle. Raises BenchFailed where calls fail."""
    targets = [rig.targets[name] for name in phase.targets if name in rig.targets]
    rows = []
    for cycle in range(cycles):
        row: dict[str, Row] = {}
        for target in targets if cycle % 2 == 0 else targets[::-1]:
            try:
                row[target.name] = quiet_slice(rig, phase, target, max_noise)
            except load.BenchFailed as fault:
                if not target.slow:
                    raise
                rig.left_out[target.name] = str(fault)
        targets = [target for target in targets if target.name in row]
        if phase.name == "agent":
            row["orjson"] = {"cpu_us": loads_us(rig, phase.body)}
        rows.append(row)
        show(phase, cycle, row)
    return [{name: row[name] for name in rows[-1]} for row in rows]


def quiet_slice(rig: Rig, phase: Phase, target: Target, max_noise: float) -> Row:
    """A slice, and another one where others took more than `max_noise` of the core; the quieter of the two."""
    row = one_slice(rig, phase, target)
    if row["noise"] > max_noise:
        row = min(row, one_slice(rig, phase, target), key=lambda each: each["noise"])
    return row


def one_slice(rig: Rig, phase: Phase, target: Target) -> Row:
    seconds = max(phase.seconds, SLOW_SECONDS) if target.slow else phase.seconds

    def run(seconds: float) -> Row:
        headers = (*phase.headers, *target.headers)
        body = rig.directory / f"{phase.body}.json"
        return load.run(rig.load_core, target.port, body, phase.path, headers, secs=seconds, **phase.options)

    if phase.warm:
        run(phase.warm)
    rig.settle(target)
    everyone = [*target.carriers, *target.others]
    tree_before = machine.cpu_seconds(everyone)
    busy_before, stolen_before = machine.core_seconds(rig.gateway_core)
    cpu_before, began = machine.cpu_seconds(target.carriers), time.monotonic()
    row = run(seconds)
    cpu, wall = machine.cpu_seconds(target.carriers) - cpu_before, time.monotonic() - began
    busy, stolen = machine.core_seconds(rig.gateway_core)
    rig.settle(target)
    tree = machine.cpu_seconds(everyone) - tree_before
    if row["bad"] or row["broken"] or row["unfinished"] or not row["ok"]:
        counts = {name: row[name] for name in ("ok", "bad", "broken", "unfinished")}
        raise load.BenchFailed(f"{phase.name}: calls through {target.name} failed: {counts} {rig.log(target.name)}")
    rig.check(target)
    done = row["ok"]
    others = busy - busy_before - cpu if target.carriers else 0.0
    row.update(
        cpu_us=cpu / done * 1e6,
        tree_us=tree / done * 1e6,
        cpu_us_per_event=cpu / (done * phase.events) * 1e6 if phase.events else 0.0,
        used=cpu / wall,
        noise=max(0.0, others + stolen - stolen_before) / wall,
    )
    return row


def loads_us(rig: Rig, name: str) -> float:
    """CPU time of one `orjson.loads` of a body, on the gateway's core."""
    data = (rig.directory / f"{name}.json").read_bytes()
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {rig.gateway_core})
    try:
        times = []
        for _ in range(30):
            began = time.thread_time_ns()
            orjson.loads(data)
            times.append((time.thread_time_ns() - began) / 1e3)
    finally:
        os.sched_setaffinity(0, before)
    return statistics.median(times)


def show(phase: Phase, cycle: int, row: dict[str, Row]) -> None:
    """Progress, on standard error."""
    cells = [f"{name} {each['cpu_us']:.0f}" for name, each in row.items()]
    print(f"  {phase.name:14}{cycle + 1:3}  us of CPU per call: " + "  ".join(cells), file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Figure:
    """Median, smallest and largest of some repetitions."""

    median: float
    low: float
    high: float
    count: int

    def text(self, digits: int = 2) -> str:
        middle, low, high = (f"{value:,.{digits}f}" for value in (self.median, self.low, self.high))
        return middle if self.count == 1 else f"{middle} [{low} .. {high}]"


def figure(values: Sequence[float]) -> Figure:
    return Figure(statistics.median(values), min(values), max(values), len(values))


def over(rows: list[dict[str, Row]], value: Callable[[dict[str, Row]], float]) -> Figure:
    """`value` of every cycle."""
    return figure([value(row) for row in rows])
