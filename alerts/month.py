"""What a month will have come to when it ends, as recordings; and what they read in a history made for it.

Spent in the full hours of this month (UTC), and for each hour to come what the same hour of the week cost in the last
seven days. A gateway that was not scraped seven days ago has no such week, nor has a name without a full hour: they go
on as in the last 24 hours, or as in as many as there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SLICE = "slice:tollgate_cost_usd:increase1h"
SPENT = "slice:tollgate_cost_usd:month_spent"
REST = "slice:tollgate_cost_usd:month_rest"
START = "tollgate:month_start:seconds"
END = "tollgate:month_end:seconds"

_BY = "job, instance, tenant, agent, model"
_SCRAPED = "(group by (job) (tollgate_build_info))"
_SECONDS = 604_800  # of a week
# A point of a subquery is an hour that ended. Whether it is of the month of now, and how often the same hour of the
# week comes again before that month ends, is told by the bounds of that month: those `@ end()`, not of the point.
_THIS_MONTH = f"sum_over_time(({SLICE} and on () vector(time()) > {START} @ end())[31d:1h])"
_AGAIN = f"floor(({END} @ end() - time()) / {_SECONDS})"
# A second less than a week: the hour that ended just a week ago comes again at once, and is over.
_WEEKLY = f"sum_over_time(({SLICE} * on () group_left () {_AGAIN})[{_SECONDS - 1}s:1h])"
_A_WEEK_AGO = f"count_over_time({_SCRAPED}[6h:1h] offset 162h) > 0"
_HOURS_KNOWN = f"(count_over_time({_SCRAPED}[1d:1m]) / 60)"
_HOURS_LEFT = f"ceil(({END} - time()) / 3600)"
_LATE = f"sum by ({_BY}) (increase(tollgate_cost_usd_total[1d]))"
_DAILY = f"{_LATE} / on (job) group_left () {_HOURS_KNOWN} * on () group_left () {_HOURS_LEFT}"

RECORDINGS = (
    {"record": SLICE, "expr": f"sum by ({_BY}) (increase(tollgate_cost_usd_total[1h]))"},
    {"record": START, "expr": "vector(time() - time() % 86400) - (day_of_month() - 1) * 86400"},
    {"record": END, "expr": f"{START} + days_in_month() * 86400"},
    {"record": SPENT, "expr": _THIS_MONTH},
    {"record": REST, "expr": f"{_WEEKLY} and on (job) {_A_WEEK_AGO} or {_DAILY}"},
)

# -- tests for promtool, whose time begins with January 1970, on a Thursday -----------------------------------------

_GATE = 'job="tollgate",instance="a"'
_WORK, _REST = (5, 48), (1, 48)  # ten dollars an hour, two at weekends: (a half hour, half hours in a day)
_DAYS = (_WORK, _WORK, *((_REST,) * 2 + (_WORK,) * 5) * 5)
_BUSY, _QUIET, _HOURS = 240, 48, 24  # dollars of a day; hours
Readings = Mapping[int, tuple[float, float]]
"""Minute -> dollars spent, dollars to come."""


def _rising(*parts: tuple[int, int]) -> str:
    total, words = 0, ["0"]
    for per, times in parts:
        words.append(f"{total + per}+{per}x{times - 1}")
        total += per * times
    return " ".join(words)


def _at(day: int, hour: int, minute: int = 0) -> int:
    return (day * _HOURS + hour) * 60 + minute


def _test(step: str, values: str, samples: int, readings: Readings) -> dict[str, Any]:
    cost = f'tollgate_cost_usd_total{{{_GATE},provider="p",model="m",tenant="t",agent="a",component="input"}}'
    return {
        "interval": step,
        "input_series": [
            {"series": f'tollgate_build_info{{{_GATE},version="1"}}', "values": f"1x{samples}"},
            {"series": cost, "values": values},
        ],
        "promql_expr_test": [
            {
                "expr": f"round(sum({name}), 0.01)",
                "eval_time": f"{minute}m",
                "exp_samples": [{"labels": "{}", "value": dollars}] if dollars else [],
            }
            for minute, both in readings.items()
            for name, dollars in zip((SPENT, REST), both, strict=True)
        ],
    }


def tests(groups: list[str]) -> dict[str, dict[str, Any]]:
    """Name of a file of tests -> its content."""
    january, february = 22 * _BUSY + 9 * _QUIET, 20 * _BUSY + 8 * _QUIET
    saturday = 12 * _BUSY + 4 * _QUIET + 12 * 2
    monday = saturday + 12 * 2 + _QUIET + 12 * 10
    tuesday = _QUIET + _BUSY + 6 * 10
    weeks = _test(
        "30m",
        _rising(*_DAYS),
        48 * len(_DAYS),
        {
            # The noon of a Saturday, and half an hour later: an hour is spent when it is over. The end of the month.
            _at(16, 12): (saturday, january - saturday),
            _at(16, 12, 30): (saturday, january - saturday),
            _at(18, 12): (monday, january - monday),
            _at(30, 23): (january - 2, 2),
            # A month begins: nothing of the one before counts as spent, and its last days still say what is to come.
            _at(31, 1): (2, february - 2),
            _at(33, 6): (tuesday, february - tuesday),
        },
    )
    # Ten cents a minute since three hours and a half, of which so many points of a minute are known.
    pace, hours = {30: 3 / (31 / 60), 210: 21 / (211 / 60)}, 31 * _HOURS
    young = _test(
        "1m",
        "0+0.1x400",
        400,
        {30: (0, round(pace[30] * hours, 2)), 210: (18, round(pace[210] * (hours - 3), 2))},
    )
    rule = {"rule_files": ["../cost.yaml"], "group_eval_order": groups}
    return {
        "cost-month": {**rule, "evaluation_interval": "30m", "tests": [weeks]},
        "cost-month-young": {**rule, "evaluation_interval": "1m", "tests": [young]},
    }
