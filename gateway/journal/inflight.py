"""Calls in flight and gauges of one process, in a mapped file that outlives it.

Layout (little-endian): a page of 4,096 bytes, then slots of 512.

    page   magic 8s, version u32, slot bytes u32, created u64 (ns), token 8s, worker i32, 4 zero, writer 24s
           from 256: gauges, 96 times (name 32s, value f64)
    slot   length u32 (0: free), crc32 u32, msgpack array `Intent`

Rules
1. The process holds an exclusive `flock` on the file from before it has its name: whoever can lock it knows that the
   process is gone, and owns the recovery.
2. A slot is taken by writing its payload first and (length, crc32) last, and freed by zeroing those eight bytes after
   the record of the call is in the journal. So a process killed anywhere leaves a slot for every call that had begun
   and whose record is not written, and at most one whose record is: the one it was closing.
3. The space is allocated at the start: a full disk must not turn a store into memory into a fatal signal.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import msgspec
from msgspec import Struct

from gateway.call import Call
from gateway.journal.segment import locked_file, sealed

SUFFIX = ".mm"
PAGE = 4096
SLOT = 512
SLOTS = 4096
SLOTS_MAX = 65_536
UNMARKED = "journal_backlog_unmarked"  # gauge: records that wait to be written and have no slot here
_MAGIC = b"TGI\r\n\x1a\n\x00"
_HEAD = struct.Struct("<8sIIQ8si4x24s")
_MARK = struct.Struct("<II")
_FREE = bytes(_MARK.size)
_GAUGES_AT = 256
_NAME_BYTES = 32
_GAUGE_BYTES = _NAME_BYTES + 8
_GAUGE_COUNT = (PAGE - _GAUGES_AT) // _GAUGE_BYTES
_F64 = struct.Struct("<d")
_ROOM = SLOT - _MARK.size


class Intent(Struct, array_like=True):
    """What is known of a call when it begins."""

    id: str
    started_at: int  # ns since the epoch
    method: str
    route: str
    dialect: str
    operation: str
    upstream: str
    stream: bool
    model: str
    tenant: str
    agent: str
    run_id: str
    step: int
    trace_id: str
    span_id: str
    parent_span_id: str


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Intent).decode


class Gauges:
    """Named numbers that other processes may read at any time; up to 96 names of up to 32 bytes."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory
        self._at: dict[str, int] = {}

    def set(self, name: str, value: float) -> None:
        at = self._at.get(name)
        if at is None:
            at = self._place(name)
        _F64.pack_into(self._memory, at, value)

    def add(self, name: str, delta: float = 1.0) -> None:
        self.set(name, self.get(name) + delta)

    def get(self, name: str) -> float:
        at = self._at.get(name)
        if at is None:
            return 0.0
        value: float = _F64.unpack_from(self._memory, at)[0]
        return value

    def _place(self, name: str) -> int:
        key = name.encode("ascii")
        if len(self._at) >= _GAUGE_COUNT or not 0 < len(key) <= _NAME_BYTES:
            raise ValueError(f"no place for a gauge named {name!r}")
        at = _GAUGES_AT + len(self._at) * _GAUGE_BYTES
        self._memory[at : at + _NAME_BYTES] = key.ljust(_NAME_BYTES, b"\0")
        self._at[name] = at + _NAME_BYTES
        return at + _NAME_BYTES


