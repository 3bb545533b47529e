"""Bursts of 5,000 calls: all of them arrive everywhere, and what the recorder holds of them does not grow."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

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
from gateway.recorder.traces import QUEUE_SPANS, TracesProjection
from gateway.testing.records import call_record

BURST, BURSTS = 5_000, 4


class Taken(SpanExporter):
    """Takes all spans and keeps none."""

    def __init__(self) -> None:
        self.spans = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += len(spans)
        return SpanExportResult.SUCCESS


def held(metrics: MetricsProjection) -> int:
    """Cells of the store."""
    return sum(len(family.cells) for family in metrics._store.families())


def test_bursts_arrive_whole_and_leave_nothing_behind(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.mkdir()
    writer = JournalWriter(journal, "w0", Journal())
    drops, exporter, rng = Drops(), Taken(), random.Random(5)
    config = Telemetry()
    metrics = MetricsProjection(config, dict, time.time, drops=drops)
    kept = metrics.only_given_exemplars()
    traces = TracesProjection(config, exporter, Resource.create({}), time.time, drops, kept=kept)
    ledger = Ledger(tmp_path / "ledger.sqlite")
    loop = Loop(
        lambda positions: JournalReader(journal, positions), ledger, [Counted(metrics, {}, lambda _: None)], [traces]
    )
    cells, begun = [], time.time_ns()
    for burst in range(BURSTS):
        for n in range(BURST):
            number = burst * BURST + n
            at = begun + number * 200_000  # ns: 5,000 in a second
            names = {"agent": f"agent-{number % 20}", "tenant": f"tenant-{number % 4}", "run_id": f"run-{number // 20}"}
            trace = f"{rng.getrandbits(128):032x}"
            record = call_record(f"c{number:06d}", at, trace_id=trace, trace_flags=0, parent_span_id="", **names)
            assert writer.append_record(record)
        while loop.turn():
            pass
        assert loop.lag_bytes() == 0
        cells.append(held(metrics))
    traces.close(30)
    ledger.close()
    writer.close()
    text = metrics.render()[0].decode()
    (counted,) = [line for line in text.splitlines() if line.startswith("tollgate_requests_total{")]
    assert float(counted.split()[-1]) == BURST * BURSTS
    db = sqlite3.connect(tmp_path / "ledger.sqlite")
    assert db.execute("SELECT count(*), count(DISTINCT id) FROM calls").fetchone() == (BURST * BURSTS, BURST * BURSTS)
    assert db.execute("SELECT count(*), sum(calls) FROM runs").fetchone() == (BURSTS * BURST // 20, BURST * BURSTS)
    db.close()
    assert len(set(cells[1:])) == 1, "the same names need no more room, however many calls"
    assert 0 < exporter.spans < QUEUE_SPANS, "a sample, and not all"
    assert sum(drops.counts().values()) == 0, "nothing that was to be kept was dropped"
