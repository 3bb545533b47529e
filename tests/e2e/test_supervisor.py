"""A real supervisor process with small children: deaths, reloads, signals. Dialogues over sockets, no fixed sleeps."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.journal.inflight import read_gauges
from gateway.journal.read import JournalReader
from gateway.journal.record import CallRecord, EventRecord, Record
from gateway.journal.verify import verify

CHILDREN = Path(__file__).parent / "supervised" / "children.py"
PATIENCE = 20.0


def until(holds: Callable[[], Any], what: str) -> Any:
    """Wait for something that happens in another process."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = holds()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"never: {what}")


class Gateway:
    def __init__(self, directory: Path, text: str, *options: str) -> None:
        self.directory = directory
        self.file = directory / "tollgate.yaml"
        if text:
            self.file.write_text(text)
        self.log = directory / "log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(CHILDREN), "serve", str(self.file), *options],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=directory,
                env={**os.environ, "XDG_STATE_HOME": str(directory)},
            )
        self.banner = ""

    def ready(self) -> Gateway:
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line)
            if line.startswith("  state"):
                break
        self.banner = "".join(lines)
        assert "is ready" in self.banner, self.log.read_text()
        return self

    def _port(self, before: str) -> int:
        line = next(line for line in self.banner.splitlines() if before in line)
        return int(line.partition("127.0.0.1:")[2].partition("/")[0])

    def ask(self, command: str) -> tuple[int, int, float] | None:
        """(pid, generation, drain_seconds) of the worker that answers; None where it died over it."""
        sock = socket.create_connection(("127.0.0.1", self._port("ANTHROPIC")), timeout=PATIENCE)
        with sock, sock.makefile() as answer, contextlib.suppress(ConnectionError):
            sock.sendall(f"{command}\n".encode())
            line = answer.readline().split()
            return (int(line[0]), int(line[1]), float(line[2])) if line else None
        return None

    def status_where(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found.append(self.status())
            return holds(found[-1])

        until(look, "the status")
        return found[-1]

    def status(self) -> dict[str, Any]:
        sock = socket.create_connection(("127.0.0.1", self._port("admin")), timeout=PATIENCE)
        with sock, sock.makefile() as answer:
            return dict(json.loads(answer.readline()))

    def end(self, *numbers: signal.Signals) -> int:
        for number in numbers:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def records(self) -> list[Record]:
        reader = JournalReader(self.directory / "state" / "journal")
        found = []
        while batch := reader.read():
            found += [record for _, record in batch]
        reader.close()
        return found

    def calls(self) -> dict[str, str]:
        return {record.id: record.outcome for record in self.records() if isinstance(record, CallRecord)}

    def events(self, kind: str) -> list[EventRecord]:
        return [record for record in self.records() if isinstance(record, EventRecord) and record.kind == kind]


PLAIN = "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nstate: state\n"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Gateway]]:
    started: list[Gateway] = []

    def start(text: str = PLAIN, *options: str) -> Gateway:
        started.append(Gateway(tmp_path, text, *options))
        return started[-1]

    yield start
    for gateway in started:
        gateway.process.kill()
        gateway.process.wait(PATIENCE)
        assert gateway.process.stdout is not None
        gateway.process.stdout.close()
    state = tmp_path / "state"
    if started and state.exists():  # children end by themselves when the supervisor is gone
        until(lambda: not read_gauges(state / "inflight"), "the end of every child")


def test_banner_and_a_quiet_end(serve: Callable[..., Gateway]) -> None:
    gateway = serve().ready()
    for name, tail in (("OPENAI", "/v1"), ("ANTHROPIC", ""), ("GOOGLE_GEMINI", "")):
        assert f"export {name}_BASE_URL=http://127.0.0.1:{gateway._port('ANTHROPIC')}{tail}\n" in gateway.banner
    status = gateway.status()
    assert (status["draining"], [w["ready"] for w in status["workers"]]) == (False, [True])
    assert gateway.ask("call c1") is not None
    assert gateway.end(signal.SIGTERM) == 0
    assert gateway.calls() == {"c1": "ok"}
    assert [len(gateway.events(kind)) for kind in ("start", "stop")] == [1, 1]
    assert list((gateway.directory / "state" / "inflight").iterdir()) == []
    assert (gateway.directory / "state").stat().st_mode & 0o777 == 0o700


