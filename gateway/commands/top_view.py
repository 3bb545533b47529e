"""What `tollgate top` draws. Names come from clients: whatever is no printable character of theirs is not sent to the
terminal, and nothing of them is markup.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from rich import box
from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from gateway.commands.top_keys import HELP, Screen, chosen

BLOCKS = " ▁▂▃▄▅▆▇█"
GRADES = {"critical": "bold red", "warning": "yellow", "info": "cyan"}
STATES = {"open": "bold red", "half_open": "yellow", "closed": "green"}
CONDITIONS, BUDGETS, BREAKERS = 5, 6, 6
WIDE = 110  # columns, from which on budgets and breakers stand beside each other
NARROW = 100  # columns, below which runs go without tenant and tools, for their names to be read
SMALL = 60  # columns, below which they also go without what they used and how they stand
TINY = 48  # and without agents
BAR = 14
FIGURES, TABLE, LEAST = 4, 3, 3  # lines of figures, of a table beside its rows, and of runs before anything else


class Snapshot(Struct, frozen=True):
    """Answers of the admin API at one moment. `fault`: why they are old."""

    summary: Mapping[str, Any]
    runs: Sequence[Mapping[str, Any]] = ()
    budgets: Sequence[Mapping[str, Any]] = ()
    breakers: Sequence[Mapping[str, Any]] = ()
    stopped: frozenset[str] = frozenset()
    by_cost: bool = True  # the order of the runs
    fault: str = ""


def plain(text: object, longest: int = 60) -> str:
    """Of a client: printable, and not longer."""
    shown = "".join(c if c.isprintable() else "�" for c in str(text))
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def usd(value: float | None) -> str:
    if value is None:
        return "unknown"
    if 0 < value < 5e-6:
        return "<$0.00001"
    return f"${value:,.{2 if value >= 100 or value == 0 else 4 if value >= 0.01 else 5}f}"


def short(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if unit == 'k' else size):.1f}{unit}"
    return f"{value:,.0f}"


def spark(values: Sequence[float]) -> str:
    """A line of blocks, the largest as high as it gets; what is not zero is seen."""
    most = max(values, default=0)
    if most <= 0:
        return BLOCKS[1] * len(values)
    last = len(BLOCKS) - 1
    return "".join(BLOCKS[max(1, min(last, round(value / most * last)))] if value > 0 else " " for value in values)


def draw(found: Snapshot, screen: Screen, where: str, width: int, height: int) -> RenderableType:
    """The whole screen, never more: the first and the last line are there at any height, then figures, then a few runs;
    of what is left conditions, budgets and breakers take what they need, in this order, and runs the rest."""
    head, foot = _head(found, where), _foot(screen, width)
    if height < FIGURES + 2:
        return Group(head, foot)
    left = height - FIGURES - 2
    if left < TABLE + 1:
        return Group(head, _figures(found.summary, width), foot)
    free = left - TABLE - LEAST
    conditions, used = _conditions(found.summary["conditions"], free)
    below, lines = _below(found, width, free - used)
    runs = _runs(found, screen, width, left - used - lines - TABLE)
    return Group(head, _figures(found.summary, width), *conditions, runs, *below, foot)


def _head(found: Snapshot, where: str) -> Text:
    name = f"{found.summary['version']} at {where}  "
    head = Text.assemble(("Tollgate ", "bold"), name, no_wrap=True, overflow="ellipsis")
    workers = f"{found.summary['workers_ready']} of {found.summary['workers']} workers"
    head.append(found.fault or f"{found.summary['at'][11:19]}Z, {workers}", style="bold red" if found.fault else "dim")
    return head


def _figures(summary: Mapping[str, Any], width: int) -> RenderableType:
    grid = Table.grid(padding=(0, 2), expand=False)
    spent = [(name, summary[key]) for name, key in (("this hour", "hour"), ("today", "day"), ("this month", "month"))]
    spent = spent if width >= SMALL + 6 else spent[:2]
    for _ in spent:
        grid.add_column(no_wrap=True)
    grid.add_row(*(Text.assemble((f"{name} ", "dim"), (usd(one["cost_usd"]), "bold")) for name, one in spent))
    grid.add_row(*(Text.assemble(("projected ", "dim"), usd(one["projected_usd"])) for _, one in spent))
    hour, slo = summary["last_hour"], summary["slo"]
    firing = any(burn["firing"] for burn in slo["burns"])
    answered = "too few calls" if slo["availability"] is None else f"{slo['availability']:.2%}"
    line = Text.assemble(
        ("calls/s ", "dim"), (f"{summary['calls_per_second']:.2f}", "bold"),
        ("  under way ", "dim"), str(summary["inflight"]),
        ("  answered 24 h ", "dim"), (answered, "bold red" if firing else ""),
        ("  last 1 h: failed ", "dim"), (str(hour["faults"]), "red" if hour["faults"] else ""),
        ("  refused ", "dim"), str(hour["refused"]), no_wrap=True, overflow="ellipsis",
    )  # fmt: skip
    bars = spark(summary["minutes"]["cost_usd"])
    return Group(grid, line, Text.assemble(("60 min ", "dim"), (bars[-max(10, width - 8) :], "green")))


def _conditions(found: Sequence[Mapping[str, Any]], free: int) -> tuple[list[RenderableType], int]:
    """In at most half of the lines that are free; and how many those are."""
    shown = min(len(found), CONDITIONS, free // 2 - 2)  # a line stands before them, and one may behind
    if shown < 1:
        return [], 0
    lines = [Text(""), *map(_condition, found[:shown])]
    if len(found) > shown:
        lines.append(Text(f"and {len(found) - shown} more", style="dim"))
    return [*lines], len(lines)


def _condition(one: Mapping[str, Any]) -> Text:
    return Text.assemble(
        (f"{one['severity']:<9}", GRADES[one["severity"]]),
        (plain(one["subject"] or "", 40) + " " if one["subject"] else "", "bold"),
        plain(one["text"], 200),
        no_wrap=True,
        overflow="ellipsis",
    )


def _new(title: str, *columns: tuple[str, int]) -> Table:
    """`columns`: name, and the part of the width that is left; 0: a number, on the right."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        show_edge=False,
        expand=True,
    )
    for name, ratio in columns:
        justify: JustifyMethod = "left" if ratio else "right"
        table.add_column(name, justify=justify, ratio=ratio or None, no_wrap=True)
    return table


