"""Gauges of how the processes of this gateway stand: sums over workers, and what the supervisor last said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from gateway.recorder.metrics_store import Gauge


class Status(Protocol):
    """What the supervisor says of the configuration; see process.control."""

    @property
    def reload_ok(self) -> bool: ...

    @property
    def configured_at(self) -> int: ...


def workers(found: Sequence[Mapping[str, float]]) -> dict[str, Gauge]:
    """`found`: the gauges of each worker. One that was never set counts as 0."""
    return {
        "tollgate_breakers_open": sum(gauges.get("breakers_open", 0.0) for gauges in found),
        "tollgate_descriptors_used_ratio": max((g.get("descriptors_used_ratio", 0.0) for g in found), default=0.0),
        "tollgate_inflight_requests": sum(gauges.get("inflight_requests", 0.0) for gauges in found),
        "tollgate_event_loop_lag_seconds": max((g.get("event_loop_lag_seconds", 0.0) for g in found), default=0.0),
        "tollgate_journal_lost_pending": sum(gauges.get("journal_lost_pending", 0.0) for gauges in found),
    }


def configured(status: Status | None) -> dict[str, Gauge]:
    """How the last reload went; nothing before the supervisor has said so."""
    if status is None:
        return {}
    return {
        "tollgate_config_last_reload_success": float(status.reload_ok),
        "tollgate_config_last_reload_success_timestamp_seconds": status.configured_at / 1e9,
    }
