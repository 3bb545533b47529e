"""What this worker has spent, as running totals: one part of each account, which only this worker ever raises.

Rules
1. A part is (name of the part, account, slot). Its total only grows, so that it may be sent as often as one likes: the
   larger one stands. That makes every booking idempotent without anybody remembering what was booked.
2. The name is new for each life of a worker; it starts with nothing, and nothing must be read before it counts.
3. Bounded: when there are too many totals in memory, those of windows that are over go, or else a new name begins.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from gateway.spend import Demand, Rule

SLOTS = 60  # of a rolling window
MOST = 2**58  # where a total stays: Redis keeps 64 bits of their sum
FIRST = "first"  # the part that tells when an account was first asked
Row = tuple[str, str, int, int, int, int]  # account, part, slot, total, until (ns), period (ns)
Key = tuple[str, str, int]


def slot_at(now: int, period: int) -> int:
    """As the script counts it, in doubles. `now` in microseconds, `period` in nanoseconds."""
    return math.floor(now / (max(1, -(-period // SLOTS)) / 1000))


class SpentParts:
    """`unsent`: what the store has not confirmed; `unwritten`: what the mirror has not."""

    def __init__(self, worker: str, limit: int = 50_000) -> None:
        self.worker = worker
        self.part = worker
        self.limit = limit
        self.unsent: dict[Key, Row] = {}
        self.unwritten: dict[Key, Row] = {}
        self._totals: dict[tuple[str, int], Row] = {}
        self._firsts: dict[str, Row] = {}
        self._generation = 0

    def add(self, demand: Demand, used: int, now: int) -> Row:
        """Book `used` more in the account of this demand; `now` in microseconds of the store's clock."""
        period = demand.period if demand.rule is Rule.ROLLING else 0
        slot = slot_at(now, period) if period else 0
        key = (demand.account, slot)
        before = self._totals.get(key)
        total = min(used if before is None else before[3] + used, MOST)
        row = (demand.account, self.part, slot, total, demand.until, period)
        self._totals[key] = row
        self.note(row)
        if len(self._totals) > self.limit:
            self._shrink(now)
        return row

    def first(self, demand: Demand, now: int) -> None:
        """This account was asked, at the earliest `now` (microseconds) as far as this worker knows."""
        if demand.account not in self._firsts:
            if len(self._firsts) > self.limit:
                self._firsts.clear()
            row = (demand.account, FIRST, 0, now, demand.until, 0)
            self._firsts[demand.account] = row
            self.unwritten[FIRST, demand.account, 0] = row

    def note(self, row: Row) -> None:
        key = (row[1], row[0], row[2])
        self.unsent[key] = self.unwritten[key] = row

    def confirm(self, rows: Iterable[Row]) -> None:
        """The store has these; what has grown since then is still to be sent."""
        unsent = self.unsent
        for row in rows:
            key = (row[1], row[0], row[2])
            if unsent.get(key) == row:
                del unsent[key]

    def all(self) -> list[Row]:
        """Everything in memory: what a store that has lost its own needs, with `unsent`."""
        known = {(row[1], row[0], row[2]): row for row in self._totals.values()}
        return [*{**known, **self.unsent}.values(), *self._firsts.values()]

    def _shrink(self, now: int) -> None:
        """Drop windows that are over; where that is too little, count on under a new name from nothing."""
        self._totals = {
            key: row
            for key, row in self._totals.items()
            if (row[4] == 0 or row[4] // 1000 > now) and (row[5] == 0 or row[2] >= slot_at(now, row[5]) - SLOTS)
        }
        if len(self._totals) > self.limit // 2:
            self._generation += 1
            self.part = f"{self.worker}.{self._generation}"
            self._totals = {}
