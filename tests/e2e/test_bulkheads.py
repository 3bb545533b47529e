"""Pools of places through a real gateway: who hangs, floods or matters less takes nothing from the others.

Nothing here is timed: what is counted is who was answered, in which order the upstream saw them, and what is left in
the pools.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from typing import Any

import pytest

from gateway import cli
from gateway.testing.faults import Script, Send, Wait, answer
from gateway.testing.gateway import RunningGateway
from gateway.testing.raw import NoAnswer, RawAnswer, RawClient, post
from gateway.testing.scripted import ScriptedUpstream

CHAT = "/v1/chat/completions"
GOOD = (
    b'{"id":"c","object":"chat.completion","model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}'
)
BODY = b'{"model":"gpt-4o","messages":[]}'
SCRIPTS: dict[str, Script] = {
    "": [Send(answer(GOOD))],
    "hangs": [Wait(3600)],
    "slow": [Wait(0.3), Send(answer(GOOD))],
    "late": [Wait(1), Send(answer(GOOD))],
}


def settings(up: ScriptedUpstream, **more: Any) -> dict[str, Any]:
    known = {"dialect": "openai", "provider": "openai", "url": up.url}
    return {
        "upstreams": {"openai": known, "other": known},
        "identity": {"tenant_header": "x-team"},
        "retries": {"attempts": 1},
        "telemetry": {"log": None},
        **more,
    }


class Client:
    """A call under way in a thread of its own."""

    def __init__(self, gate: RunningGateway, *headers: bytes, script: str = "", path: str = CHAT) -> None:
        self.raw = RawClient(int(gate.config["listen"].rpartition(":")[2]), timeout=60)
        self.raw.send(post(path, BODY, b"x-script: " + script.encode(), *headers))
        self.got: RawAnswer | None = None
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            self.got = self.raw.answer()
        except (NoAnswer, OSError, ValueError):
            return  # it left

    def answer(self) -> RawAnswer:
        self.thread.join(60)
        self.raw.close()
        assert self.got is not None
        return self.got

    def leave(self) -> None:
        self.raw.socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads
        self.thread.join(10)
        self.raw.reset()


def pool(gate: RunningGateway, name: str) -> tuple[int, int]:
    """Calls that have a place, and that wait for one."""
    found = {one["name"]: one for one in gate.get("/api/bulkheads")["bulkheads"]}
    return found[name]["in_flight"], found[name]["waiting"]


def until(gate: RunningGateway, name: str, in_flight: int, waiting: int) -> None:
    gate.until(lambda: pool(gate, name), lambda seen: seen == (in_flight, waiting), 20)


def ask(gate: RunningGateway, *headers: bytes, path: str = CHAT) -> RawAnswer:
    return Client(gate, *headers, path=path).answer()


def test_an_upstream_that_hangs_takes_no_place_of_another(up: ScriptedUpstream) -> None:
    pools = {
        "sick": {"upstream": "openai", "max": 3, "queue": 4, "wait": 600},
        "well": {"max": 3, "queue": 4, "wait": 600},
    }
    with RunningGateway(**settings(up, bulkheads=pools)) as gate:
        hanging = [Client(gate, script="hangs") for _ in range(7)]
        until(gate, "sick", 3, 4)
        for _ in range(20):
            assert ask(gate, path="/other" + CHAT).status == 200
        full = ask(gate)
        assert (full.status, full.get("x-tollgate-code"), full.get("x-should-retry")) == (503, "bulkhead_full", "true")
        assert int(full.get("retry-after")) >= 1
        assert pool(gate, "sick") == (3, 4)
        for client in hanging:
            client.leave()
        until(gate, "sick", 0, 0)
        assert ask(gate).status == 200
        calls = gate.calls(29)
        assert [call["outcome"] for call in calls].count("refused") == 1
        refused = next(call for call in calls if call["outcome"] == "refused")
        assert refused["notes"]["bulkhead_refused"] == "bulkhead_full"
        metrics = gate.until(lambda: gate.text("/metrics"), lambda text: "tollgate_bulkhead_refused_total" in text)
        assert 'tollgate_bulkhead_refused_total{pool="sick",reason="bulkhead_full"} 1' in metrics
        assert 'tollgate_bulkhead_limit{pool="sick"} 3' in metrics
        assert 'tollgate_rejected_total{reason="bulkhead_full"} 1' in metrics


def test_a_tenant_that_floods_does_not_keep_another_waiting(up: ScriptedUpstream) -> None:
    with RunningGateway(**settings(up, bulkheads={"all": {"max": 2, "queue": 20, "wait": 600}})) as gate:
        stuck = [Client(gate, b"x-team: flood", script="hangs") for _ in range(2)]
        until(gate, "all", 2, 0)
        flood = [Client(gate, b"x-team: flood", script="slow") for _ in range(20)]
        until(gate, "all", 2, 20)
        quiet = Client(gate, b"x-team: quiet", script="slow")
        gate.until(
            lambda: sum(one.got is not None for one in flood), lambda seen: seen == 1, 20
        )  # pushed out: it is full
        for client in stuck:
            client.leave()
        assert quiet.answer().status == 200
        got = [client.answer() for client in flood]
        assert sorted(one.status for one in got) == [200] * 19 + [503]
        served = [b"\r\nx-team: quiet\r\n" in seen.raw for seen in up.of("slow")]
        assert served.index(True) < 6, "it was among the first to be served"


def test_interactive_calls_go_before_batch(up: ScriptedUpstream) -> None:
    rules = [{"team": "nightly", "priority": "batch"}]
    one = {"all": {"max": 1, "wait": 600}}
    with RunningGateway(**settings(up, bulkheads=one, priorities=rules)) as gate:
        running = Client(gate, script="hangs")
        until(gate, "all", 1, 0)
        waiting = []
        for at, header in enumerate([b"x-tollgate-priority: batch", b"x-team: nightly", b"x-plain: 1"]):
            waiting.append(Client(gate, header))
            until(gate, "all", 1, at + 1)
        running.leave()
        assert [client.answer().status for client in waiting] == [200] * 3
        assert b"\r\nx-plain: 1\r\n" in up.seen[-3].raw, "the upstream saw it first of those that waited"
        plain = next(call for call in gate.calls(4) if call["tenant"] == "default" and call["status"] == 200)
        assert plain["notes"]["bulkhead"] == "all"


def test_a_gateway_that_ends_serves_those_that_wait(up: ScriptedUpstream) -> None:
    pools = {"all": {"max": 1, "wait": 600}}
    with RunningGateway(**settings(up, bulkheads=pools), limits={"drain_seconds": 30}) as gate:
        clients = [Client(gate, script="late") for _ in range(3)]
        until(gate, "all", 1, 2)
        process = gate._process
        assert process is not None
        process.send_signal(signal.SIGTERM)
        assert [client.answer().status for client in clients] == [200] * 3
        assert process.wait(30) == 0


def test_tools_and_a_reload(up: ScriptedUpstream) -> None:
    tool = {"search": {"url": up.url, "allow_private": True, "timeout": 600}}
    pools = {"external": {"upstream": "tools/*", "max": 1, "queue": 0}, "agents": {"max": 5}}
    config = settings(up, bulkheads=pools, tools=tool)
    with RunningGateway(**config) as gate:
        running = Client(gate, script="hangs", path="/tools/search/x")
        until(gate, "external", 1, 0)
        full = ask(gate, path="/tools/search/x")
        assert (full.status, full.get("x-tollgate-code")) == (503, "bulkhead_full")
        assert ask(gate).status == 200
        pools["external"]["max"] = 2
        gate.write_config({**gate.config, "bulkheads": pools})
        gate.until(lambda: ask(gate, path="/tools/search/x").status, lambda status: status == 200, 20)
        assert pool(gate, "external")[0] == 1
        running.leave()
        until(gate, "external", 0, 0)


def test_a_worker_that_falls_behind_sends_batch_calls_away_until_it_is_well(up: ScriptedUpstream) -> None:
    with RunningGateway(**settings(up, overload={"lag_seconds": 0.2})) as gate:
        batch = b"x-tollgate-priority: batch"
        (worker,) = gate.pids("worker")

        def after_a_stop() -> RawAnswer:
            os.kill(worker, signal.SIGSTOP)
            try:
                time.sleep(1.5)  # the stop itself: what the worker is late by
            finally:
                os.kill(worker, signal.SIGCONT)
            gate.until(lambda: gate.get("/api/bulkheads")["overload_level"], lambda level: level > 0)
            return ask(gate, batch)

        refused = gate.until(after_a_stop, lambda got: got.status == 503, 60)
        assert refused.get("x-tollgate-code") == "overloaded"
        assert int(refused.get("retry-after")) in (1, 2, 4)
        gate.until(lambda: ask(gate, batch).status, lambda status: status == 200, 60)
        assert 'tollgate_shed_total{cause="lag",priority="batch"}' in gate.text("/metrics")


def test_a_worker_that_has_too_much_memory_sends_batch_calls_away_first(up: ScriptedUpstream) -> None:
    with RunningGateway(**settings(up)) as gate:
        (worker,) = gate.pids("worker")
        with open(f"/proc/{worker}/statm") as file:
            resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        gate.write_config({**gate.config, "overload": {"memory_bytes": int(resident / 1.04)}})
        gate.until(lambda: gate.get("/api/bulkheads")["overload_level"], lambda level: level == 1, 20)
        assert ask(gate, b"x-tollgate-priority: batch").status == 503
        assert ask(gate, b"x-stainless-retry-count: 2").status == 503
        assert ask(gate).status == 200


def test_the_figures_of_workers_add_up_in_the_api_the_metrics_and_the_command(
    up: ScriptedUpstream, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = {"max": 5, "queue": 1, "wait": 600}
    with RunningGateway(**settings(up, bulkheads={"all": rule}, workers=2)) as gate:
        hanging: list[Client] = []

        def filled() -> dict[str, Any]:
            (found,) = gate.get("/api/bulkheads")["bulkheads"]
            if len(hanging) < 60:
                hanging.append(Client(gate, script="hangs"))  # to whichever worker the kernel says
            return dict(found)

        found = gate.until(filled, lambda one: one["in_flight"] == 5 and one["waiting"] == 2 and one["refused"], 30)
        assert [own["limit"] for own in found["workers"]] == [3, 2]
        assert [own["in_flight"] for own in found["workers"]] == [3, 2]
        assert [own["waiting"] for own in found["workers"]] == [1, 1]
        assert found["limit"] == found["max"] == 5
        full = len(hanging) - 7
        text = gate.until(lambda: gate.text("/metrics"), lambda text: f'reason="bulkhead_full"}} {full}.0' in text)
        for line in ("in_flight", "limit"):
            assert f'tollgate_bulkhead_{line}{{pool="all"}} 5.0' in text
        assert 'tollgate_bulkhead_waiting{pool="all"} 2.0' in text
        assert cli.main(["bulkheads", "list", "--config", str(gate.config_file)]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "all: 5 of 5 places, 2 waiting",
            f"  refused: {full} bulkhead_full",
            "  worker 0: 3 of 3, 1 waiting",
            "  worker 1: 2 of 2, 1 waiting",
        ]
        for client in hanging:
            client.leave()
        until(gate, "all", 0, 0)
