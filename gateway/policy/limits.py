"""Which limits a call meets: what it must ask of the store of budgets before it goes.

Rules
1. Every limit whose scope and pattern match counts, each matched value by itself: `team: *` gives every team an account
   of its own. `*` also matches a call of which that scope is not known; it has the account without a name.
2. Demands come in one order: global, team, key, agent, run, model, upstream; within a scope money, tokens, calls and
   the rest as configured. No account is asked twice: where two limits share one, the tighter counts.
3. The limits of a virtual key itself lie within that key: those of other scopes have accounts under its name. What a
   key spends counts for the keys that it was made under, too: in their own limits, and in those configured for them.
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

from gateway.config.patterns import one_name
from gateway.config.schema import Budget, OnExceed, Rates, Runs, Spending, TaperStep
from gateway.config.schema import Limits as LimitsConfig
from gateway.errors import BudgetExceeded, Rejected
from gateway.policy.account_names import LONGEST, named
from gateway.policy.ceiling import EXECUTION, Worst
from gateway.policy.run_limits import NO_LIMITS, least, tightened
from gateway.policy.window import NANOS, PERIODS, Calendar
from gateway.spend import NANO_USD, Demand, Rule, RunLimits, Unit

SCOPES = ("global", "team", "key", "agent", "run", "model", "upstream")
REMEMBERED = 4096
MINUTE = 60 * NANOS
RUNS = 1024  # remembered, of each combination of the other scopes
USD, TOKENS, STEPS, TOOLS, TOTAL = Unit.USD, Unit.TOKENS, Unit.STEPS, Unit.TOOLS, Rule.TOTAL
ONES = frozenset({Unit.CALLS, Unit.CONCURRENCY, Unit.SECONDS})
NO_RUN = (
    "Every run has a budget in USD here; this call belongs to none that is known, and what it may cost is not known "
    "either. Choose spending.unknown_price to let such calls pass."
)
_HEADER = re.compile(rb"\s*\$?(\d{1,7})(?:\.(\d{1,9})\d*)?\s*")


class Owner(Struct, frozen=True):
    """A virtual key above that of a call, and the limits that came with it."""

    name: str
    id: str
    limits: tuple[Budget | Rates, ...] = ()


class Scopes(Struct, frozen=True, gc=False):
    """The values of a call; "" where one is not known."""

    team: str = ""
    key: str = ""
    agent: str = ""
    run: str = ""
    model: str = ""
    upstream: str = ""
    key_id: str = ""  # where the key has a name: its other one
    above: tuple[Owner, ...] = ()  # the keys that it was made under, the nearest first
    beside: tuple[str, ...] = ()  # models that may answer in the place of `model`


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
    own: RunLimits | None = None  # `Controls.limits`: what was set for this run alone
    steps: int = 0  # that this call adds to its run
    tools: int = 0  # tool results that it brings
    depth: int = 0  # of the sub-agent that makes it
    usual_nano: int | None = None  # what such a call usually costs (p95), for soft budgets
    usual_tokens: int | None = None


NOTHING_TOLD = Told()


class _Limit(Struct):
    """A demand but for its amount and window; remembers the window it is in, and itself where nothing changes."""

    terms: Terms
    account: str
    rule: Rule
    unit: Unit
    limit: int
    period: int = 0
    burst: int = 0
    label: str = ""
    since: int = 0
    until: int = 0
    name: str = ""  # of the account in this window
    whole: Demand | None = None  # where the amount is the same for every call

    def demand(self, amount: int) -> Demand:
        return Demand(
            self.account, self.rule, self.unit, amount, self.limit, 0, 0, self.period, self.burst, self.label
        )  # fmt: skip


class _Matched(Struct):
    """What the calls of some scopes meet: outside of runs, across them, and what is to be matched with each run."""

    outer: list[_Limit]
    inner: list[_Limit]
    of_runs: list[_Source]
    runs: dict[tuple[str, int | None, RunLimits | None], list[_Limit]] = {}


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
        self._of_any_run = tightened(runs, NO_LIMITS)
        self.empty = not (
            budgets or limits.rates or any((limits.rpm, limits.tpm, limits.concurrency)) or runs != Runs()
        )
        self.of_models = "model" in {*(b.scope for b in budgets), *(r.scope for r in limits.rates)}
        self._unknown = spending.unknown_price
        self._ceiling = nano(spending.ceiling_usd) or 0
        of_keys = Rates(scope="key", rpm=limits.rpm, tpm=limits.tpm, concurrency=limits.concurrency)
        self._sources = _sources((*budgets, of_keys, *limits.rates))
        self._known: dict[tuple[object, ...], _Matched] = {}

    def demands(
        self,
        who: Scopes,
        worst: Worst,
        now: int,
        told: Told = NOTHING_TOLD,
        extra: tuple[Budget | Rates, ...] = (),
    ) -> Ask:
        """Everything this call must be granted. `now`: ns since the epoch; `extra`: the limits of its virtual key.

        Raises BudgetExceeded where what it may take of a budget is not known and that is denied: `price_unknown` of a
        model without a price, `usage_unknown` of a call whose tokens nobody can count.
        """
        if worst.basis == "unknown" and not who.run and self._run_nano is not None and self._unknown == "deny":
            raise BudgetExceeded(NO_RUN, code="price_unknown")
        found = self._matching(who, extra)
        run = self._of_run(who, told, found) if who.run and worst.basis != "free" else ()
        demands: list[Demand] = []
        terms: list[Terms] = []
        for limit in (*found.outer, *run, *found.inner):
            demand = limit.whole
            if demand is None:
                demand = self._filled(limit, worst, now, told)
                if demand is None:
                    continue
            demands.append(demand)
            terms.append(limit.terms)
        return Ask(tuple(demands), tuple(terms))

    def _filled(self, limit: _Limit, worst: Worst, now: int, told: Told) -> Demand | None:
        """None where the call is free and this is a limit of money or tokens, or it is a tool's and has no tokens."""
        unit = limit.unit
        if unit is USD:
            amount = worst.nano_usd
            if amount is None:
                amount = self._unknown_nano(limit)
            usual = told.usual_nano
        elif unit is TOKENS:
            if worst.basis == EXECUTION:
                return None
            amount = worst.tokens_in + worst.tokens_out
            if worst.basis == "unknown" and limit.rule is not Rule.RATE and self._unknown == "deny":
                raise BudgetExceeded(
                    f"The budget of {limit.label} is in tokens, and what this call may use is not known.",
                    code="usage_unknown",
                )
            usual = told.usual_tokens
        else:
            return limit.demand(told.steps if unit is STEPS else told.tools if unit is TOOLS else told.depth)
        if worst.basis == "free":
            return None
        if usual is not None and usual < amount and limit.terms.soft:
            amount = usual
        if limit.rule is not TOTAL or limit.terms.per == "life":
            return limit.demand(amount)
        if not limit.since <= now < limit.until:
            window = self._calendar.window(limit.terms.per, now)
            limit.since, limit.until, limit.name = window.since, window.until, f"{limit.account}|{window.suffix}"
        return Demand(
            limit.name, TOTAL, unit, amount, limit.limit, limit.since, limit.until, 0, 0, limit.label
        )  # fmt: skip

    def _matching(self, who: Scopes, extra: tuple[Budget | Rates, ...]) -> _Matched:
        key = (who.team, who.key, who.key_id, who.agent, who.model, who.beside, who.upstream, who.above, extra)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            sources = [*self._sources, *_sources(extra, who.key)]
            for owner in who.above:
                sources += _sources(owner.limits, owner.name)
            outer = _matched(sources, who, SCOPES[: SCOPES.index("run")])
            inner = _matched(sources, who, SCOPES[SCOPES.index("run") + 1 :])
            found = self._known[key] = _Matched(outer, inner, [s for s in sources if s.scope == "run"])
        return found

    def _unknown_nano(self, limit: _Limit) -> int:
        if self._unknown == "deny":
            raise BudgetExceeded(
                f"The budget of {limit.label} is in USD, and what this call may cost is not known: its model has no "
                "price. Set one under prices.models, or choose spending.unknown_price.",
                code="price_unknown",
                param="model",
            )
        return self._ceiling if self._unknown == "ceiling" else 0

    def _of_run(self, who: Scopes, told: Told, matched: _Matched) -> list[_Limit]:
        """The limits of the run itself."""
        own = told.own or NO_LIMITS
        usd = least(told.header, own.usd, self._run_nano) if told.raised is None else told.raised
        key = (who.run, usd, told.own)
        found = matched.runs.get(key)
        if found is None:
            if len(matched.runs) >= RUNS:
                matched.runs.clear()
            found = matched.runs[key] = self._run_limits(who, usd, own, matched.of_runs)
        return found

    def _run_limits(self, who: Scopes, usd: int | None, own: RunLimits, sources: Sequence[_Source]) -> list[_Limit]:
        run, runs = who.run, self._runs
        label = f"run {run[:LONGEST]}"
        prefix = f"run:{named(run)}"
        tightest: dict[tuple[object, ...], _Limit] = {}
        if usd is not None:
            terms = Terms("run", run, runs.on_exceed, taper=runs.taper, per="life")
            _keep(tightest, [_Limit(terms, f"{prefix}|usd|life", TOTAL, USD, usd, label=label)])
        plain = Terms("run", run, per="life")
        for unit, rule, most in self._of_any_run if own is NO_LIMITS else tightened(runs, own):
            _keep(tightest, [_Limit(plain, f"{prefix}|{unit}|life", rule, unit, most, label=label)])
        for limit in _matched(sources, who, ("run",)):
            _keep(tightest, [limit])
        return _ready(tightest.values())


