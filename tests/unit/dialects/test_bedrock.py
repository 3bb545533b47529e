"""Bedrock: what its requests ask for, how its streams are framed, stopped and broken off, and what errors look like."""

from __future__ import annotations

import base64
import json
import struct
from zlib import crc32

import pytest

from gateway.call import Request, Route, Usage, UsageSource
from gateway.dialects import eventstream
from gateway.dialects.eventstream import GARBLED, LONGEST, FrameCutter
from gateway.dialects.items import read_item
from gateway.dialects.registry import DIALECTS
from gateway.dialects.routes import Table
from gateway.dialects.sse import MAX_EVENT
from gateway.dialects.steps import newest_step
from gateway.errors import BudgetExceeded, StreamTruncated

KIND = b"application/vnd.amazon.eventstream"
TABLE = Table({"bedrock": "bedrock"})
SONNET = "/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0"
USAGE = Usage(12, 7, 3, 2)


class Talk:
    def __init__(self, path, body=None):
        self.route = TABLE.resolve(b"POST", path.encode(), "")
        self.dialect = DIALECTS[self.route.dialect]
        self.body = json.dumps(body or {}).encode()
        self.asked = self.dialect.read(self.route, Request(b"POST", self.route.path, (), self.body))

    def meter(self, data=b""):
        meter = self.dialect.meter(self.route, self.asked, 200, KIND)
        meter.feed(data)
        return meter

    def capped(self, ceiling):
        edits = self.dialect.cap_output(self.route, self.asked, self.body, ceiling)
        if edits is None:
            return None
        body = self.body
        for edit in sorted(edits, key=lambda edit: -edit.start):
            body = body[: edit.start] + edit.text + body[edit.end :]
        return json.loads(body)

    def bounds(self):
        return self.dialect.bounds(self.route, self.asked)


def events(data):
    """(headers, payload) of whole messages, by the specification and not by the code under test."""
    found = []
    while data:
        total, size, crc = struct.unpack(">III", data[:12])
        assert crc == crc32(data[:8])
        assert struct.unpack(">I", data[total - 4 : total])[0] == crc32(data[: total - 4])
        block, names = data[12 : 12 + size], {}
        while block:
            name, block = block[1 : 1 + block[0]], block[1 + block[0] :]
            assert block[0] == 7
            length = int.from_bytes(block[1:3], "big")
            names[name.decode()], block = block[3 : 3 + length].decode(), block[3 + length :]
        found.append((names, json.loads(data[12 + size : total - 4])))
        data = data[total:]
    return found


def said(name, **payload):
    return eventstream.event(name.encode(), json.dumps(payload).encode())


def chunk(**value):
    held = base64.b64encode(json.dumps(value).encode()).decode()
    return said("chunk", bytes=held)


START = said("messageStart", role="assistant")
HELLO = said("contentBlockDelta", contentBlockIndex=0, delta={"text": "Hello there"})
STOP = said("contentBlockStop", contentBlockIndex=0)
END = said("messageStop", stopReason="end_turn")
META = said("metadata", usage={"inputTokens": 7, "outputTokens": 3, "cacheReadInputTokens": 5}, metrics={})


@pytest.mark.parametrize(
    ("path", "dialect", "operation", "model", "stream"),
    [
        ("/model/amazon.nova-pro-v1:0/converse", "bedrock_converse", "chat", "amazon.nova-pro-v1:0", False),
        ("/model/amazon.nova-pro-v1%3A0/converse-stream", "bedrock_converse", "chat", "amazon.nova-pro-v1:0", True),
        ("/bedrock/model/meta.l/invoke", "bedrock_invoke", "chat", "meta.l", False),
        ("/run/r/model/meta.l/invoke-with-response-stream", "bedrock_invoke", "chat", "meta.l", True),
        ("/model/cohere.embed-v4%3A0/invoke", "bedrock_invoke", "embeddings", "cohere.embed-v4:0", False),
        ("/model/cohere.rerank-v3-5:0/invoke", "bedrock_invoke", "rerank", "cohere.rerank-v3-5:0", False),
        ("/model/m/count-tokens", "bedrock_invoke", "", "m", False),
    ],
)
def test_what_the_path_says(path, dialect, operation, model, stream):
    one = Talk(path)
    assert (one.route.dialect, one.route.operation) == (dialect, operation)
    assert (one.asked.model, one.asked.stream) == (model, stream)
    renamed, edits = one.dialect.rename(one.route, one.asked, "amazon.nova-lite-v1:0")
    assert (Talk(renamed.path.decode()).asked.model, edits) == ("amazon.nova-lite-v1:0", ())
    assert renamed.path.rpartition(b"/")[2] == one.route.path.rpartition(b"/")[2]


