"""Rows of the ledger as what the API answers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from sqlite3 import Row
from typing import Any

from gateway.admin import prompt_cache
from gateway.admin.limit_views import CapView
from gateway.admin.views import (
    AttemptView,
    CallBudgetView,
    CallCacheView,
    CallLoopView,
    CallView,
    ErrorView,
    OutcomeView,
    RunView,
    ToolCallView,
    ToolUseView,
    UsageView,
)
from gateway.call import PICO_USD
from gateway.policy.controls import Caps
from gateway.recorder.ledger_rows import (
    Detail,
    decode_attempts,
    decode_components,
    decode_detail,
    decode_tool_uses,
    decode_tools,
)
from gateway.spend import NANO_USD


def usd(pico: int) -> float:
    """The float nearest to the exact amount."""
    return pico / PICO_USD


def known_usd(pico: int, priced: int, unknown: int) -> float | None:
    """A sum of costs: unknown where none of what cost something has a known cost."""
    return None if unknown and not priced else usd(pico)


def moment(ns: int) -> str:
    """RFC 3339 in UTC with microseconds."""
    seconds, rest = divmod(ns, 10**9)
    whole = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return whole.strftime("%Y-%m-%dT%H:%M:%S") + f".{rest // 1000:06d}Z"


def ms(ns: int) -> float:
    return ns / 1e6


def usage(row: Row, detail: dict[str, float] | None = None) -> UsageView:
    """Zero where nothing was counted; `usage_source` says so."""
    return UsageView(
        input_tokens=row["input_tokens"] or 0,
        output_tokens=row["output_tokens"] or 0,
        cache_read_tokens=row["cache_read_tokens"] or 0,
        cache_write_tokens=row["cache_write_tokens"] or 0,
        reasoning_tokens=row["reasoning_tokens"] or 0,
        detail=detail or {},
    )


def call(row: Row) -> CallView:
    detail = decode_detail(row["detail"])
    return CallView(
        **_who(row, detail),
        id=row["id"],
        method=row["method"],
        route=row["route"],
        dialect=row["dialect"],
        operation=row["operation"] or None,
        upstream=row["upstream"],
        provider=row["provider"] or None,
        model_requested=row["model_requested"] or None,
        model_used=row["model_used"] or None,
        status=row["status"],
        outcome=row["outcome"],
        error=_error(row, detail),
        stream=bool(row["stream"]),
        websocket=detail.websocket,
        attempts=_attempts(row["attempts"]),
        usage=usage(row, detail.usage),
        usage_source=row["usage_source"],
        cost_usd=None if row["cost"] is None else usd(row["cost"]),
        cost_components={name: usd(part) for name, part in decode_components(row["cost_components"]).items()},
        cost_status=row["cost_status"],
        price_version=row["price_version"] or None,
        budget=_budget(detail),
        cache=_cache(detail),
        loop=loop(detail),
        prompt_cache=prompt_cache.of_call(detail.prompt_cache),
        started_at=moment(row["started_at"]),
        duration_ms=ms(row["duration_ns"]),
        ttft_ms=None if row["ttft_ns"] is None else ms(row["ttft_ns"]),
        overhead_ms=ms(row["overhead_ns"]),
        tools=tools(row["tools"]),
        tool_uses=tool_uses(row["tool_uses"]),
        finish_reasons=list(detail.finish_reasons),
        response_id=detail.response_id or None,
        trace_id=row["trace_id"] or None,
        span_id=row["span_id"] or None,
        request_bytes=detail.request_bytes,
        response_bytes=detail.response_bytes,
        user_agent=detail.user_agent or None,
        client_address=detail.client_address or None,
        client_retry=None if detail.sdk_retry < 0 else detail.sdk_retry,
        params=detail.params,
        notes=detail.notes,
    )


def _who(row: Row, detail: Detail) -> dict[str, Any]:
    return {
        "run_id": row["run_id"] or None,
        "run_source": row["run_source"] or None,
        "run_confidence": detail.run_confidence,
        "agent": row["agent"] or None,
        "agent_source": detail.agent_source or None,
        "agent_version": row["agent_version"] or None,
        "parent_agent": row["parent_agent"] or None,
        "tenant": row["tenant"],
        "key_id": detail.key_id or None,
        "step": row["step"],
        "depth": detail.depth,
        "request_class": detail.request_class or None,
        "conversation_id": detail.conversation_id or None,
        "end_user": detail.end_user or None,
    }


def _budget(detail: Detail) -> CallBudgetView | None:
    if not detail.budget:
        return None
    clamped = detail.notes.get("clamped_to", "")
    return CallBudgetView(
        decision=detail.budget,
        account=detail.budget_account or None,
        reserved_usd=detail.reserved / NANO_USD,
        remaining_usd=None if detail.remaining < 0 else detail.remaining / NANO_USD,
        clamped_to=int(clamped) if clamped.isdecimal() else None,
        taper=detail.notes.get("taper"),
    )


def _cache(detail: Detail) -> CallCacheView | None:
    if not detail.cache:
        return None
    return CallCacheView(
        result=detail.cache,
        reason=detail.cache_reason or None,
        age_ms=None if detail.cache_age_ns < 0 else ms(detail.cache_age_ns),
        entry=detail.cache_entry or None,
        saved_usd=usd(detail.saved),
    )


def loop(detail: Detail) -> CallLoopView | None:
    signals = detail.notes.get("loop")
    if not signals:
        return None
    return CallLoopView(
        signals=signals.split(","),
        reason=detail.notes.get("loop_reason"),
        action=detail.notes.get("loop_action", "note"),
    )


def _error(row: Row, detail: Detail) -> ErrorView | None:
    if not (row["error_code"] or detail.error_type or detail.error_message):
        return None
    return ErrorView(
        source=detail.error_source or None,
        code=row["error_code"] or None,
        type=detail.error_type or None,
        message=detail.error_message or None,
    )


def _attempts(text: str) -> list[AttemptView]:
    made = decode_attempts(text)
    return [
        AttemptView(
            upstream=a.upstream,
            provider=a.provider or None,
            address=a.address,
            port=a.port,
            offset_ms=ms(a.offset_ns),
            duration_ms=ms(a.duration_ns),
            status=a.status or None,
            reused=a.reused,
            error_code=a.error_code or None,
            model=a.model or None,
            cost_usd=usd(a.cost) if a.cost is not None and a is not made[-1] else None,
        )
        for a in made
    ]


def tools(text: str) -> list[ToolCallView]:
    return [
        ToolCallView(
            id=t.id,
            name=t.name,
            started_at=moment(t.started_at),
            duration_ms=ms(t.duration_ns),
            exact=t.exact,
            is_error=t.is_error,
            server=t.server,
            cached=t.cached,
        )
        for t in decode_tools(text)
    ]


def tool_uses(text: str) -> list[ToolUseView]:
    return [ToolUseView(id=t.id, name=t.name) for t in decode_tool_uses(text)]


def totals(row: Row) -> dict[str, Any]:
    """The fields of TotalsView."""
    return {
        "calls": row["calls"],
        "errors": row["errors"],
        "usage": usage(row),
        "cost_usd": known_usd(row["cost"], row["priced"], row["cost_unknown"]),
        "unknown_cost_calls": row["cost_unknown"],
        "tool_calls": row["tool_calls"],
        "tool_errors": row["tool_errors"],
    }


def run_fields(row: Row, agents: Sequence[str]) -> dict[str, Any]:
    """The fields of RunView."""
    verdict = None
    if row["outcome_id"] is not None:
        verdict = OutcomeView(
            id=row["outcome_id"],
            run_id=row["run_id"],
            outcome=row["outcome_kind"],
            value=row["outcome_value"],
            note=row["outcome_note"] or None,
            at=moment(row["outcome_at"]),
        )
    return {
        **totals(row),
        "id": row["run_id"],
        "tenant": row["tenant"],
        "agent": row["agent"] or None,
        "agents": [name for name in agents if name],
        "source": row["source"] or None,
        "started_at": moment(row["first_at"]),
        "last_at": moment(row["last_at"]),
        "duration_ms": ms(row["last_at"] - row["first_at"]),
        "steps": row["steps"],
        "outcome": verdict,
    }


def run(row: Row, agents: Sequence[str]) -> RunView:
    return RunView(**run_fields(row, agents))


def outcomes(rows: Iterable[Row]) -> list[OutcomeView]:
    return [
        OutcomeView(
            id=row["id"],
            run_id=row["run_id"],
            outcome=row["kind"],
            value=row["value"],
            note=row["note"] or None,
            at=moment(row["at"]),
        )
        for row in rows
    ]


def caps_fields(caps: Caps) -> dict[str, Any]:
    """The fields of CapsView."""
    budgets = [
        CapView(
            usd=None if cap.usd is None else cap.usd / NANO_USD,
            tokens=cap.tokens,
            per=cap.per,  # type: ignore[arg-type]  # checked when it was set
            rolling=cap.rolling,
            on_exceed=cap.on_exceed,  # type: ignore[arg-type]
        )
        for cap in caps.budgets
    ]
    return {"budgets": budgets, **{name: getattr(caps, name) for name in ("rpm", "tpm", "concurrency", "burst")}}
