from __future__ import annotations

import itertools
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.window import CALENDAR, NANOS, Calendar, Window

# Whole hours, half hours, 45 minutes; clocks set at midnight, by half an hour, across the date line, and not at all.
ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "America/Havana", "Asia/Kathmandu",
    "Asia/Beirut", "Asia/Pyongyang", "Australia/Lord_Howe", "Africa/Casablanca", "Africa/Cairo", "Pacific/Apia",
    "Pacific/Chatham", "Pacific/Kwajalein", "America/St_Johns", "America/Scoresbysund", "Antarctica/Troll",
]  # fmt: skip
moments = st.integers(
    int(datetime(1985, 1, 1, tzinfo=UTC).timestamp()), int(datetime(2037, 1, 1, tzinfo=UTC).timestamp())
)


def ns(text: str, zone: str = "UTC", fold: int = 0) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()) * NANOS


def at(zone: str, per: str, now: int) -> Window:
    """Without anything remembered."""
    return Calendar(ZoneInfo(zone)).window(per, now)


@given(st.sampled_from(ZONES), st.sampled_from(CALENDAR), moments, st.integers(0, NANOS - 1))
def test_windows_tile_time(zone: str, per: str, second: int, rest: int):
    now = second * NANOS + rest
    window = at(zone, per, now)
    assert window.since <= now < window.until
    assert at(zone, per, window.since) == at(zone, per, window.until - 1) == window
    before, after = at(zone, per, window.since - 1), at(zone, per, window.until)
    assert before.until == window.since
    assert after.since == window.until
    assert len({before.suffix, window.suffix, after.suffix}) == 3


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("per", ["hour", "day", "week"])
def test_no_two_windows_of_a_year_with_every_change_of_clocks_share_a_name(zone: str, per: str):
    calendar = Calendar(ZoneInfo(zone))
    now, end = ns("2011-06-01T00:00"), ns("2012-07-01T00:00")
    names = []
    while now < end:
        window = calendar.window(per, now)
        names.append(window.suffix)
        now = window.until
    assert len(names) == len(set(names)) > 50


@given(st.sampled_from(ZONES), st.lists(st.tuples(st.sampled_from(CALENDAR), moments), min_size=2, max_size=6))
def test_what_is_remembered_changes_nothing(zone: str, asked: list[tuple[str, int]]):
    calendar = Calendar(ZoneInfo(zone))
    for per, second in asked:
        assert calendar.window(per, second * NANOS) == at(zone, per, second * NANOS)


@pytest.mark.parametrize(
    ("zone", "per", "now", "since", "until", "suffix"),
    [
        ("UTC", "minute", "2026-11-27T12:34:56", "2026-11-27T12:34", "2026-11-27T12:35", "2026-11-27T12:34Z"),
        ("UTC", "day", "2026-11-27T12:34:56", "2026-11-27T00:00", "2026-11-28T00:00", "2026-11-27"),
        ("UTC", "week", "2026-11-29T23:59:59", "2026-11-23T00:00", "2026-11-30T00:00", "2026-11-23"),
        ("UTC", "week", "2026-11-30T00:00", "2026-11-30T00:00", "2026-12-07T00:00", "2026-11-30"),
        ("UTC", "month", "2028-02-29T10:00", "2028-02-01T00:00", "2028-03-01T00:00", "2028-02"),
        ("UTC", "month", "2026-12-31T23:59:59", "2026-12-01T00:00", "2027-01-01T00:00", "2026-12"),
        ("Europe/Berlin", "day", "2026-11-26T23:30", "2026-11-26T23:00", "2026-11-27T23:00", "2026-11-27"),
        ("Asia/Kathmandu", "hour", "2026-11-27T12:20", "2026-11-27T12:15", "2026-11-27T13:15", "2026-11-27T12:15Z"),
    ],
)
def test_named_windows(zone: str, per: str, now: str, since: str, until: str, suffix: str):
    assert at(zone, per, ns(now)) == Window(ns(since), ns(until), suffix)


def hours(window: Window) -> float:
    return (window.until - window.since) / NANOS / 3600


@pytest.mark.parametrize(
    ("zone", "day", "length"),
    [
        ("Europe/Berlin", "2026-03-29T12:00", 23),
        ("Europe/Berlin", "2026-10-25T12:00", 25),
        ("America/Sao_Paulo", "2018-11-04T12:00", 23),  # begins at one o'clock: there was no midnight
        ("America/Havana", "2026-03-08T12:00", 23),
        ("Australia/Lord_Howe", "2026-04-05T12:00", 24.5),
        ("Pacific/Apia", "2011-12-31T12:00", 24),  # the 30th never was
    ],
)
def test_days_on_which_clocks_are_set(zone: str, day: str, length: float):
    window = at(zone, "day", ns(day, zone))
    assert hours(window) == length
    assert window.suffix == day[:10]


def test_an_hour_that_is_struck_twice_is_two():
    first, second = (at("Europe/Berlin", "hour", ns("2026-10-25T02:30", "Europe/Berlin", fold)) for fold in (0, 1))
    assert first.until == second.since
    assert hours(first) == hours(second) == 1


def test_weeks_begin_on_monday():
    for offset in itertools.accumulate([0] + [86_400 * NANOS] * 30):
        window = at("America/New_York", "week", ns("2026-10-15T08:00") + offset)
        begins = datetime.fromtimestamp(window.since / NANOS, ZoneInfo("America/New_York"))
        assert (begins.isoweekday(), begins.hour, begins.minute) == (1, 0, 0)
