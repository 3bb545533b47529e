"""A whole answer in its other shape says the same: to the API's meters, and turned back again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.call import Answer, Request, Route
from gateway.dialects.registry import DIALECTS
from gateway.dialects.replay import events_of

CHAT = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "service_tier": "default",
    "system_fingerprint": "fp", "x_own": {"a": 1},
    "choices": [
        {
            "index": 0, "logprobs": None, "finish_reason": "stop",
            "message": {
                "role": "assistant", "content": "Hello " * 30, "refusal": None, "reasoning_content": "Hm. " * 40,
            },
        },
        {
            "index": 1, "logprobs": None, "finish_reason": "tool_calls",
            "message": {
                "role": "assistant", "content": None, "refusal": None,
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}},
                    {"id": "call_2", "type": "custom", "custom": {"name": "see", "input": "x"}},
                ],
            },
        },
    ],
    "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
}  # fmt: skip
COMPLETION = {
    "id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m",
    "choices": [{"index": 0, "text": "Once upon a time " * 9, "logprobs": None, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
}  # fmt: skip
MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "tool_use",
    "stop_sequence": None, "container": None,
    "content": [
        {"type": "thinking", "thinking": "Hm. " * 40, "signature": "sig=="},
        {"type": "redacted_thinking", "data": "xx"},
        {"type": "text", "text": "Hello " * 30, "citations": [{"type": "char_location", "cited_text": "H"}]},
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": [1, {"b": None}]}},
        {"type": "tool_use", "id": "toolu_2", "name": "see", "input": {}},
    ],
    "usage": {"input_tokens": 5, "output_tokens": 7, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 0},
}  # fmt: skip
RESPONSE = {
    "id": "resp_1", "object": "response", "created_at": 1, "completed_at": 2, "status": "completed", "model": "m",
    "output": [
        {"type": "reasoning", "id": "rs_1", "encrypted_content": "x", "summary": [
            {"type": "summary_text", "text": "Hm. " * 30}, {"type": "summary_text", "text": "So."}],
         "content": [{"type": "reasoning_text", "text": "Well. " * 30}]},
        {
            "type": "message", "id": "msg_1", "status": "completed", "role": "assistant",
            "content": [{"type": "output_text", "text": "Hello " * 30, "logprobs": [{"token": "H"}],
                         "annotations": [{"type": "url_citation", "url": "u"}, {"type": "file_path", "file_id": "f"}]},
                        {"type": "refusal", "refusal": "no"}],
        },
        {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look", "arguments": '{"a":1}',
         "status": "completed"},
        {"type": "custom_tool_call", "id": "ct_1", "call_id": "call_2", "name": "see", "input": "at " * 40,
         "status": "completed"},
    ],
    "usage": {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12},
}  # fmt: skip
ANSWERS = {
    "openai_chat": ("/v1/chat/completions", CHAT),
    "openai_completions": ("/v1/completions", COMPLETION),
    "anthropic": ("/v1/messages", MESSAGE),
    "openai_responses": ("/v1/responses", RESPONSE),
}


def asking(name: str, **body: Any) -> tuple[Any, Route, Any]:
    path = ANSWERS[name][0]
    route = Route(path, name, "chat", "up", path.encode())
    dialect = DIALECTS[name]
    text = json.dumps({"model": "m", "n": 2 if name == "openai_chat" else 1, **body}).encode()
    return dialect, route, dialect.read(route, Request(b"POST", b"", [], text))


def metered(name: str, body: bytes, *, stream: bool) -> Answer:
    dialect, route, asked = asking(name, stream=stream, stream_options={"include_usage": True})
    meter = dialect.meter(route, asked, 200, b"text/event-stream" if stream else b"application/json")
    meter.feed(body)
    answer = meter.end()
    if stream:
        assert meter.terminal
        assert not meter.failed
    answer.complete = True
    answer.output_chars = 0  # what of tool arguments and summaries is counted differs between the shapes
    return answer


def turned(name: str, answer: dict[str, Any], **options: Any) -> bytes:
    dialect, route, asked = asking(name, stream=True, **options)
    body = dialect.streamed(route, asked, json.dumps(answer).encode())
    assert body is not None
    return body


def back(name: str, body: bytes) -> Any:
    dialect, route, asked = asking(name)
    found = dialect.gathered(route, asked, body)
    return None if found is None else json.loads(found)


@pytest.mark.parametrize("name", ANSWERS)
def test_the_stream_says_what_the_document_says(name: str) -> None:
    answer = ANSWERS[name][1]
    stream = turned(name, answer, stream_options={"include_usage": True})
    assert metered(name, stream, stream=True) == metered(name, json.dumps(answer).encode(), stream=False)


@pytest.mark.parametrize("name", ANSWERS)
def test_turned_and_turned_back_it_is_the_same(name: str) -> None:
    answer = ANSWERS[name][1]
    assert back(name, turned(name, answer, stream_options={"include_usage": True})) == answer


@pytest.mark.parametrize("name", ["openai_chat", "openai_completions"])
def test_usage_is_only_shown_to_who_asked(name: str) -> None:
    assert b'"usage"' not in turned(name, ANSWERS[name][1])
    events = events_of(turned(name, ANSWERS[name][1], stream_options={"include_usage": True}))
    assert events[-1]["choices"] == []
    assert all(event["usage"] is None for event in events[:-1])


def test_text_comes_in_pieces() -> None:
    assert len(events_of(turned("openai_chat", CHAT))) > 6
    assert len(events_of(turned("anthropic", MESSAGE))) > 12
    numbers = [event["sequence_number"] for event in events_of(turned("openai_responses", RESPONSE))]
    assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("body", [b"", b"no json", b"[]", b"{}", b'{"choices":3,"content":3,"output":3,"usage":3}'])
def test_what_is_no_answer_is_turned_into_none(name: str, body: bytes) -> None:
    dialect, route, asked = asking(name, stream=True)
    assert dialect.streamed(route, asked, body) is None
    assert dialect.gathered(route, asked, body) is None
    assert dialect.gathered(route, asked, b"data: %b\n\n" % body) is None


@pytest.mark.parametrize("name", ANSWERS)
def test_a_stream_that_was_cut_is_no_document(name: str) -> None:
    answer = dict(ANSWERS[name][1])
    if "choices" in answer:
        answer["choices"] = answer["choices"][:1]
    events = turned(name, answer, stream_options={"include_usage": True}).split(b"\n\n")
    for end in range(1, len(events) - (4 if "choices" in answer else 2)):
        assert back(name, b"\n\n".join(events[:end]) + b"\n\n") is None


def calling(call: dict[str, Any]) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, **call}]}}]}


def test_pieces_of_other_servers_are_put_together() -> None:
    chunks = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None}]},
        {"choices": [{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [1]}}]},
        {"choices": [{"index": 0, "delta": {"content": "b"}, "logprobs": {"content": [2]}}], "usage": None},
        calling({"id": "1", "function": {"name": "f", "arguments": ""}}),
        calling({"function": {"arguments": '{"x"'}}),
        calling({"function": {"arguments": ":1}"}}),
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}], "usage": {"total_tokens": 3}},
        {"id": "c", "choices": []},
    ]  # fmt: skip
    body = b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks) + b"data: [DONE]\n\n"
    found = back("openai_chat", body)
    (choice,) = found["choices"]
    call = {"id": "1", "function": {"name": "f", "arguments": '{"x":1}'}}
    assert choice["message"] == {"role": "assistant", "content": "ab", "tool_calls": [call]}
    assert (choice["logprobs"], choice["finish_reason"], found["usage"]) == (
        {"content": [1, 2]},
        "tool_calls",
        {"total_tokens": 3},
    )


def chunks_of(*deltas: dict[str, Any]) -> bytes:
    said = [{"choices": [{"index": 0, "delta": delta}], "obfuscation": "x"} for delta in deltas]
    said.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in said) + b"data: [DONE]\n\n"


@pytest.mark.parametrize("more", [{"audio": {"data": "QQ=="}}, {"audio": {"transcript": "b"}}, {"thought": "b"}])
def test_a_text_in_pieces_that_nobody_knows_is_not_guessed_at(more: dict[str, Any]) -> None:
    first = {"content": "a", "thought": "a", "audio": {"id": "1", "data": "AA==", "transcript": "a"}}
    assert back("openai_chat", chunks_of(first, more)) is None
    (choice,) = back("openai_chat", chunks_of(first, {"content": "b", "thought": "", "audio": {"id": "1"}}))["choices"]
    assert choice["message"] == {"role": "assistant", **first, "content": "ab"}


def test_items_with_an_index_are_put_together_and_padding_is_left_out() -> None:
    text = {"type": "reasoning.text", "index": 0, "format": "f"}
    found = back(
        "openai_chat",
        chunks_of(
            {"content": "a", "annotations": [{"url": "u"}], "reasoning_details": [{**text, "text": "H"}]},
            {"reasoning_details": [{**text, "text": "m."}, {"type": "reasoning.encrypted", "index": 1, "data": "x"}]},
            {"annotations": [{"url": "u"}], "reasoning_details": [{**text, "signature": "s"}]},
        ),
    )
    message = found["choices"][0]["message"]
    assert message["annotations"] == [{"url": "u"}, {"url": "u"}]
    assert message["reasoning_details"] == [
        {**text, "text": "Hm.", "signature": "s"},
        {"type": "reasoning.encrypted", "index": 1, "data": "x"},
    ]
    assert "obfuscation" not in found


def test_what_the_last_event_says_of_a_message_is_told_of_it() -> None:
    events = events_of(turned("anthropic", MESSAGE))
    said = {"context_management": {"applied_edits": [{"type": "clear_tool_uses_20250919"}]}}
    events[-2] |= said
    body = b"".join(b"event: x\ndata: %b\n\n" % json.dumps(event).encode() for event in events)
    assert back("anthropic", body) == {**MESSAGE, **said}


def test_a_client_that_reads_pieces_alone_reads_all_of_a_response() -> None:
    events = events_of(turned("openai_responses", RESPONSE))
    texts: dict[tuple[int, str, int], str] = {}
    for event in events:
        if event["type"].endswith(".delta"):
            place = event.get("content_index", event.get("summary_index", 0))
            key = (event["output_index"], event["type"].removeprefix("response."), place)
            texts[key] = texts.get(key, "") + event["delta"]
    assert texts == {
        (0, "reasoning_summary_text.delta", 0): "Hm. " * 30,
        (0, "reasoning_summary_text.delta", 1): "So.",
        (0, "reasoning_text.delta", 0): "Well. " * 30,
        (1, "output_text.delta", 0): "Hello " * 30,
        (1, "refusal.delta", 1): "no",
        (2, "function_call_arguments.delta", 0): '{"a":1}',
        (3, "custom_tool_call_input.delta", 0): "at " * 40,
    }
    kind = "response.output_text"
    assert [event["annotation"] for event in events if event["type"] == f"{kind}.annotation.added"] == [
        {"type": "url_citation", "url": "u"},
        {"type": "file_path", "file_id": "f"},
    ]
    assert [event["logprobs"] for event in events if event["type"] == f"{kind}.done"] == [[{"token": "H"}]]
    added = [event["item"] for event in events if event["type"] == "response.output_item.added"]
    assert [item.get("summary", item.get("content", item.get("input"))) for item in added] == [[], [], None, ""]


def test_dialects_that_cannot_say_so() -> None:
    for name in ("gemini", "openai_embeddings", "opaque"):
        dialect = DIALECTS[name]
        route = Route("/x", name, "chat", "up", b"/x")
        asked = dialect.read(route, Request(b"POST", b"", [], b"{}"))
        assert dialect.streamed(route, asked, b"{}") is None
        assert dialect.gathered(route, asked, b"data: {}\n\n") is None


@settings(max_examples=150, deadline=None)
@given(
    st.text(max_size=200), st.recursive(st.none() | st.integers() | st.text(), lambda x: st.dictionaries(st.text(), x))
)
def test_any_text_and_any_arguments_come_through(text: str, value: Any) -> None:
    message = {"role": "assistant", "content": text, "refusal": None}
    chat = {**CHAT, "choices": [{"index": 0, "logprobs": None, "finish_reason": "stop", "message": message}]}
    assert back("openai_chat", turned("openai_chat", chat, stream_options={"include_usage": True})) == chat
    blocks = [{"type": "text", "text": text}, {"type": "tool_use", "id": "t", "name": "f", "input": {"v": value}}]
    answer = {**MESSAGE, "content": blocks}
    assert back("anthropic", turned("anthropic", answer)) == answer
