"""Flights that the workers of one machine share: a file for each, in a directory of the state directory.

Theory of operation
* Whoever leads holds a lock on the first byte of the file; whoever follows holds a shared one on the second. The kernel
  drops them with the process, however it ends: nobody has to wait for a lease, and nobody is taken for dead who lives.
  (Locks of open file descriptions: two flights of one process do not share them.)
* Records are appended, each behind its length. They are written once somebody follows, and at the end.
* A file whose leader is gone is never led again: it is removed, and another takes its place. Where names are removed,
  a guard is held, so that nobody removes the file of another. It is held for a moment and never waited for.
* A leader whose answer was stored stays for a moment, until other workers find the answer there.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from gateway.frames import Frames, framed
from gateway.stores.flights_shared import Claim

LEADER, FOLLOWERS = 0, 1  # bytes that are locked
LINGER = 0.5  # seconds: ten times what an answer takes to be written into the store
AGAIN = 0.05  # seconds until the guard is tried again
TRIES = 8
CHUNK = 1_048_576
_LOCK = struct.Struct("hhqqi4x")  # struct flock


class FlightFiles:
    """Implements Medium. Raises OSError from the constructor alone."""

    poll = 0.01

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(mode=0o700, exist_ok=True)
        self._guard = os.open(directory / "guard", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.leads: set[FileLead] = set()
        self._sweep()

    async def claim(self, flight: bytes, tenant: str, key: bytes, slow: bytes) -> Claim:
        """Never suspends. The key of a flight tells tenants apart."""
        path = self.directory / hashlib.blake2b(flight, digest_size=16).hexdigest()
        with contextlib.suppress(OSError):
            for _ in range(TRIES):
                claim = self._claim(path, slow)
                if claim is not None:
                    return claim
        return Claim()

    def _claim(self, path: Path, slow: bytes) -> Claim | None:
        """None where it has to be tried once more."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            held, status = is_locked(fd, LEADER), os.fstat(fd)
            name = b"%d" % status.st_ino
            if status.st_nlink == 0:
                return None
            if (held and name == slow) or (not held and status.st_size):
                self.remove(path, fd)
            elif held:
                lock(fd, FOLLOWERS, fcntl.F_RDLCK)
                trail = FileTrail(os.dup(fd), name)
                return Claim(trail=trail)
            elif lock(fd, LEADER, fcntl.F_WRLCK) and is_new(fd):
                lead = FileLead(self, path, os.dup(fd), name)
                return Claim(lead=lead)
            return None
        finally:
            os.close(fd)

    def remove(self, path: Path, fd: int) -> bool:
        """Take the name from the file; False where the guard is taken."""
        if not lock(self._guard, LEADER, fcntl.F_WRLCK):
            return False
        try:
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_ino == os.fstat(fd).st_ino:
                    os.unlink(path)
        finally:
            lock(self._guard, LEADER, fcntl.F_UNLCK)
        return True

    def tick(self) -> None:
        """To be called now and then: who joined since the last piece reads what there is."""
        for lead in list(self.leads):
            lead.show()

    def close(self) -> None:
        """What is left is swept at the next start."""
        for lead in list(self.leads):
            lead.leave()
        os.close(self._guard)

    def _sweep(self) -> None:
        """Files whose leaders were killed."""
        for path in self.directory.iterdir():
            with contextlib.suppress(OSError):
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
                try:
                    if path.name != "guard" and not is_locked(fd, LEADER) and os.fstat(fd).st_size:
                        self.remove(path, fd)
                finally:
                    os.close(fd)


class FileLead:
    """Implements Lead."""

    def __init__(self, files: FlightFiles, path: Path, fd: int, name: bytes) -> None:
        self.name = name
        self._files, self._path = files, path
        self._fd = fd  # -1: closed
        self._unwritten: list[bytes] = []
        files.leads.add(self)

    @property
    def followed(self) -> bool:
        return self._fd >= 0 and is_locked(self._fd, FOLLOWERS)

    def say(self, record: bytes) -> None:
        if self._fd >= 0:
            self._unwritten.append(record)
            self.show()

    def show(self) -> None:
        """Write what there is, where anybody reads it."""
        if self._unwritten and self.followed:
            self._write()

    def part(self) -> None:
        if self._fd >= 0 and not self._files.remove(self._path, self._fd):
            asyncio.get_running_loop().call_later(AGAIN, self.part)

    def end(self, record: bytes, *, kept: bool) -> None:
        if self._fd < 0:
            return
        self._unwritten.append(record)
        if kept or self.followed:
            self._write()
        if kept:
            asyncio.get_running_loop().call_later(LINGER, self.close)
        else:
            self.close()

    def close(self) -> None:
        if self._fd >= 0 and not self._files.remove(self._path, self._fd):
            asyncio.get_running_loop().call_later(AGAIN, self.close)
        else:
            self.leave()

    def leave(self) -> None:
        """Followers find out."""
        fd, self._fd = self._fd, -1
        self._files.leads.discard(self)
        if fd >= 0:
            os.close(fd)

    def _write(self) -> None:
        data = b"".join(map(framed, self._unwritten))
        self._unwritten = []
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:  # the disk is full: whoever follows goes by itself
            self.close()


class FileTrail:
    """Implements Trail."""

    def __init__(self, fd: int, name: bytes) -> None:
        self.name = name
        self._fd = fd
        self._at = 0
        self._frames = Frames()

    async def read(self) -> tuple[Sequence[bytes], bool]:
        """Never suspends."""
        alive = is_locked(self._fd, LEADER)  # first: then all that a leader wrote before it died is read
        found: list[bytes] = []
        while data := os.pread(self._fd, CHUNK, self._at):
            self._at += len(data)
            found += self._frames.feed(data)
        return found, alive

    def leave(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def lock(fd: int, byte: int, kind: int) -> bool:
    """False where another has it. Never waits."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _LOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def is_locked(fd: int, byte: int) -> bool:
    """By another open file, in whatever way."""
    found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    return bool(_LOCK.unpack(found)[0] != fcntl.F_UNLCK)


def is_new(fd: int) -> bool:
    """It has its name, and nobody has written to it."""
    status = os.fstat(fd)
    return status.st_nlink > 0 and status.st_size == 0
