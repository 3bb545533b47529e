"""A recorder process for tests, with the test in the place of the supervisor."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from gateway.config.schema import Config, Journal, Telemetry
from gateway.process.control import (
    Configure,
    Configured,
    Drain,
    Message,
    Ready,
    Status,
    ToChild,
    Unpacker,
    WorkerStatus,
    pack,
)

M = TypeVar("M", bound=Message)
SECONDS = 20.0
FOREVER = Journal(retention_days=36_500)  # records of tests are of any age


class RecorderProcess:
    """`state` holds ledger and journal (in "journal"); the admin port is the system's choice."""

    def __init__(
        self, state: Path, config: Config | None = None, *, ready: bool = True, env: Mapping[str, str] | None = None
    ) -> None:
        self.state = state
        self.journal = state / "journal"
        self.inflight = state / "inflight"
        for directory in (self.journal, self.inflight):
            directory.mkdir(parents=True, exist_ok=True)
        self.config = config or Config(state=str(state), telemetry=Telemetry(log=None), journal=FOREVER)
        self._env = env
        self._ready = ready
        self._admin = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._admin.getsockname()[1]}"
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._unpacker = Unpacker()
        self._received: list[Message] = []

    def __enter__(self) -> Self:
        self.start(ready=self._ready)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._admin.close()

    def start(self, *, ready: bool = True) -> None:
        ours, theirs = socket.socketpair()
        fds = (theirs.fileno(), self._admin.fileno())
        command = [sys.executable, "-m", "gateway.recorder.service", "--control", str(fds[0]), "--listen", str(fds[1])]
        self._process = subprocess.Popen(command, pass_fds=fds, env=self._env)  # noqa: S603 - our own module
        theirs.close()
        self._control, self._unpacker, self._received = ours, Unpacker(), []
        self.configure(self.config)
        self.status()
        if ready:
            self.receive(Ready)

    def configure(self, config: Config, generation: int = 1) -> None:
        state, inflight, journal = str(self.state), str(self.inflight), str(self.journal)
        self.send(Configure(config, generation, state, inflight, journal, "127.0.0.1:8787", config.admin, -1))

    def reconfigure(self, config: Config, generation: int) -> Configured:
        """Returns the recorder's answer."""
        self._received = [m for m in self._received if not isinstance(m, Configured)]
        self.configure(config, generation)
        return self.receive(Configured)

    def status(self, *, draining: bool = False, ready: bool = True) -> None:
        now = time.time_ns()
        self.send(Status(now, draining, (WorkerStatus(0, 1, ready, 0),), 1, now, True, 0))

    def send(self, message: ToChild) -> None:
        assert self._control is not None
        self._control.sendall(pack(message))

    def receive(self, kind: type[M], seconds: float = SECONDS) -> M:
        """The first message of this kind, now or later. Raises TimeoutError, and EOFError where the process ended."""
        assert self._control is not None
        self._control.settimeout(seconds)
        while True:
            for message in self._received:
                if isinstance(message, kind):
                    return message
            data = self._control.recv(65_536)
            if not data:
                raise EOFError("the recorder ended")
            self._received += self._unpacker.feed(data)

    def get(self, path: str, *, method: str = "GET", body: object = None, **headers: str) -> tuple[int, Any]:
        """Status and body: JSON where it is."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310 - loopback
        if data is not None:
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310 - loopback
                status, text, kind = answer.status, answer.read(), answer.headers.get_content_type()
        except urllib.error.HTTPError as error:
            with error:
                status, text, kind = error.code, error.read(), error.headers.get_content_type()
        return status, json.loads(text) if kind.endswith("json") else text.decode()

    def until(self, path: str, wanted: Any, seconds: float = SECONDS) -> Any:
        """Ask for `path` until `wanted(body)` holds; returns the body. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while True:
            status, body = self.get(path)
            if status == 200 and wanted(body):
                return body
            if time.monotonic() > deadline:
                raise TimeoutError(f"{path}: {status} {str(body)[:500]}")
            time.sleep(0.02)

    def drain(self, seconds: float = 3.0, grace: float = SECONDS) -> int:
        """Tell it to end; returns the exit status. Raises subprocess.TimeoutExpired `grace` after it was due."""
        assert self._process is not None
        self.send(Drain(seconds))
        status = self._process.wait(seconds + grace)
        self.kill()
        return status

    def kill(self) -> None:
        """SIGKILL, if it still runs; `start` may follow."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._control is not None:
            self._control.close()
            self._control = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid
