"""Chat completions: requests, documents, streams of every flavour, errors."""

from __future__ import annotations

import json

import pytest

from gateway.call import ToolUse, Usage, UsageSource
from gateway.dialects.identity_text import digest_text
from gateway.errors import BadBody, StreamTruncated, UpstreamReset

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
COUNTED = Usage(input_tokens=11, output_tokens=7)


def chunk(delta=None, finish=None, **more):
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {"id": "c1", "object": "chat.completion.chunk", "model": "gpt-4o-2024", "choices": choices, **more}


SAID = [chunk({"role": "assistant", "content": ""}), chunk({"content": "Hello"}), chunk({"content": " you"})]
DONE = b"data: [DONE]\n\n"


@pytest.fixture
def chat(talk):
    return talk("openai_chat")


def test_request(chat):
    asked = chat.read(
        {
            "model": "gpt-4o",
            "stream": True,
            "max_completion_tokens": 64,
            "temperature": 0.5,
            "n": 2,
            "stop": ["a", "b"],
            "seed": 7,
            "tools": [{"type": "function"}],
            "messages": [{"role": "user", "content": "hi"}, {"role": "user", "content": "ho"}],
        }
    )
    assert (asked.model, asked.stream, asked.max_tokens) == ("gpt-4o", True, 64)
    assert len(asked.messages) == 2
    assert json.loads(asked.tools) == [{"type": "function"}]
    assert asked.params == {"temperature": 0.5, "choice.count": 2, "stop_sequences": ["a", "b"], "seed": 7}


def test_legacy_request(talk):
    asked = talk("openai_completions").read({"model": "m", "prompt": "Once", "max_tokens": 3})
    assert (asked.model, asked.max_tokens, [bytes(item) for item in asked.messages]) == ("m", 3, [b'"Once"'])


def test_an_empty_body_asks_nothing(chat):
    assert chat.read(b"").model == ""
    assert chat.read(b" \n").fields == {}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"model": 7}, "invalid_model"),
        ('{"model":"a","model":"b"}', "duplicate_key"),
        ('{"stream_options":{"include_usage":true,"include_usage":false}}', "duplicate_key"),
        ("[]", "not_an_object"),
    ],
)
def test_bad_requests(chat, body, code):
    with pytest.raises(BadBody) as caught:
        chat.read(body)
    assert caught.value.code == code


@pytest.mark.parametrize("value", ["true ", '"true"', "1", "null", "[true]"])
def test_only_true_streams(chat, value):
    assert chat.read(f'{{"stream":{value}}}').stream is (value == "true ")


@pytest.mark.parametrize("value", ["-1", "1.5", '"9"', "1e3", "99999999999999999999"])
def test_a_limit_that_is_no_count_is_none(chat, value):
    assert chat.read(f'{{"max_tokens":{value}}}').max_tokens is None


def test_document(chat):
    message = {"role": "assistant", "content": "Bonjour", "tool_calls": [
        {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
        {"id": "t2", "type": "custom", "custom": {"name": "g", "input": "xy"}},
    ]}  # fmt: skip
    answer = chat.answer(
        {
            "id": "c1", "model": "gpt-4o-2024", "service_tier": "flex", "usage": USAGE,
            "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        }
    )  # fmt: skip
    assert (answer.model, answer.response_id, answer.pricing) == ("gpt-4o-2024", "c1", {"service_tier": "flex"})
    assert answer.usage == COUNTED
    assert answer.usage_source is UsageSource.PROVIDER
    assert answer.finish_reasons == ("tool_calls",)
    assert answer.tool_uses == (ToolUse("t1", "f"), ToolUse("t2", "g"))
    assert answer.output_chars == len("Bonjour") + 4
    assert answer.sample == "Bonjour"
    assert answer.text_digest == digest_text("Bonjour")
    assert answer.complete


def test_a_refusal_is_known_for_one(chat):
    """It ends as any answer does: `stop`."""
    for refusal, content in (("I cannot", None), (None, "I can"), ("", "I can")):
        message = {"role": "assistant", "content": content, "refusal": refusal}
        whole = chat.answer({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
        assert (whole.refused, whole.finish_reasons) == (bool(refusal), ("stop",))
        streamed = chat.stream(chunk({"refusal": refusal, "content": content}), chunk({}, "stop"), DONE).end()
        assert (streamed.refused, streamed.output_chars) == (whole.refused, whole.output_chars)


def test_a_document_of_another_making(chat):
    """Fields of unexpected types are left out; the rest still counts."""
    answer = chat.answer({"id": 5, "model": ["x"], "choices": "none", "usage": USAGE, "service_tier": 3})
    assert answer.usage == COUNTED
    assert (answer.model, answer.response_id, answer.output_chars) == ("", "", 0)


@pytest.mark.parametrize("body", [b"<html>", b"{", b"[]", b"null", b"\xff\xfe", b""])
def test_what_is_no_completion_is_no_usage(chat, body):
    answer = chat.answer(body)
    assert answer.usage is None
    assert answer.usage_source is UsageSource.NONE


def test_usage_at_the_end_of_a_huge_document(chat):
    document = {"choices": [{"message": {"content": "x" * 9_000_000}}], "usage": USAGE}
    meter = chat.meter()
    text = json.dumps(document).encode()
    for at in range(0, len(text), 65_536):
        meter.feed(text[at : at + 65_536])
    assert meter.end().usage == COUNTED


def test_stream_with_usage(chat):
    meter = chat.stream(*SAID, chunk({}, "stop"), chunk(usage=USAGE), DONE)
    assert meter.started
    assert meter.terminal
    answer = meter.end()
    assert (answer.model, answer.response_id) == ("gpt-4o-2024", "c1")
    assert answer.usage == COUNTED
    assert answer.finish_reasons == ("stop",)
    assert (answer.output_chars, answer.text_digest) == (9, digest_text("Hello you"))
    assert answer.complete


def test_usage_that_was_injected_is_labelled(chat):
    meter = chat.dialect.meter(chat.route, asked := chat.read({"stream": True}), 200, b"text/event-stream")
    asked.injected = True
    meter.feed(b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n')
    assert meter.end().usage_source is UsageSource.INJECTED


def test_cumulative_usage_in_every_chunk_is_not_summed(chat):
    growing = [chunk({"content": "x"}, usage={"prompt_tokens": 11, "completion_tokens": n}) for n in range(1, 8)]
    assert chat.stream(*growing, DONE).end().usage == COUNTED


def test_groq_states_usage_under_its_own_key(chat):
    last = chunk({}, "stop", x_groq={"id": "r", "usage": USAGE})
    assert chat.stream(*SAID, last, DONE).end().usage == COUNTED


@pytest.mark.parametrize(
    ("events", "body", "complete"),
    [
        ([*SAID, chunk({}, "stop"), DONE], {}, True),
        ([*SAID, DONE], {}, True),
        ([*SAID, chunk({}, "stop")], {}, True),
        ([*SAID], {}, False),
        ([], {}, False),
        ([*SAID, chunk({}, "stop")], {"stream_options": {"include_usage": True}}, False),
        ([*SAID, chunk({}, "stop"), chunk(usage=USAGE)], {"stream_options": {"include_usage": True}}, True),
        ([*SAID, b"data: [DO"], {}, False),
        ([*SAID, b"data: [DONE]"], {}, True),
    ],
)
def test_complete(chat, events, body, complete):
    meter = chat.stream(*events, body=body)
    assert meter.end().complete is complete
    assert meter.terminal is complete


@pytest.mark.parametrize("last", [b'data: {"error":{"type":"error"}}\n\n', DONE])
def test_what_comes_behind_a_usual_event_in_one_piece_is_seen_at_once(chat, frame, last):
    meter = chat.stream(*SAID, chunk({"content": "a"}))
    meter.feed(frame(chunk({"content": "b"})) + last)
    assert meter.terminal is (last == DONE)
    assert bool(meter.failed) is (last != DONE)


def test_a_byte_order_mark_counts_at_the_start_only(chat, frame):
    assert chat.stream(b"\xef\xbb\xbf" + frame(chunk(usage=USAGE))).end().usage == COUNTED
    assert chat.stream(*SAID, b"\xef\xbb\xbf" + frame(chunk(usage=USAGE))).end().usage is None


def test_comments_do_not_start_a_stream(chat):
    meter = chat.stream(b": OPENROUTER PROCESSING\n\n", b": x\n\n", b"\n")
    assert not meter.started
    meter.feed(b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n')
    assert meter.started


SILENT = (  # what comes before the model says anything
    {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]},
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "", "refusal": None}, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {"content": None, "tool_calls": []}}], "usage": None},
)


def test_who_is_going_to_answer_is_no_content(chat):
    meter = chat.stream(*SILENT)
    assert not meter.started
    meter.feed(b'data: {"choices":[{"index":0,"delta":{"content":" "}}]}\n\n')
    assert meter.started


def test_nonsense_behind_it_is_part_of_a_stream_however_it_is_cut(chat):
    apart, together = chat.stream(SILENT[1], b"data: {nonsense\n\n"), chat.meter(b"", kind=b"text/event-stream")
    together.feed(b"data: %b\n\ndata: {nonsense\n\n" % json.dumps(SILENT[1]).encode())
    assert not apart.garbled()
    assert not together.garbled()


@pytest.mark.parametrize(
    "choice",
    [
        {"delta": {}, "finish_reason": "stop"},
        {"delta": {"tool_calls": [{"index": 0}]}},
        {"delta": {"reasoning_content": "h"}},
        {"text": "x"},
        {},
    ],
)
def test_what_begins_a_stream(chat, choice):
    assert chat.stream({"choices": [{"index": 0, **choice}]}).started


def test_an_error_behind_the_first_chunk_is_restated(chat):
    error = {"error": {"message": "Overloaded", "type": "server_error", "code": "server_is_overloaded"}}
    frame = b"".join([b"data: %b\n\n" % json.dumps(one).encode() for one in (*SILENT, error)])
    assert chat.dialect.restate(chat.route, frame).status == 503


@pytest.mark.parametrize(
    "event",
    [
        {"error": {"message": "Overloaded", "type": "server_error", "code": None}},
        b'event: error\ndata: {"error":{"message":"Overloaded","type":"server_error"}}\n\n',
        b'event: error\ndata: {"message":"Overloaded","type":"server_error"}\n\n',
        {"id": "x", "choices": [{"index": 0, "delta": {}, "finish_reason": "error"}],
         "error": {"type": "server_error", "message": "Overloaded"}},
    ],
)  # fmt: skip
@pytest.mark.parametrize("before", [[], SAID])
def test_error_events(chat, event, before):
    meter = chat.stream(*before, event)
    assert meter.failed == "server_error"
    answer = meter.end()
    assert not answer.complete
    assert (answer.error_type, answer.error_message) == ("server_error", "Overloaded")


def test_error_without_a_type_still_fails(chat):
    assert chat.stream({"object": "error", "message": "no"}).failed == "error"
    assert chat.stream({"error": "plain"}).failed
    assert chat.stream(b"event: error\ndata: oops\n\n").failed == "error"


def test_the_word_error_in_content_is_no_error(chat):
    meter = chat.stream(*SAID, chunk({"content": 'an "error" event: error'}), chunk({}, "stop"), DONE)
    assert not meter.failed
    assert meter.end().complete


def test_tools_that_come_in_pieces(chat):
    def piece(**call):
        return chunk({"tool_calls": [{"index": 0, **call}]})

    meter = chat.stream(
        piece(id="t1", function={"name": "f", "arguments": ""}),
        piece(function={"arguments": '{"a'}),
        piece(id="", function={"arguments": '":1}'}),
        chunk({"tool_calls": [{"index": 1, "id": "t2", "function": {"name": "g", "arguments": "{}"}}]}),
        chunk({}, "tool_calls"),
        DONE,
    )
    answer = meter.end()
    assert answer.tool_uses == (ToolUse("t1", "f"), ToolUse("t2", "g"))
    assert answer.output_chars == len('{"a":1}') + 2


def test_reasoning_counts_but_is_not_the_text(chat):
    answer = chat.stream(chunk({"reasoning_content": "hmm"}), chunk({"content": "yes"}), DONE).end()
    assert (answer.output_chars, answer.text_digest) == (6, digest_text("yes"))
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hmm"}]}, {"type": "text", "text": "yes"}]
    answer = chat.stream(chunk({"content": parts}), DONE).end()
    assert (answer.output_chars, answer.text_digest) == (6, digest_text("yes"))


def test_the_text_is_that_of_the_first_choice(chat):
    other = {"choices": [{"index": 1, "delta": {"content": "other"}, "finish_reason": None}]}
    answer = chat.stream(*SAID, other, DONE).end()
    assert (answer.output_chars, answer.text_digest) == (14, digest_text("Hello you"))


def test_a_bad_event_does_not_hide_the_others(chat):
    answer = chat.stream(*SAID, b"data: {nonsense\n\n", chunk({}, "stop"), chunk(usage=USAGE), DONE).end()
    assert answer.usage == COUNTED
    burst = chat.meter(kind=b"text/event-stream")
    burst.feed(
        b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\ndata: {x\n\ndata: {"usage":%b}\n\n'
        % json.dumps(USAGE).encode()
    )
    assert burst.end().usage == COUNTED


def test_memory_stays_bounded(chat):
    meter = chat.meter(kind=b"text/event-stream")
    event = b'data: {"choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % (b"word " * 200)
    for _ in range(5000):
        meter.feed(event)
    assert meter._size < 70_000
    assert meter.draft._stored < 70_000
    assert meter.end().output_chars == 5_000_000


def test_refusal(chat):
    fault = UpstreamReset("cut")
    answer = chat.dialect.refusal(fault, "r1", stream=True)
    assert answer.status == 502
    assert json.loads(answer.body) == {
        "error": {"message": "cut", "type": "server_error", "param": None, "code": "upstream_reset"}
    }
    assert (b"x-should-retry", b"true") in answer.headers


def test_interruption_is_never_done(chat):
    meter = chat.stream(*SAID)
    text = chat.dialect.interruption(StreamTruncated("cut"), meter, "r1")
    assert text.startswith(b"data: {")
    assert text.endswith(b"}\n\n")
    assert b"[DONE]" not in text
    assert json.loads(text[6:])["error"]["code"] == "upstream_truncated"


def test_interruption_closes_the_broken_event(chat):
    for before_end in (True, False):
        meter = chat.stream(*SAID, b'data: {"choi')
        if before_end:
            meter.end()
        assert chat.dialect.interruption(StreamTruncated("cut"), meter, "r1").startswith(b"\n\ndata: ")


@pytest.mark.parametrize(
    ("frame", "status"),
    [
        (b'data: {"error":{"message":"m","type":"x","code":429}}\n\n', 429),
        (b'data: {"error":{"message":"m","type":"x","code":"502"}}\n\n', 502),
        (b'data: {"error":{"message":"m","type":"rate_limit_error"}}\n\n', 429),
        (b'\xef\xbb\xbf: hi\ndata: {"error":{"message":"m","code":"rate_limit_exceeded"}}\n\n', 429),
        (b'event: error\r\ndata: {"message":"m","type":"server_error"}\r\n\r\n', 500),
        (b'data: {"error":"plain"}\n\n', 500),
    ],
)
def test_restate(chat, frame, status):
    answer = chat.dialect.restate(chat.route, frame)
    assert answer.status == status
    assert answer.body == frame.split(b"data: ")[1].strip()
    assert (b"content-type", b"application/json") in answer.headers


@pytest.mark.parametrize("frame", [b'data: {"choices":[]}\n\n', b": x\n\n", b"data: [DONE]\n\n", b"data: [1]\n\n", b""])
def test_what_is_no_error_is_not_restated(chat, frame):
    assert chat.dialect.restate(chat.route, frame) is None


def test_a_stream_of_another_content_type_is_recognised(chat):
    for kind in (b"", b"application/json", b"text/plain"):
        meter = chat.meter({"stream": True}, kind=kind)
        meter.feed(b"\n")
        assert not meter.started
        meter.feed(b'data: {"choices":[],"usage":%b}\n\ndata: [DONE]\n\n' % json.dumps(USAGE).encode())
        assert (meter.started, meter.terminal) == (True, True)
        assert meter.end().usage == COUNTED
        meter = chat.meter({"stream": True}, kind=kind)
        meter.feed(json.dumps({"usage": USAGE}).encode())
        answer = meter.end()
        assert answer.usage == COUNTED
        assert answer.complete


@pytest.mark.parametrize(
    ("document", "kind", "message"),
    [
        ({"error": {"message": "m", "type": "t", "code": "c"}}, "t", "m"),
        ({"error": {"message": "m" * 900, "code": 401}}, "401", "m" * 500),
        ({"error": "m", "code": "c"}, "c", "m"),
        ({"detail": "m"}, "error", "m"),
        ({"message": "m", "error_type": "t"}, "t", "m"),
        ([{"error": {"status": "NOT_FOUND", "message": "m", "code": 404}}], "NOT_FOUND", "m"),
        ("text", "", ""),
        ({}, "", ""),
    ],
)
def test_error_documents(chat, document, kind, message):
    answer = chat.answer(document, status=400)
    assert (answer.error_type, answer.error_message) == (kind, message)
    assert answer.usage is None
