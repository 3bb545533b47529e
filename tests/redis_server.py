"""A real redis-server on a free loopback port, for tests. It keeps nothing: stopped and started again it is empty."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from typing import Self

import pytest

from gateway.testing.gateway import free_port

PROGRAM = shutil.which("redis-server") or shutil.which("valkey-server")
NEEDS_REDIS = pytest.mark.skipif(PROGRAM is None, reason="redis-server is not installed")


class RedisServer:
    """Runs from the first; `with` ends it."""

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self._directory, self._options = tempfile.TemporaryDirectory(prefix="tollgate-redis-"), options
        self.password = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        assert PROGRAM is not None
        fixed = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", self._directory.name]
        self.process = subprocess.Popen([PROGRAM, *fixed, *self._options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            try:
                if self.ask("PING") in ("PONG", "ERR"):
                    return
            except OSError:
                assert time.monotonic() < deadline, "redis-server does not start"
                time.sleep(0.02)

    def stop(self) -> None:
        """At once, as a crash."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def hang(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)  # which lets those that have ended be

    def close(self) -> None:
        self.stop()
        self._directory.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, *words: object) -> object:
        """One command over a connection of its own; the answer as str, int, None or list. Errors are str, too."""
        data = [str(word).encode() for word in words]
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock:
            if self.password:
                sock.sendall(b"AUTH %s\r\n" % self.password.encode())
                assert sock.recv(100) == b"+OK\r\n"
            sock.sendall(b"*%d\r\n" % len(data) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in data))
            with sock.makefile("rb") as file:
                return _read(file)


def _read(file: object) -> object:
    line = file.readline().rstrip(b"\r\n")  # type: ignore[attr-defined]
    kind, rest = line[:1], line[1:].decode()
    if kind == b"$":
        if rest == "-1":
            return None
        return file.read(int(rest) + 2)[:-2].decode("utf-8", "backslashreplace")  # type: ignore[attr-defined]
    if kind == b"*":
        return [_read(file) for _ in range(int(rest))]
    return int(rest) if kind == b":" else rest
