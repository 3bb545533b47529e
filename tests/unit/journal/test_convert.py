from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import msgspec
import pytest

from gateway.call import Answer, Asked, Attempt, Outcome, Request, Target
from gateway.errors import (
    BadBody,
    BodyTooLarge,
    ClientGone,
    ConnectFailed,
    Draining,
    GatewayFault,
    JournalUnavailable,
    StreamErrored,
    StreamTruncated,
    UpstreamTimeout,
)
from gateway.journal.convert import Converter, outcome_of, overhead_ns, sparse
from gateway.journal.record import CallRecord, decode, encode
from gateway.spend import Hold

TARGET = Target("openai", "openai", "api.openai.com", 443, True, b"")
NONE: dict[str, Any] = {"attempts": [], "answer": None, "status": 0, "first_byte": 0, "upstream_last_byte": 0}


def test_every_field_says_what_its_name_says(make_call: Any) -> None:
    call = make_call()
    record = Converter(3).record_of(call)
    assert Converter(3).encoded(call) == encode(record)

    assert decode(encode(record)) == record
    told = {name: getattr(record, name) for name in record.__struct_fields__}
    attempt = told.pop("attempts")[0]
    assert (attempt.upstream, attempt.provider, attempt.address, attempt.port) == (
        "openai",
        "openai",
        "api.openai.com",
        443,
    )
    assert (attempt.offset_ns, attempt.duration_ns, attempt.status, attempt.reused) == (1_200_000, 7_800_000, 200, True)
    assert told == {
        "id": "call-1",
        "started_at": call.started_at,
        "duration_ns": 9_100_000,
        "ttft_ns": 8_000_000,
        "overhead_ns": 9_100_000 - 1_000_000 - 7_700_000,
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
        "tenant": "acme",
        "agent": "coder",
        "agent_source": "url",
        "agent_version": "",
        "parent_agent": "",
        "run_id": "run-1",
        "run_source": "",
        "run_confidence": 1.0,
        "step": 2,
        "request_class": "",
        "conversation_id": "",
        "end_user": "",
        "key_id": "",
        "trace_id": "a" * 32,
        "span_id": "b" * 16,
        "parent_span_id": "c" * 16,
        "trace_flags": 1,
        "trace_state": "",
        "usage": call.answer.usage,
        "usage_source": "provider",
        "cost": 1_234,
        "cost_components": {"input": 1_000, "output": 234},
        "cost_status": "priced",
        "price_version": "2026-11-01",
        "finish_reasons": ("stop",),
        "response_id": "chatcmpl-1",
        "tool_uses": (),
        "tools": (),
        "error_source": "",
        "error_code": "",
        "error_type": "",
        "error_message": "",
        "request_bytes": 23,
        "response_bytes": 700,
        "user_agent": "OpenAI/Python 3.3.1",
        "client_address": "127.0.0.1:50000",
        "sdk_retry": 1,
        "params": {"temperature": 0.5, "stop": ["a", "b"]},
        "notes": {},
        "worker": 3,
        "input_content": b"",
        "output_content": b"",
        "budget": "",
        "budget_account": "",
        "reserved": 0,
        "remaining": -1,
        "depth": 0,
        "cache": "",
        "cache_reason": "",
        "cache_age_ns": -1,
        "cache_entry": "",
        "saved": 0,
        "prompt_cache": None,
        "seen": b"",
    }


def test_texts_of_one_type_are_not_swapped(make_call: Any) -> None:
    """Every string of a call is different, and each arrives under its own name."""
    call = make_call()
    names = {}
    for part, fields in (
        (call.who, ("tenant", "agent", "agent_source", "agent_version", "parent_agent", "run_id", "run_source")),
        (call.who, ("request_class", "conversation_id", "end_user", "key_id")),
        (call.trace, ("trace_id", "span_id")),
    ):
        for name in fields:
            names[name] = f"<{name}>"
            setattr(part, name, names[name])
    call.trace.parent_id, call.trace.state = "<parent>", "<state>"
    record = Converter(0).record_of(call)
    assert {name: getattr(record, name) for name in names} == names
    assert (record.parent_span_id, record.trace_state) == ("<parent>", "<state>")


