"""What slices do not show: memory over many calls, the time to be ready, the recorder under a minute of full load."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from gateway.testing.gateway import RunningGateway
from tests.bench import load, machine
from tests.bench.slices import Figure, figure
from tests.bench.targets import CHAT, Rig, complaints

STEPS = 20
POLL_SECONDS = 2.0
CATCH_UP_SECONDS = 120.0
SAMPLE = re.compile(r"^(\w+)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Memory:
    calls: int
    start_mb: float
    samples: list[float]  # after every twentieth of the calls
    own: list[float]  # of which no file and no other process has a part

    @property
    def end_mb(self) -> float:
        return self.samples[-1]

    @property
    def growth(self) -> float:
        return growth(self.samples)


def growth(samples: list[float]) -> float:
    """Of the second half, as a share: from its first sample to its largest."""
    second = samples[len(samples) // 2 - 1 :]
    return max(second) / second[0] - 1


def memory(rig: Rig, calls: int) -> Memory:
    """Resident memory of a fresh worker while it serves calls of which each is a run of its own."""
    body = rig.directory / "chat_new.json"
    samples, own = [], []
    with contextlib.ExitStack() as stack:
        gate, target = rig.gateway(stack)
        start, _ = machine.memory_mb(target.carriers[0])
        for _ in range(STEPS):
            told = load.run(rig.load_core, target.port, body, CHAT, conns=32, count=calls // STEPS, secs=60)
            if told["bad"] or told["broken"]:
                raise load.BenchFailed(f"memory: calls failed: {told} {complaints(gate)}")
            rss, anonymous = machine.memory_mb(target.carriers[0])
            samples.append(rss)
            own.append(anonymous)
            print(f"  memory {rss:.1f} MB, {anonymous:.1f} of it its own", file=sys.stderr, flush=True)
    return Memory(calls, start, samples, own)


def ready(rig: Rig, starts: int) -> Figure:
    """Seconds from the start of `tollgate serve` with an empty state to the first 200 of /readyz, on all cores."""
    times = []
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, rig.all_cores)
    try:
        for _ in range(starts):
            with RunningGateway(rig.upstreams(), telemetry=rig.telemetry()) as gate:
                times.append(gate.ready_seconds)
    finally:
        os.sched_setaffinity(0, before)
    return figure(times)


@dataclass(frozen=True)
class Recording:
    seconds: float
    calls: int
    recorded: int
    calls_per_second: float
    lag: Figure  # seconds, looked at every two seconds
    behind: float  # seconds after the last call until the last record was in the ledger
    dropped: float  # records, spans, log lines, metric points
    recorder_us: float  # CPU time of the recorder per call


def recorder(rig: Rig, seconds: float) -> Recording:
    """Saturate one worker for so long; what the recorder says of itself, and whether every call arrived."""
    with contextlib.ExitStack() as stack:
        gate, target = rig.gateway(stack)
        others = machine.cpu_seconds(target.others)
        words = load.command(
            rig.load_core, target.port, rig.directory / "chat_new.json", CHAT, (), conns=32, secs=seconds
        )
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        stack.callback(process.kill)
        lags = []
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(min(POLL_SECONDS, seconds / 4))
                break
            lags.append(total(gate.text("/metrics"), "tollgate_journal_lag_seconds"))
        ended = time.monotonic()
        told = json.loads(process.communicate(timeout=10)[0])
        made, recorded = told["ok"] + told["bad"], 0.0
        while recorded < made and time.monotonic() - ended < CATCH_UP_SECONDS:
            time.sleep(0.1)
            text = gate.text("/metrics")
            recorded = total(text, "tollgate_requests_total")
        return Recording(
            told["secs"],
            made,
            int(recorded),
            told["rps"],
            figure(lags),
            time.monotonic() - ended,
            sum(
                total(text, name)
                for name in ("tollgate_telemetry_dropped_total", "tollgate_journal_lost_records_total")
            ),
            (machine.cpu_seconds(target.others) - others) / made * 1e6,
        )


@dataclass(frozen=True)
class Bursts:
    rate: int  # calls per second, ten bursts in each
    seconds: float
    dropped: int  # or missing
    behind: float  # seconds, at most
    cpu_us: float  # of the recorder per call
    memory_mb: list[float]  # after each third of the calls, and at the end


def bursts(rig: Rig, seconds: float) -> Bursts:
    """The recorder alone, fed by another process on the same core."""
    return Bursts(**program(rig, "bursts", "5000", str(seconds), patience=20 * seconds + 60))


@dataclass(frozen=True)
class Scrapes:
    lines: int
    ratio: Figure  # p99 of calls beside scrapes, over that of calls alone


def scrapes(rig: Rig, cycles: int, calls: int) -> Scrapes:
    """Calls through a gateway with more than 20,000 series, in slices with and without scrapes."""
    found = program(rig, "scrapes", str(cycles), str(calls), patience=300)
    return Scrapes(found["lines"], figure(found["ratios"]))


def program(rig: Rig, name: str, *words: str, patience: float) -> dict[str, Any]:
    """What a program of the benchmark says in its last line, run on all cores. Raises BenchFailed."""
    cores = ",".join(str(core) for core in sorted(rig.all_cores))
    command = ["taskset", "-c", cores, sys.executable, "-m", f"tests.bench.{name}", *words]
    try:
        told = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=patience, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise load.BenchFailed(f"{name} did not end in {patience:.0f} s") from None
    if told.returncode:
        raise load.BenchFailed(f"{name} ended with {told.returncode}")
    found: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    return found


def total(text: str, name: str) -> float:
    """Sum of the samples of a metric over its labels."""
    return sum(float(value) for found, value in SAMPLE.findall(text) if found == name)
