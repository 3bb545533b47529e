"""Pools over real loopback sockets: reuse, renewal, deadlines, and every way not to get a connection."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.call import Attempt, Target, Waits
from gateway.config.schema import Timeouts
from gateway.errors import ClientGone, GatewayError
from gateway.net.exchange import UpstreamExchange
from gateway.net.pool import Pools
from gateway.testing.doubles import MemoryDown
from gateway.testing.faults import Again, Close, FaultUpstream, Receive, Script, Send, Wait, answer, chunked
from gateway.testing.gateway import dead_port

HEAD = b"GET / HTTP/1.1\r\nHost: up\r\n\r\n"
DRIPS: Script = [Receive(), Send(answer(b"", length=999)), Send(b"{" * 200, 1, 0.01)]
KEEPS: Script = [Receive(), Send(answer(b"{}")), Again()]


def target(port: int, *, host: str = "127.0.0.1", tls: bool = False) -> Target:
    return Target("up", "", host, port, tls, b"")


class Bench:
    """Pools, and a caller that can leave."""

    def __init__(self, where: Target, timeouts: Timeouts | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.pools = Pools(asyncio.get_running_loop())
        self.where = where
        self.down = MemoryDown([])
        self.attempt = Attempt(where, 0)
        self.waits: Waits | None = None
        self.pools.add(where, timeouts or Timeouts(connect=1, first_byte=1, idle=1, total=5), tls)

    async def open(self, **options: Any) -> UpstreamExchange:
        self.attempt = Attempt(self.where, 0, waits=self.waits)
        return await self.pools.open(self.attempt, HEAD, b"", self.down, **options)

    async def whole(self) -> bytes:
        exchange = await self.open()
        body = b""
        while piece := await exchange.read():
            body += piece
        exchange.close()
        return body

    async def ticking(self, work: Awaitable[Any]) -> Any:
        """Await while the pools are ticked, as the worker does it."""
        task = asyncio.ensure_future(work)
        while not task.done():
            await asyncio.sleep(0.02)
            self.pools.tick()
        return task.result()


async def test_a_connection_is_kept_and_used_again() -> None:
    async with FaultUpstream(KEEPS) as up:
        bench = Bench(target(up.port))
        assert await bench.whole() == b"{}"
        assert (bench.attempt.reused, bench.attempt.sent) == (False, True)
        assert await bench.whole() == b"{}"
        assert bench.attempt.reused
        assert up.connections == 1
        bench.pools.close()


async def test_calls_at_once_have_connections_of_their_own_and_the_newest_is_used_first() -> None:
    async with FaultUpstream(KEEPS) as up:
        bench = Bench(target(up.port))
        await asyncio.gather(*(bench.whole() for _ in range(5)))
        assert up.connections == 5
        (origin,) = bench.pools.origins.values()
        newest = origin.idle[-1]
        exchange = await bench.open()
        assert exchange._connection is newest
        exchange.close()
        bench.pools.close()


async def test_a_connection_that_was_closed_while_idle_is_not_used() -> None:
    async with FaultUpstream({0: [Receive(), Send(answer(b"{}")), Wait(0.02), Close()], 1: KEEPS}) as up:
        bench = Bench(target(up.port))
        await bench.whole()
        await asyncio.sleep(0.1)
        assert await bench.whole() == b"{}"
        assert (up.connections, bench.attempt.reused) == (2, False)
        bench.pools.close()


async def test_a_new_configuration_lets_go_of_what_was_kept() -> None:
    async with FaultUpstream(KEEPS) as up:
        bench = Bench(target(up.port))
        busy = await bench.open()
        await bench.whole()
        (before,) = bench.pools.origins.values()
        bench.pools.add(bench.where, Timeouts(), None)
        assert not before.idle
        while await busy.read():
            pass
        busy.close()
        (after,) = bench.pools.origins.values()
        assert not before.idle
        assert not after.idle, "a connection of the old configuration does not get into the new pool"
        bench.pools.close()


@pytest.mark.parametrize(
    ("timeouts", "script", "code"),
    [
        (Timeouts(first_byte=0.05), [Receive(), Wait(9)], "upstream_first_byte_timeout"),
        (Timeouts(idle=0.05), [Receive(), Send(answer(b"{", length=9)), Wait(9)], "upstream_stalled"),
        (Timeouts(total=0.05), DRIPS, "upstream_total_timeout"),
        (Timeouts(first_content=0.05), DRIPS, "upstream_first_content_timeout"),
        (Timeouts(total=0.05), [Receive(), Wait(9)], "upstream_first_byte_timeout"),
    ],
)
async def test_deadlines(timeouts: Timeouts, script: Script, code: str) -> None:
    async with FaultUpstream(script) as up:
        bench = Bench(target(up.port), timeouts)
        with pytest.raises(GatewayError) as raised:
            await bench.ticking(bench.whole())
        assert raised.value.code == code
        bench.pools.close()


async def refused() -> Target:
    return target(dead_port())


async def unnamed() -> Target:
    return target(80, host="nobody.invalid")


async def no_name_at_all() -> Target:
    return target(80, host="a" * 80 + ".example")


@pytest.mark.parametrize(
    ("where", "code"),
    [
        (refused, "upstream_connect_failed"),
        (unnamed, "upstream_dns_failed"),
        (no_name_at_all, "upstream_dns_failed"),
    ],
)
async def test_ways_not_to_connect(where: Callable[[], Awaitable[Target]], code: str) -> None:
    bench = Bench(await where())
    with pytest.raises(GatewayError) as raised:
        await bench.open()
    assert (raised.value.code, bench.attempt.sent) == (code, False)
    assert not bench.pools.active
    bench.pools.close()


async def test_a_handshake_has_its_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        where = target(mute.getsockname()[1], tls=True)
        bench = Bench(where, Timeouts(connect=0.05), ssl.create_default_context())
        with pytest.raises(GatewayError) as raised:
            await bench.open()
        assert (raised.value.code, raised.value.status) == ("upstream_connect_timeout", 504)
        bench.pools.close()


async def test_who_leaves_while_connecting_waits_for_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        where = target(mute.getsockname()[1], tls=True)
        bench = Bench(where, Timeouts(connect=30), ssl.create_default_context())
        waiting = asyncio.ensure_future(bench.open(patience=lambda: 30))
        await asyncio.sleep(0.05)
        assert bench.down.on_gone is not None
        bench.down.on_gone(ClientGone())
        with pytest.raises(ClientGone):
            await waiting
        assert not bench.attempt.sent
        bench.pools.close()
        await asyncio.sleep(0)


async def test_a_connection_made_for_one_who_left_is_kept_for_the_next() -> None:
    async with FaultUpstream(KEEPS) as up:
        bench = Bench(target(up.port))
        waiting = asyncio.ensure_future(bench.open())
        await asyncio.sleep(0)
        assert bench.down.on_gone is not None
        bench.down.on_gone(ClientGone())
        with pytest.raises(ClientGone):
            await waiting
        (origin,) = bench.pools.origins.values()
        while not origin.idle:
            await asyncio.sleep(0.005)
        assert await bench.whole() == b"{}"
        assert up.connections == 1
        bench.pools.close()


async def test_what_is_not_wanted_any_more_once_it_is_connected_is_not_sent() -> None:
    async with FaultUpstream(KEEPS) as up:
        bench = Bench(target(up.port))
        bench.down.gone = True
        with pytest.raises(ClientGone):
            await bench.open()
        assert not bench.attempt.sent
        bench.down.gone = False
        assert await bench.whole() == b"{}"
        assert up.connections == 1, "it is kept for the next"
        bench.pools.close()


async def test_who_leaves_while_waiting_closes_the_connection() -> None:
    async with FaultUpstream([Receive(), Wait(9)]) as up:
        bench = Bench(target(up.port))
        waiting = asyncio.ensure_future(bench.open())
        while not up.received:
            await asyncio.sleep(0.005)
        assert bench.down.on_gone is not None
        bench.down.on_gone(ClientGone())
        with pytest.raises(ClientGone):
            await waiting
        async with asyncio.timeout(1):
            await up.peer_left.wait()
        assert not bench.pools.active
        bench.pools.close()


async def test_what_idles_too_long_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with FaultUpstream(KEEPS) as up:
        bench = Bench(target(up.port))
        await bench.whole()
        bench.pools.tick()
        (origin,) = bench.pools.origins.values()
        assert len(origin.idle) == 1
        monkeypatch.setattr("gateway.net.pool.IDLE_SECONDS", 0.0)
        bench.pools.tick()
        assert not origin.idle
        bench.pools.close()


async def test_only_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.net.pool.IDLE_LIMIT", 2)
    async with FaultUpstream(KEEPS) as up:
        bench = Bench(target(up.port))
        await asyncio.gather(*(bench.whole() for _ in range(4)))
        (origin,) = bench.pools.origins.values()
        assert len(origin.idle) == 2
        bench.pools.close()


@pytest.mark.parametrize(
    ("host", "named"), [("127.0.0.1", False), ("::1", False), ("localhost", False), ("api.example", True)]
)
async def test_addresses_need_no_renewal(host: str, named: bool) -> None:
    bench = Bench(target(1, host=host))
    (origin,) = bench.pools.origins.values()
    assert origin.named is named


async def test_what_one_attempt_may_take_outranks_its_upstream() -> None:
    async with FaultUpstream([Receive(), Wait(9)]) as up:
        bench = Bench(target(up.port), Timeouts(first_byte=9))
        bench.waits = Waits(1, 0.05, 1, 1, 5)
        with pytest.raises(GatewayError) as raised:
            await bench.ticking(bench.whole())
        assert raised.value.code == "upstream_first_byte_timeout"
        bench.pools.close()


async def test_content_ends_the_time_that_it_may_take_to_come() -> None:
    slow = Send(b"8\r\n" + b"a" * 8 + b"\r\n0\r\n\r\n", piece=3, pause=0.05)
    async with FaultUpstream([Receive(), Send(chunked(end=b"")), slow, Close()]) as up:
        bench = Bench(target(up.port), Timeouts(first_content=0.1, idle=5, total=9))

        async def heard() -> bytes:
            exchange = await bench.open()
            exchange.heard()
            body = b""
            while piece := await exchange.read():
                body += piece
            exchange.close()
            return body

        assert await bench.ticking(heard()) == b"a" * 8
        bench.pools.close()


async def test_reading_with_patience() -> None:
    script = [Receive(), Send(chunked(end=b"")), Wait(0.2), Send(b"1\r\na\r\n0\r\n\r\n"), Close()]
    async with FaultUpstream(script) as up:
        bench = Bench(target(up.port))
        exchange = await bench.open()
        assert await exchange.read_within(0.02) is None
        assert await exchange.read_within(5) == b"a"
        assert await exchange.read_within(5) == b""
        exchange.close()
        bench.pools.close()
