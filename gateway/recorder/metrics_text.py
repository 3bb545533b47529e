"""Counters and histograms in the two text formats of Prometheus, 0.0.4 and OpenMetrics 1.0.

The client library writes the same and takes five to seven times as long, during which the recorder does little else;
tests hold both against each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.utils import floatToGoString

from gateway.recorder.metrics_store import Exemplar, Point
from gateway.recorder.names import NS, Metric

EXACT = 1_000_000  # from here on numbers are written with an exponent


def counter(metric: Metric, points: Sequence[Point], *, openmetrics: bool) -> Iterator[str]:
    name = f"{metric.name}_total"
    yield _head(metric, metric.name if openmetrics else name, openmetrics=openmetrics)
    for point in points:
        labels = _joined(_pairs(metric, point))
        yield f"{name}{{{labels}}} " if labels else f"{name} "
        yield f"{_number(point.value / metric.scale)}\n"


def histogram(metric: Metric, points: Sequence[Point], *, openmetrics: bool) -> Iterator[str]:
    yield _head(metric, metric.name, openmetrics=openmetrics)
    edges = [_number(bound) for bound in (*metric.buckets, float("inf"))]
    for point in points:
        pairs = _pairs(metric, point)
        labels = _joined(pairs)
        before = "".join(f"{pair}," for name, pair in pairs if name < "le")
        after = "".join(f",{pair}" for name, pair in pairs if name > "le")
        start, total = f'{metric.name}_bucket{{{before}le="', 0
        for index, edge in enumerate(edges):
            total += point.counts[index]
            seen = point.exemplars[index] if openmetrics and point.exemplars else None
            yield f'{start}{edge}"{after}}} {_whole(total)}{_exemplar(metric, seen)}\n'
        braced = f"{{{labels}}}" if labels else ""
        yield f"{metric.name}_count{braced} {_whole(total)}\n"
        yield f"{metric.name}_sum{braced} {_number(point.value / metric.scale)}\n"


def _head(metric: Metric, name: str, *, openmetrics: bool) -> str:
    text = metric.help.replace("\\", r"\\").replace("\n", r"\n")
    text = text.replace('"', r"\"") if openmetrics else text
    return f"# HELP {name} {text}\n# TYPE {name} {metric.kind}\n"


def _pairs(metric: Metric, point: Point) -> list[tuple[str, str]]:
    """Each label's name, and how it is written with its value."""
    return sorted((name, f'{name}="{_escaped(text)}"') for name, text in zip(metric.labels, point.labels, strict=True))


def _joined(pairs: Sequence[tuple[str, str]]) -> str:
    return ",".join(pair for _, pair in pairs)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _exemplar(metric: Metric, seen: Exemplar | None) -> str:
    if seen is None or not (seen[0][0].isascii() and seen[0][0].isalnum()):
        return ""
    (trace_id, _, at), value = seen
    return f' # {{trace_id="{trace_id}"}} {_number(value / metric.scale)} {at / NS}'


def _whole(value: int) -> str:
    return f"{value}.0" if value < EXACT else _number(value)


def _number(value: float) -> str:
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]
