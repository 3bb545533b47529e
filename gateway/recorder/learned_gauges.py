"""Gauges of learned choices: read from their file at a scrape; nothing where there is none that can be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.policy.selection_standing import ScopeStanding
from gateway.recorder.metrics_store import Gauge, Labels


def read(standings: Callable[[], Sequence[tuple[ScopeStanding, int]]], limit: int) -> dict[str, Gauge]:
    """Of the first `limit` scopes. What is expected is not said before there are labels enough."""
    try:
        found = [standing for standing, _ in standings()][:limit]
    except OSError:
        return {}
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
