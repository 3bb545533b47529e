"""From the first byte to exit 0: draining, cutting, reloading and dying, with calls under way in a real gateway."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from gateway.journal.read import JournalReader
from gateway.journal.record import CallRecord
from gateway.testing.faults import Repeat, Script, Send, Wait, answer, chunked
from gateway.testing.gateway import PATIENCE, RunningGateway, free_port
from gateway.testing.raw import NoAnswer, RawAnswer, RawClient, post, request
from gateway.testing.scripted import ScriptedUpstream

CHAT = "/v1/chat/completions"
CHUNK = b'data: {"id":"c","model":"gpt-4o","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
COUNT = b'"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}'
USAGE = b'data: {"id":"c","model":"gpt-4o","choices":[],' + COUNT + b"}\n\n"
DONE = b"data: [DONE]\n\n"
ANSWER = b'{"id":"c","model":"gpt-4o","choices":[{"index":0,"message":{"content":"Hi"}}],' + COUNT + b"}"
BODY = b'{"model":"gpt-4o","messages":[]}'
STREAM = b'{"model":"gpt-4o","stream":true,"messages":[]}'
BEGUN = chunked(CHUNK, end=b"")
SCRIPTS: dict[str, Script] = {
    "": [Send(answer(ANSWER))],
    "short": [Send(BEGUN), Wait(2), Send(chunked(USAGE, DONE).partition(b"\r\n\r\n")[2])],
    "late": [Wait(2), Send(answer(ANSWER))],
    "silent": [Wait(60)],
    "endless": [Send(BEGUN), Repeat(b"%x\r\n%b\r\n" % (len(CHUNK), CHUNK), pause=0.05)],
}


def upstreams(up: ScriptedUpstream) -> dict[str, Any]:
    return {
        "openai": {"dialect": "openai", "url": up.url, "provider": "openai"},
        "anthropic": {"dialect": "anthropic", "url": up.url, "provider": "anthropic"},
    }


def port_of(gate: RunningGateway) -> int:
    return int(gate.config["listen"].rpartition(":")[2])


class Pending:
    """A call under way in a thread of its own; `began`: the head of its answer is there."""

    def __init__(self, gate: RunningGateway, script: str, body: bytes = STREAM, target: str = CHAT) -> None:
        self.client = RawClient(port_of(gate))
        self.client.send(post(target, body, b"x-script: " + script.encode()))
        self.began = threading.Event()
        self.got: RawAnswer | None = None
        self.failed = ""
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            head = self.client.until(b"\r\n\r\n")
            self.client.rest = head + self.client.rest
            self.began.set()
            self.got = self.client.answer()
        except (NoAnswer, OSError) as fault:
            self.failed = repr(fault)

    def answer(self) -> RawAnswer:
        self.thread.join(60)
        self.client.close()
        assert self.got is not None, self.failed
        return self.got


def arrived(up: ScriptedUpstream, count: int) -> None:
    """Wait until so many requests have come."""
    until = time.monotonic() + PATIENCE
    while len(up.seen) < count:
        assert time.monotonic() < until, f"{len(up.seen)} of {count} requests came"
        time.sleep(0.005)


def records(gate: RunningGateway) -> list[CallRecord]:
    """What stands in the journal of a gateway that has ended."""
    reader = JournalReader(gate.state / "journal", {})
    found: list[CallRecord] = []
    while entries := reader.read():
        found += [record for _, record in entries if isinstance(record, CallRecord)]
    reader.close()
    return found


def terminate(gate: RunningGateway) -> subprocess.Popen[bytes]:
    """Ask it to end, and hand its process over, so that it can be waited for."""
    process = gate._process
    assert process is not None
    process.send_signal(signal.SIGTERM)
    return process


def test_sigterm_lets_everything_end_and_loses_nothing(up: ScriptedUpstream) -> None:
    with RunningGateway(upstreams(up), workers=2, limits={"drain_seconds": 600}, telemetry={"log": None}) as gate:
        before = len(up.seen)
        idle = RawClient(port_of(gate))
        idle.send(request("GET", "/v1/models"))
        assert idle.answer().status == 200
        streams = [Pending(gate, "short") for _ in range(20)] + [Pending(gate, "late", BODY) for _ in range(10)]
        arrived(up, before + 31)
        process = terminate(gate)
        while gate.status("/readyz") == 200:
            time.sleep(0.005)
        assert gate.status("/healthz") == 200, "alive, but not ready"
        assert idle.ends(PATIENCE) == "closed"
        assert all(pending.thread.is_alive() for pending in streams), "all that was before any of them ended"
        idle.close()
        got = [pending.answer() for pending in streams]
        assert process.wait(PATIENCE) == 0
        assert all((one.status, one.complete) == (200, True) for one in got)
        assert all(one.body == CHUNK + DONE for one in got[:20])
        found = records(gate)
        assert len(found) == 31
        assert {one.outcome for one in found} == {"ok"}
        with pytest.raises(ConnectionError):
            RawClient(port_of(gate))


def test_what_does_not_end_in_time_is_told_so(up: ScriptedUpstream) -> None:
    with RunningGateway(upstreams(up), limits={"drain_seconds": 0.5}, telemetry={"log": None}) as gate:
        before = len(up.seen)
        openai, claude = Pending(gate, "endless"), Pending(gate, "endless", target="/v1/messages")
        silent, idle = Pending(gate, "silent", BODY), RawClient(port_of(gate))
        idle.send(b"POST /v1/mess")
        arrived(up, before + 3)
        assert openai.began.wait(PATIENCE)
        assert claude.began.wait(PATIENCE)
        process = terminate(gate)
        one, two, three = openai.answer(), claude.answer(), silent.answer()
        assert process.wait(20) == 0  # it would wait 30 s by itself
        idle.close()
        assert (one.status, one.complete) == (200, False)
        assert json.loads(one.body.rstrip().rpartition(b"\n\ndata: ")[2])["error"]["code"] == "draining"
        assert b"[DONE]" not in one.body
        assert (two.status, two.complete) == (200, False)
        assert b"\n\nevent: error\ndata: " in two.body
        assert (three.status, three.get("retry-after"), three.get("connection")) == (503, "1", "close")
        assert json.loads(three.body)["error"]["code"] == "draining"
        found = {one.status: one.outcome for one in records(gate)}
        assert found == {200: "truncated", 503: "failed"}
        assert len(records(gate)) == 3


def test_a_second_signal_ends_it_now(up: ScriptedUpstream) -> None:
    with RunningGateway(upstreams(up), limits={"drain_seconds": 600}, telemetry={"log": None}) as gate:
        pending = Pending(gate, "endless")
        assert pending.began.wait(PATIENCE)
        process = terminate(gate)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert not pending.answer().complete
        (record,) = records(gate)
        assert record.outcome in {"truncated", "abandoned"}


def test_a_lame_duck_serves_and_says_goodbye(up: ScriptedUpstream) -> None:
    limits = {"drain_seconds": 5, "lame_duck_seconds": 4}
    with RunningGateway(upstreams(up), limits=limits, telemetry={"log": None}) as gate:
        kept = RawClient(port_of(gate))
        kept.send(request("GET", "/v1/models"))
        assert kept.answer().get("connection") == ""
        process = terminate(gate)
        while gate.status("/readyz") == 200:
            time.sleep(0.005)
        kept.send(request("GET", "/v1/models"))
        got = kept.answer()
        assert (got.status, got.get("connection")) == (200, "close")
        with RawClient(port_of(gate)) as fresh:
            fresh.send(request("GET", "/v1/models"))
            assert fresh.answer().status == 200
        kept.close()
        assert process.wait(PATIENCE) == 0
        assert len(records(gate)) == 3


@pytest.fixture(scope="module")
def gate(up: ScriptedUpstream) -> Iterator[RunningGateway]:
    with RunningGateway(upstreams(up), limits={"body_bytes": 1000}, telemetry={"log": None}) as running:
        yield running


def limit_in_force(gate: RunningGateway) -> bool:
    """Is a body of 2,000 bytes refused?"""
    with RawClient(port_of(gate)) as client:
        client.send(post(CHAT, b'{"model":"gpt-4o","messages":[' + b" " * 2000 + b"]}"))
        return client.answer().status == 413


@pytest.mark.parametrize("by", ["signal", "file"])
def test_a_change_holds_for_new_calls_while_old_ones_go_on(up: ScriptedUpstream, gate: RunningGateway, by: str) -> None:
    assert limit_in_force(gate)
    before = len(up.seen)
    pending = [Pending(gate, "short") for _ in range(5)]
    with RawClient(port_of(gate)) as kept:
        kept.send(request("GET", "/v1/models"))
        kept.answer()
        arrived(up, before + 6)
        gate.write_config({**gate.config, "limits": {"body_bytes": 5000}, "aliases": {"house": "gpt-4o-mini"}})
        if by == "signal":
            os.kill(gate.pid, signal.SIGHUP)
        gate.until(lambda: limit_in_force(gate), lambda refused: not refused)
        kept.send(post(CHAT, BODY.replace(b"gpt-4o", b"house")))
        assert kept.answer().status == 200, "an old connection, the new configuration"
    assert b'"gpt-4o-mini"' in up.received[-1]
    assert all(one.answer().complete for one in pending)
    gate.write_config({**gate.config, "limits": {"body_bytes": 1000}, "aliases": {}})
    gate.until(lambda: limit_in_force(gate), bool)


def test_a_bad_file_leaves_the_old_in_force_and_says_so(gate: RunningGateway) -> None:
    good = gate.config
    gate.write_config({**good, "limits": {"body_bytes": "many"}})
    gate.until(lambda: gate.text("/metrics"), lambda text: "\ntollgate_config_last_reload_success 0.0\n" in text)
    assert limit_in_force(gate)
    assert "limits.body_bytes" in gate.log
    gate.write_config(good)
    gate.until(lambda: gate.text("/metrics"), lambda text: "\ntollgate_config_last_reload_success 1.0\n" in text)
    assert limit_in_force(gate)


def test_reloads_leak_no_connections(up: ScriptedUpstream, gate: RunningGateway) -> None:
    (worker,) = gate.pids("worker")

    def sockets() -> int:
        return sum(os.readlink(link).startswith("socket") for link in Path(f"/proc/{worker}/fd").iterdir())

    def call() -> None:
        with RawClient(port_of(gate)) as client:
            client.send(post(CHAT, BODY))
            assert client.answer().status == 200

    call()
    before = sockets()
    for size in (2000, 3000, 4000, 1000):
        reloads = gate.log.count("configuration reloaded")
        gate.write_config({**gate.config, "limits": {"body_bytes": size}})
        os.kill(gate.pid, signal.SIGHUP)
        gate.until(lambda: gate.log.count("configuration reloaded"), reloads.__lt__)
        call()
    gate.until(sockets, lambda count: count <= before)


def test_kill_9_of_a_worker_abandons_its_calls_and_nothing_else(up: ScriptedUpstream) -> None:
    with RunningGateway(upstreams(up), telemetry={"log": None}) as gate:
        pending = [Pending(gate, "endless", target=f"/run/killed-{n}{CHAT}") for n in range(5)]
        assert all(one.began.wait(PATIENCE) for one in pending)
        gate.kill_worker()
        assert not any(one.answer().complete for one in pending)

        def served() -> bool:
            try:
                with RawClient(port_of(gate)) as client:
                    client.send(post(CHAT, BODY))
                    return client.answer().status == 200
            except (NoAnswer, OSError):
                return False

        gate.until(served, bool)
        calls = gate.calls(5, outcome="abandoned")
        assert {call["run_id"] for call in calls} == {f"killed-{n}" for n in range(5)}
        assert all(call["cost_usd"] is None for call in calls), "unknown is not zero"
        assert gate.status("/readyz") == 200
        gate.until(lambda: [one.left_at for one in up.of("endless")[-5:]], all)


def served_from(gate: RunningGateway) -> bool:
    with RawClient(port_of(gate)) as client:
        client.send(request("GET", "/v1/models"))
        return client.answer().status == 200


@pytest.mark.parametrize("taken", ["listen", "admin"])
def test_a_port_that_is_taken_is_said_plainly(
    up: ScriptedUpstream, gate: RunningGateway, tmp_path: Path, taken: str
) -> None:
    ports = {"listen": f"127.0.0.1:{free_port()}", "admin": f"127.0.0.1:{free_port()}"}
    ports[taken] = gate.config[taken]
    config = tmp_path / "tollgate.yaml"
    config.write_text(json.dumps({"upstreams": upstreams(up), "state": str(tmp_path / "state"), **ports}))
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from gateway.cli import main; sys.exit(main())",
            "serve",
            "--config",
            str(config),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert ports[taken] in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3
    assert served_from(gate)


def test_a_hundred_at_once_while_it_ends(up: ScriptedUpstream) -> None:
    """Whoever was accepted is answered, whoever was not is refused by the kernel; every answer has its record."""
    with RunningGateway(upstreams(up), limits={"drain_seconds": 5}, telemetry={"log": None}) as gate:
        stop = threading.Event()
        answered, cut = [0] * 8, [0] * 8

        def caller(n: int) -> None:
            while not stop.is_set():
                try:
                    with RawClient(port_of(gate)) as client:
                        while not stop.is_set():
                            client.send(post(CHAT, BODY))
                            got = client.answer()
                            assert (got.status, got.complete) == (200, True)
                            answered[n] += 1
                            if got.get("connection") == "close":
                                break
                except ConnectionRefusedError:
                    return
                except (NoAnswer, ConnectionError):
                    cut[n] += 1  # an idle connection that was closed while the request was on its way

        with ThreadPoolExecutor(8) as threads:
            runs = [threads.submit(caller, n) for n in range(8)]
            gate.until(lambda: sum(answered), lambda count: count > 50)
            process = terminate(gate)
            assert process.wait(PATIENCE) == 0
            stop.set()
            for run in runs:
                run.result(PATIENCE)
        assert len(records(gate)) == sum(answered)
        assert {one.outcome for one in records(gate)} == {"ok"}
