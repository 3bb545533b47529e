"""A bounded map in one file, shared by the worker processes of a machine. Implements `ports.Links`.

Rules
1. No lock on the path of a call, and nothing in memory: every process may be killed at any instant.
2. An entry is one slot with a checksum over all of it. A torn or half-overwritten slot fails its checksum and reads
   as a miss, never as wrong data. Two processes that insert the same key at once may leave two slots of that key; then
   an older value of the same key can be read after the newer one was evicted.
3. Bounded: a key may live only in the four slots of its bucket; a full bucket gives up the entry written longest ago.
4. `pread` and `pwrite` rather than a mapping: the pages belong to the page cache, not to the resident memory of every
   worker, and a full disk is an error here where it would be a SIGBUS there. One system call to read, two to write.

Layout: a header of one bucket, then buckets of 4 slots of 256 bytes:
crc32 of what follows (4) | key digest (16) | written at, ns (8) | length of the value (1) | value (<= 200).
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from struct import Struct
from zlib import crc32

WAYS = 4
SLOT = 256
BUCKET = WAYS * SLOT
KEY = 16
VALUE_LIMIT = 200
_MAGIC = b"tollgate links 1\n"
_CRC = Struct("<I")
_HEAD = Struct("<16sQB")  # the part under the checksum, followed by the value
_AT_VALUE = _CRC.size + _HEAD.size
_PREFIX = Struct("<Q")
_PREFIXES = Struct("<" + "4xQ244x" * WAYS)  # the first half of every key of a bucket
_TIMES = Struct("<" + "20xQ228x" * WAYS)
_GEOMETRY = Struct("<QI")


class SharedTable:
    """`slots` is rounded up to whole buckets; the file is sparse and grows to `slots` x 256 bytes as it fills.

    A file of another size or version is replaced: what is remembered here may be lost at any time. `lost` counts
    the writes that the disk refused. Raises OSError only from the constructor.
    """

    def __init__(self, path: str | Path, slots: int, clock: Callable[[], int] = time.time_ns) -> None:
        self.buckets = max(1, -(-slots // WAYS))
        self.lost = 0
        self._clock = clock
        self._fd = _open(Path(path), self.buckets)

    def get(self, key: bytes) -> bytes | None:
        if len(key) != KEY:
            key = _digest(key)
        try:
            return self._find(key)[1]
        except OSError:
            return None

    def put(self, key: bytes, value: bytes) -> None:
        """Raises ValueError for a value of more than 200 bytes."""
        self.update(key, lambda _: value)

    def update(self, key: bytes, change: Callable[[bytes | None], bytes | None]) -> None:
        """Put what `change` makes of the value in one read and one write; None leaves it as it is.

        Raises ValueError for a value of more than 200 bytes.
        """
        if len(key) != KEY:
            key = _digest(key)
        try:
            at, old = self._find(key)
            value = change(old)
            if value is None:
                return
            if len(value) > VALUE_LIMIT:
                raise ValueError(f"a value of {len(value)} bytes; {VALUE_LIMIT} is the limit")
            entry = _HEAD.pack(key, self._clock(), len(value)) + value
            os.pwrite(self._fd, _CRC.pack(crc32(entry)) + entry, at)
        except OSError:
            self.lost += 1

    def _find(self, key: bytes) -> tuple[int, bytes | None]:
        """Offset of the slot of this key, or of the one to give up for it; and its value. Raises OSError."""
        prefix = _PREFIX.unpack_from(key)[0]
        start = (1 + prefix % self.buckets) * BUCKET
        bucket = os.pread(self._fd, BUCKET, start)
        if len(bucket) < BUCKET:
            bucket = bucket.ljust(BUCKET, b"\0")  # the file was cut by somebody
        prefixes = _PREFIXES.unpack(bucket)
        if prefix not in prefixes:
            times = _TIMES.unpack(bucket)
            return start + times.index(min(times)) * SLOT, None
        at = prefixes.index(prefix) * SLOT
        end = at + _AT_VALUE + bucket[at + _AT_VALUE - 1]
        entry = bucket[at + _CRC.size : end]
        sound = crc32(entry) == _CRC.unpack_from(bucket, at)[0] and entry.startswith(key)
        return start + at, entry[_HEAD.size :] if sound else None

    def close(self) -> None:
        """Idempotent; afterwards every read misses and every write counts as lost."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _digest(key: bytes) -> bytes:
    return blake2b(key, digest_size=KEY).digest()


def _open(path: Path, buckets: int) -> int:
    """A descriptor of a table of this geometry; made anew (by rename, so that others keep theirs) where it differs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = (_MAGIC + _GEOMETRY.pack(buckets, BUCKET)).ljust(BUCKET, b"\0")
    size = (1 + buckets) * BUCKET
    guard = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(guard, fcntl.LOCK_EX)  # two workers that start together make one file
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.fstat(fd).st_size == size and os.pread(fd, BUCKET, 0) == head:
            return fd
        os.close(fd)
        fresh = path.with_name(path.name + ".new")
        fd = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        os.ftruncate(fd, size)
        os.pwrite(fd, head, 0)
        fresh.replace(path)
        return fd
    finally:
        os.close(guard)
