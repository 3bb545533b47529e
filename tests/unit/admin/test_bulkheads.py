"""Pools, as the workers state them."""

from __future__ import annotations

from typing import Any

from gateway.config.schema import Bulkhead, Config

Gate = Any  # of conftest.py


async def test_how_full_they_are(gate: Gate) -> None:
    assert await gate.get("/api/bulkheads") == {"bulkheads": [], "overload_level": 0}
    rules = {
        "tools": Bulkhead(max=20, upstream="tools/*", wait=5),
        "rest": Bulkhead(max=50, each="model", adaptive=True),
    }
    gate.config = Config(bulkheads=rules)
    one = {
        "pool0_in_flight": 3.0,
        "pool0_waiting": 1.0,
        "pool0_limit": 10.0,
        "pool1_limit": 25.0,
        "overload_level": 2.0,
    }
    two = {"pool0_in_flight": 4.0, "pool0_limit": 10.0, "pool1_in_flight": 9.0, "pool1_limit": 30.0}
    gate.workers = [one, two]
    found = await gate.get("/api/bulkheads")
    assert found["overload_level"] == 2
    tools, rest = found["bulkheads"]
    assert (tools["name"], tools["in_flight"], tools["waiting"], tools["limit"]) == ("tools", 7, 1, 20)
    assert (tools["max"], tools["wait_seconds"], tools["each"], tools["adaptive"]) == (20, 5.0, None, False)
    assert (rest["in_flight"], rest["limit"], rest["each"], rest["adaptive"]) == (9, 55, "model", True)
