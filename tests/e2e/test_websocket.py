"""WebSockets through a real gateway: relayed frame by frame as they are, metered where usage events pass."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.faults import Close, Repeat, Reset, Script, Send, Wait
from gateway.testing.gateway import PATIENCE, RunningGateway
from gateway.testing.raw import RawAnswer, RawClient, request
from gateway.testing.scripted import ScriptedUpstream, Seen
from tests.soon import soon

CREATE = {"type": "response.create", "model": "gpt-5", "input": "[[say one two three four five]]"}
UPGRADE = (
    b"Connection: keep-alive, Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Up: 1\r\n\r\n"
FRAMES = b"\x81\x05Hello\x82\x03\x00\x01\x02\x89\x00"
SCRIPTS: dict[str, Script] = {
    "": [Send(SWITCH + FRAMES), Wait(60)],
    "ends": [Send(SWITCH + FRAMES), Close()],
    "resets": [Send(SWITCH + FRAMES), Wait(0.1), Reset()],
    "refuses": [Send(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno")],
    "floods": [Send(SWITCH), Repeat(b"\x82\x7f" + (60_000).to_bytes(8) + b"x" * 60_000)],
}


def masked(payload: bytes, opcode: int = 1) -> bytes:
    """A frame of a client, with a mask of zeros."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2)
    return bytes([0x80 | opcode]) + length + bytes(4) + payload


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeUpstream]:
    with FakeUpstream(5) as running:
        yield running


@pytest.fixture(scope="module")
def gate(fake: FakeUpstream, up: ScriptedUpstream) -> Iterator[RunningGateway]:
    upstreams = {
        "openai": {"dialect": "openai", "url": fake.url, "provider": "openai"},
        "raw": {"dialect": "openai", "url": up.url, "provider": "openai", "key": "sk-operator"},
    }
    with RunningGateway(upstreams, limits={"drain_seconds": 1}, telemetry={"log": None}) as running:
        yield running


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as running:
        yield running


async def converse(session: aiohttp.ClientSession, url: str, *messages: Any, compress: int = 0) -> list[Any]:
    """Send each message and gather what comes until its response is complete."""
    heard: list[Any] = []
    async with session.ws_connect(url, compress=compress, headers={"Authorization": "Bearer sk-client"}) as ws:
        for message in messages:
            await ws.send_json(message)
            while True:
                event = await ws.receive_json()
                heard.append(event)
                if event["type"] in {"response.completed", "response.done", "error"}:
                    break
    return heard


async def record(gate: RunningGateway, run: str) -> dict[str, Any]:
    (call,) = await asyncio.to_thread(gate.calls, 1, run=run)
    found: dict[str, Any] = call
    return found


def plain(events: list[Any]) -> list[Any]:
    """Events without what differs from answer to answer."""
    text = json.dumps(events)
    return [event["type"] for event in json.loads(text)]


@pytest.mark.parametrize("compress", [0, 15])
async def test_a_responses_session_is_relayed_and_metered(
    session: aiohttp.ClientSession, fake: FakeUpstream, gate: RunningGateway, compress: int
) -> None:
    direct = await converse(session, f"{fake.url}/v1/responses", CREATE, CREATE)
    run = f"responses-{compress}"
    heard = await converse(session, f"{gate.url}/run/{run}/v1/responses", CREATE, CREATE, compress=compress)
    assert plain(heard) == plain(direct)
    assert [e["delta"] for e in heard if e["type"].endswith("text.delta")] == [
        e["delta"] for e in direct if e["type"].endswith("text.delta")
    ]
    assert [json.loads(text) for text in fake.requests[-1].messages] == [CREATE, CREATE]
    assert fake.requests[-1].header("authorization") == "Bearer sk-client"
    call = await record(gate, run)
    usages = [e["response"]["usage"] for e in heard if e["type"] == "response.completed"]
    assert (call["status"], call["outcome"]) == (101, "ok")
    assert call["usage_source"] == "provider"
    assert call["usage"]["input_tokens"] == sum(usage["input_tokens"] for usage in usages)
    assert call["usage"]["output_tokens"] == sum(usage["output_tokens"] for usage in usages) > 0
    assert call["cost_usd"] > 0


async def test_a_realtime_session(session: aiohttp.ClientSession, fake: FakeUpstream, gate: RunningGateway) -> None:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "[[say one two three]]"}]}
    said = {"type": "conversation.item.create", "item": item}
    async with session.ws_connect(f"{gate.url}/run/realtime/v1/realtime?model=gpt-realtime") as ws:
        await ws.send_json(said)
        await ws.send_json({"type": "response.create"})
        while (event := await ws.receive_json())["type"] != "response.done":
            pass
    call = await record(gate, "realtime")
    assert call["usage"]["output_tokens"] == event["response"]["usage"]["output_tokens"] > 0
    assert (call["outcome"], call["usage_source"]) == ("ok", "provider")


class Raw:
    """A handshake by hand."""

    def __init__(self, gate: RunningGateway, script: str, *headers: bytes, run: str = "") -> None:
        port = int(gate.config["listen"].rpartition(":")[2])
        target = f"/run/{run or script or 'plain'}/raw/v1/responses"
        self.client = RawClient(port)
        self.client.send(request("GET", target, b"x-script: " + script.encode(), *(headers or UPGRADE)))

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def answer(self) -> RawAnswer:
        return self.client.answer()

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (piece := self.client.more()):
            data += piece
        return data


