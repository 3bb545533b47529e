from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config.schema import Journal as Settings
from gateway.recorder.ledger import LEDGER, Ledger
from gateway.recorder.retention import DAY_NS, RUNS, Retention
from gateway.testing.records import START, call_record


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.open()
    yield ledger
    ledger.close()


def runs(ledger: Ledger) -> list[str]:
    db = sqlite3.connect(ledger.path)
    try:
        return [row[0] for row in db.execute("SELECT run_id FROM runs ORDER BY first_at")]
    finally:
        db.close()


def test_runs_older_than_the_journal_keeps_go(ledger: Ledger) -> None:
    count = 2 * RUNS + 50
    ledger.apply([call_record(f"c{n}", START + n, run_id=f"r{n}") for n in range(count)], {})
    ledger.apply([call_record("young", START + 20 * DAY_NS, run_id="young")], {})
    now = START + 30 * DAY_NS + 10**10
    Retention(ledger, Settings(retention_days=30), monotonic=lambda: 0.0, now=lambda: now)([])
    assert runs(ledger) == ["young"]


def test_the_oldest_go_until_the_size_fits(ledger: Ledger) -> None:
    count = 12 * RUNS
    ledger.apply([call_record(f"c{n}", START + n, run_id=f"r{n:06d}") for n in range(count)], {})
    size = ledger.used_bytes()
    settings = Settings(retention_bytes=1_048_576)
    assert size > settings.retention_bytes
    Retention(ledger, settings, monotonic=lambda: 0.0, now=lambda: START)([])
    assert ledger.used_bytes() <= settings.retention_bytes
    left = runs(ledger)
    assert 0 < len(left) < count
    assert left == [f"r{n:06d}" for n in range(count - len(left), count)]


def test_pruning_has_its_time(ledger: Ledger) -> None:
    ledger.apply([call_record(f"c{n}", START + n, run_id=f"r{n:06d}") for n in range(6 * RUNS)], {})
    clock = iter(range(100))
    Retention(ledger, Settings(), monotonic=lambda: float(next(clock)), now=lambda: START + 99 * DAY_NS)([])
    assert len(runs(ledger)) == 5 * RUNS


def test_positions_of_segments_that_are_gone_go(ledger: Ledger) -> None:
    ledger.apply([], {"a": 1, "b": 2})
    Retention(ledger, Settings(), now=lambda: START)(["b"])
    assert ledger.positions(LEDGER) == {"b": 2}


def test_a_ledger_that_cannot_be_written_is_left_alone(ledger: Ledger) -> None:
    ledger.close()
    Retention(ledger, Settings())([])
