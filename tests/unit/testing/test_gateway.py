"""Ports, files and processes of the gateway helper; the gateway itself is driven by tests/e2e."""

import asyncio
import socket
from collections.abc import Iterator

import pytest
import yaml

from gateway.testing.gateway import GatewayDied, RunningGateway, dead_port, free_port, is_free

UPSTREAMS = {"openai": {"dialect": "openai", "url": "http://127.0.0.1:1"}}


@pytest.fixture
def gate() -> Iterator[RunningGateway]:
    made = RunningGateway(UPSTREAMS, capture="hash")
    yield made
    made.close()


def test_a_dead_port_refuses_and_is_nobodys() -> None:
    port = dead_port()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=20)
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", port))


def test_ports() -> None:
    port = free_port()
    assert is_free(port)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert not is_free(port)


def test_the_configuration_is_written_whole(gate: RunningGateway) -> None:
    gate.write_config({"listen": "127.0.0.1:1", "admin": "127.0.0.1:2", **gate.settings})
    written = yaml.safe_load(gate.config_file.read_text())
    assert written == {"upstreams": UPSTREAMS, "listen": "127.0.0.1:1", "admin": "127.0.0.1:2", "capture": "hash"}
    assert (gate.url, gate.admin_url) == ("http://127.0.0.1:1", "http://127.0.0.1:2")


def test_a_gateway_that_ends_at_start_says_why() -> None:
    gate = RunningGateway({"openai": {"dialect": "no such dialect", "url": "x"}})
    with pytest.raises(GatewayDied, match="dialect"), gate:
        pass
    assert not gate.directory.exists()


async def test_closing_twice_and_asynchronously(gate: RunningGateway) -> None:
    await asyncio.to_thread(gate.close)
    gate.close()
