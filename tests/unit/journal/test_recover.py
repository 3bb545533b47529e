from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.config.schema import Journal
from gateway.journal.append import BACKLOG, JournalWriter
from gateway.journal.read import JournalReader
from gateway.journal.record import CallRecord, EventRecord, Record
from gateway.journal.recover import Recovery, remove_drafts
from gateway.journal.segment import Disk


def records(journal: Path) -> list[Record]:
    reader, found = JournalReader(journal), []
    while batch := reader.read():
        found += [record for _, record in batch]
    reader.close()
    return found


def calls(journal: Path) -> list[tuple[str, str]]:
    return sorted((r.id, r.outcome) for r in records(journal) if isinstance(r, CallRecord))


def die(writer: JournalWriter) -> None:
    """What the kernel does at the end of a process: descriptors close, the mapped file stays as it is."""
    os.close(writer._fd)
    os.close(writer.table._fd)
    writer.table._memory.close()


def worker(journal: Path, tables: Path, **options: Any) -> JournalWriter:
    return JournalWriter(journal, "w0", Journal(), worker=0, inflight=tables, **options)


@pytest.fixture
def supervisor(journal: Path, tables: Path) -> JournalWriter:
    return JournalWriter(journal, "sup", Journal(), inflight=tables, slots=0)


@pytest.fixture
def recovery(journal: Path, tables: Path, supervisor: JournalWriter) -> Recovery:
    return Recovery(tables, journal, supervisor, "sup")


def test_what_was_in_flight_is_abandoned_and_what_was_written_is_not(
    journal: Path, tables: Path, recovery: Recovery, make_call: Any
) -> None:
    w = worker(journal, tables)
    for n in range(5):
        call = make_call(f"done{n}")
        w.append(call, w.begin(call))
    for n in range(3):
        w.begin(make_call(f"left{n}"))
    written = make_call("written")  # killed between the write and the freeing of the slot
    slot = w.begin(written)
    w.append(written, slot)
    w.table.put(w.table._memory[4096 + slot * 512 + 8 :][:300])
    die(w)
    done = recovery.run(now=written.started_at + 5)
    assert (done.tables, done.calls, done.lost) == (1, 3, 0)
    assert calls(journal) == sorted(
        [*((f"done{n}", "ok") for n in range(5)), *((f"left{n}", "abandoned") for n in range(3)), ("written", "ok")]
    )
    record = next(r for r in records(journal) if r.id == "left0")
    assert isinstance(record, CallRecord)
    assert (record.cost, record.usage, record.cost_status, record.duration_ns) == (None, None, "no_usage", 5)
    assert (record.error_source, record.error_code, record.worker) == ("gateway", "worker_died", 0)
    assert (record.tenant, record.run_id, record.model_requested) == ("acme", "run-1", "gpt-4o-mini")
    assert recovery.run(now=0).tables == 0


def test_the_written_one_is_known_by_its_id(journal: Path, tables: Path, recovery: Recovery, make_call: Any) -> None:
    w = worker(journal, tables)
    call = make_call("written")
    w.begin(call)
    w.append(call, -1)  # its slot stays taken
    die(w)
    assert recovery.run(now=0).calls == 0
    assert calls(journal) == [("written", "ok")]


def test_the_living_are_left_alone(journal: Path, tables: Path, recovery: Recovery, make_call: Any) -> None:
    w = worker(journal, tables)
    w.begin(make_call("a"))
    assert recovery.run(now=0).tables == 0
    die(w)
    assert recovery.run(now=0).tables == 1


def test_a_recovery_that_is_killed_is_finished_by_the_next(journal: Path, tables: Path, make_call: Any) -> None:
    w = worker(journal, tables)
    for n in range(6):
        w.begin(make_call(f"c{n}"))
    die(w)
    for allowed in (2, 3):  # records that the next two supervisors come to write
        count = [allowed + 1]  # and a header

        def write(fd: int, data: bytes, count: list[int] = count) -> int:
            if not count[0]:
                raise KeyboardInterrupt
            count[0] -= 1
            return os.write(fd, data)

        supervisor = JournalWriter(journal, "sup", Journal(), inflight=tables, slots=0, disk=Disk(write))
        with pytest.raises(KeyboardInterrupt):
            Recovery(tables, journal, supervisor, "sup").run(now=0)
        die(supervisor)
    supervisor = JournalWriter(journal, "sup", Journal(), inflight=tables, slots=0)
    Recovery(tables, journal, supervisor, "sup").run(now=0)
    assert calls(journal) == [(f"c{n}", "abandoned") for n in range(6)]
    assert [path.name[:3] for path in tables.iterdir()] == ["sup"]


