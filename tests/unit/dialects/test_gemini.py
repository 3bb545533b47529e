"""Gemini: model in the path, cumulative usage, event streams and JSON arrays."""

from __future__ import annotations

import json

import pytest

from gateway.call import ToolUse, Usage
from gateway.dialects.identity_text import digest_text
from gateway.dialects.json_array import ArrayCutter
from gateway.dialects.sse import MAX_EVENT
from gateway.errors import BadBody, Overloaded, StreamTruncated

SSE = "/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse"
ARRAY = "/v1beta/models/gemini-2.5-pro:streamGenerateContent"


def chunk(text=None, finish=None, count=0, **more):
    part = {"text": text} if text is not None else {}
    candidate = {"index": 0, "content": {"parts": [part], "role": "model"}}
    if finish:
        candidate["finishReason"] = finish
    usage = {"promptTokenCount": 9, "candidatesTokenCount": count, "thoughtsTokenCount": 2}
    return {
        "candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-2.5-pro-1", "responseId": "g1",
        **more,
    }  # fmt: skip


def crlf(*events):
    return b"".join(f"data: {json.dumps(event)}\r\n\r\n".encode() for event in events)


def test_request(talk):
    asked = talk("gemini", SSE).read(
        {
            "contents": [{"parts": [{"text": "hi"}]}],
            "systemInstruction": {"parts": []},
            "tools": [{}],
            "generationConfig": {"temperature": 1, "topK": 5, "maxOutputTokens": 64, "stopSequences": ["x"]},
        }
    )
    assert (asked.model, asked.stream, asked.max_tokens, len(asked.messages)) == ("gemini-2.5-pro", True, 64, 1)
    assert asked.system == b'{"parts": []}'
    assert asked.params == {"temperature": 1.0, "top_k": 5, "stop_sequences": ["x"]}


@pytest.mark.parametrize(
    ("path", "model", "stream"),
    [
        ("/v1beta/models/gemini-2.5-flash:generateContent", "gemini-2.5-flash", False),
        ("/v1beta/tunedModels/my-model:generateContent", "my-model", False),
        ("/v1/projects/p/locations/l/publishers/google/models/g%40001:streamGenerateContent", "g@001", True),
        ("/v1beta/cachedContents", "", False),
    ],
)
def test_the_model_stands_in_the_path(talk, path, model, stream):
    for body in (b"", b"{}"):
        asked = talk("gemini", path).read(body)
        assert (asked.model, asked.stream) == (model, stream)


@pytest.mark.parametrize(
    "body",
    [
        '{"generationConfig":{},"generation_config":{}}',
        '{"contents":[],"contents":[]}',
        '{"generationConfig":{"maxOutputTokens":1,"maxOutputTokens":2}}',
        '{"generationConfig":{"maxOutputTokens":1,"max_output_tokens":2}}',
    ],
)
def test_two_names_for_one_field(talk, body):
    with pytest.raises(BadBody) as caught:
        talk("gemini").read(body)
    assert caught.value.code == "duplicate_key"


def test_document(talk):
    answer = talk("gemini").answer(
        {
            "candidates": [
                {"index": 0, "finishReason": "STOP", "content": {"parts": [
                    {"text": "hmm", "thought": True}, {"text": "Hel"}, {"text": "lo"},
                    {"functionCall": {"name": "f", "args": {"a": 1}}},
                    {"functionCall": {"id": "c2", "name": "f", "args": {}}},
                ]}},
                {"index": 1, "finishReason": "MAX_TOKENS", "content": {"parts": [{"text": "other"}]}},
            ],
            "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 3, "trafficType": "ON_DEMAND_FLEX"},
            "modelVersion": "gemini-x", "responseId": "g1",
        }
    )  # fmt: skip
    assert (answer.model, answer.response_id, answer.usage) == ("gemini-x", "g1", Usage(9, 3))
    assert answer.finish_reasons == ("STOP", "MAX_TOKENS")
    assert answer.tool_uses == (ToolUse("", "f"), ToolUse("c2", "f"))
    assert answer.text_digest == digest_text("Hello")
    assert answer.output_chars == len("hmmHelloother") + len('{"a": 1}')
    assert answer.pricing == {"service_tier": "flex"}


@pytest.mark.parametrize("encode", [crlf, lambda *events: crlf(*events).replace(b"\r", b"")])
def test_stream(talk, encode):
    meter = talk("gemini", SSE).meter({}, kind=b"text/event-stream")
    meter.feed(encode(chunk("Hel", count=1)))
    assert meter.started
    assert not meter.terminal
    meter.feed(encode(chunk("lo", count=4), chunk("", "STOP", count=5)))
    assert meter.terminal
    answer = meter.end()
    assert answer.complete
    assert answer.usage == Usage(9, 7, reasoning_tokens=2)
    assert (answer.text_digest, answer.finish_reasons) == (digest_text("Hello"), ("STOP",))


def test_every_candidate_must_finish(talk):
    two = {"candidates": [{"index": 1, "content": {"parts": [{"text": "x"}]}}]}
    meter = talk("gemini", SSE).meter({}, kind=b"text/event-stream")
    meter.feed(crlf(chunk("a"), two, chunk("", "STOP")))
    assert not meter.terminal
    assert not meter.end().complete


def test_a_blocked_prompt_is_an_end(talk):
    meter = talk("gemini", SSE).meter({}, kind=b"text/event-stream")
    meter.feed(crlf({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 9}}))
    answer = meter.end()
    assert (answer.complete, answer.finish_reasons, answer.usage) == (True, ("SAFETY",), Usage(9))


