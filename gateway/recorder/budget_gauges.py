"""Gauges of budgets and keys: read from their stores at a scrape.

Rules
1. Series are bounded: there is none for a run, and of more than `limit` budgets the fullest have series of their own;
   the others are added up under `__other__`, so that sums stay right.
2. One denominator: the limit in force. The remaining ratio is what is not *spent* of it; what is reserved is a worst
   case, and a burst of large calls must not look like a budget that is over.
3. The window is that of a calendar; there is none where a budget is rolling, for life, or stands for several.
4. What cannot be read is left out; whether workers can use the store is a gauge of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from gateway.errors import BudgetsUnavailable
from gateway.policy.account_names import parse
from gateway.policy.window import NANOS
from gateway.recorder.facts import tidy
from gateway.recorder.metrics_store import VALUE_LIMIT, Gauge, Labels
from gateway.recorder.names import OVERFLOW
from gateway.spend import NANO_USD, Standing

KEPT_SECONDS = 2.0  # several scrapers cost the store one reading
READ = 5000  # accounts, at most


class Ends(Protocol):
    """What is asked of a key. Times are ns since the epoch; 0: never."""

    @property
    def expires_at(self) -> int: ...

    @property
    def disabled_at(self) -> int: ...


class BudgetGauges:
    """`in_money` asks the store for accounts in USD; `clock` gives seconds. For any thread."""

    def __init__(self, in_money: Callable[[int], Sequence[Standing]], clock: Callable[[], float]) -> None:
        self._in_money = in_money
        self._clock = clock
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._standings: Sequence[Standing] = ()

    def read(self, limit: int) -> dict[str, Gauge]:
        """With at most `limit` series each, and one for the others."""
        with self._lock:
            if self._clock() - self._read_at > KEPT_SECONDS:
                try:
                    self._standings = self._in_money(READ)
                except BudgetsUnavailable:
                    self._standings = ()
                self._read_at = self._clock()
            return gauges_of(self._standings, limit)


def gauges_of(standings: Iterable[Standing], limit: int) -> dict[str, Gauge]:
    newest: dict[Labels, Standing] = {}
    for standing in standings:
        name = parse(standing.account)
        labels: Labels = (name.scope, tidy(name.budget, VALUE_LIMIT))
        known = newest.get(labels)
        if known is None or known.since <= standing.since:  # two windows at once: the time zone was changed
            newest[labels] = standing
    ranked = sorted(newest, key=lambda labels: (_remaining(_counts(newest[labels])), labels))
    series: dict[Labels, tuple[int, int, int]] = {}
    for place, labels in enumerate(ranked):
        shown: Labels = labels if place < limit else (OVERFLOW, OVERFLOW)
        sums = series.get(shown, (0, 0, 0))
        counts = _counts(newest[labels])
        series[shown] = (sums[0] + counts[0], sums[1] + counts[1], sums[2] + counts[2])
    calendar = {labels: newest[labels] for labels in ranked[:limit] if newest[labels].until}
    since = {labels: one.since / NANOS for labels, one in calendar.items()}
    until = {labels: one.until / NANOS for labels, one in calendar.items()}
    return {
        "tollgate_budget_limit_usd": {labels: counts[0] / NANO_USD for labels, counts in series.items()},
        "tollgate_budget_spent_usd": {labels: counts[1] / NANO_USD for labels, counts in series.items()},
        "tollgate_budget_reserved_usd": {labels: counts[2] / NANO_USD for labels, counts in series.items()},
        "tollgate_budget_remaining_ratio": {labels: _remaining(counts) for labels, counts in series.items()},
        "tollgate_budget_window_start_timestamp_seconds": since,
        "tollgate_budget_window_end_timestamp_seconds": until,
    }


def workers(found: Sequence[Mapping[str, float]]) -> dict[str, Gauge]:
    """What the workers say of the store; nothing while there is none."""
    told = [gauges for gauges in found if "budget_store_available" in gauges]
    if not told:
        return {}
    return {
        "tollgate_budget_store_available": min(gauges["budget_store_available"] for gauges in told),
        "tollgate_budget_settles_waiting": sum(gauges.get("budget_settles_waiting", 0.0) for gauges in told),
    }


def keys(listed: Callable[[], Iterable[Ends]], now: int) -> dict[str, Gauge]:
    """`now`: ns since the epoch."""
    counts: dict[Labels, float] = {("active",): 0.0, ("expired",): 0.0, ("disabled",): 0.0}
    try:
        for key in listed():
            expired = 0 < key.expires_at <= now
            counts["disabled" if key.disabled_at else "expired" if expired else "active",] += 1
    except OSError:
        return {}
    return {"tollgate_keys": counts}


def _counts(standing: Standing) -> tuple[int, int, int]:
    return standing.limit, standing.spent, standing.reserved


def _remaining(counts: tuple[int, int, int]) -> float:
    limit, spent, _ = counts
    return max(0.0, min(1.0, (limit - spent) / limit)) if limit > 0 else 0.0
