"""Refuse, tunnel, close: the other ways a call can end."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.call import Answer, Call
from gateway.errors import ClientGone, Draining, GatewayError, StreamStalled, UpstreamReset
from gateway.journal.convert import outcome_of
from gateway.pipeline import serve
from gateway.stages.arrive import arrive, new_call
from gateway.stages.close import close
from gateway.stages.ending import ABORT
from gateway.stages.refuse import reason_of, refuse
from gateway.testing.doubles import World, ask, drive

CHAT = "/v1/chat/completions"
STREAM = b'{"model":"gpt-4o","stream":true,"messages":[]}'
SOCKET = ((b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"))
SWITCH = ((b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"), (b"X-Up", b"1"))


def made(world: World, path: str = CHAT, body: bytes = STREAM) -> Call:
    gw = world.gateway()
    call = new_call(ask(path, body), gw)
    arrive(call, gw)
    return call


@pytest.mark.parametrize(("path", "word"), [(CHAT, '"code":'), ("/v1/messages", '"error_code":')])
def test_before_the_commit_a_fault_is_an_answer(path: str, word: str) -> None:
    world = World()
    call = made(world, path, b'{"model":"m","max_tokens":1,"messages":[]}')
    ending = refuse(call, Draining("ending", retry_after=7), world.down, world.gateway())
    assert ending.complete
    assert word in ending.tail.decode()
    assert world.down.head is not None
    status, reason, block, length = world.down.head
    assert (call.status, length) == (status, len(ending.tail))
    assert reason == reason_of(status)
    assert b"retry-after: 7\r\n" in block
    assert b"x-tollgate-request-id: " + call.id.encode() in block


def test_after_it_only_an_event_and_a_cut_can_tell() -> None:
    world = World()
    call = made(world)
    gw = world.gateway()
    call.meter = gw.dialects["openai_chat"].meter(call.route, call.asked, 200, b"text/event-stream")
    call.committed = call.interruptible = True
    ending = refuse(call, StreamStalled("silence"), world.down, gw)
    assert not ending.complete
    assert json.loads(ending.tail.removeprefix(b"data: "))["error"]["code"] == "upstream_stalled"
    call.interruptible = False
    assert refuse(call, StreamStalled("silence"), world.down, gw) == ABORT


@pytest.mark.parametrize("gone", [True, False])
def test_who_is_gone_is_told_nothing(gone: bool) -> None:
    world = World()
    world.down.gone = gone
    fault: GatewayError = UpstreamReset("x") if gone else ClientGone()
    assert refuse(made(world), fault, world.down, world.gateway()) == ABORT
    assert world.down.head is None


@pytest.mark.parametrize(("status", "reason"), [(404, b"Not Found"), (529, b"Overloaded"), (599, b"Error")])
def test_every_status_has_a_reason(status: int, reason: bytes) -> None:
    assert reason_of(status) == reason


def relayed(world: World, *pieces: bytes | GatewayError, at: int = -1, raising: BaseException | None = None) -> Any:
    exchange = world.answer(101, SWITCH, pieces)
    request = ask("/v1/responses", b"", *SOCKET, method=b"GET")
    drive(serve(request, world.down, world.gateway()), at=at, raising=raising)
    return exchange


def test_a_socket_is_relayed_both_ways() -> None:
    world = World()
    exchange = world.answer(101, SWITCH, [b"\x81\x01a", b"\x81\x01b"])
    work = serve(ask("/v1/responses", b"", *SOCKET, method=b"GET"), world.down, world.gateway())
    for _ in range(3):  # connect, head, first read
        work.send(None)
    assert world.down.sink is not None
    world.down.sink(b"\x81\x81\0\0\0\0c")
    drive(work)
    assert world.down.sent == b"\x81\x01a\x81\x01b"
    assert exchange.received == b"\x81\x81\0\0\0\0c"
    assert world.down.head is not None
    status, _, block, _ = world.down.head
    assert (status, block.startswith(b"Connection: Upgrade\r\nUpgrade: websocket\r\nX-Up: 1\r\n")) == (101, True)
    call = world.call
    assert (call.status, call.websocket, call.response_bytes, outcome_of(call)) == (101, True, 6, "ok")
    assert world.down.endings == ["abort"], "a socket ends with its connection"


@pytest.mark.parametrize(
    ("fault", "outcome"), [(ClientGone(), "ok"), (UpstreamReset("x"), "truncated"), (Draining("x"), "truncated")]
)
def test_a_socket_may_end_from_either_side(fault: GatewayError, outcome: str) -> None:
    world = World()
    exchange = relayed(world, b"\x81\x01a", at=3, raising=fault)
    assert exchange.closed
    assert (outcome_of(world.call), world.down.endings) == (outcome, ["abort"])


def test_a_socket_waits_for_a_slow_client() -> None:
    world = World(slow=True)
    exchange = world.answer(101, SWITCH, [b"a", b"b"])
    stops = drive(serve(ask("/v1/responses", b"", *SOCKET, method=b"GET"), world.down, world.gateway()))
    assert stops == ["connect", "head", "read", "drained", "read", "drained", "read"]
    assert exchange.closed


def test_every_step_of_close_is_tried(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    call = made(world)

    class Broken:
        terminal = started = False
        failed = ""

        def feed(self, data: bytes) -> None: ...

        def end(self) -> Answer:
            raise ValueError("no facts")

    call.meter = Broken()
    gw = world.gateway()
    close(call, gw)
    assert world.journal.records == [call]
    assert world.identity.learned == [call]
    assert call.notes["close_failed"] == "1"
    assert "no facts" in caplog.text
