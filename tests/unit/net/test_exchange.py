"""One answer of an upstream in memory and in virtual time."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ClientGone, Draining, GatewayError, UpstreamReset
from gateway.net.exchange import HIGH_WATER
from gateway.net.head import HEAD_LIMIT, ResponseParser, read_response_head
from gateway.net.origin import IDLE_SECONDS, RENEW_SECONDS
from gateway.net.repeat import OFTEN
from gateway.testing.clock import run
from gateway.testing.transports import UpstreamWire

SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS = b"HTTP/1.1 200 OK\r\n\r\n"


def made(*, no_body: bool = False) -> UpstreamWire:
    return UpstreamWire(asyncio.get_running_loop(), no_body=no_body)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@settings(deadline=None)
@given(st.lists(st.integers(1, 60), max_size=5))
def test_a_head_known_by_its_shape_is_followed_by_the_same_body_in_any_pieces(cuts: list[int]) -> None:
    head = b"HTTP/1.1 200 OK\r\nx-a: 1\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def check() -> None:
        wire = made()
        for _ in range(OFTEN):
            wire.origin.answers.learn(head, read_response_head(head, ResponseParser()))
        assert wire.origin.answers.read(head) is not None
        raw = head.replace(b"1\r", b"22\r", 1) + b"2\r\nhe\r\n3\r\nllo\r\n0\r\nX-T: 1\r\n\r\n"
        for cut in [*cuts, len(raw)]:
            if raw:
                wire.feed(raw[:cut])
            raw = raw[cut:]
        assert await wire.body() == (b"hello", "")
        wire.exchange.close()
        assert wire.pools.kept == [wire.connection]

    run(check())


@pytest.mark.parametrize(
    ("raw", "body"),
    [
        (SIZED + b"hello", b"hello"),
        (CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\nX-T: 1\r\n\r\n", b"hello"),
        (b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Go\r\n\r\n" + SIZED + b"hello", b"hello"),
        (b"HTTP/1.1 204 None\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not\r\nContent-Length: 5\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    ],
)
def test_an_answer_that_ends_gives_its_connection_back(raw: bytes, body: bytes) -> None:
    async def main(pieces: list[bytes]) -> None:
        wire = made()
        reader = asyncio.ensure_future(wire.body())
        for piece in pieces:
            wire.feed(piece)
            await asyncio.sleep(0)
        assert await reader == (body, "")
        wire.exchange.close()
        wire.exchange.close()
        assert wire.pools.kept == [wire.connection]
        assert wire.transport.ended == ""

    run(main([raw]))
    run(main([raw[at : at + 1] for at in range(len(raw))]))


def test_the_answer_to_head_has_no_body() -> None:
    async def main() -> None:
        wire = made(no_body=True)
        wire.feed(SIZED)
        assert await wire.body() == (b"", "")
        assert wire.exchange.length == 5
        wire.exchange.close()
        assert wire.pools.kept

    run(main())


@pytest.mark.parametrize(
    ("raw", "body", "code"),
    [
        (b"", b"", "upstream_reset"),
        (b"HTTP/1.1 200", b"", "upstream_reset"),
        (SIZED + b"hel", b"hel", "upstream_cut"),
        (CHUNKED + b"5\r\nhel", b"hel", "upstream_cut"),
        (CHUNKED + b"3\r\nhel\r\n", b"hel", "upstream_cut"),
        (CHUNKED + b"3\r\nhel\r\nzz\r\n", b"hel", "upstream_bad_answer"),
        (b"SSH-2.0\r\n", b"", "upstream_bad_answer"),
        (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", b"", "upstream_bad_answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * HEAD_LIMIT, b"", "upstream_bad_answer"),
        (ENDLESS + b"hello", b"hello", ""),
    ],
)
def test_an_end_is_what_the_framing_says(raw: bytes, body: bytes, code: str) -> None:
    async def main() -> None:
        wire = made()
        wire.feed(raw)
        wire.end()
        assert await wire.body() == (body, code)
        wire.exchange.close()
        assert not wire.pools.kept
        assert wire.transport.is_closing()

    run(main())


@pytest.mark.parametrize(("raw", "code"), [(b"", "upstream_reset"), (SIZED, "upstream_cut"), (ENDLESS, "upstream_cut")])
def test_a_reset_is_never_an_end(raw: bytes, code: str) -> None:
    async def main() -> None:
        wire = made()
        wire.feed(raw)
        wire.transport.lose(ConnectionResetError())
        assert (await wire.body())[1] == code

    run(main())


@pytest.mark.parametrize(
    "raw",
    [
        SIZED + b"hello" + b"HTTP/1.1 200 OK\r\n",
        CHUNKED + b"0\r\n\r\n" + SIZED + b"hello",
        CHUNKED + b"0\r\n\r\n\x00",
        b"HTTP/1.1 204 None\r\n\r\nsurplus",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_a_connection_that_cannot_be_trusted_is_cut(raw: bytes) -> None:
    async def main() -> None:
        wire = made()
        wire.feed(raw)
        assert (await wire.body())[1] == ""
        wire.exchange.close()
        assert not wire.pools.kept
        assert wire.transport.ended == "aborted"

    run(main())


def test_bytes_that_nobody_asked_for_end_a_connection() -> None:
    async def main() -> None:
        wire = made()
        wire.feed(SIZED + b"hello")
        await wire.body()
        wire.exchange.close()
        wire.feed(b"HTTP/1.1 408 Timeout\r\n\r\n")
        assert wire.transport.ended == "aborted"
        assert not wire.connection.usable(0)

    run(main())


def test_an_answer_that_is_left_cuts_its_connection() -> None:
    async def main() -> None:
        wire = made()
        wire.feed(SIZED + b"he")
        wire.exchange.close()
        assert wire.transport.ended == "aborted"

    run(main())


def test_a_reader_that_is_behind_holds_the_upstream_back() -> None:
    async def main() -> None:
        wire = made()
        wire.exchange.idle_timeout = 5
        wire.exchange.total_deadline = 1000
        wire.feed(ENDLESS)
        wire.feed(b"x" * HIGH_WATER)
        assert wire.transport.reading
        wire.feed(b"x")
        assert not wire.transport.reading
        assert wire.exchange.deadline == 1000, "its silence is not its own fault"
        assert len(await wire.exchange.read()) == HIGH_WATER + 1
        assert wire.transport.reading
        assert wire.exchange.deadline == asyncio.get_running_loop().time() + 5

    run(main())


def test_a_socket_is_held_back_too() -> None:
    async def main() -> None:
        wire = made()
        wire.feed(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n" + b"x" * (HIGH_WATER + 1))
        held: list[bool] = []
        send = wire.exchange.upgraded(held.append)
        assert not wire.transport.reading
        send(b"frame")
        assert wire.transport.written.endswith(b"frame")
        wire.connection.pause_writing()
        wire.connection.resume_writing()
        assert held == [True, False]
        await wire.exchange.read()
        assert wire.transport.reading
        wire.end()
        assert await wire.exchange.read() == b""
        wire.exchange.close()
        assert not wire.pools.kept

    run(main())


@pytest.mark.parametrize(
    ("raw", "deadline", "total", "code"),
    [
        (b"", 1, 9, "upstream_first_byte_timeout"),
        (SIZED, 1, 9, "upstream_stalled"),
        (SIZED, 9, 9, "upstream_total_timeout"),
    ],
)
def test_what_is_overdue_is_told_apart(raw: bytes, deadline: float, total: float, code: str) -> None:
    async def main() -> None:
        wire = made()
        wire.feed(raw)
        wire.exchange.deadline, wire.exchange.total_deadline = deadline, total
        wire.exchange.overdue()
        assert (await wire.body())[1] == code

    run(main())


def test_what_came_before_a_fault_is_read_first() -> None:
    async def main() -> None:
        wire = made()
        wire.feed(SIZED + b"hel")
        wire.exchange.fail(UpstreamReset("x", code="a"))
        wire.exchange.fail(UpstreamReset("x", code="later"))
        assert await wire.body() == (b"hel", "a")

    run(main())


def test_what_was_put_back_is_read_again() -> None:
    async def main() -> None:
        wire = made()
        wire.feed(SIZED + b"hello")
        piece = await wire.exchange.read()
        wire.exchange.unread(piece)
        assert await wire.body() == (b"hello", "")

    run(main())


@pytest.mark.parametrize("waits", [True, False])
def test_an_interruption_is_raised_once_whether_or_not_one_waits(waits: bool) -> None:
    async def main() -> None:
        wire = made()
        wire.feed(SIZED)
        reader = asyncio.ensure_future(wire.exchange.read()) if waits else None
        await settle()
        wire.exchange.interrupt(ClientGone())
        if not waits:
            reader = asyncio.ensure_future(wire.exchange.read())
        assert reader is not None
        with pytest.raises(ClientGone):
            await reader
        wire.feed(b"hello")
        assert await wire.body() == (b"hello", ""), "the answer stays readable"

    run(main())


def test_an_interruption_between_two_reads_is_not_lost() -> None:
    async def main() -> None:
        wire = made()
        wire.feed(SIZED)
        reader = asyncio.ensure_future(wire.exchange.read())
        await settle()
        wire.feed(b"hel")  # the reader is woken, but does not run yet
        wire.exchange.interrupt(ClientGone())
        with pytest.raises(ClientGone):
            await reader
        wire.feed(b"lo")
        assert await wire.body() == (b"hello", "")

    run(main())


def test_who_is_patient_waits_for_the_head_although_the_client_left() -> None:
    async def main() -> None:
        wire = made()
        wire.exchange.patience, wire.exchange.total_deadline = lambda: 3, 100
        waiting = asyncio.ensure_future(wire.exchange.answered())
        await settle()
        wire.exchange.interrupt(ClientGone())
        await settle()
        assert not waiting.done()
        assert wire.exchange.deadline <= asyncio.get_running_loop().time() + 3
        wire.feed(SIZED)
        await waiting

    run(main())


def test_the_head_is_waited_for_no_longer_than_anybody_else_waits() -> None:
    async def main() -> None:
        wire = made()
        others = [2, 1, 0]
        wire.exchange.patience = lambda: math.inf if others.pop(0) else 0.0
        wire.exchange.pools.active.add(wire.exchange)
        waiting = asyncio.ensure_future(wire.exchange.answered())
        await settle()
        wire.exchange.interrupt(ClientGone())
        with pytest.raises(ClientGone):
            await waiting
        assert others == []

    run(main())


def test_nobody_is_patient_with_a_gateway_that_ends() -> None:
    async def main() -> None:
        wire = made()
        wire.exchange.patience = lambda: 3
        waiting = asyncio.ensure_future(wire.exchange.answered())
        await settle()
        wire.exchange.interrupt(Draining())
        with pytest.raises(Draining):
            await waiting

    run(main())


def test_the_grace_behind_the_end_is_short() -> None:
    async def main() -> None:
        wire = made()
        wire.feed(CHUNKED)
        wire.exchange.expire_in(0.25)
        assert wire.exchange.deadline == pytest.approx(asyncio.get_running_loop().time() + 0.25)

    run(main())


@pytest.mark.parametrize(
    ("facts", "usable"),
    [
        ({}, True),
        ({"lost": True}, False),
        ({"ended": "closed"}, False),
        ({"idle_since": -IDLE_SECONDS - 1}, False),
        ({"named": True, "born": -RENEW_SECONDS - 1}, False),
        ({"born": -RENEW_SECONDS - 1}, True),
    ],
)
def test_which_kept_connections_are_used_again(facts: dict[str, Any], usable: bool) -> None:
    async def main() -> None:
        wire = made()
        for name, value in facts.items():
            owner: Any = {"ended": wire.transport, "named": wire.origin}.get(name, wire.connection)
            setattr(owner, name, value)
        assert wire.connection.usable(0) is usable

    run(main())


def test_a_connection_that_closed_at_once_is_a_fault_not_a_hang() -> None:
    async def main() -> None:
        wire = made()
        other = UpstreamWire(asyncio.get_running_loop())
        other.exchange.close()
        wire.transport.close()
        wire.exchange.fault = None
        wire.exchange.send(wire.connection, b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(GatewayError) as raised:
            await wire.exchange.answered()
        assert raised.value.code == "upstream_reset"

    run(main())


class Sink:
    """Takes the pieces of an answer; says no at those that hold `stop`."""

    def __init__(self, stop: bytes = b"\x00") -> None:
        self.pieces: list[bytes] = []
        self.stop = stop

    def __call__(self, data: bytes) -> bool:
        self.pieces.append(data)
        return self.stop not in data

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


def test_a_relayed_answer_reaches_its_sink_without_waking_the_reader() -> None:
    async def main() -> None:
        wire, sink = made(), Sink()
        wire.feed(CHUNKED + b"2\r\nhe\r\n")
        await wire.exchange.answered()
        reader = asyncio.ensure_future(wire.exchange.relay(sink))
        await settle()
        for piece in (b"1\r\nl\r\n", b"1\r\nl\r\n", b"1\r", b"\no\r\n"):
            wire.feed(piece)
        assert sink.pieces == [b"he", b"l", b"l", b"o"]  # before the event loop had a turn
        assert not reader.done()
        wire.feed(b"0\r\n\r\n")
        assert await reader is True
        wire.exchange.close()
        assert wire.pools.kept

    run(main())


def test_a_sink_that_wants_no_more_stops_the_relay_and_what_follows_is_kept() -> None:
    async def main() -> None:
        wire, sink = made(), Sink(stop=b"!")
        wire.feed(CHUNKED)
        reader = asyncio.ensure_future(wire.exchange.relay(sink))
        await settle()
        wire.feed(b"2\r\na!\r\n")
        wire.feed(b"1\r\nb\r\n")
        wire.feed(b"1\r\nc\r\n")
        assert await reader is False
        assert sink.pieces == [b"a!"]
        sink.stop = b"\x00"
        wire.feed(b"0\r\n\r\n")
        assert await wire.exchange.relay(sink) is True
        assert sink.pieces == [b"a!", b"bc"]

    run(main())


@pytest.mark.parametrize(
    ("bad", "code"), [(b"zz\r\n", "upstream_bad_answer"), (b"3\r\nab", "upstream_cut"), (b"", "upstream_cut")]
)
def test_a_relay_ends_with_the_fault_behind_the_last_piece(bad: bytes, code: str) -> None:
    async def main() -> None:
        wire, sink = made(), Sink()
        wire.feed(CHUNKED)
        reader = asyncio.ensure_future(wire.exchange.relay(sink))
        await settle()
        wire.feed(b"2\r\nhe\r\n" + bad)
        wire.end()
        with pytest.raises(GatewayError) as caught:
            await reader
        assert caught.value.code == code
        assert sink.body.startswith(b"he")

    run(main())


def test_who_leaves_interrupts_a_relay() -> None:
    async def main() -> None:
        wire, sink = made(), Sink()
        wire.feed(CHUNKED)
        reader = asyncio.ensure_future(wire.exchange.relay(sink))
        await settle()
        wire.exchange.interrupt(ClientGone())
        with pytest.raises(ClientGone):
            await reader
        wire.feed(b"2\r\nhe\r\n")
        assert sink.pieces == []
        assert await wire.exchange.read() == b"he"  # still readable, to learn what it costs

    run(main())


def test_what_follows_a_complete_chunked_answer_is_no_part_of_it() -> None:
    async def main() -> None:
        wire, sink = made(), Sink()
        wire.feed(CHUNKED + b"2\r\nhe\r\n")
        reader = asyncio.ensure_future(wire.exchange.relay(sink))
        await settle()
        wire.feed(b"0\r\n\r\n")
        wire.feed(b"3\r\nbad\r\n")
        assert await reader is True
        assert sink.body == b"he"
        wire.exchange.close()
        assert not wire.pools.kept

    run(main())


@settings(deadline=None)
@given(
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    style=st.sampled_from([b"%x", b"%X", b"0%x", b"%x;a=b"]),
    data=st.data(),
)
def test_chunks_mean_the_same_however_they_are_cut_and_whoever_reads_them(
    chunks: list[bytes], style: bytes, data: st.DataObject
) -> None:
    """The shortest way for whole chunks and llhttp, in any mixture, give the bytes that were sent."""
    raw = b"".join(style % len(chunk) + b"\r\n" + chunk + b"\r\n" for chunk in chunks) + b"0\r\n\r\n"
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1), max_size=12)))

    async def main() -> None:
        wire, taken = made(), bytearray()

        def sink(piece: bytes) -> bool:
            taken.extend(piece)
            return True

        wire.feed(CHUNKED)
        reader = asyncio.ensure_future(wire.exchange.relay(sink))
        await settle()
        for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
            wire.feed(raw[start:end])
        assert await reader is True
        assert taken == b"".join(chunks)

    run(main())


def test_who_leaves_as_the_answer_begins_leaves_it_to_the_reader() -> None:
    """The head is there, its reader not yet awake: what the answer costs can still be learned."""

    async def main() -> None:
        wire = made()
        waiting = asyncio.ensure_future(wire.exchange.answered())
        await settle()
        wire.feed(SIZED + b"hello")
        wire.exchange.interrupt(ClientGone())
        await waiting
        assert wire.exchange.status == 200
        assert await wire.exchange.read() == b"hello"

    run(main())
