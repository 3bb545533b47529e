"""Reading the journal: every writer's segments, in order, merged by time, resumable.

Rules
1. Within a segment the order of records is the order in the file; across segments records are merged by when they
   were written, as far as they are there.
2. A frame that is not whole yet is waited for while its writer lives. In a sealed segment it is torn: skipped, counted.
   A damaged frame is skipped up to the next intact one, and counted.
3. A segment is left for the next of its writer once it is sealed and read to its end. Where it is read to its end but
   its writer lives on (draining, while its successor works already) both are read.
4. A segment that may not be read (it is another user's) is said and counted once, asked for again and again, and holds
   up no other.
5. Nothing is kept of bytes that are not a whole frame: a writer may cut them off again.
"""

from __future__ import annotations

import heapq
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
from msgspec import Struct

from gateway.journal.record import CallRecord, Record, decode
from gateway.journal.segment import (
    FRAME_BYTES,
    HEADER_BYTES,
    Segment,
    frame_at,
    listing,
    read_header,
    resync,
    sealed,
    unpack_frame,
)

CHUNK = 1 << 20

_log = logging.getLogger("tollgate.journal")


class Position(NamedTuple):
    """Just behind a record."""

    segment: str
    offset: int


class Damage(Struct):
    """What could not be read, since the reader was made."""

    torn: int = 0  # incomplete last frames of dead writers
    corrupt: int = 0  # damaged places
    undecodable: int = 0  # intact frames that hold no record of this schema
    unreadable: int = 0  # files that are no segments


class _Cursor:
    """One segment being read."""

    __slots__ = ("_fd", "_seed", "buffer", "next", "offset", "segment", "valid")

    def __init__(self, segment: Segment, offset: int) -> None:
        self.segment = segment
        self.offset = max(offset, HEADER_BYTES)  # of what is buffered
        self.buffer: list[tuple[int, Position, Record]] = []
        self.next = 0
        self._fd = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            header = read_header(self._fd)
        except OSError:
            os.close(self._fd)
            raise
        self.valid = header is not None
        self._seed = header.seed if header is not None else 0
        if self.offset > os.fstat(self._fd).st_size:  # another file under an old name
            self.offset = HEADER_BYTES

    @property
    def exhausted(self) -> bool:
        return self.next >= len(self.buffer)

    def fill(self, damage: Damage) -> bool:
        """Have a record in the buffer; False at the end of what is there."""
        while self.exhausted:
            self.buffer, self.next = [], 0
            if not self._load(damage):
                return False
        return True

    def _load(self, damage: Damage) -> bool:
        """Read on; False where no whole frame follows."""
        start, size = self.offset, CHUNK
        while True:
            data = os.pread(self._fd, size, start)
            end = self._take(data, damage)
            if end > 0:
                self.offset = start + end
                return True
            if len(data) < size:  # all there is
                return False
            size *= 4

    def _take(self, data: bytes, damage: Damage) -> int:
        """Buffer the records of `data`; returns how far that went."""
        at, base, name, out = 0, self.offset, self.segment.name, self.buffer
        while True:
            end = frame_at(data, at, self._seed)
            if end > 0:
                try:
                    record = decode(data[at + FRAME_BYTES : end])
                except msgspec.DecodeError:  # ValidationError is one
                    damage.undecodable += 1
                else:
                    out.append((_written(record), Position(name, base + end), record))
                at = end
                continue
            if end == 0:
                return at
            start = self._skip(data, at, damage)
            if start < 0:
                return at
            at = start

    def _skip(self, data: bytes, at: int, damage: Damage) -> int:
        """Step over damage at `at`: where to go on, or -1 to wait or to stop."""
        size = unpack_frame(data, at)[0]
        behind = at + FRAME_BYTES + size
        start = behind if size and frame_at(data, behind, self._seed) > 0 else resync(data, at, self._seed)
        if start > 0:
            damage.corrupt += 1
        return start

    def finished(self, damage: Damage) -> bool:
        """At the end of what is there: will nothing follow? Steps over what is left in a sealed segment."""
        if not sealed(self._fd) or self.fill(damage):
            return False
        rest = os.pread(self._fd, os.fstat(self._fd).st_size - self.offset, self.offset)
        start = resync(rest, 0, self._seed)
        if start > 0:
            damage.corrupt += 1
            self.offset += start
            return not self.fill(damage)
        damage.torn += bool(rest)
        self.offset += len(rest)
        return True

    def close(self) -> None:
        os.close(self._fd)


