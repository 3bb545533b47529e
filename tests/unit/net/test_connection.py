"""A client's connection in memory and in virtual time."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.call import Request
from gateway.config.schema import Limits
from gateway.errors import ClientGone, GatewayError
from gateway.net.connection import EARLY_LIMIT, LINGER_SECONDS, ClientConnection
from gateway.testing.clock import run
from gateway.testing.transports import ClientWire, at_once

LIMITS = Limits(
    header_seconds=5, body_seconds=7, keepalive_seconds=11, write_seconds=13, body_bytes=1000, connections=3
)
GET = b"GET /x HTTP/1.1\r\nHost: gate\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: gate\r\nContent-Length: 3\r\n\r\nabc"


def test(scenario: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    """Run a scenario in virtual time."""

    def wrapped() -> None:
        async def main() -> None:
            await scenario()

        run(main())

    wrapped.__name__ = scenario.__name__
    return wrapped


test.__test__ = False  # type: ignore[attr-defined]


def made(carry: Any = at_once, *, eof: bool = True) -> ClientWire:
    return ClientWire(asyncio.get_running_loop(), carry, LIMITS, eof=eof)


async def after(wire: ClientWire, seconds: float) -> None:
    """Let time pass, and the connection notice."""
    await asyncio.sleep(seconds)
    wire.connection.tick(asyncio.get_running_loop().time())
    await wire.settle()


class Held:
    """Carries calls that wait for the test."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.fault: BaseException | None = None

    async def __call__(self, request: Request, down: ClientConnection, fault: GatewayError | None) -> None:
        waiting: asyncio.Future[Any] = asyncio.ensure_future(self.go.wait())
        gone: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        down.on_gone = lambda error: gone.set_exception(error) if not gone.done() else None
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if gone.done():
            self.fault = gone.exception()
            down.abort()
            return
        self.go.clear()
        await at_once(request, down, fault)


@test
async def test_a_request_and_its_answer() -> None:
    wire = made()
    wire.feed(POST)
    await wire.settle()
    ((request, fault),) = wire.calls
    assert (request.method, request.path, request.body, request.client, fault) == (
        b"POST",
        b"/x",
        b"abc",
        "192.0.2.7",
        None,
    )
    assert wire.transport.written == b"HTTP/1.1 200 Told\r\ncontent-length: 2\r\n\r\nok"
    assert wire.connection.idle()


@test
async def test_requests_are_carried_one_after_the_other() -> None:
    held = Held()
    wire = made(held)
    wire.feed(POST + GET[:10])
    await wire.settle()
    wire.feed(GET[10:] + GET)
    await wire.settle()
    assert len(wire.calls) == 1
    held.go.set()
    await wire.settle()
    assert [call.method for call, _ in wire.calls] == [b"POST", b"GET"]
    held.go.set()
    await wire.settle()
    assert len(wire.calls) == 3


@test
async def test_what_comes_early_is_not_gathered_without_end() -> None:
    held = Held()
    wire = made(held)
    wire.feed(GET)
    await wire.settle()
    wire.feed(b"x" * EARLY_LIMIT)
    assert wire.transport.reading
    wire.feed(b"x")
    assert not wire.transport.reading
    held.go.set()
    await wire.settle()
    assert wire.transport.reading


@test
async def test_a_head_has_its_time() -> None:
    wire = made()
    wire.feed(GET[:20])
    await after(wire, 4.9)
    assert not wire.calls
    await after(wire, 0.2)
    ((request, fault),) = wire.calls
    assert fault is not None
    assert (fault.code, request.path) == ("client_too_slow", b"/x")
    assert b"connection: close" in wire.transport.written


@test
async def test_between_requests_it_may_rest_and_then_the_time_of_a_head_begins() -> None:
    wire = made()
    wire.feed(GET)
    await wire.settle()
    await after(wire, 10)
    wire.feed(GET[:5])
    await after(wire, 4)
    assert len(wire.calls) == 1
    wire.feed(GET[5:])
    await wire.settle()
    assert [fault for _, fault in wire.calls] == [None, None]
    await after(wire, 10.9)
    assert wire.transport.ended == ""
    await after(wire, 0.2)
    assert wire.transport.ended == "closed"
    assert wire.transport.written.count(b"HTTP/1.1 ") == 2, "no word about it"


