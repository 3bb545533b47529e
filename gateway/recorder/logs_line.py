"""The fields of a log line. Snake-case ids at the top level are what log stores look for; empty fields are left out.

Encoding is fast on what needs no care; a line with something in it that a terminal would obey, or that is far too
long, is encoded once more from cleaned fields.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Struct

from gateway.call import Outcome
from gateway.journal.record import CallRecord
from gateway.recorder.facts import tidy

FIELD_LIMIT = 1024
LINE_LIMIT = 32_768
_CONTENT = frozenset({"input_content", "output_content"})
_FINE = frozenset({Outcome.OK, Outcome.CANCELLED})
_ERROR = frozenset({Outcome.FAILED, Outcome.ERROR, Outcome.ABANDONED})
# In JSON: an escaped control, DEL, a C1 control, U+2028 to U+202E, U+2066 to U+2069.
_SUSPECT = re.compile(rb"\\[bfnrtu]|\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]|\xe2\x81[\xa6-\xa9]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_encoder = msgspec.json.Encoder()


class Line(Struct, omit_defaults=True, kw_only=True, gc=False):
    ts: str  # RFC 3339, UTC: when it ended
    level: str
    event: str


class OutcomeLine(Line, omit_defaults=True, kw_only=True, gc=False):
    run_id: str
    outcome: str
    value: float | None = None
    note: str = ""


class EventLine(Line, omit_defaults=True, kw_only=True):
    worker: int
    detail: dict[str, str | int | float | bool] = {}


class CallLine(Line, omit_defaults=True, kw_only=True, gc=False):
    trace_id: str
    span_id: str
    trace_flags: int
    request_id: str
    method: str
    route: str
    operation: str = ""
    dialect: str
    tenant: str
    key_id: str = ""
    agent: str = ""
    agent_source: str = ""
    agent_version: str = ""
    parent_agent: str = ""
    run_id: str = ""
    run_source: str = ""
    conversation_id: str = ""
    step: int
    depth: int = 0
    request_class: str = ""
    end_user: str = ""
    upstream: str = ""
    provider: str = ""
    server_address: str = ""
    model_requested: str = ""
    model_used: str = ""
    stream: bool
    attempts: int
    status: int
    outcome: str
    error_type: str = ""
    error_source: str = ""
    error_message: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    usage_source: str
    cost_usd: float | None = None
    cost_status: str
    price_version: str = ""
    latency_ms: float
    ttft_ms: float | None = None
    overhead_ms: float
    budget: str = ""
    budget_account: str = ""
    budget_reserved_usd: float | None = None
    budget_remaining_usd: float | None = None
    cache: str = ""
    cache_age_ms: float | None = None
    saved_usd: float | None = None
    loop: str = ""
    loop_action: str = ""
    cache_hint: str = ""
    cache_lost_usd: float | None = None
    finish_reasons: tuple[str, ...] = ()
    tool_names: tuple[str, ...] = ()
    tool_results: int = 0
    request_bytes: int
    response_bytes: int
    client_address: str = ""
    user_agent: str = ""
    client_retry: int | None = None
    worker: int
    input_content: str = ""
    output_content: str = ""


def level_of(r: CallRecord) -> str:
    """error: the gateway or an upstream broke; warning: the call did not end well; info."""
    if r.outcome in _FINE:
        return "info"
    return "error" if r.outcome in _ERROR or r.status >= 500 else "warning"


def encode(line: Line) -> bytes:
    """One line of JSON with its line feed."""
    data = _encoder.encode(line)
    plain = data.isascii() and b"\\" not in data and b"\x7f" not in data
    if len(data) > LINE_LIMIT or not (plain or _SUSPECT.search(data) is None):
        data = _encoder.encode(_cleaned(line))
    return data + b"\n"


def _cleaned(line: Line) -> Line:
    fields: dict[str, Any] = msgspec.structs.asdict(line)
    return msgspec.structs.replace(line, **{name: _clean(name, value) for name, value in fields.items()})


def _clean(name: str, value: Any) -> Any:
    if isinstance(value, str):
        return _CONTROL.sub(" ", value) if name in _CONTENT else tidy(value, FIELD_LIMIT)
    if isinstance(value, tuple):
        return tuple(tidy(item, FIELD_LIMIT) for item in value[:64])
    if isinstance(value, dict):
        return {tidy(key, 64): _clean("", item) for key, item in value.items()}
    return value
