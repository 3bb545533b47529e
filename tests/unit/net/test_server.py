from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from gateway.call import Request
from gateway.config.schema import Limits, Tls
from gateway.errors import Draining, GatewayError
from gateway.net.connection import ClientConnection, State
from gateway.net.server import Server
from gateway.net.tls import ListenerTls, client_context
from gateway.testing.transports import MemoryTransport, at_once

GET = b"GET /x HTTP/1.1\r\nHost: gate\r\n\r\n"


def connected(server: Server) -> tuple[ClientConnection, MemoryTransport]:
    connection = server.protocol()
    transport = MemoryTransport(server.loop, connection)
    connection.connection_made(transport)
    return connection, transport


async def settle() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


async def test_draining_closes_what_is_idle_and_waits_for_the_rest() -> None:
    go = asyncio.Event()

    async def carry(request: Request, down: ClientConnection, fault: GatewayError | None) -> None:
        await go.wait()
        await at_once(request, down, fault)

    server = Server(asyncio.get_running_loop(), Limits(), carry)
    (_, idle), (busy, at_work) = connected(server), connected(server)
    busy.data_received(GET)
    await settle()
    server.drain()
    await settle()
    assert idle.ended == "closed"
    assert at_work.ended == ""
    assert not server.emptied.is_set()
    go.set()
    await settle()
    assert b"connection: close" in at_work.written
    at_work.close()
    at_work.ended = "closed"
    at_work.lose()
    assert server.emptied.is_set()


async def test_a_server_without_connections_is_empty_at_once() -> None:
    server = Server(asyncio.get_running_loop(), Limits(), at_once)
    server.drain()
    assert server.emptied.is_set()


async def test_the_cut_reaches_calls_wherever_they_wait() -> None:
    told: list[GatewayError] = []

    async def carry(request: Request, down: ClientConnection, fault: GatewayError | None) -> None:
        gone = asyncio.get_running_loop().create_future()
        down.on_gone = lambda error: (told.append(error), gone.set_result(None))[0]  # type: ignore[func-returns-value]
        await gone
        down.abort()

    server = Server(asyncio.get_running_loop(), Limits(), carry)
    (busy, _), (reading, half) = connected(server), connected(server)
    busy.data_received(GET)
    reading.data_received(GET[:9])
    await settle()
    server.drain()
    assert half.ended == "", "its request has begun to arrive"
    server.cut()
    await settle()
    assert [type(fault) for fault in told] == [Draining]
    assert half.ended == "aborted"


async def test_the_tick_reaches_every_connection() -> None:
    server = Server(asyncio.get_running_loop(), Limits(header_seconds=0.01), at_once)
    transports = [connected(server)[1] for _ in range(3)]
    await asyncio.sleep(0.02)
    server.tick()
    await settle()
    assert [transport.ended for transport in transports] == ["closed"] * 3
    assert not server.connections
    assert State.HEAD.value


def test_a_ca_file_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        client_context(str(tmp_path / "none.pem"))
    assert client_context(None).check_hostname


def test_files_that_are_no_certificate_are_said(tmp_path: Path) -> None:
    (tmp_path / "c").write_text("no certificate")
    with pytest.raises(OSError):
        ListenerTls(Tls(certificate=str(tmp_path / "c"), key=str(tmp_path / "c")))
    with socket.socket() as unused:
        assert unused.fileno() > 0