def _runs(found: Snapshot, screen: Screen, width: int, lines: int) -> RenderableType:
    order = "dearest today" if found.by_cost else "latest"
    columns = [one for one in COLUMNS if width >= one.least]
    table = _new(f"Runs, {order}", *((one.name, one.ratio) for one in columns))
    if width >= SMALL:
        table.add_column("", width=8, no_wrap=True)
    ids = [run["id"] for run in found.runs]
    mark = chosen(screen, ids)
    first = max(0, ids.index(mark) - lines + 1) if mark else 0
    for run in found.runs[first : first + lines]:
        cells = [*(one.cell(run) for one in columns), *([_state(run, found.stopped)] if width >= SMALL else [])]
        table.add_row(*cells, style="reverse" if run["id"] == mark else None)
    if not found.runs:
        table.add_row(Text("no runs yet", "dim"))
    return table


class Column(Struct, frozen=True):
    """Of runs, from so many columns of the terminal on."""

    name: str
    ratio: int
    least: int
    cell: Callable[[Mapping[str, Any]], Text | str]


COLUMNS = (
    Column("run", 6, 0, lambda run: Text(plain(run["id"], 44))),
    Column("agent", 3, TINY, lambda run: Text(plain(run["agent"] or "-", 28))),
    Column("tenant", 2, NARROW, lambda run: Text(plain(run["tenant"], 20))),
    Column("calls", 0, 0, lambda run: str(run["calls"])),
    Column("not ok", 0, SMALL, lambda run: Text(str(run["errors"]), "red" if run["errors"] else "")),
    Column("tools", 0, NARROW, lambda run: str(run["tool_calls"])),
    Column("tokens", 0, SMALL, lambda run: short(run["usage"]["input_tokens"] + run["usage"]["output_tokens"])),
    Column("cost", 0, 0, lambda run: Text(usd(run["cost_usd"]), "bold")),
)


