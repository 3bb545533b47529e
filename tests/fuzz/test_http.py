"""Both wires are fed valid, mutated and random HTTP, whole, byte by byte and in pieces.

Invariant of the client's side: every byte belongs to a call that is handed on, or is refused with a GatewayError and
the connection closed. Invariant of the upstream's side: an answer comes to its end, or to a GatewayError. Never
another exception, never a hang; and how the bytes were cut changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.schema import Limits
from gateway.errors import GatewayError
from gateway.testing.transports import ClientWire, UpstreamWire

LIMITS = Limits(header_bytes=2048, headers=20, body_bytes=4096)
EXAMPLES = settings(max_examples=250, deadline=None)

# -- input

SMALL = st.binary(max_size=40)
NAMES = st.sampled_from(
    [b"Host", b"host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Expect", b"Upgrade", b"X-A", b"TE"]
)
VALUES = st.one_of(
    st.sampled_from(
        [
            *(b"gate", b"0", b"3", b"5", b"03", b"+3", b"3, 3", b"chunked", b"Chunked", b"gzip, chunked", b"close"),
            *(b"keep-alive", b"Upgrade, X-A", b"websocket", b"100-continue", b"", b"a\tb", b"\xe9", b"a" * 3000),
        ]
    ),
    SMALL,
)
LINES = st.sampled_from(
    [
        *(b"GET / HTTP/1.1", b"POST /v1/chat/completions HTTP/1.1", b"POST /x HTTP/1.0", b"HEAD / HTTP/1.1"),
        *(b"CONNECT a:1 HTTP/1.1", b"PRI * HTTP/2.0", b"GET http://a/ HTTP/1.1", b"OPTIONS * HTTP/1.1", b"GET /"),
    ]
)
STATUS = st.sampled_from(
    [
        *(b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 204 No", b"HTTP/1.1 304 Not", b"HTTP/1.1 100 Go"),
        *(b"HTTP/1.1 101 Switching", b"HTTP/1.1 500", b"HTTP/1.1 2OO OK", b"HTTP/2 200", b"ICY 200 OK"),
    ]
)
ENDS = st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\r\n "])
BODIES = st.one_of(
    st.sampled_from([b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"0\r\n\r\n", b"3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n"]),
    st.sampled_from([b"zz\r\n", b"3\nabc\n0\n\n", b"-1\r\n", b"ffffffffffffffffff\r\n", b"3\r\nabcd\r\n0\r\n\r\n"]),
    SMALL,
)


@st.composite
def messages(draw: st.DrawFn, first: st.SearchStrategy[bytes]) -> bytes:
    """Up to three messages put together from parts that matter, and perhaps damaged at some place."""
    data = b""
    for _ in range(draw(st.integers(1, 3))):
        data += draw(first) + draw(ENDS)
        for name, value in draw(st.lists(st.tuples(NAMES, VALUES), max_size=5)):
            data += name + draw(st.sampled_from([b": ", b":", b" : "])) + value + draw(ENDS)
        data += b"\r\n" + draw(BODIES)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(SMALL) + data[at + draw(st.integers(0, 3)) :]
    return data


@st.composite
def well_formed(draw: st.DrawFn) -> tuple[bytes, int]:
    """Requests that must be carried, one behind the other, and how many there are."""
    data = b""
    count = draw(st.integers(1, 4))
    for _ in range(count):
        body = draw(SMALL)
        padding = b"X-A: %b\r\n" % draw(st.sampled_from([b"", b"b", b"\xe9\t1"]))
        data += b"POST /x HTTP/1.1\r\nHost: gate\r\n%bContent-Length: %d\r\n\r\n%b" % (padding, len(body), body)
    return data, count


def cuts(data: bytes, draw: Callable[[st.SearchStrategy[set[int]]], set[int]]) -> list[bytes]:
    places = sorted(draw(st.sets(st.integers(0, len(data)), max_size=6)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@st.composite
def ways(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> list[list[bytes]]:
    """The same bytes whole, cut somewhere, and byte by byte."""
    data = draw(source)
    return [[data], cuts(data, draw), [data[at : at + 1] for at in range(len(data))]]


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    running = asyncio.new_event_loop()
    faults: list[object] = []
    running.set_exception_handler(lambda _, context: faults.append(context))
    yield running
    running.run_until_complete(running.shutdown_asyncgens())
    running.close()
    assert not faults


# -- the client's side

Seen = list[tuple[bytes, bytes, tuple[tuple[bytes, bytes], ...], bytes, str]]


async def play(pieces: list[bytes]) -> tuple[Seen, ClientWire]:
    wire = ClientWire(asyncio.get_running_loop(), limits=LIMITS)
    for piece in pieces:
        wire.feed(piece)
        await wire.settle()
    calls = list(wire.calls)
    wire.transport.abort()  # the client goes: nothing may stay behind
    await wire.settle()
    assert not wire.server.connections
    seen = [
        (call.method, call.path, tuple(call.headers), call.body, fault.code if fault is not None else "")
        for call, fault in calls
    ]
    return seen, wire


def answers(written: bytes) -> list[int]:
    """The statuses of the answers on a wire, which must be whole."""
    found = []
    while written:
        head, mark, rest = written.partition(b"\r\n\r\n")
        assert mark, written
        status = int(head[9:12])
        length = 0
        if status != 100:
            found.append(status)
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        written = rest[length:]
    return found


def check_client(seen: Seen, wire: ClientWire) -> None:
    faults = [code for *_, code in seen if code]
    assert len(faults) <= 1, "nothing is read behind a refusal"
    heads = [method == b"HEAD" for method, *_ in seen]
    if not any(heads):
        assert len(answers(wire.transport.written)) == len(seen)
    if faults:
        assert seen[-1][4] == faults[0]
        assert wire.transport.ended
    for method, path, headers, body, code in seen:
        if not code:
            check_call(method, path, headers, body)


def check_call(method: bytes, path: bytes, headers: tuple[tuple[bytes, bytes], ...], body: bytes) -> None:
    """What is handed on has one meaning."""
    names = [name.lower() for name, _ in headers]
    assert method.isalpha()
    assert path.startswith(b"/")
    assert path.isascii()
    assert names.count(b"host") <= 1
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    assert not any(byte in value for _, value in headers for byte in b"\r\n\0")
    assert len(body) <= LIMITS.body_bytes
    if b"content-length" in names:
        assert len(body) == int(dict(zip(names, (value for _, value in headers), strict=True))[b"content-length"])
    elif b"transfer-encoding" not in names:
        assert not body


@given(st.data())
@EXAMPLES
def test_requests_put_together_from_parts(loop: asyncio.AbstractEventLoop, data: st.DataObject) -> None:
    check_all_ways(loop, data.draw(ways(messages(LINES))))


@given(st.data())
@EXAMPLES
def test_random_bytes_as_requests(loop: asyncio.AbstractEventLoop, data: st.DataObject) -> None:
    check_all_ways(loop, data.draw(ways(st.binary(max_size=200))))


def check_all_ways(loop: asyncio.AbstractEventLoop, all_ways: list[list[bytes]]) -> None:
    results = [loop.run_until_complete(play(pieces)) for pieces in all_ways]
    for seen, wire in results:
        check_client(seen, wire)
    # Behind a chunked body the connection is closed where more had come with it, and goes on where it came later.
    calls = [[call for call in seen if not call[4]] for seen, _ in results]
    longest = max(calls, key=len)
    assert all(call == longest[: len(call)] for call in calls)
    chunked = [any(name.lower() == b"transfer-encoding" for name, _ in call[2]) for call in longest]
    if not any(chunked):
        assert calls[0] == calls[1] == calls[2]


@given(st.data())
@EXAMPLES
def test_well_formed_requests_are_all_carried(loop: asyncio.AbstractEventLoop, data: st.DataObject) -> None:
    text, count = data.draw(well_formed())
    for pieces in ([text], cuts(text, data.draw), [text[at : at + 1] for at in range(len(text))]):
        seen, wire = loop.run_until_complete(play(pieces))
        assert [code for *_, code in seen] == [""] * count
        assert set(answers(wire.transport.written)) == {200}


# -- the upstream's side


async def hear(pieces: list[bytes], *, no_body: bool) -> tuple[int, bytes, str, bool]:
    """(status, body, code of the fault, connection kept)"""
    wire = UpstreamWire(asyncio.get_running_loop(), no_body=no_body)
    reader = asyncio.ensure_future(wire.body())
    for piece in pieces:
        wire.feed(piece)
        await asyncio.sleep(0)
    wire.end()
    for _ in range(5):
        await asyncio.sleep(0)
    assert reader.done(), "it waits for what can no longer come"
    body, code = reader.result()
    wire.exchange.close()
    wire.exchange.close()
    return wire.exchange.status, body, code, bool(wire.pools.kept)


@given(st.data(), st.booleans())
@EXAMPLES
def test_answers_put_together_from_parts(loop: asyncio.AbstractEventLoop, data: st.DataObject, no_body: bool) -> None:
    check_answers(loop, data.draw(ways(messages(STATUS))), no_body)


@given(st.data())
@EXAMPLES
def test_random_bytes_as_answers(loop: asyncio.AbstractEventLoop, data: st.DataObject) -> None:
    check_answers(loop, data.draw(ways(st.binary(max_size=200))), False)


def check_answers(loop: asyncio.AbstractEventLoop, all_ways: list[list[bytes]], no_body: bool) -> None:
    whole, *others = [loop.run_until_complete(hear(pieces, no_body=no_body)) for pieces in all_ways]
    for other in others:
        assert bool(other[2]) == bool(whole[2]), "a fault is one however the bytes are cut"
        if not whole[2]:
            assert other[:2] == whole[:2]
        assert whole[1].startswith(other[1]) or other[1].startswith(whole[1])


def test_a_fault_is_always_a_gateway_error() -> None:
    """`hear` would raise anything else; this shows that it can."""
    loop = asyncio.new_event_loop()
    try:
        wire = UpstreamWire(loop)
        wire.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n")
        wire.exchange.fail(GatewayError("x", code="a_code"))
        assert loop.run_until_complete(wire.body()) == (b"", "a_code")
    finally:
        loop.close()
