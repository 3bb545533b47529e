"""The fault proxy harms exactly what it is told to, in one direction, at the right byte."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.testing.fault_proxy import FaultProxy

DATA = bytes(range(256)) * 40


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """The port of a server that sends back what it gets."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def roundtrip(proxy: FaultProxy, seconds: float = 5) -> tuple[bytes, str]:
    """Send DATA; what came back and how it ended: all | eof | reset | silence."""
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    data = b""
    try:
        async with asyncio.timeout(seconds):
            writer.write(DATA)
            while len(data) < len(DATA):
                piece = await reader.read(65_536)
                if not piece:
                    return data, "eof"
                data += piece
            return data, "all"
    except ConnectionError:
        return data, "reset"
    except TimeoutError:
        return data, "silence"
    finally:
        writer.close()


async def test_without_settings_everything_passes(echo: int) -> None:
    async with FaultProxy("127.0.0.1", echo) as proxy:
        assert await roundtrip(proxy) == (DATA, "all")
        assert proxy.connections == 1


async def test_delays_follow_latency_jitter_and_bandwidth(echo: int) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async with FaultProxy("127.0.0.1", echo, sleep=sleep) as proxy:
        proxy.up.latency, proxy.up.jitter = 2, 0.5
        proxy.down.bandwidth, proxy.down.piece = 1000, 100
        assert await roundtrip(proxy) == (DATA, "all")
    ups, downs = [w for w in waits if w >= 2], [w for w in waits if w < 2]
    assert ups
    assert max(ups) <= 2.5
    assert max(downs) == 0.1
    assert sum(downs) == pytest.approx(len(DATA) / 1000)


async def test_a_cut_comes_at_its_byte_with_reset_or_end(echo: int) -> None:
    async with FaultProxy("127.0.0.1", echo) as proxy:
        proxy.down.cut_after, proxy.down.reset = 1000, False
        assert await roundtrip(proxy) == (DATA[:1000], "eof")
        proxy.down.reset = True
        data, ended = await roundtrip(proxy)
        assert ended == "reset"
        assert DATA[:1000].startswith(data)


async def test_one_byte_is_corrupted(echo: int) -> None:
    async with FaultProxy("127.0.0.1", echo) as proxy:
        proxy.up.corrupt_at = 5000
        data, _ = await roundtrip(proxy)
    assert [at for at in range(len(DATA)) if data[at] != DATA[at]] == [5000]


async def test_stalls_and_black_holes_say_nothing_more(echo: int) -> None:
    async with FaultProxy("127.0.0.1", echo) as proxy:
        proxy.down.stall_after = 300
        assert await roundtrip(proxy, 0.2) == (DATA[:300], "silence")
        proxy.blackhole = True
        assert await roundtrip(proxy, 0.2) == (b"", "silence")
        proxy.refuse = True
        assert await roundtrip(proxy) == (b"", "reset")


async def test_open_connections_are_cut_at_once(echo: int) -> None:
    async with FaultProxy("127.0.0.1", echo) as proxy:
        reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(1)
        writer.close()
