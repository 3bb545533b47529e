"""Records for tests of telemetry: one call with everything in it, to vary."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.call import ToolUse, Usage
from gateway.journal.record import AttemptRecord, CallRecord

T0 = 1_790_000_000_000_000_000

BASE = CallRecord(
    id="01K7Z0000000000000000CALL1",
    started_at=T0,
    duration_ns=1_500_000_000,
    ttft_ns=-1,
    overhead_ns=180_000,
    method="POST",
    route="/v1/chat/completions",
    dialect="openai_chat",
    operation="chat",
    upstream="openai",
    provider="openai",
    status=200,
    outcome="ok",
    stream=False,
    websocket=False,
    model_requested="gpt-4o",
    model_used="gpt-4o-2024-08-06",
    tenant="acme",
    key_id="",
    agent="researcher",
    agent_source="header",
    agent_version="2",
    parent_agent="",
    run_id="run-1",
    run_source="header",
    run_confidence=1.0,
    step=1,
    request_class="",
    conversation_id="",
    end_user="",
    trace_id="0af7651916cd43dd8448eb211c80319c",
    span_id="b7ad6b7169203331",
    parent_span_id="",
    trace_flags=1,
    trace_state="",
    usage=Usage(input_tokens=1000, output_tokens=200, cache_read_tokens=600, reasoning_tokens=50),
    usage_source="provider",
    cost=3_750_000_000,
    cost_components={"input": 1_000_000_000, "cache_read": 750_000_000, "output": 2_000_000_000},
    cost_status="priced",
    price_version="genai-prices 0.2.3",
    finish_reasons=("tool_calls",),
    response_id="chatcmpl-1",
    tool_uses=(ToolUse("call_1", "get_weather"),),
    tools=(),
    attempts=(AttemptRecord("openai", "openai", "api.openai.com", 443, 2_000_000, 1_490_000_000, 200, True),),
    error_source="",
    error_code="",
    error_type="",
    error_message="",
    request_bytes=2_048,
    response_bytes=900,
    user_agent="OpenAI/Python 3.54.0",
    client_address="127.0.0.1",
    sdk_retry=0,
    params={"temperature": 0.2, "max_tokens": 256},
    notes={},
    worker=0,
    input_content=b"",
    output_content=b"",
)


def call(**changes: Any) -> CallRecord:
    """`BASE` with other field values."""
    return msgspec.structs.replace(BASE, **changes)


def streamed(**changes: Any) -> CallRecord:
    """As `call`, answered by a stream whose first byte came after 0.3 s."""
    return call(**{"stream": True, "ttft_ns": 300_000_000, **changes})
