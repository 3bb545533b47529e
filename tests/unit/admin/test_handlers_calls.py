from __future__ import annotations

import json
import random
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest

from gateway.call import Outcome, ToolCall, ToolUse, Usage
from gateway.journal.record import AttemptRecord, CallRecord
from gateway.testing.records import START, call_record, workload
from tests.unit.admin.conftest import document_for

FIELDS = {
    *("id", "run_id", "agent", "step", "dialect", "upstream", "model_requested", "model_used", "status", "outcome"),
    *("stream", "attempts", "usage", "usage_source", "cost_usd", "cost_components", "price_version", "started_at"),
    *("duration_ms", "ttft_ms", "overhead_ms", "tools", "trace_id"),
}
TOKENS = ["input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens"]

Gate = Any  # of conftest.py


async def test_a_call_has_every_field_with_its_value(gate: Gate) -> None:
    attempts = (
        AttemptRecord("openai", "openai", "api.openai.com", 443, 100_000, 5_000_000, 0, False, "upstream_reset"),
        AttemptRecord("openai", "openai", "api.openai.com", 443, 6_000_000, 700_000_000, 200, True),
    )
    record = call_record(
        "c/1 ü",
        run_id="run-7",
        agent="coder",
        step=3,
        stream=True,
        attempts=attempts,
        usage=Usage(1000, 200, 300, 100, 50, {"cache_write_1h_tokens": 10}),
        cost=1_234_567_890,
        cost_components={"input": 1_000_000_001, "output": 234_567_889},
        tools=(ToolCall("t1", "search", START, 2_500_000, True, True),),
        tool_uses=(ToolUse("t2", "fetch"),),
        parent_span_id="00f067aa0ba902b7",
    )
    gate.fill([record])
    body = await gate.get("/api/calls/c%2F1%20%C3%BC")
    assert set(body) >= FIELDS
    assert body["usage"] == {
        **dict(zip(TOKENS, (1000, 200, 300, 100, 50), strict=True)),
        "detail": {"cache_write_1h_tokens": 10},
    }
    assert (body["id"], body["run_id"], body["agent"], body["step"]) == ("c/1 ü", "run-7", "coder", 3)
    assert body["cost_usd"] == 0.00123456789
    assert body["cost_components"] == {"input": 0.001000000001, "output": 0.000234567889}
    assert body["started_at"] == "2026-09-21T14:13:20.000000Z"
    assert (body["duration_ms"], body["ttft_ms"], body["overhead_ms"]) == (850.0, 210.0, 0.24)
    assert [(a["status"], a["error_code"], a["duration_ms"]) for a in body["attempts"]] == [
        (None, "upstream_reset", 5.0),
        (200, None, 700.0),
    ]
    assert body["tools"] == [
        {
            "id": "t1",
            "name": "search",
            "started_at": "2026-09-21T14:13:20.000000Z",
            "duration_ms": 2.5,
            "exact": True,
            "is_error": True,
            "server": "",
            "cached": False,
        }
    ]
    assert body["tool_uses"] == [{"id": "t2", "name": "fetch"}]
    assert body["trace_id"] == record.trace_id


async def test_unknown_is_null_and_never_zero(gate: Gate) -> None:
    gate.fill([call_record("c1", cost=None, cost_components={}, cost_status="no_price", ttft_ns=-1, agent="")])
    body = await gate.get("/api/calls/c1")
    assert body["cost_usd"] is None
    assert body["ttft_ms"] is None
    assert body["agent"] is None


async def test_a_free_call_costs_zero_not_nothing(gate: Gate) -> None:
    gate.fill([call_record("c1", cost=0, cost_components={}, cost_status="free")])
    assert (await gate.get("/api/calls/c1"))["cost_usd"] == 0


@pytest.mark.parametrize("pico", [1, 7, 123_456_789_012, 999_999_999_999_999, 10**12, 3 * 10**14 + 1])
async def test_dollars_have_every_digit_of_the_pico_dollars(gate: Gate, pico: int) -> None:
    gate.fill([call_record("c1", cost=pico, cost_components={"input": pico})])
    async with gate.client.get("/api/calls/c1") as response:
        body = json.loads(await response.text(), parse_float=Decimal, parse_int=Decimal)
    assert body["cost_usd"] * 10**12 == pico
    assert body["cost_components"]["input"] * 10**12 == pico


async def test_no_such_call(gate: Gate) -> None:
    problem = await gate.get("/api/calls/nope", 404)
    assert problem["code"] == "call_not_found"
    assert problem["status"] == 404


async def pages(gate: Gate, query: str, limit: int = 7) -> list[list[str]]:
    found, cursor = [], ""
    while True:
        page = await gate.get(f"/api/calls?{query}&limit={limit}&cursor={cursor}")
        found.append([call["id"] for call in page["calls"]])
        if page["next"] is None:
            return found
        cursor = page["next"]


def matching(records: list[CallRecord], query: dict[str, str]) -> list[str]:
    def fits(r: CallRecord) -> bool:
        return (
            query.get("run", r.run_id) == r.run_id
            and query.get("agent", r.agent) == r.agent
            and query.get("tenant", r.tenant) == r.tenant
            and query.get("outcome", r.outcome) == r.outcome
            and query.get("model", r.model_used) in (r.model_requested, r.model_used)
        )

    chosen = sorted((r for r in records if fits(r)), key=lambda r: (r.started_at, r.id), reverse=True)
    return [r.id for r in chosen]


