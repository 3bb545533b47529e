"""The same metrics over OTLP: what /metrics shows, pushed every so often as cumulative points."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from gateway import __version__
from gateway.journal.record import Record
from gateway.recorder import names
from gateway.recorder.drops import Drops
from gateway.recorder.metrics import Reading
from gateway.recorder.metrics_store import Exemplar as Seen
from gateway.recorder.metrics_store import Labels, Point, readings, view_of
from gateway.recorder.names import LABEL_ATTRIBUTES, METRICS, NS, SCHEMA_URL

INTERVAL_SECONDS = 60.0
_CUMULATIVE = AggregationTemporality.CUMULATIVE
_SCOPE = InstrumentationScope("tollgate", __version__, SCHEMA_URL)
_SIGNAL = "metrics"
_GRACE = 0.5


def metrics_data(reading: Reading, resource: Resource, now_ns: int) -> MetricsData:
    """Everything in a reading that has a value, under its OTLP name and attributes."""
    span = (reading.started_ns, now_ns)
    metrics = [made for metric in METRICS.values() if (made := _metric(metric, reading, span)) is not None]
    scope = ScopeMetrics(scope=_SCOPE, metrics=metrics, schema_url=SCHEMA_URL)
    return MetricsData([ResourceMetrics(resource=resource, scope_metrics=[scope], schema_url=resource.schema_url)])


def points_in(data: MetricsData) -> int:
    scopes = [scope for of_resource in data.resource_metrics for scope in of_resource.scope_metrics]
    return sum(len(metric.data.data_points) for scope in scopes for metric in scope.metrics)


def _metric(metric: names.Metric, reading: Reading, span: tuple[int, int]) -> Metric | None:
    data: Gauge | Sum | Histogram
    if metric.kind == "gauge":
        if metric.name not in reading.gauges:
            return None
        data = Gauge([
            NumberDataPoint(_attributes(metric, labels), span[0], span[1], value)
            for labels, value in readings(reading.gauges[metric.name])
        ])  # fmt: skip
    elif metric.kind == "info":
        data = Gauge([NumberDataPoint({"version": __version__}, span[0], span[1], 1)])
    else:
        points = view_of(metric, reading.points)
        if not points:
            return None
        if metric.kind == "counter":
            data = Sum([_number(metric, point, span) for point in points], _CUMULATIVE, is_monotonic=True)
        else:
            data = Histogram([_histogram(metric, point, span) for point in points], _CUMULATIVE)
    return Metric(metric.otel_name, metric.help, metric.unit, data)


def _attributes(metric: names.Metric, labels: Labels) -> dict[str, str | int]:
    """Labels as attributes; empty ones are left out, as Prometheus does; a port is a number."""
    found: dict[str, str | int] = {
        LABEL_ATTRIBUTES.get(label, label): value for label, value in zip(metric.labels, labels, strict=True) if value
    }
    port = found.get("server.port")
    if isinstance(port, str) and port.isdecimal():
        found["server.port"] = int(port)
    return found


def _value(metric: names.Metric, value: int) -> int | float:
    return value if metric.scale == 1 else value / metric.scale


def _number(metric: names.Metric, point: Point, span: tuple[int, int]) -> NumberDataPoint:
    return NumberDataPoint(_attributes(metric, point.labels), span[0], span[1], _value(metric, point.value))


def _histogram(metric: names.Metric, point: Point, span: tuple[int, int]) -> HistogramDataPoint:
    return HistogramDataPoint(
        attributes=_attributes(metric, point.labels),
        start_time_unix_nano=span[0],
        time_unix_nano=span[1],
        count=sum(point.counts),
        sum=_value(metric, point.value),
        bucket_counts=point.counts,
        explicit_bounds=[float(bound) for bound in metric.buckets],
        min=None,  # type: ignore[arg-type]  # not known: optional in the protocol
        max=None,  # type: ignore[arg-type]
        exemplars=[_exemplar(metric, seen) for seen in point.exemplars if seen is not None],
    )


def _exemplar(metric: names.Metric, seen: Seen) -> Exemplar:
    (trace_id, span_id, at), value = seen
    return Exemplar({}, _value(metric, value), at, _hex(span_id), _hex(trace_id))


def _hex(text: str) -> int | None:
    try:
        return int(text, 16)
    except ValueError:
        return None


class MetricsPush:
    """Reads and exports in a thread of its own, every `interval` seconds and once more at the end."""

    def __init__(
        self,
        read: Callable[[], Reading],
        exporter: MetricExporter,
        resource: Resource,
        clock: Callable[[], float],
        drops: Drops,
        *,
        interval: float = INTERVAL_SECONDS,
    ) -> None:
        self._read = read
        self._exporter = exporter
        self._resource = resource
        self._clock = clock
        self._drops = drops
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otlp-metrics", daemon=True)
        self._thread.start()

    def apply(self, batch: Sequence[Record]) -> None:
        """The metrics projection counts; this one only reads it."""

    def close(self, timeout: float) -> None:
        """Export a last time, within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        self._stop.set()
        self._thread.join(max(0.0, timeout - min(_GRACE, timeout / 4)))
        self._exporter.shutdown()
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            self._export()
        self._export()

    def _export(self) -> None:
        data = metrics_data(self._read(), self._resource, int(self._clock() * NS))
        try:
            sent = self._exporter.export(data) is MetricExportResult.SUCCESS
        except (OSError, ValueError, RuntimeError):  # of a channel or session that was closed meanwhile
            sent = False
        if not sent:
            self._drops.add(_SIGNAL, "export_failed", points_in(data))


def interval_seconds(environ: Mapping[str, str]) -> float:
    """OTEL_METRIC_EXPORT_INTERVAL (ms), or a minute."""
    try:
        return max(0.1, float(environ.get("OTEL_METRIC_EXPORT_INTERVAL", "")) / 1000)
    except ValueError:
        return INTERVAL_SECONDS
