"""Who spent what before today: each stretch of time that is over is read once, an hour at a time, and kept by name.

A look takes about a second at most, whatever the ledger holds; what is not read by then is read by the next looks, the
latest stretches first. Calls that come in late make the stretches that they began in be read anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Final, Literal
from zoneinfo import ZoneInfo

from msgspec import Struct

from gateway.admin.tally import NAMES, OTHERS, sums_of
from gateway.policy.spend_pace import DAY, HOUR, Sums
from gateway.policy.window import Calendar, Window
from gateway.recorder.ledger_spend import SpendReader

Range = Literal["today", "24h", "7d", "30d"]
RANGES: Final[Mapping[Range, int]] = {"today": 0, "24h": 0, "7d": 6, "30d": 29}
"""Name -> whole days before today; 24h: hours, from a full one on."""
SECONDS = 1.0  # of reading in a look
KEPT_NAMES = 300  # the dearest of each dimension in a stretch; what is beyond counts as OTHERS
KEPT_DAYS = 32
FRESH = 200_000  # new rows; after more of them all is read anew

Stretch = tuple[int, int]  # [since, until), ns since the epoch


class Read(Struct):
    """Sums by name. `next`: from when on nothing is read yet."""

    next: int
    names: dict[str, Sums]


class Past:
    """For threads. Methods raise LedgerUnavailable."""

    def __init__(self, reader: SpendReader) -> None:
        self._reader = reader
        self._lock = threading.Lock()
        self._row = 0
        self._read: dict[tuple[str, Stretch], Read] = {}

    def add(self, by: str, wanted: Sequence[Stretch], upto: int, into: dict[str, Sums]) -> int:
        """Add what these stretches have by name, the latest of them first, of rows up to a number; returns how many of
        them that was."""
        with self._lock:
            self._forget(upto, max((until for _, until in wanted), default=0))
            began = time.monotonic()
            for done, stretch in enumerate(wanted):
                read = self._read.setdefault((by, stretch), Read(stretch[0], {}))
                while read.next < stretch[1]:
                    if time.monotonic() - began >= SECONDS:
                        return done
                    self._on(by, read, stretch[1], upto)
                merge(into, read.names)
            return len(wanted)

    def _on(self, by: str, read: Read, until: int, upto: int) -> None:
        """Read an hour more."""
        end = min(until, (read.next // HOUR + 1) * HOUR)
        rows = self._reader.named(by, read.next, end, upto)
        merge(read.names, {row["name"]: sums_of(row) for row in rows})
        read.next = end
        if end == until:
            read.names = folded(read.names)

    def _forget(self, upto: int, latest: int) -> None:
        """What calls that came in since belong to, and what is too old to be asked for."""
        if upto != self._row:
            since = 0 if upto < self._row or upto - self._row > FRESH else self._reader.earliest(self._row, upto)
            for key in [key for key in self._read if since is not None and key[1][1] > since]:
                del self._read[key]
            self._row = upto
        for key in [key for key in self._read if key[1][0] < latest - KEPT_DAYS * DAY]:
            del self._read[key]


def merge(into: dict[str, Sums], names: Mapping[str, Sums]) -> None:
    for name, part in names.items():
        into.setdefault(name if name in into or len(into) < NAMES else OTHERS, Sums()).add(part)


def folded(names: Mapping[str, Sums]) -> dict[str, Sums]:
    """The dearest, and all others as one."""
    if len(names) <= KEPT_NAMES:
        return dict(names)
    ranked = sorted((name for name in names if name != OTHERS), key=lambda name: -names[name].cost)
    kept = {name: names[name] for name in ranked[: KEPT_NAMES - 1]}
    rest = Sums()
    for name in set(names) - set(kept):
        rest.add(names[name])
    return {**kept, OTHERS: rest}


def stretches(of: Range, now: int, day: Window, zone: str) -> list[Stretch]:
    """Before today, the latest first."""
    found = []
    since = day.since
    if of == "24h":
        first = (now - DAY) // HOUR * HOUR
        while since > first:
            since, until = max(first, (since - 1) // HOUR * HOUR), since
            found.append((since, until))
    calendar = Calendar(ZoneInfo(zone))
    for _ in range(RANGES[of]):
        window = calendar.window("day", since - 1)
        found.append((window.since, since))
        since = window.since
    return found
