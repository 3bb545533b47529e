from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gateway.recorder.keep import SnapshotFile


class Counter:
    def __init__(self, count: int = 0) -> None:
        self.count = count

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode(self.count)

    def restore(self, data: bytes) -> None:
        self.count = msgspec.msgpack.decode(data, type=int)


def test_state_and_place_come_back_together(tmp_path: Path) -> None:
    file = SnapshotFile(tmp_path / "snapshot")
    file.save(Counter(41), {"a": 1})
    file.save(Counter(42), {"a": 2, "b": 3})
    counter = Counter()
    assert SnapshotFile(tmp_path / "snapshot").restore(counter) == {"a": 2, "b": 3}
    assert counter.count == 42
    assert [path.name for path in tmp_path.iterdir()] == ["snapshot"]


@pytest.mark.parametrize("junk", [b"", b"\xc1", msgspec.msgpack.encode([{"a": 1}, b"\xc1"]), b"\x93\x01\x02\x03"])
def test_what_cannot_be_read_is_as_good_as_none(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "snapshot").write_bytes(junk)
    counter = Counter()
    assert SnapshotFile(tmp_path / "snapshot").restore(counter) == {}
    assert counter.count == 0


def test_no_file_is_a_beginning(tmp_path: Path) -> None:
    assert SnapshotFile(tmp_path / "snapshot").restore(Counter()) == {}


def test_a_disk_that_fails_leaves_the_file_before(tmp_path: Path) -> None:
    file = SnapshotFile(tmp_path / "snapshot")
    file.save(Counter(1), {"a": 1})
    (tmp_path / "snapshot.new").mkdir()
    file.save(Counter(2), {"a": 2})
    assert file.restore(Counter()) == {"a": 1}