@test
async def test_a_client_that_does_not_take_its_last_answer_is_cut() -> None:
    wire = made()
    wire.feed(GET)
    await wire.settle()
    wire.transport.close = lambda: None  # type: ignore[method-assign]  # it waits for the buffer to drain
    await after(wire, 11.1)
    await after(wire, 12)
    assert wire.transport.ended == ""
    await after(wire, 2)
    assert wire.transport.ended == "aborted"


@test
async def test_a_body_has_its_time_between_two_pieces() -> None:
    wire = made()
    wire.feed(POST[:-3])
    for piece in (b"a", b"b"):
        await after(wire, 6.9)
        wire.feed(piece)
    await after(wire, 6.9)
    assert not wire.calls
    await after(wire, 0.2)
    assert [fault.code for _, fault in wire.calls if fault] == ["client_too_slow"]


@test
async def test_a_call_under_way_has_all_the_time_in_the_world() -> None:
    wire = made(Held())
    wire.feed(GET)
    await after(wire, 100_000)
    assert wire.transport.ended == ""


@test
async def test_a_refusal_lingers_for_a_moment() -> None:
    wire = made()
    wire.feed(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n")
    await wire.settle()
    assert b"request_too_large" in wire.transport.written
    assert wire.transport.ended == "eof", "our side is done, theirs may go on"
    wire.feed(b"x" * 500)
    await after(wire, LINGER_SECONDS - 0.1)
    assert wire.transport.ended == "eof"
    await after(wire, 0.2)
    assert len(wire.calls) == 1
    assert not wire.server.connections or wire.transport._lost


@test
async def test_who_takes_nothing_is_cut() -> None:
    wire = made(Held())
    wire.feed(GET)
    await wire.settle()
    wire.transport.held = 300_000
    wire.connection.pause_writing()
    await after(wire, 0)
    await after(wire, 12)
    wire.transport.held = 299_000
    await after(wire, 12)
    assert wire.transport.ended == "", "it does take something"
    await after(wire, 13)
    await after(wire, 1)
    assert wire.transport.ended == "aborted"


@test
async def test_drained_waits_until_the_client_has_caught_up() -> None:
    wire = made()
    connection = wire.connection
    await connection.drained()
    connection.pause_writing()
    assert connection.paused
    waiting = asyncio.ensure_future(connection.drained())
    await wire.settle()
    assert not waiting.done()
    connection.resume_writing()
    await waiting


@test
async def test_drained_ends_with_the_client() -> None:
    wire = made()
    wire.connection.pause_writing()
    waiting = asyncio.ensure_future(wire.connection.drained())
    await wire.settle()
    wire.transport.lose()
    with pytest.raises(ClientGone):
        await waiting
    with pytest.raises(ClientGone):
        await wire.connection.drained()


@test
async def test_who_leaves_is_noticed_at_once() -> None:
    held = Held()
    wire = made(held)
    wire.feed(GET)
    await wire.settle()
    wire.transport.lose()
    await wire.settle()
    assert isinstance(held.fault, ClientGone)
    assert not wire.server.connections


@test
async def test_one_too_many_is_told_so() -> None:
    wires = [made()]
    server = wires[0].server
    for _ in range(3):
        wire = made()
        wire.connection.server = server
        wires.append(wire)
    server.connections = {wire.connection for wire in wires[:3]}
    wires[3].connection.connection_made(wires[3].transport)
    await wires[3].settle()
    assert [fault.code for _, fault in server.calls if fault] == ["overloaded"]


@pytest.mark.parametrize(
    ("raw", "length", "written"),
    [
        (GET, None, b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"),
        (GET, 5, b"\r\nabcde"),
        (GET.replace(b"1.1", b"1.0"), None, b"connection: close\r\n\r\nabcde"),
        (GET.replace(b"1.1\r\n", b"1.0\r\nConnection: keep-alive\r\n"), 5, b"connection: keep-alive\r\n\r\nabcde"),
        (GET.replace(b"GET", b"HEAD"), 5, b"\r\n\r\n"),
    ],
)
def test_framing(raw: bytes, length: int | None, written: bytes) -> None:
    async def carry(request: Request, down: ClientConnection, fault: GatewayError | None) -> None:
        down.start(200, b"OK", b"", length)
        down.write(b"abc")
        down.finish(b"de")

    async def main() -> None:
        wire = made(carry)
        wire.feed(raw)
        await wire.settle()
        assert wire.transport.written.endswith(written)
        assert wire.transport.written.startswith(b"HTTP/1.1 200 OK\r\n")

    run(main())


@pytest.mark.parametrize("status", [204, 304])
def test_bodiless_answers(status: int) -> None:
    async def carry(request: Request, down: ClientConnection, fault: GatewayError | None) -> None:
        down.start(status, b"X", b"", None)
        down.write(b"never")
        down.finish(b"sent")

    async def main() -> None:
        wire = made(carry)
        wire.feed(GET + GET)
        await wire.settle()
        assert wire.transport.written == b"HTTP/1.1 %d X\r\n\r\n" % status * 2

    run(main())


@test
async def test_nothing_is_sent_before_there_is_something_to_send() -> None:
    async def carry(request: Request, down: ClientConnection, fault: GatewayError | None) -> None:
        down.start(200, b"OK", b"", None)
        assert down.transport.written == b""  # type: ignore[attr-defined]
        down.abort()

    wire = made(carry)
    wire.feed(GET)
    await wire.settle()
    assert (wire.transport.written, wire.transport.ended) == (b"", "aborted")


@test
async def test_abort_sends_its_tail_and_breaks_the_framing() -> None:
    async def carry(request: Request, down: ClientConnection, fault: GatewayError | None) -> None:
        down.start(200, b"OK", b"", None)
        down.write(b"abc")
        down.transport.held = 10  # type: ignore[attr-defined]
        down.abort(b"error")

    wire = made(carry)
    wire.feed(GET)
    await wire.settle()
    assert wire.transport.written.endswith(b"3\r\nabc\r\n5\r\nerror\r\n")
    assert wire.transport.ended == "closed", "what is still in the buffer may leave"


@test
async def test_a_call_without_an_end_is_cut() -> None:
    async def carry(request: Request, down: ClientConnection, fault: GatewayError | None) -> None:
        down.start(200, b"OK", b"", None)
        down.write(b"abc")

    wire = made(carry)
    wire.feed(GET)
    await wire.settle()
    assert wire.transport.ended == "aborted"


@test
async def test_while_closing_every_answer_says_goodbye() -> None:
    wire = made()
    wire.server.closing = True
    wire.feed(GET + GET)
    await wire.settle()
    assert len(wire.calls) == 1
    assert b"\r\nconnection: close\r\n" in wire.transport.written


@test
async def test_after_an_upgrade_bytes_pass_as_they_are() -> None:
    heard: list[bytes] = []
    held = Held()

    async def carry(request: Request, down: ClientConnection, fault: GatewayError | None) -> None:
        down.start(101, b"Switching", b"upgrade: x\r\n", None)
        down.upgrade(heard.append)
        down.write(b"\x81\x01a")
        await held(request, down, fault)

    wire = made(carry)
    wire.feed(GET + b"early")
    await wire.settle()
    wire.feed(b"more")
    assert wire.transport.written.endswith(b"\r\n\r\n\x81\x01a")
    assert heard == [b"early", b"more"]
    wire.connection.hold(True)
    assert not wire.transport.reading
    wire.connection.hold(False)
    assert wire.transport.reading
    await after(wire, 100_000)
    assert wire.transport.ended == "", "a socket may be silent"


@test
async def test_where_there_is_no_half_close_the_end_is_a_close() -> None:
    wire = made(eof=False)
    wire.feed(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    await wire.settle()
    assert wire.transport.ended == "closed"


@test
async def test_a_call_leaves_no_cycle_behind() -> None:
    wire = made()
    chunked = b"POST /x HTTP/1.1\r\nHost: gate\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    wire.feed(POST + chunked)
    await wire.settle()
    gc.collect()
    gc.disable()
    try:
        for _ in range(50):
            wire.feed(POST)
            await wire.settle()
            wire.feed(chunked)
            await wire.settle()
        wire.calls.clear()
        assert gc.collect() < 50
    finally:
        gc.enable()
