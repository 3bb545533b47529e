"""The kill switch on a real gateway of two workers, thrown from other processes."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.testing.faults import Repeat, Script, Send, Wait, answer, chunked
from gateway.testing.gateway import RunningGateway
from gateway.testing.raw import NoAnswer, RawAnswer, RawClient, post
from gateway.testing.scripted import Background, ScriptedUpstream
from tests.redis_server import NEEDS_REDIS, RedisServer
from tests.soon import soon

CHAT = "/v1/chat/completions"
CHUNK = b'data: {"id":"c","model":"gpt-4o","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
ANSWER = b'{"id":"c","model":"gpt-4o","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}'
QUESTION, STREAM = b'{"model":"gpt-4o","messages":[]}', b'{"model":"gpt-4o","stream":true,"messages":[]}'
SCRIPTS: dict[str, Script] = {
    "": [Send(answer(ANSWER))],
    "silent": [Wait(60)],
    "stalled": [Send(chunked(CHUNK, end=b"")), Wait(60)],
    "endless": [Send(chunked(CHUNK, end=b"")), Repeat(b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK), pause=0.02)],
}
TOLLGATE = [sys.executable, "-c", "import sys; from gateway.cli import main; sys.exit(main())"]


@pytest.fixture(scope="module")
def gate() -> Iterator[RunningGateway]:
    with Background(ScriptedUpstream(SCRIPTS)) as up:
        upstreams = {"openai": {"dialect": "openai", "url": up.url, "provider": "openai"}}
        with RunningGateway(upstreams, workers=2) as running:
            yield running


def call(gate: RunningGateway, run: str, script: str = "", *, stream: bool = False) -> tuple[RawAnswer | None, float]:
    """The answer (None where the connection was cut before its end) and when it ended."""
    client = RawClient(int(gate.config["listen"].rpartition(":")[2]), timeout=60)
    try:
        client.send(post(f"/run/{run}{CHAT}", STREAM if stream else QUESTION, b"x-script: " + script.encode()))
        return client.answer(), time.monotonic()
    except NoAnswer:
        return None, time.monotonic()
    finally:
        client.close()


def tollgate(gate: RunningGateway, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TOLLGATE, *words, "--config", str(gate.config_file)], capture_output=True, text=True, timeout=60, check=False
    )


def under_way(gate: RunningGateway, count: int) -> None:
    gate.until(gate.in_flight, lambda seen: seen >= count)


KINDS = ["silent", "stalled", "endless"] * 4


def kill(gate: RunningGateway, run: str, by: str) -> None:
    if by == "api":
        decided = gate.post(f"/api/runs/{run}/kill", {"reason": "it loops"})
        assert decided["in_force"] is True
    elif by == "command line":
        done = tollgate(gate, "runs", "kill", run, "--reason", "it loops")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"run {run} stopped; no call of this run has been seen yet\n"
    else:  # another process, with no recorder in between
        code = (
            "import sys; from pathlib import Path; from gateway.policy.controls import *\n"
            "from gateway.stores.sqlite_controls import SqliteDecisions\n"
            "d = Decision(Kind.KILL, Scope.RUN, sys.argv[2], reason='it loops', at=1)\n"
            "SqliteDecisions(Path(sys.argv[1])).record(d)"
        )
        file = str(gate.state / "controls.sqlite")
        subprocess.run([sys.executable, "-c", code, file, run], check=True, timeout=60)


@pytest.mark.parametrize("by", ["api", "command line", "file"])
def test_a_kill_ends_every_call_of_a_run_on_every_worker_within_a_second(gate: RunningGateway, by: str) -> None:
    def take(number: int) -> float:
        run = f"run-{by.split(maxsplit=1)[0]}-{number}"
        with ThreadPoolExecutor(16) as pool:
            pending = [pool.submit(call, gate, run, kind, stream=kind != "silent") for kind in KINDS]
            spared = pool.submit(call, gate, f"not-{run}", "endless", stream=True)
            under_way(gate, len(KINDS) + 1)
            kill(gate, run, by)
            decided_at = time.monotonic()
            answers = [each.result(50) for each in pending]
            assert not spared.done()
            gate.post("/api/kill", {"scope": "run", "value": f"not-{run}"})
            spared.result(50)
        for kind, (got, _) in zip(KINDS, answers, strict=True):
            if kind == "silent":
                assert got is not None
                assert got.status == 402
                assert b"it loops" in got.body
        refused, _ = call(gate, run)
        assert refused is not None
        assert refused.status == 402
        assert json.loads(refused.body)["error"]["code"] == "insufficient_quota"
        calls = gate.calls(len(KINDS) + 1, run=run)
        assert {c["error"]["code"] for c in calls} == {"run_stopped"}
        assert {c["outcome"] for c in calls} == {"failed", "truncated", "refused"}
        return max(ended for _, ended in answers) - decided_at

    soon(take, 1)


def test_a_stream_that_is_killed_says_why_and_never_ends_cleanly(gate: RunningGateway) -> None:
    with RawClient(int(gate.config["listen"].rpartition(":")[2]), timeout=60) as client:
        client.send(post(f"/run/told{CHAT}", STREAM, b"x-script: endless"))
        client.until(b"Hi")
        assert gate.post("/api/runs/told/kill", {"reason": "enough"})["stopped"] is True
        rest = b""
        while data := client.more():
            rest += data
    assert b"enough" in rest
    assert b"[DONE]" not in rest
    assert not rest.endswith(b"0\r\n\r\n")


def test_agents_are_stopped_and_go_on(gate: RunningGateway) -> None:
    path = "agent/bot/run/of-bot"
    assert tollgate(gate, "runs", "kill", "--agent", "bot").stdout == "agent bot stopped\n"
    got = call_at(gate, path)
    assert got.status == 402
    listed = tollgate(gate, "runs", "list").stdout
    assert "stopped: agent bot\n" in listed
    assert "of-bot" in listed
    assert tollgate(gate, "runs", "resume", "--agent", "bot").stdout == "agent bot may go on\n"
    got = call_at(gate, path)
    assert got.status == 200
    (entry,) = [d for d in gate.get("/api/controls")["decisions"] if d["value"] == "bot" and d["kind"] == "kill"]
    assert entry["by"]


def call_at(gate: RunningGateway, prefix: str) -> RawAnswer:
    client = RawClient(int(gate.config["listen"].rpartition(":")[2]), timeout=60)
    client.send(post(f"/{prefix}{CHAT}", QUESTION))
    got = client.answer()
    client.close()
    return got


def test_a_raised_budget_is_written_down(gate: RunningGateway) -> None:
    assert tollgate(gate, "runs", "raise", "dear", "7.5").stdout.startswith("run dear has a budget of $7.5000")
    (entry,) = [d for d in gate.get("/api/controls")["decisions"] if d["value"] == "dear"]
    assert (entry["kind"], entry["amount_usd"]) == ("raise", 7.5)
    events = gate.until(lambda: ledger_events(gate), lambda kinds: "run_raised" in kinds)
    assert {"run_killed", "agent_killed", "agent_resumed"} <= set(events)


def test_what_a_run_achieved_is_reported(gate: RunningGateway) -> None:
    assert call(gate, "done:well")[0].status == 200  # type: ignore[union-attr]
    gate.until(lambda: gate.get("/api/runs", search="done:well")["runs"], bool)
    for words, said in ((["-0.25"], "score -0.25"), (["failure", "--note", "it lied"], "failure")):
        done = tollgate(gate, "runs", "outcome", "done:well", *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"run done:well: {said}\n", "")
    found = gate.until(lambda: gate.get("/api/runs/done:well")["outcomes"], lambda found: len(found) == 2)
    assert [(one["outcome"], one["value"], one["note"]) for one in found] == [
        ("score", -0.25, None),
        ("failure", None, "it lied"),
    ]
    strange = tollgate(gate, "runs", "outcome", "nobody", "success")
    assert (strange.returncode, strange.stderr) == (1, "tollgate: there is no run 'nobody'\n")


def ledger_events(gate: RunningGateway) -> list[str]:
    with sqlite3.connect(gate.state / "ledger.sqlite") as db:
        found = [kind for (kind,) in db.execute("SELECT kind FROM events")]
    db.close()
    return found


def test_a_kill_without_a_gateway_holds_at_its_next_start() -> None:
    with Background(ScriptedUpstream(SCRIPTS)) as up:
        gate = RunningGateway({"openai": {"dialect": "openai", "url": up.url, "provider": "openai"}})
        try:
            gate.start()
            assert call(gate, "early")[0].status == 200  # type: ignore[union-attr]
            gate.calls(1)
            gate.stop()
            done = tollgate(gate, "runs", "kill", "early")
            assert done.returncode == 0
            assert "no gateway answers at 127.0.0.1:" in done.stdout
            listed = tollgate(gate, "runs", "list")
            assert "early" in listed.stdout
            assert listed.stdout.splitlines()[1].endswith("stopped")
            gate.start()
            assert call(gate, "early")[0].status == 402  # type: ignore[union-attr]
        finally:
            gate.close()


@NEEDS_REDIS
def test_a_kill_on_one_machine_ends_the_streams_on_another_within_a_second() -> None:
    with RedisServer() as redis, Background(ScriptedUpstream(SCRIPTS)) as up:
        upstreams = {"openai": {"dialect": "openai", "url": up.url, "provider": "openai"}}
        spending = {"redis": redis.url, "timeout": 5}
        with (
            RunningGateway(upstreams, spending=spending) as one,
            RunningGateway(upstreams, spending=spending) as two,
            ThreadPoolExecutor(4) as pool,
        ):

            def take(number: int) -> float:
                run = f"far-{number}"
                pending = [pool.submit(call, two, run, "endless", stream=True) for _ in range(4)]
                under_way(two, 4)
                assert one.post("/api/kill", {"scope": "run", "value": run})["in_force"] is True
                decided_at = time.monotonic()
                late = max(each.result(50)[1] for each in pending) - decided_at
                two.post(f"/api/runs/{run}/resume", {})
                one.until(lambda: call(one, run)[0], lambda got: got is not None and got.status == 200)
                return late

            soon(take, 1)
