"""Gauges of canaries and of learned choices: read from their files at a scrape; nothing where there is none that can be
read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from gateway.policy.canary import Decision, State
from gateway.policy.selection_standing import ScopeStanding
from gateway.recorder.metrics_store import Gauge, Labels

Standing = TypeVar("Standing")


def canaries(standings: Callable[[], Sequence[tuple[Decision, int]]], limit: int) -> dict[str, Gauge]:
    """Of the `limit` latest."""
    found = _first(standings, limit)
    if not found:
        return {}
    states: dict[Labels, float] = {
        (one.canary, state.value): float(one.state is state) for one in found for state in State
    }
    runs: dict[Labels, float] = {
        (one.canary, arm): float(count)
        for one in found
        for arm, count in zip(("canary", "rest"), one.runs, strict=True)
    }
    return {
        "tollgate_canary_state": states,
        "tollgate_canary_runs": runs,
        "tollgate_canary_evidence": {(one.canary,): one.evidence["all"] for one in found},
    }


def learned(standings: Callable[[], Sequence[tuple[ScopeStanding, int]]], limit: int) -> dict[str, Gauge]:
    """Of the first `limit` scopes. What is expected is not said before there are labels enough."""
    found = _first(standings, limit)
    if not found:
        return {}
    gauges: dict[str, Gauge] = {
        "tollgate_learned_labels": {(one.scope, arm.target): arm.labels for one in found for arm in one.arms},
        "tollgate_learned_ready": {(one.scope,): float(one.ready) for one in found},
    }
    qualities: dict[Labels, float] = {(one.scope,): one.quality for one in found if one.quality is not None}
    costs: dict[Labels, float] = {(one.scope,): one.cost for one in found if one.cost is not None}
    if qualities:
        gauges["tollgate_learned_quality_ratio"] = qualities
    if costs:
        gauges["tollgate_learned_cost_ratio"] = costs
    return gauges


def _first(standings: Callable[[], Sequence[tuple[Standing, int]]], limit: int) -> list[Standing]:
    try:
        return [standing for standing, _ in standings()[:limit]]
    except OSError:
        return []
