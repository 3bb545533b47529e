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


async def test_workers_add_up_and_refusals_have_reasons(gate: Gate) -> None:
    gate.config = Config(bulkheads={"tools": Bulkhead(max=5), "rest": Bulkhead(max=4)})
    gate.workers = [
        {"pool0_in_flight": 3.0, "pool0_waiting": 1.0, "pool0_limit": 3.0, "pool1_limit": 2.0},
        {"pool0_in_flight": 1.0, "pool0_limit": 2.0, "pool1_in_flight": 2.0, "pool1_limit": 2.0},
    ]
    gate.refused = {("tools", "queue_timeout"): 3, ("tools", "bulkhead_full"): 1, ("gone", "bulkhead_full"): 9}
    tools, rest = (await gate.get("/api/bulkheads"))["bulkheads"]
    assert tools["refused"] == {"bulkhead_full": 1, "queue_timeout": 3}
    assert rest["refused"] == {}
    assert tools["workers"] == [
        {"worker": 0, "in_flight": 3, "waiting": 1, "limit": 3},
        {"worker": 1, "in_flight": 1, "waiting": 0, "limit": 2},
    ]
    for pool in (tools, rest):
        assert pool["limit"] == pool["max"]
        for figure in ("in_flight", "waiting", "limit"):
            assert sum(own[figure] for own in pool["workers"]) == pool[figure]
