"""A worker, and a recorder, that run out of file descriptors: who is told no, who waits, and that nothing is lost.

The limit of a running process is lowered and raised from outside, as an operator's or a container's would be low from
the start. Nothing here is timed.
"""

from __future__ import annotations

import json
import os
import resource
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.testing.faults import Script, Send, Wait, answer, chunked
from gateway.testing.gateway import RunningGateway
from gateway.testing.raw import NoAnswer, RawClient, post
from gateway.testing.scripted import ScriptedUpstream

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
GOOD = (
    b'{"id":"c","object":"chat.completion","model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}'
)
BODY = b'{"model":"gpt-4o","messages":[],"max_tokens":5}'
SLOW = chunked(b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n', b"data: [DONE]\n\n")
NONE = 3  # those of the standard streams are taken
HALF = SLOW.index(b"}]}") + 7
SCRIPTS: dict[str, Script] = {
    "": [Send(answer(GOOD))],
    "slow": [Send(SLOW[:HALF]), Wait(3), Send(SLOW[HALF:])],
}


def settings(up: ScriptedUpstream, **more: Any) -> dict[str, Any]:
    known = {"provider": "openai", "url": up.url}
    return {
        "upstreams": {"openai": {"dialect": "openai", **known}, "anthropic": {"dialect": "anthropic", **known}},
        "breakers": {"enabled": True, "consecutive": 1},
        "telemetry": {"log": None},
        **more,
    }


class Limited:
    """A process of a gateway whose limit can be set, beside what it has now."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._before = resource.prlimit(pid, resource.RLIMIT_NOFILE)

    def open(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def leave(self, more: int) -> None:
        self.set(self.open() + more)

    def set(self, limit: int) -> None:
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (limit, self._before[1]))

    def free(self) -> None:
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, self._before)

    def cpu(self) -> float:
        """Seconds that it has computed so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


MADE: list[RawClient] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while MADE:
        MADE.pop().close()


def connect(gate: RunningGateway) -> RawClient:
    client = RawClient(int(gate.config["listen"].rpartition(":")[2]), timeout=60)
    MADE.append(client)
    return client


def asked(gate: RunningGateway, script: bytes = b"", path: str = CHAT) -> RawClient:
    client = connect(gate)
    client.send(post(path, BODY, b"x-script: " + script))
    return client


def rest(client: RawClient) -> tuple[int, str]:
    with client:
        got = client.answer()
        assert got.complete
        return got.status, got.get("x-tollgate-code")


def is_over(client: RawClient) -> bool:
    """Has the gateway closed it? What was received was read before."""
    client.socket.setblocking(False)
    try:
        return client.socket.recv(1) == b""
    except BlockingIOError:
        return False


def ratio(gate: RunningGateway) -> float:
    lines = gate.text("/metrics").splitlines()
    return float(next(line for line in lines if line.startswith("tollgate_descriptors_used_ratio ")).split()[1])


def test_more_connections_than_descriptors_are_told_so_and_no_call_is_lost(up: ScriptedUpstream) -> None:
    with RunningGateway(**settings(up, telemetry={"log": "stdout"})) as gate:
        (worker,) = map(Limited, gate.pids("worker"))
        under_way = [asked(gate, b"slow") for _ in range(20)]
        gate.until(worker.open, lambda count: count >= 40 + 15, 20)
        worker.leave(60)
        gate.until(lambda: ratio(gate), lambda seen: seen > 0.5)  # it has seen that
        silent = [connect(gate) for _ in range(200)]  # they never ask
        flood = [asked(gate) for _ in range(200)]
        got = Counter(rest(client) for client in flood)
        assert set(got) <= {(200, ""), (503, "no_descriptors")}, got
        assert got[503, "no_descriptors"] > 0
        assert [rest(client) for client in under_way] == [(200, "")] * 20
        for client in silent:
            client.close()
        gate.until(lambda: rest(asked(gate)), lambda seen: seen == (200, ""), 20)  # nobody had to help
        assert gate.get("/api/breakers") == {"breakers": []}
        assert len(gate.calls(20 + got[200, ""] + 1, outcome="ok")) >= 20 + got[200, ""] + 1
        refused = 'tollgate_rejected_total{reason="no_descriptors"} '
        text = gate.until(lambda: gate.text("/metrics"), lambda text: refused in text)
        assert float(text.partition(refused)[2].split()[0]) >= got[503, "no_descriptors"]
        said = [json.loads(line) for line in gate.log.splitlines() if '"gateway.descriptors"' in line]
        assert 1 <= len(said) <= 3, said  # not one for each connection
        assert said[0]["detail"]["state"] == "short"
        assert said[0]["detail"]["refused"] > 0


def test_who_rests_makes_room_for_who_comes(up: ScriptedUpstream) -> None:
    with RunningGateway(**settings(up)) as gate:
        (worker,) = map(Limited, gate.pids("worker"))
        resting = [asked(gate) for _ in range(30)]
        assert {client.answer().status for client in resting} == {200}
        worker.set(worker.open() + 2)
        gate.until(lambda: ratio(gate), lambda seen: seen > 0.9)
        for _ in range(40):
            assert rest(asked(gate)) == (200, "")
        assert any(map(is_over, resting))


@pytest.mark.parametrize(("path", "status"), [(CHAT, 503), (MESSAGES, 529)])
def test_without_any_it_neither_spins_nor_blames_the_provider_and_who_waited_is_served(
    up: ScriptedUpstream, path: str, status: int
) -> None:
    with RunningGateway(**settings(up)) as gate:
        (worker,) = map(Limited, gate.pids("worker"))
        with connect(gate) as client:  # nothing has been sent upstream yet: there is no connection to use again
            client.send(post(path, b"not json"))
            assert client.answer().status == 400
            worker.set(NONE)
            gate.until(lambda: ratio(gate), lambda seen: seen == 1.0)
            spent = worker.cpu()
            waiting = [asked(gate, path=path) for _ in range(8)]
            for _ in range(3):  # each waits a moment for a descriptor, in vain
                client.send(post(path, BODY))
                got = client.answer()
                assert (got.status, got.get("x-tollgate-code")) == (status, "no_descriptors")
                assert (got.get("retry-after"), got.get("x-should-retry")) == ("1", "true")
                assert (b'"error"' in got.body, got.complete) == (True, True)
            assert worker.cpu() - spent < 1.5  # of more than three seconds
            for held in waiting:  # they are in the kernel's queue
                held.socket.settimeout(0.05)
                with pytest.raises((NoAnswer, OSError)):
                    held.answer()
                held.socket.settimeout(60)
            worker.free()
            assert [rest(held)[0] for held in waiting] == [200] * 8
            client.send(post(path, BODY))
            assert client.answer().status == 200
        assert gate.get("/api/breakers") == {"breakers": []}
        calls = gate.calls(1 + 3 + 8 + 1)
        found = Counter((call["status"], call["error"]["code"] if call["error"] else "") for call in calls)
        assert found == {(400, "invalid_json"): 1, (status, "no_descriptors"): 3, (200, ""): 9}
        assert "records_lost" not in gate.log


def test_a_recorder_without_any_goes_on_when_there_are_some(up: ScriptedUpstream) -> None:
    with RunningGateway(**settings(up, journal={"segment_bytes": 65536})) as gate:
        (recorder,) = map(Limited, gate.pids("recorder"))
        assert rest(asked(gate)) == (200, "")
        gate.calls(1)
        recorder.set(NONE)
        with connect(gate) as client:
            for _ in range(300):
                client.send(post(CHAT, BODY))
                assert client.answer().status == 200
        assert len(list(gate.state.glob("journal/w0-*"))) > 1  # new segments that it cannot open
        spent = recorder.cpu()
        assert gate.status("/readyz") in (0, 503)
        assert gate.pids("recorder") == [recorder.pid]
        assert recorder.cpu() - spent < 4
        recorder.free()
        assert len(gate.calls(301, seconds=30)) == 301
        assert gate.pids("recorder") == [recorder.pid]
