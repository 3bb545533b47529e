"""The live figures: what is summed up, what is the matter, and events for those who listen."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from gateway.admin.live import BEHIND, LIVE, STREAMS
from gateway.admin.live_views import ChangedRuns, SummaryView
from gateway.admin.state import Gauges
from gateway.admin.views import Readiness, WorkersView
from gateway.config.schema import Config, Spending
from gateway.config.schema_slo import Slo
from gateway.journal.record import EventRecord
from gateway.policy.controls import LOOP_BREAKER, Decision, Kind, Scope
from gateway.testing.records import START, call_record

Gate = Any  # of conftest.py
MINUTE, HOUR, DAY = 60 * 10**9, 3600 * 10**9, 86_400 * 10**9
CENT = 10**10  # pico-USD
NOON = START // DAY * DAY + DAY // 2  # of a day in UTC


def calls(*facts: dict[str, Any], prefix: str = "c") -> list[Any]:
    return [call_record(f"{prefix}{n}", **{"started_at": NOON, "cost": CENT, **one}) for n, one in enumerate(facts)]


class Stream:
    """What a listener reads: pairs of an event's name and its data."""

    def __init__(self, response: Any) -> None:
        self._response = response

    async def next(self) -> tuple[str, Any]:
        while True:
            block = (await self._response.content.readuntil(b"\n\n")).decode()
            if not block:
                raise EOFError
            fields = dict(line.split(": ", 1) for line in block.split("\n") if line and line[0] != ":")
            if fields:
                return fields["event"], json.loads(fields["data"])

    async def until(self, name: str) -> Any:
        while True:
            found, data = await self.next()
            if found == name:
                return data


@asynccontextmanager
async def listening(gate: Gate, **kwargs: Any) -> AsyncIterator[Stream]:
    async with gate.client.get("/api/events", **kwargs) as response:
        assert response.status == 200
        yield Stream(response)


async def summary(gate: Gate) -> dict[str, Any]:
    found: dict[str, Any] = await gate.get("/api/summary")
    return found


async def kinds(gate: Gate) -> list[str]:
    return [one["kind"] for one in (await summary(gate))["conditions"]]


async def test_nothing_yet_is_zero_and_not_unknown(gate: Gate) -> None:
    found = await summary(gate)
    assert found["day"]["cost_usd"] == found["hour"]["cost_usd"] == found["month"]["cost_usd"] == 0
    assert found["day"]["projected_usd"] == 0
    assert found["conditions"] == []
    assert found["slo"]["availability"] is None
    assert sum(found["tens"]["calls"]) == sum(found["minutes"]["calls"]) == 0


async def test_calls_are_in_the_hour_the_day_and_the_month_they_began_in(gate: Gate) -> None:
    gate.at = NOON + 30 * MINUTE
    gate.fill(calls({}, {"started_at": NOON - 1}, {"started_at": NOON - DAY}, {"started_at": NOON - 40 * DAY}))
    found = await summary(gate)
    spent = [round(found[name]["cost_usd"], 9) for name in ("hour", "day", "month")]
    assert spent == [0.01, 0.02, 0.03]
    assert found["today"]["calls"] == 2
    assert found["days"][-1]["cost_usd"] == 0.01
    assert len(found["days"]) == max(13, found_day_of_month(found) - 1)


def found_day_of_month(found: dict[str, Any]) -> int:
    return int(found["at"][8:10])


async def test_what_is_to_come_is_the_pace_of_the_last_hour(gate: Gate) -> None:
    gate.at = NOON + 30 * MINUTE
    gate.fill(calls(*({"started_at": gate.at - n * MINUTE} for n in range(60))))  # a cent a minute
    found = await summary(gate)
    assert found["hour"]["cost_usd"] == pytest.approx(0.31)
    assert found["hour"]["projected_usd"] == pytest.approx(0.31 + 0.30, rel=0.03)
    assert found["day"]["projected_usd"] == pytest.approx(0.60 + 11.5 * 0.60, rel=0.03)
    assert found["month"]["projected_usd"] > found["day"]["projected_usd"]


