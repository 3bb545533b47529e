from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.call import Asked
from gateway.config.schema import Journal
from gateway.errors import JournalUnavailable
from gateway.journal.append import BACKLOG, PROBE_SECONDS, JournalWriter
from gateway.journal.inflight import parse
from gateway.journal.read import JournalReader
from gateway.journal.record import CallRecord, EventRecord, OutcomeRecord, Record
from gateway.journal.segment import HEADER_BYTES, Disk, listing
from gateway.journal.verify import verify


class FailingDisk:
    """A disk that refuses on demand; `short` is how much of a refused write still lands."""

    def __init__(self) -> None:
        self.error: int | None = None
        self.short: int | None = None
        self.sync_error: int | None = None
        self.truncate_error: int | None = None
        self.done: list[str] = []

    @property
    def disk(self) -> Disk:
        return Disk(self.write, self.sync, self.truncate)

    def write(self, fd: int, data: bytes) -> int:
        self.done.append("write")
        if self.short is not None:
            return os.write(fd, data[: self.short])
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error))
        return os.write(fd, data)

    def sync(self, fd: int) -> None:
        self.done.append("sync")
        if self.sync_error is not None:
            raise OSError(self.sync_error, os.strerror(self.sync_error))

    def truncate(self, fd: int, size: int) -> None:
        self.done.append("truncate")
        if self.truncate_error is not None:
            raise OSError(self.truncate_error, os.strerror(self.truncate_error))
        os.ftruncate(fd, size)


class Bench:
    def __init__(self, directory: Path, tables: Path, **options: Any) -> None:
        self.directory = directory
        self.time = 100.0
        self.failing = FailingDisk()
        settings = options.pop("settings", Journal())
        self.writer = JournalWriter(
            directory,
            "w0",
            settings,
            worker=0,
            inflight=tables,
            disk=self.failing.disk,
            monotonic=lambda: self.time,
            now=lambda: int(self.time * 1e9),
            **options,
        )

    def pass_time(self) -> None:
        self.time += 2 * PROBE_SECONDS

    def records(self) -> list[Record]:
        return read_all(self.directory)

    def ids(self) -> list[str]:
        return [record.id for record in self.records() if isinstance(record, CallRecord)]

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        return [(record.kind, record.detail) for record in self.records() if isinstance(record, EventRecord)]


def read_all(directory: Path) -> list[Record]:
    reader, found = JournalReader(directory), []
    while batch := reader.read():
        found += [record for _, record in batch]
    reader.close()
    return found


@pytest.fixture
def bench(journal: Path, tables: Path) -> Callable[..., Bench]:
    return lambda **options: Bench(journal, tables, **options)


def test_what_is_appended_is_there_before_anything_is_closed(bench: Any, make_call: Any) -> None:
    b = bench()
    for n in range(3):
        call = make_call(f"c{n}")
        slot = b.writer.begin(call)
        assert len(b.writer.table) == 1
        b.writer.append(call, slot)
        assert b.ids() == [f"c{i}" for i in range(n + 1)]
    assert len(b.writer.table) == 0
    assert b.failing.done.count("write") == 1 + 3  # a header, and one write per record
    b.writer.close()
    b.writer.close()


def test_outcomes_and_events(bench: Any) -> None:
    b = bench()
    assert b.writer.append_record(OutcomeRecord("o1", 5, "run-1", "success"))
    assert b.writer.append_event("reload", generation=2)
    outcome, event = b.records()
    assert outcome == OutcomeRecord("o1", 5, "run-1", "success")
    assert isinstance(event, EventRecord)
    assert (event.kind, event.at, event.worker, event.detail) == ("reload", 100 * 10**9, 0, {"generation": 2})


def test_a_writer_that_wrote_nothing_leaves_nothing(bench: Any, tables: Path) -> None:
    b = bench()
    b.writer.close()
    assert listing(b.directory) == []
    assert list(tables.iterdir()) == []


def test_rotation(bench: Any, make_call: Any) -> None:
    b = bench(settings=Journal(segment_bytes=65_536))
    for n in range(300):
        b.writer.append(make_call(f"c{n}"), -1)
    segments = listing(b.directory)
    assert [s.seq for s in segments] == list(range(1, len(segments) + 1))
    assert len(segments) > 2
    assert all(s.path.stat().st_size <= 65_536 for s in segments)
    assert b.ids() == [f"c{n}" for n in range(300)]


def test_a_record_larger_than_a_segment_has_one_of_its_own(bench: Any, make_call: Any) -> None:
    b = bench(settings=Journal(segment_bytes=65_536), capture="full", capture_bytes=10**6)
    for id, size in (("a", 1), ("b", 300_000), ("c", 1)):
        b.writer.append(make_call(id, captured=b"x" * size), -1)
    assert b.ids() == ["a", "b", "c"]
    assert len(listing(b.directory)) == 3


