"""Which telemetry projections a configuration asks for.

The OpenTelemetry SDK costs a quarter of a second and 30 MB to import: it is, when there is something to export.
"""

from __future__ import annotations

import importlib
import threading
import time
from collections.abc import Callable, Collection, Mapping

from msgspec import Struct

from gateway.config.schema import Telemetry
from gateway.recorder.drops import Drops
from gateway.recorder.logs import LogProjection
from gateway.recorder.metrics import MetricsProjection
from gateway.recorder.metrics_store import Gauge
from gateway.recorder.projection import Projection


class Projections(Struct, frozen=True):
    """`metrics` keeps its counts over restarts (`snapshot`, `restore`); `sinks` are traces, pushed metrics and logs."""

    metrics: MetricsProjection
    sinks: tuple[Projection, ...]

    def close(self, timeout: float) -> None:
        """Close all sinks at once, within `timeout` seconds in total."""
        deadline = time.monotonic() + timeout
        threads = [threading.Thread(target=sink.close, args=(timeout,), daemon=True) for sink in self.sinks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def projections(
    config: Telemetry,
    gauges: Callable[[], Mapping[str, Gauge]],
    clock: Callable[[], float],
    environ: Mapping[str, str],
    *,
    models: Collection[str] = (),
    knows: Callable[[str, str], bool] | None = None,
    run_idle_seconds: float = 3600,
) -> Projections:
    """Everything that `config` and the standard OTEL_ variables in `environ` switch on; see the projections.

    Raises OSError for a TLS file that cannot be read.
    """
    drops = Drops()
    metrics = MetricsProjection(
        config, gauges, clock, drops=drops, models=models, knows=knows, run_idle_seconds=run_idle_seconds
    )
    sinks: list[Projection] = []
    if config.log is not None:
        sinks.append(LogProjection(config.log, drops))
    if config.otlp is not None or any(name.startswith("OTEL_EXPORTER_OTLP_") for name in environ):
        push = importlib.import_module("gateway.recorder.otlp_push")
        sinks += push.projections(config, metrics, clock, environ, drops)
    return Projections(metrics, tuple(sinks))
