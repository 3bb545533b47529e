"""`tollgate runs`: see runs, stop them, let them go on, give them more, say what they achieved.

Decisions go through the admin API of the running gateway. Where none answers they are written into the state directory:
workers that run although nobody answers take them in all the same, and those that start later begin with them. An
outcome is for the journal, which only a gateway writes.
"""

from __future__ import annotations

import getpass
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.commands.client import Admin, NoGateway, admin_of, run_path
from gateway.config import places
from gateway.config.load import load
from gateway.config.schema import Config
from gateway.errors import LedgerUnavailable
from gateway.policy.controls import Decision, Kind, Scope
from gateway.recorder.ledger_read import LedgerReader, RunFilter
from gateway.spend import NANO_USD
from gateway.stores.sqlite_controls import SqliteDecisions

DONE = {Kind.KILL: "stopped", Kind.RESUME: "may go on", Kind.RAISE: "has a budget of ${:,.4f}"}
_COLUMNS = ("RUN", "AGENT", "BEGAN", "CALLS", "COST", "STATE")


def decide(
    kind: Kind,
    subject: tuple[Scope, str],
    path: Path | None,
    env: Mapping[str, str],
    overrides: Mapping[str, object],
    *,
    reason: str = "",
    budget_usd: float | None = None,
) -> int:
    """Take a decision and say how it stands. Raises ConfigError, Refused, ControlsUnusable."""
    config = load(path, env, overrides)
    scope, value = subject
    by = whoever()
    what = f"{scope} {value} {DONE[kind].format(budget_usd or 0)}"
    try:
        answer = through(admin_of(config), kind, subject, {"reason": reason, "by": by}, budget_usd)
    except NoGateway as error:
        amount = round((budget_usd or 0) * NANO_USD)
        decision = Decision(kind, scope, value, amount, reason, by, time.time_ns())
        SqliteDecisions(places.controls(config)).record(decision)
        print(f"{what}; {error}: written to {places.controls(config)}")
        return 0
    notes = [] if answer["in_force"] else ["not every worker has taken it in yet"]
    if answer["known"] is False:
        notes.append("no call of this run has been seen yet")
    print("; ".join([what, *notes]))
    return 0


def through(
    admin: Admin, kind: Kind, subject: tuple[Scope, str], said: Mapping[str, str], budget_usd: float | None
) -> dict[str, Any]:
    """Take it through the API. Raises NoGateway or Refused."""
    scope, value = subject
    body: dict[str, Any] = {**said}
    if kind is Kind.RAISE:
        path = run_path(value, "/raise")
        body["budget_usd"] = budget_usd
    else:
        path = f"/api/{kind}"
        body |= {"scope": str(scope), "value": value}
    answer: dict[str, Any] = admin.ask("POST", path, body)
    return answer


def report(
    run: str,
    achieved: Mapping[str, Any],
    path: Path | None,
    env: Mapping[str, str],
    overrides: Mapping[str, object],
) -> int:
    """`achieved`: outcome, value and note, as the API takes them. Raises ConfigError, Refused, NoGateway."""
    told = admin_of(load(path, env, overrides)).ask("POST", run_path(run, "/outcome"), achieved)
    print(f"run {run}: {told['outcome']}" + ("" if told["value"] is None else f" {told['value']:g}"))
    return 0


def listing(path: Path | None, env: Mapping[str, str], overrides: Mapping[str, object], *, limit: int = 20) -> int:
    """Print the latest runs, and whatever is stopped besides. Raises ConfigError, Refused."""
    config = load(path, env, overrides)
    admin = admin_of(config)
    try:
        runs = admin.ask("GET", f"/api/runs?limit={limit}")["runs"]
        stopped = [(s["scope"], s["value"], s["reason"]) for s in admin.ask("GET", "/api/controls")["stopped"]]
        rows = [(r["id"], r["agent"], r["started_at"], r["calls"], r["cost_usd"]) for r in runs]
    except NoGateway as error:
        print(f"{error}; from {places.state(config)}", file=sys.stderr)
        rows, stopped = on_disk(config, limit)
    print(table(rows, stopped), end="")
    return 0


Run = tuple[str, str | None, str, int, float | None]
Stopped = tuple[str, str, str | None]


def on_disk(config: Config, limit: int) -> tuple[list[Run], list[Stopped]]:
    """The same without a gateway."""
    reader = LedgerReader(places.ledger(config))
    try:
        found = reader.runs(RunFilter(), limit)
    except LedgerUnavailable:
        found = []
    rows = [(r["run_id"], r["agent"] or None, moment(r["first_at"]), r["calls"], cost(r)) for r in found]
    standings = SqliteDecisions(places.controls(config)).stopped() if places.controls(config).exists() else []
    return rows, [(str(s.scope), s.value, s.reason or None) for s in standings]


def dollars(spent: float | None) -> str:
    """What is little is not nothing, and what is unknown is neither."""
    if spent is None:
        return "unknown"
    return "< $0.0001" if 0 < spent < 0.00005 else f"${spent:,.4f}"


def table(rows: Sequence[Run], stopped: Sequence[Stopped]) -> str:
    killed = {value for scope, value, _ in stopped if scope == Scope.RUN}
    lines: list[tuple[str, ...]] = [_COLUMNS]
    for id, agent, began, calls, spent in rows:
        lines.append((id, agent or "-", began[:19], str(calls), dollars(spent), "stopped" if id in killed else ""))
    widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS))]
    text = "".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n"
                   for line in lines)  # fmt: skip
    listed = {row[0] for row in rows}
    others = [each for each in stopped if each[0] != Scope.RUN or each[1] not in listed]
    for scope, value, reason in others:
        text += f"stopped: {scope} {value}" + (f" ({reason})" if reason else "") + "\n"
    return text


def moment(ns: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 10**9))


def cost(row: Any) -> float | None:
    return None if row["cost_unknown"] and not row["priced"] else row["cost"] / 1e12


def whoever() -> str:
    """The user of this process, for the audit."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
