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
from collections.abc import Iterable
from pathlib import Path

import pytest

from gateway.testing.gateway import family, free_port, is_free
from tests.e2e.watchers import until

TOLLGATE = "import sys; from gateway.cli import main; sys.exit(main())"


@pytest.fixture
def ports() -> tuple[int, int]:
    return free_port(), free_port()


def start(ports: tuple[int, int], *more: str) -> subprocess.Popen[str]:
    listen, admin = (f"127.0.0.1:{port}" for port in ports)
    command = [sys.executable, "-c", TOLLGATE, "demo", "--listen", listen, "--admin", admin, "--seconds", "2", *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def calls(port: int) -> int:
    """How many the gateway has recorded."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/summary", timeout=10) as answer:
        return int(json.load(answer)["today"]["calls"])


def stays(output: Iterable[str]) -> None:
    """Reads what the demo says until all is summed up, and it goes on."""
    lines = []
    for line in output:
        lines.append(line)
        if "Ctrl-C stops them" in line:
            return
    raise AssertionError("".join(lines))


@pytest.fixture(scope="module")
def ended() -> str:
    """What a demo prints that ended well, and left nothing behind."""
    ports = free_port(), free_port()
    process = start(ports, "--once")
    out, _ = process.communicate(timeout=100)
    assert process.returncode == 0, out
    assert all(is_free(port) for port in ports)
    return out


def test_the_demo_ends_well_and_leaves_nothing_behind(ended: str) -> None:
    assert "what the agents saw and what the gateway recorded agree" in ended
    for word in ("claude-code", "support-bot", "embedder", "leaver", "claude-sonnet-5", "gpt-4o-mini", "/metrics"):
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])  # HUP: its terminal was closed
def test_gateway_and_agents_go_on_until_they_are_told_to_end(ports: tuple[int, int], number: signal.Signals) -> None:
    # Those of the keyboard come ignored, as a shell starts what runs in its background.
    before = signal.signal(number, signal.SIG_DFL if number is signal.SIGHUP else signal.SIG_IGN)
    process = start(ports)
    signal.signal(number, before)
    assert process.stdout is not None
    try:
        stays(process.stdout)
        before = calls(ports[1])
        until(lambda: calls(ports[1]), lambda now: now > before + 5, seconds=60)
        process.send_signal(number)
        for again in (signal.SIGINT, signal.SIGTERM):  # a group is often told twice
            process.send_signal(again)
        assert process.wait(40) == 0
        assert process.stdout.read().split() == ["stopping"]
        assert all(is_free(port) for port in ports)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_demo_that_is_killed_leaves_no_process_behind(ports: tuple[int, int]) -> None:
    process = start(ports)
    assert process.stdout is not None
    try:
        stays(process.stdout)
        left = family(process.pid)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    for role in ("fake_upstream", "fault_upstream", "recorder", "worker"):
        assert any(role in line for line in left.values()), left
    try:
        until(lambda: [pid for pid in left if Path(f"/proc/{pid}").exists()], lambda alive: not alive)
        assert all(is_free(port) for port in ports)
    finally:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
