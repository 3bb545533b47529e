"""Anthropic messages: cumulative usage, iterations, tools, errors."""

from __future__ import annotations

import json

import pytest

from gateway.call import ToolUse, Usage, UsageSource
from gateway.dialects.identity_text import digest_text
from gateway.errors import BadBody, GatewayError, Overloaded, StreamTruncated

START = {"input_tokens": 10, "cache_creation_input_tokens": 4, "cache_read_input_tokens": 6, "output_tokens": 1}


def started(**usage):
    message = {"id": "m1", "type": "message", "model": "claude-x", "content": [], "usage": {**START, **usage}}
    return ("message_start", {"type": "message_start", "message": message})


def delta(kind, value, index=0):
    key = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}[kind]
    return (
        "content_block_delta",
        {"type": "content_block_delta", "index": index, "delta": {"type": kind, key: value}},
    )


def block(index=0, **content):
    return (
        "content_block_start",
        {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": "", **content}},
    )


def finished(**usage):
    return ("message_delta", {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage})


PING = ("ping", {"type": "ping"})
STOP = ("message_stop", {"type": "message_stop"})


@pytest.fixture
def claude(talk):
    return talk("anthropic")


def test_request(claude):
    asked = claude.read(
        {
            "model": "claude-x",
            "max_tokens": 99,
            "stream": True,
            "system": [{"type": "text", "text": "s"}],
            "tools": [{"name": "f"}],
            "stop_sequences": ["x"],
            "top_k": 3,
            "messages": [{"role": "user", "content": "hi"}],
        }
    )
    assert (asked.model, asked.stream, asked.max_tokens, len(asked.messages)) == ("claude-x", True, 99, 1)
    assert json.loads(asked.system)[0]["text"] == "s"
    assert json.loads(asked.tools) == [{"name": "f"}]
    assert asked.params == {"stop_sequences": ["x"], "top_k": 3}


def test_duplicate_keys_are_refused(claude):
    with pytest.raises(BadBody):
        claude.read('{"model":"a","max_tokens":1,"max_tokens":9}')


def test_document(claude):
    answer = claude.answer(
        {
            "id": "m1", "type": "message", "model": "claude-x", "stop_reason": "tool_use",
            "content": [
                {"type": "thinking", "thinking": "hmm"},
                {"type": "text", "text": "Let me "},
                {"type": "text", "text": "look."},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
                {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}},
            ],
            "usage": {
                **START, "service_tier": "priority", "speed": "fast", "inference_geo": "us",
                "cache_creation": {"ephemeral_1h_input_tokens": 3, "ephemeral_5m_input_tokens": 0},
                "server_tool_use": {"web_search_requests": 2},
            },
        }
    )  # fmt: skip
    assert answer.usage == Usage(20, 1, 6, 4, 0, {"cache_write_1h_tokens": 3, "web_searches": 2})
    assert answer.pricing == {"service_tier": "priority", "speed": "fast", "inference_geo": "us"}
    assert answer.tool_uses == (ToolUse("t1", "f"),)
    assert answer.finish_reasons == ("tool_use",)
    assert answer.text_digest == digest_text("Let me look.")
    assert answer.output_chars == len("hmmLet me look.") + len('{"a": 1}')


def test_stream(claude):
    meter = claude.stream(
        started(),
        PING,
        block(),
        delta("thinking_delta", "hmm"),
        delta("text_delta", "Hel"),
        delta("text_delta", "lo"),
        block(1, type="tool_use", id="t1", name="f"),
        delta("input_json_delta", '{"a":', 1),
        finished(output_tokens=42),
    )
    assert not meter.terminal
    meter.feed(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
    assert meter.terminal
    answer = meter.end()
    assert answer.complete
    assert (answer.model, answer.response_id, answer.finish_reasons) == ("claude-x", "m1", ("end_turn",))
    assert answer.usage == Usage(20, 42, 6, 4)
    assert answer.usage_source is UsageSource.PROVIDER
    assert answer.tool_uses == (ToolUse("t1", "f"),)
    assert (answer.output_chars, answer.text_digest) == (13, digest_text("Hello"))


@pytest.mark.parametrize(
    ("last", "usage"),
    [
        ({"output_tokens": 9}, Usage(20, 9, 6, 4)),
        ({"output_tokens": 0}, Usage(20, 0, 6, 4)),  # an explicit 0 is a value
        ({"output_tokens": 9, "input_tokens": 25}, Usage(35, 9, 6, 4)),
        ({"output_tokens": 9, "input_tokens": None, "cache_read_input_tokens": None}, Usage(20, 9, 6, 4)),
        ({"output_tokens": 9, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}, Usage(10, 9)),
    ],
)
def test_later_fields_overwrite_earlier_ones(claude, last, usage):
    assert claude.stream(started(), finished(output_tokens=5), finished(**last), STOP).end().usage == usage


@pytest.mark.parametrize("value", [-5, "many", 1e99])
def test_bad_counts_are_no_usage(claude, value):
    answer = claude.stream(started(), finished(output_tokens=value), STOP).end()
    assert answer.usage is None
    assert answer.usage_source is UsageSource.NONE
    assert answer.complete


def test_a_cut_stream_knows_its_input_only(claude):
    answer = claude.stream(started(), block(), delta("text_delta", "Hello")).end()
    assert not answer.complete
    assert answer.usage.input_tokens == 20
    assert answer.usage_source is UsageSource.ESTIMATED
    assert answer.output_chars == 5


def test_pings_do_not_start_a_stream(claude):
    meter = claude.stream(PING, b": x\n\n", PING)
    assert not meter.started
    meter.feed(b'event: message_start\ndata: {"type":"message_start"}\n\n')
    assert not meter.started, "that says who is going to answer"
    meter.feed(b'event: content_block_start\ndata: {"type":"content_block_start"}\n\n')
    assert meter.started


def test_an_error_behind_the_beginning_is_restated(claude):
    frame = b'event: message_start\ndata: {"type":"message_start"}\n\nevent: ping\ndata: {"type":"ping"}\n\n'
    error = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"x"}}\n\n'
    assert claude.dialect.restate(claude.route, frame + error).status == 529