def test_where_there_is_no_new_segment_the_old_one_grows(bench: Any, make_call: Any) -> None:
    b = bench(settings=Journal(segment_bytes=65_536))
    b.writer.append(make_call("a"), -1)
    moved = b.directory.with_name("moved")
    b.directory.rename(moved)  # the open file works, names in the directory do not
    for n in range(300):
        b.writer.append(make_call(f"c{n}"), -1)
    moved.rename(b.directory)
    assert len(b.ids()) == 301
    assert b.writer.lost == 0


def test_a_restarted_writer_never_continues_a_file(bench: Any, make_call: Any) -> None:
    first = bench()
    first.writer.append(make_call("a"), -1)
    second = bench()
    second.writer.append(make_call("b"), -1)
    assert [s.seq for s in listing(first.directory)] == [1, 2]
    assert first.ids() == ["a", "b"]


@pytest.mark.parametrize("landed", [0, 1, 7, 8, 9, 200])
@pytest.mark.parametrize("truncates", [True, False])
def test_a_short_write_costs_no_record_before_or_after(
    bench: Any, make_call: Any, landed: int, truncates: bool
) -> None:
    b = bench()
    b.writer.append(make_call("a"), -1)
    b.failing.truncate_error = None if truncates else errno.EIO
    b.failing.short = landed
    b.writer.append(make_call("b"), -1)
    assert b.writer.gauges.get("journal_failing") == 1
    b.failing.short = None
    b.pass_time()
    b.writer.append(make_call("c"), -1)
    assert b.ids() == ["a", "b", "c"]
    assert b.writer.gauges.get("journal_failing") == 0
    report = verify(b.directory)
    assert report.ok
    left = landed * (2 if landed > HEADER_BYTES else 1)  # the retry in a new segment was cut off as well
    assert sum(s.torn_bytes for s in report.segments) == (0 if truncates else left)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT, errno.EFBIG])
