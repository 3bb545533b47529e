"""A real gateway for tests: started as in production, on free loopback ports, with a state directory of its own.

    with RunningGateway(upstreams={"openai": {"dialect": "openai", "url": fake.url}}) as gate:
        client = openai.OpenAI(base_url=gate.url + "/v1", api_key="...")
        ...
        (call,) = gate.calls(1)          # waits until the recorder has written it down

`async with` does the same without blocking the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import yaml

from gateway.testing import child
from gateway.testing.scratch import STATE

T = TypeVar("T")

_TOLLGATE = "import sys; from gateway.cli import main; sys.exit(main())"  # what the console script does
PATIENCE = 60.0  # seconds that something may take which happens by itself, on a slow and busy machine
_SECRETS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY")


class GatewayDied(RuntimeError):
    """The gateway ended although nobody asked it to; the message holds the end of its log."""


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on now. Another process may take it before we do: starting retries."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def dead_port(host: str = "127.0.0.1") -> int:
    """A port at which connections are refused: it is held until this process ends, so nobody comes to listen there."""
    held = socket.socket()
    held.bind((host, 0))
    port = int(held.getsockname()[1])
    held.detach()
    return port


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether nobody listens there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def family(ancestor: int) -> dict[int, str]:
    """pid -> command line of a process, if it lives, and of all that descend from it."""
    table: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
        table[int(entry.name)] = parent, line
    found = {ancestor: table[ancestor][1]} if ancestor in table else {}
    while more := {pid: line for pid, (parent, line) in table.items() if parent in found and pid not in found}:
        found |= more
    return found


class RunningGateway:
    """`upstreams` and further keyword arguments are the configuration file; `env` is added to a clean environment."""

    def __init__(
        self,
        upstreams: Mapping[str, Any],
        *,
        env: Mapping[str, str] | None = None,
        start_seconds: float = PATIENCE,
        stop_seconds: float = PATIENCE,
        directory: Path | None = None,
        **config: Any,
    ) -> None:
        self.directory = directory or Path(tempfile.mkdtemp(prefix="tollgate-test-"))
        self._upstreams, self.settings, self._env = dict(upstreams), config, dict(env or {})
        self._start_seconds, self._stop_seconds = start_seconds, stop_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self.config: dict[str, Any] = {}
        self.ready_seconds = 0.0  # from the start of the process to the first 200 of /readyz

    # addresses and files

    @property
    def url(self) -> str:
        """Base URL of the data plane; the OpenAI SDK wants `/v1` behind it."""
        return f"http://{self.config['listen']}"

    @property
    def admin_url(self) -> str:
        return f"http://{self.config['admin']}"

    @property
    def config_file(self) -> Path:
        return self.directory / "tollgate.yaml"

    @property
    def state(self) -> Path:
        return self.directory / STATE

    @property
    def log(self) -> str:
        """Everything the gateway wrote to its standard streams so far."""
        path = self.directory / "output.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    # life cycle

    def start(self) -> None:
        """Raises GatewayDied when it does not become ready in time."""
        for attempt in range(3):
            self._launch()
            try:
                self._await_ready()
            except GatewayDied:
                self.stop(signal.SIGKILL)
                if attempt == 2 or "in use" not in self.log:
                    raise
            else:
                return

    def _launch(self) -> None:
        listen, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.write_config({"listen": listen, "admin": admin, "state": str(self.state), **self.settings})
        env = {k: v for k, v in os.environ.items() if k not in _SECRETS and not k.startswith(("TOLLGATE_", "OTEL_"))}
        with (self.directory / "output.log").open("ab") as log:
            self._process = child.start(
                [sys.executable, "-c", _TOLLGATE, "serve", "--config", str(self.config_file)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**env, **self._env},
                cwd=self.directory,
                start_new_session=True,  # stop() must be able to end all of it
            )

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the configuration file; the running gateway notices by itself."""
        self.config = {"upstreams": self._upstreams, **config}
        partial = self.config_file.with_suffix(".new")
        partial.write_text(yaml.safe_dump(self.config, sort_keys=False))
        partial.replace(self.config_file)

    def _await_ready(self) -> None:
        began = time.monotonic()
        while time.monotonic() - began < self._start_seconds:
            if self._process is None or self._process.poll() is not None:
                raise GatewayDied(f"the gateway ended at start:\n{self.log[-4000:]}")
            if self.status("/readyz") == 200:
                self.ready_seconds = time.monotonic() - began
                return
            time.sleep(0.02)
        raise GatewayDied(f"the gateway was not ready after {self._start_seconds} s:\n{self.log[-4000:]}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the supervisor, wait for its end, and return its exit code; whatever is left is killed."""
        if self._process is None:
            return 0
        family = self.processes()
        process, self._process = self._process, None
        if process.poll() is None:
            process.send_signal(number)
        try:
            return process.wait(self._stop_seconds)
        except subprocess.TimeoutExpired:
            raise GatewayDied(f"the gateway did not stop in {self._stop_seconds} s:\n{self.log[-4000:]}") from None
        finally:
            for pid in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
            if process.stdin is not None:
                process.stdin.close()

    def close(self) -> None:
        """Stop if still running and remove the state."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.__enter__)

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    # processes

    def processes(self) -> dict[int, str]:
        """pid -> command line of every process of this gateway, the supervisor first."""
        return family(self.pid)

    def pids(self, role: str) -> list[int]:
        """Processes whose command line names the role: worker, recorder."""
        return sorted(pid for pid, line in self.processes().items() if pid != self.pid and role in line)

    def kill_worker(self, number: int = signal.SIGKILL) -> int:
        """Kill the first worker; returns its pid."""
        pid = self.pids("worker")[0]
        os.kill(pid, number)
        return pid

    # admin API

    def status(self, path: str) -> int:
        """HTTP status of a GET on the admin port; 0 when it does not answer."""
        try:
            with urllib.request.urlopen(self.admin_url + path, timeout=5) as answer:  # noqa: S310 - our own http URL
                return int(answer.status)
        except urllib.error.HTTPError as fault:
            fault.close()
            return fault.code
        except OSError:
            return 0

    def text(self, path: str) -> str:
        """Raises urllib.error.HTTPError where the admin API refuses; to be closed by whoever takes it."""
        with urllib.request.urlopen(self.admin_url + path, timeout=10) as answer:  # noqa: S310 - our own http URL
            return str(answer.read().decode())

    def get(self, path: str, **query: Any) -> Any:
        """A JSON document of the admin API."""
        return json.loads(self.text(path + ("?" + urllib.parse.urlencode(query) if query else "")))

    def post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(  # noqa: S310 - our own http URL
            self.admin_url + path, json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - our own http URL
            data = answer.read()
        return json.loads(data) if data else None

    def in_flight(self) -> int:
        """Calls that are under way; -1 where that is not known yet."""
        found = re.search(r"^tollgate_inflight_requests (\S+)$", self.text("/metrics"), re.MULTILINE)
        return int(float(found[1])) if found is not None else -1

    def calls(self, at_least: int = 1, *, seconds: float = PATIENCE, **query: Any) -> list[dict[str, Any]]:
        """All recorded calls, oldest first, as soon as there are `at_least` so many. Raises TimeoutError."""
        return self.until(lambda: self._all_calls(query), lambda calls: len(calls) >= at_least, seconds)

    def _all_calls(self, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor: dict[str, Any] = {}
        while True:
            page = self.get("/api/calls", **query, **cursor)
            found += page["calls"]
            if not page.get("next"):
                return sorted(found, key=lambda call: (call["started_at"], call["id"]))
            cursor = {"cursor": page["next"]}

    def until(self, look: Callable[[], T], good: Callable[[T], bool], seconds: float = PATIENCE) -> T:
        """What `look` returns as soon as it is `good`: recording is asynchronous. Raises TimeoutError.

        An admin side that is not there yet or is just being restarted, and a record that is not there yet, are looked
        at again.
        """
        end = time.monotonic() + seconds
        while True:
            try:
                seen = look()
                if good(seen):
                    return seen
                state = str(seen)
            except urllib.error.HTTPError as fault:
                fault.close()  # it holds its connection
                if fault.code not in (404, 503):
                    raise
                state = str(fault)
            except urllib.error.URLError as fault:
                state = str(fault)
            if time.monotonic() > end:
                raise TimeoutError(f"still not so after {seconds} s: {state[:2000]}\n{self.log[-2000:]}")
            time.sleep(0.03)
