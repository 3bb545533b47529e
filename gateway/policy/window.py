"""When windows begin and end: the minutes, hours, days, weeks and months of a calendar in a time zone.

Rules
1. The windows of a zone tile time: each begins where the one before ends, none overlap, whatever clocks do. A day that
   has no midnight begins at its first moment; a clock that is set back makes a longer day, and an hour that is struck
   twice is two hours.
2. A week begins on Monday (ISO 8601).
3. Times are nanoseconds since the epoch. The zone comes from the caller: nothing here reads a clock or a file.

A window is found with a few comparisons while it lasts, and by the calendar once it is over.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

from msgspec import Struct

NANOS = 10**9
CALENDAR = ("minute", "hour", "day", "week", "month")
PERIODS = {"minute": 60, "hour": 3600, "day": 86_400, "week": 604_800, "month": 2_592_000}
"""Seconds of a rolling period; a rolling month is thirty days."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)


class Window(Struct, frozen=True, gc=False):
    """`since` <= now < `until`; `suffix` names it in an account, and is different for each window of a zone."""

    since: int
    until: int
    suffix: str


class Calendar:
    """The windows of one time zone; remembers the current one of each kind."""

    __slots__ = ("_current", "zone")

    def __init__(self, zone: tzinfo = UTC) -> None:
        self.zone = zone
        self._current: dict[str, Window] = {}

    def window(self, per: str, now: int) -> Window:
        """The window of this kind (see `CALENDAR`) that `now` lies in."""
        current = self._current.get(per)
        if current is None or not current.since <= now < current.until:
            current = self._current[per] = self._find(per, now)
        return current

    def _find(self, per: str, now: int) -> Window:
        at = _EPOCH + timedelta(seconds=now // NANOS)
        if per in ("minute", "hour"):
            return self._short(per, at)
        local = at.astimezone(self.zone).replace(tzinfo=None)
        start = local.replace(hour=0, minute=0, second=0, microsecond=0)
        if per == "week":
            start -= timedelta(days=start.weekday())
        elif per == "month":
            start = start.replace(day=1)
        until = _following(start, per)
        since_at, until_at = self._first(start), self._first(until)
        if at >= until_at:  # a clock set back across midnight: the old day's hour is struck again in the new one
            start, since_at, until_at = until, until_at, self._first(_following(until, per))
        return Window(_nanos(since_at), _nanos(until_at), _suffix(start, per))

    def _short(self, per: str, at: datetime) -> Window:
        """A minute or hour as the zone's clocks strike it; cut where they are set."""
        local = at.astimezone(self.zone)
        offset = local.utcoffset() or timedelta()
        seconds = PERIODS[per]
        past = timedelta(seconds=(local.hour * 3600 + local.minute * 60 + local.second) % seconds)
        since, until = at - past, at - past + timedelta(seconds=seconds)
        since = self._cut(since, at, offset, first=False)
        until = self._cut(at, until, offset, first=True) if self._offset(until - _TICK) != offset else until
        return Window(_nanos(since), _nanos(until), f"{since:%Y-%m-%dT%H:%M}Z")

    def _cut(self, low: datetime, high: datetime, offset: timedelta, *, first: bool) -> datetime:
        """Between `low` and `high`: the moment from which the offset holds (not `first`), or ceases to hold."""
        if not first and self._offset(low) == offset:
            return low
        before, after = low, high
        while after - before > timedelta(seconds=1):
            middle = before + timedelta(seconds=int((after - before).total_seconds()) // 2)
            if (self._offset(middle) == offset) == first:
                before = middle
            else:
                after = middle
        return after

    def _offset(self, at: datetime) -> timedelta:
        return at.astimezone(self.zone).utcoffset() or timedelta()

    def _first(self, local: datetime) -> datetime:
        """The first moment at which the zone's clocks show this time or a later one."""
        at = local.replace(tzinfo=self.zone, fold=0).astimezone(UTC)
        if at.astimezone(self.zone).replace(tzinfo=None) == local:
            return at
        offset = self._offset(at - timedelta(days=1))  # a gap: the clocks jump over it
        return self._cut(at - timedelta(days=1), at + timedelta(hours=3), offset, first=True)


def _following(start: datetime, per: str) -> datetime:
    if per == "month":
        return (start + timedelta(days=32)).replace(day=1)
    return start + timedelta(days=7 if per == "week" else 1)


def _suffix(start: datetime, per: str) -> str:
    return f"{start:%Y-%m}" if per == "month" else f"{start:%Y-%m-%d}"


def _nanos(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(seconds=1) * NANOS
