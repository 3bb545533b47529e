"""Records for tests of projections: a plain call with what a test wants to say about it, and random workloads."""

from __future__ import annotations

import random
from typing import Any

from gateway.call import CacheHealth, ToolCall, ToolUse, Usage
from gateway.journal.record import AttemptRecord, CallRecord, OutcomeRecord, Record

START = 1_790_000_000_000_000_000  # ns since the epoch

_PLAIN: dict[str, Any] = {
    "duration_ns": 850_000_000,
    "ttft_ns": 210_000_000,
    "overhead_ns": 240_000,
    "method": "POST",
    "route": "/v1/chat/completions",
    "dialect": "openai_chat",
    "operation": "chat",
    "upstream": "openai",
    "provider": "openai",
    "status": 200,
    "outcome": "ok",
    "stream": False,
    "websocket": False,
    "model_requested": "gpt-4o-mini",
    "model_used": "gpt-4o-mini-2024-07-18",
    "tenant": "default",
    "key_id": "",
    "agent": "planner",
    "agent_source": "url",
    "agent_version": "",
    "parent_agent": "",
    "run_id": "run-1",
    "run_source": "header",
    "run_confidence": 1.0,
    "step": 1,
    "request_class": "",
    "conversation_id": "",
    "end_user": "",
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
    "span_id": "b7ad6b7169203331",
    "parent_span_id": "",
    "trace_flags": 1,
    "trace_state": "",
    "usage": Usage(input_tokens=120, output_tokens=40),
    "usage_source": "provider",
    "cost": 42_000_000,
    "cost_components": {"input": 18_000_000, "output": 24_000_000},
    "cost_status": "priced",
    "price_version": "2026-11-01",
    "finish_reasons": ("stop",),
    "response_id": "chatcmpl-1",
    "tool_uses": (),
    "tools": (),
    "attempts": (AttemptRecord("openai", "openai", "api.openai.com", 443, 120_000, 849_000_000, 200, True),),
    "error_source": "",
    "error_code": "",
    "error_type": "",
    "error_message": "",
    "request_bytes": 1_024,
    "response_bytes": 2_048,
    "user_agent": "OpenAI/Python 2.0",
    "client_address": "127.0.0.1",
    "sdk_retry": -1,
    "params": {"temperature": 0.2},
    "notes": {},
    "worker": 0,
    "input_content": b"",
    "output_content": b"",
}


def _missed(lost: int | None) -> CacheHealth:
    return CacheHealth(900, 100, 1000, 800, lost, "changed", "system", 2, "system block 2 changed")


def call_record(id: str = "call-1", started_at: int = START, **facts: Any) -> CallRecord:
    """A successful chat call, with `facts` instead of its own where given."""
    return CallRecord(**{**_PLAIN, "id": id, "started_at": started_at, **facts})


def outcome_record(id: str = "out-1", run_id: str = "run-1", **facts: Any) -> OutcomeRecord:
    return OutcomeRecord(**{"id": id, "at": START + 10**9, "run_id": run_id, "kind": "success", **facts})


def workload(rng: random.Random, calls: int, runs: int = 20) -> list[Record]:
    """Calls of several runs with all kinds of ends, tools, unknown costs and outcomes; ids are unique."""
    records: list[Record] = []
    for n in range(calls):
        at = START + n * 1_000_000 + rng.randrange(5_000_000)
        records.append(_random_call(rng, f"call-{n:06d}", at, f"run-{rng.randrange(runs)}"))
        if rng.random() < 0.05:
            kind = rng.choice(("success", "failure", "score"))
            value = round(rng.random(), 3) if kind == "score" else None
            records.append(OutcomeRecord(f"out-{n}", at, f"run-{rng.randrange(runs)}", kind, value))
    return records


def _random_call(rng: random.Random, id: str, at: int, run_id: str) -> CallRecord:
    usage = Usage(
        rng.randrange(20_000), rng.randrange(2_000), rng.randrange(500), rng.randrange(100), rng.randrange(50)
    )
    parts = {"input": usage.input_tokens * 150_000, "output": usage.output_tokens * 600_000}
    facts: dict[str, Any] = {"usage": usage, "cost": sum(parts.values()), "cost_components": parts}
    fate = rng.random()
    if fate < 0.05:
        facts |= {"cost": None, "cost_components": {}, "cost_status": "no_price", "model_requested": "house-model"}
    elif fate < 0.12:
        facts |= {"usage": None, "usage_source": "none", "cost": None, "cost_components": {}, "cost_status": "no_usage"}
        facts |= {"outcome": rng.choice(("failed", "refused", "upstream_error", "abandoned")), "status": 502}
    if rng.random() < 0.2:
        uses = [ToolCall(f"{id}-t{i}", f"tool{i}", at, 10**7, is_error=rng.random() < 0.2) for i in range(2)]
        facts |= {"tools": tuple(uses), "tool_uses": (ToolUse(f"{id}-u", "search"),)}
    if rng.random() < 0.3:
        decision = rng.choice(("granted", "queued", "clamped", "refused"))
        facts |= {"budget": decision, "budget_account": "global|usd|life", "reserved": rng.randrange(10**9), "depth": 1}
    if usage.input_tokens and rng.random() < 0.3:
        lost = rng.choice((0, 2_000_000, None))
        facts |= {"prompt_cache": CacheHealth(900, 900, 1000) if lost == 0 else _missed(lost)}
    agent = rng.choice(("planner", "coder", "reviewer"))
    return call_record(
        id,
        at,
        run_id="" if rng.random() < 0.02 else run_id,
        agent=agent,
        parent_agent="" if agent == "planner" else "planner",
        tenant=rng.choice(("acme", "globex")),
        step=rng.randrange(1, 9),
        duration_ns=rng.randrange(10**9),
        **facts,
    )
