from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.config.schema import Journal
from gateway.journal.append import JournalWriter
from gateway.journal.read import JournalReader
from gateway.journal.record import EventRecord, OutcomeRecord, encode
from gateway.journal.segment import FRAME_BYTES, HEADER_BYTES, Disk, create, frame, listing, seed_of
from gateway.journal.verify import verify


def writer(directory: Path, name: str = "w0", **options: Any) -> JournalWriter:
    return JournalWriter(directory, name, Journal(), **options)


def put(to: JournalWriter, id: str, at: int = 0) -> None:
    assert to.append_record(OutcomeRecord(id, at, "run", "score"))


def drain(reader: JournalReader, limit: int = 4096) -> list[str]:
    found: list[str] = []
    while batch := reader.read(limit):
        assert len(batch) <= limit
        found += [record.id for _, record in batch]
    return found


def test_nothing_is_there_yet(tmp_path: Path) -> None:
    reader = JournalReader(tmp_path / "later")
    assert reader.read() == []
    (tmp_path / "later").mkdir()
    put(writer(tmp_path / "later"), "a")
    assert drain(reader) == ["a"]
    assert reader.lag_bytes() == 0


def test_follows_a_living_writer(journal: Path) -> None:
    w, reader = writer(journal), JournalReader(journal)
    for n in range(5):
        put(w, f"a{n}")
        assert reader.lag_bytes() > 0
        assert drain(reader) == [f"a{n}"]
        assert reader.lag_bytes() == 0


@pytest.mark.parametrize("limit", [1, 7, 4096])
def test_writers_are_merged_by_time(journal: Path, limit: int) -> None:
    writers = [writer(journal, f"w{n}") for n in range(3)]
    rng = random.Random(7)
    for n in range(300):
        put(rng.choice(writers), f"r{n}", at=n)
    assert drain(JournalReader(journal), limit) == [f"r{n}" for n in range(300)]


@pytest.mark.parametrize("limit", [1, 3, 10])
def test_resumes_where_it_was_committed(journal: Path, limit: int) -> None:
    for _ in range(3):
        w = writer(journal)
        for n in range(4):
            put(w, f"{w.token.hex()}{n}")
        w.close()
    positions: dict[str, int] = {}
    found: list[str] = []
    while True:
        reader = JournalReader(journal, positions)
        batch = reader.read(limit)
        found += [record.id for _, record in batch]
        assert all(positions.get(p.segment, 0) < p.offset for p, _ in batch)
        positions = reader.positions
        reader.close()
        if not batch:
            break
    assert len(found) == len(set(found)) == 12
    assert found == drain(JournalReader(journal))


def test_the_position_of_each_record_is_just_behind_it(journal: Path) -> None:
    w = writer(journal)
    for n in range(5):
        put(w, f"a{n}")
    for position, record in JournalReader(journal).read():
        again = JournalReader(journal, {position.segment: position.offset})
        assert drain(again) == [f"a{n}" for n in range(int(record.id[1]) + 1, 5)]


def test_goes_on_to_the_next_segment_only_when_the_last_is_sealed(journal: Path) -> None:
    old = writer(journal)
    put(old, "a", at=1)
    new = writer(journal)  # the same name, while the old process drains
    put(new, "c", at=3)
    reader = JournalReader(journal)
    assert drain(reader) == ["a", "c"]
    put(old, "b", at=2)
    assert drain(reader) == ["b"]
    old.close()
    put(new, "d", at=4)
    assert drain(reader) == ["d"]
    assert reader.damage.torn == 0


def test_a_frame_that_is_not_whole_is_waited_for_while_its_writer_lives(journal: Path) -> None:
    token = b"\x01" * 8
    fd, _ = create(journal, "w0", token, 0, Disk())
    data = frame(encode(OutcomeRecord("a", 0, "run", "score")), seed_of(token))
    reader = JournalReader(journal)
    for n in range(len(data)):
        assert reader.read() == []
        os.write(fd, data[n : n + 1])
    assert drain(reader) == ["a"]

    os.write(fd, data[:-1])
    assert reader.read() == []
    os.ftruncate(fd, HEADER_BYTES + len(data))  # the writer cuts a failed write off, and writes another
    os.write(fd, frame(encode(OutcomeRecord("b", 0, "a longer run than before", "score")), seed_of(token)))
    assert drain(reader) == ["b"]
    assert (reader.damage.torn, reader.damage.corrupt) == (0, 0)
    os.close(fd)


@pytest.mark.parametrize("cut", [1, 4, 8, 9, 20])
def test_a_torn_end_is_skipped_once_its_writer_is_gone(journal: Path, cut: int) -> None:
    w = writer(journal)
    put(w, "a")
    put(w, "b")
    w.close()
    path = listing(journal)[0].path
    os.truncate(path, path.stat().st_size - cut)
    reader = JournalReader(journal)
    assert drain(reader) == ["a"]
    assert reader.damage.torn == 0  # nothing follows: it could still be read when something does
    put(writer(journal), "c")
    assert drain(reader) == ["c"]
    assert reader.damage.torn == 1
    assert drain(JournalReader(journal, reader.positions)) == []


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def test_damage_costs_only_what_is_damaged(journal: Path) -> None:
    w = writer(journal)
    for n in range(10, 50):
        put(w, f"a{n}")
    w.close()
    path = listing(journal)[0].path
    size = (path.stat().st_size - HEADER_BYTES) // 40
    for n, part in ((11, FRAME_BYTES + 5), (13, 0), (45, 2), (49, 5)):  # payload, length, a length of 16 MB, checksum
        flip(path, HEADER_BYTES + (n - 10) * size + part)
    reader = JournalReader(journal)
    intact = [f"a{n}" for n in range(10, 45) if n not in (11, 13)]
    assert drain(reader) == intact  # the length of a45 asks to wait for bytes that may yet come
    put(writer(journal), "b")
    assert drain(reader) == ["a46", "a47", "a48", "b"]
    assert (reader.damage.corrupt, reader.damage.torn) == (3, 1)
    report = verify(journal)
    assert not report.ok
    assert report.records == len(intact) + 4


