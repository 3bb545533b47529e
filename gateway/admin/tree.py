"""The tree of a run: agents, their steps, and in them calls and tools; and what outcomes cost."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from sqlite3 import Row

from msgspec import Struct

from gateway.admin import present
from gateway.admin.views import (
    AgentNode,
    CallLeaf,
    OutcomeCost,
    OutcomeGroup,
    OutcomePage,
    RunDetail,
    StepNode,
    ToolLeaf,
    UsageView,
)
from gateway.recorder.ledger_rows import decode_attempts, decode_detail

LEAVES = 5_000
"""Calls (and tools) that a tree lists; beyond, only its totals are complete."""

Key = tuple[str, int]  # agent, step


class RunRows(Struct):
    """All that the ledger knows of a run, read at one moment."""

    run: Row
    steps: Sequence[Row]
    calls: Sequence[Row]  # up to LEAVES + 1
    tools: Sequence[Row]
    outcomes: Sequence[Row]


def run_detail(rows: RunRows) -> RunDetail:
    calls: dict[Key, list[CallLeaf]] = {}
    for row in rows.calls[:LEAVES]:
        calls.setdefault((row["agent"], row["step"]), []).append(_call_leaf(row))
    tools: dict[Key, list[ToolLeaf]] = {}
    for row in rows.tools[:LEAVES]:
        tools.setdefault((row["agent"], row["step"]), []).append(_tool_leaf(row))
    groups = [(name, list(steps)) for name, steps in groupby(rows.steps, lambda row: row["agent"])]
    groups.sort(key=lambda group: min(step["first_at"] for step in group[1]))
    return RunDetail(
        **present.run_fields(rows.run, sorted(name for name, _ in groups)),
        outcomes=present.outcomes(rows.outcomes),
        tree=[_agent(name, steps, calls, tools) for name, steps in groups],
        truncated=len(rows.calls) > LEAVES or len(rows.tools) > LEAVES,
    )


def _agent(
    name: str, steps: Sequence[Row], calls: dict[Key, list[CallLeaf]], tools: dict[Key, list[ToolLeaf]]
) -> AgentNode:
    def total(column: str) -> int:
        return sum(step[column] for step in steps)

    return AgentNode(
        agent=name or None,
        agent_version=max(step["agent_version"] for step in steps) or None,
        parent_agent=max(step["parent_agent"] for step in steps) or None,
        started_at=present.moment(min(step["first_at"] for step in steps)),
        last_at=present.moment(max(step["last_at"] for step in steps)),
        calls=total("calls"),
        errors=total("errors"),
        usage=UsageView(
            input_tokens=total("input_tokens"),
            output_tokens=total("output_tokens"),
            cache_read_tokens=total("cache_read_tokens"),
            cache_write_tokens=total("cache_write_tokens"),
            reasoning_tokens=total("reasoning_tokens"),
        ),
        cost_usd=present.known_usd(total("cost"), total("priced"), total("cost_unknown")),
        unknown_cost_calls=total("cost_unknown"),
        tool_calls=total("tool_calls"),
        tool_errors=total("tool_errors"),
        steps=[_step(row, calls, tools) for row in steps],
    )


def _step(row: Row, calls: dict[Key, list[CallLeaf]], tools: dict[Key, list[ToolLeaf]]) -> StepNode:
    key = row["agent"], row["step"]
    return StepNode(
        **present.totals(row),
        step=row["step"],
        started_at=present.moment(row["first_at"]),
        last_at=present.moment(row["last_at"]),
        call_list=calls.get(key, []),
        tools=tools.get(key, []),
    )


def _call_leaf(row: Row) -> CallLeaf:
    detail = decode_detail(row["detail"])
    return CallLeaf(
        id=row["id"],
        started_at=present.moment(row["started_at"]),
        duration_ms=present.ms(row["duration_ns"]),
        model=row["model_used"] or row["model_requested"] or None,
        status=row["status"],
        outcome=row["outcome"],
        usage=present.usage(row),
        cost_usd=None if row["cost"] is None else present.usd(row["cost"]),
        tool_uses=present.tool_uses(row["tool_uses"]),
        upstream=row["upstream"],
        ttft_ms=None if row["ttft_ns"] is None else present.ms(row["ttft_ns"]),
        attempts=len(decode_attempts(row["attempts"])),
        error=row["error_code"] or detail.error_type or None,
        message=detail.error_message or None,
        cache=detail.cache or None,
        saved_usd=present.usd(detail.saved),
        budget=detail.budget or None,
        loop=present.loop(detail),
        notes=detail.notes,
    )


def _tool_leaf(row: Row) -> ToolLeaf:
    return ToolLeaf(
        id=row["tool_id"],
        call_id=row["call_id"],
        name=row["name"],
        started_at=present.moment(row["started_at"]),
        duration_ms=present.ms(row["duration_ns"]),
        exact=bool(row["exact"]),
        is_error=bool(row["is_error"]),
    )


def outcome_page(rows: Sequence[Row]) -> OutcomePage:
    """`rows` are ordered by tenant and agent."""
    return OutcomePage(
        outcomes=[_group(row) for row in rows],
        agents=[_cost(list(group)) for _, group in groupby(rows, lambda row: (row["tenant"], row["agent"]))],
    )


def _pico(row: Row) -> int:
    return int(row["cost_micro"]) * 1_000_000 + int(row["cost_rest"])


def _group(row: Row) -> OutcomeGroup:
    cost, known = _pico(row), bool(row["priced"] or not row["cost_unknown"])
    return OutcomeGroup(
        tenant=row["tenant"],
        agent=row["agent"] or None,
        outcome=row["kind"],
        runs=row["runs"],
        calls=row["calls"],
        cost_usd=present.usd(cost) if known else None,
        cost_per_run_usd=present.usd(cost) / row["runs"] if known else None,
        unknown_cost_calls=row["cost_unknown"],
        mean_value=row["value_sum"] / row["value_count"] if row["value_count"] else None,
    )


def _cost(rows: Sequence[Row]) -> OutcomeCost:
    runs = {kind: sum(row["runs"] for row in rows if row["kind"] == kind) for kind in ("success", "failure")}
    spent = {kind: sum(_pico(row) for row in rows if row["kind"] == kind) for kind in ("success", "failure")}
    total, unknown = sum(map(_pico, rows)), sum(row["cost_unknown"] for row in rows)
    known = bool(sum(row["priced"] for row in rows) or not unknown)
    successes, failures = runs["success"], runs["failure"]
    return OutcomeCost(
        tenant=rows[0]["tenant"],
        agent=rows[0]["agent"] or None,
        runs=sum(row["runs"] for row in rows),
        successes=successes,
        failures=failures,
        success_rate=successes / (successes + failures) if successes + failures else None,
        cost_usd=present.usd(total) if known else None,
        cost_per_success_usd=present.usd(spent["success"] + spent["failure"]) / successes
        if known and successes
        else None,
        cost_per_failure_usd=present.usd(spent["failure"]) / failures if known and failures else None,
        unknown_cost_calls=unknown,
    )
