from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.call import Usage
from gateway.errors import LedgerUnavailable
from gateway.journal.record import EventRecord, Record
from gateway.recorder.ledger import DELIVERED, LEDGER, Ledger
from gateway.recorder.ledger_rebuild import dump
from gateway.testing.records import START, call_record, outcome_record, workload


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    ledger.open()
    yield ledger
    ledger.close()


def rows(ledger: Ledger, query: str) -> list[tuple[object, ...]]:
    db = sqlite3.connect(ledger.path)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def filled(path: Path, batches: list[list[Record]]) -> list[str]:
    ledger = Ledger(path)
    ledger.open()
    for batch in batches:
        ledger.apply(batch, {})
    ledger.close()
    return list(dump(path))


def cut(rng: random.Random, records: list[Record]) -> list[list[Record]]:
    batches, at = [], 0
    while at < len(records):
        size = rng.randrange(1, 60)
        batches.append(records[at : at + size])
        at += size
    return batches


def test_a_call_has_its_row(ledger: Ledger) -> None:
    ledger.apply([call_record("c1")], {"a-00000001.tgj": 99})
    assert rows(ledger, "SELECT id, run_id, agent, cost, input_tokens, ttft_ns FROM calls") == [
        ("c1", "run-1", "planner", 42_000_000, 120, 210_000_000)
    ]
    assert ledger.positions(LEDGER) == {"a-00000001.tgj": 99}


def test_unknown_is_null_and_counted_apart(ledger: Ledger) -> None:
    unknown = call_record("c2", cost=None, cost_components={}, cost_status="no_price")
    ledger.apply([call_record("c1"), unknown], {})
    assert rows(ledger, "SELECT cost FROM calls WHERE id = 'c2'") == [(None,)]
    assert rows(ledger, "SELECT cost, priced, cost_unknown, calls FROM runs") == [(42_000_000, 1, 1, 2)]


