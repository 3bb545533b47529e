"""Where metrics are counted: plain cells per tuple of label values, with bounds on both.

Rules
1. A cell counts in whole numbers of the family's smallest unit (ns, pico-USD): sums are exact and never drift.
2. A label takes at most `label_limit` values per family, a family at most `SERIES_PER_LABEL_LIMIT` times as many
   series; what comes after is counted under `__other__`, so that totals stay right, and noted as label overflow.
3. A cell, once handed out, stays valid for ever: callers keep it and add to it without another lookup.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, TypeVar

import msgspec

from gateway.recorder.facts import tidy
from gateway.recorder.names import METRICS, OVERFLOW, Metric

SERIES_PER_LABEL_LIMIT = 50
VALUE_LIMIT = 128  # characters
# Their values are ours, not the traffic's.
UNCAPPED = frozenset(
    {
        "metric",
        "label",
        "signal",
        "reason",
        "phase",
        "stream",
        "estimated",
        "version",
        "decision",
        "action",
        "cause",
        "part",
    }
)


Traced = tuple[str, str, int]
"""Trace id, span id (hex), time in ns since the epoch."""
Exemplar = tuple[Traced, int]
"""Where a value was seen, and the value."""


class Counter:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0


class Histogram:
    """`bounds` are inclusive upper bounds; one more count than bounds. The last exemplar of every bucket is kept."""

    __slots__ = ("bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: tuple[int, ...], traced: bool) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0
        self.exemplars: list[Exemplar | None] | None = [None] * len(self.counts) if traced else None

    def observe(self, value: int) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def exemplify(self, value: int, trace: Traced) -> None:
        """Say where a value that was observed can be looked at."""
        if self.exemplars is not None:
            self.exemplars[bisect_left(self.bounds, value)] = (trace, value)


Cell = TypeVar("Cell", Counter, Histogram)
Labels = tuple[str, ...]


class Saved(msgspec.Struct, array_like=True):
    """A cell in a snapshot. Sums are text: they may outgrow 64 bits."""

    labels: Labels
    value: str
    counts: list[int] = []


class Family(Generic[Cell]):
    """All cells of one metric."""

    def __init__(self, metric: Metric, make: Callable[[], Cell], label_limit: int) -> None:
        self.metric = metric
        self.cells: dict[Labels, Cell] = {}
        self._make: Callable[[], Cell] = make
        self._limit = label_limit
        self._values: list[set[str] | None] = [None if label in UNCAPPED else set() for label in metric.labels]

    def cell(self, *labels: str) -> Cell:
        return self.place(labels)[0]

    def place(self, labels: Labels) -> tuple[Cell, tuple[str, ...]]:
        """The cell of these label values, and the names of the labels that had to become `__other__`."""
        found = self.cells.get(labels)
        if found is not None:
            return found, ()
        capped = tuple(map(self._cap, self._values, labels))
        if capped not in self.cells and len(self.cells) >= self._limit * SERIES_PER_LABEL_LIMIT:
            capped = tuple(
                value if values is None else OVERFLOW for values, value in zip(self._values, capped, strict=True)
            )
        over = tuple(name for name, was, now in zip(self.metric.labels, labels, capped, strict=True) if was != now)
        return self._take(capped), over

    def _cap(self, values: set[str] | None, value: str) -> str:
        value = tidy(value, VALUE_LIMIT)
        if values is None or value in values or value == OVERFLOW:
            return value
        if len(values) >= self._limit:
            return OVERFLOW
        values.add(value)
        return value

    def _take(self, labels: Labels) -> Cell:
        cell = self.cells.get(labels)
        if cell is None:
            cell = self.cells[labels] = self._make()
        return cell

    def save(self) -> list[Saved]:
        return [
            Saved(labels, str(cell.sum), list(cell.counts))
            if isinstance(cell, Histogram)
            else Saved(labels, str(cell.value))
            for labels, cell in self.cells.items()
        ]

    def load(self, saved: list[Saved]) -> None:
        """Add what was saved; series of another shape (labels or buckets have changed since) are left out."""
        for entry in saved:
            if len(entry.labels) != len(self.metric.labels):
                continue
            cell = self.place(entry.labels)[0]
            if not isinstance(cell, Histogram):
                cell.value += int(entry.value)
            elif len(entry.counts) == len(cell.counts):
                cell.counts[:] = map(int.__add__, cell.counts, entry.counts)
                cell.sum += int(entry.value)


class Point(msgspec.Struct, frozen=True, gc=False):
    """A copy of one cell, consistent in itself. `counts` and `exemplars` are empty for counters."""

    labels: Labels
    value: int
    counts: tuple[int, ...] = ()
    exemplars: tuple[Exemplar | None, ...] = ()


def _histogram(metric: Metric) -> Callable[[], Histogram]:
    bounds = tuple(round(bound * metric.scale) for bound in metric.buckets)
    return lambda: Histogram(bounds, metric.exemplars)


def _point(labels: Labels, cell: Counter | Histogram) -> Point:
    if isinstance(cell, Histogram):
        return Point(labels, cell.sum, tuple(cell.counts), tuple(cell.exemplars or ()))
    return Point(labels, cell.value)


Gauge = float | Mapping[Labels, float]
"""The value of a gauge; by the values of its labels where it has some."""


def readings(gauge: Gauge) -> Iterable[tuple[Labels, float]]:
    """Its values, each with those of its labels."""
    return gauge.items() if isinstance(gauge, Mapping) else [((), gauge)]


class Store:
    """Every counter and histogram family. Not locked: the projection that owns it is."""

    def __init__(self, label_limit: int) -> None:
        stored = [metric for metric in METRICS.values() if metric.view is None]
        self.counters: dict[str, Family[Counter]] = {
            m.name: Family(m, Counter, label_limit) for m in stored if m.kind == "counter"
        }
        self.histograms: dict[str, Family[Histogram]] = {
            m.name: Family(m, _histogram(m), label_limit) for m in stored if m.kind == "histogram"
        }

    def overflow(self, metric: str, label: str) -> Counter:
        return self.counters["tollgate_label_overflow"].cell(metric, label)

    def add(self, name: str, labels: Labels, amount: int = 1) -> None:
        """Count where the cell is not worth keeping."""
        family = self.counters[name]
        cell, over = family.place(labels)
        cell.value += amount
        for label in over:
            self.overflow(name, label).value += 1

    def observe(self, name: str, labels: Labels, value: int) -> None:
        """As `add`, for a histogram."""
        cell, over = self.histograms[name].place(labels)
        cell.observe(value)
        for label in over:
            self.overflow(name, label).value += 1

    def families(self) -> Iterator[Family[Counter] | Family[Histogram]]:
        yield from self.counters.values()
        yield from self.histograms.values()

    def copy(self) -> dict[str, list[Point]]:
        """Points by family name."""
        return {
            family.metric.name: [_point(labels, cell) for labels, cell in family.cells.items()]
            for family in self.families()
        }

    def save(self) -> dict[str, list[Saved]]:
        return {family.metric.name: family.save() for family in self.families() if family.cells}

    def load(self, saved: Mapping[str, list[Saved]]) -> None:
        for family in self.families():
            family.load(saved.get(family.metric.name, []))


def view_of(metric: Metric, points: Mapping[str, list[Point]]) -> list[Point]:
    """The points of a family, also of one that is a view of another."""
    view = metric.view
    if view is None:
        return points.get(metric.name, [])
    source = METRICS[view.of]
    where = source.labels.index(view.label)
    kept = [index for index, label in enumerate(source.labels) if label not in view.drop]
    return [
        Point(tuple(point.labels[index] for index in kept), point.value, point.counts, point.exemplars)
        for point in points.get(view.of, [])
        if point.labels[where] in view.values
    ]
