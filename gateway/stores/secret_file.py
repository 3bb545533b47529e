"""Secrets of a state directory: random bytes in a private file, the same for all its processes."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

SECRET_BYTES = 32


def shared_secret(path: Path) -> bytes:
    """The secret at `path`, made by whichever process comes first. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    mine = path.with_name(f"{path.name}.{os.getpid()}")
    mine.unlink(missing_ok=True)
    fd = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(fd, os.urandom(SECRET_BYTES))
    finally:
        os.close(fd)
    with contextlib.suppress(FileExistsError):
        os.link(mine, path)
    mine.unlink()
    return path.read_bytes()
