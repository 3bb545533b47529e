from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import LedgerUnavailable
from gateway.recorder import ledger_read
from gateway.recorder.ledger import Ledger
from gateway.recorder.ledger_read import CallFilter, LedgerReader, QueryTimeout, RunFilter
from gateway.testing.records import START, call_record, workload


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.open()
    yield ledger
    ledger.close()


def plan(path: Path, where: CallFilter, after: tuple[int, str] | None = None) -> str:
    db = sqlite3.connect(path)
    try:
        [names] = ledger_read._spellings(where)
        query = "EXPLAIN QUERY PLAN " + ledger_read._call_query(where, after, names)
        return " / ".join(row[3] for row in db.execute(query, ledger_read._values(where, 10, after)))
    finally:
        db.close()


@pytest.mark.parametrize(
    ("where", "index"),
    [
        (CallFilter(), "calls_time"),
        (CallFilter(since=1, until=2), "calls_time"),
        (CallFilter(run="r"), "calls_run"),
        (CallFilter(run="r", agent="a", tenant="t", outcome="failed"), "calls_run"),
        (CallFilter(agent="a", tenant="t"), "calls_agent"),
        (CallFilter(tenant="t", since=5), "calls_tenant"),
        (CallFilter(outcome="failed"), "calls_outcome"),
        (CallFilter(outcome="failed", tenant="t"), "calls_outcome"),
        (CallFilter(outcome="ok"), "calls_time"),
    ],
)
@pytest.mark.parametrize("after", [None, (START, "c")])
def test_pages_come_off_an_index_without_sorting(
    ledger: Ledger, where: CallFilter, index: str, after: tuple[int, str] | None
) -> None:
    text = plan(ledger.path, where, after)
    assert index in text
    assert "TEMP B-TREE FOR ORDER BY" not in text  # of the right part, for equal instants, it may be


def test_there_is_no_ledger_yet(tmp_path: Path) -> None:
    with pytest.raises(LedgerUnavailable):
        LedgerReader(tmp_path / "none.sqlite").call("x")
    empty = tmp_path / "empty.sqlite"
    empty.touch()
    with pytest.raises(LedgerUnavailable):
        LedgerReader(empty).call("x")


def test_a_damaged_file_is_reported(ledger: Ledger) -> None:
    ledger.apply(workload(random.Random(1), 300), {})
    ledger.compact()
    ledger.close()
    data = bytearray(ledger.path.read_bytes())
    data[8192:] = b"\xff" * (len(data) - 8192)
    ledger.path.write_bytes(data)
    told: list[bool] = []
    reader = LedgerReader(ledger.path, damaged=lambda: told.append(True))
    with pytest.raises(LedgerUnavailable):
        reader.calls(CallFilter(), 10)
    assert told


def test_a_file_in_the_place_of_another_is_opened(ledger: Ledger, tmp_path: Path) -> None:
    reader = LedgerReader(ledger.path)
    ledger.apply([call_record("old")], {})
    assert reader.call("old") is not None
    ledger.reset()
    ledger.apply([call_record("new")], {})
    assert reader.call("old") is None
    assert reader.call("new") is not None


def test_queries_of_a_snapshot_see_one_state(ledger: Ledger) -> None:
    reader = LedgerReader(ledger.path)
    ledger.apply([call_record("c1")], {})
    with reader.snapshot():
        run = reader.run("run-1")
        ledger.apply([call_record("c2")], {})
        assert run is not None
        assert run["calls"] == 1
        assert len(reader.run_calls("run-1", 10)) == 1
    assert len(reader.run_calls("run-1", 10)) == 2


def test_a_query_has_its_time(ledger: Ledger) -> None:
    ledger.apply([call_record(f"c{n}", run_id=f"r{n}") for n in range(3000)], {})
    with pytest.raises(QueryTimeout):
        LedgerReader(ledger.path, seconds=-1).runs(RunFilter(outcome="success"), 10)
    reader = LedgerReader(ledger.path)
    assert reader.runs(RunFilter(outcome="success"), 10) == []
    reader.close()
    with pytest.raises(QueryTimeout):
        reader.runs(RunFilter(outcome="success"), 10)


def test_threads_have_connections_of_their_own(ledger: Ledger) -> None:
    reader = LedgerReader(ledger.path)
    ledger.apply([call_record("c1")], {})
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(reader.call("c1"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(found)


def test_models_in_use(ledger: Ledger) -> None:
    reader = LedgerReader(ledger.path)
    assert reader.models(10) == []
    ledger.apply([call_record(f"c{n}", START + n, model_requested=f"m{n % 3}", provider=f"p{n}") for n in range(9)], {})
    ledger.apply([call_record("none", model_requested="")], {})
    assert reader.models(10) == [("p6", "m0"), ("p7", "m1"), ("p8", "m2")]
    assert reader.models(2) == [("p6", "m0"), ("p7", "m1")]