def left(seen: Seen) -> float:
    until = time.monotonic() + PATIENCE
    while not seen.left_at:
        assert time.monotonic() < until, "the upstream was never left"
        time.sleep(0.005)
    return seen.left_at


def test_handshake_and_frames_pass_as_they_are(gate: RunningGateway, up: ScriptedUpstream) -> None:
    with Raw(gate, "") as ws:
        got = ws.answer()
        assert (got.status, got.get("upgrade"), got.get("connection"), got.get("x-up")) == (
            101,
            "websocket",
            "Upgrade",
            "1",
        )
        assert got.get("x-tollgate-request-id")
        assert ws.read(len(FRAMES)) == FRAMES
    head = up.seen[-1].raw.lower()
    assert b"\r\nconnection: upgrade\r\nupgrade: websocket\r\n" in head
    assert b"\r\nsec-websocket-key: dghlihnhbxbszsbub25jzq==\r\n" in head
    assert b"\r\nauthorization: bearer sk-operator\r\n" in head


def test_what_comes_with_the_handshake_is_not_lost(gate: RunningGateway, fake: FakeUpstream) -> None:
    port = int(gate.config["listen"].rpartition(":")[2])
    create = masked(json.dumps(CREATE).encode())
    with RawClient(port) as client:
        client.send(request("GET", "/run/early/v1/responses", *UPGRADE) + create)
        assert client.answer().status == 101
        client.until(b'"type":"response.completed"')
        client.send(masked(b"\x03\xe8", 8))
    (call,) = gate.calls(1, run="early")
    assert call["usage"]["output_tokens"] > 0


def test_a_refused_upgrade_is_an_answer(gate: RunningGateway) -> None:
    with Raw(gate, "refuses") as ws:
        got = ws.answer()
        assert (got.status, got.body, got.complete) == (426, b"no", True)
    (call,) = gate.calls(1, run="refuses")
    assert (call["outcome"], call["cost_usd"]) == ("upstream_error", 0)


def test_without_connection_upgrade_means_nothing(gate: RunningGateway, up: ScriptedUpstream) -> None:
    with Raw(gate, "refuses", b"Upgrade: websocket", run="lonely") as ws:
        assert ws.answer().status == 426
    assert b"upgrade: websocket" not in up.seen[-1].raw.lower()


def test_who_leaves_takes_the_other_along(gate: RunningGateway, up: ScriptedUpstream) -> None:
    def take(number: int) -> float:
        with Raw(gate, "", run=f"left-{number}") as ws:
            ws.answer()
            ws.read(len(FRAMES))
        moment = time.monotonic()
        late = left(up.seen[-1]) - moment
        (call,) = gate.calls(1, run=f"left-{number}")
        assert (call["status"], call["outcome"]) == (101, "ok")
        return late

    soon(take, 0.25)


@pytest.mark.parametrize(("script", "outcome"), [("ends", "ok"), ("resets", "truncated")])
def test_an_upstream_that_ends_ends_it(gate: RunningGateway, script: str, outcome: str) -> None:
    with Raw(gate, script) as ws:
        ws.answer()
        assert ws.read(len(FRAMES)) == FRAMES
        assert ws.client.ends() in {"closed", "reset"}
    (call,) = gate.calls(1, run=script)
    assert call["outcome"] == outcome


def resident(gate: RunningGateway) -> int:
    (worker,) = gate.pids("worker")
    with open(f"/proc/{worker}/statm") as memory:
        return int(memory.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_reader_that_stops_stops_the_upstream(gate: RunningGateway, up: ScriptedUpstream) -> None:
    before = resident(gate)
    with Raw(gate, "floods") as ws:
        assert ws.answer().status == 101
        time.sleep(1)
        assert resident(gate) - before < 10_000_000
        assert len(ws.read(2_000_000)) >= 2_000_000


def test_an_upstream_that_stops_reading_stops_the_client() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)

        def switch() -> None:
            peer, _ = listener.accept()
            peer.recv(65_536)
            peer.sendall(SWITCH)
            done.wait(20)
            peer.close()

        done = threading.Event()
        thread = threading.Thread(target=switch, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with RunningGateway({"raw": {"dialect": "openai", "url": url}}, telemetry={"log": None}) as gate:
            with Raw(gate, "") as ws:
                ws.answer()
                before = resident(gate)
                ws.client.socket.settimeout(1)
                sent = 0
                with contextlib.suppress(TimeoutError):
                    while sent < 200_000_000:
                        sent += ws.client.socket.send(masked(b"x" * 60_000, 2))
                assert sent < 40_000_000
                assert resident(gate) - before < 10_000_000
            done.set()
            thread.join(5)


def test_sockets_end_with_the_gateway(fake: FakeUpstream, up: ScriptedUpstream) -> None:
    upstreams = {"raw": {"dialect": "openai", "url": up.url}}
    gate = RunningGateway(upstreams, limits={"drain_seconds": 0.5}, telemetry={"log": None}, stop_seconds=20)
    with gate, Raw(gate, "") as ws:
        ws.answer()
        assert gate.stop() == 0
        assert ws.client.ends() in {"closed", "reset"}
