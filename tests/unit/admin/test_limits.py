"""Limits of scopes, set through the API while workers run."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.policy.controls import Cap, Caps
from gateway.stores.sqlite_controls import SqliteControls

Gate = Any  # of conftest.py
BODY = {"budgets": [{"usd": 2.5, "per": "day", "on_exceed": "clamp"}], "rpm": 60, "reason": " spree ", "by": "ann"}


async def test_a_limit_is_set_seen_and_taken_away(gate: Gate) -> None:
    worker = SqliteControls(gate.decisions.path)
    made = await gate.send("PUT", "/api/limits/team/pay%2Fments", 200, json=BODY)
    shown = {
        "scope": "team",
        "value": "pay/ments",
        "at": "2026-09-21T14:13:25.000000Z",
        "budgets": [{"usd": 2.5, "tokens": None, "per": "day", "rolling": False, "on_exceed": "clamp"}],
        "rpm": 60,
        "tpm": None,
        "concurrency": None,
        "burst": None,
    }
    assert made == {**shown, "in_force": True}
    assert worker.refresh()
    assert worker.caps == {("team", "pay/ments"): Caps((Cap(2_500_000_000, None, "day", False, "clamp"),), 60)}
    assert await gate.get("/api/limits/team/pay%2Fments") == shown
    assert (await gate.get("/api/limits"))["limits"] == [shown]
    gone = await gate.send("DELETE", "/api/limits/team/pay%2Fments?reason=over&by=ann", 200)
    assert (gone["budgets"], gone["rpm"], gone["in_force"]) == ([], None, True)
    assert worker.refresh()
    assert worker.caps == {}
    assert (await gate.get("/api/limits/team/pay%2Fments", 404))["code"] == "limit_not_found"
    assert (await gate.send("DELETE", "/api/limits/team/pay%2Fments", 404))["code"] == "limit_not_found"
    assert (await gate.get("/api/limits"))["limits"] == []
    audit = (await gate.get("/api/controls"))["decisions"]
    assert [(d["kind"], d["scope"], d["reason"], d["caps"] and d["caps"]["rpm"]) for d in audit] == [
        ("cap", "team", "over", None),
        ("cap", "team", "spree", 60),
    ]
    assert gate.events == [
        ("team_capped", {"value": "pay/ments", "by": "ann", "reason": "spree", "removed": False}),
        ("team_capped", {"value": "pay/ments", "by": "ann", "reason": "over", "removed": True}),
    ]


async def test_until_every_worker_goes_by_it_that_is_said(gate: Gate) -> None:
    gate.seen = 0
    assert (await gate.send("PUT", "/api/limits/global/*", 202, json={"concurrency": 4}))["in_force"] is False


async def test_a_kill_and_a_limit_of_one_team_do_not_touch_each_other(gate: Gate) -> None:
    await gate.send("PUT", "/api/limits/team/a", 200, json={"rpm": 5})
    await gate.post("/api/kill", {"scope": "team", "value": "a"}, 200)
    worker = SqliteControls(gate.decisions.path)
    assert (set(worker.stops), set(worker.caps)) == ({("team", "a")}, {("team", "a")})
    await gate.post("/api/resume", {"scope": "team", "value": "a"}, 200)
    worker.refresh()
    assert (set(worker.stops), set(worker.caps)) == (set(), {("team", "a")})
    await gate.send("DELETE", "/api/limits/team/a", 200)
    worker.refresh()
    assert worker.caps == {}


@pytest.mark.parametrize(
    ("path", "body", "parameter"),
    [
        ("run/r1", {"rpm": 1}, "scope"),
        ("planet/x", {"rpm": 1}, "scope"),
        ("global/x", {"rpm": 1}, "value"),
        ("team/" + "x" * 201, {"rpm": 1}, "value"),
        ("team/a", {}, "body"),
        ("team/a", {"burst": 5}, "body"),
        ("team/a", {"budgets": [{"per": "day"}]}, "body"),
        ("team/a", {"budgets": [{"usd": -1}]}, "body"),
        ("team/a", {"rpm": 0}, "body"),
        ("team/a", {"rpd": 1}, "body"),
        ("team/a", {"budgets": [{"usd": 1, "on_exceed": "pray"}]}, "body"),
    ],
)
async def test_what_is_no_limit_is_refused(gate: Gate, path: str, body: dict[str, Any], parameter: str) -> None:
    refused = await gate.send("PUT", f"/api/limits/{path}", 400, json=body)
    assert refused["parameter"] == parameter
    assert (await gate.get("/api/limits"))["limits"] == []
    assert not gate.events