class JournalReader:
    """Follows all segments in `directory` from committed positions ({segment name: offset}).

    Not thread-safe. `read` never blocks and never raises for damaged data; it raises OSError where the disk does.
    """

    def __init__(self, directory: Path, positions: Mapping[str, int] | None = None) -> None:
        self.damage = Damage()
        self._directory = directory
        self._positions = dict(positions or {})
        self._cursors: dict[str, _Cursor] = {}
        self._done: set[str] = set()
        self._refused: set[str] = set()

    @property
    def positions(self) -> dict[str, int]:
        """How far `read` has delivered, by segment; commit this with what was made of the records."""
        return dict(self._positions)

    def read(self, limit: int = 4096) -> list[tuple[Position, Record]]:
        """The next records, oldest first, at most `limit`; empty when there is nothing new."""
        self._refresh()
        out: list[tuple[Position, Record]] = []
        heap = [
            (cursor.buffer[cursor.next][0], index, cursor)
            for index, cursor in enumerate(self._cursors.values())
            if cursor.fill(self.damage)
        ]
        heapq.heapify(heap)
        while heap and len(out) < limit:
            if len(heap) == 1:
                self._drain(heap[0][2], out, limit)
                break
            _, index, cursor = heap[0]
            _, position, record = cursor.buffer[cursor.next]
            cursor.next += 1
            out.append((position, record))
            if cursor.fill(self.damage):
                heapq.heapreplace(heap, (cursor.buffer[cursor.next][0], index, cursor))
            else:
                heapq.heappop(heap)
        for position, _ in out:
            self._positions[position.segment] = position.offset
        return out

    def lag_bytes(self) -> int:
        """Bytes in the journal that were not delivered yet."""
        total = 0
        for segment in listing(self._directory):
            if segment.name not in self._done:
                cursor = self._cursors.get(segment.name)
                read = cursor.offset if cursor is not None and cursor.exhausted else 0
                total += max(0, _size(segment) - max(read, self._positions.get(segment.name, HEADER_BYTES)))
        return total

    def close(self) -> None:
        for cursor in self._cursors.values():
            cursor.close()
        self._cursors.clear()

    def _drain(self, cursor: _Cursor, out: list[tuple[Position, Record]], limit: int) -> None:
        while len(out) < limit and cursor.fill(self.damage):
            stop = cursor.next + limit - len(out)
            taken = cursor.buffer[cursor.next : stop]
            cursor.next += len(taken)
            out.extend([(position, record) for _, position, record in taken])

    def _refresh(self) -> None:
        """Open what is to be read now (rule 3), forget what is finished or deleted."""
        segments = listing(self._directory)
        names = {segment.name for segment in segments}
        for name in [name for name in self._positions if name not in names and name not in self._cursors]:
            del self._positions[name]
        self._done &= names
        blocked = ""
        for index, segment in enumerate(segments):
            if segment.writer == blocked or segment.name in self._done:
                continue
            newest = index + 1 == len(segments) or segments[index + 1].writer != segment.writer
            cursor = self._cursors.get(segment.name) or self._open(segment)
            if cursor is None:
                continue
            if not cursor.fill(self.damage) and not newest and cursor.finished(self.damage):
                self._finish(cursor)
            elif not cursor.exhausted:
                blocked = segment.writer

    def _open(self, segment: Segment) -> _Cursor | None:
        offset = self._positions.get(segment.name, HEADER_BYTES)
        try:
            cursor = _Cursor(segment, offset)
        except FileNotFoundError:  # deleted meanwhile
            return None
        except (PermissionError, IsADirectoryError) as error:
            if segment.name not in self._refused:
                self._refused.add(segment.name)
                self.damage.unreadable += 1
                _log.error("journal: %s is left out until it can be read: %s", segment.path, error.strerror)
            return None
        if not cursor.valid:
            cursor.close()
            self._done.add(segment.name)
            self.damage.unreadable += 1
            return None
        self._cursors[segment.name] = cursor
        return cursor

    def _finish(self, cursor: _Cursor) -> None:
        cursor.close()
        name = cursor.segment.name
        del self._cursors[name]
        self._done.add(name)
        self._positions[name] = cursor.offset


def _written(record: Record) -> int:
    """When a record was written, ns since the epoch."""
    if isinstance(record, CallRecord):
        return record.started_at + record.duration_ns
    return record.at


def _size(segment: Segment) -> int:
    try:
        return segment.path.stat().st_size
    except FileNotFoundError:
        return 0