@pytest.mark.parametrize(
    ("changes", "outcome", "source", "code"),
    [
        ({}, Outcome.OK, "", ""),
        ({"status": 101, "websocket": True}, Outcome.OK, "", ""),
        ({"status": 429}, Outcome.UPSTREAM_ERROR, "upstream", "upstream_error"),
        ({**NONE, "status": 400, "fault": BadBody()}, Outcome.REFUSED, "client", "invalid_body"),
        ({**NONE, "status": 413, "fault": BodyTooLarge()}, Outcome.REFUSED, "client", "request_too_large"),
        ({**NONE, "status": 503, "fault": Draining()}, Outcome.REFUSED, "gateway", "draining"),
        ({**NONE, "status": 503, "fault": JournalUnavailable()}, Outcome.REFUSED, "gateway", "journal_unavailable"),
        ({"status": 502, "fault": ConnectFailed()}, Outcome.FAILED, "upstream", "upstream_connect_failed"),
        ({"status": 504, "fault": UpstreamTimeout()}, Outcome.FAILED, "upstream", "upstream_timeout"),
        ({"status": 503, "fault": Draining()}, Outcome.FAILED, "gateway", "draining"),
        ({"committed": True, "fault": StreamTruncated()}, Outcome.TRUNCATED, "upstream", "upstream_truncated"),
        ({"committed": True, "fault": StreamErrored()}, Outcome.TRUNCATED, "upstream", "upstream_stream_error"),
        ({"committed": True, "fault": Draining()}, Outcome.TRUNCATED, "gateway", "draining"),
        (
            {"asked": Asked(stream=True), "answer": Answer(complete=False)},
            Outcome.TRUNCATED,
            "upstream",
            "upstream_truncated",
        ),
        ({"fault": ClientGone()}, Outcome.CANCELLED, "client", "client_gone"),
        ({"committed": True, "fault": ClientGone()}, Outcome.CANCELLED, "client", "client_gone"),
        ({"fault": asyncio.CancelledError()}, Outcome.CANCELLED, "client", "client_gone"),
        ({"status": 500, "fault": GatewayFault()}, Outcome.ERROR, "gateway", "internal"),
        ({"fault": ZeroDivisionError("sk-secretsecret")}, Outcome.ERROR, "gateway", "internal"),
        ({**NONE}, Outcome.ERROR, "gateway", "internal"),
    ],
)
def test_outcomes(make_call: Any, changes: dict[str, Any], outcome: Outcome, source: str, code: str) -> None:
    call = make_call(**changes)
    record = Converter(0).record_of(call)
    assert outcome_of(call) is outcome
    assert (record.outcome, record.error_source, record.error_code) == (outcome.value, source, code)


def test_a_bug_is_named_by_its_type_alone(make_call: Any) -> None:
    record = Converter(0).record_of(make_call(fault=ZeroDivisionError("x-api-key: abcdefgh")))
    assert record.error_message == "ZeroDivisionError"


def test_messages_are_one_line_bounded_and_hold_no_secret(make_call: Any) -> None:
    request = Request(b"POST", b"/", [(b"Authorization", b"Bearer clientsecret123")], b"")
    message = "bad key clientsecret123\r\nX: operatorsecret, sk-proj-abcdefgh****1234 " + "y" * 1000
    answer = Answer(error_type="invalid\r\nrequest", error_message=message)
    record = Converter(0, secrets=["operatorsecret"]).record_of(make_call(request=request, status=401, answer=answer))
    assert len(record.error_message) == 500
    assert record.error_message.isprintable()
    assert record.error_type == "invalid request"
    for secret in ("clientsecret123", "operatorsecret", "sk-proj"):
        assert secret not in record.error_message


def test_overhead_leaves_out_the_client_and_every_upstream(make_call: Any) -> None:
    b = 5_000_000_000
    attempts = [Attempt(TARGET, b + 200, b + 1_200), Attempt(TARGET, b + 1_500, 0)]
    call = make_call(received=b + 100, attempts=attempts, upstream_last_byte=b + 4_500, ended=b + 5_000)
    assert overhead_ns(call, 5_000) == 5_000 - 100 - 1_000 - 3_000
    assert overhead_ns(make_call(**NONE, received=0), 700) == 700
    assert overhead_ns(make_call(upstream_last_byte=b + 10**12), 9_100_000) == 0


@pytest.mark.parametrize("value", [b"7", b"-1", b"x", b"99999999", b"\xb2"])
def test_sdk_retry_is_a_small_number_or_unknown(make_call: Any, value: bytes) -> None:
    request = Request(b"POST", b"/", [(b"x-stainless-retry-count", value)], b"")
    assert Converter(0).record_of(make_call(request=request)).sdk_retry == (7 if value == b"7" else -1)


