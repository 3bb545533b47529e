"""`tollgate run`: a command behind the gate, its limits, its signals, its end."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.process.state import holder
from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway

TOLLGATE = [sys.executable, "-c", "import sys; from gateway.cli import main; sys.exit(main())"]
AGENT = """
import json, os, sys, time, urllib.error, urllib.request

def call(text="hello", stream=False):
    body = {"model": "gpt-4o-mini", "stream": stream, "messages": [{"role": "user", "content": text}]}
    request = urllib.request.Request(
        os.environ["OPENAI_BASE_URL"] + "/chat/completions", json.dumps(body).encode(),
        {"content-type": "application/json", "authorization": "Bearer " + os.environ.get("OPENAI_API_KEY", "own")},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
"""


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("TOLLGATE_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path, fake: FakeUpstream) -> Path:
    """A configuration nobody serves yet; its ports may be taken."""
    file = tmp_path / "tollgate.yaml"
    settings = {"upstreams": upstreams(fake.url), "state": str(tmp_path / "state"), "telemetry": {"log": None}}
    file.write_text(yaml.safe_dump(settings))
    return file


def command(config: Path, code: str, *options: str) -> list[str]:
    return [*TOLLGATE, "run", "--config", str(config), *options, "--", sys.executable, "-c", AGENT + code]


def run(config: Path, code: str, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    words, env = command(config, code, *options), {**os.environ, **env}
    return subprocess.run(words, capture_output=True, text=True, timeout=90, env=env, check=False)


def upstreams(url: str) -> dict[str, Any]:
    return {name: {"dialect": name, "url": url, "provider": name} for name in ("openai", "anthropic")}


def rows(text: str) -> dict[str, str]:
    """The lines of the summary by their names."""
    pairs = (line.strip().partition(" ") for line in text.splitlines() if line.startswith("  "))
    return {name: value.strip() for name, _, value in pairs}


def test_a_command_is_one_run_and_told_what_it_cost(gate: RunningGateway) -> None:
    code = "print(call()[0], call()[0], os.environ['TOLLGATE_RUN_ID']); sys.exit(3)"
    done = run(gate.config_file, code, "--name", "mine", "--agent", "bot", "--budget", "2", "--max-calls", "200")
    assert (done.returncode, done.stdout) == (3, "200 200 mine\n")
    calls = gate.calls(2, run="mine")
    assert {(c["agent"], c["run_source"]) for c in calls} == {("bot", "url")}
    shown = rows(done.stderr)
    assert shown["cost"] == f"${sum(c['cost_usd'] for c in calls):.4f} of $2.00"
    assert shown["calls"] == "2 of 200"
    assert shown["tokens"].startswith(f"{sum(c['usage']['input_tokens'] for c in calls)} in, ")
    assert shown["tools"] == "0"
    assert "stopped" not in shown
    assert done.stderr.startswith("tollgate: run mine: ")
    (limit,) = [d for d in gate.get("/api/controls")["decisions"] if d["value"] == "mine"]
    assert (limit["kind"], limit["by"]) == ("limit", "tollgate run")
    assert (limit["limits"]["budget_usd"], limit["limits"]["max_calls"]) == (2.0, 200)


def test_every_api_leads_through_the_gate(gate: RunningGateway) -> None:
    names = ("OPENAI_BASE_URL", "OPENAI_API_BASE", "ANTHROPIC_BASE_URL", "GOOGLE_GEMINI_BASE_URL", "NO_PROXY")
    code = f"print(json.dumps([os.environ[name] for name in {names}] + [os.environ.get('OPENAI_API_KEY')]))"
    done = run(gate.config_file, code, "--name", "env", NO_PROXY="a.example")
    base = f"{gate.url}/run/env"
    assert json.loads(done.stdout) == [f"{base}/v1", f"{base}/v1", base, base, "a.example,127.0.0.1", None]
    assert rows(done.stderr)["calls"] == "0"


def test_runs_without_a_name_get_one_each(gate: RunningGateway) -> None:
    first, second = (run(gate.config_file, "print(os.environ['TOLLGATE_RUN_ID'])").stdout for _ in range(2))
    assert len(first.strip()) == len(second.strip()) == 32
    assert first < second


def test_a_killed_run_ends_with_75(gate: RunningGateway) -> None:
    code = (
        "status, text = call('[[tokens 5]]')\n"
        "print(status, flush=True)\n"
        "sys.stdin.readline()\n"
        "status, text = call()\n"
        "print(status, 'too dear' in text)\n"
    )
    process = subprocess.Popen(
        command(gate.config_file, code, "--name", "killed"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "200\n"
    killed = [*TOLLGATE, "runs", "kill", "killed", "--reason", "too dear", "--config", str(gate.config_file)]
    told = subprocess.run(killed, capture_output=True, text=True, check=True, timeout=30)
    assert told.stdout == "run killed stopped\n"
    out, err = process.communicate("\n", timeout=60)
    assert (process.returncode, out) == (75, "402 True\n")
    shown = rows(err)
    assert shown["calls"] == "2 (1 refused)"
    assert shown["stopped"].startswith("run_stopped: run killed was stopped by ")
    assert "too dear" in shown["stopped"]


def test_a_command_that_is_not_there_ends_with_127(gate: RunningGateway) -> None:
    words = [*TOLLGATE, "run", "--config", str(gate.config_file), "no-such-command"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 127
    assert "no-such-command: No such file or directory" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_to_us_is_passed_on_once(gate: RunningGateway, number: signal.Signals) -> None:
    code = (
        "import signal\n"
        "got = []\n"
        f"signal.signal({int(number)}, lambda n, _: got.append(n))\n"
        "print('ready', flush=True)\n"
        "while not got: time.sleep(0.01)\n"
        "time.sleep(0.2); print(got); sys.exit(9)"
    )
    process = subprocess.Popen(
        command(gate.config_file, code), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.communicate(timeout=60)[0] == f"[{int(number)}]\n"
    assert process.returncode == 9


def test_a_command_that_is_killed_ends_as_shells_say_it(gate: RunningGateway) -> None:
    assert run(gate.config_file, "os.kill(os.getpid(), 9)").returncode == 128 + 9


def test_what_the_terminal_sends_comes_once(gate: RunningGateway) -> None:
    """Ctrl-C goes to the whole foreground group: passing it on as well would double it."""
    code = (
        "import signal\n"
        "got = []\n"
        "signal.signal(signal.SIGINT, lambda n, _: got.append(n))\n"
        "print('tty', sys.stdin.isatty(), os.tcgetpgrp(0) == os.getpgrp(), flush=True)\n"
        "while not got: time.sleep(0.01)\n"
        "time.sleep(0.3); print('got', len(got)); sys.exit(7)"
    )
    words = command(gate.config_file, code)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(words[0], words)
    seen = b""
    try:
        seen += until(terminal, b"tty True True")
        os.write(terminal, b"\x03")
        seen += until(terminal, b"got 1")
        seen += until(terminal, b"took")
    finally:
        status = os.waitpid(pid, 0)[1]
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 7
    assert b"got 2" not in seen


def until(terminal: int, mark: bytes) -> bytes:
    seen = b""
    while mark not in seen:
        try:
            data = os.read(terminal, 4096)
        except OSError:  # the other side is closed
            data = b""
        assert data, seen
        seen += data
    return seen


# -- where no gateway runs


def test_a_gateway_is_started_and_stopped(config: Path, fake: FakeUpstream) -> None:
    with taken_ports():
        code = "print(call()[0], os.environ['OPENAI_BASE_URL'])"
        done = run(config, code, "--max-minutes", "30", "--max-tools", "5")
    status, url = done.stdout.split()
    assert (done.returncode, status) == (0, "200"), done.stderr
    assert not url.startswith("http://127.0.0.1:8787/")
    assert rows(done.stderr)["calls"] == "1"
    assert rows(done.stderr)["tools"] == "0 of 5"
    state = config.parent / "state"
    assert holder(state) is None
    assert (state / "lock").read_bytes() == b""  # it ended as it should
    assert "tollgate" in (state / "gateway.log").read_text()
    listed = subprocess.run(
        [*TOLLGATE, "runs", "list", "--config", str(config)], capture_output=True, text=True, check=True, timeout=30
    )
    assert url.split("/run/")[1].split("/")[0] in listed.stdout


@contextlib.contextmanager
def taken_ports() -> Iterator[None]:
    """Somebody listens on the standard ports: we, or whoever does already."""
    with contextlib.ExitStack() as stack:
        for port in (8787, 8788):
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
        yield


def test_a_gateway_that_was_started_stays_for_those_who_share_it(config: Path) -> None:
    waits = "print(call()[0], flush=True); sys.stdin.readline(); print(call()[0])"
    first, second = (
        subprocess.Popen(
            command(config, waits), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    )
    for process in (first, second):
        assert process.stdout is not None
        assert process.stdout.readline() == "200\n", process.communicate()
    state = config.parent / "state"
    serving = holder(state)
    assert serving is not None
    assert first.communicate("\n", timeout=60)[0] == "200\n"
    assert holder(state) == serving
    assert second.communicate("\n", timeout=60)[0] == "200\n"
    assert (first.returncode, second.returncode) == (0, 0)
    assert holder(state) is None


def test_the_dummy_key_is_only_for_those_who_have_none(config: Path, fake: FakeUpstream) -> None:
    settings = yaml.safe_load(config.read_text())
    settings["upstreams"]["openai"]["key"] = "sk-of-the-gateway"
    config.write_text(yaml.safe_dump(settings))
    code = "print(call()[0], os.environ['OPENAI_API_KEY'], os.environ.get('ANTHROPIC_API_KEY'))"
    assert run(config, code).stdout == "200 held-by-tollgate None\n"
    sent = {name.lower(): value for name, value in fake.requests[-1].headers}
    assert sent[b"authorization"] == b"Bearer sk-of-the-gateway"
    assert run(config, code, OPENAI_API_KEY="mine").stdout == "200 mine None\n"


def test_a_gateway_that_cannot_start_says_why(config: Path) -> None:
    state = config.parent / "state"
    state.mkdir()
    (state / "journal").write_text("in the way")
    done = run(config, "print('never')")
    assert (done.returncode, done.stdout) == (1, "")
    assert "the gateway did not start" in done.stderr
    assert "to keep state" in done.stderr
