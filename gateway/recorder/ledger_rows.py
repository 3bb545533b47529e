"""Records as rows of the ledger: the order of the columns, and how a value becomes one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from gateway.call import CacheHealth, ToolCall, ToolUse
from gateway.journal.record import AttemptRecord, CallRecord, EventRecord, OutcomeRecord
from gateway.recorder.facts import trace_id_of
from gateway.recorder.runs import unknown_cost, used

Row = tuple[Any, ...]

INT64_MAX = 2**63 - 1


class Detail(Struct, omit_defaults=True):
    """What is kept of a call beside the columns."""

    websocket: bool = False
    key_id: str = ""
    agent_source: str = ""
    run_confidence: float = 0.0
    request_class: str = ""
    conversation_id: str = ""
    end_user: str = ""
    parent_span_id: str = ""
    usage: dict[str, float] = {}
    finish_reasons: tuple[str, ...] = ()
    response_id: str = ""
    error_source: str = ""
    error_type: str = ""
    error_message: str = ""
    request_bytes: int = 0
    response_bytes: int = 0
    user_agent: str = ""
    client_address: str = ""
    sdk_retry: int = -1
    params: dict[str, str | int | float | bool | list[str]] = {}
    notes: dict[str, str] = {}
    worker: int = -1
    budget: str = ""
    budget_account: str = ""
    reserved: int = 0  # nano-USD
    remaining: int = -1  # nano-USD
    depth: int = 0
    cache: str = ""
    cache_reason: str = ""
    cache_age_ns: int = -1
    cache_entry: str = ""
    saved: int = 0  # pico-USD
    prompt_cache: CacheHealth | None = None


_json = msgspec.json.Encoder().encode
decode_detail = msgspec.json.Decoder(Detail).decode
decode_attempts = msgspec.json.Decoder(list[AttemptRecord]).decode
decode_tools = msgspec.json.Decoder(list[ToolCall]).decode
decode_tool_uses = msgspec.json.Decoder(list[ToolUse]).decode
decode_components = msgspec.json.Decoder(dict[str, int]).decode
decode_mapping = msgspec.json.Decoder(dict[str, Any]).decode


def _text(value: object) -> str:
    return _json(value).decode() if value else "[]"


def call_row(r: CallRecord, run: int | None) -> Row:
    """In the order of the columns of `calls`; `run` is the number of its run."""
    usage = used(r)
    tools = r.tools
    return (
        r.id, r.started_at, r.duration_ns, r.ttft_ns if r.ttft_ns >= 0 else None, r.overhead_ns,
        r.method, r.route, r.dialect, r.operation, r.upstream, r.provider, r.status, r.outcome, r.stream,
        r.model_requested, r.model_used, r.tenant, r.agent, r.agent_version, r.parent_agent,
        r.run_id, r.run_source, r.step, trace_id_of(r), r.span_id,
        *((None,) * 5 if usage is None else (
            usage.input_tokens, usage.output_tokens,
            usage.cache_read_tokens, usage.cache_write_tokens, usage.reasoning_tokens,
        )),
        r.usage_source, r.cost, unknown_cost(r), _json(r.cost_components).decode(), r.cost_status, r.price_version,
        r.error_code, _text(r.attempts), _text(tools),
        len(tools), sum(t.is_error for t in tools) if tools else 0, _text(r.tool_uses),
        _detail(r), run,
    )  # fmt: skip


def _detail(r: CallRecord) -> str:
    usage = used(r)
    detail = Detail(
        r.websocket, r.key_id, r.agent_source, r.run_confidence, r.request_class, r.conversation_id, r.end_user,
        r.parent_span_id, usage.detail if usage is not None else {}, r.finish_reasons, r.response_id,
        r.error_source, r.error_type, r.error_message, r.request_bytes, r.response_bytes, r.user_agent,
        r.client_address, r.sdk_retry, r.params, r.notes, r.worker,
        r.budget, r.budget_account, r.reserved, r.remaining, r.depth,
        r.cache, r.cache_reason, r.cache_age_ns, r.cache_entry, r.saved, r.prompt_cache,
    )  # fmt: skip
    return _json(detail).decode()


def tool_rows(r: CallRecord, run: int | None) -> Iterable[Row]:
    for n, t in enumerate(r.tools):
        yield (
            run or 0, r.id, n, t.id, t.name, r.agent, r.step, t.started_at, t.duration_ns, t.exact, t.is_error,
        )  # fmt: skip


def outcome_row(r: OutcomeRecord) -> Row:
    return r.id, r.run_id, r.at, r.kind, r.value, r.note


def verdict_row(r: OutcomeRecord) -> Row:
    return r.run_id, r.id, r.at, r.kind, r.value, r.note


def event_row(r: EventRecord) -> Row:
    return r.id, r.at, r.kind, r.worker, _json(r.detail).decode()


def clamp(row: Row) -> Row:
    """A row whose integers fit a column; a provider may send any number."""
    return tuple(max(-INT64_MAX, min(v, INT64_MAX)) + 0 if isinstance(v, int) else v for v in row)
