"""What calls and runs say about their providers' prompt caches."""

from __future__ import annotations

from gateway.call import CacheHealth
from gateway.testing.records import call_record
from tests.unit.admin.conftest import Gate

HIT = CacheHealth(4000, 4000, 5000)
CHURN = CacheHealth(4000, 1000, 5000, 3000, 8_100_000_000, "changed", "system", 2, "system block 2 changed")
AGAIN = CacheHealth(
    4000, 1000, 5000, 3000, 8_100_000_000, "changed", "system", 2, "system block 2 changes on every call"
)
LATE = CacheHealth(4000, 0, 5000, 4000, 10_800_000_000, "ttl", "", -1, "301 s passed")
UNKNOWN = CacheHealth(4000, 0, 5000, 4000, None, "model", "model", -1, "the model or its upstream changed")


async def test_a_call_says_what_its_cache_did(gate: Gate) -> None:
    gate.fill([call_record(prompt_cache=CHURN), call_record("call-2", prompt_cache=UNKNOWN), call_record("call-3")])
    assert (await gate.get("/api/calls/call-1"))["prompt_cache"] == {
        "readable_tokens": 4000,
        "read_tokens": 1000,
        "lost_tokens": 3000,
        "lost_usd": 0.0081,
        "cause": "changed",
        "part": "system",
        "index": 2,
        "hint": "system block 2 changed",
    }
    unknown = (await gate.get("/api/calls/call-2"))["prompt_cache"]
    assert (unknown["lost_usd"], unknown["part"], unknown["index"]) == (None, "model", None)
    assert (await gate.get("/api/calls/call-3"))["prompt_cache"] is None


async def test_a_run_sums_up_by_agent_and_cause(gate: Gate) -> None:
    healths = [("coder", None), ("coder", HIT), ("coder", CHURN), ("coder", AGAIN), ("coder", LATE), ("critic", HIT)]
    gate.fill([call_record(f"c{n}", agent=agent, prompt_cache=health) for n, (agent, health) in enumerate(healths)])
    shown = (await gate.get("/api/runs/run-1"))["prompt_cache"]
    coder, critic = shown.pop("agents")
    assert shown == {
        "calls": 5,
        "input_tokens": 25_000,
        "readable_tokens": 20_000,
        "read_tokens": 10_000,
        "hit_ratio": 0.4,
        "lost_tokens": 10_000,
        "lost_usd": 0.027,
        "ttl_misses": 1,
    }
    assert (coder["agent"], coder["calls"], coder["hit_ratio"], critic["hit_ratio"]) == ("coder", 4, 0.3, 0.8)
    assert critic["losses"] == []
    changed, late = coder["losses"]  # the dearest first
    assert changed == {
        "cause": "changed",
        "part": "system",
        "index": 2,
        "calls": 2,
        "lost_tokens": 6000,
        "lost_usd": 0.0162,
        "hint": "system block 2 changes on every call",
    }
    assert (late["cause"], late["part"], late["index"], late["calls"]) == ("ttl", None, None, 1)


async def test_a_loss_of_unknown_price_makes_the_sum_unknown(gate: Gate) -> None:
    gate.fill([call_record(prompt_cache=CHURN), call_record("call-2", prompt_cache=UNKNOWN)])
    shown = (await gate.get("/api/runs/run-1"))["prompt_cache"]
    assert (shown["lost_usd"], shown["lost_tokens"]) == (None, 7000)


async def test_a_run_without_calls_that_could_hit_says_nothing(gate: Gate) -> None:
    gate.fill([call_record()])
    assert (await gate.get("/api/runs/run-1"))["prompt_cache"] is None
