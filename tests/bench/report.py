"""Figures against targets and against the baseline, as Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.endurance import Bursts, Memory, Recording, Scrapes, growth
from tests.bench.load import EVENTS
from tests.bench.slices import PHASES, Figure, Row, over

BASELINE = Path(__file__).parent / "baseline.json"
REGRESSION = 0.20
Rows = list[dict[str, Row]]


@dataclass(frozen=True)
class Line:
    """One row of the table. `bound` is what the median must reach: at most, or at least where `rising`."""

    key: str
    what: str
    unit: str
    value: Figure
    bound: float | None = None
    aim: float | None = None
    rising: bool = False
    digits: int = 2
    compared: bool = False  # with the baseline: CPU per call as a ratio

    def reaches(self, bound: float) -> bool:
        return self.value.median >= bound if self.rising else self.value.median <= bound

    @property
    def verdict(self) -> str:
        if self.bound is None:
            return ""
        if not self.reaches(self.bound):
            return "**misses**"
        return "aim" if self.aim is not None and self.reaches(self.aim) else "ok"

    def cells(self) -> list[str]:
        sign = "≥" if self.rising else "≤"
        bounds = [f"{sign} {bound:g}" if bound is not None else "" for bound in (self.bound, self.aim)]
        return [self.what, f"{self.value.text(self.digits)} {self.unit}".strip(), *bounds, self.verdict]


def ratio(rows: Rows, field: str, other: str = "nginx", one: str = "tollgate") -> Figure:
    return over(rows, lambda row: row[one][field] / row[other][field])


def json_lines(rows: Rows) -> Iterable[Line]:
    if "nginx" in rows[0]:
        yield Line(
            "json_cpu",
            "CPU of the worker per JSON call",
            "× nginx",
            ratio(rows, "cpu_us"),
            3.5,
            2.5,
            compared=True,
        )
        yield Line("json_tree", "the same with recorder and supervisor", "× nginx", ratio(rows, "tree_us"))
    beside = over(rows, lambda row: row["aiohttp_server"]["cpu_us"] / row["tollgate"]["cpu_us"])
    yield Line("json_rate", "calls/s of a whole core, beside aiohttp", "× aiohttp", beside, 3, rising=True)
    counted = ratio(rows, "rps", "aiohttp_server")
    yield Line("json_counted", "the same as the load generator counted them", "× aiohttp", counted)
    raw = ratio(rows, "cpu_us", "raw_httptools")
    yield Line("json_raw", "CPU of the worker, beside a bare httptools proxy", "× httptools", raw)


def json_new_lines(rows: Rows) -> Iterable[Line]:
    if "nginx" in rows[0]:
        yield Line(
            "json_new_cpu", "CPU of the worker, every call a new run", "× nginx", ratio(rows, "cpu_us"), compared=True
        )


def limited_lines(rows: Rows) -> Iterable[Line]:
    extra = over(
        rows, lambda row: (row["tollgate_limited"]["cpu_us"] - row["tollgate"]["cpu_us"]) / row["nginx"]["cpu_us"]
    )
    yield Line("limited", "admission and settling, every scope limited", "× nginx", extra, 2, compared=True)
    kept = ratio(rows, "rps", "tollgate", "tollgate_limited")
    yield Line("limited_rate", "calls/s with every scope limited, beside without", "×", kept, 0.75, rising=True)


def resilient_lines(rows: Rows) -> Iterable[Line]:
    def extra(name: str) -> Figure:
        return over(rows, lambda row: (row[name]["cpu_us"] - row["tollgate"]["cpu_us"]) / row["nginx"]["cpu_us"])

    yield Line("resilient", "routing, breaker and bulkhead", "× nginx", extra("tollgate_resilient"), 0.5)
    yield Line("guarded", "breaker and bulkhead alone", "× nginx", extra("tollgate_guarded"))


def cached_lines(rows: Rows) -> Iterable[Line]:
    hits = ratio(rows, "rps", "tollgate_refreshed", "tollgate_cached")
    yield Line("cached", "calls/s from the exact cache, beside misses", "×", hits, 1.5, rising=True)
    cost = ratio(rows, "cpu_us", "tollgate", "tollgate_refreshed")
    yield Line("cache_miss", "CPU of a call that is looked up and stored, beside one without a cache", "×", cost)


def latency_lines(rows: Rows) -> Iterable[Line]:
    def added(name: str, quantile: str, other: str) -> Figure:
        return over(rows, lambda row: (row[name]["lat"][quantile] - row[other]["lat"][quantile]) / 1e3)

    yield Line("p50", "added latency at 200/s, p50", "ms", added("tollgate", "p50", "direct"), 0.35, 0.2)
    yield Line("p99", "added latency at 200/s, p99", "ms", added("tollgate", "p99", "direct"))
    if "nginx" in rows[0]:
        yield Line("p99_nginx", "p99 at 200/s, beside nginx", "ms more", added("tollgate", "p99", "nginx"), 1)
        yield Line("nginx_p50", "added by nginx at 200/s, p50", "ms", added("nginx", "p50", "direct"))
        yield Line("nginx_p99", "added by nginx at 200/s, p99", "ms", added("nginx", "p99", "direct"))


def stream_lines(key: str, what: str, bound: float | None) -> Callable[[Rows], Iterable[Line]]:
    def lines(rows: Rows) -> Iterable[Line]:
        if "nginx" in rows[0]:
            aim = 1.2 if bound is not None else None
            yield Line(key, what, "× nginx", ratio(rows, "cpu_us"), bound, aim, compared=True)

    return lines


def agent_lines(rows: Rows) -> Iterable[Line]:
    loads = over(rows, lambda row: row["orjson"]["cpu_us"])
    yield Line("loads", "one orjson.loads of the 300 KB body", "µs", loads, digits=0)
    if "nginx" in rows[0]:
        above = over(rows, lambda row: (row["tollgate"]["cpu_us"] - row["nginx"]["cpu_us"]) / row["orjson"]["cpu_us"])
        yield Line("agent", "300 KB body, cost above nginx's", "× orjson.loads", above, 3, 2, compared=True)


def peers_lines(rows: Rows) -> Iterable[Line]:
    for name, bound in (("portkey", 12), ("litellm", 120), ("litellm granian", 120)):
        if name in rows[0]:
            rate = ratio(rows, "cpu_us", other="tollgate", one=name)
            what = f"calls/s of a whole core, beside {name}"
            yield Line(f"rate_{name}", what, f"× {name}", rate, bound, rising=True, digits=0)
            counted = ratio(rows, "rps", name)
            yield Line(f"counted_{name}", "the same as the load generator counted them", f"× {name}", counted, digits=0)


LINES: dict[str, Callable[[Rows], Iterable[Line]]] = {
    "json": json_lines,
    "json_new": json_new_lines,
    "limited": limited_lines,
    "resilient": resilient_lines,
    "cached": cached_lines,
    "latency": latency_lines,
    "burst": stream_lines("burst", "CPU of the worker per stream in bursts", 2),
    "burst_spliced": stream_lines("burst_spliced", "the same with usage spliced in and out", None),
    "paced": stream_lines("paced", "CPU of the worker per paced event", 1.8),
    "agent": agent_lines,
    "peers": peers_lines,
}


def memory_lines(found: Memory) -> Iterable[Line]:
    what = f"memory of the worker after {found.calls:,} calls"
    yield Line("rss", what, "MB", one(found.end_mb), 80, 50, digits=1)
    yield Line("rss_growth", "its growth in the second half", "%", one(100 * found.growth), 2, digits=1)
    yield Line("rss_own", "of which its own: no file, nothing shared", "MB", one(found.own[-1]), digits=1)
    yield Line("rss_own_growth", "growth of that in the second half", "%", one(100 * growth(found.own)), digits=1)
    yield Line("rss_start", "its memory at the start", "MB", one(found.start_mb), digits=1)


def ready_lines(found: Figure) -> Iterable[Line]:
    yield Line("ready", "ready after start", "s", found, 1.5, 0.8)


def recorder_lines(found: Recording) -> Iterable[Line]:
    lost = found.dropped + found.calls - found.recorded
    what = f"recorder in {found.seconds:.0f} s of {found.calls_per_second:,.0f} calls/s"
    yield Line("drops", f"{what}: dropped or missing", "", one(lost), 0, digits=0)
    yield Line("lag", f"{what}: largest lag", "s", one(max(found.lag.high, found.behind)), 5, 2, digits=1)
    yield Line("recorder_us", "CPU of recorder and supervisor per call", "µs", one(found.recorder_us), digits=0)


def burst_lines(found: Bursts) -> Iterable[Line]:
    what = f"recorder on one core, {found.rate:,} calls/s in bursts for {found.seconds:.0f} s"
    yield Line("bursts_drops", f"{what}: dropped or missing", "", one(found.dropped), 0, digits=0)
    yield Line("bursts_lag", f"{what}: behind at most", "s", one(found.behind), 5, 2, digits=1)
    yield Line("bursts_us", "CPU of the recorder per call", "µs", one(found.cpu_us), digits=0)
    memory = found.memory_mb
    yield Line("bursts_rss", "its memory at the end", "MB", one(memory[-1]), digits=0)
    yield Line("bursts_growth", "growth in the last third", "%", one(100 * (memory[-1] / memory[-2] - 1)), digits=1)


def scrape_lines(found: Scrapes) -> Iterable[Line]:
    yield Line("scrapes", f"p99 of calls beside scrapes of {found.lines:,} lines, over alone", "×", found.ratio)


def one(value: float) -> Figure:
    return Figure(value, value, value, 1)


# -- text


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def targets_table(lines: Iterable[Line]) -> str:
    return table(["what", "measured", "must reach", "aim", ""], (line.cells() for line in lines))


def absolute_table(phase: str, rows: Rows) -> str:
    """What stands behind the ratios: this machine, this hour."""
    names = [name for name in rows[0] if name != "orjson"]
    head = [
        "",
        "calls/s",
        "CPU µs per call",
        "with its other processes",
        "p50 ms",
        "p99 ms",
        "core used",
        "lost to others",
    ]
    stream = any(row[names[0]]["gap"]["n"] for row in rows)
    if stream:
        head.insert(3, "CPU µs per event")

    def cells(name: str) -> list[str]:
        def text(value: Callable[[Row], float], digits: int = 0) -> str:
            return over(rows, lambda row: value(row[name])).text(digits)

        found = [name, text(lambda row: row["rps"]), text(lambda row: row["cpu_us"], 1)]
        if stream:
            found.append(text(lambda row: row["cpu_us_per_event"], 2))
        found += [text(lambda row: row["tree_us"], 1)]
        found += [text(lambda row: row["lat"]["p50"] / 1e3, 2), text(lambda row: row["lat"]["p99"] / 1e3, 2)]
        found += [text(lambda row: 100 * row["used"]) + " %", text(lambda row: 100 * row["noise"]) + " %"]
        return found

    title = next(each.title for each in PHASES if each.name == phase)
    return f"### {title[0].upper()}{title[1:]}\n\n" + table(
        head, (cells(name) for name in names if name != "direct" or phase == "latency")
    )


def document(lines: list[Line], rows: dict[str, Rows], facts: dict[str, str], command: str) -> str:
    """The whole of results.md."""
    machine = "\n".join(f"* {name}: {value}" for name, value in facts.items())
    parts = [
        "# Results\n",
        f"Written by `{command}`; how to read it stands in [README.md](README.md). Median [smallest .. largest] of "
        f"slices taken in turns. An SSE answer has {EVENTS} events.\n",
        targets_table(lines),
        "## Behind the ratios\n",
        "Absolute figures hold for this machine at this hour only.\n",
        *(absolute_table(name, found) for name, found in rows.items()),
        f"## Machine\n\n{machine}\n",
    ]
    return "\n".join(parts)


# -- baseline


def read_baseline() -> dict[str, Any]:
    return json.loads(BASELINE.read_text()) if BASELINE.exists() else {}


def write_baseline(lines: Iterable[Line]) -> None:
    """Keep what was not measured this time."""
    ratios = read_baseline() | {line.key: round(line.value.median, 3) for line in lines if line.compared}
    BASELINE.write_text(json.dumps(ratios, indent=2, sort_keys=True) + "\n")


def regressions(lines: Iterable[Line]) -> list[str]:
    """What costs more CPU per call than the baseline allows."""
    baseline = read_baseline()
    found = []
    for line in lines:
        before = baseline.get(line.key) if line.compared else None
        if before and line.value.median > before * (1 + REGRESSION):
            more = 100 * (line.value.median / before - 1)
            found.append(
                f"{line.what}: {line.value.median:.2f} {line.unit}, {more:.0f} % above the baseline of {before:.2f}"
            )
    return found
