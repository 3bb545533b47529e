"""Budgets through the API: how accounts stand, adjustments by hand, and the budget of a run."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.spend import Charge, Demand, Grant, Rule, Unit
from gateway.stores.budget_desk import FILE
from gateway.stores.sqlite_budgets import SqliteBudgets
from gateway.testing.records import call_record

Gate = Any  # of conftest.py
USD = 10**9
HOUR = 3600 * USD
SINCE = time.time_ns() // HOUR * HOUR
DAY = f"team:a%2Fb|usd|day|{SINCE}"


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[SqliteBudgets]:
    worker = SqliteBudgets(tmp_path / FILE, "w0")
    yield worker
    worker.close()


def usd(account: str, amount: float, limit: float, **rest: Any) -> Demand:
    return Demand(account, Rule.TOTAL, Unit.USD, round(amount * USD), round(limit * USD), **rest)


async def hold(worker: SqliteBudgets, op: str, *demands: Demand) -> None:
    assert isinstance(await worker.reserve(op, demands), Grant)


async def fill(worker: SqliteBudgets) -> None:
    day = usd(DAY, 2, 10, since=SINCE, until=SINCE + 24 * HOUR, label="team a/b, per day")
    over = usd("team:a%2Fb|usd|day|0", 1, 10, since=1, until=2)
    run = [usd("run:run-1|usd|life", 2, 5), Demand("run:run-1|calls|life", Rule.TOTAL, Unit.CALLS, 1, 3)]
    rate = Demand("key:k/agent:x|tokens|rate", Rule.RATE, Unit.TOKENS, 50, 100, period=60 * USD)
    await hold(worker, "one", day, over, *run, rate)
    worker.settle("one", Charge(usd=USD, tokens=20))
    await hold(worker, "two", day, *run)
    await worker.applied()


async def test_accounts_are_listed_as_people_read_them(gate: Gate, worker: SqliteBudgets) -> None:
    assert await gate.get("/api/budgets") == {"budgets": [], "next": None}
    await fill(worker)
    listed = {one["account"]: one for one in (await gate.get("/api/budgets"))["budgets"]}
    assert list(listed) == sorted(listed)
    assert set(listed) == {DAY, "run:run-1|usd|life", "run:run-1|calls|life", "key:k/agent:x|tokens|rate"}
    day = listed[DAY]
    assert day.pop("resets_at").endswith("Z")
    assert day == {
        "account": DAY,
        "scope": "team",
        "value": "a/b",
        "within_key": None,
        "unit": "usd",
        "rule": "total",
        "per": "day",
        "limit": 10.0,
        "spent": 1.0,
        "reserved": 2.0,
        "remaining": 7.0,
        "label": "team a/b, per day",
    }
    rate = listed["key:k/agent:x|tokens|rate"]
    assert (rate["scope"], rate["value"], rate["within_key"], rate["limit"]) == ("agent", "x", "k", 100)


async def test_accounts_are_filtered_and_paged(gate: Gate, worker: SqliteBudgets) -> None:
    await fill(worker)

    async def names(query: str) -> list[str]:
        return [one["account"] for one in (await gate.get(f"/api/budgets?{query}"))["budgets"]]

    assert await names("scope=team") == [DAY]
    assert await names("scope=team&over=true") == ["team:a%2Fb|usd|day|0", DAY]
    assert await names("prefix=run:run-1|calls") == ["run:run-1|calls|life"]
    assert await names("scope=run&prefix=run:run-1|u") == ["run:run-1|usd|life"]
    assert await names("scope=global") == []
    seen: list[str] = []
    query = "/api/budgets?limit=1"
    while query:
        page = await gate.get(query)
        seen += [one["account"] for one in page["budgets"]]
        query = f"/api/budgets?limit=1&cursor={page['next']}" if page["next"] else ""
    assert seen == await names("limit=100")
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("query", "name"),
    [("scope=planet", "scope"), ("over=yes", "over"), ("scope=team&prefix=run:", "prefix"), ("cursor=x", "cursor")],
)
async def test_a_bad_parameter_is_named(gate: Gate, query: str, name: str) -> None:
    assert (await gate.get(f"/api/budgets?{query}", 400))["parameter"] == name


async def test_an_adjustment_is_booked_once_and_noted(gate: Gate, worker: SqliteBudgets) -> None:
    await fill(worker)
    body = {"account": DAY, "delta_usd": -0.25, "reason": " sorry ", "by": "ann", "id": "gift-1"}
    made = await gate.post("/api/budgets/adjust", body)
    assert (made["repeated"], made["account"]["spent"], made["account"]["remaining"]) == (False, 0.75, 7.25)
    assert (made["adjustment"]["delta_usd"], made["adjustment"]["reason"], made["adjustment"]["by"]) == (
        *(-0.25, "sorry", "ann"),
    )
    again = await gate.post("/api/budgets/adjust", body, 200)
    assert (again["repeated"], again["account"]["spent"]) == (True, 0.75)
    refused = await gate.post("/api/budgets/adjust", {**body, "delta_usd": -5}, 409)
    assert (refused["code"], refused["parameter"]) == ("id_used", "id")
    calls = await gate.post("/api/budgets/adjust", {"account": "run:run-1|calls|life", "delta": 1})
    assert (calls["adjustment"]["delta"], calls["adjustment"]["delta_usd"], calls["account"]["spent"]) == (1, None, 2)
    noted = (await gate.get("/api/budgets/adjustments"))["adjustments"]
    assert [(one["id"], one["delta_usd"], one["delta"]) for one in noted] == [
        ("outcome-1", None, 1),
        ("gift-1", -0.25, None),
    ]
    assert len((await gate.get("/api/budgets/adjustments?limit=1"))["adjustments"]) == 1
    first = {"id": "gift-1", "account": DAY, "delta_usd": -0.25, "reason": "sorry", "by": "ann"}
    assert gate.events[0] == ("budget_adjusted", first)
    assert len(gate.events) == 2
    assert isinstance(await worker.reserve("three", [usd(DAY, 7.25, 10)]), Grant)


@pytest.mark.parametrize(
    ("body", "status", "code", "parameter"),
    [
        ({"account": DAY, "delta": 5}, 400, "bad_parameter", "delta_usd"),
        ({"account": DAY, "delta": 5, "delta_usd": 5}, 400, "bad_parameter", "delta_usd"),
        ({"account": DAY, "delta_usd": 0}, 400, "bad_parameter", "delta_usd"),
        ({"account": "run:run-1|calls|life", "delta_usd": 1}, 400, "bad_parameter", "delta"),
        ({"account": "team:nobody|usd|day|1", "delta_usd": 1}, 404, "account_not_found", None),
        ({"account": DAY, "delta_usd": 1, "id": "a b"}, 400, "bad_body", "body"),
        ({"account": DAY, "delta_usd": 1, "more": 1}, 400, "bad_body", "body"),
        ({"account": "key:k|concurrency", "delta": 1}, 409, "not_adjustable", "account"),
    ],
)
async def test_what_cannot_be_booked_is_not(
    gate: Gate, worker: SqliteBudgets, body: dict[str, Any], status: int, code: str, parameter: str | None
) -> None:
    await fill(worker)
    await hold(worker, "three", Demand("key:k|concurrency", Rule.SLOTS, Unit.CONCURRENCY, 1, 5))
    refused = await gate.post("/api/budgets/adjust", body, status)
    assert (refused["code"], refused.get("parameter")) == (code, parameter)
    assert (await gate.get("/api/budgets/adjustments"))["adjustments"] == []
    assert not gate.events


async def test_a_run_shows_how_it_stands(gate: Gate, worker: SqliteBudgets) -> None:
    gate.fill([call_record(), call_record("call-2", run_id="run-2")])
    assert (await gate.get("/api/runs/run-1"))["budget"] is None
    await fill(worker)
    budget = (await gate.get("/api/runs/run-1"))["budget"]
    assert [one["account"] for one in budget.pop("accounts")] == ["run:run-1|calls|life", "run:run-1|usd|life"]
    assert budget == {
        "limit_usd": 5.0,
        "spent_usd": 1.0,
        "reserved_usd": 2.0,
        "remaining_usd": 2.0,
        "calls_left": 1,
        "steps_left": None,
        "tools_left": None,
        "seconds_left": None,
    }
    assert (await gate.get("/api/runs/run-2"))["budget"] is None


async def test_a_store_that_cannot_be_read_is_said(gate: Gate, tmp_path: Path) -> None:
    gate.fill([call_record()])
    (tmp_path / FILE).write_bytes(b"no database at all, but long enough to be looked at as one" * 100)
    for path in ("/api/budgets", "/api/budgets/adjustments"):
        assert (await gate.get(path, 503))["code"] == "budgets_unavailable"
    assert (await gate.get("/api/runs/run-1"))["budget"] is None
