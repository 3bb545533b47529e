"""Which limits a call meets: what it must ask of the store of budgets before it goes.

Rules
1. Every limit whose scope and pattern match counts, each matched value by itself: `team: *` gives every team an account
   of its own. `*` also matches a call of which that scope is not known; it has the account without a name.
2. Demands come in one order: global, team, key, agent, run, model, upstream; within a scope money, tokens, calls and
   the rest as configured. No account is asked twice: where two limits share one, the tighter counts.
3. The limits of a virtual key itself lie within that key: those of other scopes have accounts under its name.
4. A client may only tighten the budget of its run. What a person has raised it to stands in place of both.
5. What costs nothing asks for no money and no tokens, but for its place among requests and calls at once.
6. A window's name is part of its account: a new window starts from nothing, a changed limit loses nothing.

Cost: a call of scopes seen before takes about 0.5 us per demand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import tzinfo
from functools import partial
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from gateway.config.schema import Budget, OnExceed, Rates, Runs, Spending, TaperStep
from gateway.config.schema import Limits as LimitsConfig
from gateway.errors import BudgetExceeded, Rejected
from gateway.policy.ceiling import Worst
from gateway.policy.window import NANOS, PERIODS, Calendar
from gateway.spend import NANO_USD, Demand, Rule, Unit

SCOPES = ("global", "team", "key", "agent", "run", "model", "upstream")
REMEMBERED = 4096
MINUTE = 60 * NANOS
LONGEST = 200  # characters of a value that are kept in the name of an account
_HEADER = re.compile(rb"\s*\$?(\d{1,7})(?:\.(\d{1,9})\d*)?\s*")


class Scopes(Struct, frozen=True, gc=False):
    """The values of a call; "" where one is not known."""

    team: str = ""
    key: str = ""
    agent: str = ""
    run: str = ""
    model: str = ""
    upstream: str = ""


class Terms(Struct, frozen=True):
    """What was configured of a demand, beside its limit."""

    scope: str
    value: str
    on_exceed: OnExceed = "refuse"
    soft: bool = False
    taper: tuple[TaperStep, ...] = ()
    per: str = ""  # of a window: minute, hour, ... or life


class Ask(Struct, frozen=True):
    """The demands of a call, and the terms of each, in the same order."""

    demands: tuple[Demand, ...] = ()
    terms: tuple[Terms, ...] = ()


class Told(Struct, frozen=True, gc=False):
    """What else is known of a call when its limits are asked for; money in nano-USD."""

    header: int | None = None  # the client's own budget of its run, see `own_budget`
    raised: int | None = None  # `Controls.raised`
    steps: int = 0  # that this call adds to its run
    tools: int = 0  # tool results that it brings
    depth: int = 0  # of the sub-agent that makes it
    usual_nano: int | None = None  # what such a call usually costs (p95), for soft budgets
    usual_tokens: int | None = None


NOTHING_TOLD = Told()


class _Limit(Struct, frozen=True):
    """A demand but for its amount and window."""

    terms: Terms
    account: str
    rule: Rule
    unit: Unit
    limit: int
    period: int = 0
    burst: int = 0
    label: str = ""


class _Source(Struct, frozen=True):
    """A configured limit of one scope, ready to be matched."""

    scope: str
    matches: Callable[[str], object]
    make: Callable[[str], list[_Limit]]


class Limits:
    """The limits of one configuration. `zone` is that of `spending.timezone`; one per process and configuration."""

    def __init__(
        self, budgets: Sequence[Budget], runs: Runs, limits: LimitsConfig, spending: Spending, zone: tzinfo
    ) -> None:
        self._calendar = Calendar(zone)
        self._runs = runs
        self._run_nano = nano(runs.budget_usd)
        self._run_counts = _run_counts(runs)
        self._unknown = spending.unknown_price
        self._ceiling = nano(spending.ceiling_usd) or 0
        of_keys = Rates(scope="key", rpm=limits.rpm, tpm=limits.tpm, concurrency=limits.concurrency)
        self._sources = _sources((*budgets, of_keys, *limits.rates))
        self._known: dict[tuple[object, ...], tuple[list[_Limit], list[_Limit], list[_Source]]] = {}

    def demands(
        self,
        who: Scopes,
        worst: Worst,
        now: int,
        told: Told = NOTHING_TOLD,
        extra: tuple[Budget | Rates, ...] = (),
    ) -> Ask:
        """Everything this call must be granted. `now`: ns since the epoch; `extra`: the limits of its virtual key.

        Raises BudgetExceeded (`price_unknown`) where a budget in USD meets a model without a price and that is denied.
        """
        outer, inner, of_runs = self._matching(who, extra)
        limits = (*outer, *self._of_run(who, told, worst, of_runs), *inner)
        demands: list[Demand] = []
        terms: list[Terms] = []
        free = worst.basis == "free"
        for limit in limits:
            unit = limit.unit
            if unit is Unit.USD:
                if free:
                    continue
                amount = self._nano(worst, limit)
                usual = told.usual_nano
            elif unit is Unit.TOKENS:
                if free:
                    continue
                amount = worst.tokens_in + worst.tokens_out
                usual = told.usual_tokens
            else:
                demands.append(_counted(limit, told))
                terms.append(limit.terms)
                continue
            if limit.terms.soft and usual is not None and usual < amount:
                amount = usual
            demands.append(self._demand(limit, amount, now))
            terms.append(limit.terms)
        return Ask(tuple(demands), tuple(terms))

    def _matching(
        self, who: Scopes, extra: tuple[Budget | Rates, ...]
    ) -> tuple[list[_Limit], list[_Limit], list[_Source]]:
        """The limits outside of a run and those that cross it, and what is to be matched with each run."""
        key = (who.team, who.key, who.agent, who.model, who.upstream, extra)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            own = _sources(extra, f"key:{named(who.key)}")
            sources = [*self._sources, *own]
            outer = _matched(sources, who, SCOPES[: SCOPES.index("run")])
            inner = _matched(sources, who, SCOPES[SCOPES.index("run") + 1 :])
            found = self._known[key] = outer, inner, [s for s in sources if s.scope == "run"]
        return found

    def _nano(self, worst: Worst, limit: _Limit) -> int:
        if worst.nano_usd is not None:
            return worst.nano_usd
        if self._unknown == "deny":
            raise BudgetExceeded(
                f"{limit.label} is a budget in USD, and what this call may cost is not known: its model has no price. "
                "Set one under prices.models, or choose spending.unknown_price.",
                code="price_unknown",
                param="model",
            )
        return self._ceiling if self._unknown == "ceiling" else 0

    def _demand(self, limit: _Limit, amount: int, now: int) -> Demand:
        per = limit.terms.per
        if limit.rule is Rule.TOTAL and per != "life":
            window = self._calendar.window(per, now)
            return Demand(
                f"{limit.account}|{window.suffix}", Rule.TOTAL, limit.unit, amount, limit.limit,
                window.since, window.until, 0, 0, limit.label,
            )  # fmt: skip
        return Demand(
            limit.account, limit.rule, limit.unit, amount, limit.limit, 0, 0, limit.period, limit.burst, limit.label
        )

    def _of_run(self, who: Scopes, told: Told, worst: Worst, sources: Sequence[_Source]) -> Iterable[_Limit]:
        """The limits of the run itself; a call that belongs to none has none, nor has one that asks no model."""
        run, runs = who.run, self._runs
        if not run or worst.basis == "free":
            return ()
        usd = self._run_nano if told.header is None else _least(told.header, self._run_nano)
        usd = usd if told.raised is None else told.raised
        label = f"run {run[:LONGEST]}"
        prefix = f"run:{named(run)}"
        found: list[_Limit] = []
        if usd is not None:
            terms = Terms("run", run, runs.on_exceed, taper=runs.taper, per="life")
            found.append(_Limit(terms, f"{prefix}|usd|life", Rule.TOTAL, Unit.USD, usd, label=label))
        if self._run_counts:
            plain = Terms("run", run, per="life")
            found += [
                _Limit(plain, f"{prefix}|{unit}|life", rule, unit, most, label=label)
                for unit, rule, most in self._run_counts
            ]
        if not sources:
            return found
        tightest: dict[tuple[object, ...], _Limit] = {}
        _keep(tightest, found)
        for limit in _matched(sources, who, ("run",)):
            _keep(tightest, [limit])
        return tightest.values()


def _run_counts(runs: Runs) -> list[tuple[Unit, Rule, int]]:
    minutes = runs.max_minutes
    limits = (
        (Unit.CALLS, Rule.TOTAL, runs.max_calls),
        (Unit.STEPS, Rule.TOTAL, runs.max_steps),
        (Unit.TOOLS, Rule.TOTAL, runs.max_tools),
        (Unit.SECONDS, Rule.AGE, None if minutes is None else int(minutes * 60)),
        (Unit.DEPTH, Rule.LEVEL, runs.max_depth),
    )
    return [(unit, rule, most) for unit, rule, most in limits if most is not None]


def _matched(sources: Iterable[_Source], who: Scopes, scopes: Sequence[str]) -> list[_Limit]:
    tightest: dict[tuple[object, ...], _Limit] = {}
    for scope in scopes:
        value = getattr(who, scope, "")
        for source in sources:
            if source.scope == scope and source.matches(value):
                _keep(tightest, source.make(value))
    return list(tightest.values())


def _keep(tightest: dict[tuple[object, ...], _Limit], limits: Iterable[_Limit]) -> None:
    """Of limits that share an account the tightest; a hard one's amount, where one of them is soft."""
    for limit in limits:
        key = (limit.account, limit.rule, limit.unit, limit.terms.per)
        known = tightest.get(key)
        if known is None:
            tightest[key] = limit
            continue
        first, other = sorted((known, limit), key=lambda one: (one.limit, one.burst))
        soft = first.terms.soft and other.terms.soft
        tightest[key] = replace(first, terms=replace(first.terms, soft=soft), burst=min(first.burst, other.burst))


