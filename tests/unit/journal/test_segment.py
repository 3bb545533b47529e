from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from gateway.journal.record import SCHEMA, OutcomeRecord, encode
from gateway.journal.segment import (
    FORMAT,
    HEADER_BYTES,
    Disk,
    create,
    frame,
    frame_at,
    listing,
    payloads,
    read_header,
    resync,
    sealed,
    seed_of,
)

TOKEN = b"abcdefgh"
SEED = seed_of(TOKEN)


def payload(id: str) -> bytes:
    return encode(OutcomeRecord(id, 0, "run", "score"))


def test_a_new_segment_has_a_name_a_header_and_a_lock(tmp_path: Path) -> None:
    fd, segment = create(tmp_path, "w0", TOKEN, 77, Disk())
    assert (segment.name, segment.writer, segment.seq) == ("w0-00000001.tgj", "w0", 1)
    header = read_header(fd)
    assert header == ("w0", 77, TOKEN, SCHEMA, FORMAT)
    assert os.listdir(tmp_path) == [segment.name]
    assert segment.path.stat().st_mode & 0o777 == 0o600
    with segment.path.open("rb") as other:
        assert not sealed(other.fileno())
        os.close(fd)
        assert sealed(other.fileno())


def test_the_newest_of_a_name_counts_on(tmp_path: Path) -> None:
    (tmp_path / "w0-00000041.tgj").touch()
    (tmp_path / "w1-00000099.tgj").touch()
    fd, segment = create(tmp_path, "w0", TOKEN, 0, Disk())
    os.close(fd)
    assert segment.seq == 42
    assert [s.name for s in listing(tmp_path)] == ["w0-00000041.tgj", "w0-00000042.tgj", "w1-00000099.tgj"]


def test_a_name_taken_meanwhile_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.link

    def link(source: Path, target: Path) -> None:
        if target.name.endswith("1.tgj"):
            target.touch()
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    fd, segment = create(tmp_path, "w0", TOKEN, 0, Disk())
    os.close(fd)
    assert segment.seq == 2


@pytest.mark.parametrize("short", [True, False])
def test_a_header_that_cannot_be_written_leaves_nothing(tmp_path: Path, short: bool) -> None:
    def write(fd: int, data: bytes) -> int:
        if short:
            return os.write(fd, data[:10])
        raise OSError(errno.EIO, "bad")

    with pytest.raises(OSError, match=r"space|bad"):
        create(tmp_path, "w0", TOKEN, 0, Disk(write))
    assert os.listdir(tmp_path) == []


def test_with_sync_the_directory_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    os.close(create(tmp_path, "w0", TOKEN, 0, Disk())[0])
    assert synced == []
    os.close(create(tmp_path, "w0", TOKEN, 0, Disk(), sync=True)[0])
    assert len(synced) == 1


def test_frames() -> None:
    data = frame(payload("a"), SEED)
    assert frame_at(data, 0, SEED) == len(data)
    assert frame_at(data, 0, SEED + 1) == -1
    for cut in range(len(data)):
        assert frame_at(data[:cut], 0, SEED) == 0
    for at in range(4, len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1
        assert frame_at(bytes(damaged), 0, SEED) == -1
    assert frame_at(bytes(100), 0, SEED) == -1
    assert frame_at(b"\xff" * 100, 0, SEED) == -1


def test_resync_finds_the_next_intact_frame() -> None:
    first, second = frame(payload("a"), SEED), frame(payload("b"), SEED)
    data = b"\x00" * 13 + payload("not framed") + first + second
    assert resync(data, 0, SEED) == len(data) - len(first) - len(second)
    assert resync(data[:-1], len(data) - len(second), SEED) == -1


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_payloads_of_a_file_as_it_is(tmp_path: Path, chunk: int) -> None:
    fd, segment = create(tmp_path, "w0", TOKEN, 0, Disk())
    frames = [frame(payload(id), SEED) for id in "abcd"]
    damaged = frames[1][:-1] + b"\x00"
    os.write(fd, frames[0] + damaged + frames[2] + frames[3][:-3])
    assert list(payloads(segment.path, chunk)) == [payload("a"), payload("c")]
    os.close(fd)


@pytest.mark.parametrize("data", [b"", b"short", b"\x00" * 200, b"TGJ\r\n\x1a\n\x00" + b"\x00" * 200])
def test_files_without_a_header(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "w0-00000001.tgj"
    path.write_bytes(data)
    with path.open("rb") as file:
        assert read_header(file.fileno()) is None
    assert list(payloads(path)) == []


def test_a_header_of_another_format_is_none_of_ours(tmp_path: Path) -> None:
    fd, segment = create(tmp_path, "w0", TOKEN, 0, Disk())
    os.close(fd)
    data = bytearray(segment.path.read_bytes())
    assert len(data) == HEADER_BYTES
    data[8] += 1
    segment.path.write_bytes(data)
    with segment.path.open("rb") as file:
        assert read_header(file.fileno()) is None


def test_names_that_are_no_segments(tmp_path: Path) -> None:
    for name in ("w0-1.tgj", "w0-00000001.tmp", "w0.tgj", ".new-w0-00", "a b-00000001.tgj"):
        (tmp_path / name).touch()
    assert listing(tmp_path) == []
    assert listing(tmp_path / "nowhere") == []
