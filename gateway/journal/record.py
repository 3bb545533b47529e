"""The record of one call: schema, version and encoding.

Rules
1. A record is a msgpack array (msgspec, array_like, tagged). New fields are appended with a default, never inserted,
   renamed or removed; `SCHEMA` counts the versions. A reader of an older version ignores the tail it does not know.
2. A record says everything the projections need: ledger, metrics, traces and logs are made from records alone.
3. No secret ever stands in a record: no header values but the few named here, no query strings, no body text
   unless content capture is on.
4. Records never form cycles: `gc=False` spares the collector, which would be most of the cost of reading a journal.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from gateway.call import CacheHealth, ToolCall, ToolUse, Usage

SCHEMA = 5


class AttemptRecord(Struct, array_like=True, frozen=True, gc=False):
    upstream: str
    provider: str
    address: str  # host
    port: int
    offset_ns: int  # from the start of the call
    duration_ns: int
    status: int  # 0: no answer
    reused: bool
    error_code: str = ""
    # since schema 4
    model: str = ""  # asked for
    cost: int | None = 0  # pico-USD, of one that another followed; None: unknown. The rest is the last one's.
    usage: Usage | None = None  # of one that another followed
    usage_source: str = ""


class CallRecord(Struct, array_like=True, tag="call", gc=False):
    id: str
    started_at: int  # ns since the epoch
    duration_ns: int
    ttft_ns: int  # -1: no byte was sent
    overhead_ns: int  # time spent in the gateway itself
    method: str
    route: str  # template
    dialect: str
    operation: str
    upstream: str
    provider: str
    status: int
    outcome: str
    stream: bool
    websocket: bool
    model_requested: str
    model_used: str
    tenant: str
    key_id: str
    agent: str
    agent_source: str
    agent_version: str
    parent_agent: str
    run_id: str
    run_source: str
    run_confidence: float
    step: int
    request_class: str
    conversation_id: str
    end_user: str
    trace_id: str
    span_id: str
    parent_span_id: str
    trace_flags: int
    trace_state: str
    usage: Usage | None
    usage_source: str
    cost: int | None  # pico-USD; None: unknown
    cost_components: dict[str, int]
    cost_status: str  # priced | no_price | no_usage | free
    price_version: str
    finish_reasons: tuple[str, ...]
    response_id: str
    tool_uses: tuple[ToolUse, ...]  # asked for by the model in this answer
    tools: tuple[ToolCall, ...]  # results that this request brought
    attempts: tuple[AttemptRecord, ...]
    error_source: str
    error_code: str  # ours, stable
    error_type: str  # the provider's
    error_message: str
    request_bytes: int
    response_bytes: int
    user_agent: str
    client_address: str
    sdk_retry: int  # x-stainless-retry-count; -1: not said
    params: dict[str, str | int | float | bool | list[str]]
    notes: dict[str, str]
    worker: int
    input_content: bytes  # capture: hash or text, else empty
    output_content: bytes
    # since schema 2
    budget: str = ""  # granted | queued | clamped | tapered | refused | stopped; "": no limit was asked
    budget_account: str = ""  # the account that made it so, see gateway.spend
    reserved: int = 0  # nano-USD that were held while it was under way
    remaining: int = -1  # nano-USD that the tightest budget had left beside that; -1: no budget in money
    depth: int = 0  # levels of agents above the one that made the call
    # since schema 3
    cache: str = (
        ""  # exact | semantic | joined (the answer of an equal call under way) | miss | bypass; "": it was not asked
    )
    cache_reason: str = ""  # of a bypass; of a miss: why its answer was not kept
    cache_age_ns: int = -1  # since the answer was stored; -1: it was not
    cache_entry: str = ""  # name of the stored answer
    saved: int = 0  # pico-USD that the answer cost when it was paid for
    prompt_cache: CacheHealth | None = None  # None: the call could not have hit its provider's cache
    # since schema 5
    seen: bytes = b""  # features of its prompt, where a choice is learned from them: policy.selection_wire


class OutcomeRecord(Struct, array_like=True, tag="outcome", gc=False):
    """What a run achieved, as reported through the API. The last one of a run counts."""

    id: str
    at: int  # ns since the epoch
    run_id: str
    kind: str  # success | failure | score
    value: float | None = None
    note: str = ""


class EventRecord(Struct, array_like=True, tag="event", gc=False):
    """Something that happened to the gateway: start, stop, reload, reload_failed, worker_died, records_lost,
    holds_expired, settles_lost, cache_writes_lost, breaker (its state changed), breakers_reset (a worker counts anew);
    or what somebody decided: {run, agent, key, team}_{killed, resumed}, run_raised, run_limited, budget_adjusted,
    {global, team, key, agent, model, upstream}_capped, upstream_{forced_open, forced_closed, released},
    cache_cleared; or what the matcher found out: cache_verified, cache_breaker, cache_feedback, cache_embedded,
    cache_judged, matcher_died; or what was judged: canary_promoted, canary_rolled_back."""

    id: str
    at: int
    kind: str
    worker: int = -1
    detail: dict[str, str | int | float | bool] = {}


Record = CallRecord | OutcomeRecord | EventRecord

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(CallRecord | OutcomeRecord | EventRecord)


def encode(record: Record) -> bytes:
    return _encoder.encode(record)


def decode(data: bytes) -> Record:
    """Raises msgspec.DecodeError or msgspec.ValidationError for what is not a record."""
    return _decoder.decode(data)