def _sources(configured: Iterable[Budget | Rates], within: str = "") -> list[_Source]:
    """`within`: the account of the key that the limits belong to."""
    found = []
    for one in configured:
        make: Any = _budget if isinstance(one, Budget) else _rates
        own = bool(within) and one.scope == "key"
        prefix = f"{within}/" if within and not own else ""
        matches = _anything if own or one.match == "*" or one.scope == "global" else _pattern(one.match)
        found.append(_Source(one.scope, matches, partial(make, one, prefix)))
    return found


def _pattern(match: str) -> Callable[[str], object]:
    return re.compile(".*".join(map(re.escape, match.split("*"))), re.DOTALL).fullmatch


def _anything(value: str) -> bool:
    return True


def _budget(one: Budget, prefix: str, value: str) -> list[_Limit]:
    terms = Terms(one.scope, value, one.on_exceed, one.soft, one.taper, one.per)
    label = _label(one.scope, prefix, value, one.per, one.rolling)
    rolling = one.rolling and one.per != "life"
    period = PERIODS[one.per] * NANOS if rolling else 0
    rule = Rule.ROLLING if rolling else Rule.TOTAL
    found = []
    for unit, limit in ((Unit.USD, nano(one.usd)), (Unit.TOKENS, one.tokens)):
        if limit is not None:
            account = f"{_account(one.scope, prefix, value)}|{unit}|{one.per}" + ("|rolling" if rolling else "")
            found.append(_Limit(terms, account, rule, unit, limit, period, 0, label))
    return found


