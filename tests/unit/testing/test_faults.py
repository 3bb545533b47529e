"""The raw-socket upstream sends exactly what its scripts say."""

import asyncio

import pytest

from gateway.testing.faults import (
    ANSWERS,
    Act,
    Again,
    FaultUpstream,
    HalfClose,
    Receive,
    Reset,
    Send,
    Wait,
    answer,
    chunked,
)

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def talk(upstream: FaultUpstream, *requests: bytes, limit: int = 300_000) -> tuple[bytes, str]:
    """What came back, and how it ended: eof | reset | open."""
    reader, writer = await asyncio.open_connection(upstream.host, upstream.port)
    data, ended = b"", "open"
    try:
        for request in requests:
            writer.write(request)
            await writer.drain()
        async with asyncio.timeout(0.1):
            while len(data) < limit:
                piece = await reader.read(65_536)
                if not piece:
                    ended = "eof"
                    break
                data += piece
    except ConnectionError:
        ended = "reset"
    except TimeoutError:
        pass
    finally:
        writer.close()
    return data, ended


@pytest.mark.parametrize("name", ANSWERS)
async def test_every_shipped_answer_begins_as_it_is_written(name: str) -> None:
    script = ANSWERS[name]
    sent = b"".join(act.data for act in script if isinstance(act, Send))
    async with FaultUpstream(script) as upstream:
        data, ended = await talk(upstream, GET)
        assert bool(data) == bool(sent)
        assert sent.startswith(data[: len(sent)]) or data.startswith(sent)
        if any(isinstance(act, Receive) for act in script):
            assert upstream.received[0] == GET
    if script[-1] == Reset():
        assert ended == "reset"
    elif HalfClose() in script:
        assert ended == "eof"
    elif isinstance(script[-1], Again | Wait):
        assert ended == "open"


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcREST",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nREST",
    ],
)
async def test_a_request_is_received_to_the_end_of_its_body(request_: bytes) -> None:
    async with FaultUpstream([Receive(), Send(answer())]) as upstream:
        await talk(upstream, request_)
        assert upstream.received == [request_.removesuffix(b"REST")]


async def test_connections_may_have_scripts_of_their_own() -> None:
    scripts: dict[int, list[Act]] = {0: [Receive(), Reset()], 1: [Receive(), Send(answer(b"ok")), Again()]}
    async with FaultUpstream(scripts) as upstream:
        assert (await talk(upstream, GET))[1] == "reset"
        for _ in range(2):
            assert (await talk(upstream, GET, GET))[0] == answer(b"ok") * 2
        assert upstream.connections == 3


async def test_a_half_close_still_reads() -> None:
    async with FaultUpstream([Send(b"hello"), HalfClose(), Receive()]) as upstream:
        reader, writer = await asyncio.open_connection(upstream.host, upstream.port)
        assert await reader.read() == b"hello"
        writer.write(GET)
        await writer.drain()
        async with asyncio.timeout(5):
            while not upstream.received:
                await asyncio.sleep(0)
        writer.close()


async def test_a_peer_that_leaves_is_noticed_while_waiting() -> None:
    async with FaultUpstream([Receive(), Wait(3600)]) as upstream:
        _, writer = await asyncio.open_connection(upstream.host, upstream.port)
        writer.write(GET)
        writer.close()
        await asyncio.wait_for(upstream.peer_left.wait(), 5)


def test_framing_helpers() -> None:
    assert answer(b"ab", b"x: 1", length=9).endswith(b"content-length: 9\r\nx: 1\r\n\r\nab")
    assert chunked(b"abc", b"0123456789abcdef").endswith(b"\r\n\r\n3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n")
