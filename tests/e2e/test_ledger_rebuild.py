"""The recorder as a process: what it makes of the journal stays true whenever it dies."""

from __future__ import annotations

import contextlib
import itertools
import random
import resource
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.config.schema import Config, Journal, Otlp, Prices, Telemetry
from gateway.errors import LedgerUnavailable
from gateway.journal.append import JournalWriter
from gateway.journal.record import CallRecord, Record
from gateway.process.control import Configured
from gateway.recorder.ledger_rebuild import dump, rebuild
from gateway.testing.recorder import FOREVER, RecorderProcess
from gateway.testing.records import START, call_record, workload


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[RecorderProcess]:
    with RecorderProcess(tmp_path) as running:
        yield running


KILLS = 12
AHEAD = 5_000  # calls that wait for the recorder at most: several transactions, which no machine is long in doing


def write(journal: Path, records: Sequence[Record], writer: str = "w0", segment_bytes: int = 65_536) -> None:
    log = JournalWriter(journal, writer, Journal(segment_bytes=segment_bytes))
    for record in records:
        assert log.append_record(record)
    log.close()


def counted(text: str) -> float:
    """Calls, by the metrics."""
    lines = [line for line in text.splitlines() if line.startswith("tollgate_requests_total")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def calls_of(records: Sequence[Record]) -> list[CallRecord]:
    return [r for r in records if isinstance(r, CallRecord)]


def stored(ledger: Path) -> int:
    """Calls, by the ledger."""
    if not ledger.exists():
        return 0
    with contextlib.closing(sqlite3.connect(ledger)) as db, contextlib.suppress(sqlite3.OperationalError):
        return int(db.execute("SELECT count(*) FROM calls").fetchone()[0])
    return 0  # it is just being made


def check_against(ledger: Path, records: Sequence[Record]) -> None:
    """Rows and totals, counted independently of the code that made them."""
    calls = calls_of(records)
    db = sqlite3.connect(ledger)
    try:
        assert db.execute("SELECT count(*) FROM calls").fetchone() == (len(calls),)
        assert {row[0] for row in db.execute("SELECT id FROM calls")} == {r.id for r in calls}
        assert db.execute("SELECT sum(cost), sum(input_tokens) FROM calls").fetchone() == (
            sum(r.cost or 0 for r in calls),
            sum(r.usage.input_tokens for r in calls if r.usage is not None),
        )
        for run, count, cost in db.execute("SELECT run_id, calls, cost FROM runs"):
            mine = [r for r in calls if r.run_id == run]
            assert (count, cost) == (len(mine), sum(r.cost or 0 for r in mine))
    finally:
        db.close()


@pytest.mark.timeout(480)
def test_kills_at_any_instant_lose_and_repeat_nothing(tmp_path: Path) -> None:
    rng = random.Random(7)
    ledger = tmp_path / "ledger.sqlite"
    written: list[Record] = []
    stop = threading.Event()

    def traffic(writer: str, seed: int) -> None:
        log = JournalWriter(tmp_path / "journal", writer, Journal(segment_bytes=262_144))
        own = random.Random(seed)
        for batch in itertools.count():
            while len(calls_of(written)) > stored(ledger) + AHEAD and not stop.is_set():
                stop.wait(0.03)
            for record in workload(own, 40, runs=30):
                if stop.is_set():
                    log.close()
                    return
                record.id = f"{writer}-{batch}-{record.id}"
                assert log.append_record(record)
                written.append(record)
            stop.wait(0.03)

    writers = [threading.Thread(target=traffic, args=(f"w{n}", n)) for n in range(2)]
    at_kills = [0]
    with RecorderProcess(tmp_path, ready=False) as recorder:
        for thread in writers:
            thread.start()
        for kill in range(KILLS):
            while kill % 2 and stored(ledger) == at_kills[-1]:  # every other kill is one in the midst of its work
                time.sleep(0.01)
            time.sleep(rng.random() * 0.3)  # the instant of the kill is the point of this test
            recorder.kill()
            at_kills.append(stored(ledger))
            recorder.start(ready=rng.random() < 0.8)
        stop.set()
        for thread in writers:
            thread.join()
        expected = len(calls_of(written))
        recorder.until("/metrics", lambda text: counted(text) >= expected, 300)
        assert counted(recorder.get("/metrics")[1]) == expected
        assert recorder.drain() == 0
    assert len(set(at_kills)) > KILLS // 2
    check_against(ledger, written)
    before = list(dump(ledger))
    rebuild(tmp_path / "journal", ledger)
    assert list(dump(ledger)) == before
    assert len(written) > 1_000


@pytest.mark.parametrize("seed", range(4))
def test_a_rebuilt_ledger_is_the_same(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    records = workload(rng, 400)
    ghosts = [
        call_record(r.id, r.started_at, outcome="abandoned", cost=None) for r in rng.sample(calls_of(records), 20)
    ]
    shuffled = [*records, *rng.choices(records, k=60), *ghosts]
    rng.shuffle(shuffled)
    with RecorderProcess(tmp_path) as recorder:
        for n, part in enumerate(range(0, len(shuffled), 97)):
            write(recorder.journal, shuffled[part : part + 97], f"w{n % 3}")
        recorder.until("/readyz", lambda body: body["ledger"] == "ok")
        with pytest.raises(LedgerUnavailable, match="in use"):
            rebuild(recorder.journal, tmp_path / "ledger.sqlite")
        assert recorder.drain() == 0
    before = list(dump(tmp_path / "ledger.sqlite"))
    done = rebuild(tmp_path / "journal", tmp_path / "ledger.sqlite")
    assert done.records == len(shuffled)
    assert list(dump(tmp_path / "ledger.sqlite")) == before
    with RecorderProcess(tmp_path) as recorder:  # goes on behind a rebuild, repeating nothing
        write(recorder.journal, [call_record("after", START + 10**12)])
        recorder.until("/api/calls?limit=1", lambda body: body["calls"][0]["id"] == "after")
        metrics = recorder.get("/metrics")[1]
        assert recorder.drain() == 0
    assert len(list(dump(tmp_path / "ledger.sqlite"))) > len(before)
    assert counted(metrics) == len(calls_of(shuffled)) + 1


def test_metrics_go_on_over_a_kill(tmp_path: Path) -> None:
    with RecorderProcess(tmp_path) as recorder:
        write(recorder.journal, calls_of(workload(random.Random(1), 300)))
        recorder.until("/metrics", lambda text: counted(text) == 300)
        assert recorder.drain() == 0
        recorder.start()
        write(recorder.journal, [call_record("more")], "w1")
        recorder.until("/metrics", lambda text: counted(text) == 301)
        recorder.kill()
        recorder.start()
        recorder.until("/metrics", lambda text: counted(text) == 301)


def test_an_outcome_survives_kill_and_rebuild(recorder: RecorderProcess) -> None:
    write(recorder.journal, [call_record()])
    recorder.until("/api/calls", lambda body: len(body["calls"]) == 1)
    report = {"outcome": "success", "value": 3.5, "note": "done"}
    status, given = recorder.get("/api/runs/run-1/outcome", method="POST", body=report)
    recorder.kill()
    assert status == 201
    rebuild(recorder.journal, recorder.state / "ledger.sqlite")
    recorder.start()
    run = recorder.until("/api/runs/run-1", lambda body: True)
    assert run["outcome"] == given
    assert (given["outcome"], given["value"], given["note"]) == ("success", 3.5, "done")
    assert recorder.get("/api/outcomes")[1]["agents"][0]["cost_per_success_usd"] == 0.000042


def test_an_outcome_that_was_refused_is_not_written_later(recorder: RecorderProcess) -> None:
    write(recorder.journal, [call_record()])
    recorder.until("/api/calls", lambda body: len(body["calls"]) == 1)

    def report() -> tuple[int, Any]:
        return recorder.get("/api/runs/run-1/outcome", method="POST", body={"outcome": "success"})

    before = resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, (0, before[1]))  # as good as a full disk
    status, problem = report()
    assert (status, problem["code"]) == (503, "journal_unavailable")
    resource.prlimit(recorder.pid, resource.RLIMIT_FSIZE, before)
    deadline = time.monotonic() + 60
    while (told := report())[0] == 503:  # the journal is tried again a few times a second
        assert time.monotonic() < deadline
    assert told[0] in (201, 202)
    assert recorder.drain() == 0
    with contextlib.closing(sqlite3.connect(recorder.state / "ledger.sqlite")) as db:
        assert db.execute("SELECT id FROM outcomes").fetchall() == [(told[1]["id"],)]


def test_a_damaged_ledger_mends_itself(recorder: RecorderProcess) -> None:
    write(recorder.journal, workload(random.Random(3), 200))
    recorder.until("/api/calls?limit=1", lambda body: body["calls"])
    assert recorder.drain() == 0
    ledger = recorder.state / "ledger.sqlite"
    before = list(dump(ledger))
    data = bytearray(ledger.read_bytes())
    data[8192:] = bytes(len(data) - 8192)  # the first page, which says what the file is, stays
    ledger.write_bytes(data)
    recorder.start()
    for _ in range(3):
        recorder.get("/api/calls?limit=1000")
    recorder.until("/api/calls?limit=1", lambda body: body["calls"])
    assert recorder.drain() == 0
    assert list(dump(ledger)) == before


def test_draining_with_a_dead_collector_takes_its_time_and_no_more(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as black_hole:
        endpoint = f"http://127.0.0.1:{black_hole.getsockname()[1]}"
        config = Config(
            state=str(tmp_path),
            journal=FOREVER,
            telemetry=Telemetry(otlp=Otlp(endpoint=endpoint), log=str(tmp_path / "log")),
        )
        with RecorderProcess(tmp_path, config) as recorder:
            write(recorder.journal, workload(random.Random(3), 300))
            recorder.until("/api/calls?limit=1", lambda body: body["calls"])
            assert recorder.drain(3.0, grace=6.0) == 0  # an interpreter takes a while to exit
    lines = (tmp_path / "log").read_text().splitlines()
    assert len([line for line in lines if '"llm.call"' in line]) == 300


def test_readiness_follows_the_supervisor(recorder: RecorderProcess) -> None:
    recorder.until("/readyz", lambda body: body["ready"])
    recorder.status(draining=True)
    deadline = time.monotonic() + 60
    while (answer := recorder.get("/readyz"))[0] == 200:
        assert time.monotonic() < deadline
    assert answer[1]["draining"] is True
    recorder.status(ready=False)
    assert recorder.get("/healthz")[0] == 200


def test_a_reload_takes_over_token_log_and_prices(recorder: RecorderProcess) -> None:
    log = recorder.state / "calls.log"
    config = msgspec.structs.replace(recorder.config, admin_token="0123456789abcdef", telemetry=Telemetry(log=str(log)))
    write(recorder.journal, [call_record("before")])
    recorder.until("/api/calls", lambda body: len(body["calls"]) == 1)
    assert recorder.reconfigure(config, 2) == Configured(2, True)
    assert recorder.get("/api/calls")[0] == 401
    write(recorder.journal, [call_record("after")], "w1")
    deadline = time.monotonic() + 60
    while not log.exists() or "after" not in log.read_text():
        assert time.monotonic() < deadline
    assert "before" not in log.read_text()
    text = recorder.get("/metrics", Authorization="Bearer 0123456789abcdef")[1]
    assert 'outcome="ok",provider="openai",route="/v1/chat/completions"} 2.0' in text
    bad = msgspec.structs.replace(config, prices=Prices(litellm_file="/nonexistent/prices.json"))
    answer = recorder.reconfigure(bad, 3)
    assert answer.ok is False
    assert answer.message
    assert recorder.get("/healthz")[0] == 200


def test_no_start_off_loopback_without_a_token(tmp_path: Path) -> None:
    config = Config(state=str(tmp_path), admin="0.0.0.0:8788", telemetry=Telemetry(log=None))
    with RecorderProcess(tmp_path, config, ready=False) as recorder:
        answer = recorder.receive(Configured)
        assert answer.ok is False
        assert "admin_token" in answer.message