def _rates(one: Rates, prefix: str, value: str) -> list[_Limit]:
    terms = Terms(one.scope, value)
    account, label = _account(one.scope, prefix, value), _label(one.scope, prefix, value, "minute")
    found = []
    if one.rpm is not None:
        burst = min(one.burst or max(one.rpm // 6, 1), one.rpm)
        found.append(_Limit(terms, f"{account}|calls|rate", Rule.RATE, Unit.CALLS, one.rpm, MINUTE, burst, label))
    if one.tpm is not None:
        found.append(_Limit(terms, f"{account}|tokens|rate", Rule.RATE, Unit.TOKENS, one.tpm, MINUTE, 0, label))
    if one.concurrency is not None:
        label = _label(one.scope, prefix, value, "")
        found.append(
            _Limit(terms, f"{account}|concurrency", Rule.SLOTS, Unit.CONCURRENCY, one.concurrency, label=label)
        )
    return found


def _account(scope: str, prefix: str, value: str) -> str:
    return f"{prefix}global" if scope == "global" else f"{prefix}{scope}:{named(value)}"


def _label(scope: str, prefix: str, value: str, per: str, rolling: bool = False) -> str:
    """For people: "team payments, per day"."""
    who = scope if scope == "global" else f"{scope} {value[:LONGEST] or '(unnamed)'}"
    within = f" of {prefix.strip('/').replace(':', ' ', 1)}" if prefix else ""
    window = "" if per in ("", "life") else f", in any {per}" if rolling else f", per {per}"
    return f"{who}{within}{window}"


def _counted(limit: _Limit, told: Told) -> Demand:
    unit = limit.unit
    if unit is Unit.STEPS:
        amount = told.steps
    elif unit is Unit.TOOLS:
        amount = told.tools
    elif unit is Unit.DEPTH:
        amount = told.depth
    else:
        amount = 0 if unit is Unit.SECONDS else 1
    return Demand(limit.account, limit.rule, unit, amount, limit.limit, 0, 0, limit.period, limit.burst, limit.label)


def _least(one: int, other: int | None) -> int:
    return one if other is None else min(one, other)


def own_budget(header: bytes) -> int:
    """The value of x-tollgate-budget-usd, in nano-USD, rounded down. Raises Rejected."""
    found = _HEADER.fullmatch(header)
    if found is None:
        raise Rejected("x-tollgate-budget-usd must be an amount in US dollars, like 2.50", code="invalid_budget")
    return int(found[1]) * NANO_USD + int((found[2] or b"0").ljust(9, b"0"))


def nano(usd: float | None) -> int | None:
    """Nano-USD of a configured amount."""
    return None if usd is None else round(usd * NANO_USD)


def named(value: str) -> str:
    """A value as part of an account's name: what separates the parts is written otherwise."""
    if len(value) > LONGEST:
        value = value[:LONGEST]
    return value.replace("%", "%25").replace("|", "%7C").replace("/", "%2F") if _special(value) else value


def _special(value: str) -> bool:
    return "|" in value or "/" in value or "%" in value
