"""What `tollgate top` draws. Names come from clients: whatever is no printable character of theirs is not sent to the
terminal, and nothing of them is markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
BAR = 14


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
    """The whole screen; runs take the lines that are left."""
    parts: list[RenderableType] = [_head(found, where), _figures(found.summary, width)]
    used = 2 + 4
    matter = found.summary["conditions"][:CONDITIONS]
    if matter:
        parts.append(_conditions(found.summary["conditions"]))
        used += len(matter) + 2
    below, lines = _below(found, width)
    used += lines + 2
    parts += [_runs(found, screen, width, max(3, height - used - 3)), *below, _foot(screen)]
    return Group(*parts)


def _head(found: Snapshot, where: str) -> Text:
    head = Text.assemble(("Tollgate ", "bold"), f"{found.summary['version']} at {where}  ")
    workers = f"{found.summary['workers_ready']} of {found.summary['workers']} workers"
    head.append(found.fault or f"{found.summary['at'][11:19]}Z, {workers}", style="bold red" if found.fault else "dim")
    return head


def _figures(summary: Mapping[str, Any], width: int) -> RenderableType:
    grid = Table.grid(padding=(0, 2), expand=False)
    for _ in range(6):
        grid.add_column(no_wrap=True)
    spent = [(name, summary[key]) for name, key in (("this hour", "hour"), ("today", "day"), ("this month", "month"))]
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


def _conditions(found: Sequence[Mapping[str, Any]]) -> RenderableType:
    lines = [Text("")]
    for one in found[:CONDITIONS]:
        lines.append(
            Text.assemble(
                (f"{one['severity']:<9}", GRADES[one["severity"]]),
                (plain(one["subject"] or "", 40) + " " if one["subject"] else "", "bold"),
                plain(one["text"], 200),
            )
        )
        lines[-1].no_wrap, lines[-1].overflow = True, "ellipsis"
    if len(found) > CONDITIONS:
        lines.append(Text(f"and {len(found) - CONDITIONS} more", style="dim"))
    return Group(*lines)


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
    wide = width >= NARROW
    names = ("calls", "not ok", *(("tools",) if wide else ()), "tokens", "cost")
    tenant = (("tenant", 2),) if wide else ()
    table = _new(f"Runs, {order}", ("run", 6), ("agent", 3), *tenant, *((name, 0) for name in names))
    table.add_column("", width=8, no_wrap=True)
    ids = [run["id"] for run in found.runs]
    mark = chosen(screen, ids)
    first = max(0, ids.index(mark) - lines + 1) if mark else 0
    for run in found.runs[first : first + lines]:
        table.add_row(*_run(run, run["id"] in found.stopped, wide), style="reverse" if run["id"] == mark else None)
    if not found.runs:
        table.add_row(Text("no runs yet", "dim"))
    return table


def _run(run: Mapping[str, Any], stopped: bool, wide: bool) -> list[Text | str]:
    tokens = run["usage"]["input_tokens"] + run["usage"]["output_tokens"]
    state = "stopped" if stopped else (run["outcome"] or {}).get("outcome", "")
    tenant = [Text(plain(run["tenant"], 20))] if wide else []
    tools = [str(run["tool_calls"])] if wide else []
    return [
        Text(plain(run["id"], 44)), Text(plain(run["agent"] or "-", 28)), *tenant,
        str(run["calls"]), Text(str(run["errors"]), "red" if run["errors"] else ""), *tools,
        short(tokens), Text(usd(run["cost_usd"]), "bold"), Text(plain(state, 10), "red" if stopped else ""),
    ]  # fmt: skip


def _below(found: Snapshot, width: int) -> tuple[list[RenderableType], int]:
    """Budgets and breakers, and how many lines they take; nothing where there are none."""
    tables = [
        (_budgets(found.budgets), len(found.budgets[:BUDGETS])),
        (_breakers(found.breakers), len(found.breakers[:BREAKERS])),
    ]
    shown = [(table, rows + 3) for table, rows in tables if rows]
    if len(shown) == 2 and width >= WIDE:
        beside = Table.grid(expand=True, padding=(0, 2))
        beside.add_column(ratio=1)
        beside.add_column(ratio=1)
        beside.add_row(shown[0][0], shown[1][0])
        return [beside], max(rows for _, rows in shown)
    return [table for table, _ in shown], sum(rows for _, rows in shown)


def share(one: Mapping[str, Any]) -> float:
    """Of a budget that is used, with what is held."""
    return (one["spent"] + one["reserved"]) / one["limit"] if one["limit"] else 0.0


def _budgets(found: Sequence[Mapping[str, Any]]) -> Table:
    table = _new("Budgets", ("of", 3), ("per", 1), ("", 2), ("used", 0), ("limit", 0))
    for one in found[:BUDGETS]:
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
    for one in found[:BREAKERS]:
        held = f", held {one['forced']}" if one["forced"] else ""
        state = Text(one["state"].replace("_", " ") + held, STATES[one["forced"] or one["state"]])
        table.add_row(Text(plain(one["name"], 34)), state, Text(plain(one["why"] or "", 60)))
    return table


def _foot(screen: Screen) -> Text:
    if screen.asking:
        return Text.assemble(
            ("stop run ", "bold red"),
            (plain(screen.asking, 60), "bold"),
            (" and its calls under way?  y / n", "bold red"),
        )
    return Text.assemble(
        (HELP, "dim"),
        ("   paused" if screen.paused else "", "yellow"),
        (f"   {plain(screen.note, 90)}" if screen.note else "", "bold"),
    )
