"""Kills, raises and limits through the API, and the summary of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.call import Usage
from gateway.policy.controls import Kind
from gateway.spend import RunLimits
from gateway.stores.sqlite_controls import SqliteControls
from gateway.testing.records import START, call_record

Gate = Any  # of conftest.py


async def test_a_run_is_killed_and_resumed(gate: Gate) -> None:
    gate.fill([call_record()])
    worker = SqliteControls(gate.decisions.path)
    decided = await gate.post("/api/runs/run-1/kill", {"reason": " it loops ", "by": "ops"}, 200)
    assert decided == {
        "scope": "run",
        "value": "run-1",
        "stopped": True,
        "reason": "it loops",
        "by": "ops",
        "since": "2026-09-21T14:13:25.000000Z",
        "budget_usd": None,
        "limits": None,
        "in_force": True,
        "known": True,
    }
    assert worker.refresh()
    assert ("run", "run-1") in worker.stops
    listed = await gate.get("/api/controls")
    assert [entry["value"] for entry in listed["stopped"]] == ["run-1"]
    assert (await gate.post("/api/runs/run-1/resume", {}, 200))["stopped"] is False
    assert worker.refresh()
    assert not worker.stops
    listed = await gate.get("/api/controls")
    assert listed["stopped"] == []
    assert [(d["kind"], d["reason"], d["by"]) for d in listed["decisions"]] == [
        ("resume", None, None),
        ("kill", "it loops", "ops"),
    ]
    assert gate.events == [
        ("run_killed", {"value": "run-1", "by": "ops", "reason": "it loops"}),
        ("run_resumed", {"value": "run-1", "by": "", "reason": ""}),
    ]


async def test_a_run_nobody_has_seen_may_be_killed(gate: Gate) -> None:
    decided = await gate.post("/api/runs/later/kill", {}, 200)
    assert (decided["known"], decided["stopped"], decided["reason"]) == (False, True, None)


@pytest.mark.parametrize("scope", ["run", "agent", "key", "team"])
async def test_everything_that_calls_may_be_stopped(gate: Gate, scope: str) -> None:
    decided = await gate.post("/api/kill", {"scope": scope, "value": "a/b c", "reason": "enough"}, 200)
    assert (decided["scope"], decided["value"], decided["stopped"]) == (scope, "a/b c", True)
    assert decided["known"] == (False if scope == "run" else None)
    worker = SqliteControls(gate.decisions.path)
    assert set(worker.stops) == {(scope, "a/b c")}
    await gate.post("/api/resume", {"scope": scope, "value": "a/b c"}, 200)
    worker.refresh()
    assert not worker.stops
    assert [kind for kind, _ in gate.events] == [f"{scope}_killed", f"{scope}_resumed"]


async def test_a_budget_is_raised(gate: Gate) -> None:
    decided = await gate.post("/api/runs/run-1/raise", {"budget_usd": 2.5}, 200)
    assert decided["budget_usd"] == 2.5
    assert SqliteControls(gate.decisions.path).raised("run-1") == 2_500_000_000
    assert gate.events == [("run_raised", {"value": "run-1", "by": "", "reason": "", "budget_usd": 2.5})]
    assert (await gate.get("/api/controls"))["decisions"][0]["amount_usd"] == 2.5


async def test_limits_are_there_before_the_first_call(gate: Gate) -> None:
    body = {"budget_usd": 0.1, "max_calls": 200, "max_minutes": 0.5, "max_depth": 0}
    decided = await gate.send("PUT", "/api/runs/new/limits", 200, json=body)
    assert decided["limits"] == {**body, "max_steps": None, "max_tools": None}
    worker = SqliteControls(gate.decisions.path)
    assert worker.limits("new") == RunLimits(usd=100_000_000, calls=200, seconds=30, depth=0)
    decided = await gate.send("PUT", "/api/runs/new/limits", 200, json={})
    assert decided["limits"] is None
    assert [decision.kind for decision in gate.decisions.decisions()] == [Kind.LIMIT, Kind.LIMIT]


async def test_202_says_that_a_worker_has_not_taken_it_in(gate: Gate) -> None:
    gate.seen = 0
    decided = await gate.post("/api/runs/run-1/kill", {}, 202)
    assert decided["in_force"] is False


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/runs/r/raise", {}),
        ("/api/runs/r/raise", {"budget_usd": 0}),
        ("/api/runs/r/raise", {"budget_usd": 1e9}),
        ("/api/runs/r/kill", {"reason": "x" * 501}),
        ("/api/runs/r/kill", {"why": "x"}),
        ("/api/runs/r/kill", []),
        ("/api/kill", {"scope": "galaxy", "value": "x"}),
        ("/api/kill", {"scope": "run", "value": ""}),
        ("/api/kill", {"scope": "run"}),
    ],
)
async def test_what_makes_no_sense_is_refused(gate: Gate, path: str, body: object) -> None:
    problem = await gate.post(path, body, 400)
    assert problem["code"] == "bad_body"
    assert gate.decisions.decisions() == []
    assert gate.events == []


async def test_a_run_with_an_endless_name_is_refused(gate: Gate) -> None:
    assert (await gate.post(f"/api/runs/{'x' * 201}/kill", {}, 400))["parameter"] == "id"


async def test_a_page_of_another_origin_cannot_decide(gate: Gate) -> None:
    for kwargs in ({"data": "{}"}, {"data": "{}", "headers": {"Content-Type": "text/plain"}}, {}):
        assert (await gate.send("POST", "/api/runs/r/kill", 415, **kwargs))["code"] == "unsupported_media_type"


async def test_a_decision_that_cannot_be_written_is_not_taken(gate: Gate, tmp_path: Path) -> None:
    gate.decisions.path = tmp_path / "ledger.sqlite" / "controls.sqlite"
    problem = await gate.post("/api/runs/r/kill", {}, 503)
    assert problem["code"] == "controls_unavailable"
    assert gate.events == []
    assert (await gate.get("/api/controls", 503))["code"] == "controls_unavailable"


async def test_a_kill_needs_no_ledger(gate: Gate) -> None:
    gate.ledger.path.unlink()
    decided = await gate.post("/api/runs/run-1/kill", {}, 200)
    assert (decided["stopped"], decided["known"]) == (True, None)


# -- the summary


async def test_the_summary_of_a_run(gate: Gate) -> None:
    gate.fill(
        [
            call_record("c1", START, usage=Usage(1000, 10, 400, 0, 0)),
            call_record("c2", START + 5_000_000, outcome="refused", error_code="budget_exceeded", cost=0),
        ]
    )
    run = await gate.get("/api/runs/run-1")
    summary = await gate.get("/api/runs/run-1/summary")
    same = ("id", "calls", "errors", "usage", "cost_usd", "unknown_cost_calls", "tool_calls", "tool_errors")
    assert {name: summary[name] for name in same} == {name: run[name] for name in same}
    assert summary["duration_ms"] == run["duration_ms"]
    assert (summary["refused"], summary["complete"]) == (1, True)
    assert summary["saved_usd"] == 400 * 9e-6
    assert summary["stopped"]["code"] == "budget_exceeded"


@pytest.mark.parametrize(
    ("last", "stopped"),
    [
        ({"outcome": "ok"}, None),
        ({"outcome": "refused", "error_code": "run_stopped", "error_message": "it loops"}, "run_stopped"),
        ({"outcome": "truncated", "error_code": "run_stopped"}, "run_stopped"),
        ({"outcome": "refused", "error_code": "limit_reached"}, None),
        ({"outcome": "ok", "operation": ""}, "budget_exceeded"),  # a token count is no work
    ],
)
async def test_the_last_call_says_whether_a_run_was_stopped(gate: Gate, last: Any, stopped: str | None) -> None:
    gate.fill(
        [
            call_record("c1", START),
            call_record("c2", START + 1, outcome="refused", error_code="budget_exceeded"),
            call_record("c3", START + 2, **last),
        ]
    )
    summary = await gate.get("/api/runs/run-1/summary")
    assert (summary["stopped"] or {}).get("code") == stopped
    if last.get("error_message"):
        assert summary["stopped"]["message"] == "it loops"


async def test_the_summary_of_a_run_without_calls(gate: Gate) -> None:
    gate.lags = True
    summary = await gate.get("/api/runs/none/summary")
    assert (summary["calls"], summary["cost_usd"], summary["stopped"], summary["complete"]) == (0, 0.0, None, False)