@pytest.mark.parametrize(
    ("path", "body", "limit", "capped"),
    [
        (f"{SONNET}/converse", {"inferenceConfig": {"maxTokens": 900}}, 900, {"inferenceConfig": {"maxTokens": 50}}),
        (f"{SONNET}/converse", {"max_tokens": 900}, None, {"inferenceConfig": {"maxTokens": 50}, "max_tokens": 900}),
        (f"{SONNET}/converse", {"inferenceConfig": {"maxTokens": 9}}, 9, {"inferenceConfig": {"maxTokens": 9}}),
        (f"{SONNET}/converse", {"inferenceConfig": {"maxTokens": 9000}, "additionalModelRequestFields": {
            "thinking": {"type": "enabled", "budget_tokens": 4000}}}, 9000, None),
        (f"{SONNET}/invoke", {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 70, "messages": [{}]}, 70,
         {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 50, "messages": [{}]}),
        ("/model/meta.llama3/invoke", {"prompt": "p", "max_gen_len": 70}, 70, {"prompt": "p", "max_gen_len": 50}),
        ("/model/amazon.titan-text/invoke", {"textGenerationConfig": {"maxTokenCount": 70}}, 70,
         {"textGenerationConfig": {"maxTokenCount": 50}}),
        ("/model/us.amazon.nova-2-lite/invoke", {"inferenceConfig": {"max_new_tokens": 70}}, 70,
         {"inferenceConfig": {"max_new_tokens": 50}}),
        ("/model/somebody.new/invoke", {"limit": 70}, None, None),
    ],
)  # fmt: skip
def test_the_limit_is_where_the_model_reads_it(path, body, limit, capped):
    one = Talk(path, body)
    assert one.bounds().max_output == limit
    assert one.capped(50) == capped


def test_tools_tier_and_choices():
    tools = [{"toolSpec": {"name": "look"}}, {"systemTool": {"name": "nova_grounding"}}, {"cachePoint": {}}]
    found = Talk(f"{SONNET}/converse", {"toolConfig": {"tools": tools}, "serviceTier": {"type": "flex"}}).bounds()
    assert (found.tools, found.server_tools) == (("look",), (("nova_grounding", 0),))
    assert Talk("/model/cohere.command/invoke", {"num_generations": 3}).bounds().choices == 3


def test_a_whole_stream():
    one = Talk(f"{SONNET}/converse-stream")
    body = START + HELLO + STOP + END + META
    for size in (1, 7, len(body)):
        meter = one.meter()
        for at in range(0, len(body), size):
            meter.feed(body[at : at + size])
        assert meter.terminal
        answer = meter.end()
        assert (answer.usage, answer.complete) == (Usage(12, 3, 5), True)
        assert (answer.finish_reasons, answer.sample) == (("end_turn",), "Hello there")


def test_a_stream_cut_inside_or_between_messages_is_incomplete():
    one = Talk(f"{SONNET}/converse-stream")
    for body in (START + HELLO, START + HELLO[:-3], START):
        meter = one.meter(body)
        assert not meter.end().complete
        said = one.dialect.interruption(StreamTruncated("cut"), meter, "r")
        if meter.broken:  # nothing can be said inside a message: only the cut connection tells
            assert said == b""
            continue
        ((names, payload),) = events(said)
        assert names[":message-type"] == "exception"
        assert names[":exception-type"][:1].islower()
        assert "stream_truncated" in payload["message"]


def test_an_exception_in_a_stream_is_a_failure_and_at_its_head_a_status():
    one = Talk(f"{SONNET}/converse-stream")
    frame = eventstream.exception(b"throttlingException", b'{"message":"Too many requests"}')
    meter = one.meter(START + frame)
    assert (meter.failed, meter.terminal) == ("throttlingException", False)
    answer = one.dialect.restate(one.route, frame)
    assert (answer.status, json.loads(answer.body)) == (429, {"message": "Too many requests"})
    assert dict(answer.headers)[b"x-amzn-errortype"] == b"throttlingException"
    assert one.dialect.restate(one.route, START) is None


