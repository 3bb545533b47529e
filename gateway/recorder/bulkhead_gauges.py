"""Gauges of pools: sums over workers, each of which states its own in the order of the configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from gateway.policy.pools import FIGURES
from gateway.recorder.metrics_store import Gauge, Labels

LEVEL = "overload_level"


class PoolFigures(Struct, frozen=True):
    """Of all workers."""

    in_flight: int
    waiting: int
    limit: int


def pools(found: Sequence[Mapping[str, float]], names: Iterable[str]) -> dict[str, PoolFigures]:
    """`found`: the gauges of each worker; `names`: of the configured pools, in their order."""
    return {
        name: PoolFigures(*[int(sum(one.get(f"pool{at}_{figure}", 0.0) for one in found)) for figure in FIGURES])
        for at, name in enumerate(names)
    }


def workers(found: Sequence[Mapping[str, float]], names: Sequence[str]) -> dict[str, Gauge]:
    level = max((one.get(LEVEL, 0.0) for one in found), default=0.0)
    if not names:
        return {"tollgate_overload_level": level}
    known = pools(found, names)
    rows: dict[str, dict[Labels, float]] = {
        f"tollgate_bulkhead_{figure}": {(name,): float(getattr(one, figure)) for name, one in known.items()}
        for figure in FIGURES
    }
    return {"tollgate_overload_level": level, **rows}