def _state(run: Mapping[str, Any], stopped: frozenset[str]) -> Text:
    if run["id"] in stopped:
        return Text("stopped", "red")
    return Text(plain((run["outcome"] or {}).get("outcome", ""), 10))


def _below(found: Snapshot, width: int, free: int) -> tuple[list[RenderableType], int]:
    """Budgets and breakers, and how many lines they take; nothing where there are none, or no room."""
    breakers = sorted(found.breakers, key=lambda one: (one["forced"] or one["state"]) == "closed")
    beside = width >= WIDE and bool(found.budgets and breakers)
    shown: list[tuple[Table, int]] = []
    for table, rows, most in ((_budgets, found.budgets, BUDGETS), (_breakers, breakers, BREAKERS)):
        room = free if beside else free - sum(lines for _, lines in shown)
        fits = min(len(rows), most, room - TABLE)
        if fits > 0:
            shown.append((table(rows[:fits]), fits + TABLE))
    if beside and len(shown) == 2:
        grid = Table.grid(expand=True, padding=(0, 2))
        grid.add_column(ratio=1)
        grid.add_column(ratio=1)
        grid.add_row(*(table for table, _ in shown))
        return [grid], max(lines for _, lines in shown)
    return [table for table, _ in shown], sum(lines for _, lines in shown)


def share(one: Mapping[str, Any]) -> float:
    """Of a budget that is used, with what is held."""
    return (one["spent"] + one["reserved"]) / one["limit"] if one["limit"] else 0.0


def _budgets(found: Sequence[Mapping[str, Any]]) -> Table:
    table = _new("Budgets", ("of", 3), ("per", 1), ("", 2), ("used", 0), ("limit", 0))
    for one in found:
        part = share(one)
        style = "red" if part >= 1 else "yellow" if part >= 0.8 else "green"
        filled = round(min(1, part) * BAR)
        limit = usd(one["limit"]) if one["unit"] == "usd" else f"{short(one['limit'])} {one['unit']}"
        who = one["scope"] if one["value"] is None else f"{one['scope']} {one['value']}"
        bar = Text.assemble(("█" * filled, style), ("░" * (BAR - filled), "dim"))
        table.add_row(Text(plain(who, 30)), one["per"] or "", bar, Text(f"{part:.0%}", style), limit)
    return table


def _breakers(found: Sequence[Mapping[str, Any]]) -> Table:
    table = _new("Breakers", ("of", 2))
    table.add_column("state", width=22, no_wrap=True)
    table.add_column("why", ratio=3, no_wrap=True)
    for one in found:
        held = f", held {one['forced']}" if one["forced"] else ""
        state = Text(one["state"].replace("_", " ") + held, STATES[one["forced"] or one["state"]])
        table.add_row(Text(plain(one["name"], 34)), state, Text(plain(one["why"] or "", 60)))
    return table


def _foot(screen: Screen, width: int) -> Text:
    if screen.asking:
        question = f"{' and its calls under way' if width >= SMALL else ''}?  y / n"
        return Text.assemble(
            ("stop run ", "bold red"),
            (plain(screen.asking, max(4, min(60, width - len(question) - 9))), "bold"),
            (question, "bold red"),
            no_wrap=True,
            overflow="ellipsis",
        )
    told = f"{plain(screen.note, 90)}   " if screen.note else ""
    return Text.assemble(
        (told, "bold"),
        ("paused   " if screen.paused else "", "yellow"),
        (HELP, "dim"),
        no_wrap=True,
        overflow="ellipsis",
    )
