"""The figures of now, kept in memory and brought up to date by what came in since: by the minute, and by name today.

What is new is found by the numbers of rows, so that a look costs what came in and not what there is. At the first look
of a day all is read, an hour at a time. A call that is written anew (its worker died, and its record came after all)
counts twice until then.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from sqlite3 import Row
from typing import Final, TypeVar
from zoneinfo import ZoneInfo

from msgspec import Struct

from gateway.errors import LedgerUnavailable
from gateway.policy.spend_pace import DAY, HOUR, MINUTE, Sums
from gateway.policy.window import Calendar, Window
from gateway.recorder.ledger_spend import SpendReader

T = TypeVar("T")

DIMENSIONS: Final = ("agent", "model", "tenant")
NAMES = 2000  # of each dimension; what is beyond counts as OTHERS
OTHERS = "(others)"
DAYS_BACK = 13
LOAD_SECONDS = 0.5  # at one look, for days that are over


class DayCost(Struct, frozen=True):
    """Of a day that is over: pico-USD, calls with a known and with an unknown cost, calls."""

    cost: int
    priced: int
    unknown: int
    calls: int


class Figures(Struct):
    """A look. `minutes` by number since the epoch; `today` by dimension and name; `days` by their start, None where
    one is not known (yet)."""

    now: int
    row: int
    hour: Window
    day: Window
    month: Window
    minutes: Mapping[int, Sums]
    today: Mapping[str, Mapping[str, Sums]]
    days: Mapping[int, DayCost | None]
    reader: SpendReader


class Tally:
    """`zone` is that of days; it may change with a reload. For threads; methods raise LedgerUnavailable."""

    def __init__(self, reader: SpendReader, now: Callable[[], int], zone: Callable[[], str]) -> None:
        self._reader, self._now, self._zone = reader, now, zone
        self._lock = threading.Lock()
        self._calendar, self._named = Calendar(), ""
        self._row, self._whole = 0, False  # the last row taken; was all read?
        self._floor = 0
        self._minutes: dict[int, Sums] = {}
        self._today: dict[str, dict[str, Sums]] = {}
        self._day = Window(0, 0, "")
        self._days: dict[int, DayCost | None] = {}

    def look(self, show: Callable[[Figures], T]) -> T:
        """Take in what is new, and make of it what `show` does; what it is given changes with the next look."""
        with self._lock:
            now, last = self._now(), self._reader.last()
            zone = self._zone()
            if zone != self._named:
                self._calendar, self._named, self._whole, self._days = Calendar(ZoneInfo(zone)), zone, False, {}
            if not self._whole or last < self._row or self._calendar.window("day", now) != self._day:
                self._begin(now, last)
            elif last > self._row:
                self._add_minutes(self._reader.new_minutes(self._row, last, self._floor))
                self._add_names(self._reader.new_names(self._row, last, self._day.since))
                self._row = last
            self._forget(now - DAY - HOUR)
            self._load_days(now)
            hour, month = self._calendar.window("hour", now), self._calendar.window("month", now)
            return show(
                Figures(now, self._row, hour, self._day, month, self._minutes, self._today, self._days, self._reader)
            )

    def _begin(self, now: int, last: int) -> None:
        """All anew, an hour at a time: each query is bounded."""
        day = self._calendar.window("day", now)
        self._whole, self._minutes, self._day = False, {}, day
        self._today = {of: defaultdict(Sums) for of in DIMENSIONS}
        self._floor = min(day.since, now - DAY) // HOUR * HOUR
        for since in range(self._floor, now + 2 * HOUR, HOUR):
            self._add_minutes(self._reader.minutes(since, since + HOUR, last))
            if since + HOUR > day.since:
                self._add_names(self._reader.names(max(since, day.since), since + HOUR, last))
        self._row, self._whole = last, True

    def _forget(self, before: int) -> None:
        """Minutes that nobody asks for any more: of another day, and older than one."""
        self._floor = max(self._floor, min(self._day.since, before))
        for minute in [minute for minute in self._minutes if (minute + 1) * MINUTE <= self._floor]:
            del self._minutes[minute]

    def _add_minutes(self, rows: list[Row]) -> None:
        for row in rows:
            self._minutes.setdefault(row["minute"], Sums()).add(sums_of(row))

    def _add_names(self, rows: list[Row]) -> None:
        for row in rows:
            for of in DIMENSIONS:
                self._named_sums(of, row[of]).add(sums_of(row))

    def _named_sums(self, of: str, name: str) -> Sums:
        names = self._today[of]
        return names[name if name in names or len(names) < NAMES else OTHERS]

    def _load_days(self, now: int) -> None:
        """Days that are over, the latest first, as far as there is time."""
        began, wanted, since = time.monotonic(), {}, self._day.since
        first = min(self._calendar.window("month", now).since, since - DAYS_BACK * DAY)
        while since > first:
            window = Calendar(self._calendar.zone).window("day", since - 1)
            since = window.since
            wanted[since] = self._days.get(since)
            if wanted[since] is None and time.monotonic() - began < LOAD_SECONDS:
                wanted[since] = self._day_cost(window)
        self._days = wanted

    def _day_cost(self, window: Window) -> DayCost | None:
        try:
            return DayCost(*self._reader.day(window.since, window.until))
        except LedgerUnavailable:
            return None


def sums_of(row: Row) -> Sums:
    return Sums(**{name: row[name] for name in Sums.__struct_fields__})
