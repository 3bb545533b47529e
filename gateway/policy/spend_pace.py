"""Sums of calls by the minute, what they come to by the end of a window, and how much of a promise is used up. Pure.

Times are ns since the epoch, money pico-USD.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

MINUTE = 60 * 10**9
HOUR = 60 * MINUTE
DAY = 24 * HOUR
YOUNGEST = 10 * MINUTE  # a pace is that of no shorter time: one call a second ago says nothing of a day
FEW = 20  # calls; of fewer no share is taken

OBJECTIVE = 0.999
"""Share of calls that models are to answer, where nothing else is said."""
BURNS = (
    ("page", 14.4, HOUR, 5 * MINUTE),
    ("page", 6.0, 6 * HOUR, 30 * MINUTE),
    ("ticket", 3.0, DAY, 2 * HOUR),
)
"""(severity, burn rate, long window, short window): those of the usual four that a day of minutes can tell."""


class Sums(Struct):
    """Of any calls. `judged`: those that a model should have answered; `faults`: those of them that it did not."""

    calls: int = 0
    refused: int = 0
    judged: int = 0
    faults: int = 0
    cost: int = 0
    priced: int = 0
    unknown: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    from_cache: int = 0
    tool_calls: int = 0

    def add(self, other: Sums) -> None:
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def total(parts: Iterable[Sums]) -> Sums:
    found = Sums()
    for part in parts:
        found.add(part)
    return found


def within(minutes: Mapping[int, Sums], since: int, until: int) -> Sums:
    """Of the minutes (numbered since the epoch) that begin in [since, until)."""
    return total(part for minute, part in minutes.items() if since <= minute * MINUTE < until)


def pace(cost: int, first: int | None, now: int, span: int) -> float:
    """Pico-USD per ns of the last `span`, or of the time since the first call, where that is younger."""
    if first is None:
        return 0.0
    return cost / min(span, max(YOUNGEST, now - first))


def projected(spent: int, per_ns: float, now: int, until: int) -> int:
    """What a window will have come to when it ends, if things go on so."""
    return spent + round(per_ns * max(0, until - now))


def days_to_come(week: Sequence[int], began: int, days: int) -> int:
    """What so many days after today cost, each like the same weekday of the last seven days. `week`: what those cost,
    today last; the ones before number `began` are older than all calls, and where there are such, a day is like the
    mean of the others."""
    if began:
        return sum(week[began:]) * days // len(week[began:])
    return sum(week[day % len(week)] for day in range(days))


class Burn(Struct, frozen=True):
    """How an objective stands in two windows. `rate` 1 uses the allowance up just as the period ends."""

    severity: str
    threshold: float
    rate: float | None  # the lower one of both windows; None: too few calls
    firing: bool


def burns(minutes: Mapping[int, Sums], now: int, objective: float = OBJECTIVE) -> list[Burn]:
    """Multi-window: it fires while both windows burn faster than the threshold, and is silent on a few calls."""
    found = []
    for severity, threshold, long, short in BURNS:
        rates = [burn_rate(within(minutes, now - span - MINUTE, now + MINUTE), objective) for span in (long, short)]
        known = [rate for rate in rates if rate is not None]
        rate = min(known) if len(known) == 2 else None
        found.append(Burn(severity, threshold, rate, rate is not None and rate > threshold))
    return found


def burn_rate(sums: Sums, objective: float) -> float | None:
    if sums.judged < FEW:
        return None
    return sums.faults / sums.judged / (1 - objective)