def test_a_worker_that_dies_is_replaced_and_no_connection_refused(serve: Callable[..., Gateway]) -> None:
    gateway = serve(PLAIN + "workers: 2\n").ready()
    pids = {pid for pid, _, _ in filter(None, (gateway.ask(f"call c{i}") for i in range(40)))}
    assert len(pids) == 2
    first = gateway.ask("hang h1")
    assert first is not None
    os.kill(first[0], signal.SIGKILL)
    for i in range(40):  # those of the dead worker wait for the new one
        assert gateway.ask(f"call d{i}") is not None
    until(lambda: gateway.calls().get("h1") == "abandoned", "h1 abandoned")
    until(lambda: all(w["ready"] for w in gateway.status()["workers"]), "all ready")
    assert sum(w["restarts"] for w in gateway.status()["workers"]) == 1
    (event,) = gateway.events("worker_died")
    assert (event.detail["pid"], event.detail["cause"]) == (first[0], "SIGKILL")
    assert gateway.end(signal.SIGINT) == 0
    assert set(gateway.calls().values()) == {"ok", "abandoned"}
    assert len(gateway.calls()) == 81
    assert verify(gateway.directory / "state" / "journal").ok


def test_a_recorder_that_dies_is_replaced_and_told_how_things_stand(serve: Callable[..., Gateway]) -> None:
    gateway = serve().ready()
    os.kill(gateway.status()["recorder"], signal.SIGKILL)
    until(lambda: gateway.events("recorder_died"), "the death is recorded")
    assert gateway.ask("say") is not None
    assert gateway.status()["workers"][0]["ready"]


def test_reload_by_signal_by_file_and_by_swapped_link(serve: Callable[..., Gateway], tmp_path: Path) -> None:
    plain = PLAIN.replace("state: state", f"state: {tmp_path}/state")
    for name, seconds in (("a", 11), ("b", 22)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tollgate.yaml").write_text(f"{plain}limits: {{drain_seconds: {seconds}}}\n")
    (tmp_path / "data").symlink_to("a")
    (tmp_path / "tollgate.yaml").symlink_to("data/tollgate.yaml")
    gateway = serve("").ready()
    assert (gateway.ask("say") or ())[1:] == (1, 11.0)

    (tmp_path / "swap").symlink_to("b")
    (tmp_path / "swap").rename(tmp_path / "data")
    until(lambda: (gateway.ask("say") or ())[1:] == (2, 22.0), "the swapped link")

    text = (tmp_path / "b" / "tollgate.yaml").read_text()
    (tmp_path / "b" / "tollgate.yaml").write_text(text.replace("22", "33"))
    gateway.process.send_signal(signal.SIGHUP)
    until(lambda: (gateway.ask("say") or ())[2:] == (33.0,), "the signal")
    assert gateway.status()["reload_ok"] is True
    assert gateway.end(signal.SIGTERM) == 0
    assert [event.detail["changed"] for event in gateway.events("reload")] == ["limits.drain_seconds"] * 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PLAIN + "limits: {drain_seconds: soon}\n", "limits.drain_seconds"),
        (
            PLAIN.replace("listen: 127.0.0.1:0", "listen: 127.0.0.1:1"),
            "`listen` (127.0.0.1:0 to 127.0.0.1:1) cannot change",
        ),
        (PLAIN + "capture: hash\n", "worker 0: no hashes here"),
    ],
    ids=["bad file", "moved listener", "refused by a worker"],
)
def test_a_reload_that_fails_leaves_the_old_in_force(serve: Callable[..., Gateway], text: str, said: str) -> None:
    gateway = serve(PLAIN + "limits: {drain_seconds: 7}\n").ready()
    gateway.file.write_text(text)
    gateway.process.send_signal(signal.SIGHUP)
    status = gateway.status_where(lambda status: not status["reload_ok"])
    assert said in status["reload_message"]
    assert (gateway.ask("say") or ())[2:] == (7.0,)
    assert said in gateway.log.read_text()
    assert any(said in str(event.detail["message"]) for event in gateway.events("reload_failed"))


def test_what_needs_a_restart_is_said_and_the_rest_taken(serve: Callable[..., Gateway]) -> None:
    gateway = serve().ready()
    gateway.file.write_text(PLAIN + "workers: 3\nlimits: {drain_seconds: 9}\n")
    until(lambda: (gateway.ask("say") or ())[2:] == (9.0,), "the new file")
    status = gateway.status_where(lambda status: status["reloaded_at"] > 0)
    assert (status["reload_ok"], status["needs_restart"], len(status["workers"])) == (True, ["workers"], 1)


def test_draining_is_said_at_once_and_new_connections_are_refused(serve: Callable[..., Gateway]) -> None:
    gateway = serve(PLAIN + "limits: {drain_seconds: 2}\n").ready()
    assert gateway.ask("hang h1") is not None
    gateway.process.send_signal(signal.SIGTERM)
    until(lambda: gateway.status()["draining"], "draining")
    with pytest.raises(ConnectionRefusedError):
        until(lambda: gateway.ask("say") and None, "refused")
    assert gateway.process.wait(PATIENCE) == 0
    assert gateway.calls() == {"h1": "refused"}


