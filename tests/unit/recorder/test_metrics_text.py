"""What is written quickly is what the client library of Prometheus writes."""

from __future__ import annotations

import random

import pytest
from prometheus_client.exposition import choose_encoder

from gateway.recorder.metrics_exposition import Exposition
from gateway.recorder.metrics_store import Exemplar, Point
from gateway.recorder.names import METRICS, Metric

TEXT = "text/plain; version=0.0.4"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
ODD = ('say "hi"', "back\\slash", "two\nlines", "ü", "", "gpt-4o", "{a=}", "__other__")


def point(metric: Metric, n: int, rng: random.Random) -> Point:
    labels = tuple(f"{ODD[(n + at) % len(ODD)]}{n}" for at in range(len(metric.labels)))
    value = rng.choice((0, 1, 7, 10**6, 123_456_789, 10**15 + 1, 3 * 10**21)) + rng.randrange(1000)
    if metric.kind == "counter":
        return Point(labels, value)
    counts = tuple(rng.choice((0, 1, 40, 999_999, 12_345_678)) for _ in range(len(metric.buckets) + 1))
    traces = ("0af7651916cd43dd8448eb211c80319c", 'no "trace"')
    seen: list[Exemplar | None] = [((rng.choice(traces), "b7ad6b7169203331", 17 * 10**17 + n), value), None]
    return Point(labels, value, counts, tuple(rng.choice(seen) for _ in counts) if metric.exemplars else ())


def exposition(series: int) -> Exposition:
    rng = random.Random(series)
    points = {
        name: [point(metric, n, rng) for n in range(series if metric.labels else min(series, 1))]
        for name, metric in METRICS.items()
        if metric.kind in {"counter", "histogram"} and metric.view is None
    }
    return Exposition(points, {"tollgate_inflight_requests": 3.0, "tollgate_breaker_open": {("a",): 1.0}}, "1.2.3")


@pytest.mark.parametrize(
    "accept",
    ["", TEXT, OPENMETRICS, "application/openmetrics-text", "text/plain; version=1.0.0; escaping=underscores", "*/*"],
)
@pytest.mark.parametrize("series", [0, 1, 9])
def test_the_lines_are_those_of_the_library(accept: str, series: int) -> None:
    made = exposition(series)
    encoder, content_type = choose_encoder(accept)
    body, told = made.render(accept)
    assert told == content_type
    assert body.count(b"\n") > 100
    assert body.decode().splitlines() == encoder(made).decode().splitlines()
