"""What an outage did to calls, as Markdown."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tests.bench import machine
from tests.bench.outage_subjects import LEFT_ALONE, PATIENCE, version
from tests.bench.outage_world import Verdict
from tests.bench.report import table

if TYPE_CHECKING:
    from tests.bench.outage import Row

TITLES = {
    "tollgate": "Tollgate",
    "litellm": "LiteLLM",
    "litellm-fallbacks": "LiteLLM, fallbacks alone",
}
HEAD = [
    "the first upstream",
    "",
    "gateway",
    "calls",
    "whole",
    "failed, and said so",
    "taken for whole",
    "slowest, s",
    "added p50, ms",
    "added p99, ms",
    "used again after, s",
    "requests it saw",
]


def share(part: int, total: int) -> str:
    """A percentage that says 100 % of nothing but all."""
    if part == total:
        return "100 %"
    return f"{min(99.99, 100 * part / total):.2f} %"


def number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def cells(row: Row) -> list[str]:
    total = len(row.calls)
    return [
        row.scenario.title,
        "streams" if row.stream else "JSON",
        TITLES[row.subject],
        str(total),
        share(row.count(Verdict.WHOLE), total),
        str(row.count(Verdict.TOLD)),
        str(row.count(Verdict.FALSE)),
        number(row.slowest),
        number(row.added(0.5)),
        number(row.added(0.99)),
        number(row.recovered) if row.recovered is not None else "not in time",
        str(row.met) if row.scenario.faults else "–",
    ]


def in_order(rows: Sequence[Row]) -> list[Row]:
    """Gateways under one another for each scenario."""
    names = list(dict.fromkeys(row.scenario.name for row in rows))
    return sorted(rows, key=lambda row: (names.index(row.scenario.name), row.stream))


def command(options: argparse.Namespace) -> str:
    words = ["python", "-m", "tests.bench.outage", "--calls", str(options.calls), "--rate", f"{options.rate:g}"]
    for name in options.peer:
        words += ["--peer", name]
    if options.only:
        words += ["--only", *options.only]
    return shlex.join(words)


def document(rows: Sequence[Row], options: argparse.Namespace, load: tuple[float, float]) -> str:
    """The whole of outage.md."""
    facts = machine.facts()
    known = ", ".join(f"{TITLES[name]} {version(name, options.peers)}" for name in ("tollgate", *options.peer))
    here = f"{facts['CPU']}, Python {facts['Python']}, load average {load[0]:.1f} before and {load[1]:.1f} after"
    return "\n".join(
        [
            "# Calls through an outage\n",
            f"    {command(options)}\n",
            f"{options.calls} calls while the first upstream fails, {options.rate:g} a second, then more until it is "
            "used again; a healthy upstream stands behind it. What the columns say, and how the gateways are set up, "
            "is in [README.md](README.md#through-an-outage).\n",
            table(HEAD, map(cells, in_order(rows))),
            f"Both give up an upstream that is silent after {PATIENCE:g} s, and leave alone for {LEFT_ALONE:g} s what "
            f"fails. {known}. {here}.",
            "",
        ]
    )
