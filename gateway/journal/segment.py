"""Segments: the files of the journal, their names, header, frames and locks.

Rules
1. A segment `<writer>-<seq>.tgj` has one writer process in its life and is only ever appended to. The process holds
   an exclusive `flock` on it from before the file has its name until it closes it or dies: a segment is *sealed*
   exactly when that lock is free. No pid is ever compared.
2. The header (64 bytes, little-endian): magic, format u16, schema u16, flags u32 (0), created u64 (ns since the
   epoch), token (8 random bytes of the writing process), writer (24 bytes, zero-padded), crc32 u32 of what precedes,
   4 bytes zero. A file gets its name only after its header is written.
3. A frame: length u32, crc32 u32, payload. The checksum starts from the token and the length: neither zeros, nor old
   blocks of another file, nor captured content that imitates a frame can pass for one. A length of 0 or above
   `FRAME_LIMIT` is corruption.
4. A sequence number is never used again: the newest segment of a writer is not deleted while it holds a record.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from gateway.journal.record import SCHEMA

FORMAT = 1
MAGIC = b"TGJ\r\n\x1a\n\x00"
FRAME_LIMIT = 256 * 1024 * 1024

_HEADER = struct.Struct("<8sHHIQ8s24sI4x")
HEADER_BYTES = _HEADER.size
_FRAME = struct.Struct("<II")
FRAME_BYTES = _FRAME.size
_NAME = re.compile(r"^([A-Za-z0-9_]{1,24})-([0-9]{8})\.tgj$")
# A payload starts as a msgpack array whose first element is one of the record tags.
_PAYLOAD = re.compile(rb"(?:[\x91-\x9f]|\xdc..)(?:\xa4call|\xa7outcome|\xa5event)", re.DOTALL)

pack_frame = _FRAME.pack
unpack_frame = _FRAME.unpack_from
crc32 = zlib.crc32


class Disk(NamedTuple):
    """The file operations that may fail; tests inject failing ones."""

    write: Callable[[int, bytes], int] = os.write
    sync: Callable[[int], None] = os.fsync
    truncate: Callable[[int, int], None] = os.ftruncate


class Header(NamedTuple):
    writer: str
    created: int  # ns since the epoch
    token: bytes
    schema: int
    format: int

    @property
    def seed(self) -> int:
        return seed_of(self.token)


class Segment(NamedTuple):
    """A segment by its name; orders by writer, then sequence."""

    writer: str
    seq: int
    path: Path

    @property
    def name(self) -> str:
        return self.path.name


class Head(msgspec.Struct, array_like=True):
    """The first two fields of any record: enough to know which one it is."""

    tag: str
    id: str


decode_head = msgspec.msgpack.Decoder(Head).decode


def seed_of(token: bytes) -> int:
    """Where the checksums of a process's frames start."""
    return int.from_bytes(token[:4], "little")


def frame(payload: bytes, seed: int) -> bytes:
    size = len(payload)
    return pack_frame(size, crc32(payload, seed + size & 0xFFFFFFFF)) + payload


def listing(directory: Path) -> list[Segment]:
    """The segments in `directory`, by writer and sequence; a directory that does not exist has none."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    found = (_NAME.match(name) for name in names)
    return sorted(Segment(m[1], int(m[2]), directory / m[0]) for m in found if m)


def read_header(fd: int) -> Header | None:
    """None where the file is no segment of a format known here."""
    data = os.pread(fd, HEADER_BYTES, 0)
    if len(data) < HEADER_BYTES:
        return None
    magic, form, schema, _, created, token, writer, crc = _HEADER.unpack(data)
    if magic != MAGIC or form != FORMAT or crc != crc32(data[: HEADER_BYTES - 8]):
        return None
    return Header(writer.rstrip(b"\0").decode("ascii", "replace"), created, token, schema, form)


def create(
    directory: Path, writer: str, token: bytes, now: int, disk: Disk, *, sync: bool = False
) -> tuple[int, Segment]:
    """A new, locked segment after the newest of this writer; the descriptor appends. Raises OSError.

    With `sync` its name is on the disk when this returns.
    """
    head = _HEADER.pack(MAGIC, FORMAT, SCHEMA, 0, now, token, writer.encode(), 0)
    head = head[:-8] + struct.pack("<I4x", crc32(head[:-8]))
    fd, draft = locked_file(directory, writer, token, os.O_APPEND)
    try:
        if disk.write(fd, head) != len(head):
            raise OSError(errno.ENOSPC, "no space for a segment header")
        segment = _link(draft, directory, writer)
        if sync:
            _sync_directory(directory)
    except OSError:
        os.close(fd)
        raise
    finally:
        os.unlink(draft)
    return fd, segment


def _link(draft: Path, directory: Path, writer: str) -> Segment:
    while True:
        seq = max((s.seq for s in listing(directory) if s.writer == writer), default=0) + 1
        path = directory / f"{writer}-{seq:08d}.tgj"
        try:
            os.link(draft, path)
        except FileExistsError:  # another process of this name, still draining
            continue
        return Segment(writer, seq, path)


def locked_file(directory: Path, writer: str, token: bytes, flags: int = 0) -> tuple[int, Path]:
    """A new, empty, exclusively locked file without its final name yet; the caller links and unlinks it."""
    draft = directory / f".new-{writer}-{token.hex()}"
    fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | flags, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd, draft


def sealed(fd: int) -> bool:
    """Will nothing more be written here? True once the writing process closed the file or died."""
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return True


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def frame_at(data: bytes, at: int, seed: int) -> int:
    """End of the intact frame at `at`; 0 if it is incomplete as far as `data` goes; -1 if it is corrupt."""
    if at + FRAME_BYTES > len(data):
        return 0
    size, crc = unpack_frame(data, at)
    if not 0 < size <= FRAME_LIMIT:
        return -1
    end: int = at + FRAME_BYTES + size
    if end > len(data):
        return 0
    return end if crc32(data[at + FRAME_BYTES : end], seed + size & 0xFFFFFFFF) == crc else -1


def resync(data: bytes, at: int, seed: int) -> int:
    """Where the next intact frame after a damaged one at `at` starts, or -1."""
    for match in _PAYLOAD.finditer(data, at + FRAME_BYTES + 1):
        start = match.start() - FRAME_BYTES
        if frame_at(data, start, seed) > 0:
            return start
    return -1


def payloads(path: Path, chunk: int = 1 << 22) -> Iterator[bytes]:
    """Every intact payload of a file as it is now, damaged parts skipped. Raises OSError."""
    with open(path, "rb") as file:
        header = read_header(file.fileno())
        file.seek(HEADER_BYTES)
        data, more = b"", header is not None
        while more and header is not None:
            piece = file.read(chunk)
            more = bool(piece)
            data, at = data + piece, 0
            while at < len(data):
                end = frame_at(data, at, header.seed)
                if end > 0:
                    yield data[at + FRAME_BYTES : end]
                    at = end
                    continue
                start = resync(data, at, header.seed) if end < 0 or not more else -1
                if start < 0:
                    break
                at = start
            data = data[at:]
