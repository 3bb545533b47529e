from __future__ import annotations

import socket
import threading

import pytest

from gateway.config.address import Address, parse_address
from gateway.process.sockets import CannotListen, bind, bound, reachable


def close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


@pytest.mark.parametrize("count", [1, 3])
def test_connections_queue_from_the_start(count: int) -> None:
    sockets = bind(Address("127.0.0.1", 0), count)
    addresses = {str(bound(sock)) for sock in sockets}
    assert len(addresses) == 1
    assert bound(sockets[0]).port > 0
    with socket.create_connection(("127.0.0.1", bound(sockets[0]).port), timeout=5):
        pass
    close(sockets)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("theirs", [1, 2])
def test_a_port_of_another_gateway_is_taken(count: int, theirs: int) -> None:
    taken = bind(Address("127.0.0.1", 0), theirs)
    address = bound(taken[0])
    with pytest.raises(CannotListen, match=f"cannot listen on {address}: the port is taken"):
        bind(address, count)
    close(taken)
    close(bind(address, count))  # free again at once


def test_a_port_that_becomes_free_is_waited_for() -> None:
    taken = bind(Address("127.0.0.1", 0))
    address = bound(taken[0])
    timer = threading.Timer(0.1, close, [taken])
    timer.start()
    close(bind(address, 2, patience=20))
    timer.join()


def test_ipv6() -> None:
    try:
        sockets = bind(parse_address("[::1]:0"))
    except CannotListen as error:
        pytest.skip(f"IPv6 WAS NOT TESTED: {error}")
    assert str(bound(sockets[0])).startswith("[::1]:")
    close(sockets)


def test_names_are_looked_up() -> None:
    sockets = bind(Address("localhost", 0))
    assert bound(sockets[0]).loopback
    close(sockets)


def test_an_address_of_another_machine() -> None:
    with pytest.raises(CannotListen, match=r"192\.0\.2\.1:0: this machine does not have that address"):
        bind(Address("192.0.2.1", 0))


def test_a_name_that_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(CannotListen, match="cannot listen on nowhere:1: Name or service not known"):
        bind(Address("nowhere", 1))


@pytest.mark.parametrize(
    ("listen", "reach"),
    [("0.0.0.0:8787", "127.0.0.1:8787"), ("[::]:8787", "[::1]:8787"), ("10.1.2.3:1", "10.1.2.3:1")],
)
def test_where_a_client_connects(listen: str, reach: str) -> None:
    assert str(reachable(parse_address(listen))) == reach
