"""Who spent what over days: from the ledger, each stretch once, in bounded looks."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import sqlite3
from typing import Any

import pytest

from gateway.admin import tally_past
from gateway.admin.tally import OTHERS
from gateway.admin.tally_past import KEPT_NAMES, folded, stretches
from gateway.config.schema import Config, Spending
from gateway.policy.spend_pace import DAY, HOUR, MINUTE, Sums
from gateway.policy.window import Calendar
from gateway.recorder import ledger_spend
from gateway.testing.records import START, call_record

Gate = Any  # of conftest.py
CENT = 10**10  # pico-USD
NOON = START // DAY * DAY + DAY // 2


def calls(*ages: int, prefix: str = "p", **facts: Any) -> list[Any]:
    """A call of a cent begun so many ns before noon."""
    return [
        call_record(f"{prefix}{n}", **{"started_at": NOON - age, "cost": CENT, **facts}) for n, age in enumerate(ages)
    ]


async def over(gate: Gate, range_: str, by: str = "agent") -> dict[str, Any]:
    found: dict[str, Any] = await gate.get(f"/api/spenders?by={by}&range={range_}")
    return found


async def number(gate: Gate, range_: str) -> int:
    found = await over(gate, range_)
    assert found["complete"]
    return sum(one["calls"] for one in found["spenders"])


async def test_each_range_has_the_calls_that_began_in_it(gate: Gate) -> None:
    gate.at = NOON + 30 * MINUTE
    # Today; yesterday within and without 24 hours; the first of the days of 7 and of 30, and the last outside of them.
    gate.fill(calls(0, 23 * HOUR, 25 * HOUR, 6 * DAY + 11 * HOUR, 6 * DAY + 13 * HOUR, 29 * DAY + 11 * HOUR, 40 * DAY))
    assert [await number(gate, name) for name in ("today", "24h", "7d", "30d")] == [1, 2, 4, 6]
    found = await over(gate, "24h")
    assert found["range"] == "24h"
    assert found["since"] == "2026-09-20T12:00:00.000000Z", "from a full hour on"
    assert (await over(gate, "7d"))["since"] == "2026-09-15T00:00:00.000000Z"
    assert (await gate.get("/api/spenders"))["range"] == "today"
    assert (await gate.get("/api/spenders?range=8d", 400))["parameter"] == "range"


async def test_sums_of_days_and_of_today_are_one_line(gate: Gate) -> None:
    gate.at = NOON + MINUTE
    gate.fill(calls(0, 2 * DAY, 3 * DAY, agent="a"))
    gate.fill(calls(2 * DAY, agent="b", outcome="failed", model_used="other", prefix="q"))
    found = (await over(gate, "7d"))["spenders"]
    assert [(one["name"], one["calls"], one["faults"], one["cost_usd"]) for one in found] == [
        ("a", 3, 0, pytest.approx(0.03)),
        ("b", 1, 1, pytest.approx(0.01)),
    ]
    assert {one["name"] for one in (await over(gate, "7d", "model"))["spenders"]} >= {"other"}
    assert sum(one["calls"] for one in (await over(gate, "today"))["spenders"]) == 1, (
        "today's own sums are as they were"
    )


async def test_what_was_read_is_read_once_and_what_comes_late_is_seen(gate: Gate, monkeypatch: Any) -> None:
    gate.at = NOON + MINUTE
    gate.fill(calls(DAY, 2 * DAY, 3 * DAY))
    assert await number(gate, "7d") == 3
    read = []
    named = ledger_spend.SpendReader.named

    def counted(self: Any, by: str, since: int, until: int, upto: int) -> Any:
        read.append((since, until))
        return named(self, by, since, until, upto)

    monkeypatch.setattr(ledger_spend.SpendReader, "named", counted)
    gate.fill(calls(0, prefix="new"))
    assert await number(gate, "7d") == 4
    assert read == [], "a call of today is no reason to read what is over"
    gate.fill(calls(2 * DAY, prefix="late"))
    assert await number(gate, "7d") == 5
    days = {since // DAY for since, _ in read}
    assert days == {NOON // DAY - 1, NOON // DAY - 2}, "the day of the late call and those after it"


async def test_a_ledger_that_was_made_anew_is_read_anew(gate: Gate) -> None:
    gate.at = NOON + MINUTE
    gate.fill(calls(DAY, 2 * DAY, 3 * DAY))
    assert await number(gate, "7d") == 3
    gate.ledger.close()
    gate.ledger.path.unlink()
    gate.ledger.open()
    gate.fill(calls(DAY))
    assert await number(gate, "7d") == 1


async def test_a_look_ends_in_time_and_the_next_goes_on(gate: Gate, monkeypatch: Any) -> None:
    gate.at = NOON + MINUTE
    gate.fill(calls(0, *(days * DAY for days in range(1, 30))))
    clock = iter(range(10**9))
    monkeypatch.setattr(tally_past, "SECONDS", 40)
    monkeypatch.setattr(tally_past.time, "monotonic", lambda: float(next(clock)))  # a second for each hour read
    looks = [await over(gate, "30d")]
    while not looks[-1]["complete"]:
        looks.append(await over(gate, "30d"))
        assert len(looks) < 100
    assert len(looks) > 5
    counts = [sum(one["calls"] for one in look["spenders"]) for look in looks]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (2, 30), "the latest day comes first"
    assert [look["since"] for look in looks] == sorted((look["since"] for look in looks), reverse=True)
    for look, calls_ in zip(looks, counts, strict=True):
        day = Calendar().window("day", NOON).since - (calls_ - 1) * DAY
        assert look["since"][:10] == dt.datetime.fromtimestamp(day / 1e9, dt.UTC).date().isoformat()


async def test_days_are_those_of_the_zone_of_budgets(gate: Gate) -> None:
    gate.config = Config(spending=Spending(timezone="Asia/Kolkata"))  # half an hour off
    gate.at = NOON
    gate.fill(calls(6 * DAY + 17 * HOUR, 6 * DAY + 18 * HOUR))
    assert await number(gate, "7d") == 1
    assert (await over(gate, "7d"))["since"].endswith("T18:30:00.000000Z")


def test_hours_of_a_day_tile_it_whenever_it_begins() -> None:
    calendar = Calendar()
    day = calendar.window("day", NOON)
    for since in (day.since, day.since + 30 * MINUTE):
        found = stretches("24h", NOON + 7 * MINUTE, type(day)(since, since + DAY, ""), "UTC")
        assert found[0][1] == since
        assert found[-1][0] == NOON - DAY
        assert all(later[0] == earlier[1] for later, earlier in itertools.pairwise(found))
        assert all(until - first <= HOUR for first, until in found)
    assert stretches("today", NOON, day, "UTC") == []


def test_beyond_the_dearest_names_are_others_and_nothing_is_lost() -> None:
    many = {f"n{cost}": Sums(calls=1, cost=cost) for cost in range(KEPT_NAMES + 50)}
    few = folded(many)
    assert len(few) == KEPT_NAMES
    assert sum(one.cost for one in few.values()) == sum(one.cost for one in many.values())
    assert few[OTHERS].cost == sum(range(51))
    assert folded(few) == few


def plan(statement: str, path: Any) -> list[str]:
    values = {"since": 0, "until": 1, "after": 0, "upto": 9}
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("EXPLAIN QUERY PLAN " + statement, values).fetchall()
    return [str(row[-1]) for row in rows]


async def test_no_query_reads_more_than_its_hour_or_what_is_new(gate: Gate) -> None:
    gate.fill(calls(0))
    for statement in ledger_spend._ONE_AT_TIME.values():
        (search, *_) = plan(statement, gate.ledger.path)
        assert search == "SEARCH calls USING INDEX calls_time (started_at>? AND started_at<?)"
    (search, *_) = plan(ledger_spend._EARLIEST, gate.ledger.path)
    assert search == "SEARCH calls USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"