def _ready(limits: Iterable[_Limit]) -> list[_Limit]:
    """With the demands that are the same for every call."""
    found = list(limits)
    for limit in found:
        if limit.unit in ONES:
            limit.whole = limit.demand(0 if limit.unit is Unit.SECONDS else 1)
    return found


def _matched(sources: Iterable[_Source], who: Scopes, scopes: Sequence[str]) -> list[_Limit]:
    tightest: dict[tuple[object, ...], _Limit] = {}
    for scope in scopes:
        for value, other in _values(who, scope):
            for source in sources:
                if source.scope == scope and (source.matches(value) or (other and source.matches(other))):
                    _keep(tightest, source.make(value))
    return _ready(tightest.values())


def _values(who: Scopes, scope: str) -> list[tuple[str, str]]:
    """Whose accounts of this scope a call counts in, from the outside to the inside: by its name, and another one."""
    if scope == "model":
        return [(name, "") for name in dict.fromkeys(map(one_name, (who.model, *who.beside)))]
    if scope != "key":
        return [(getattr(who, scope, ""), "")]
    return [*((owner.name, owner.id) for owner in reversed(who.above)), (who.key, who.key_id)]


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


def _sources(configured: Iterable[Budget | Rates], within: str | None = None) -> list[_Source]:
    """`within`: the name of the key that the limits belong to."""
    found = []
    for one in configured:
        make: Any = _budget if isinstance(one, Budget) else _rates
        prefix = f"key:{named(within)}/" if within is not None else ""
        matches: Callable[[str], object] = _pattern(one_name(one.match) if one.scope == "model" else one.match)
        if one.match == "*" or one.scope == "global":
            matches = _anything
        if within is not None and one.scope == "key":
            prefix, matches = "", within.__eq__
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


def own_budget(header: bytes) -> int:
    """The value of x-tollgate-budget-usd, in nano-USD, rounded down. Raises Rejected."""
    found = _HEADER.fullmatch(header)
    if found is None:
        raise Rejected("x-tollgate-budget-usd must be an amount in US dollars, like 2.50", code="invalid_budget")
    return int(found[1]) * NANO_USD + int((found[2] or b"0").ljust(9, b"0"))


def nano(usd: float | None) -> int | None:
    """Nano-USD of a configured amount."""
    return None if usd is None else round(usd * NANO_USD)