def days_left(gate: Gate) -> list[dt.date]:
    """Of the month, after today."""
    day = dt.datetime.fromtimestamp(gate.at / 1e9, dt.UTC).date()
    days = [day + dt.timedelta(number) for number in range(1, 31)]
    return [one for one in days if one.month == day.month]


def daily(gate: Gate, costs: dict[int, int]) -> list[Any]:
    """A call of so many cents at the noon of so many days ago."""
    noon = gate.at // DAY * DAY + DAY // 2
    return calls(*({"started_at": noon - ago * DAY, "cost": cents * CENT} for ago, cents in costs.items()))


async def test_the_rest_of_the_month_has_the_weekends_of_the_last_week(gate: Gate) -> None:
    gate.at = START // DAY * DAY + DAY - MINUTE  # nothing more comes today
    today = dt.datetime.fromtimestamp(gate.at / 1e9, dt.UTC).date()

    def cents(day: dt.date) -> int:
        return 0 if day.weekday() == 6 else 2 if day.weekday() == 5 else 100

    gate.fill(daily(gate, {n: cents(today - dt.timedelta(n)) for n in range(9) if cents(today - dt.timedelta(n))}))
    found = await summary(gate)
    left = days_left(gate)
    assert len(left) > 7
    so_far = found["month"]["cost_usd"]
    assert found["month"]["projected_usd"] == pytest.approx(so_far + sum(map(cents, left)) / 100)


async def test_a_month_of_a_young_gateway_goes_on_as_the_days_that_there_are(gate: Gate) -> None:
    gate.at = START // DAY * DAY + DAY - MINUTE
    gate.fill(daily(gate, {3: 100, 1: 20}))  # two days without a call among the four
    found = await summary(gate)
    so_far = found["month"]["cost_usd"]
    assert found["month"]["projected_usd"] == pytest.approx(so_far + len(days_left(gate)) * 1.2 / 4)


async def test_what_came_in_since_is_added_and_counted_once(gate: Gate) -> None:
    gate.at = NOON + MINUTE
    gate.fill(calls({}, {}))
    assert (await summary(gate))["day"]["calls"] == 2
    gate.fill(calls({}, {"started_at": NOON - 3 * MINUTE}, prefix="late"))
    again = [(await summary(gate))["day"]["calls"] for _ in range(3)]
    assert again == [4, 4, 4]
    gate.at += 13 * HOUR  # another day, and all is read anew
    found = await summary(gate)
    assert (found["day"]["calls"], found["days"][-1]["cost_usd"]) == (0, pytest.approx(0.04))


async def test_a_ledger_that_was_made_anew_is_read_anew(gate: Gate) -> None:
    gate.at = NOON + MINUTE
    gate.fill(calls({}, {}, {}))
    assert (await summary(gate))["day"]["calls"] == 3
    gate.ledger.close()
    gate.ledger.path.unlink()
    gate.ledger.open()
    gate.fill(calls({}))
    assert (await summary(gate))["day"]["calls"] == 1


async def test_the_day_is_that_of_the_zone_of_budgets(gate: Gate) -> None:
    gate.at = NOON
    gate.fill(calls({"started_at": NOON - 13 * HOUR}))  # yesterday in UTC, today in Tokyo
    assert (await summary(gate))["day"]["calls"] == 0
    gate.config = Config(spending=Spending(timezone="Asia/Tokyo"))
    found = await summary(gate)
    assert (found["day"]["calls"], found["timezone"]) == (1, "Asia/Tokyo")
    assert found["day"]["until"].startswith(found["at"][:10] + "T15:00")
    gate.config = Config(spending=Spending(timezone="Pacific/Honolulu"))
    assert (await summary(gate))["day"]["calls"] == 0


async def test_an_unknown_cost_is_said_and_never_zero(gate: Gate) -> None:
    gate.at = NOON + MINUTE
    gate.fill(calls({"cost": None, "cost_components": {}, "cost_status": "no_price"}))
    found = await summary(gate)
    assert found["day"]["cost_usd"] is None
    assert found["day"]["unknown_cost_calls"] == 1
    assert await kinds(gate) == ["price_unknown"]


