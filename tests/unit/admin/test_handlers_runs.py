from __future__ import annotations

import json
import random
from decimal import Decimal
from typing import Any

import pytest

from gateway.admin import tree
from gateway.call import ToolCall
from gateway.journal.record import CallRecord
from gateway.testing.records import START, call_record, outcome_record, workload

Gate = Any  # of conftest.py
COUNTS = ("calls", "errors", "unknown_cost_calls", "tool_calls", "tool_errors")
TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")


async def exact(gate: Gate, path: str) -> Any:
    """A body with its numbers as they stand there."""
    async with gate.client.get(path) as response:
        return json.loads(await response.text(), parse_float=Decimal, parse_int=Decimal)


def check_sums(whole: dict[str, Any], parts: list[dict[str, Any]]) -> None:
    for name in COUNTS:
        assert whole[name] == sum(part[name] for part in parts), name
    for name in TOKENS:
        assert whole["usage"][name] == sum(part["usage"][name] for part in parts), name
    assert (whole["cost_usd"] or 0) == sum(part["cost_usd"] or 0 for part in parts)


@pytest.mark.parametrize("seed", range(5))
async def test_the_parts_of_a_run_sum_up_to_its_totals_exactly(gate: Gate, seed: int) -> None:
    records = workload(random.Random(seed), 200, runs=3)
    gate.fill(records)
    for run_id in ("run-0", "run-1", "run-2"):
        await gate.get(f"/api/runs/{run_id}")
        run = await exact(gate, f"/api/runs/{run_id}")
        check_sums(run, run["tree"])
        for agent in run["tree"]:
            check_sums(agent, agent["steps"])
            for step in agent["steps"]:
                assert step["calls"] == len(step["call_list"])
                assert step["tool_calls"] == len(step["tools"])
                assert (step["cost_usd"] or 0) == sum(call["cost_usd"] or 0 for call in step["call_list"])
                for name in TOKENS:
                    assert step["usage"][name] == sum(call["usage"][name] for call in step["call_list"])
        mine = [r for r in records if isinstance(r, CallRecord) and r.run_id == run_id]
        assert run["cost_usd"] * 10**12 == sum(r.cost or 0 for r in mine)
        assert {c["id"] for a in run["tree"] for s in a["steps"] for c in s["call_list"]} == {r.id for r in mine}


async def test_the_tree_names_agents_steps_and_tools(gate: Gate) -> None:
    tool = ToolCall("t1", "search", START, 5_000_000)
    gate.fill(
        [
            call_record("c1", START, agent="planner", step=1),
            call_record("c2", START + 5, agent="planner", step=2, tools=(tool,)),
            call_record("c3", START + 6, agent="coder", parent_agent="planner", agent_version="2", step=1),
        ]
    )
    run = await gate.get("/api/runs/run-1")
    assert (run["agent"], run["agents"], run["steps"]) == ("planner", ["coder", "planner"], 2)
    assert [(a["agent"], a["parent_agent"], [s["step"] for s in a["steps"]]) for a in run["tree"]] == [
        ("planner", None, [1, 2]),
        ("coder", "planner", [1]),
    ]
    second = run["tree"][0]["steps"][1]
    assert [(t["name"], t["call_id"], t["duration_ms"]) for t in second["tools"]] == [("search", "c2", 5.0)]
    assert run["truncated"] is False


async def test_a_run_of_unknown_cost_has_none(gate: Gate) -> None:
    gate.fill([call_record(cost=None, cost_components={}, cost_status="no_price")])
    run = await gate.get("/api/runs/run-1")
    assert run["cost_usd"] is None
    assert run["unknown_cost_calls"] == 1
    gate.fill([call_record("c2", step=2)])
    run = await gate.get("/api/runs/run-1")
    assert run["cost_usd"] == 0.000042
    assert run["unknown_cost_calls"] == 1
    assert [step["cost_usd"] for step in run["tree"][0]["steps"]] == [None, 0.000042]


async def test_refusals_and_calls_without_tokens_are_not_of_unknown_cost(gate: Gate) -> None:
    nothing = {"usage": None, "usage_source": "none", "cost": None, "cost_components": {}, "cost_status": "no_usage"}
    gate.fill(
        [
            call_record("c1", outcome="refused", status=400, attempts=(), **nothing),
            call_record("c2", operation="", route="/v1/models", **nothing),
            call_record("c3", outcome="upstream_error", status=500, **nothing),
            call_record("c4", outcome="abandoned", status=0, **nothing),
        ]
    )
    assert (await gate.get("/api/runs/run-1"))["unknown_cost_calls"] == 1


async def test_a_large_run_lists_some_calls_and_totals_all(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "LEAVES", 10)
    gate.fill([call_record(f"c{n:02d}", START + n) for n in range(25)])
    run = await gate.get("/api/runs/run-1")
    assert run["calls"] == 25
    assert len(run["tree"][0]["steps"][0]["call_list"]) == 10
    assert run["truncated"] is True


