"""From counted points to the text formats of Prometheus: what has many series is written here, all else, and formats
that are seldom asked for, by prometheus_client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from prometheus_client import Metric as PrometheusFamily
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from gateway.recorder import metrics_text
from gateway.recorder.metrics_store import Gauge, Point, readings, view_of
from gateway.recorder.names import METRICS, NS, Metric

WRITERS = {"counter": metrics_text.counter, "histogram": metrics_text.histogram}


class Exposition(Collector):
    """One scrape: the points of one moment."""

    def __init__(self, points: Mapping[str, list[Point]], gauges: Mapping[str, Gauge], version: str) -> None:
        self._points = points
        self._gauges = gauges
        self._version = version

    def render(self, accept: str) -> tuple[bytes, str]:
        """The body and its content type, in the format that `accept` (a header value) asks for."""
        encoder, content_type = choose_encoder(accept)
        openmetrics = content_type.startswith("application/openmetrics-text")
        if "version=1.0.0" not in content_type and "version=0.0.4" not in content_type:
            return encoder(self), content_type
        text = "".join(self._quick(openmetrics=openmetrics)).encode()
        return text + encoder(_Few(self._few())), content_type  # what the library writes has the mark of the end

    def _quick(self, *, openmetrics: bool) -> Iterator[str]:
        """Of the families that have many series."""
        for metric in METRICS.values():
            if metric.kind in WRITERS:
                yield from WRITERS[metric.kind](metric, view_of(metric, self._points), openmetrics=openmetrics)

    def _few(self) -> Iterator[PrometheusFamily]:
        for metric in METRICS.values():
            if metric.kind == "info":
                yield InfoMetricFamily(metric.name, metric.help, {"version": self._version})
            elif metric.name in self._gauges:
                yield _gauge(metric, self._gauges[metric.name])

    def collect(self) -> Iterator[PrometheusFamily]:
        for metric in METRICS.values():
            if metric.kind == "counter":
                yield _counter(metric, view_of(metric, self._points))
            elif metric.kind == "histogram":
                yield _histogram(metric, view_of(metric, self._points))
        yield from self._few()


class _Few(Collector):
    """Families for an encoder of the library."""

    def __init__(self, families: Iterable[PrometheusFamily]) -> None:
        self._families = families

    def collect(self) -> Iterable[PrometheusFamily]:
        return self._families


def _counter(metric: Metric, points: Sequence[Point]) -> PrometheusFamily:
    family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    for point in points:
        family.add_metric(point.labels, point.value / metric.scale)
    return family


def _gauge(metric: Metric, gauge: Gauge) -> PrometheusFamily:
    family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in readings(gauge):
        family.add_metric(labels, value)
    return family


def _histogram(metric: Metric, points: Sequence[Point]) -> PrometheusFamily:
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    edges = [floatToGoString(bound) for bound in (*metric.buckets, float("inf"))]  # type: ignore[no-untyped-call]
    for point in points:
        family.add_metric(point.labels, _buckets(metric, edges, point), point.value / metric.scale)
    return family


def _buckets(
    metric: Metric, edges: Sequence[str], point: Point
) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
    """Cumulative counts, each with the exemplar of its bucket."""
    buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
    total = 0
    for index, edge in enumerate(edges):
        total += point.counts[index]
        seen = point.exemplars[index] if point.exemplars else None
        if seen is not None and seen[0][0].isascii() and seen[0][0].isalnum():
            (trace_id, _, at), value = seen
            buckets.append((edge, total, Exemplar({"trace_id": trace_id}, value / metric.scale, at / NS)))
        else:
            buckets.append((edge, total))
    return buckets
