"""`tollgate run`: a command as one run of its own, with limits, through the gateway; and what it came to.

Exit status: that of the command, or 75 (EX_TEMPFAIL of sysexits.h) where the last thing the gateway said to it was that
its budget is spent, a limit is reached or the run was stopped.
"""

from __future__ import annotations

import secrets
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from gateway.commands.client import Admin, run_path
from gateway.commands.foreground import run as foreground
from gateway.commands.gate import gateway
from gateway.config.address import parse_url
from gateway.config.load import find, load
from gateway.config.roster import roster
from gateway.config.schema import Config

STOPPED = 75
FORCE_TRIES = 10  # a second each, for the workers to take the limits in
SETTLE_SECONDS = 3.0  # for the records of calls that the command left behind
LOOK_SECONDS = 0.2
DUMMY = "held-by-tollgate"
# Where no key is in the environment and the gateway has its own, clients still insist on one.
KEYS = {
    "openai": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "cohere": ("CO_API_KEY",),
}
# Where clients look for APIs that lead to the first upstream which speaks them, if there is one.
BY_NAME = {"cohere": "CO_API_URL", "ollama": "OLLAMA_HOST"}


class Limits(Struct, frozen=True):
    """As the command line has them; None: none."""

    budget_usd: float | None = None
    max_calls: int | None = None
    max_steps: int | None = None
    max_tools: int | None = None
    max_minutes: float | None = None
    max_depth: int | None = None

    def body(self) -> dict[str, Any]:
        named = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: value for name, value in named.items() if value is not None}


class NotInForce(OSError):
    """The workers did not take the limits in: the command is not started."""


def run(
    command: Sequence[str],
    limits: Limits,
    path: Path | None,
    env: Mapping[str, str],
    overrides: Mapping[str, object],
    *,
    name: str = "",
    agent: str = "",
) -> int:
    """Run `command`; returns the exit status. Raises ConfigError, CannotServe, Refused, NotInForce."""
    config = load(path, env, overrides)
    run_id = name or f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
    with gateway(config, find(path, env), env) as gate:
        impose(gate.admin, run_id, limits)
        began = time.monotonic()
        status = foreground(command, child_env(env, gate.url, run_id, agent, config))
        took = time.monotonic() - began
        report = settled(gate.admin, run_id)
    print(text(report, command, limits, took), file=sys.stderr, end="")
    return STOPPED if report["stopped"] else status


def impose(admin: Admin, run_id: str, limits: Limits) -> None:
    """Set the limits, and see that every worker goes by them: they must hold for the first call already."""
    body = limits.body()
    if not body:
        return
    for _ in range(FORCE_TRIES):
        if admin.ask("PUT", run_path(run_id, "/limits"), {**body, "by": "tollgate run"})["in_force"]:
            return
    raise NotInForce("the gateway does not take the limits of the run in; see its log")


def child_env(env: Mapping[str, str], url: str, run_id: str, agent: str, config: Config) -> dict[str, str]:
    """The environment of the command: every API it may speak leads through the gateway, as this run."""
    base = f"{url}/run/{run_id}" + (f"/agent/{agent}" if agent else "")
    child = {
        **env,
        "OPENAI_BASE_URL": f"{base}/v1",
        "OPENAI_API_BASE": f"{base}/v1",
        "ANTHROPIC_BASE_URL": base,
        "GOOGLE_GEMINI_BASE_URL": base,
        "TOLLGATE_RUN_ID": run_id,
    }
    for name, upstream in reversed(config.upstreams.items()):
        if variable := BY_NAME.get(upstream.dialect):
            child[variable] = f"{base}/{name}"
    held = {upstream.dialect for upstream in config.upstreams.values() if upstream.key}
    if roster(config).count:
        held.clear()  # the gateway asks for one of its own keys: the command has to bring it
    for dialect, variables in KEYS.items():
        if dialect in held and not any(env.get(variable) for variable in variables):
            child[variables[0]] = DUMMY
    host = parse_url(url).hostname or ""
    for variable in ("no_proxy", "NO_PROXY"):  # a proxy cannot reach our loopback
        others = env.get(variable, "")
        if host not in others.split(","):
            child[variable] = f"{others},{host}" if others else host
    return child


def settled(admin: Admin, run_id: str) -> dict[str, Any]:
    """The summary of the run once nothing is added to it any more: the last calls may have been left by the command."""
    until = time.monotonic() + SETTLE_SECONDS
    before: dict[str, Any] | None = None
    while True:
        found: dict[str, Any] = admin.ask("GET", run_path(run_id, "/summary"))
        if (found == before and found["complete"]) or time.monotonic() > until:
            return found
        before = found
        time.sleep(LOOK_SECONDS)


def text(report: Mapping[str, Any], command: Sequence[str], limits: Limits, took: float) -> str:
    """What is printed at the end."""
    usage = report["usage"]
    refused = f" ({report['refused']} refused)" if report["refused"] else ""
    failed = f" ({report['tool_errors']} failed)" if report["tool_errors"] else ""
    tokens = f"{usage['input_tokens']:,} in, {usage['output_tokens']:,} out"
    if usage["cache_read_tokens"]:
        tokens += f"; {usage['cache_read_tokens']:,} of the input from the cache"
    rows = [
        ("cost", cost(report, limits.budget_usd)),
        ("calls", f"{report['calls']:,}{of(limits.max_calls)}{refused}"),
        ("tokens", tokens),
        ("tools", f"{report['tool_calls']:,}{of(limits.max_tools)}{failed}"),
    ]
    if report["saved_usd"] >= 0.000_05:
        rows.append(("saved", f"{usd(report['saved_usd'])} by prompt caching"))
    rows.append(("took", duration(took)))
    if report["stopped"]:
        why = report["stopped"]["message"]
        rows.append(("stopped", report["stopped"]["code"] + (f": {why}" if why else "")))
    if not report["complete"]:
        rows.append(("note", "the ledger lags behind: some calls may be missing here"))
    lines = [f"tollgate: run {report['id']}: {shlex.join(command)[:100]}"]
    return "\n".join([*lines, *(f"  {name:<8} {value}" for name, value in rows)]) + "\n"


def cost(report: Mapping[str, Any], budget: float | None) -> str:
    known = report["cost_usd"]
    shown = usd(known) if known is not None else "unknown"
    if known is not None and report["unknown_cost_calls"]:
        shown += f", and {report['unknown_cost_calls']} calls of unknown cost"
    return shown + (f" of {usd(budget)}" if budget is not None else "")


def of(limit: int | None) -> str:
    return f" of {limit:,}" if limit is not None else ""


def usd(amount: float) -> str:
    if 0 < amount < 0.000_05:
        return "< $0.0001"
    return f"${amount:,.2f}" if amount >= 1 or amount == round(amount, 2) else f"${amount:.4f}"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (f"{hours} h " if hours else "") + f"{minutes} min {rest} s"