@pytest.mark.parametrize("seed", range(6))
def test_content_depends_on_the_set_of_records_alone(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    records = workload(rng, 300)
    records += [EventRecord(f"e{n}", START + n, "reload") for n in range(5)]
    expected = filled(tmp_path / "in_order", [records])
    shuffled = records + rng.choices(records, k=80)
    rng.shuffle(shuffled)
    assert filled(tmp_path / "shuffled", cut(rng, shuffled)) == expected


@pytest.mark.parametrize("seed", range(4))
def test_the_real_record_of_a_call_beats_abandoned(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    records = workload(rng, 120)
    ghosts = [
        call_record(
            r.id, r.started_at - 7, outcome="abandoned", run_id="run-3", step=40, cost=None, cost_status="no_usage"
        )
        for r in records
        if r.id.startswith("call") and rng.random() < 0.3
    ]
    real = {r.id for r in records if getattr(r, "outcome", "") != "abandoned"}
    expected = filled(tmp_path / "clean", [records])
    mixed = [*records, *(g for g in ghosts if g.id in real)]
    rng.shuffle(mixed)
    assert filled(tmp_path / "mixed", cut(rng, mixed)) == expected


def test_totals_are_the_sums_of_the_rows(ledger: Ledger) -> None:
    for batch in cut(random.Random(5), workload(random.Random(4), 500)):
        ledger.apply(batch, {})
    summed = """
        SELECT run_id, count(*), sum(cost), count(cost), sum(cost_unknown), sum(input_tokens), sum(output_tokens),
               sum(reasoning_tokens), sum(tool_calls), max(step), min(started_at), max(started_at + duration_ns)
        FROM calls WHERE run_id <> '' GROUP BY run_id ORDER BY run_id"""
    kept = """
        SELECT run_id, calls, cost, priced, cost_unknown, input_tokens, output_tokens, reasoning_tokens, tool_calls,
               steps, first_at, last_at FROM runs ORDER BY run_id"""
    assert rows(ledger, kept) == rows(ledger, summed)
    assert rows(ledger, "SELECT count(*) FROM tools") == rows(ledger, "SELECT sum(tool_calls) FROM calls")


def test_the_last_outcome_of_a_run_counts(ledger: Ledger) -> None:
    later = outcome_record("o2", kind="failure", at=START + 9)
    earlier = outcome_record("o1", kind="success", at=START + 3)
    ledger.apply([later], {})
    ledger.apply([earlier], {})
    assert rows(ledger, "SELECT id, kind FROM verdicts") == [("o2", "failure")]
    assert rows(ledger, "SELECT count(*) FROM outcomes") == [(2,)]


def test_numbers_too_big_for_a_column_are_cut_not_fatal(ledger: Ledger) -> None:
    ledger.apply([call_record("c1", usage=Usage(input_tokens=2**64 - 1)), call_record("c2")], {"s": 5})
    ledger.apply([call_record("c3", usage=Usage(output_tokens=2**64 - 1))], {"s": 6})
    assert rows(ledger, "SELECT id, input_tokens FROM calls ORDER BY id") == [("c1", 2**63 - 1), ("c2", 120), ("c3", 0)]
    assert ledger.positions(LEDGER) == {"s": 6}


def test_hostile_text_is_only_data(ledger: Ledger) -> None:
    evil = "'); DROP TABLE calls; --\x00\n\"]"
    ledger.apply([call_record(evil, run_id=evil, agent=evil, model_requested=evil)], {evil: 1})
    ledger.apply([call_record(evil, run_id=evil, agent=evil, model_requested=evil)], {evil: 2})
    assert rows(ledger, "SELECT id, run_id, agent FROM calls") == [(evil, evil, evil)]
    assert ledger.positions(LEDGER) == {evil: 2}


def test_rows_and_positions_are_committed_together_or_not_at_all(ledger: Ledger) -> None:
    ledger.apply([call_record("c1")], {"s": 1})
    broken = call_record("c3", cost_components={"x": object()})  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        ledger.apply([call_record("c2"), broken], {"s": 3}, {"s": 1})
    assert ledger.positions(LEDGER) == {"s": 1}
    assert ledger.positions(DELIVERED) == {}
    assert rows(ledger, "SELECT id FROM calls") == [("c1",)]


@pytest.mark.parametrize("junk", [b"not a database at all" * 200, b"SQLite format 3\x00" + b"\xff" * 8000])
def test_a_damaged_file_is_moved_aside(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "ledger.sqlite3"
    path.write_bytes(junk)
    ledger = Ledger(path)
    ledger.open()
    assert ledger.positions(LEDGER) == {}
    ledger.apply([call_record()], {})
    ledger.close()
    assert ledger.moved_aside is not None
    assert ledger.moved_aside.read_bytes() == junk


def test_a_file_of_another_version_is_moved_aside(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger(path)
    ledger.open()
    ledger.apply([call_record()], {"s": 1})
    ledger.close()
    db = sqlite3.connect(path)
    db.execute("UPDATE meta SET value = '0'")
    db.commit()
    db.close()
    again = Ledger(path)
    again.open()
    assert again.positions(LEDGER) == {}
    assert rows(again, "SELECT count(*) FROM calls") == [(0,)]
    again.close()


def test_a_busy_or_missing_directory_is_a_passing_trouble(ledger: Ledger, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises((LedgerUnavailable, OSError)):
        Ledger(file / "ledger.sqlite3").open()
    ledger.close()
    with pytest.raises(LedgerUnavailable):
        ledger.apply([call_record()], {})


def test_whole_runs_are_pruned_with_all_their_parts(ledger: Ledger) -> None:
    old = [call_record(f"o{n}", START + n, run_id=f"old-{n % 3}", duration_ns=5) for n in range(30)]
    long = [call_record("l1", START, run_id="long"), call_record("l2", START + 10**12, run_id="long")]
    new = [call_record("n1", START + 10**12, run_id="new"), call_record("n0", START, run_id="")]
    ledger.apply([*old, *long, *new, outcome_record(run_id="old-1"), EventRecord("e", START, "start")], {})
    assert ledger.prune(START + 10**9, limit=2) == 2
    assert ledger.prune(START + 10**9, limit=2) == 1
    assert rows(ledger, "SELECT run_id FROM runs ORDER BY 1") == [("long",), ("new",)]
    assert rows(ledger, "SELECT id FROM calls ORDER BY 1") == [("l1",), ("l2",), ("n1",)]
    assert rows(ledger, "SELECT (SELECT count(*) FROM outcomes), (SELECT count(*) FROM events)") == [(0, 0)]
    assert ledger.prune(START + 10**9, limit=9, whole=False) == 1
    assert rows(ledger, "SELECT run_id FROM runs") == [("new",)]
    assert ledger.used_bytes() > 0


def test_positions_of_deleted_segments_are_forgotten(ledger: Ledger) -> None:
    ledger.apply([], {"a": 1, "b": 2}, {"a": 1})
    ledger.forget_segments(["b", "c"])
    assert ledger.positions(LEDGER) == {"b": 2}
    assert ledger.positions(DELIVERED) == {}
