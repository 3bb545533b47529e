"""Answers in the words of another API: what each event becomes, and which ends are no success."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from gateway.dialects.sse import MAX_EVENT, Splitter
from gateway.dialects.translate import chat_answers
from gateway.dialects.translate.hub import Asked, StreamTranslator, Translation
from gateway.errors import BadAnswer, StreamTruncated

QUESTIONS: dict[str, dict[str, Any]] = {
    "openai_chat": {"model": "m", "messages": [{"role": "user", "content": "x"}]},
    "anthropic": {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]},
    "gemini": {"contents": [{"parts": [{"text": "x"}]}]},
    "openai_responses": {"model": "m", "input": "x"},
}


def asking(client: str, upstream: str, *, stream: bool = True, **beside: Any) -> Translation:
    body = {**QUESTIONS[client], **({} if client == "gemini" else {"stream": stream}), **beside.pop("more", {})}
    asked = Asked(**{"model": "m", "stream": stream, "request_id": "req1", "now": 7, **beside})
    return Translation(client, upstream, json.dumps(body).encode(), asked)


def sse(*values: Any) -> bytes:
    return b"".join([b"data: %b\n\n" % (v if isinstance(v, bytes) else json.dumps(v).encode()) for v in values])


def events(body: bytes) -> list[Any]:
    splitter = Splitter()
    found = [*splitter.feed(body), *splitter.end()]
    return [data if data == b"[DONE]" else json.loads(data) for _, data in found]


def streamed(client: str, upstream: str, *values: Any, **beside: Any) -> tuple[list[Any], StreamTranslator]:
    translator = asking(client, upstream, **beside).stream()
    body = translator.feed(sse(*values)) + translator.end()
    return events(body), translator


def delta(reason: str | None = None, index: int = 0, **fields: Any) -> dict[str, Any]:
    return {"id": "c1", "model": "gpt", "choices": [{"index": index, "delta": fields, "finish_reason": reason}]}


def call(index: int, arguments: str = "", **fields: Any) -> dict[str, Any]:
    name = fields.pop("name", None)
    function = {"arguments": arguments, **({"name": name} if name else {})}
    return delta(tool_calls=[{"index": index, "function": function, **fields}])


USAGE = {
    "id": "c1",
    "choices": [],
    "usage": {
        "prompt_tokens": 10,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 5},
    },
}
PARALLEL = (
    delta(role="assistant", content=""),
    delta(reasoning_content="Hm."),
    delta(content="So."),
    call(0, id="a", name="look"),
    call(0, '{"at"'),
    call(0, ":1}"),
    call(1, id="b", name="see"),
    delta("tool_calls"),
    USAGE,
    b"[DONE]",
)


def test_a_chat_stream_for_an_anthropic_client():
    found, translator = streamed("anthropic", "openai_chat", *PARALLEL)
    assert translator.done
    assert not translator.failed
    kinds = [(event["type"], event.get("index"), (event.get("content_block") or {}).get("type")) for event in found]
    assert kinds == [
        ("message_start", None, None),
        ("content_block_start", 0, "thinking"),
        ("content_block_delta", 0, None),
        ("content_block_stop", 0, None),
        ("content_block_start", 1, "text"),
        ("content_block_delta", 1, None),
        ("content_block_stop", 1, None),
        ("content_block_start", 2, "tool_use"),
        ("content_block_delta", 2, None),
        ("content_block_delta", 2, None),
        ("content_block_stop", 2, None),
        ("content_block_start", 3, "tool_use"),
        ("content_block_delta", 3, None),
        ("content_block_stop", 3, None),
        ("message_delta", None, None),
        ("message_stop", None, None),
    ]
    assert found[12]["delta"]["partial_json"] == "{}"  # a call without arguments has an empty object
    assert found[-2]["delta"]["stop_reason"] == "tool_use"
    assert found[-2]["usage"] == {
        "input_tokens": 6,
        "cache_read_input_tokens": 4,
        "cache_creation_input_tokens": 0,
        "output_tokens": 7,
        "output_tokens_details": {"thinking_tokens": 5},
    }


def test_a_chat_stream_for_a_gemini_client():
    found, _ = streamed("gemini", "openai_chat", *PARALLEL)
    parts = [part for event in found for part in event["candidates"][0]["content"]["parts"]]
    assert parts == [
        {"text": "Hm.", "thought": True},
        {"text": "So."},
        {"functionCall": {"id": "a", "name": "look", "args": {"at": 1}}},
        {"functionCall": {"id": "b", "name": "see", "args": {}}},
        {"text": ""},
    ]
    assert found[-1]["candidates"][0]["finishReason"] == "STOP"
    assert found[-1]["usageMetadata"] == {
        "promptTokenCount": 10,
        "cachedContentTokenCount": 4,
        "candidatesTokenCount": 2,
        "thoughtsTokenCount": 5,
        "totalTokenCount": 17,
    }


def test_a_chat_stream_for_a_responses_client():
    found, _ = streamed(
        "openai_responses", "openai_chat", *PARALLEL, more={"instructions": "Be brief.", "temperature": 1}
    )
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    response = found[-1]["response"]
    assert found[-1]["type"] == "response.completed"
    assert (response["status"], response["instructions"], response["temperature"]) == ("completed", "Be brief.", 1)
    assert [item["type"] for item in response["output"]] == ["reasoning", "message", "function_call", "function_call"]
    assert response["output"][1]["content"][0]["text"] == "So."
    assert [(item["call_id"], item["arguments"]) for item in response["output"][2:]] == [("a", '{"at":1}'), ("b", "{}")]
    assert response["usage"]["input_tokens_details"]["cached_tokens"] == 4
    assert response["usage"]["total_tokens"] == 17
    done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    assert done == response["output"]


def claude(*blocks: Any, reason: str = "end_turn", **more: Any) -> list[dict[str, Any]]:
    usage = {"input_tokens": 6, "cache_read_input_tokens": 4, "output_tokens": 1}
    found: list[dict[str, Any]] = [{"type": "message_start", "message": {"id": "m1", "model": "c", "usage": usage}}]
    found.append({"type": "ping"})
    for index, (block, *deltas) in enumerate(blocks):
        found.append({"type": "content_block_start", "index": index, "content_block": block})
        found += [{"type": "content_block_delta", "index": index, "delta": one} for one in deltas]
        found.append({"type": "content_block_stop", "index": index})
    delta = {"stop_reason": reason, "stop_sequence": None, **more}
    found.append({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 7}})
    return [*found, {"type": "message_stop"}]


THINKING = (
    {"type": "thinking", "thinking": "", "signature": ""},
    {"type": "thinking_delta", "thinking": "Hm."},
    {"type": "signature_delta", "signature": "sig"},
)
SEALED = ({"type": "redacted_thinking", "data": "xx"},)
TEXT = ({"type": "text", "text": ""}, {"type": "text_delta", "text": "So."})
USE = (
    {"type": "tool_use", "id": "t1", "name": "look", "input": {}},
    {"type": "input_json_delta", "partial_json": "{}"},
)
BARE = ({"type": "tool_use", "id": "t2", "name": "see", "input": {}},)


def test_an_anthropic_stream_for_a_chat_client():
    options = {"stream_options": {"include_usage": True}}
    found, translator = streamed(
        "openai_chat", "anthropic", *claude(THINKING, SEALED, TEXT, USE, BARE, reason="tool_use"), more=options
    )
    assert translator.done
    assert found[-1] == b"[DONE]"
    assert found[-2]["choices"] == []
    usage = found[-2]["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (10, 7, 17)
    deltas = [event["choices"][0]["delta"] for event in found[:-2]]
    assert deltas[0] == {"role": "assistant", "content": "", "reasoning_content": "Hm."}
    details = [one for delta in deltas for one in delta.get("reasoning_details", ())]
    assert [(one["type"], one.get("signature"), one.get("data")) for one in details] == [
        ("reasoning.text", "sig", None),
        ("reasoning.encrypted", None, "xx"),
    ]
    calls = [one for delta in deltas for one in delta.get("tool_calls", ())]
    assert [(one["index"], one.get("id"), one["function"].get("arguments")) for one in calls] == [
        (0, "t1", ""),
        (0, None, "{}"),
        (1, "t2", ""),
        (1, None, "{}"),
    ]
    assert found[-3]["choices"][0]["finish_reason"] == "tool_calls"
    assert {event["created"] for event in found[:-1]} == {7}


def test_reasoning_that_a_client_put_together_goes_back_as_it_was_signed():
    """The official SDK puts together what stands under one index: each thought with its proof has one of its own."""
    second = (
        {**THINKING[0]},
        {"type": "thinking_delta", "thinking": "So,"},
        {"type": "thinking_delta", "thinking": " it is."},
    )
    third = (THINKING[0], {"type": "signature_delta", "signature": "bare"})
    proof = {"type": "signature_delta", "signature": "other"}
    blocks = (THINKING, SEALED, (*second, proof), third, TEXT, USE)
    found, _ = streamed("openai_chat", "anthropic", *claude(*blocks, reason="tool_use"))
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for event in found[:-1]:
        state.handle_chunk(ChatCompletionChunk.model_validate(event))
    message = state.get_final_completion().choices[0].message.model_dump(exclude_none=True)
    messages = [{"role": "user", "content": "x"}, message]
    again = asking("openai_chat", "anthropic", more={"messages": messages})
    assert json.loads(again.sent.body)["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
        {"type": "redacted_thinking", "data": "xx"},
        {"type": "thinking", "thinking": "So, it is.", "signature": "other"},
        {"type": "thinking", "thinking": "", "signature": "bare"},
        {"type": "text", "text": "So."},
        {"type": "tool_use", "id": "t1", "name": "look", "input": {}},
    ]
    assert message["reasoning_content"] == "Hm.So, it is."


def test_one_gateway_behind_another_says_each_thought_once():
    again = (THINKING[0], {"type": "thinking_delta", "thinking": "Or"}, {"type": "thinking_delta", "thinking": " so."})
    blocks = (THINKING, TEXT, (*again, {"type": "signature_delta", "signature": "other"}), SEALED)
    first, _ = streamed("openai_chat", "anthropic", *claude(*blocks))
    found, translator = streamed("anthropic", "openai_chat", *first)
    assert translator.done
    said = [event["delta"] for event in found if event["type"] == "content_block_delta"]
    assert [one["thinking"] for one in said if "thinking" in one] == ["Hm.", "Or", " so."]
    assert [one["signature"] for one in said if "signature" in one] == ["sig", "other"]


@pytest.mark.parametrize("between", [TEXT, USE])
def test_a_proof_is_of_the_text_right_before_it(between):
    bare = (THINKING[0], {"type": "thinking_delta", "thinking": "Hm."})
    proof = (THINKING[0], {"type": "signature_delta", "signature": "sig"})
    found, _ = streamed("openai_chat", "anthropic", *claude(bare, between, proof))
    (detail,) = [one for event in found[:-1] for one in event["choices"][0]["delta"].get("reasoning_details", ())]
    assert (detail["text"], detail["signature"]) == ("", "sig")


def test_reasoning_that_is_held_for_its_proof_has_a_bound(monkeypatch):
    monkeypatch.setattr(chat_answers, "MAX_HELD", 1000)
    thought = (
        {"type": "thinking", "thinking": "", "signature": ""},
        *[{"type": "thinking_delta", "thinking": "x" * 300}] * 4,
    )
    found, translator = streamed("openai_chat", "anthropic", *claude(thought))
    assert translator.failed
    assert "too long" in found[-1]["error"]["message"]


def test_usage_only_for_clients_that_asked():
    found, _ = streamed("openai_chat", "anthropic", *claude(TEXT))
    assert all("usage" not in event for event in found[:-1])


@pytest.mark.parametrize(
    ("said", "chat", "gemini", "responses"),
    [
        ("end_turn", "stop", "STOP", "completed"),
        ("stop_sequence", "stop", "STOP", "completed"),
        ("max_tokens", "length", "MAX_TOKENS", "incomplete"),
        ("model_context_window_exceeded", "length", "MAX_TOKENS", "incomplete"),
        ("refusal", "content_filter", "SAFETY", "incomplete"),
    ],
)
def test_ends_of_anthropic(said, chat, gemini, responses):
    found, _ = streamed("openai_chat", "anthropic", *claude(TEXT, reason=said))
    assert found[-2]["choices"][0]["finish_reason"] == chat
    found, _ = streamed("gemini", "anthropic", *claude(TEXT, reason=said))
    assert found[-1]["candidates"][0]["finishReason"] == gemini
    found, _ = streamed("openai_responses", "anthropic", *claude(TEXT, reason=said))
    assert found[-1]["type"] == f"response.{responses}"
    assert found[-1]["response"]["status"] == responses


def chunk(*parts: Any, reason: str = "", index: int = 0) -> dict[str, Any]:
    candidate: dict[str, Any] = {"index": index, "content": {"role": "model", "parts": list(parts)}}
    if reason:
        candidate["finishReason"] = reason
    return {"candidates": [candidate], "modelVersion": "g", "responseId": "r1"}


@pytest.mark.parametrize(
    ("said", "chat", "claude_says"),
    [("STOP", "stop", "end_turn"), ("MAX_TOKENS", "length", "max_tokens"), ("SAFETY", "content_filter", "refusal")],
)
def test_ends_of_gemini(said, chat, claude_says):
    found, _ = streamed("openai_chat", "gemini", chunk({"text": "a"}), chunk(reason=said))
    assert found[-2]["choices"][0]["finish_reason"] == chat
    found, _ = streamed("anthropic", "gemini", chunk({"text": "a"}), chunk(reason=said))
    assert found[-2]["delta"]["stop_reason"] == claude_says


def test_a_stop_sequence_is_named():
    found, _ = streamed("anthropic", "anthropic", *claude(TEXT, reason="stop_sequence", stop_sequence="END"))
    assert found[-2]["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "END"}


def test_a_call_of_gemini_gets_an_id_and_the_right_end():
    signed = {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "c2ln"}
    values = (chunk(signed, {"functionCall": {"name": "f", "args": {}}}), chunk({"text": ""}, reason="STOP"))
    found, _ = streamed("openai_chat", "gemini", *values)
    calls = [one for event in found[:-1] for one in event["choices"][0]["delta"].get("tool_calls", ()) if one.get("id")]
    assert [one["id"] for one in calls] == ["call_r1_0", "call_r1_1"]
    assert calls[0]["extra_content"] == {"google": {"thought_signature": "c2ln"}}
    assert found[-2]["choices"][0]["finish_reason"] == "tool_calls"
    found, _ = streamed("anthropic", "gemini", *values)
    assert found[-2]["delta"]["stop_reason"] == "tool_use"


def next_turn(client: str, answer: dict[str, Any]) -> dict[str, Any]:
    """What a client sends that keeps the answer as it is."""
    if client == "openai_chat":
        return {"model": "m", "messages": [{"role": "user", "content": "x"}, answer["choices"][0]["message"]]}
    if client == "anthropic":
        turn = {"role": "assistant", "content": answer["content"]}
        return {"model": "m", "max_tokens": 5000, "messages": [{"role": "user", "content": "x"}, turn]}
    if client == "gemini":
        return {"contents": [{"role": "user", "parts": [{"text": "x"}]}, answer["candidates"][0]["content"]]}
    return {"model": "m", "input": [{"role": "user", "content": "x"}, *answer["output"]]}


@pytest.mark.parametrize("client", ["openai_chat", "anthropic", "openai_responses"])
def test_the_signature_of_gemini_finds_its_way_back(client):
    signed = {"functionCall": {"name": "f", "args": {"a": 1}}, "thoughtSignature": "c2ln"}
    answer = json.loads(
        asking(client, "gemini", stream=False).document(json.dumps(chunk(signed, reason="STOP")).encode())
    )
    text = json.dumps(next_turn(client, answer)).encode()
    sent = Translation(client, "gemini", text, Asked(send_model="gemini-3-pro")).sent
    part = json.loads(sent.body)["contents"][1]["parts"][0]
    assert part["functionCall"]["args"] == {"a": 1}
    assert part["thoughtSignature"] == "c2ln"


RETURNS = {  # what clients say that return what they do not understand
    "openai_chat": {},
    "anthropic": {"thinking": {"type": "adaptive"}},
    "openai_responses": {"include": ["reasoning.encrypted_content"]},
}
SIGNED_TEXT = (
    {"text": "Hm.", "thought": True},
    {"text": "I look."},
    {"text": "", "thoughtSignature": "dGV4dA=="},  # as the end of a stream has it
    {"functionCall": {"name": "f", "args": {"a": 1}}},
)


@pytest.mark.parametrize("client", RETURNS)
def test_the_signature_of_a_text_finds_its_way_back_to_the_text(client):
    """Not to the call behind it: that had none."""
    asked = json.dumps({**QUESTIONS[client], **RETURNS[client]}).encode()
    said = Translation(client, "gemini", asked, Asked(request_id="r"))
    answer = json.loads(said.document(json.dumps(chunk(*SIGNED_TEXT, reason="STOP")).encode()))
    text = json.dumps({**next_turn(client, answer), **RETURNS[client]}).encode()
    parts = json.loads(Translation(client, "gemini", text, Asked(send_model="gemini-2.5-pro")).sent.body)["contents"][1]
    assert [part for part in parts["parts"] if "thoughtSignature" in part] == [
        {"text": "I look.", "thoughtSignature": "dGV4dA=="}
    ]


def test_the_signature_of_a_text_is_said_in_streams():
    chunks = (*[chunk(part) for part in SIGNED_TEXT[:3]], chunk({"text": ""}, reason="STOP"))
    found, _ = streamed("openai_chat", "gemini", *chunks)
    details = [one for event in found[:-1] for one in event["choices"][0]["delta"].get("reasoning_details", ())]
    assert [(one["text"], one["signature"]) for one in details] == [("", "dGV4dA==")]
    asked = json.dumps({**QUESTIONS["anthropic"], "stream": True, **RETURNS["anthropic"]}).encode()
    stream = Translation("anthropic", "gemini", asked, Asked()).stream()
    blocks = [event["content_block"] for event in events(stream.feed(sse(*chunks))) if "content_block" in event]
    assert [block["type"] for block in blocks] == ["thinking", "text", "thinking"]
    asked = json.dumps({**QUESTIONS["openai_responses"], "stream": True, **RETURNS["openai_responses"]}).encode()
    stream = Translation("openai_responses", "gemini", asked, Asked()).stream()
    items = events(stream.feed(sse(*chunks)) + stream.end())[-1]["response"]["output"]
    assert [item["type"] for item in items] == ["reasoning", "message", "reasoning"]
    assert "encrypted_content" in items[2]
    assert "encrypted_content" not in items[0]


@pytest.mark.parametrize("client", ["anthropic", "openai_responses"])
def test_who_asks_for_no_reasoning_sees_no_signature_of_a_text(client):
    """A block behind the text would be taken for the answer by whoever looks at the last one."""
    answer = json.loads(
        asking(client, "gemini", stream=False).document(json.dumps(chunk(*SIGNED_TEXT[1:3], reason="STOP")).encode())
    )
    kinds = [one["type"] for one in answer.get("content") or answer["output"]]
    assert kinds in (["text"], ["message"])
    found, _ = streamed(client, "gemini", *[chunk(part) for part in SIGNED_TEXT[1:3]], chunk(reason="STOP"))
    assert "thinking" not in json.dumps(found)
    assert '"type": "reasoning"' not in json.dumps(found)


def test_a_gemini_client_behind_two_gateways_has_its_signature_on_the_text():
    detail = {"type": "reasoning.text", "text": "", "signature": "c2ln", "format": "google-gemini-v1", "index": 0}
    found, _ = streamed("gemini", "openai_chat", delta(content="x"), delta(reasoning_details=[detail]), delta("stop"))
    assert found[1]["candidates"][0]["content"]["parts"] == [{"text": "", "thoughtSignature": "c2ln"}]


def test_google_has_the_signature_of_a_text_on_its_message():
    said = {"role": "assistant", "content": "x", "extra_content": {"google": {"thought_signature": "c2ln"}}}
    text = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x"}, said]}).encode()
    contents = json.loads(Translation("openai_chat", "gemini", text, Asked()).sent.body)["contents"]
    assert contents[1]["parts"] == [{"text": "x", "thoughtSignature": "c2ln"}]


@pytest.mark.parametrize("client", ["openai_chat", "gemini", "openai_responses"])
def test_the_signature_of_anthropic_finds_its_way_back(client):
    message = {
        "type": "message",
        "id": "m1",
        "model": "c",
        "stop_reason": "tool_use",
        "usage": {"input_tokens": 1},
        "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "sig"},
            {"type": "redacted_thinking", "data": "xx"},
            {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
        ],
    }
    answer = json.loads(asking(client, "anthropic", stream=False).document(json.dumps(message).encode()))
    text = json.dumps(next_turn(client, answer)).encode()
    sent = Translation(client, "anthropic", text, Asked(send_model="claude-opus-4-5")).sent
    assert json.loads(sent.body)["messages"][1]["content"] == message["content"]


def test_reasoning_without_a_signature_is_shown_to_all():
    reasoned = {
        "choices": [{"index": 0, "message": {"content": "So.", "reasoning_content": "Hm."}, "finish_reason": "stop"}]
    }
    answer = json.loads(asking("anthropic", "openai_chat", stream=False).document(json.dumps(reasoned).encode()))
    assert answer["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": ""},
        {"type": "text", "text": "So."},
    ]


def test_several_choices():
    values = (delta(content="a"), delta(content="b", index=1), delta("stop"), delta("stop", index=1), b"[DONE]")
    found, _ = streamed("gemini", "openai_chat", *values)
    assert [candidate["index"] for candidate in found[-1]["candidates"]] == [0, 1]
    for client in ("anthropic", "openai_responses"):
        _, translator = streamed(client, "openai_chat", *values)
        assert translator.failed
        assert not translator.done


# -- ends that are no success -----------------------------------------------------------------------------------------

CUT = {
    "openai_chat": PARALLEL[:-3],
    "anthropic": tuple(claude(TEXT)[:-1]),
    "gemini": (chunk({"text": "a"}),),
}
CLIENTS = ("openai_chat", "anthropic", "gemini", "openai_responses")


@pytest.mark.parametrize("upstream", CUT)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_stream_that_was_cut_is_never_complete(client, upstream):
    translator = asking(client, upstream).stream()
    body = translator.feed(sse(*CUT[upstream])) + translator.end()
    assert not translator.done
    for word in (b"[DONE]", b"message_stop", b"finishReason", b"response.completed"):
        assert word not in body
    last = events(translator.interrupt(StreamTruncated("it was cut"), "req1"))[-1]
    error = last.get("error") or last["response"]["error"]
    assert "it was cut" in error["message"]
    if client == "openai_responses":
        assert last["sequence_number"] == len(events(body))


ERRORS = {
    "openai_chat": {"error": {"message": "too busy", "type": "rate_limit_error", "code": "rate_limit_exceeded"}},
    "anthropic": {"type": "error", "error": {"type": "overloaded_error", "message": "too busy"}},
    "gemini": {"error": {"code": 503, "message": "too busy", "status": "UNAVAILABLE"}},
}
SAID = {
    "openai_chat": {"openai_chat": "rate_limit_error", "anthropic": "server_error", "gemini": "server_error"},
    "anthropic": {"openai_chat": "rate_limit_error", "anthropic": "overloaded_error", "gemini": "overloaded_error"},
    "gemini": {"openai_chat": "RESOURCE_EXHAUSTED", "anthropic": "UNAVAILABLE", "gemini": "UNAVAILABLE"},
    "openai_responses": {"openai_chat": "rate_limit_exceeded", "anthropic": "server_error", "gemini": "server_error"},
}


@pytest.mark.parametrize("upstream", CUT)
@pytest.mark.parametrize("client", CLIENTS)
def test_an_error_in_mid_stream_stays_one(client, upstream):
    rest = CUT[upstream][:2]
    found, translator = streamed(client, upstream, *rest, ERRORS[upstream], *PARALLEL[:1])
    assert translator.failed
    assert not translator.done
    error = found[-1].get("error") or found[-1]["response"]["error"]
    assert error["message"] == "too busy"
    assert SAID[client][upstream] in {str(error.get(name)) for name in ("type", "status", "code")}


@pytest.mark.parametrize("client", ["openai_chat", "openai_responses"])
@pytest.mark.parametrize(
    ("upstream", "error"),
    [
        (
            "anthropic",
            {"type": "invalid_request_error", "message": "prompt is too long: 210000 tokens > 200000 maximum"},
        ),
        (
            "gemini",
            {"code": 400, "message": "The input token count (9) exceeds the maximum", "status": "INVALID_ARGUMENT"},
        ),
    ],
)
def test_what_is_too_long_has_the_code_that_clients_go_by(client, upstream, error):
    said = json.loads(asking(client, upstream).error(400, json.dumps({"error": error}).encode()))["error"]
    assert (said["message"], said["code"]) == (error["message"], "context_length_exceeded")
    other = {**error, "message": "max_tokens must be positive"}
    assert (
        json.loads(asking(client, upstream).error(400, json.dumps({"error": other}).encode()))["error"]["code"] is None
    )


def test_errors_keep_status_and_message():
    body = json.dumps(ERRORS["anthropic"]).encode()
    said = json.loads(asking("openai_chat", "anthropic").error(529, body))
    assert said["error"] == {"message": "too busy", "type": "server_error", "param": None, "code": None}
    said = json.loads(asking("anthropic", "gemini").error(503, b"[%b]" % json.dumps(ERRORS["gemini"]).encode()))
    assert said == {"type": "error", "error": {"type": "overloaded_error", "message": "too busy"}}
    said = json.loads(asking("gemini", "openai_chat").error(502, b"<html>Bad gateway</html>"))
    assert said["error"] == {"code": 502, "message": "<html>Bad gateway</html>", "status": "UNAVAILABLE"}
    for bare in (b'{"object":"error","message":"too busy","code":400}', b'{"code":"odd","error":"too busy"}'):
        assert json.loads(asking("anthropic", "openai_chat").error(400, bare))["error"]["message"] == "too busy"
    assert json.loads(asking("anthropic", "openai_chat").error(500, b""))["error"]["message"]


ODD = [
    ("openai_chat", (delta(content="a"), delta("because"), b"[DONE]")),
    ("openai_chat", (delta(content="a", audio={"data": "x"}), delta("stop"), b"[DONE]")),
    ("openai_chat", (b"[DONE]",)),
    ("openai_chat", (delta(content="a"), b"{broken", delta("stop"), b"[DONE]")),
    ("openai_chat", (b"[1]",)),
    ("openai_chat", (call(0, "{}"), delta("tool_calls"), b"[DONE]")),
    ("anthropic", claude(TEXT, reason="pause_turn")),
    ("anthropic", claude(({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},))),
    ("gemini", (chunk({"text": "a"}), chunk(reason="MALFORMED_FUNCTION_CALL"))),
    ("gemini", (chunk({"inlineData": {"mimeType": "image/png", "data": "AA=="}}), chunk(reason="STOP"))),
]


@pytest.mark.parametrize(("upstream", "values"), ODD)
@pytest.mark.parametrize("client", CLIENTS)
def test_what_has_no_translation_fails(client, upstream, values):
    found, translator = streamed(client, upstream, *values)
    assert translator.failed
    assert not translator.done
    assert found[-1].get("error") or found[-1]["response"]["error"]


@pytest.mark.parametrize(
    ("upstream", "value"),
    [
        ("openai_chat", {}),
        ("openai_chat", {"choices": []}),
        ("openai_chat", {"error": {"message": "no"}}),
        ("anthropic", {"type": "error", "error": {"type": "api_error", "message": "no"}}),
        ("anthropic", {"type": "message", "content": []}),
        ("gemini", {"candidates": []}),
        ("gemini", chunk({"text": "a"})),
        ("gemini", []),
        ("gemini", "text"),
    ],
)
@pytest.mark.parametrize("client", CLIENTS)
def test_what_is_no_answer_is_refused(client, upstream, value):
    with pytest.raises(BadAnswer):
        asking(client, upstream, stream=False).document(json.dumps(value).encode())


def test_a_blocked_prompt_is_an_answer():
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}}
    said = json.loads(asking("anthropic", "gemini", stream=False).document(json.dumps(blocked).encode()))
    assert (said["stop_reason"], said["content"], said["usage"]["input_tokens"]) == ("refusal", [], 3)


def test_arguments_that_are_no_object():
    broken = [call(0, "{nope", id="a", name="f"), delta("tool_calls"), b"[DONE]"]
    _, translator = streamed("gemini", "openai_chat", *broken)
    assert translator.failed
    _, translator = streamed("openai_responses", "openai_chat", *broken)
    assert translator.done  # there they are text, too


def test_a_second_call_under_the_first_ones_index():
    values = [call(0, "{}", id="a", name="f"), call(0, "{}", id="b", name="g"), delta("tool_calls"), b"[DONE]"]
    found, translator = streamed("anthropic", "openai_chat", *values)
    assert translator.done
    assert [event["content_block"]["name"] for event in found if event["type"] == "content_block_start"] == ["f", "g"]


def test_a_stop_that_called_tools_means_the_tools():
    values = [call(0, "{}", id="a", name="f"), delta("stop"), b"[DONE]"]
    found, _ = streamed("anthropic", "openai_chat", *values)
    assert found[-2]["delta"]["stop_reason"] == "tool_use"


def test_a_stream_without_done_is_complete_once_its_choices_are():
    _, translator = streamed("anthropic", "openai_chat", delta(content="a"), delta("stop"))
    assert translator.done
    _, translator = streamed("anthropic", "openai_chat", delta(content="a"), delta("stop"), delta(content="b", index=1))
    assert not translator.done


def test_gemini_without_sse_is_an_array():
    translator = asking("gemini", "openai_chat", array=True).stream()
    body = translator.feed(sse(*PARALLEL)) + translator.end()
    assert json.loads(body)[-1]["candidates"][0]["finishReason"] == "STOP"
    translator = asking("gemini", "openai_chat", array=True).stream()
    body = translator.feed(sse(*PARALLEL[:3])) + translator.interrupt(StreamTruncated("cut"), "r")
    assert json.loads(body)[-1]["error"]["message"] == "cut"
    translator = asking("gemini", "openai_chat", array=True).stream()
    assert json.loads(translator.feed(sse(ERRORS["openai_chat"])))[0]["error"]["message"] == "too busy"


def test_a_whole_answer_where_a_stream_was_asked_for():
    translation = asking("anthropic", "openai_chat")
    whole = {"id": "c", "model": "g", "choices": [{"index": 0, "message": {"content": "So."}, "finish_reason": "stop"}]}
    translator = translation.stream()
    found = events(translator.whole(translation.events(json.dumps(whole).encode())))
    assert translator.done
    assert found[-1] == {"type": "message_stop"}


def test_a_stream_where_a_whole_answer_was_asked_for():
    said = json.loads(asking("anthropic", "openai_chat", stream=False).gathered(sse(*PARALLEL)))
    assert [block["type"] for block in said["content"]] == ["thinking", "text", "tool_use", "tool_use"]
    with pytest.raises(BadAnswer):
        asking("anthropic", "openai_chat", stream=False).gathered(sse(*PARALLEL[:4]))


def test_usage_that_is_not_stated_is_not_made_up():
    whole = {"id": "c", "choices": [{"index": 0, "message": {"content": "So."}, "finish_reason": "stop"}]}
    said = json.loads(asking("gemini", "openai_chat", stream=False).document(json.dumps(whole).encode()))
    assert "usageMetadata" not in said
    said = json.loads(asking("openai_responses", "openai_chat", stream=False).document(json.dumps(whole).encode()))
    assert said["usage"] is None


@pytest.mark.parametrize(("stated", "told"), [(True, 10), (False, 25)])
def test_a_stream_of_messages_states_what_is_expected_until_the_provider_says(stated: bool, told: int):
    said = [delta(role="assistant", content="So."), delta("stop"), *([USAGE] if stated else []), b"[DONE]"]
    first, *_, last, _ = streamed("anthropic", "openai_chat", *said, expected=lambda: 25)[0]
    assert first["message"]["usage"]["input_tokens"] == 25
    usage = last["usage"]
    assert usage["input_tokens"] + usage["cache_read_input_tokens"] == told


@pytest.mark.parametrize("client", ["anthropic", "gemini", "openai_responses"])
def test_a_character_that_was_cut_in_two_is_one_again(client):
    """By a server that counts in UTF-16 units."""
    cut = [json.dumps(delta(content=text)).encode() for text in ("x\ud83d", "\ude00y", "z\ud83d")]
    stream = asking(client, "openai_chat").stream()
    said = stream.feed(b"".join([b"data: %b\n\n" % one for one in cut]) + sse(delta("stop")) + b"data: [DONE]\n\n")
    assert stream.done
    assert not stream.failed
    assert "😀".encode() in said
    assert b"\xef\xbf\xbd" not in said
    assert b"\\ud" not in said


def test_half_a_character_in_a_whole_answer_is_replaced():
    answer = {"id": "c", "choices": [{"index": 0, "message": {"content": "x\ud83d"}, "finish_reason": "stop"}]}
    said = json.loads(asking("anthropic", "openai_chat", stream=False).document(json.dumps(answer).encode()))
    assert said["content"] == [{"type": "text", "text": "x\N{REPLACEMENT CHARACTER}"}]


def test_arguments_with_half_a_character_fail_as_what_cannot_be_written():
    call = json.dumps(chunk({"functionCall": {"name": "f", "args": {"a": "\ud83d"}}})).encode()
    stream = asking("openai_chat", "gemini").stream()
    assert b"cannot be written" in stream.feed(b"data: %b\n\n" % call)
    assert stream.failed


def test_a_responses_stream_that_fails_at_once_has_begun():
    """Else the SDK says nothing of the failure, but that it missed the beginning."""
    found, _ = streamed("openai_responses", "openai_chat", {"error": {"message": "Boom."}})
    assert [event["type"] for event in found] == ["response.created", "response.in_progress", "response.failed"]
    assert [event["sequence_number"] for event in found] == [0, 1, 2]


def test_an_event_without_end_is_given_up():
    translator = asking("anthropic", "openai_chat").stream()
    out = translator.feed(b'data: {"choices":[{"delta":{"content":"')
    for _ in range(MAX_EVENT // 65536 + 2):
        out += translator.feed(b"x" * 65536)
    assert translator.failed
    assert events(out)[-1]["type"] == "error"
    assert translator.feed(sse(delta("stop"), b"[DONE]")) == b""


def test_held_arguments_are_bounded():
    translator = asking("gemini", "openai_chat").stream()
    translator.feed(sse(call(0, '{"a":"', id="a", name="f")))
    for _ in range(20):
        translator.feed(sse(call(0, "x" * 1_000_000)))
    assert translator.failed