class InFlight:
    """The table of this process. Raises OSError where the file cannot be made; `anonymous()` needs none."""

    def __init__(
        self, directory: Path | None, writer: str, token: bytes, *, worker: int = -1, now: int = 0, slots: int = SLOTS
    ) -> None:
        self.path: Path | None = None
        self.overflows = 0
        self._fd = -1
        self._slots = slots
        self._free = list(range(slots - 1, -1, -1))
        head = _HEAD.pack(_MAGIC, 1, SLOT, now, token, worker, writer.encode())
        if directory is None:
            self._memory = mmap.mmap(-1, PAGE)
        else:
            self._memory = self._map(directory, writer, token, head)
        self.gauges = Gauges(self._memory)

    def _map(self, directory: Path, writer: str, token: bytes, head: bytes) -> mmap.mmap:
        fd, draft = locked_file(directory, writer, token)
        try:
            os.posix_fallocate(fd, 0, PAGE + self._slots * SLOT)
            memory = mmap.mmap(fd, PAGE + self._slots * SLOT)
            memory[: len(head)] = head
            path = directory / f"{writer}-{os.getpid()}-{token.hex()}{SUFFIX}"
            os.link(draft, path)
        except OSError:
            os.close(fd)
            raise
        finally:
            draft.unlink(missing_ok=True)
        self._fd, self.path = fd, path
        return memory

    @classmethod
    def anonymous(cls, writer: str, token: bytes) -> Self:
        """Gauges in memory alone and no slots: nothing survives the process."""
        return cls(None, writer, token, slots=0)

    def __len__(self) -> int:
        """How many slots are taken."""
        return self._slots - len(self._free)

    def begin(self, call: Call) -> int:
        """Take a slot for a call; -1 (and a count) where none is left."""
        route, who, trace = call.route, call.who, call.trace
        intent = (  # the fields of `Intent`
            call.id,
            call.started_at,
            call.request.method.decode("latin-1"),
            route.template,
            route.dialect,
            route.operation,
            route.upstream,
            call.asked.stream,
            call.asked.model,
            who.tenant,
            who.agent,
            who.run_id,
            who.step,
            trace.trace_id,
            trace.span_id,
            trace.parent_id,
        )
        try:
            data = _encode(intent)
        except (UnicodeError, OverflowError, TypeError):
            data = _shortened(Intent(*intent))
        if len(data) > _ROOM:
            data = _shortened(Intent(*intent))
        return self.put(data)

    def put(self, data: bytes) -> int:
        if not self._free and not self._grow():
            self.overflows += 1
            self.gauges.set("inflight_overflows", self.overflows)
            return -1
        slot = self._free.pop()
        at = PAGE + slot * SLOT
        size = len(data)
        self._memory[at + 8 : at + 8 + size] = data
        _MARK.pack_into(self._memory, at, size, zlib.crc32(data))
        return slot

    def clear(self, slot: int) -> None:
        if slot >= 0:
            at = PAGE + slot * SLOT
            self._memory[at : at + 8] = _FREE
            self._free.append(slot)

    def _grow(self) -> bool:
        slots = min(SLOTS_MAX, self._slots * 2)
        if slots == self._slots or self._fd < 0:
            return False
        size = PAGE + slots * SLOT
        try:
            os.posix_fallocate(self._fd, 0, size)
            self._memory.resize(size)
        except (OSError, ValueError):
            return False
        self._free.extend(range(slots - 1, self._slots - 1, -1))
        self._slots = slots
        return True

    @property
    def closed(self) -> bool:
        return self._memory.closed

    def close(self) -> None:
        """Give the file up; it disappears unless something in it is still to be recovered. Idempotent."""
        if self.closed:
            return
        settled = not len(self) and not self.gauges.get("journal_lost_pending")
        self._memory.close()
        if self._fd >= 0:
            if settled and self.path is not None:
                self.path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1


def _shortened(intent: Intent) -> bytes:
    """An intent that fits: long or unencodable texts lose their tail, the id last."""
    fields: list[Any] = [
        value.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore") if isinstance(value, str) else value
        for value, limit in zip(msgspec.structs.astuple(intent), _LIMITS, strict=True)
    ]
    return _encode(Intent(*fields))


_LIMITS = (64, 0, 8, 40, 16, 16, 32, 0, 48, 32, 32, 48, 0, 32, 16, 16)


class Leftover(Struct):
    """What a process left behind, or shows while it lives."""

    writer: str
    worker: int
    created: int  # ns since the epoch
    token: bytes
    gauges: dict[str, float]
    intents: list[Intent]

    @property
    def lost(self) -> int:
        """Records that went with a process that is dead, beside its calls in flight."""
        return int(self.gauges.get("journal_lost_pending", 0) + self.gauges.get(UNMARKED, 0))


def parse(data: bytes) -> Leftover | None:
    """Read a table; None where `data` is none. `data` may be its first page alone."""
    if len(data) < PAGE:
        return None
    magic, version, slot_bytes, created, token, worker, writer = _HEAD.unpack_from(data)
    if magic != _MAGIC or version != 1 or slot_bytes != SLOT:
        return None
    gauges: dict[str, float] = {}
    for at in range(_GAUGES_AT, PAGE - _GAUGE_BYTES + 1, _GAUGE_BYTES):
        name = data[at : at + _NAME_BYTES].rstrip(b"\0").decode("ascii", "replace")
        if not name:
            break
        gauges[name] = _F64.unpack_from(data, at + _NAME_BYTES)[0]
    return Leftover(
        writer.rstrip(b"\0").decode("ascii", "replace"), worker, created, token, gauges, list(_intents(data))
    )


def _intents(data: bytes) -> Iterator[Intent]:
    for at in range(PAGE, len(data) - SLOT + 1, SLOT):
        size, crc = _MARK.unpack_from(data, at)
        payload = data[at + 8 : at + 8 + size]
        if 0 < size <= _ROOM and zlib.crc32(payload) == crc:
            with contextlib.suppress(msgspec.DecodeError):  # ValidationError is one
                yield _decode(payload)


def read_gauges(directory: Path) -> dict[str, dict[str, float]]:
    """Gauges of every living process, by writer name ("w0"). Files of dead processes are left out."""
    found: dict[str, Leftover] = {}
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        # One that a gateway of another user left behind is no file of a living process.
        with contextlib.suppress(FileNotFoundError, PermissionError), open(path, "rb") as file:
            left = None if sealed(file.fileno()) else parse(file.read(PAGE))
            if left is not None and (left.writer not in found or found[left.writer].created < left.created):
                found[left.writer] = left
    return {writer: left.gauges for writer, left in found.items()}
