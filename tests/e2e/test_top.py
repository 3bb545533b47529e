"""`tollgate top` in a terminal of its own, on a real gateway: what it draws, what its keys do, and that it leaves the
terminal as it was."""

from __future__ import annotations

import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from fcntl import ioctl

import pytest

from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway

# Its terminal is the one that controls it, so that Ctrl-C is a signal.
_MAIN = (
    "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); from gateway.cli import main; sys.exit(main())"
)
TOLLGATE = [sys.executable, "-c", _MAIN]
SECONDS = 30
ALTERNATE, BACK = "\x1b[?1049h", "\x1b[?1049l"


class Terminal:
    """A command in a pseudo terminal of 120 by 40; `seen` is all that it wrote since the last look."""

    def __init__(self, gate: RunningGateway, *words: str) -> None:
        self.master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.slave = slave
        self.before = termios.tcgetattr(slave)
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
        command = [*TOLLGATE, *words, "--config", str(gate.config_file)]
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        self.seen = ""

    def until(self, text: str) -> str:
        """What was written up to this text, once it is there."""
        end = time.monotonic() + SECONDS
        while text not in self.seen:
            assert time.monotonic() < end, f"no {text!r} in {self.seen[-3000:]!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 65536).decode(errors="replace")
        found, _, self.seen = self.seen.partition(text)
        return found

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


def call(gate: RunningGateway, run: str) -> int:
    body = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": run}]}).encode()
    headers = {"content-type": "application/json", "authorization": "Bearer k"}
    request = urllib.request.Request(f"{gate.url}/run/{run}/agent/bot/v1/chat/completions", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


@pytest.fixture(scope="module")
def gate() -> Iterator[RunningGateway]:
    budgets = [{"scope": "global", "usd": 5, "per": "day"}]
    with FakeUpstream(5) as fake:
        upstreams = {"openai": {"dialect": "openai", "url": fake.url, "provider": "openai"}}
        with RunningGateway(upstreams, budgets=budgets) as running:
            assert call(running, "first-run") == 200
            running.calls(1)
            yield running


@pytest.fixture
def terminal(gate: RunningGateway) -> Iterator[Terminal]:
    made = Terminal(gate, "top", "--every", "0.2")
    yield made
    made.close()


def test_it_draws_follows_and_ends(gate: RunningGateway, terminal: Terminal) -> None:
    assert ALTERNATE in terminal.until("first-run")
    assert call(gate, "second-run") == 200
    terminal.until("second-run")
    terminal.press("q")
    terminal.until(BACK)
    assert terminal.process.wait(SECONDS) == 0
    assert termios.tcgetattr(terminal.slave) == terminal.before, "the terminal is as it was"


def test_a_run_is_stopped_from_it(gate: RunningGateway, terminal: Terminal) -> None:
    assert call(gate, "to-be-stopped") == 200
    terminal.until("first-run")
    terminal.press("o")  # the latest first
    terminal.until("Runs, latest")
    terminal.until("to-be-stopped")
    terminal.press("k")
    assert "to-be-stopped" in terminal.until("and its calls under way?  y / n").rpartition("stop run")[2]
    terminal.press("n")
    terminal.until("not stopped")
    assert call(gate, "to-be-stopped") == 200
    terminal.press("k")
    terminal.until("y / n")
    terminal.press("y")
    terminal.until("run to-be-stopped stopped")
    assert call(gate, "to-be-stopped") == 402
    (stop,) = gate.get("/api/controls")["stopped"]
    assert (stop["value"], stop["reason"]) == ("to-be-stopped", "stopped by hand")
    terminal.press("r")
    terminal.until("run to-be-stopped may go on")
    assert call(gate, "to-be-stopped") == 200


def test_ctrl_c_ends_it_and_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    terminal.until("first-run")
    terminal.press("\x03")
    terminal.until(BACK)
    assert terminal.process.wait(SECONDS) == 130
    assert termios.tcgetattr(terminal.slave) == terminal.before


def test_a_gateway_that_is_gone_is_said_and_what_was_known_stays(gate: RunningGateway, terminal: Terminal) -> None:
    terminal.until("first-run")
    gate.stop()
    try:
        terminal.until("no gateway answers")
        terminal.until("first-run")
    finally:
        gate.start()