def test_calls_go_on_while_nothing_can_be_written(
    bench: Any, make_call: Any, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    b = bench()
    b.writer.append(make_call("before"), -1)
    b.failing.error = code
    with caplog.at_level(logging.WARNING):
        for n in range(BACKLOG + 50):
            call = make_call(f"c{n}")
            b.writer.append(call, b.writer.begin(call))
        for _ in range(5):
            b.pass_time()
            b.writer.tick()
    assert b.writer.lost == 50
    assert b.writer.gauges.get("journal_lost_records") == 50
    assert b.writer.gauges.get("journal_backlog") == BACKLOG
    assert len(b.writer.table) == BACKLOG  # they are in flight for as long as they are not written
    assert [record.levelname for record in caplog.records].count("ERROR") == 1

    b.failing.error = None
    b.pass_time()
    b.writer.tick()
    assert b.ids() == ["before", *(f"c{n}" for n in range(BACKLOG))]
    ((kind, detail),) = b.events()
    assert (kind, detail["count"]) == ("records_lost", 50)
    assert os.strerror(code) in detail["reason"]
    assert detail["since"] == 100 * 10**9 < detail["until"]
    assert len(b.writer.table) == 0
    assert b.writer.gauges.get("journal_failing") == b.writer.gauges.get("journal_lost_pending") == 0
    assert b.writer.gauges.get("journal_lost_records") == 50


def test_losses_are_reported_once(bench: Any, make_call: Any) -> None:
    b = bench()
    for _ in range(2):
        b.failing.error = errno.ENOSPC
        for _ in range(BACKLOG + 1):
            b.writer.append(make_call(), -1)
        b.failing.error = None
        b.pass_time()
        b.writer.tick()
    assert [detail["count"] for _, detail in b.events()] == [1, 1]
    assert b.writer.lost == 2


def test_probes_are_bounded_in_rate(bench: Any, make_call: Any) -> None:
    b = bench()
    b.failing.error = errno.EIO
    b.writer.append(make_call(), -1)
    before = len(b.failing.done)
    for _ in range(500):
        b.writer.append(make_call(), -1)
        b.writer.tick()
    assert len(b.failing.done) == before
    b.pass_time()
    b.writer.tick()
    assert len(b.failing.done) > before


def test_a_directory_that_is_missing_or_read_only_is_no_reason_not_to_start(tmp_path: Path, make_call: Any) -> None:
    b = Bench(tmp_path / "nowhere", tmp_path / "nothing")
    call = make_call("a")
    slot = b.writer.begin(call)
    assert slot == -1
    b.writer.append(call, slot)
    (tmp_path / "nowhere").mkdir()
    b.pass_time()
    b.writer.tick()
    assert b.ids() == ["a"]


def test_required_refuses_calls_only_while_it_fails(bench: Any, make_call: Any) -> None:
    b = bench(settings=Journal(required=True))
    call = make_call("a")
    slot = b.writer.begin(call)
    b.failing.error = errno.ENOSPC
    b.writer.append(call, slot)
    with pytest.raises(JournalUnavailable) as refusal:
        b.writer.begin(make_call("b"))
    assert refusal.value.retry_after == 1
    b.pass_time()
    with pytest.raises(JournalUnavailable):
        b.writer.begin(make_call("b"))
    b.failing.error = None
    with pytest.raises(JournalUnavailable):  # not probed again yet
        b.writer.begin(make_call("b"))
    b.pass_time()
    call = make_call("c")
    b.writer.append(call, b.writer.begin(call))
    assert b.ids() == ["a", "c"]


def test_fsync_comes_after_the_write_and_before_append_returns(bench: Any, make_call: Any) -> None:
    b = bench(settings=Journal(fsync=True))
    b.failing.done.clear()
    b.writer.append(make_call("a"), -1)
    assert b.failing.done == ["write", "sync"]


def test_after_a_failed_fsync_the_segment_is_left_and_nothing_is_written_twice(bench: Any, make_call: Any) -> None:
    b = bench(settings=Journal(fsync=True))
    b.writer.append(make_call("a"), -1)
    b.failing.sync_error = errno.EIO
    b.writer.append(make_call("b"), -1)
    for n in range(3):
        b.writer.append(make_call(f"c{n}"), -1)
    assert b.failing.done.count("sync") == 2  # never again on that segment
    b.failing.sync_error = None
    b.pass_time()
    b.writer.append(make_call("d"), -1)
    assert b.ids() == ["a", "b", "c0", "c1", "c2", "d"]
    ((kind, detail),) = b.events()
    assert (kind, detail["segment"]) == ("fsync_failed", "w0-00000001.tgj")
    assert b.writer.gauges.get("journal_fsync_failures") == 1
    assert verify(b.directory).ok


def test_an_fsync_that_keeps_failing_loses_no_record_of_the_backlog(bench: Any, make_call: Any) -> None:
    b = bench(settings=Journal(fsync=True))
    b.failing.sync_error = errno.EIO
    for n in range(20):
        b.writer.append(make_call(f"c{n}"), -1)
        b.pass_time()
    b.failing.sync_error = None
    b.writer.tick()
    assert sorted(b.ids()) == sorted(f"c{n}" for n in range(20))
    assert b.writer.lost == 0


def test_closing_in_trouble_counts_what_waited(bench: Any, make_call: Any, tables: Path) -> None:
    b = bench()
    b.failing.error = errno.ENOSPC
    call = make_call()
    b.writer.append(call, b.writer.begin(call))
    b.writer.append(make_call("refused"), -1)
    b.writer.close()
    b.writer.close()
    (path,) = tables.iterdir()  # stays, so that the loss is reported by whoever recovers it
    left = parse(path.read_bytes())
    assert left is not None
    assert (left.gauges["journal_lost_pending"], left.lost, left.intents) == (2, 2, [])


def test_closing_writes_what_waits_if_it_can(bench: Any, make_call: Any) -> None:
    b = bench()
    b.failing.error = errno.ENOSPC
    b.writer.append(make_call("a"), -1)
    b.failing.error = None
    b.writer.close()
    assert b.ids() == ["a"]


def test_without_waiting_the_caller_keeps_the_record(bench: Any) -> None:
    b = bench()
    b.failing.error = errno.EIO
    record = OutcomeRecord("o1", 5, "run-1", "success")
    assert not b.writer.append_record(record, wait=False)
    assert not b.writer.append_record(record, wait=False)
    b.failing.error = None
    b.pass_time()
    assert b.writer.append_record(record, wait=False)
    assert b.records() == [record]


def test_a_value_that_cannot_be_written_costs_only_itself(bench: Any, make_call: Any) -> None:
    b = bench()
    b.writer.append(make_call("a", asked=Asked(model="\ud800")), -1)
    (record,) = b.records()
    assert isinstance(record, CallRecord)
    assert (record.model_requested, record.cost) == ("?", 1_234)


def test_configure_takes_effect_from_the_next_record_on(bench: Any, make_call: Any) -> None:
    b = bench()
    b.writer.configure(Journal(fsync=True), capture="full")
    b.failing.done.clear()
    b.writer.append(make_call(captured=b"text"), -1)
    (record,) = b.records()
    assert isinstance(record, CallRecord)
    assert record.output_content == b"text"
    assert b.failing.done == ["write", "sync"]
