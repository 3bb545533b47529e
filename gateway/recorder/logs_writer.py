"""Writes bytes to standard output or a file from a thread of its own, behind a bounded buffer."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import Protocol

from gateway.recorder.drops import Drops

_SIGNAL = "logs"
_WRITE = 1 << 16


class Sink(Protocol):
    def write(self, data: bytes) -> None:
        """All of `data`; may block. Raises OSError."""
        ...

    def close(self) -> None: ...


class StdoutSink:
    """File descriptor 1, unbuffered; whoever reads it decides how fast."""

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def close(self) -> None:
        pass


class FileSink:
    """A file to append to. Opened anew when its name no longer leads to it, so that it can be rotated by renaming."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._id = (0, 0)
        self._torn = False  # the last write ended amid a line

    def write(self, data: bytes) -> None:
        self._open()
        view = memoryview(b"\n" + data if self._torn else data)
        while view:
            view = view[os.write(self._fd, view) :]
            self._torn = bool(view)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        if self._fd >= 0 and self._current() == self._id:
            return
        self.close()
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        found = os.fstat(self._fd)
        self._id, self._torn = (found.st_dev, found.st_ino), False

    def _current(self) -> tuple[int, int]:
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            return (0, 0)
        return (found.st_dev, found.st_ino)


class Writer:
    """Takes chunks of whole lines; drops and counts what finds no room or cannot be written."""

    def __init__(self, sink: Sink, drops: Drops, limit: int) -> None:
        self._sink = sink
        self._drops = drops
        self._limit = limit
        self._chunks: deque[tuple[bytes, int]] = deque()
        self._size = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def offer(self, chunk: bytes, lines: int) -> bool:
        """Queue a chunk of `lines` lines; False if it was dropped. Never waits for the sink."""
        with self._changed:
            if self._size + len(chunk) > self._limit:
                self._drops.add(_SIGNAL, "buffer_full", lines)
                return False
            self._chunks.append((chunk, lines))
            self._size += len(chunk)
            self._changed.notify()
        return True

    def close(self, timeout: float) -> None:
        """Write what is buffered within `timeout` seconds; drop and count the rest."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        with self._changed:
            left = sum(lines for _, lines in self._chunks)
            self._chunks.clear()
        if left:
            self._drops.add(_SIGNAL, "shutdown", left)

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            data, lines = batch
            try:
                self._sink.write(data)
            except OSError:
                self._drops.add(_SIGNAL, "write_failed", lines)
        self._sink.close()

    def _next(self) -> tuple[bytes, int] | None:
        """Some chunks joined, and their lines; None at the end."""
        with self._changed:
            while not self._chunks:
                if self._stopping:
                    return None
                self._changed.wait()
            taken, lines, size = [], 0, 0
            while self._chunks and size < _WRITE:
                chunk, count = self._chunks.popleft()
                taken.append(chunk)
                lines += count
                size += len(chunk)
            self._size -= size
        return b"".join(taken), lines