def test_capture(make_call: Any) -> None:
    body, output = b"question" * 100, b"answer" * 100
    call = make_call(request=Request(b"POST", b"/", [], body), captured=output)
    off, full = Converter(0).record_of(call), Converter(0, "full", 10).record_of(call)
    hashed = Converter(0, "hash").record_of(call)
    assert (off.input_content, off.output_content) == (b"", b"")
    assert (full.input_content, full.output_content) == (body[:10], output[:10])
    assert hashed.input_content == b"sha256:" + hashlib.sha256(body).hexdigest().encode()
    assert hashed.output_content == b"sha256:" + hashlib.sha256(output).hexdigest().encode()


def test_parameters_of_other_shapes_are_left_out(make_call: Any) -> None:
    params = {"seed": 1 << 70, "n": 2, "x": None, "y": {"a": 1}, "stop": [1], "top_p": 0.1, "strict": True, "s": "t"}
    record = Converter(0).record_of(make_call(asked=Asked(params=params)))
    assert record.params == {"n": 2, "top_p": 0.1, "strict": True, "s": "t"}
    assert decode(encode(record)) == record


def test_what_cannot_be_written_is_left_out_and_the_rest_stays(make_call: Any) -> None:
    call = make_call(asked=Asked(model="gpt\ud800"), response_bytes=1 << 80)
    with pytest.raises((UnicodeError, OverflowError)):
        encode(Converter(0).record_of(call))
    record = decode(encode(Converter(0).salvage(call)))
    assert isinstance(record, CallRecord)
    assert (record.model_requested, record.response_bytes, record.cost) == ("gpt?", 0, 1_234)


def test_a_call_that_cannot_be_converted_still_has_a_record(make_call: Any) -> None:
    record = decode(encode(Converter(2).salvage(make_call(answer="no answer"))))
    assert isinstance(record, CallRecord)
    assert (record.id, record.outcome, record.worker, record.notes) == ("call-1", "error", 2, {"record": "reduced"})


def test_a_sparse_record_is_a_whole_record() -> None:
    record = sparse("x", 5, Outcome.ABANDONED)
    assert decode(encode(record)) == record
    assert (record.cost, record.usage, record.ttft_ns) == (None, None, -1)


@pytest.mark.parametrize(
    ("hold", "notes", "told"),
    [
        (Hold("op", 7_000, remaining=90), {}, ("granted", "", 7_000, 90)),
        (
            Hold("op", 7_000),
            {"budget": "clamped", "budget_account": "global|usd|day"},
            ("clamped", "global|usd|day", 7_000, -1),
        ),
        (None, {"budget": "refused", "budget_account": "run:r|calls|life"}, ("refused", "run:r|calls|life", 0, -1)),
        (None, {"alias": "fast"}, ("", "", 0, -1)),
    ],
)
def test_what_budgets_made_of_a_call_is_in_its_record(make_call: Any, hold: Hold | None, notes: Any, told: Any) -> None:
    call = make_call(hold=hold, notes=notes)
    call.who.depth = 2
    record = decode(encode(Converter(0).record_of(call)))
    assert isinstance(record, CallRecord)
    assert (record.budget, record.budget_account, record.reserved, record.remaining) == told
    assert record.depth == 2


def test_a_record_of_the_schema_before_is_still_read(make_call: Any) -> None:
    tail = 5
    fields = msgspec.msgpack.decode(encode(Converter(0).record_of(make_call())))
    record = decode(msgspec.msgpack.encode(fields[:-tail]))
    assert isinstance(record, CallRecord)
    assert (record.budget, record.reserved, record.remaining, record.depth) == ("", 0, -1, 0)


def test_attempts_beside_each_other_are_waited_for_once(make_call: Any) -> None:
    call = make_call()
    b, target = call.began, call.attempts[0].target
    call.received = 0
    call.attempts = [
        Attempt(target, began=b + 1_000, ended=b + 6_000),
        Attempt(target, began=b + 4_000, ended=b + 5_500),
    ]
    call.upstream_last_byte = b + 9_000
    assert overhead_ns(call, 10_000) == 10_000 - 8_000
    call.attempts.append(Attempt(target, began=b + 9_500, ended=b + 9_600))
    call.upstream_last_byte = b + 9_900
    assert overhead_ns(call, 10_000) == 10_000 - 5_000 - 400
