from __future__ import annotations

from typing import Any

import pytest

from gateway.admin.guard import TokenRequired, check
from gateway.admin.openapi import ROUTES

Gate = Any  # of conftest.py
PATHS = [route.path.replace("{id}", "run-1").replace("{model}", "gpt-4o-mini") for route in ROUTES]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::", "gate.example"])
def test_no_token_no_start_off_loopback(host: str) -> None:
    with pytest.raises(TokenRequired, match="admin_token"):
        check(host, None)
    with pytest.raises(TokenRequired):
        check(host, "")
    check(host, "0123456789abcdef")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_no_token_needed_on_loopback(host: str) -> None:
    check(host, None)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic 0123456789abcdef"},
        {"Authorization": "Bearer"},
        {"Authorization": "0123456789abcdef"},
        {"Authorization": "Bearer 0123456789abcdef0"},
        {"Authorization": "Bearer 0123456789abcdeü"},
    ],
)
async def test_without_the_token_nothing_but_health_is_shown(gate: Gate, headers: dict[str, str]) -> None:
    gate.token = "0123456789abcdef"
    for route, path in zip(ROUTES, PATHS, strict=True):
        if route.open:
            await gate.get(path, headers=headers)
        else:
            problem = await gate.send(route.method, path, 401, headers=headers)
            assert problem["code"] == "unauthorized"
    await gate.send("GET", "/nope", 401, headers=headers)


async def test_the_token_is_taken_from_the_header_alone(gate: Gate) -> None:
    gate.token = "0123456789abcdef"
    await gate.get("/api/calls", headers={"Authorization": "Bearer 0123456789abcdef"})
    await gate.get("/api/calls", headers={"Authorization": "bearer 0123456789abcdef"})
    await gate.get("/api/calls?token=0123456789abcdef", 401)
    await gate.get("/api/calls?access_token=0123456789abcdef", 401)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8788", "127.0.0.1.evil.example", ""])
async def test_a_rebound_name_is_not_served_on_loopback(gate: Gate, host: str) -> None:
    problem = await gate.get("/api/calls", 421, headers={"Host": host})
    assert problem["code"] == "not_this_host"


@pytest.mark.parametrize("host", ["localhost:8788", "127.0.0.1", "[::1]:8788", "[::1]"])
async def test_names_of_loopback_are_served(gate: Gate, host: str) -> None:
    await gate.get("/api/calls", headers={"Host": host})