async def test_who_spends(gate: Gate) -> None:
    gate.at = NOON + MINUTE
    gate.fill(
        calls({"agent": "a", "cost": 5 * CENT}, {"agent": "b"}, {"agent": "a", "outcome": "failed"}, {"agent": ""})
    )
    found = await gate.get("/api/spenders?by=agent")
    assert [(one["name"], one["calls"], one["faults"]) for one in found["spenders"]] == [
        ("a", 2, 1),
        (None, 1, 0),
        ("b", 1, 0),
    ]
    by_model = (await gate.get("/api/spenders", params={"by": "model"}))["spenders"]
    assert [one["name"] for one in by_model] == ["gpt-4o-mini-2024-07-18"]
    assert len((await gate.get("/api/spenders?by=tenant&limit=1"))["spenders"]) == 1
    assert (await gate.get("/api/spenders?by=shoe", 400))["parameter"] == "by"


async def test_every_condition_comes_and_goes_with_its_cause(gate: Gate) -> None:
    gate.at = NOON + MINUTE
    plain = gate.readiness
    gate.readiness = Readiness(
        ready=False, draining=False, workers=WorkersView(ready=0, total=2), ledger="unavailable", lag_seconds=61.0
    )
    gate.gauges = Gauges(lost=3, reload_ok=False, reload_message="upstreams.x: no url", needs_restart=("listen",))
    found = (await summary(gate))["conditions"]
    by_kind = {one["kind"]: one for one in found}
    assert set(by_kind) == {
        "no_worker",
        "ledger_unavailable",
        "journal_lag",
        "journal_lost",
        "reload_failed",
        "needs_restart",
    }
    assert [one["severity"] for one in found] == sorted(
        (one["severity"] for one in found), key=["critical", "warning", "info"].index
    )
    assert "upstreams.x: no url" in by_kind["reload_failed"]["text"]
    gate.readiness, gate.gauges = plain, Gauges()
    assert await kinds(gate) == []


async def test_breakers_open_held_and_closed_again(gate: Gate) -> None:
    def changed(id: str, at: int, state: str) -> EventRecord:
        return EventRecord(
            id, at, "breaker", 0, {"breaker": "openai", "state": state, "why": "5 failures in a row", "seconds": 5.0}
        )

    gate.at = NOON + MINUTE
    gate.fill([changed("e1", NOON, "open")])
    (one,) = (await summary(gate))["conditions"]
    assert (one["kind"], one["subject"], one["severity"]) == ("breaker_open", "openai", "critical")
    assert "5 failures" in one["text"]
    gate.fill([changed("e2", NOON + 1, "closed")])
    assert await kinds(gate) == []
    gate.decisions.record(Decision(Kind.OPEN, Scope.UPSTREAM, "openai", at=NOON))
    assert await kinds(gate) == ["breaker_held"]


async def test_runs_that_were_stopped(gate: Gate) -> None:
    gate.at = NOON + MINUTE
    refused = {"outcome": "refused", "status": 402, "error_code": "run_stopped", "error_message": "it goes in circles"}
    gate.fill(calls({"run_id": "loop", **refused}, {"run_id": "loop", **refused}, {"run_id": "fine"}))
    gate.decisions.record(Decision(Kind.KILL, Scope.AGENT, "bot", reason="enough", at=NOON))
    found = (await summary(gate))["conditions"]
    assert {(one["subject"], one["run"]) for one in found} == {("run loop", "loop"), ("agent bot", None)}
    assert {"it goes in circles", "Stopped by hand: enough."} == {one["text"] for one in found}
    gate.at += 2 * HOUR
    assert [one["subject"] for one in (await summary(gate))["conditions"]] == ["agent bot"]


async def test_runs_that_the_loop_breaker_stopped_are_told_of_for_an_hour_and_displace_nobody(gate: Gate) -> None:
    gate.at = NOON + MINUTE
    gate.decisions.record(Decision(Kind.KILL, Scope.TEAM, "ours", at=NOON - DAY))
    for n in range(30):
        kill = Decision(Kind.KILL, Scope.RUN, f"loop-{n}", reason="It goes round.", who=LOOP_BREAKER, at=NOON + n)
        gate.decisions.record(kill)
    found = [one for one in (await summary(gate))["conditions"] if one["kind"] == "stopped"]
    assert [one["run"] for one in found[:2]] == ["loop-29", "loop-28"]
    assert found[0]["text"] == "Stopped by the loop breaker: It goes round."
    assert found[-1]["text"] == "Stopped by hand: no reason given."
    gate.at += 2 * HOUR
    assert [one["subject"] for one in (await summary(gate))["conditions"]] == ["team ours"]