def test_zeros_of_a_lost_block_are_no_records(journal: Path) -> None:
    w = writer(journal)
    put(w, "a")
    w.close()
    with listing(journal)[0].path.open("ab") as file:
        file.write(bytes(5000))
    put(writer(journal), "b")
    reader = JournalReader(journal)
    assert drain(reader) == ["a", "b"]
    assert reader.damage.torn == 1


def test_captured_content_cannot_pass_for_a_record(journal: Path) -> None:
    """A client may send what looks like a frame; without the writer's token its checksum is wrong."""
    forged = frame(encode(OutcomeRecord("forged", 0, "run", "success")), 0)
    w = writer(journal)
    put(w, "a")
    assert w.append_record(EventRecord("e", 0, "x", 0, {"content": (forged * 3).decode("latin-1")}))
    w.close()
    path = listing(journal)[0].path
    flip(path, path.stat().st_size - 1)
    put(writer(journal), "b")
    assert drain(JournalReader(journal)) == ["a", "b"]


def test_what_is_no_record_of_this_schema_is_counted(journal: Path) -> None:
    token = b"\x01" * 8
    fd, _ = create(journal, "w0", token, 0, Disk())
    for payload in (b"\x93\xa6future\x01\x02", b"\xc1", encode(OutcomeRecord("a", 0, "run", "score"))):
        os.write(fd, frame(payload, seed_of(token)))
    reader = JournalReader(journal)
    assert drain(reader) == ["a"]
    assert reader.damage.undecodable == 2
    assert reader.lag_bytes() == 0
    os.close(fd)


def test_a_newer_record_with_more_fields_is_read(journal: Path) -> None:
    token = b"\x01" * 8
    fd, _ = create(journal, "w0", token, 0, Disk())
    payload = encode(EventRecord("a", 0, "start", 0, {}))
    assert payload[0] == 0x96
    os.write(fd, frame(b"\x97" + payload[1:] + b"\xa3new", seed_of(token)))
    assert drain(JournalReader(journal)) == ["a"]
    os.close(fd)


def test_files_that_are_no_segments(journal: Path) -> None:
    (journal / "w0-00000001.tgj").write_bytes(b"something else entirely, but long enough to be one of ours" * 3)
    (journal / "w0-00000002.tgj").write_bytes(b"")
    (journal / "notes.txt").write_text("x")
    (journal / ".new-w0-00").write_text("x")
    put(writer(journal), "a")
    reader = JournalReader(journal)
    assert drain(reader) == ["a"]
    assert reader.damage.unreadable == 2
    assert [s.readable for s in verify(journal).segments] == [False, False, True]


def test_a_segment_that_may_not_be_read_holds_up_no_other(
    journal: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for id in ("a", "b", "c"):
        log = writer(journal)
        put(log, id)
        log.close()
    (journal / "w1-00000001.tgj").mkdir()
    foreign, real = listing(journal)[1].path, os.open

    def open_(path: Any, *rest: Any, **options: Any) -> int:
        if path == foreign:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *rest, **options)

    monkeypatch.setattr(os, "open", open_)
    reader = JournalReader(journal)
    assert drain(reader) == ["a", "c"]
    assert reader.read() == []
    assert reader.damage.unreadable == 2
    assert sorted(record.message for record in caplog.records) == [
        f"journal: {foreign} is left out until it can be read: Permission denied",
        f"journal: {journal / 'w1-00000001.tgj'} is left out until it can be read: Is a directory",
    ]
    assert [(s.readable, s.fault) for s in verify(journal).segments][-1] == (False, "Is a directory")
    monkeypatch.undo()
    assert drain(reader) == ["b"]  # somebody gave it back
    reader.close()


def test_verify_leaves_out_what_is_deleted_meanwhile(journal: Path) -> None:
    put(writer(journal), "a")
    (journal / "w1-00000001.tgj").symlink_to(journal / "gone")
    report = verify(journal)
    assert (report.ok, report.records, len(report.segments)) == (True, 1, 1)


def test_deleted_segments_are_forgotten(journal: Path) -> None:
    first = writer(journal)
    put(first, "a")
    first.close()
    put(writer(journal), "b")
    reader = JournalReader(journal)
    drain(reader)
    listing(journal)[0].path.unlink()
    assert reader.read() == []
    assert list(reader.positions) == ["w0-00000002.tgj"]


def test_a_position_behind_the_end_belongs_to_another_file(journal: Path) -> None:
    put(writer(journal), "a")
    assert drain(JournalReader(journal, {"w0-00000001.tgj": 10**9})) == ["a"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=400), at=st.integers(0, 1200), replace=st.booleans())
def test_whatever_is_in_a_file_reading_ends_and_raises_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, at: int, replace: bool
) -> None:
    directory = tmp_path_factory.mktemp("journal")
    w = writer(directory)
    for n in range(20):
        put(w, f"a{n}")
    w.close()
    path = listing(directory)[0].path
    old = path.read_bytes()
    path.write_bytes(old[:at] + data + old[at + len(data) * replace :])
    put(writer(directory), "z")
    found = drain(JournalReader(directory))
    assert found[-1] == "z"
    assert set(found) <= {f"a{n}" for n in range(20)} | {"z"}
    verify(directory)