def test_a_recovery_that_cannot_write_is_repeated(journal: Path, tables: Path, make_call: Any) -> None:
    w = worker(journal, tables)
    for n in range(3):
        w.begin(make_call(f"c{n}"))
    die(w)
    failing = [True]

    def write(fd: int, data: bytes) -> int:
        if failing[0]:
            raise OSError(errno.ENOSPC, "full")
        return os.write(fd, data)

    clock = [0.0]
    supervisor = JournalWriter(journal, "sup", Journal(), disk=Disk(write), monotonic=lambda: clock[0])
    recovery = Recovery(tables, journal, supervisor, "sup")
    for _ in range(3):
        assert recovery.run(now=0).tables == 0
        clock[0] += 1
    failing[0] = False
    assert recovery.run(now=0).calls == 3
    assert calls(journal) == [(f"c{n}", "abandoned") for n in range(3)]


def test_losses_that_a_worker_took_with_it_are_reported_once(
    journal: Path, tables: Path, recovery: Recovery, make_call: Any
) -> None:
    full = OSError(errno.ENOSPC, "full")

    def write(fd: int, data: bytes) -> int:
        raise full

    w = worker(journal, tables, disk=Disk(write))
    for n in range(BACKLOG + 7):
        call = make_call(f"c{n}")
        w.append(call, w.begin(call))
    os.close(w.table._fd)
    w.table._memory.close()
    done = recovery.run(now=0)
    assert (done.calls, done.lost) == (BACKLOG, 7)
    events = [r for r in records(journal) if isinstance(r, EventRecord)]
    assert [(e.kind, e.worker, e.detail["count"]) for e in events] == [("records_lost", 0, 7)]


def test_what_waited_without_a_slot_is_lost_with_its_worker(
    journal: Path, tables: Path, recovery: Recovery, make_call: Any
) -> None:
    failing = [True]

    def write(fd: int, data: bytes) -> int:
        if failing[0]:
            raise OSError(errno.ENOSPC, "full")
        return os.write(fd, data)

    moment = [0.0]
    w = worker(journal, tables, disk=Disk(write), monotonic=lambda: moment[0])
    w.append(make_call("a"), w.begin(make_call("a")))
    w.append(make_call("refused1"), -1)
    failing[0], moment[0] = False, 1.0
    w.tick()  # both are written
    failing[0] = True
    w.append(make_call("b"), w.begin(make_call("b")))
    for name in ("refused2", "refused3"):  # calls that were refused because they could not be recorded
        w.append(make_call(name), -1)
    os.close(w.table._fd)
    w.table._memory.close()
    done = recovery.run(now=0)
    assert (done.calls, done.lost) == (1, 2)
    assert calls(journal) == [("a", "ok"), ("b", "abandoned"), ("refused1", "ok")]
    assert [r.detail["count"] for r in records(journal) if isinstance(r, EventRecord)] == [2]


def test_older_processes_of_the_same_name_do_not_answer_for_it(
    journal: Path, tables: Path, recovery: Recovery, make_call: Any
) -> None:
    first = worker(journal, tables)
    first.begin(make_call("a"))
    die(first)
    second = worker(journal, tables)
    second.append(make_call("other"), -1)
    assert recovery.run(now=0).calls == 1
    assert ("a", "abandoned") in calls(journal)


def test_a_table_of_another_user_is_left_alone_and_said_once(
    journal: Path,
    tables: Path,
    recovery: Recovery,
    make_call: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    w = worker(journal, tables)
    w.begin(make_call("a"))
    path, real = w.table.path, os.open
    die(w)

    def open_(file: Any, *rest: Any, **options: Any) -> int:
        if file == path:
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, *rest, **options)

    monkeypatch.setattr(os, "open", open_)
    assert [recovery.run(now=0).tables for _ in range(3)] == [0, 0, 0]
    assert len(caplog.records) == 1
    monkeypatch.undo()
    assert recovery.run(now=0).calls == 1


def test_a_file_that_is_no_table_is_set_aside(tables: Path, recovery: Recovery) -> None:
    (tables / "w0-1-aa.mm").write_bytes(b"nonsense")
    assert recovery.run(now=0).tables == 0
    assert (tables / "w0-1-aa.unreadable").exists()


def test_drafts_of_the_killed_are_removed(tmp_path: Path) -> None:
    old, new = tmp_path / ".new-w0-aa", tmp_path / ".new-w0-bb"
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 3600,) * 2)
    remove_drafts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [new.name]