async def test_models_that_fail_burn_the_objective(gate: Gate) -> None:
    gate.at = NOON + MINUTE
    gate.fill(calls(*({"outcome": "failed"} for _ in range(5))))
    assert await kinds(gate) == [], "five calls prove nothing"
    gate.fill(calls(*({"outcome": "ok" if n % 2 else "failed"} for n in range(40)), prefix="d"))
    found = await summary(gate)
    assert [one["kind"] for one in found["conditions"]] == ["slo_burn"]
    assert found["slo"]["availability"] == pytest.approx(1 - 25 / 45)
    assert found["slo"]["burns"][0]["firing"] is True


async def test_the_objective_is_the_one_that_is_configured(gate: Gate) -> None:
    tools = Slo(name="tools", sli="tools", objective=50)
    part = Slo(name="one", sli="availability", objective=60, match={"model": "m"})
    gate.config = Config(slos=(tools, part, Slo(name="all", sli="availability", objective=95)))
    gate.at = NOON + MINUTE
    gate.fill(calls(*({"outcome": "failed" if n % 4 == 0 else "ok"} for n in range(40))))
    found = await summary(gate)
    assert found["slo"]["objective"] == 0.95
    assert found["slo"]["burns"][0]["rate"] == pytest.approx(5)
    assert "slo_burn" not in [one["kind"] for one in found["conditions"] if one["severity"] == "page"]


async def test_what_clients_do_wrong_is_no_fault_of_models(gate: Gate) -> None:
    gate.at = NOON + MINUTE
    own = [{"outcome": "upstream_error", "status": 400}, {"outcome": "upstream_error", "status": 429}]
    own += [{"outcome": "refused", "status": 402}, {"outcome": "cancelled"}]
    theirs = [
        {"outcome": "upstream_error", "status": 500},
        {"outcome": "refused", "status": 503},
        {"outcome": "failed"},
    ]
    gate.fill(calls(*own, *theirs))
    today = (await summary(gate))["today"]
    assert (today["calls"], today["refused"], today["faults"]) == (7, 2, 3)


async def test_events_begin_with_a_summary_and_follow_what_happens(gate: Gate) -> None:
    gate.at = NOON + MINUTE
    gate.fill(calls({"run_id": "before"}))
    async with listening(gate) as stream:
        name, data = await stream.next()
        assert name == "summary"
        assert msgspec.convert(data, SummaryView).day.calls == 1
        gate.fill(calls({"run_id": "r1"}, {"run_id": "r2"}, prefix="new"))
        changed = msgspec.convert(await stream.until("runs"), ChangedRuns)
        assert {run.id for run in changed.runs} == {"r1", "r2"}
        assert changed.more is False
        gate.gauges = Gauges(reload_ok=False)
        data = await stream.until("summary")
        while not data["conditions"]:
            data = await stream.until("summary")
        assert data["conditions"][0]["kind"] == "reload_failed"


async def test_what_is_decided_or_said_of_a_run_is_told_to_those_who_listen(gate: Gate) -> None:
    gate.at = NOON + MINUTE
    gate.fill(calls({"run_id": "r1"}))
    async with listening(gate) as stream:
        await stream.next()
        for path, body, status in (
            ("kill", {}, 200),
            ("raise", {"budget_usd": 5}, 200),
            ("outcome", {"outcome": "success"}, 201),
        ):
            await gate.post(f"/api/runs/r1/{path}", body, status)
            changed = await stream.until("runs")
            assert [run["id"] for run in changed["runs"]] == ["r1"]
        assert changed["runs"][0]["outcome"]["outcome"] == "success"


async def test_many_runs_at_once_are_to_be_asked_for(gate: Gate) -> None:
    gate.at = NOON + MINUTE
    async with listening(gate) as stream:
        await stream.next()
        gate.fill(calls(*({"run_id": f"r{n}"} for n in range(250))))
        changed = await stream.until("runs")
        assert (len(changed["runs"]), changed["more"]) == (200, True)


