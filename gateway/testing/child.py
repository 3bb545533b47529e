"""Processes that end with the one that started them, however that one ends."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Sequence
from typing import Any


def start(command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """As `subprocess.Popen`. The child hears SIGTERM as soon as its `stdin` is closed here, which SIGKILL does, too.

    The kernel sends it for the pipe. PR_SET_PDEATHSIG would bind the child to the thread that starts it.
    """
    reading, writing = os.pipe()
    try:
        process = subprocess.Popen(command, stdin=reading, **options)  # noqa: S603 - callers run what is ours
    except BaseException:
        os.close(writing)
        raise
    else:
        process.stdin = os.fdopen(writing, "wb")
        fcntl.fcntl(reading, fcntl.F_SETOWN, process.pid)
        fcntl.fcntl(reading, fcntl.F_SETSIG, signal.SIGTERM)
        fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC)
        return process
    finally:
        os.close(reading)
