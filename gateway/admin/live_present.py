"""Figures of the tally as what the API answers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Literal
from zoneinfo import ZoneInfo

from gateway.admin import present
from gateway.admin.live_views import (
    BurnView,
    ConditionView,
    DayView,
    SeriesView,
    SloView,
    SpenderList,
    SpenderView,
    SpendView,
    SumsView,
)
from gateway.admin.tally import Figures
from gateway.admin.tally_past import Range
from gateway.config.schema_slo import Slo
from gateway.policy.conditions import Condition
from gateway.policy.spend_pace import (
    DAY,
    FEW,
    HOUR,
    MINUTE,
    OBJECTIVE,
    Burn,
    Sums,
    days_to_come,
    pace,
    projected,
    within,
)
from gateway.policy.window import Window

By = Literal["agent", "model", "tenant"]
TOP = 8


def sums(of: Sums) -> dict[str, int | float | None]:
    """The fields of SumsView."""
    return {
        "calls": of.calls,
        "refused": of.refused,
        "faults": of.faults,
        "cost_usd": present.known_usd(of.cost, of.priced, of.unknown),
        "unknown_cost_calls": of.unknown,
        "input_tokens": of.input_tokens,
        "output_tokens": of.output_tokens,
        "cache_read_tokens": of.cache_read_tokens,
        "from_cache": of.from_cache,
        "tool_calls": of.tool_calls,
    }


def sums_view(of: Sums) -> SumsView:
    return SumsView(**sums(of))  # type: ignore[arg-type]


def spending(found: Figures) -> dict[str, SpendView]:
    """This hour, today and this month, each with what it will have come to."""
    first = min((minute for minute, part in found.minutes.items() if part.calls), default=None)
    began = None if first is None else first * MINUTE
    late = pace(within(found.minutes, found.now - HOUR, found.now + MINUTE).cost, began, found.now, HOUR)
    hour = within(found.minutes, found.hour.since, found.hour.until)
    day = within(found.minutes, found.day.since, found.day.until)
    by_midnight = projected(day.cost, late, found.now, found.day.until)
    return {
        "hour": _spend(found.hour, hour, projected(hour.cost, late, found.now, found.hour.until)),
        "day": _spend(found.day, day, by_midnight),
        "month": _month(found, day, by_midnight),
    }


def _month(found: Figures, day: Sums, by_midnight: int) -> SpendView:
    """Each day to come is like the same weekday of the last seven days, of which today is one. Where the first call is
    younger than those, like the mean of the days since. Unknown while days are missing."""
    all_days = [found.days[since] for since in sorted(found.days)]
    before, week = all_days[:-6], all_days[-6:]
    ours = [cost for since, cost in found.days.items() if since >= found.month.since]
    past = [cost for cost in (*week, *ours) if cost is None]
    if past:
        whole = Sums(calls=day.calls, unknown=day.unknown)
        return _spend(found.month, whole, None, known=False)
    known = [cost for cost in ours if cost is not None]
    whole = Sums(
        calls=day.calls + sum(cost.calls for cost in known),
        cost=day.cost + sum(cost.cost for cost in known),
        priced=day.priced + sum(cost.priced for cost in known),
        unknown=day.unknown + sum(cost.unknown for cost in known),
    )
    busy = [cost is not None and cost.calls > 0 for cost in week]
    old = any(cost is not None and cost.calls for cost in before)
    began = 0 if old else [*busy, True].index(True)
    costs = [*(cost.cost for cost in week if cost is not None), by_midnight]
    rest = days_to_come(costs, began, round((found.month.until - found.day.until) / DAY))
    return _spend(found.month, whole, whole.cost + (by_midnight - day.cost) + rest)


def _spend(window: Window, so_far: Sums, by_then: int | None, *, known: bool = True) -> SpendView:
    return SpendView(
        cost_usd=present.known_usd(so_far.cost, so_far.priced, so_far.unknown) if known else None,
        projected_usd=None if by_then is None else present.usd(by_then),
        unknown_cost_calls=so_far.unknown,
        calls=so_far.calls,
        since=present.moment(window.since),
        until=present.moment(window.until),
    )


def series(minutes: Mapping[int, Sums], now: int, step: int, count: int) -> SeriesView:
    """`count` steps of so many minutes; the last one is under way."""
    last = now // MINUTE // step
    parts = [Sums() for _ in range(count)]
    for minute, part in minutes.items():
        place = count - 1 - (last - minute // step)
        if 0 <= place < count:
            parts[place].add(part)
    return SeriesView(
        start=(last - count + 1) * step * 60,
        step=step * 60,
        cost_usd=[round(present.usd(part.cost), 9) for part in parts],
        calls=[part.calls for part in parts],
        faults=[part.faults for part in parts],
    )


def days(found: Figures, zone: str) -> list[DayView]:
    """The days before today."""
    named = ZoneInfo(zone)
    return [
        DayView(
            day=dt.datetime.fromtimestamp(since / 1e9 + 43_200, named).date().isoformat(),
            cost_usd=None if cost is None else present.known_usd(cost.cost, cost.priced, cost.unknown),
        )
        for since, cost in sorted(found.days.items())
    ]


def spenders(names: Mapping[str, Sums], limit: int) -> list[SpenderView]:
    """The dearest first."""
    ranked = sorted(names.items(), key=lambda item: (-item[1].cost, -item[1].calls, item[0]))
    return [SpenderView(name=name or None, **sums(part)) for name, part in ranked[:limit]]  # type: ignore[arg-type]


def spender_list(by: By, over: Range, names: Mapping[str, Sums], since: int, limit: int, *, whole: bool) -> SpenderList:
    shown = spenders(names, limit)
    return SpenderList(by=by, range=over, since=present.moment(since), complete=whole, spenders=shown)


def objective_of(slos: Sequence[Slo]) -> float:
    """The share of calls that shall be answered: of the first SLO that is about all of them."""
    stated = [slo.objective for slo in slos if slo.sli == "availability" and not slo.match]
    return stated[0] / 100 if stated else OBJECTIVE


def slo(found: Figures, burning: Sequence[Burn], objective: float) -> SloView:
    last = within(found.minutes, found.now - DAY, found.now + MINUTE)
    return SloView(
        objective=objective,
        availability=1 - last.faults / last.judged if last.judged >= FEW else None,
        burns=[
            BurnView(
                severity=burn.severity,  # type: ignore[arg-type]
                threshold=burn.threshold,
                rate=burn.rate,
                firing=burn.firing,
            )
            for burn in burning
        ],
    )


def condition(one: Condition) -> ConditionView:
    return ConditionView(
        kind=one.kind,
        severity=one.severity,  # type: ignore[arg-type]
        subject=one.subject or None,
        text=one.text,
        since=present.moment(one.since) if one.since else None,
        run=one.run or None,
    )