@pytest.mark.parametrize("seed", range(8))
async def test_filters_and_pages_give_exactly_what_matches_newest_first(gate: Gate, seed: int) -> None:
    rng = random.Random(seed)
    records = [r for r in workload(rng, 150, runs=5) if isinstance(r, CallRecord)]
    for r in rng.sample(records, 40):
        r.started_at = START  # many of the same instant
    gate.fill(records)
    for _ in range(6):
        choices = {
            "run": "run-2",
            "agent": "coder",
            "tenant": "acme",
            "outcome": rng.choice(("ok", "failed", "abandoned")),
            "model": rng.choice(("house-model", "gpt-4o-mini", "gpt-4o-mini-2024-07-18")),
        }
        query = {name: value for name, value in choices.items() if rng.random() < 0.4}
        text = "&".join(f"{name}={value}" for name, value in query.items())
        found = await pages(gate, text, limit=rng.choice((3, 7, 50)))
        assert [id for page in found for id in page] == matching(records, query)


async def test_a_page_is_not_disturbed_by_calls_that_come_in_meanwhile(gate: Gate) -> None:
    gate.fill([call_record(f"c{n:02d}", START + n * 10) for n in range(20)])
    first = await gate.get("/api/calls?limit=8")
    late = [call_record(f"late{n}", START + n * 37) for n in range(12)]
    gate.fill([*late, call_record("newest", START + 10**9)])
    seen, cursor = [call["id"] for call in first["calls"]], first["next"]
    while cursor:
        page = await gate.get(f"/api/calls?limit=8&cursor={cursor}")
        seen += [call["id"] for call in page["calls"]]
        cursor = page["next"]
    assert len(seen) == len(set(seen))
    assert [id for id in seen if id.startswith("c")] == [f"c{n:02d}" for n in reversed(range(20))]


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("2026-09-21T14:13:21Z", "2026-09-21T14:13:23Z"),
        ("1790000001", "1790000003"),
        ("1790000000.5", "1790000002.999999999"),
        ("2026-09-21T16:13:21%2B02:00", "2026-09-21T16:13:23+02:00"),
    ],
)
async def test_time_bounds_include_since_and_exclude_until(gate: Gate, since: str, until: str) -> None:
    gate.fill([call_record(f"c{n}", START + n * 10**9) for n in range(6)])
    page = await gate.get(f"/api/calls?since={since}&until={until}")
    assert [call["id"] for call in page["calls"]] == ["c2", "c1"]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("limit=0", "limit"),
        ("limit=abc", "limit"),
        ("limit=%C2%B2", "limit"),
        ("limit=1001", "limit"),
        ("since=yesterday", "since"),
        ("until=2026-13-01T00:00:00Z", "until"),
        ("cursor=%21%21", "cursor"),
        ("cursor=bm9kb3Q=", "cursor"),
        ("agnet=x", "agnet"),
        ("token=secret", "token"),
        ("run=a&run=b", "run"),
        ("agent=" + "x" * 600, "agent"),
        ("outcome=typo", "outcome"),
        ("outcome=OK", "outcome"),
        ("outcome=success", "outcome"),  # of a run
    ],
)
async def test_a_bad_parameter_is_named(gate: Gate, query: str, name: str) -> None:
    problem = await gate.get(f"/api/calls?{query}", 400)
    assert problem["code"] == "bad_parameter"
    assert problem["parameter"] == name
    assert problem["detail"].startswith(f"{name}: ")


@pytest.mark.parametrize(("route", "given"), [("calls", Outcome), ("runs", ("success", "failure", "score", "none"))])
async def test_every_outcome_can_be_asked_for_and_a_wrong_one_names_them(
    gate: Gate, route: str, given: Iterable[str]
) -> None:
    for name in given:
        assert (await gate.get(f"/api/{route}?outcome={name}"))[route] == []
    problem = await gate.get(f"/api/{route}?outcome=typo", 400)
    assert problem["detail"] == f"outcome: expected one of {', '.join(given)}"
    (told,) = (one for one in document_for("GET", f"/api/{route}")["parameters"] if one["name"] == "outcome")
    assert told["schema"]["enum"] == list(given)


@pytest.mark.parametrize("evil", ["' OR 1=1 --", "%00", '"; DROP TABLE calls', "%25", "🙂"])
async def test_hostile_filters_are_only_data(gate: Gate, evil: str) -> None:
    gate.fill([call_record("c1")])
    for name in ("run", "agent", "tenant", "model"):
        assert (await gate.get(f"/api/calls?{name}={evil}"))["calls"] == []
    await gate.get(f"/api/calls?outcome={evil}", 400)
    assert len((await gate.get("/api/calls"))["calls"]) == 1


async def test_a_call_says_what_budgets_and_the_loop_breaker_made_of_it(gate: Gate) -> None:
    notes = {
        "budget": "clamped",
        "clamped_to": "300",
        "taper": "0.5 of run:r|usd|life",
        "loop": "cycle,repeated_call",
        "loop_reason": "the same call again",
        "loop_action": "warn",
    }
    told = {"budget": "clamped", "budget_account": "team:a|usd|day|2026-11-27", "reserved": 1_500_000, "remaining": 0}
    gate.fill([call_record(key_id="key_1", depth=2, notes=notes, **told), call_record("call-2")])
    shown = await gate.get("/api/calls/call-1")
    assert (shown["key_id"], shown["depth"]) == ("key_1", 2)
    assert shown["budget"] == {
        "decision": "clamped",
        "account": "team:a|usd|day|2026-11-27",
        "reserved_usd": 0.0015,
        "remaining_usd": 0.0,
        "clamped_to": 300,
        "taper": "0.5 of run:r|usd|life",
    }
    signals = ["cycle", "repeated_call"]
    assert shown["loop"] == {"signals": signals, "reason": "the same call again", "action": "warn"}
    plain = await gate.get("/api/calls/call-2")
    assert (plain["key_id"], plain["budget"], plain["loop"], plain["depth"]) == (None, None, None, 0)