def test_a_budget_ends_a_converse_stream_as_the_model_would():
    one = Talk(f"{SONNET}/converse-stream")
    body = START + HELLO + HELLO[:20]
    meter = one.meter(body)
    assert meter.stop(body) == len(body) - 20
    end = one.dialect.finish_early(meter, one.asked, "r", USAGE, "budget of run r-1")
    names = [names[":event-type"] for names, _ in events(end)]
    assert names == ["contentBlockStop", "messageStop", "metadata"]
    assert events(end)[1][1]["stopReason"] == "max_tokens"
    usage = {"inputTokens": 7, "outputTokens": 7, "totalTokens": 19, "cacheReadInputTokens": 3}
    assert events(end)[2][1]["usage"] == {**usage, "cacheWriteInputTokens": 2}
    answer = one.meter(START + HELLO + end).end()
    assert (answer.complete, answer.usage) == (True, USAGE)


def test_a_budget_ends_an_invoked_stream_of_claude_and_of_others():
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 70, "messages": [{"role": "user", "content": "a"}]}
    one = Talk(f"{SONNET}/invoke-with-response-stream", body)
    begun = chunk(type="message_start", message={"id": "m", "usage": {"input_tokens": 7}}) + chunk(
        type="content_block_start", index=0, content_block={"type": "text", "text": ""}
    )
    meter = one.meter(begun)
    assert meter.stop(begun) == len(begun)
    end = one.dialect.finish_early(meter, one.asked, "r", USAGE)
    told = [json.loads(base64.b64decode(payload["bytes"])) for _, payload in events(end)]
    assert [one["type"] for one in told] == ["content_block_stop", "message_delta", "message_stop"]
    assert one.meter(begun + end).end().complete

    other = Talk("/model/meta.llama3/invoke-with-response-stream")
    begun = chunk(generation="Hi", prompt_token_count=4)
    meter = other.meter(begun)
    assert meter.stop(begun) == len(begun)
    answer = other.meter(begun + other.dialect.finish_early(meter, other.asked, "r", USAGE)).end()
    assert (answer.complete, answer.usage, answer.sample) == (True, Usage(12, 7), "Hi")


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        ({"output": {"message": {"content": [{"text": "a"}]}}, "usage": {"inputTokens": 4, "outputTokens": 2}}, (4, 2)),
        ({"inputTextTokenCount": 4, "results": [{"tokenCount": 2, "outputText": "a"}, {"tokenCount": 1}]}, (4, 3)),
        ({"generation": "a", "prompt_token_count": 4, "generation_token_count": 2}, (4, 2)),
        ({"choices": [{"message": {"content": "a"}}], "usage": {"prompt_tokens": 4, "completion_tokens": 2}}, (4, 2)),
        ({"content": [{"type": "text", "text": "a"}], "usage": {"input_tokens": 4, "output_tokens": 2}}, (4, 2)),
        ({"outputs": [{"text": "a", "stop_reason": "stop"}]}, None),
    ],
)
def test_the_words_of_every_maker(answer, usage):
    one = Talk("/model/somebody.new/invoke")
    meter = one.dialect.meter(one.route, one.asked, 200, b"application/json")
    meter.feed(json.dumps(answer).encode())
    found = meter.end()
    assert (found.usage and (found.usage.input_tokens, found.usage.output_tokens)) == usage
    assert found.usage_source is (UsageSource.PROVIDER if usage else UsageSource.NONE)
    assert found.output_chars >= 1


@pytest.mark.parametrize(
    "block",
    [
        {"output": {"message": {"content": [{"toolUse": {"toolUseId": "t1", "name": "look", "input": {}}}]}}},
        {"choices": [{"message": {"tool_calls": [{"id": "t1", "function": {"name": "look", "arguments": "{}"}}]}}]},
    ],
)
def test_an_invoked_model_calls_tools(block):
    one = Talk("/model/somebody.new/invoke")
    meter = one.dialect.meter(one.route, one.asked, 200, b"application/json")
    meter.feed(json.dumps(block).encode())
    assert [(use.id, use.name) for use in meter.end().tool_uses] == [("t1", "look")]


def test_what_is_written_to_the_cache_is_told_by_its_time():
    one = Talk(f"{SONNET}/converse")
    details = [{"ttl": "5m", "inputTokens": 4}, {"ttl": "1h", "inputTokens": 6}]
    usage = {"inputTokens": 1, "outputTokens": 2, "cacheWriteInputTokens": 10, "cacheDetails": details}
    meter = one.dialect.meter(one.route, one.asked, 200, b"application/json")
    meter.feed(json.dumps({"usage": usage}).encode())
    found = meter.end().usage
    assert (found.input_tokens, found.cache_write_tokens) == (11, 10)
    assert found.detail == {"cache_write_1h_tokens": 6, "cache_write_5m_tokens": 4}