def test_a_lame_duck_accepts_until_balancers_have_noticed(serve: Callable[..., Gateway]) -> None:
    gateway = serve(PLAIN + "limits: {lame_duck_seconds: 600}\n").ready()
    gateway.process.send_signal(signal.SIGTERM)
    gateway.status_where(lambda status: status["draining"])
    for n in range(5):
        assert gateway.ask(f"call c{n}") is not None
    assert gateway.end(signal.SIGTERM) == 0
    assert gateway.calls() == {f"c{n}": "ok" for n in range(5)}


def test_a_second_signal_ends_it_at_once_and_nothing_is_lost(serve: Callable[..., Gateway]) -> None:
    gateway = serve(PLAIN + "limits: {drain_seconds: 600}\n").ready()
    for i in range(5):
        assert gateway.ask(f"hang h{i}") is not None
    gateway.process.send_signal(signal.SIGTERM)
    until(lambda: gateway.status()["draining"], "draining")
    assert gateway.process.poll() is None
    assert gateway.end(signal.SIGTERM) == 0
    assert sorted(gateway.calls()) == [f"h{i}" for i in range(5)]


def test_a_killed_supervisor_leaves_no_children_and_nothing_uncounted(serve: Callable[..., Gateway]) -> None:
    gateway = serve(PLAIN).ready()
    pid, _, _ = gateway.ask("hang h1") or (0, 0, 0)
    os.kill(pid, signal.SIGSTOP)  # cannot notice anything
    gateway.process.kill()
    gateway.process.wait(PATIENCE)
    os.kill(pid, signal.SIGKILL)
    again = serve(PLAIN).ready()
    until(lambda: again.calls() == {"h1": "abandoned"}, "h1 abandoned")
    assert again.end(signal.SIGTERM) == 0
    assert again.calls() == {"h1": "abandoned"}


def test_one_state_directory_one_gateway(serve: Callable[..., Gateway], tmp_path: Path) -> None:
    gateway = serve().ready()
    second = serve(PLAIN)
    assert second.process.wait(PATIENCE) == 1
    said = second.log.read_text()
    assert f"is in use by another gateway (process {gateway.process.pid}, listening on 127.0.0.1:" in said


@pytest.mark.parametrize("workers", [1, 2])
def test_a_taken_port_is_said(serve: Callable[..., Gateway], workers: int) -> None:
    with socket.create_server(("127.0.0.1", 0), reuse_port=workers > 1) as taken:
        port = taken.getsockname()[1]
        gateway = serve(PLAIN.replace("listen: 127.0.0.1:0", f"listen: 127.0.0.1:{port}") + f"workers: {workers}\n")
        assert gateway.process.wait(PATIENCE) == 1
    assert f"cannot listen on 127.0.0.1:{port}: the port is taken" in gateway.log.read_text()


def test_a_gateway_that_cannot_start_says_why(serve: Callable[..., Gateway]) -> None:
    gateway = serve(PLAIN, "--broken")
    assert gateway.process.wait(PATIENCE) == 1
    assert "worker 0 does not start: exit status 7" in gateway.log.read_text()


def test_a_process_that_is_killed_while_it_starts_is_started_again(serve: Callable[..., Gateway]) -> None:
    gateway = serve(PLAIN, "--killed").ready()
    assert (gateway.directory / "shots").read_text() == "xxxx"
    assert gateway.ask("say") is not None
    assert gateway.end(signal.SIGTERM) == 0


def test_a_worker_that_cannot_use_the_configuration_ends_the_start(serve: Callable[..., Gateway]) -> None:
    gateway = serve(PLAIN + "capture: wrong\n")
    assert gateway.process.wait(PATIENCE) == 2
    assert "capture" in gateway.log.read_text()


def test_secrets_are_in_no_command_line_and_no_file(serve: Callable[..., Gateway], monkeypatch: Any) -> None:
    monkeypatch.setenv("SECRET_OF_TEST", "sk-very-secret-value")
    text = PLAIN + "upstreams: {mine: {dialect: openai, url: 'http://127.0.0.1:9', key: $SECRET_OF_TEST}}\n"
    gateway = serve(text).ready()
    pids = [gateway.process.pid, (gateway.ask("say") or (0,))[0]]
    for pid in pids:
        assert b"very-secret" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert gateway.end(signal.SIGTERM) == 0
    for path in gateway.directory.rglob("*"):
        assert path.is_dir() or b"very-secret" not in path.read_bytes()
