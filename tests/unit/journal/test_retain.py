from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.config.schema import Journal
from gateway.journal.append import JournalWriter
from gateway.journal.record import OutcomeRecord
from gateway.journal.retain import DAY_NS, HARD_CAP, retain
from gateway.journal.segment import listing

SEGMENT = 700_000
RECORDS = 7


def fill(directory: Path, count: int, name: str = "w0") -> list[Path]:
    """`count` sealed segments of about SEGMENT bytes and RECORDS records each, last changed at day 0, 1, 2, ..."""
    paths = []
    for n in range(count):
        writer = JournalWriter(directory, name, Journal())
        for i in range(RECORDS):
            writer.append_record(OutcomeRecord(f"{name}-{n}-{i}", 0, "run", "score", note="x" * (SEGMENT // RECORDS)))
        writer.close()
        paths.append(listing(directory)[-1].path)
        os.utime(paths[-1], ns=(n * DAY_NS, n * DAY_NS))
    return paths


def sizes(paths: list[Path]) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in paths}


def test_read_segments_go_by_size_oldest_first(journal: Path) -> None:
    paths = fill(journal, 6)
    done = retain(journal, Journal(retention_bytes=3 * SEGMENT), sizes(paths), now=0)
    assert [path.exists() for path in paths] == [False] * 4 + [True] * 2
    assert (done.deleted, done.lost) == (4, 0)
    assert done.bytes == sum(path.stat().st_size for path in paths[4:]) <= 3 * SEGMENT


def test_read_segments_go_by_age(journal: Path) -> None:
    paths = fill(journal, 5)
    retain(journal, Journal(retention_days=2), sizes(paths), now=int(4.5 * DAY_NS))
    assert [path.exists() for path in paths] == [False, False, False, True, True]


def test_the_newest_of_a_writer_and_what_is_open_stay(journal: Path) -> None:
    paths = fill(journal, 2) + fill(journal, 1, "w1")
    open_one = JournalWriter(journal, "w0", Journal())
    open_one.append_record(OutcomeRecord("a", 0, "run", "score"))
    newer = JournalWriter(journal, "w0", Journal())
    newer.append_record(OutcomeRecord("b", 0, "run", "score"))
    everything = {s.name: s.path.stat().st_size for s in listing(journal)}
    retain(journal, Journal(retention_days=0.001), everything, now=10**20)
    assert [s.name for s in listing(journal)] == ["w0-00000003.tgj", "w0-00000004.tgj", "w1-00000001.tgj"]
    assert not paths[0].exists()


@pytest.mark.parametrize("consumed", [None, {}, "almost"])
def test_what_is_not_read_stays(journal: Path, consumed: object) -> None:
    paths = fill(journal, 4)
    known = {name: size - 1 for name, size in sizes(paths).items()} if consumed == "almost" else consumed
    done = retain(journal, Journal(retention_bytes=3 * SEGMENT, retention_days=0.01), known, now=10**20)  # type: ignore[arg-type]
    assert done.deleted == 0
    assert all(path.exists() for path in paths)


def test_beyond_the_hard_cap_it_goes_and_is_counted(journal: Path) -> None:
    paths = fill(journal, 9)
    read_to = paths[0].stat().st_size // 2
    done = retain(journal, Journal(retention_bytes=2 * SEGMENT), {paths[0].name: read_to}, now=0)
    gone = [path for path in paths if not path.exists()]
    assert gone == paths[: len(gone)]
    assert done.bytes <= HARD_CAP * 2 * SEGMENT < done.bytes + SEGMENT + 10_000
    assert 0 < done.lost < len(gone) * RECORDS


def test_read_ones_go_before_unread_ones(journal: Path) -> None:
    paths = fill(journal, 9)
    known = sizes(paths[4:8])
    done = retain(journal, Journal(retention_bytes=2 * SEGMENT + 50_000), known, now=0)
    assert [path.exists() for path in paths] == [False] + [True] * 3 + [False] * 4 + [True]
    assert done.lost == RECORDS


def test_nothing_there(tmp_path: Path) -> None:
    assert retain(tmp_path / "none", Journal(), {}, now=0) == (0, 0, 0, 0)