async def test_runs_come_in_pages_with_filters(gate: Gate) -> None:
    for n in range(9):
        agent = "coder" if n % 2 else "planner"
        gate.fill([call_record(f"c{n}", START + n, run_id=f"r{n}", agent=agent, tenant=f"t{n % 3}")])
    gate.fill([call_record("extra", START + 100, run_id="r0", agent="coder"), outcome_record(run_id="r4")])
    seen, cursor = [], ""
    while cursor is not None:
        page = await gate.get(f"/api/runs?limit=4&cursor={cursor}")
        seen += [run["id"] for run in page["runs"]]
        cursor = page["next"]
    assert seen == [f"r{n}" for n in reversed(range(9))]

    async def ids(query: str) -> list[str]:
        return [run["id"] for run in (await gate.get(f"/api/runs?{query}"))["runs"]]

    assert await ids("agent=coder") == ["r7", "r5", "r3", "r1", "r0"]
    assert await ids("tenant=t1") == ["r7", "r4", "r1"]
    assert await ids("outcome=success") == ["r4"]
    assert await ids("outcome=none&tenant=t1") == ["r7", "r1"]
    assert await ids("model=gpt-4o-mini&until=1790000000.000000002") == ["r1", "r0"]


async def test_an_outcome_is_in_the_journal_and_shown(gate: Gate) -> None:
    gate.fill([call_record()])
    body = await gate.post("/api/runs/run-1/outcome", {"outcome": "score", "value": 0.75, "note": "good"})
    assert (body["outcome"], body["value"], body["note"], body["run_id"]) == ("score", 0.75, "good", "run-1")
    assert [(r.id, r.run_id, r.kind, r.value, r.note) for r in gate.journal] == [
        (body["id"], "run-1", "score", 0.75, "good")
    ]
    run = await gate.get("/api/runs/run-1")
    assert run["outcome"] == body
    assert run["outcomes"] == [body]


async def test_an_outcome_the_ledger_has_not_seen_yet_is_accepted(gate: Gate) -> None:
    gate.lags = True
    await gate.post("/api/runs/run-1/outcome", {"outcome": "success"}, 202)
    assert [r.run_id for r in gate.journal] == ["run-1"]


async def test_an_outcome_of_no_run_is_refused(gate: Gate) -> None:
    problem = await gate.post("/api/runs/nope/outcome", {"outcome": "success"}, 404)
    assert problem["code"] == "run_not_found"
    assert gate.journal == []


async def test_an_outcome_that_cannot_be_written_is_said_so(gate: Gate) -> None:
    gate.fill([call_record()])
    gate.refuses = True
    problem = await gate.post("/api/runs/run-1/outcome", {"outcome": "success"}, 503)
    assert problem["code"] == "journal_unavailable"


@pytest.mark.parametrize(
    "body",
    [
        {"outcome": "maybe"},
        {"outcome": "score"},
        {"outcome": "success", "value": "x"},
        {"outcome": "success", "extra": 1},
        {"value": 1},
        [],
        {"outcome": "success", "note": "x" * 2001},
    ],
)
async def test_a_bad_report_is_refused(gate: Gate, body: object) -> None:
    gate.fill([call_record()])
    problem = await gate.post("/api/runs/run-1/outcome", body, 400)
    assert problem["parameter"] in ("body", "value")
    assert gate.journal == []


async def test_a_report_must_be_json(gate: Gate) -> None:
    gate.fill([call_record()])
    await gate.send("POST", "/api/runs/run-1/outcome", 415, data=b'{"outcome":"success"}')
    headers = {"Content-Type": "application/json"}
    await gate.send("POST", "/api/runs/run-1/outcome", 400, data=b'{"outcome":', headers=headers)
    await gate.send("POST", "/api/runs/run-1/outcome", 413, data=b" " * 70_000, headers=headers)


async def test_cost_per_outcome(gate: Gate) -> None:
    gate.fill(
        [
            *(call_record(f"s{n}", START + n, run_id=f"s{n}", cost=2_000_000) for n in range(3)),
            call_record("f", run_id="f", cost=6_000_000),
            call_record("g", run_id="g", agent="coder", cost=None, cost_components={}, cost_status="no_price"),
            call_record("open", run_id="open"),
            *(outcome_record(f"o{n}", f"s{n}") for n in range(3)),
            outcome_record("of", "f", kind="failure"),
            outcome_record("og", "g", kind="score", value=0.5),
        ]
    )
    page = await gate.get("/api/outcomes")
    groups = {(g["agent"], g["outcome"]): g for g in page["outcomes"]}
    assert groups["planner", "success"]["cost_per_run_usd"] == 2e-6
    assert groups["planner", "success"]["runs"] == 3
    assert groups["coder", "score"] | {"mean_value": 0.5, "cost_usd": None} == groups["coder", "score"]
    planner = next(a for a in page["agents"] if a["agent"] == "planner")
    assert planner["cost_per_success_usd"] == 4e-6
    assert planner["cost_per_failure_usd"] == 6e-6
    assert planner["success_rate"] == 0.75
    assert (await gate.get("/api/outcomes?agent=coder&tenant=default"))["agents"][0]["unknown_cost_calls"] == 1
    assert (await gate.get("/api/outcomes?since=2027-01-01T00:00:00Z"))["outcomes"] == []


async def test_sums_beyond_64_bits_of_pico_dollars(gate: Gate) -> None:
    gate.fill([call_record(f"c{n}", run_id=f"r{n}", cost=6 * 10**18) for n in range(3)])
    gate.fill([outcome_record(f"o{n}", f"r{n}") for n in range(3)])
    assert (await gate.get("/api/outcomes"))["outcomes"][0]["cost_usd"] == 18_000_000.0
