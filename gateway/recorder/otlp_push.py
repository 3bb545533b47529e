"""The projections that export over OTLP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from gateway.config.schema import Telemetry
from gateway.recorder.drops import Drops
from gateway.recorder.metrics import MetricsProjection
from gateway.recorder.otlp import Destination, destination, exporter, resource
from gateway.recorder.otlp_metrics import MetricsPush, interval_seconds
from gateway.recorder.projection import Projection
from gateway.recorder.traces import TracesProjection, delay_seconds


def projections(
    config: Telemetry,
    metrics: MetricsProjection,
    clock: Callable[[], float],
    environ: Mapping[str, str],
    drops: Drops,
) -> list[Projection]:
    """Traces and metrics, as far as they have a destination."""
    found: list[Projection] = []
    who = resource()

    def stock(to: Destination) -> Any:
        return exporter(to, environ, lambda count: drops.add(to.signal, "rejected", count))

    if to := destination("traces", config.otlp, environ):
        kept = metrics.only_given_exemplars()
        delay = delay_seconds(environ)
        found.append(TracesProjection(config, stock(to), who, clock, drops, kept=kept, delay_seconds=delay))
    if to := destination("metrics", config.otlp, environ):
        every = interval_seconds(environ)
        found.append(MetricsPush(metrics.read, stock(to), who, clock, drops, interval=every))
    return found
