"""`tollgate demo` as a user runs it: agents play, the record agrees, gateway and agents go on until Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from gateway.testing.gateway import family, free_port, is_free
from tests.e2e.watchers import until

TOLLGATE = "import sys; from gateway.cli import main; sys.exit(main())"


def start(ports: tuple[int, int], *more: str) -> subprocess.Popen[str]:
    listen, admin = (f"127.0.0.1:{port}" for port in ports)
    command = [sys.executable, "-c", TOLLGATE, "demo", "--listen", listen, "--admin", admin, "--seconds", "2", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def calls(port: int) -> int:
    """How many the gateway has recorded."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/summary", timeout=10) as answer:
        return int(json.load(answer)["today"]["calls"])


class Demo:
    def __init__(self, *more: str) -> None:
        self.ports = free_port(), free_port()
        self.process = start(self.ports, *more)


SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]  # HUP: its terminal was closed


def stays(output: Iterable[str]) -> None:
    """Reads what the demo says until all is summed up, and it goes on."""
    lines = []
    for line in output:
        lines.append(line)
        if "Ctrl-C stops them" in line:
            return
    raise AssertionError("".join(lines))


@pytest.fixture(scope="module")
def demos() -> Iterator[dict[str, Demo]]:
    """All at once, since they mostly wait: one that ends by itself, one for each signal, one to be killed."""
    started = {"once": Demo("--once"), "killed": Demo()}
    for number in SIGNALS:
        # Those of the keyboard come ignored, as a shell starts what runs in its background.
        before = signal.signal(number, signal.SIG_DFL if number is signal.SIGHUP else signal.SIG_IGN)
        started[number.name] = Demo()
        signal.signal(number, before)
    yield started
    for demo in started.values():
        demo.process.kill()
        demo.process.wait()
        assert demo.process.stdout is not None
        demo.process.stdout.close()


@pytest.fixture(scope="module")
def ended(demos: dict[str, Demo]) -> str:
    """What a demo prints that ended well, and left nothing behind."""
    demo = demos["once"]
    out, _ = demo.process.communicate(timeout=250)
    assert demo.process.returncode == 0, out
    assert all(is_free(port) for port in demo.ports)
    return out


def test_the_demo_ends_well_and_leaves_nothing_behind(ended: str) -> None:
    assert "what the agents saw and what the gateway recorded agree" in ended
    for word in (
        "claude-code",
        "support-bot",
        "clerk",
        "embedder",
        "leaver",
        "claude-sonnet-5",
        "gpt-4o-mini",
        "/metrics",
    ):
        assert word in ended


def test_the_demo_shows_an_agent_that_is_stopped_by_its_budget(ended: str) -> None:
    assert "runaway was told: The budget of run " in ended
    rows = [line.split() for line in ended.splitlines() if line.rstrip().endswith(" budget")]
    assert max(int(row[1]) for row in rows) > 3, ended  # calls of it before it was stopped
    assert "no run cost more than its budget of $0.50" in ended


def test_the_demo_shows_a_loop_that_is_broken_an_outage_that_is_bridged_and_two_teams(ended: str) -> None:
    told = " ".join(ended.split())
    assert "stuck was told: " in told
    assert any(line.rstrip().endswith(" breaker") for line in ended.splitlines())
    assert "calls were answered by gemini-backup while gemini failed" in told
    assert "calls went to a model on trial" in told


def test_the_demo_shows_answers_from_the_cache(ended: str) -> None:
    found = re.search(r"(\d+) answers came from the cache, which saved \$(\d+\.\d+)", " ".join(ended.split()))
    assert found is not None, ended
    assert int(found[1]) > 0
    assert float(found[2]) > 0


@pytest.mark.parametrize("number", SIGNALS)
def test_gateway_and_agents_go_on_until_they_are_told_to_end(demos: dict[str, Demo], number: signal.Signals) -> None:
    demo = demos[number.name]
    process, admin = demo.process, demo.ports[1]
    assert process.stdout is not None
    stays(process.stdout)
    before = calls(admin)
    until(lambda: calls(admin), lambda now: now > before + 5, seconds=60)
    process.send_signal(number)
    for again in (signal.SIGINT, signal.SIGTERM):  # a group is often told twice
        process.send_signal(again)
    assert process.wait(120) == 0
    assert process.stdout.read().split() == ["stopping"]
    assert all(is_free(port) for port in demo.ports)


def test_a_demo_that_is_killed_leaves_no_process_behind(demos: dict[str, Demo]) -> None:
    demo = demos["killed"]
    process = demo.process
    assert process.stdout is not None
    stays(process.stdout)
    left = family(process.pid)
    process.kill()
    process.wait()
    for role in ("fake_upstream", "fault_upstream", "recorder", "worker"):
        assert any(role in line for line in left.values()), left
    try:
        until(lambda: [pid for pid in left if Path(f"/proc/{pid}").exists()], lambda alive: not alive)
        assert all(is_free(port) for port in demo.ports)
    finally:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
