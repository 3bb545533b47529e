"""Gauges of the cache: read from its file at a scrape; nothing where nothing was ever cached, or it cannot be read."""

from __future__ import annotations

from collections.abc import Callable

from gateway.policy.cached import Contents
from gateway.recorder.metrics_store import Gauge


def read(contents: Callable[[int], Contents | None], now: int) -> dict[str, Gauge]:
    """`now`: ns since the epoch."""
    try:
        found = contents(now)
    except OSError:
        return {}
    if found is None:
        return {}
    return {"tollgate_cache_entries": float(found.entries), "tollgate_cache_bytes": float(found.bytes)}
