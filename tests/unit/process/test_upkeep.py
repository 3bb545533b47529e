from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.config.schema import Journal
from gateway.journal.append import JournalWriter
from gateway.journal.inflight import read_gauges
from gateway.journal.read import JournalReader
from gateway.journal.record import EventRecord, OutcomeRecord
from gateway.journal.segment import listing
from gateway.process.upkeep import RETAIN_EVERY, Upkeep


@pytest.fixture
def upkeep(tmp_path: Path) -> Upkeep:
    for name in ("journal", "inflight"):
        (tmp_path / name).mkdir()
    return Upkeep(tmp_path / "journal", tmp_path / "inflight", Journal(retention_bytes=1_048_576))


def fill(journal: Path, count: int) -> None:
    for n in range(count):
        writer = JournalWriter(journal, "w0", Journal())
        writer.append_record(OutcomeRecord(f"r{n}", 0, "run", "score", note="x" * 500_000))
        writer.close()


def events(journal: Path) -> list[tuple[str, dict[str, object]]]:
    reader, found = JournalReader(journal), []
    while batch := reader.read():
        found += [(r.kind, dict(r.detail)) for _, r in batch if isinstance(r, EventRecord)]
    reader.close()
    return found


def test_retention_follows_what_the_recorder_says(upkeep: Upkeep, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    fill(journal, 4)
    for _ in range(RETAIN_EVERY):
        upkeep.tick()
    assert len(listing(journal)) == 5  # nothing is known to be read
    upkeep.consumed = {s.name: s.path.stat().st_size for s in listing(journal)}
    for _ in range(RETAIN_EVERY):
        upkeep.tick()
    assert [s.name for s in listing(journal)] == ["sup-00000001.tgj", "w0-00000003.tgj", "w0-00000004.tgj"]
    gauges = read_gauges(tmp_path / "inflight")["sup"]
    assert gauges["journal_segments_deleted"] == 2
    assert 1_000_000 < gauges["journal_bytes"] < 1_048_576
    assert events(journal) == []
    upkeep.close()


def test_losses_of_the_hard_cap_are_recorded(upkeep: Upkeep, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    fill(journal, 7)
    upkeep.retain()
    ((kind, detail),) = events(journal)
    assert (kind, detail["count"]) == ("records_lost", 3)
    assert read_gauges(tmp_path / "inflight")["sup"]["journal_lost_records"] == 3
    upkeep.close()


def test_its_table_is_gone_when_it_closes(upkeep: Upkeep, tmp_path: Path) -> None:
    upkeep.event("start", pid=1)
    upkeep.configure(Journal(fsync=True))
    upkeep.event("stop")
    upkeep.close()
    upkeep.close()
    assert [kind for kind, _ in events(tmp_path / "journal")] == ["start", "stop"]
    assert list((tmp_path / "inflight").iterdir()) == []


def test_what_the_disk_refuses_is_put_off_and_said_once(
    upkeep: Upkeep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    journal, listed = tmp_path / "journal", os.listdir
    fill(journal, 4)
    upkeep.consumed = {s.name: s.path.stat().st_size for s in listing(journal)}

    def refused(directory: Path) -> list[str]:
        raise PermissionError(13, "Permission denied", str(directory))

    monkeypatch.setattr(os, "listdir", refused)
    for _ in range(3 * RETAIN_EVERY):
        upkeep.tick()
    said = [record.message for record in caplog.records]
    assert said == [f"journal: retention is put off: [Errno 13] Permission denied: '{journal}'"]
    monkeypatch.setattr(os, "listdir", listed)
    upkeep.retain()
    assert len(listing(journal)) == 3
    upkeep.close()
