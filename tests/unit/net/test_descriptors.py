"""Who gets the file descriptors of a worker, in numbers; and the sides that ask for them, over real sockets."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import pytest

from gateway.call import Attempt, Target
from gateway.config.schema import Limits, Timeouts
from gateway.errors import GatewayError
from gateway.net.descriptors import CALM_SECONDS, Descriptors
from gateway.net.pool import PAUSE, Pools
from gateway.net.server import Server
from gateway.testing.doubles import MemoryDown
from gateway.testing.faults import Again, FaultUpstream, Receive, Send, answer
from gateway.testing.transports import at_once
from tests.unit.net.test_server import connected, settle

GET = b"GET /x HTTP/1.1\r\nHost: gate\r\n\r\n"


class System:
    """What the system says."""

    def __init__(self, limit: int = 116, used: int = 20, left: bool = True) -> None:
        self.limit, self.used, self.left = limit, used, left
        self.code = errno.EMFILE
        self.told: list[dict[str, Any]] = []
        self.files = Descriptors(lambda: self.limit, lambda: self.used, self.probe)

    def probe(self) -> None:
        if not self.left:
            raise OSError(self.code, "none")

    def look(self, clients: int = 0, now: float = 0.0) -> None:
        self.files.look(clients, now, self.told.append)


def test_each_client_is_let_in_with_room_for_its_upstream() -> None:
    system = System()
    system.look()
    assert (system.files.own, system.files.kept) == (20, 16)
    assert [count for count in range(1, 60) if system.files.crowded(count) is None][-1] == 40  # 20 + 16 + 2 * 40 = 116
    fault = system.files.crowded(41)
    assert fault is not None
    assert (fault.code, fault.status, fault.retryable, fault.retry_after) == ("no_descriptors", 503, True, 1)


def test_what_is_kept_grows_with_what_there_is_up_to_a_bound() -> None:
    assert [System(limit).files.kept for limit in (64, 400, 1024, 1_048_576)] == [16, 50, 128, 256]


def test_connections_that_rest_make_room_those_to_upstreams_first() -> None:
    system = System()
    asked: list[tuple[str, int]] = []
    system.files.give_upstreams = lambda count: (asked.append(("upstreams", count)), 3)[1]
    system.files.give_clients = lambda count: (asked.append(("clients", count)), 1)[1]
    system.files.upstreams = 45
    system.look()
    system.files.own = 20
    assert system.files.crowded(40) is None  # 5 too many; a client that goes leaves two
    assert asked == [("upstreams", 5), ("clients", 1)]
    system.files.give_clients = lambda _: 0
    assert system.files.crowded(40) is not None


def test_more_upstreams_than_clients_need_count_as_they_are() -> None:
    system = System(used=70)
    system.files.upstreams = 50
    system.look()
    assert system.files.own == 20
    assert system.files.crowded(30) is None
    assert system.files.crowded(31) is not None


def test_without_any_it_starves_and_says_so_once_until_it_is_over() -> None:
    system, heard = System(), list[bool]()
    system.files.on_starved = heard.append
    system.look(now=0)
    for code in (errno.EMFILE, errno.ENFILE):
        system.left, system.code = False, code
        system.look(now=1)
        assert system.files.starved
        assert system.files.used == 116  # whatever can be seen: all that there are
    system.look(now=2)
    system.left = True
    system.look(now=3)
    system.look(now=2 + CALM_SECONDS)
    assert [(one["state"], one["used"]) for one in system.told] == [("none", 116), ("enough", 20)]
    assert heard == [False, True, True, True, False, False]


def test_another_trouble_of_looking_is_no_shortage() -> None:
    system = System(left=False)
    system.code = errno.EACCES
    system.look()
    assert not system.files.starved
    assert system.told == []


def test_a_shortage_that_goes_on_is_told_now_and_then_with_how_many_were_refused() -> None:
    system = System()
    system.look()
    for tick in range(100):  # 25 seconds of refusing ten in each
        for _ in range(10):
            system.files.crowded(99)
        system.look(now=tick / 4)
    system.look(now=60)
    assert [one["state"] for one in system.told] == ["short", "short", "short", "enough"]
    assert sum(int(one["refused"]) for one in system.told) == 1000


# -- clients ------------------------------------------------------------------------------------------------------


async def test_those_that_rest_longest_are_closed_and_never_one_that_asks() -> None:
    system = System(limit=20 + 16 + 2 * 3)
    server = Server(asyncio.get_running_loop(), Limits(), at_once, system.files)
    system.look()
    made = [connected(server) for _ in range(3)]
    for connection, _ in made[:2]:
        connection.data_received(GET)
        await settle()
    made[0][0].deadline -= 5
    _, fourth = connected(server)
    await settle()
    assert [transport.ended for _, transport in (*made, (None, fourth))] == ["closed", "", "", ""]


async def test_who_was_refused_is_answered_and_cut_off_only_for_others() -> None:
    system = System(limit=20 + 16)
    server = Server(asyncio.get_running_loop(), Limits(), at_once, system.files)
    system.look()
    made = []
    for _ in range(10):
        made.append(connected(server)[1])
        await settle()
    assert all(b"503" in transport.written and b"no_descriptors" in transport.written for transport in made)
    assert [transport.ended for transport in made] == ["aborted"] * 2 + ["eof"] * 8


# -- upstreams ----------------------------------------------------------------------------------------------------


class Dry(Pools):
    """There is no descriptor for the first connections."""

    left = 0
    fault: OSError = OSError(errno.EMFILE, "none")

    async def _connected(self, origin: Any, host: str) -> Any:
        if self.left:
            self.left -= 1
            raise self.fault
        return await super()._connected(origin, host)


def target(port: int) -> Target:
    return Target("up", "", "127.0.0.1", port, False, b"")


async def fetch(pools: Pools, where: Target) -> bytes:
    exchange = await pools.open(Attempt(where, 0), b"GET / HTTP/1.1\r\nHost: up\r\n\r\n", b"", MemoryDown([]))
    body = b""
    while piece := await exchange.read():
        body += piece
    exchange.close()
    return body


async def test_connecting_waits_until_something_that_rests_has_made_room() -> None:
    async with FaultUpstream([Receive(), Send(answer(b"{}")), Again()]) as up:
        system = System()
        pools = Dry(asyncio.get_running_loop(), None, system.files)
        for where in (target(up.port), Target("other", "", "127.0.0.1", up.port, False, b"")):
            pools.add(where, Timeouts(), None)
        assert await fetch(pools, target(up.port)) == b"{}"
        assert system.files.upstreams == 1
        pools.left = 2
        assert await fetch(pools, Target("other", "", "127.0.0.1", up.port, False, b"")) == b"{}"
        assert system.files.upstreams == 1  # that of the first has made room
        pools.close()
        await settle()
        assert system.files.upstreams == 0


@pytest.mark.parametrize(
    ("fault", "left"),
    [
        (OSError(errno.EMFILE, "none"), True),
        (OSError(errno.ENFILE, "none"), True),
        (socket.gaierror(socket.EAI_AGAIN, "try again"), False),  # a resolver that could not open its file
    ],
)
async def test_where_there_is_none_it_is_our_fault_and_not_the_upstreams(fault: OSError, left: bool) -> None:
    system = System(left=left)
    pools = Dry(asyncio.get_running_loop(), None, system.files)
    pools.fault, pools.left = fault, 10**9
    pools.add(target(9), Timeouts(connect=4 * PAUSE), None)
    with pytest.raises(GatewayError) as caught:
        await fetch(pools, target(9))
    assert (caught.value.code, caught.value.source) == ("no_descriptors", "gateway")


async def test_a_name_that_does_not_resolve_is_told_as_ever() -> None:
    pools = Dry(asyncio.get_running_loop(), None, System().files)
    pools.fault, pools.left = socket.gaierror(socket.EAI_NONAME, "unknown"), 1
    pools.add(target(9), Timeouts(), None)
    with pytest.raises(GatewayError) as caught:
        await fetch(pools, target(9))
    assert caught.value.code == "upstream_dns_failed"
