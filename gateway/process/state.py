"""The state directory: private, and of one gateway at a time.

Rules
1. Whoever holds the `flock` on its file `lock` has the directory. The recorder inherits the locked descriptors: when a
   supervisor is killed the directory stays taken until its recorder, which writes there, is gone too.
2. A gateway that ends as it should leaves the file empty. Where something stands in it the last one was killed, and
   its children may still be on their way out: what they hold becomes free in seconds, and is waited for.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

import msgspec
from msgspec import Struct

LOCK = "lock"
ORPHAN_SECONDS = 10.0  # for the recorder of a killed gateway to end
_POLL_SECONDS = 0.05


class StateUnusable(Exception):
    """The state directory cannot be used; the message says why and what to do."""


class Holder(Struct):
    """Who has the directory."""

    pid: int
    listen: str = ""
    admin: str = ""
    tls: bool = False  # on `listen`

    @property
    def alive(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def __str__(self) -> str:
        return f"process {self.pid}" + (f", listening on {self.listen}" if self.listen else "")


class StateDirectory:
    """`path` with its journal and in-flight directories, locked until `close` or the end of the process.

    Raises StateUnusable.
    """

    def __init__(self, path: Path, journal: Path, patience: float = ORPHAN_SECONDS) -> None:
        self.path = path
        self.journal = journal
        self.inflight = path / "inflight"
        self.unclean = False  # the gateway before this one was killed
        self.locks: list[int] = []  # descriptors
        self._patience = patience
        try:
            for directory in (path, journal, self.inflight):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock(path)
            if path not in journal.parents:  # two states with one journal: no
                self._lock(journal)
        except OSError as error:
            self._release()
            raise StateUnusable(f"cannot use {error.filename or path} to keep state: {error.strerror}") from None
        except StateUnusable:
            self._release()
            raise

    def describe(self, listen: str, admin: str = "", *, tls: bool = False) -> None:
        """Leave word of who holds the directory: for the message another gateway shows, and for who looks for it."""
        self._write(msgspec.json.encode(Holder(os.getpid(), listen, admin, tls)))

    def close(self) -> None:
        self._write(b"")
        self._release()

    def _write(self, data: bytes) -> None:
        for fd in self.locks:
            with contextlib.suppress(OSError):  # a full disk; the lock holds without it
                os.ftruncate(fd, 0)
                os.pwrite(fd, data, 0)

    def _release(self) -> None:
        for fd in self.locks:
            os.close(fd)
        self.locks = []

    def _lock(self, directory: Path) -> None:
        fd = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.locks.append(fd)
        deadline = time.monotonic() + self._patience
        while not _locked(fd):
            found = _holder(fd)
            if (found is not None and found.alive) or time.monotonic() > deadline:
                who = f" ({found})" if found is not None else ""
                raise StateUnusable(
                    f"{directory} is in use by another gateway{who}; stop that one, or give this one another `state`"
                )
            time.sleep(_POLL_SECONDS)
        self.unclean = self.unclean or _holder(fd) is not None


def holder(path: Path) -> Holder | None:
    """The gateway that has this state directory, as far as can be seen without touching its lock; None where none has.

    Its process id may belong to somebody else by now: ask its health before you believe it.
    """
    try:
        fd = os.open(path / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = _holder(fd)
    finally:
        os.close(fd)
    return found if found is not None and found.alive else None


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(fd: int) -> Holder | None:
    try:
        return msgspec.json.decode(os.pread(fd, 4096, 0), type=Holder)
    except (OSError, msgspec.DecodeError):
        return None
