"""The recorder under bursts: `python -m tests.bench.bursts [CALLS PER SECOND, 5000] [SECONDS, 12]`.

Another process writes calls to a journal with the journal's own writer, a tenth of a second's worth at once; the loop
of the recorder with ledger, metrics and sampled traces follows, on the same one core. Printed: how far it was behind
at most, its CPU per call, what was dropped, and its memory after each third.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from gateway.config.schema import Journal, Telemetry
from gateway.journal.append import JournalWriter
from gateway.journal.read import JournalReader
from gateway.recorder.drops import Drops
from gateway.recorder.ledger import Ledger
from gateway.recorder.loop import Counted, Loop
from gateway.recorder.metrics import MetricsProjection
from gateway.recorder.traces import TracesProjection
from gateway.testing.records import call_record

TENTH = 0.1  # seconds between two bursts


class Taken(SpanExporter):
    """Takes all spans and keeps none: a collector is another process."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def write(journal: Path, rate: int, seconds: float) -> None:
    writer, rng, start = JournalWriter(journal, "w0", Journal()), random.Random(7), time.monotonic()
    for burst in range(int(seconds / TENTH)):
        time.sleep(max(0.0, start + burst * TENTH - time.monotonic()))
        for n in range(int(rate * TENTH)):
            number = burst * int(rate * TENTH) + n
            names = {"agent": f"agent-{number % 20}", "tenant": f"tenant-{number % 4}", "run_id": f"run-{number // 20}"}
            trace = {"trace_id": f"{rng.getrandbits(128):032x}", "trace_flags": 0, "parent_span_id": ""}
            began = time.time_ns() - 10**9
            writer.append_record(call_record(f"c{number:07d}", began, duration_ns=10**9, **names, **trace))
        writer.tick()
    writer.close()
    print(f"written in {time.monotonic() - start:.1f} s", flush=True)


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(rate: int, seconds: float, root: Path) -> dict[str, Any]:
    journal, calls = root / "journal", int(rate * TENTH) * int(seconds / TENTH)
    journal.mkdir()
    drops, config = Drops(), Telemetry()
    metrics = MetricsProjection(config, dict, time.time, drops=drops)
    kept = metrics.only_given_exemplars()
    traces = TracesProjection(config, Taken(), Resource.create({}), time.time, drops, kept=kept)
    ledger = Ledger(root / "ledger.sqlite")
    loop = Loop(
        lambda positions: JournalReader(journal, positions), ledger, [Counted(metrics, {}, lambda _: None)], [traces]
    )
    thread = threading.Thread(target=loop.run)
    thread.start()
    command = [sys.executable, "-m", "tests.bench.bursts", "--write", str(journal), str(rate), str(seconds)]
    behind, memory, end, used = 0.0, list[float](), time.monotonic() + 10 * seconds, time.process_time()
    with subprocess.Popen(command):
        while loop.records < calls and time.monotonic() < end:
            behind = max(behind, loop.behind_ns / 1e9)
            if loop.records >= calls / 3 * (len(memory) + 1):
                memory.append(resident_mb())
            time.sleep(0.02)
    used = time.process_time() - used
    loop.stop()
    thread.join()
    traces.close(10)
    ledger.close()
    dropped = sum(drops.counts().values()) + calls - loop.records
    return {
        "rate": rate,
        "seconds": seconds,
        "dropped": dropped,
        "behind": behind,
        "cpu_us": used / calls * 1e6,
        "memory_mb": [*memory, resident_mb()],
    }


def main(words: list[str]) -> None:
    if words[:1] == ["--write"]:
        write(Path(words[1]), int(words[2]), float(words[3]))
        return
    rate, seconds = int(words[0]) if words else 5000, float(words[1]) if words[1:] else 12.0
    core = max(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as root:
        os.sched_setaffinity(0, {core})
        found = measure(rate, seconds, Path(root))
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
