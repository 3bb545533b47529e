"""What budgets, limits and the breaker for runaway agents must also satisfy; part of gateway.config.semantics."""

from __future__ import annotations

import re
import zoneinfo
from collections.abc import Iterator, Sequence

from gateway.config.address import parse_url
from gateway.config.problems import Path, Problem, did_you_mean
from gateway.config.schema import Budget, Config, Loops, Rates, Runs, Spending, TaperStep

MATCH_CHARS = 200
UTC = "UTC"  # is known without a database of time zones


def faults(config: Config) -> Iterator[Problem]:
    """Every rule that the sections about spending break."""
    yield from _budgets(config.budgets)
    yield from _rates(config.limits.rates)
    yield from _runs(config.runs)
    yield from _loops(config.loops)
    yield from _spending(config.spending)


def _budgets(budgets: Sequence[Budget]) -> Iterator[Problem]:
    seen: set[tuple[str, str, str, bool, str]] = set()
    for index, budget in enumerate(budgets):
        path = ("budgets", str(index))
        yield from _match((*path, "match"), budget)
        yield from _taper((*path, "taper"), budget.taper)
        if budget.usd is None and budget.tokens is None:
            yield Problem(path, reason="sets no limit", hint="name `usd`, `tokens` or both")
        if budget.rolling and budget.per == "life":
            yield Problem((*path, "rolling"), reason="a budget for life has no window that could roll")
        units = [unit for unit in ("usd", "tokens") if getattr(budget, unit) is not None]
        for unit in units:
            account = (budget.scope, budget.match, budget.per, budget.rolling, unit)
            if account in seen:
                yield Problem((*path, unit), reason="a budget before it has the same scope, match, window and unit")
            seen.add(account)


def _rates(rates: Sequence[Rates]) -> Iterator[Problem]:
    seen: set[tuple[str, str]] = set()
    for index, rate in enumerate(rates):
        path = ("limits", "rates", str(index))
        yield from _match((*path, "match"), rate)
        if rate.rpm is None and rate.tpm is None and rate.concurrency is None:
            yield Problem(path, reason="sets no limit", hint="name `rpm`, `tpm` or `concurrency`")
        if rate.burst is not None and rate.rpm is None:
            yield Problem((*path, "burst"), reason="is a number of requests and needs `rpm` beside it")
        if (rate.scope, rate.match) in seen:
            yield Problem(path, reason="limits before it have the same scope and match")
        seen.add((rate.scope, rate.match))


def _match(path: Path, limit: Budget | Rates) -> Iterator[Problem]:
    pattern = limit.match
    if limit.scope == "global":
        if pattern != "*":
            yield Problem(path, reason="the global scope is one and has no name", hint="leave `match` out")
    elif not pattern or len(pattern) > MATCH_CHARS or not pattern.isprintable() or pattern != pattern.strip():
        yield Problem(path, reason=f"must be 1 to {MATCH_CHARS} printable characters without space around them")
    elif "**" in pattern:
        yield Problem(path, reason="one * already stands for any characters")


def _taper(path: Path, steps: Sequence[TaperStep]) -> Iterator[Problem]:
    for index, step in enumerate(steps):
        here = (*path, str(index))
        if index and step.at <= steps[index - 1].at:
            yield Problem((*here, "at"), reason="steps must ascend")
        if index and steps[index - 1].stop:
            yield Problem(here, reason="the step before it stops; none can follow")
        yield from _step(here, step)


def _step(path: Path, step: TaperStep) -> Iterator[Problem]:
    changes = step.effort is not None or step.model is not None or step.max_tokens is not None
    if not changes and not step.stop:
        yield Problem(path, reason="changes nothing", hint="name `effort`, `model`, `max_tokens` or `stop: true`")
    if changes and step.stop:
        yield Problem((*path, "stop"), reason="a call that is stopped has no effort, model or max_tokens")
    if step.model is not None and not step.model.strip():
        yield Problem((*path, "model"), reason="stands for no model")


def _runs(runs: Runs) -> Iterator[Problem]:
    yield from _taper(("runs", "taper"), runs.taper)
    if runs.taper and runs.budget_usd is None:
        yield Problem(("runs", "taper"), reason="its steps are shares of a budget", hint="set `runs.budget_usd`")


def _loops(loops: Loops) -> Iterator[Problem]:
    if loops.repeats > loops.window:
        yield Problem(("loops", "repeats"), reason="cannot be seen within so few steps as `window` says")
    if 2 * loops.period > loops.window:
        yield Problem(("loops", "period"), reason="a cycle shows when it came twice within `window`")
    lowering = [name for name in loops.__struct_fields__ if getattr(loops, name) == "downshift"]
    if loops.downshift_to is not None:
        yield from _step(("loops", "downshift_to"), loops.downshift_to)
    elif lowering:
        yield Problem(("loops", lowering[0]), reason="there is nothing to go down to", hint="set `loops.downshift_to`")


def _spending(spending: Spending) -> Iterator[Problem]:
    if spending.redis is not None and (reason := not_redis(spending.redis)):
        yield Problem(("spending", "redis"), reason=reason)
    if not _is_zone(spending.timezone):
        hint = _near_zone(spending.timezone) or "names are as Europe/Berlin"
        yield Problem(("spending", "timezone"), reason="no such time zone is known here", hint=hint)
    if spending.clamp_floor > spending.output_ceiling:
        yield Problem(("spending", "clamp_floor"), reason="is above `output_ceiling`, so nothing could be lowered")


def not_redis(text: str) -> str:
    """Why this is no URL of a Redis; "" where it is. It may hold a password, so it is never quoted."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in ("redis", "rediss"):
        return "a URL of Redis begins with redis:// or rediss://"
    user, _, place = rest.rpartition("@")
    host, _, database = place.partition("/")
    if user and not re.fullmatch(r"[A-Za-z0-9._~!$&'()*+,;=%:-]+", user):
        return "user name and password stand percent-encoded in a URL"
    if database and not re.fullmatch(r"[0-9]{1,5}", database):
        return "the path of a Redis URL is the number of a database"
    try:
        parse_url(f"http://{host}")
    except ValueError as reason:
        return str(reason)
    return ""


def _is_zone(name: str) -> bool:
    if name == UTC:
        return True
    try:
        zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):  # a path outside, a directory, nothing there
        return False
    return True


def _near_zone(name: str) -> str:
    """A hint that names the time zone most alike, else the empty string."""
    zones = {zone.lower(): zone for zone in zoneinfo.available_timezones()}
    hint = did_you_mean(name, zones)
    near = hint.partition('"')[2].partition('"')[0]
    return hint.replace(near, zones[near]) if near else ""
