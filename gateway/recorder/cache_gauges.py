"""Gauges of the cache: read from its store at a scrape; nothing where nothing was ever cached, or it cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

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


def workers(found: Sequence[Mapping[str, float]]) -> dict[str, Gauge]:
    """What the workers say of the store; nothing while there is none."""
    told = [gauges["cache_store_available"] for gauges in found if "cache_store_available" in gauges]
    return {"tollgate_cache_store_available": min(told)} if told else {}