async def test_a_ledger_that_is_away_is_said_and_the_stream_goes_on(gate: Gate) -> None:
    gate.at = NOON + MINUTE
    async with listening(gate) as stream:
        await stream.next()
        moved = gate.ledger.path.with_suffix(".away")
        gate.ledger.path.rename(moved)
        assert (await stream.until("trouble"))["code"]
        moved.rename(gate.ledger.path)
        assert (await stream.until("summary"))["day"]["calls"] == 0


async def test_listeners_are_counted_and_forgotten(gate: Gate) -> None:
    live = gate.client.app[LIVE]
    async with listening(gate) as stream:
        await stream.next()
        assert len(live.listeners) == 1
        others = [asyncio.Queue(1) for _ in range(STREAMS - 1)]
        live.listeners.update(others)
        assert (await gate.get("/api/events", 503))["code"] == "too_many_streams"
        live.listeners.difference_update(others)
    async with asyncio.timeout(10):
        while live.listeners:
            gate.fill(calls({}, prefix=f"{len(live.listeners)}"))  # a closed connection shows when it is written to
            await asyncio.sleep(0.01)


async def test_a_listener_that_does_not_read_is_cut_off(gate: Gate) -> None:
    live = gate.client.app[LIVE]
    stream = live.listen()
    assert (await anext(stream)).startswith(b"event: summary")
    (queue,) = live.listeners
    for _ in range(BEHIND + 1):
        live._offer(queue, b"x")
    assert not live.listeners
    await stream.aclose()


async def test_another_token_ends_the_streams(gate: Gate) -> None:
    gate.token = "0123456789abcdef"
    assert (await gate.get("/api/events", 401))["code"] == "unauthorized"
    async with listening(gate, headers={"Authorization": "Bearer 0123456789abcdef"}) as stream:
        await stream.next()
        gate.token = "fedcba9876543210"
        gate.fill(calls({}))
        with pytest.raises(EOFError):
            await stream.until("no such event")


async def test_runs_are_found_by_any_part_of_their_names(gate: Gate) -> None:
    gate.fill(
        calls(
            {"run_id": "Nightly-42", "agent": "indexer", "tenant": "core"},
            {"run_id": "other", "agent": "Night Owl", "started_at": NOON + 1},
            {"run_id": "third", "tenant": "acme", "started_at": NOON + 2},
        )
    )

    async def found(search: str) -> list[str]:
        return [run["id"] for run in (await gate.get("/api/runs", params={"search": search}))["runs"]]

    assert await found("night") == ["other", "Nightly-42"]
    assert await found("ACME") == ["third"]
    assert await found("%") == []
    assert await found("' OR 1=1 --") == []


async def test_the_dearest_runs_come_first_and_on_one_page(gate: Gate) -> None:
    gate.fill(calls(*({"run_id": f"r{n}", "cost": n * CENT} for n in (1, 3, 2))))
    page = await gate.get("/api/runs?order=cost&limit=2")
    assert ([run["id"] for run in page["runs"]], page["next"]) == (["r3", "r2"], None)
    assert (await gate.get("/api/runs?order=price", 400))["parameter"] == "order"
    cursor = (await gate.get("/api/runs?limit=1"))["next"]
    assert (await gate.get(f"/api/runs?order=cost&cursor={cursor}", 400))["parameter"] == "cursor"


async def test_a_call_in_the_tree_says_what_was_decided(gate: Gate) -> None:
    gate.fill(
        calls(
            {"cache": "exact", "saved": CENT, "notes": {"loop": "cycle", "loop_action": "warn", "canary": "c5"}},
            {"error_code": "run_stopped", "error_message": "enough", "budget": "refused", "outcome": "refused"},
        )
    )
    (agent,) = (await gate.get("/api/runs/run-1"))["tree"]
    first, second = agent["steps"][0]["call_list"]
    assert (first["cache"], first["saved_usd"], first["loop"]["signals"]) == ("exact", 0.01, ["cycle"])
    assert first["notes"]["canary"] == "c5"
    assert (second["error"], second["message"], second["budget"]) == ("run_stopped", "enough", "refused")
