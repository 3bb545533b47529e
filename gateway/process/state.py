"""The state directory: private, and of one gateway at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

import msgspec
from msgspec import Struct

LOCK = "lock"


class StateUnusable(Exception):
    """The state directory cannot be used; the message says why and what to do."""


class Holder(Struct):
    """Who has the directory."""

    pid: int
    listen: str = ""


class StateDirectory:
    """`path` with its journal and in-flight directories, locked until `close` or the end of the process.

    Raises StateUnusable.
    """

    def __init__(self, path: Path, journal: Path) -> None:
        self.path = path
        self.journal = journal
        self.inflight = path / "inflight"
        try:
            for directory in (path, journal, self.inflight):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._fds = [self._lock(path)]
        except OSError as error:
            raise StateUnusable(f"cannot use {error.filename or path} to keep state: {error.strerror}") from None
        if path not in journal.parents:  # two states, one journal: no
            try:
                self._fds.append(self._lock(journal))
            except (OSError, StateUnusable) as error:
                self.close()
                raise StateUnusable(str(error)) from None

    def describe(self, listen: str) -> None:
        """Leave word of who holds the directory, for the message another gateway shows."""
        data = msgspec.json.encode(Holder(os.getpid(), listen))
        for fd in self._fds:
            with contextlib.suppress(OSError):  # a full disk; the lock holds without it
                os.ftruncate(fd, 0)
                os.pwrite(fd, data, 0)

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    def _lock(self, directory: Path) -> int:
        fd = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(fd)
            os.close(fd)
            raise StateUnusable(
                f"{directory} is in use by another gateway{holder}; stop that one, or give this one another `state`"
            ) from None
        return fd


def _holder(fd: int) -> str:
    try:
        holder = msgspec.json.decode(os.pread(fd, 4096, 0), type=Holder)
    except (OSError, msgspec.DecodeError):
        return ""
    where = f", listening on {holder.listen}" if holder.listen else ""
    return f" (process {holder.pid}{where})"