def test_a_refusal_is_an_exception_of_aws():
    one = Talk(f"{SONNET}/converse")
    answer = one.dialect.refusal(BudgetExceeded("spent"), "req-1", stream=True)
    headers = dict(answer.headers)
    assert (answer.status, json.loads(answer.body)) == (402, {"message": "spent"})
    assert headers[b"x-amzn-errortype"] == b"ServiceQuotaExceededException"  # which botocore does not try again
    assert headers[b"x-tollgate-code"] == b"budget_exceeded"


def test_a_turn_of_tools_is_read():
    use = {"toolUse": {"toolUseId": "t1", "name": "look", "input": {"q": 1}}}
    result = {"toolResult": {"toolUseId": "t1", "content": [{"text": "no"}], "status": "error"}}
    asks = {"role": "user", "content": [{"text": "where?"}]}
    answers = {"role": "assistant", "content": [{"text": "I look"}, use]}
    gives = {"role": "user", "content": [result]}
    one = Talk(f"{SONNET}/converse", {"messages": [asks, answers, gives]})
    items = [read_item("bedrock_converse", raw) for raw in one.asked.messages]
    assert [item.role for item in items] == ["user", "assistant", "user"]
    assert (items[0].said, items[1].tool_use_ids) == ("where?", ("t1",))
    assert [(found.id, found.is_error) for found in items[2].tool_results] == [("t1", True)]
    step = newest_step("bedrock_converse", one.asked)
    assert [(tool.id, tool.name, bool(tool.failure)) for tool in step.tools] == [("t1", "look", True)]
    assert step.text == "I look"


# -- framing --------------------------------------------------------------------------------------------------------


def test_headers_of_every_type_are_passed_over():
    values = [(0, b""), (1, b""), (2, b"a"), (3, b"ab"), (4, b"abcd"), (5, b"x" * 8), (8, b"x" * 8), (9, b"x" * 16)]
    block = b"".join([b"\x01h%c%b" % value for value in values]) + b"\x01b\x06\x00\x02hi\x01s\x07\x00\x02yo"
    assert eventstream.headers(block) == {b"s": b"yo"}
    for cut in range(len(block)):
        eventstream.headers(block[:cut])
    assert eventstream.headers(b"\x01h\x63" + block) == {}


def test_a_message_too_large_to_keep_is_skipped_and_the_next_one_read():
    cutter = FrameCutter()
    large = eventstream.event(b"x", b'"' + b"a" * (MAX_EVENT + 10) + b'"')
    found = []
    for at in range(0, len(large), 100_000):
        found += cutter.feed(large[at : at + 100_000])
    assert (found, cutter.overflowed) == ([], True)
    assert cutter.feed(HELLO) == [(b"contentBlockDelta", events(HELLO) and HELLO[HELLO.index(b'{"') : -4])]
    assert not cutter.partial


@pytest.mark.parametrize(
    "noise", [b"<html>this is no stream</html>", struct.pack(">II", LONGEST + 1, 0) + b"\0" * 8, b"\0" * 64]
)
def test_what_is_no_message_is_garbage_and_no_end(noise):
    cutter = FrameCutter()
    assert cutter.feed(noise) == [GARBLED]
    assert cutter.feed(HELLO) == []
    assert cutter.pending(HELLO) > len(HELLO)
    meter = Talk(f"{SONNET}/converse-stream").meter(noise)
    assert meter.garbled()
    assert not meter.end().complete


def test_an_error_without_a_payload_is_told():
    block = [(b":message-type", b"error"), (b":error-code", b"InternalError"), (b":error-message", b"it broke")]
    meter = Talk(f"{SONNET}/converse-stream").meter(eventstream.message(block, b""))
    answer = meter.end()
    assert (answer.error_type, answer.error_message) == ("InternalError", "it broke")


def test_a_path_of_another_kind_passes():
    route = TABLE.resolve(b"POST", b"/bedrock/guardrail/g/version/1/apply", "")
    assert (route.dialect, route.template, route.operation) == ("bedrock_invoke", "other", "")
    assert isinstance(route, Route)
