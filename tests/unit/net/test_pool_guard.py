"""Guarded origins: resolved once, every address checked, connected to what was checked (RELIABILITY G7)."""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import Any

import pytest

from gateway.call import Attempt, Target
from gateway.config.public import refused
from gateway.config.schema import Timeouts
from gateway.errors import GatewayError
from gateway.net.exchange import UpstreamExchange
from gateway.net.pool import Pools
from gateway.testing.doubles import MemoryDown
from gateway.testing.faults import Again, Close, FaultUpstream, Receive, Script, Send, answer
from gateway.testing.gateway import dead_port

HEAD = b"GET / HTTP/1.1\r\nHost: tool.example\r\n\r\n"
KEEPS: Script = [Receive(), Send(answer(b"{}")), Again()]
ONCE: Script = [Receive(), Send(answer(b"{}")), Close()]
PRIVATE = partial(refused, private=True)


class Resolver:
    """Says what it was told to, one answer after the other; the last one from then on."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Bench:
    def __init__(self, port: int, resolver: Resolver | None, guard: Any, host: str = "tool.example") -> None:
        self.pools = Pools(asyncio.get_running_loop(), resolver)
        self.target = Target("tools/t", "", host, port, False, b"")
        self.pools.add(self.target, Timeouts(connect=2, first_byte=2, idle=2, total=5), None, guard)

    async def open(self) -> UpstreamExchange:
        return await self.pools.open(Attempt(self.target, 0), HEAD, b"", MemoryDown([]))

    async def body(self) -> bytes:
        exchange = await self.open()
        body = await exchange.read()
        while await exchange.read():
            pass
        exchange.close()
        return body

    async def fault(self) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            await self.open()
        return caught.value


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.0.0.1", "8.8.8.8"],
        ["8.8.8.8", "127.0.0.1"],  # one good address does not make the other better
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["169.254.169.254"],
        ["64:ff9b::a9fe:a9fe"],
        ["2606:4700::1", "fe80::1%eth0"],
        ["not an address"],
    ],
)
async def test_a_name_that_leads_inside_is_refused_before_anything_is_sent(addresses: list[str]) -> None:
    async with FaultUpstream(KEEPS) as server:
        bench = Bench(server.port, Resolver(addresses), refused)
        fault = await bench.fault()
        assert (fault.code, fault.status) == ("tool_address_refused", 502)
        assert not any(address in fault.message for address in addresses)
        assert server.connections == 0


async def test_a_name_that_is_bound_anew_between_check_and_use_changes_nothing() -> None:
    """DNS rebinding: the first answer is checked, and the connection goes to that very address."""
    async with FaultUpstream(KEEPS) as server:
        resolver = Resolver(["127.0.0.1"], ["169.254.169.254"])
        bench = Bench(server.port, resolver, PRIVATE)
        assert await bench.body() == b"{}"
        assert resolver.asked == [("tool.example", server.port)], "asked once for one connection"
        assert await bench.body() == b"{}", "the kept connection is to the address that was checked"
        assert len(resolver.asked) == 1


async def test_every_new_connection_is_checked_anew() -> None:
    async with FaultUpstream(ONCE) as server:
        resolver = Resolver(["127.0.0.1"], ["169.254.169.254"])
        bench = Bench(server.port, resolver, PRIVATE)
        assert await bench.body() == b"{}"
        await asyncio.sleep(0.05)
        assert (await bench.fault()).code == "tool_address_refused"
        assert len(resolver.asked) == 2
        assert server.connections == 1


async def test_of_several_allowed_addresses_one_that_answers_is_used() -> None:
    async with FaultUpstream(KEEPS) as server:
        bench = Bench(server.port, Resolver(["127.0.0.9", "127.0.0.1"]), PRIVATE)
        assert await bench.body() == b"{}"


async def test_a_name_without_addresses_and_one_where_nobody_listens() -> None:
    port = dead_port()
    assert (await Bench(port, Resolver([]), PRIVATE).fault()).code == "upstream_dns_failed"
    assert (await Bench(port, Resolver(["127.0.0.1"]), PRIVATE).fault()).code == "upstream_connect_failed"


async def test_the_resolver_of_the_system() -> None:
    async with FaultUpstream(KEEPS) as server:
        assert await Bench(server.port, None, PRIVATE, "localhost").body() == b"{}"
        assert (await Bench(server.port, None, refused, "localhost").fault()).code == "tool_address_refused"
        assert (await Bench(server.port, None, refused, "127.0.0.1").fault()).code == "tool_address_refused"


async def test_what_the_system_reads_as_an_address_is_checked_as_one() -> None:
    """inet_aton takes many forms; whatever it makes of a host is checked."""
    for host in ("0x7f.1", "2130706433", "127.1", "0177.0.0.1"):
        try:
            socket.getaddrinfo(host, 80)
        except socket.gaierror:
            continue  # this system does not read it
        assert (await Bench(80, None, refused, host).fault()).code == "tool_address_refused"


async def test_origins_of_models_are_not_guarded() -> None:
    async with FaultUpstream(KEEPS) as server:
        resolver = Resolver(["8.8.8.8"])
        assert await Bench(server.port, resolver, None, "127.0.0.1").body() == b"{}"
        assert resolver.asked == []