def iteration(kind, inputs, outputs, **more):
    return {"type": kind, "input_tokens": inputs, "output_tokens": outputs, **more}


@pytest.mark.parametrize(
    ("total", "iterations", "usage", "parts"),
    [
        ((10, 5), [iteration("message", 10, 5)], Usage(10, 5), []),
        (
            (10, 5),
            [iteration("message", 10, 5), iteration("compaction", 100, 50, cache_read_input_tokens=7)],
            Usage(10, 5),
            [(Usage(107, 50, 7), "")],
        ),
        (
            (10, 5),
            [iteration("message", 10, 5), iteration("advisor_message", 30, 8, model="claude-big")],
            Usage(10, 5),
            [(Usage(30, 8), "claude-big")],
        ),
        (  # the totals leave the fallback out
            (10, 5),
            [iteration("message", 10, 5), iteration("fallback_message", 30, 8, model="claude-small")],
            Usage(10, 5),
            [(Usage(30, 8), "claude-small")],
        ),
        (  # the totals include the fallback
            (40, 13),
            [iteration("message", 10, 5), iteration("fallback_message", 30, 8, model="claude-small")],
            Usage(10, 5),
            [(Usage(30, 8), "claude-small")],
        ),
        (  # the totals are the fallback
            (30, 8),
            [iteration("message", 10, 5), iteration("fallback_message", 30, 8, model="claude-small")],
            Usage(30, 8),
            [],
        ),
        ((10, 5), ["x", None, iteration("advisor_message", -1, 2), {}], Usage(10, 5), []),
    ],
)
def test_iterations(claude, total, iterations, usage, parts):
    stated = {"input_tokens": total[0], "output_tokens": total[1], "iterations": iterations, "service_tier": "standard"}
    answer = claude.answer({"type": "message", "usage": stated})
    assert answer.usage == usage
    assert [part[:2] for part in answer.parts] == parts
    assert all(part[2] == {"service_tier": "standard"} for part in answer.parts)


@pytest.mark.parametrize("before", [[], [started(), PING, block(), delta("text_delta", "x")]])
def test_error_event(claude, before):
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    meter = claude.stream(*before, ("error", error))
    assert meter.failed == "overloaded_error"
    answer = meter.end()
    assert (answer.complete, answer.error_type, answer.error_message) == (False, "overloaded_error", "Overloaded")


def test_error_document(claude):
    answer = claude.answer({"type": "error", "error": {"type": "billing_error", "message": "m"}}, status=402)
    assert (answer.error_type, answer.error_message) == ("billing_error", "m")
    answer = claude.answer({"type": "error", "error": {"type": "api_error", "message": "m"}})
    assert answer.error_type == "api_error"


def test_counting_tokens_uses_none(talk):
    counting = talk("anthropic", "/v1/messages/count_tokens", "")
    assert counting.answer({"input_tokens": 99}).usage is None


def test_restate(claude):
    data = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    answer = claude.dialect.restate(claude.route, b"event: error\r\ndata: " + data + b"\r\n\r\n")
    assert (answer.status, answer.body) == (529, data)
    assert claude.dialect.restate(claude.route, b'event: ping\ndata: {"type":"ping"}\n\n') is None
    assert claude.dialect.restate(claude.route, b"event: error\ndata: x\n\n") is None


class Budget(GatewayError):
    code, status = "budget_exceeded", 402


@pytest.mark.parametrize(
    ("fault", "status", "kind", "retry", "after"),
    [
        (Budget("spent"), 402, "billing_error", b"false", None),
        (Overloaded(), 529, "overloaded_error", b"true", b"1"),
        (Overloaded(retry_after=9999), 529, "overloaded_error", b"true", b"60"),
        (BadBody("bad"), 400, "invalid_request_error", b"false", None),
        (StreamTruncated(), 502, "api_error", b"true", None),
    ],
)
def test_refusal(claude, fault, status, kind, retry, after):
    answer = claude.dialect.refusal(fault, "req-1", stream=False)
    headers = dict(answer.headers)
    body = json.loads(answer.body)
    assert answer.status == status
    assert (body["type"], body["request_id"], body["error"]["type"]) == ("error", "req-1", kind)
    assert body["error"]["details"] == {"error_code": fault.code}
    assert (headers[b"request-id"], headers[b"x-should-retry"]) == (b"req-1", retry)
    assert headers.get(b"retry-after") == after


def test_interruption_has_its_event_line(claude):
    meter = claude.stream(started(), delta("text_delta", "x"))
    text = claude.dialect.interruption(StreamTruncated("cut"), meter, "req-1")
    name, _, data = text.partition(b"\n")
    assert name == b"event: error"
    assert json.loads(data.removeprefix(b"data: "))["error"]["details"]["error_code"] == "upstream_truncated"
    meter.feed(b"event: content_blo")
    assert claude.dialect.interruption(StreamTruncated("cut"), meter, "req-1").startswith(b"\n\nevent: error\n")
