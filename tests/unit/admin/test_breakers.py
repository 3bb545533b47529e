"""Breakers, as the workers wrote them down and as people hold them."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.journal.record import EventRecord
from gateway.policy.controls import Scope
from gateway.stores.sqlite_controls import SqliteControls

Gate = Any  # of conftest.py
AT = 1_790_000_000_000_000_000


def event(n: int, worker: int, breaker: str = "", state: str = "", why: str = "", seconds: float = 0.0) -> EventRecord:
    if not breaker:
        return EventRecord(f"e{n}", AT + n, "breakers_reset", worker)
    detail: dict[str, Any] = {"breaker": breaker, "state": state, "why": why, "seconds": seconds}
    return EventRecord(f"e{n}", AT + n, "breaker", worker, detail)


async def test_how_they_stand(gate: Gate) -> None:
    assert (await gate.get("/api/breakers"))["breakers"] == []
    gate.fill(
        [
            event(0, 2, "gone", "open", "x", 5.0),
            event(1, 2),  # that worker began anew
            event(2, 0, "openai", "open", "5 failures in a row", 5.0),
            event(3, 1, "openai", "open", "12 of 20 calls failed", 5.0),
            event(4, 1, "openai", "half_open", "its time is over"),
            event(5, 0, "azure/gpt-4o", "open", "x", 10.0),
            event(6, 0, "azure/gpt-4o", "closed", "probes went well"),
        ]
    )
    azure, openai = (await gate.get("/api/breakers"))["breakers"]
    assert (azure["name"], azure["state"], azure["workers"], azure["why"]) == (
        "azure/gpt-4o",
        "closed",
        0,
        "probes went well",
    )
    assert (openai["state"], openai["workers"], openai["why"]) == ("open", 2, "5 failures in a row")
    assert (openai["open_seconds"], openai["forced"]) == (5.0, None)


async def test_one_is_held_and_released(gate: Gate) -> None:
    worker = SqliteControls(gate.decisions.path)
    body = {"name": "openai/gpt-4o", "state": "open", "reason": " burns ", "by": "ann"}
    held = await gate.post("/api/breakers", body, 200)
    assert (held["scope"], held["value"], held["stopped"], held["in_force"]) == (
        "upstream",
        "openai/gpt-4o",
        False,
        True,
    )
    assert worker.refresh()
    assert worker.forced == {"openai/gpt-4o": "open"}
    assert worker.stops == {}, "no call is stopped by it"
    (one,) = (await gate.get("/api/breakers"))["breakers"]
    assert (one["name"], one["forced"], one["state"], one["since"]) == ("openai/gpt-4o", "open", "closed", None)
    await gate.post("/api/breakers", {**body, "state": "closed"}, 200)
    assert worker.refresh()
    assert worker.forced == {"openai/gpt-4o": "closed"}
    await gate.post("/api/breakers", {**body, "state": "auto"}, 200)
    assert worker.refresh()
    assert worker.forced == {}
    assert (await gate.get("/api/breakers"))["breakers"] == []
    assert [kind for kind, _ in gate.events] == ["upstream_forced_open", "upstream_forced_closed", "upstream_released"]
    assert gate.events[0][1] == {"value": "openai/gpt-4o", "by": "ann", "reason": "burns"}
    audit = (await gate.get("/api/controls"))["decisions"]
    assert [one["kind"] for one in audit] == ["auto", "close", "open"]


async def test_it_outlives_the_workers_and_leaves_limits_alone(gate: Gate) -> None:
    await gate.send("PUT", "/api/limits/upstream/openai", 200, json={"rpm": 5})
    await gate.post("/api/breakers", {"name": "openai", "state": "open"}, 200)
    later = SqliteControls(gate.decisions.path)
    assert later.forced == {"openai": "open"}
    assert later.caps[("upstream", "openai")].rpm == 5
    await gate.post("/api/breakers", {"name": "openai", "state": "auto"}, 200)
    later.refresh()
    assert (later.forced, later.caps[("upstream", "openai")].rpm) == ({}, 5)
    assert [standing.scope for standing in gate.decisions.forced()] == []
    assert Scope.UPSTREAM in {standing.scope for standing in gate.decisions.capped()}


@pytest.mark.parametrize("body", [{"state": "open"}, {"name": "", "state": "open"}, {"name": "a", "state": "shut"}])
async def test_what_is_not_understood(gate: Gate, body: dict[str, str]) -> None:
    await gate.post("/api/breakers", body, 400)
