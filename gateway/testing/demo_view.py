"""What the demo shows: live counters while it plays, and tables at the end."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from gateway.testing.agent_wire import Seen


@dataclass(slots=True)
class Totals:
    calls: int = 0
    runs: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    tools: int = 0
    errors: int = 0
    cost: float = 0
    unpriced: int = 0  # calls with tokens whose cost is unknown
    stopped: str = ""  # what ended a run of it: its budget, or the breaker for runaways


STOPS = {"budget_exceeded": "budget", "run_stopped": "breaker"}


def money(usd: float) -> str:
    return f"${usd:,.4f}"


class Progress:
    """What the agents saw, and the dollars the gateway counted; plain lines where there is no terminal."""

    def __init__(self, console: Console, log: Sequence[Seen], *, every: float = 2) -> None:
        self._console, self._log, self._every = console, log, every
        self._dollars: dict[str, float] = {}
        self._live = (
            Live(console=console, refresh_per_second=4, get_renderable=self._table) if console.is_terminal else None
        )
        self._next_line = 0.0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        else:
            self._console.print(self._line())

    def update(self, answer: dict[str, Any]) -> None:
        """Take a page of `/api/runs`."""
        for row in answer["runs"]:
            self._dollars[row["id"]] = row["cost_usd"] or 0
        if self._live is None and time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + self._every
            self._console.print(self._line())

    def totals(self) -> dict[str, Totals]:
        found: dict[str, Totals] = defaultdict(Totals)
        runs: dict[str, set[str]] = defaultdict(set)
        for seen in self._log:
            row = found[seen.agent]
            row.calls += 1
            row.input_tokens += seen.input_tokens or 0
            row.output_tokens += seen.output_tokens or 0
            row.tools += seen.tools
            row.errors += seen.ended == "error"
            row.stopped = STOPS.get(seen.code, row.stopped)
            runs[seen.agent].add(seen.run)
        for name, row in found.items():
            row.runs = len(runs[name])
        return found

    def _line(self) -> str:
        rows = self.totals().values()
        return (
            f"runs {len({seen.run for seen in self._log})}  calls {sum(r.calls for r in rows)}  "
            f"tokens {sum(r.input_tokens + r.output_tokens for r in rows):,}  "
            f"tool calls {sum(r.tools for r in rows)}  errors {sum(r.errors for r in rows)}  "
            f"{money(sum(self._dollars.values()))}"
        )

    def _table(self) -> Table:
        table = _new("agent", "runs", "calls", "tokens in", "tokens out", "tool calls", "errors", "")
        for name, row in sorted(self.totals().items()):
            counts = (row.runs, row.calls, row.input_tokens, row.output_tokens, row.tools, row.errors)
            style = "red" if row.stopped else None
            stopped = f"stopped by {row.stopped}" if row.stopped else ""
            table.add_row(name, *(f"{count:,}" for count in counts), stopped, style=style)
        table.caption = self._line()
        return table


def _new(first: str, *columns: str, title: str | None = None) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column(first, overflow="fold")  # names and ids can be copied
    for column in columns:
        table.add_column(column, justify="right")
    return table


def gather(calls: Iterable[dict[str, Any]], label: Callable[[dict[str, Any]], str]) -> dict[str, Totals]:
    """Calls of the admin API summed by what `label` makes of them."""
    found: dict[str, Totals] = defaultdict(Totals)
    for call in calls:
        row, usage = found[label(call)], call["usage"]
        row.calls += 1
        row.input_tokens += usage["input_tokens"]
        row.output_tokens += usage["output_tokens"]
        row.tools += len(call["tools"])
        row.errors += call["outcome"] != "ok"
        row.cost += call["cost_usd"] or 0
        row.unpriced += call["cost_status"] == "no_price"
        row.stopped = STOPS.get(_code(call), row.stopped)
    return found


def _code(call: dict[str, Any]) -> str:
    """Of its error, if any."""
    return str((call["error"] or {}).get("code"))


def by_agent(call: dict[str, Any]) -> str:
    return call["agent"] or "-"


def by_model(call: dict[str, Any]) -> str:
    return call["model_used"] or call["model_requested"] or call["upstream"] or "-"


def by_run(call: dict[str, Any]) -> str:
    return call["run_id"] or "-"


def summary(console: Console, calls: Sequence[dict[str, Any]], budget: float, *, rows: int = 12) -> None:
    """Cost by agent, by model and of the dearest runs, from the calls the gateway recorded. `budget`: USD of a run."""
    for label, what in ((by_agent, "agent"), (by_model, "model"), (by_run, "run")):
        found = sorted(gather(calls, label).items(), key=lambda item: (-item[1].cost, -item[1].calls))
        left = f", the {rows} costliest of {len(found)}" if len(found) > rows else ""
        tokens = ("tokens",) if what == "run" else ("tokens in", "tokens out")
        last = (f"of ${budget:.2f}", "stopped by") if what == "run" else ("cost",)
        table = _new(what, "calls", *tokens, "tools", "not ok", *last, title=f"by {what}{left}")
        for name, row in found[:rows]:
            used = (row.input_tokens, row.output_tokens)
            counts = (row.calls, *(used if len(tokens) == 2 else (sum(used),)), row.tools, row.errors)
            cost = money(row.cost) + (f" + {row.unpriced} unknown" if row.unpriced else "")
            cells = (cost, row.stopped)[: len(last)]
            table.add_row(name, *(f"{count:,}" for count in counts), *cells, style="red" if row.stopped else None)
        console.print(table)
    for call in {_code(call): call for call in calls if _code(call) in STOPS}.values():
        console.print(f"{by_agent(call)} was told: {call['error']['message']}", style="red", markup=False)
    console.print(f"{len(calls)} calls, {money(sum(call['cost_usd'] or 0 for call in calls))} in all")