def test_error_event(talk):
    meter = talk("gemini", SSE).meter({}, kind=b"text/event-stream")
    meter.feed(crlf(chunk("a")) + crlf({"error": {"code": 503, "status": "UNAVAILABLE", "message": "m"}}))
    assert meter.failed == "UNAVAILABLE"
    assert not meter.end().complete


def array(*chunks):
    return b"[" + b"\n,\r\n".join(json.dumps(item, indent=2).encode() for item in chunks) + b"\n]\n"


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_array_stream(talk, size):
    text = array(chunk('He said "}{[" \\', count=1), chunk("ü", "STOP", count=5))
    meter = talk("gemini", ARRAY).meter({}, kind=b"application/json")
    for at in range(0, len(text), size):
        meter.feed(text[at : at + size])
    answer = meter.end()
    assert (answer.complete, answer.usage) == (True, Usage(9, 7, reasoning_tokens=2))
    assert answer.text_digest == digest_text('He said "}{[" \\ü')


def test_an_array_that_is_cut_is_incomplete(talk):
    text = array(chunk("a", count=1), chunk("b", "STOP", count=5))
    meter = talk("gemini", ARRAY).meter({}, kind=b"application/json")
    meter.feed(text[: text.index(b"STOP")])
    answer = meter.end()
    assert not answer.complete
    assert answer.usage == Usage(9, 3, reasoning_tokens=2)


def test_an_array_of_one_error(talk):
    meter = talk("gemini", ARRAY).meter({}, kind=b"application/json")
    meter.feed(array({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "m"}}))
    assert meter.failed == "RESOURCE_EXHAUSTED"


def test_elements_too_large_are_skipped():
    cutter = ArrayCutter()
    found = []
    for piece in [b'[{"a":"', *[b"x" * 65_536] * 40, b'"},{"b":1}', b"]"]:
        found += cutter.feed(piece)
        assert len(cutter._rest) <= MAX_EVENT + 65_536
    assert found == [(b"", b'{"b":1}')]
    assert cutter.overflowed
    assert cutter.elements == 2


def test_a_string_cut_behind_its_backslash():
    cutter = ArrayCutter()
    found = [event for byte in b'[{"a":"\\\\\\"}"},{"b":"{"}]' for event in cutter.feed(bytes([byte]))]
    assert [json.loads(data) for _, data in found] == [{"a": '\\"}'}, {"b": "{"}]


def test_counting_tokens_uses_none(talk):
    count = talk("gemini", "/v1beta/models/g:countTokens", "")
    assert count.answer({"totalTokens": 5, "usageMetadata": {"promptTokenCount": 5}}).usage is None


def test_embedding(talk):
    answer = talk("gemini", "/v1beta/models/g:embedContent", "embeddings").answer(
        {"embedding": {"values": [0.1] * 10}, "usageMetadata": {"promptTokenCount": 7}}
    )
    assert answer.usage == Usage(7)


def test_refusal(talk):
    stream = talk("gemini", ARRAY)
    answer = stream.dialect.refusal(Overloaded("busy", retry_after=17), "r", stream=True)
    body = json.loads(answer.body)["error"]
    assert (answer.status, body["code"], body["status"], body["message"]) == (503, 503, "UNAVAILABLE", "busy")
    assert body["details"][0]["metadata"] == {"code": "overloaded"}
    assert body["details"][1] == {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "17s"}
    in_array = stream.dialect.refusal(Overloaded("busy", retry_after=17), "r", stream=True, route=stream.route)
    assert json.loads(in_array.body) == [json.loads(answer.body)]
    sse = talk("gemini", SSE)
    assert json.loads(sse.dialect.refusal(Overloaded(), "r", stream=True, route=sse.route).body)["error"]


def test_interruption_of_events(talk):
    stream = talk("gemini", SSE)
    meter = stream.meter({}, kind=b"text/event-stream")
    meter.feed(crlf(chunk("a")))
    text = stream.dialect.interruption(StreamTruncated("cut"), meter, "r")
    assert json.loads(text.removeprefix(b"data: "))["error"]["details"][0]["reason"] == "UPSTREAM_TRUNCATED"
    meter.feed(b'data: {"cand')
    assert stream.dialect.interruption(StreamTruncated("cut"), meter, "r").startswith(b"\n\ndata: ")


def test_interruption_of_an_array_closes_it(talk):
    stream = talk("gemini", ARRAY)
    text = array(chunk("a"))[:-3]
    meter = stream.meter({}, kind=b"application/json")
    empty = stream.dialect.interruption(StreamTruncated("cut"), meter, "r")
    assert json.loads(empty)[0]["error"]["code"] == 502
    meter.feed(text)
    whole = json.loads(text + stream.dialect.interruption(StreamTruncated("cut"), meter, "r"))
    assert [list(item) for item in whole] == [list(chunk("a")), ["error"]]


@pytest.mark.parametrize(
    ("frame", "status"),
    [
        (b'data: {"error":{"code":429,"message":"m"}}\r\n\r\n', 429),
        (b'[{"error":{"code":503}}]', 503),
        (b'data: {"error":{"code":"x"}}\n\n', 500),
    ],
)
def test_restate(talk, frame, status):
    stream = talk("gemini", SSE)
    answer = stream.dialect.restate(stream.route, frame)
    assert answer.status == status
    assert json.loads(answer.body)
    assert stream.dialect.restate(stream.route, crlf(chunk("a"))) is None
    assert stream.dialect.restate(stream.route, b"{nonsense") is None
