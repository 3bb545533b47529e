"""A directory for as long as a process needs it. That of a process that was killed goes when the next one is made.

Whoever made a directory holds its `flock`. A gateway that still runs in one, on its way out, is told by its state.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gateway.process.state import holder

STATE = "state"


@contextlib.contextmanager
def scratch(prefix: str) -> Iterator[Path]:
    """A new directory whose name begins so; the ones left behind are removed."""
    sweep(prefix)
    path, fd = _made(prefix)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(fd)


def sweep(prefix: str) -> None:
    """Remove what processes of this user that were killed left behind."""
    for path in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue  # of somebody else, or gone
        try:
            if os.fstat(fd).st_uid == os.geteuid() and _locked(fd) and holder(path / STATE) is None:
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(fd)


def _made(prefix: str) -> tuple[Path, int]:
    """The directory and the descriptor that holds it. Until it is locked another process may sweep it away."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=prefix))
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        if _locked(fd) and path.exists():
            return path, fd
        os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
