"""Gauges of canaries: read from their file at a scrape; nothing where there never was one, or it cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.policy.canary import Decision, State
from gateway.recorder.metrics_store import Gauge, Labels


def read(standings: Callable[[], Sequence[tuple[Decision, int]]], limit: int) -> dict[str, Gauge]:
    """Of the `limit` latest."""
    try:
        found = [standing for standing, _ in standings()][:limit]
    except OSError:
        return {}
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
