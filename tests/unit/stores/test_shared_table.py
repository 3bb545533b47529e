"""SharedTable: what was written is read back or missed, never mistaken, whoever writes at the same time or dies."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import signal
from collections.abc import Iterator
from hashlib import blake2b
from itertools import count
from pathlib import Path

import pytest

from gateway.stores.shared_table import BUCKET, SLOT, VALUE_LIMIT, WAYS, SharedTable

HAMMERS = 4
ROUNDS = 30_000


@pytest.fixture
def table(tmp_path: Path) -> Iterator[SharedTable]:
    table = SharedTable(tmp_path / "links", 1024, clock=count(1).__next__)
    yield table
    table.close()


def key(text: object) -> bytes:
    return blake2b(str(text).encode(), digest_size=16).digest()


def in_one_bucket(table: SharedTable, number: int) -> list[bytes]:
    return [(n * table.buckets).to_bytes(8, "little") + bytes(8) for n in range(1, number + 1)]


def test_reads_back_what_was_written(table: SharedTable) -> None:
    for n in range(500):
        table.put(key(n), b"%d" % n * 30)
    assert all(table.get(key(n)) in (b"%d" % n * 30, None) for n in range(500))
    assert sum(table.get(key(n)) is not None for n in range(500)) > 470
    assert table.get(key("never")) is None


def test_the_last_value_counts_and_takes_no_second_slot(table: SharedTable) -> None:
    for n in range(100):
        table.put(key("same"), b"%d" % n)
    assert table.get(key("same")) == b"99"
    assert Path(table_path(table)).read_bytes().count(key("same")) == 1


def test_empty_and_longest_values(table: SharedTable) -> None:
    table.put(key(1), b"")
    table.put(key(2), b"\xff" * VALUE_LIMIT)
    assert (table.get(key(1)), table.get(key(2))) == (b"", b"\xff" * VALUE_LIMIT)
    with pytest.raises(ValueError, match="201"):
        table.put(key(3), b"x" * 201)


def test_update_sees_the_value_and_may_leave_it(table: SharedTable) -> None:
    seen: list[bytes | None] = []

    def append(value: bytes | None) -> bytes | None:
        seen.append(value)
        return None if value == b"xx" else (value or b"") + b"x"

    for _ in range(4):
        table.update(b"k", append)
    assert seen == [None, b"x", b"xx", b"xx"]
    assert table.get(b"k") == b"xx"
    with pytest.raises(ValueError, match="201"):
        table.update(b"k", lambda _: b"x" * 201)


def test_keys_of_any_length(table: SharedTable) -> None:
    table.put(b"short", b"1")
    table.put(b"long" * 100, b"2")
    assert (table.get(b"short"), table.get(b"long" * 100)) == (b"1", b"2")


def test_a_full_bucket_gives_up_the_entry_written_longest_ago(table: SharedTable) -> None:
    keys = in_one_bucket(table, WAYS + 1)
    for one in keys[:WAYS]:
        table.put(one, one)
    table.put(keys[0], b"again")  # the first is now the youngest
    table.put(keys[WAYS], b"new")
    assert table.get(keys[1]) is None
    assert table.get(keys[0]) == b"again"
    assert [table.get(one) for one in keys[2:WAYS]] == keys[2:WAYS]


def test_a_key_inside_a_value_is_not_an_entry(table: SharedTable) -> None:
    keys = in_one_bucket(table, 2)
    table.put(keys[0], keys[1] * 12)
    assert table.get(keys[1]) is None


def test_every_flipped_byte_of_an_entry_is_a_miss(table: SharedTable) -> None:
    table.put(key("k"), b"value" * 8)
    path = Path(table_path(table))
    whole = path.read_bytes()
    start = whole.index(key("k")) - 4
    for at in range(start, start + 4 + 16 + 8 + 1 + 40):
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([whole[at] ^ 0x41]))
        assert table.get(key("k")) is None, at - start
        with path.open("r+b") as file:
            file.seek(at)
            file.write(whole[at : at + 1])
    assert table.get(key("k")) == b"value" * 8


def test_survives_reopening_and_is_made_anew_for_another_geometry(tmp_path: Path) -> None:
    path = tmp_path / "state" / "links"
    first = SharedTable(path, 64)
    first.put(key(1), b"kept")
    assert SharedTable(path, 64).get(key(1)) == b"kept"
    assert SharedTable(path, 128).get(key(1)) is None
    assert first.get(key(1)) == b"kept", "a process that has the old file open keeps it"
    path.write_bytes(b"something else")
    fresh = SharedTable(path, 128)
    fresh.put(key(2), b"works")
    assert fresh.get(key(2)) == b"works"


def test_the_file_is_sparse_private_and_bounded(tmp_path: Path) -> None:
    path = tmp_path / "links"
    table = SharedTable(path, 100_000)
    assert path.stat().st_size == BUCKET + 100_000 * SLOT
    assert path.stat().st_blocks * 512 < 65_536
    assert path.stat().st_mode & 0o077 == 0
    for n in range(2_000):
        table.put(key(n), b"x")
    assert path.stat().st_size == BUCKET + 100_000 * SLOT


def test_resident_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    table = SharedTable(tmp_path / "links", 100_000)
    table.put(key(0), b"x" * 100)
    before = resident()
    for n in range(100_000):
        table.put(key(n), b"x" * 100)
    assert resident() - before < 4 * 1024 * 1024


def test_a_disk_that_refuses_is_counted_not_raised(table: SharedTable, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "pwrite", full)
    table.put(key(1), b"v")
    assert table.lost == 1
    assert table.get(key(1)) is None


def test_a_file_cut_by_somebody_and_a_closed_table_miss(table: SharedTable) -> None:
    table.put(key(1), b"v")
    os.truncate(table_path(table), 100)
    assert table.get(key(1)) is None
    table.put(key(1), b"v")
    table.close()
    table.close()
    assert table.get(key(1)) is None
    table.put(key(1), b"v")
    assert table.lost == 1


def value_of(text: str, writer: int, turn: int) -> bytes:
    """A value that can be checked against its key: whatever is read must have been written whole, for this key."""
    head = b"%s:%d:%d:" % (text.encode(), writer, turn)
    return head + blake2b(head, digest_size=64).digest() * (turn % 2 + 1)


def hammer(path: str, writer: int, rounds: int, results: object) -> None:
    table = SharedTable(path, 64)  # few buckets: everybody overwrites everybody
    wrong = hits = 0
    for turn in range(rounds):
        text = f"key-{(turn * 7 + writer) % 96}"
        table.put(key(text), value_of(text, writer, turn))
        other = f"key-{(turn * 13 + writer * 5) % 96}"
        value = table.get(key(other))
        if value is not None:
            name, by, at, _ = value.split(b":", 3)
            hits += 1
            wrong += name.decode() != other or value != value_of(other, int(by), int(at))
    results.put((wrong, hits))  # type: ignore[attr-defined]


def test_processes_that_write_at_once_never_read_wrong_data(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    path = str(tmp_path / "links")
    workers = [context.Process(target=hammer, args=(path, n, ROUNDS, results)) for n in range(HAMMERS)]
    for worker in workers:
        worker.start()
    try:
        figures = [results.get() for _ in workers]
    finally:
        for worker in workers:
            worker.join(30)
            worker.kill()
    assert [wrong for wrong, _ in figures] == [0] * HAMMERS
    assert sum(hits for _, hits in figures) > HAMMERS * ROUNDS // 10


def hammer_for_ever(path: str, started: object) -> None:
    table = SharedTable(path, 64)
    for turn in count():
        text = f"key-{turn % 96}"
        table.put(key(text), value_of(text, 0, turn))
        if turn == 200:
            started.set()  # type: ignore[attr-defined]


def test_a_killed_writer_leaves_nothing_wrong(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    path = str(tmp_path / "links")
    started = context.Event()
    worker = context.Process(target=hammer_for_ever, args=(path, started))
    worker.start()
    try:
        assert started.wait(30)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
    finally:
        worker.join(30)
        worker.kill()
    table = SharedTable(path, 64)
    seen = 0
    for n in range(96):
        value = table.get(key(f"key-{n}"))
        if value is not None:
            name, by, at, _ = value.split(b":", 3)
            assert value == value_of(f"key-{n}", int(by), int(at))
            assert name == b"key-%d" % n
            seen += 1
    assert seen > 16
    table.put(key("after"), b"works")
    assert table.get(key("after")) == b"works"


def table_path(table: SharedTable) -> str:
    return os.readlink(f"/proc/self/fd/{table._fd}")


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()
