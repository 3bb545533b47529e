from __future__ import annotations

import threading
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData
from opentelemetry.sdk.resources import Resource

from gateway.config.schema import Telemetry
from gateway.recorder.drops import Drops
from gateway.recorder.metrics import MetricsProjection
from gateway.recorder.names import METRICS
from gateway.recorder.otlp_metrics import MetricsPush, interval_seconds, metrics_data, points_in
from gateway.testing.telemetry_records import T0, call

RESOURCE = Resource({"service.name": "tollgate"})


def reading() -> MetricsProjection:
    made = MetricsProjection(Telemetry(), dict, lambda: T0 / 1e9)
    made.apply([call(span_id="none")])
    return made


def test_every_family_with_a_value_is_pushed_under_its_name() -> None:
    read = reading().read()
    data = metrics_data(read, RESOURCE, T0 + 5)
    (scope,) = data.resource_metrics[0].scope_metrics
    names = {metric.otel_name: metric for metric in METRICS.values()}
    for metric in scope.metrics:
        assert metric.unit == names[metric.name].unit
        for point in metric.data.data_points:
            assert (point.start_time_unix_nano, point.time_unix_nano) == (T0, T0 + 5)
    assert "tollgate.inflight_requests" not in {metric.name for metric in scope.metrics}
    assert points_in(data) == sum(len(metric.data.data_points) for metric in scope.metrics) > 20


class Exporter:
    def __init__(self, result: Any) -> None:
        self.result = result
        self.seen: list[MetricsData] = []
        self.arrived = threading.Event()
        self.shut = False

    def export(self, data: MetricsData, **_: object) -> MetricExportResult:
        self.seen.append(data)
        self.arrived.set()
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def shutdown(self, **_: object) -> None:
        self.shut = True


def push(exporter: Exporter, drops: Drops, interval: float) -> MetricsPush:
    return MetricsPush(reading().read, exporter, RESOURCE, lambda: T0 / 1e9, drops, interval=interval)  # type: ignore


def test_pushed_at_the_end_and_every_interval() -> None:
    exporter, drops = Exporter(MetricExportResult.SUCCESS), Drops()
    made = push(exporter, drops, 1000)
    made.apply([call()])
    assert exporter.seen == []
    made.close(30)
    assert len(exporter.seen) == 1
    assert exporter.shut
    often = Exporter(MetricExportResult.SUCCESS)
    made = push(often, drops, 0.001)
    assert often.arrived.wait(30)
    made.close(30)
    assert len(often.seen) >= 2
    assert drops.counts() == {}


@pytest.mark.parametrize("result", [MetricExportResult.FAILURE, ValueError("closed channel"), OSError()])
def test_what_cannot_be_pushed_is_counted(result: Any) -> None:
    exporter, drops = Exporter(result), Drops()
    push(exporter, drops, 1000).close(30)
    assert drops.counts() == {("metrics", "export_failed"): points_in(exporter.seen[0])}


def test_the_interval_is_configurable_as_the_specification_says() -> None:
    assert interval_seconds({"OTEL_METRIC_EXPORT_INTERVAL": "5000"}) == 5
    assert interval_seconds({"OTEL_METRIC_EXPORT_INTERVAL": "x"}) == interval_seconds({}) == 60


def test_a_gauge_with_labels_is_pushed_with_a_point_for_each() -> None:
    spent = {("team", "team:a|usd|day"): 1.5, ("global", "global|usd|life"): 0.0}
    metrics = MetricsProjection(Telemetry(), lambda: {"tollgate_budget_spent_usd": spent}, lambda: T0 / 1e9)
    data = metrics_data(metrics.read(), Resource({}), T0)
    (metric,) = [
        one for one in data.resource_metrics[0].scope_metrics[0].metrics if one.name == "tollgate.budget_spent_usd"
    ]
    assert metric.unit == "{USD}"
    assert [(dict(point.attributes or {}), point.value) for point in metric.data.data_points] == [  # type: ignore[union-attr]
        ({"scope": "team", "budget": "team:a|usd|day"}, 1.5),
        ({"scope": "global", "budget": "global|usd|life"}, 0.0),
    ]
