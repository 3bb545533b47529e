"""Answers held against the form that was demanded, in each API as its upstreams send them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from gateway.call import Request
from gateway.dialects.checkable import FORMS as FORM_NAMES
from gateway.dialects.checkable import Checkable
from gateway.dialects.registry import DIALECTS
from gateway.errors import BadBody
from gateway.policy.answer_check import FAILURES, verdict
from gateway.ports import Form, Given
from gateway.testing.calls import ROUTES

PERSON = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
GEMINI, STREAMED = "/v1beta/models/g:generateContent", "/v1beta/models/g:streamGenerateContent"
FUNCTION = {"type": "function", "function": {"name": "note", "parameters": PERSON}}
CHECKABLE = Checkable()


def demanded(path: str, **body: Any) -> Form | None:
    raw = json.dumps(body).encode()
    route = ROUTES.resolve(b"POST", path.encode(), "")
    return CHECKABLE.demand(route, DIALECTS[route.dialect].read(route, Request(b"POST", path.encode(), (), raw)))


def given(path: str, body: Any, step: int = 1 << 20) -> list[Given] | None:
    """`step`: bytes of each piece."""
    reading = CHECKABLE.reading(ROUTES.resolve(b"POST", path.encode(), ""), 1 << 20)
    whole = body if isinstance(body, bytes) else json.dumps(body).encode()
    for at in range(0, len(whole), step):
        reading.feed(whole[at : at + step])
    found = reading.given()
    return None if found is None else list(found)


def sse(*events: Any) -> bytes:
    return b"".join([b"data: %b\n\n" % json.dumps(event).encode() for event in events])


SCHEMA = {"type": "json_schema", "schema": PERSON}
TEXT_FORMS = [
    (CHAT, {"response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": PERSON}}}),
    (RESPONSES, {"text": {"format": {**SCHEMA, "name": "p"}}}),
    (MESSAGES, {"output_config": {"format": SCHEMA}}),
    (MESSAGES, {"output_format": SCHEMA}),
    (GEMINI, {"generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": PERSON}}),
]
CALL_FORMS = [
    (CHAT, {"tools": [FUNCTION], "tool_choice": {"type": "function", "function": {"name": "note"}}}, ("note",)),
    (CHAT, {"tools": [FUNCTION], "tool_choice": "required"}, ()),
    (RESPONSES, {"tools": [{"type": "function", "name": "note", "parameters": PERSON}], "tool_choice": "required"}, ()),
    (MESSAGES, {"tools": [{"name": "note", "input_schema": PERSON}], "tool_choice": {"type": "any"}}, ()),
    (
        MESSAGES,
        {"tools": [{"name": "note", "input_schema": PERSON}], "tool_choice": {"type": "tool", "name": "note"}},
        ("note",),
    ),
    (
        GEMINI,
        {
            "tools": [{"functionDeclarations": [{"name": "note", "parametersJsonSchema": PERSON}]}],
            "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["note"]}},
        },
        ("note",),
    ),
]


@pytest.mark.parametrize(("path", "body"), TEXT_FORMS)
def test_a_schema_is_a_form(path: str, body: dict[str, Any]) -> None:
    assert demanded(path, model="m", **body) == Form(json=True, schema=PERSON)


@pytest.mark.parametrize(("path", "body", "names"), CALL_FORMS)
def test_so_is_a_call_that_must_be_made(path: str, body: dict[str, Any], names: tuple[str, ...]) -> None:
    assert demanded(path, model="m", **body) == Form(call=True, names=names, tools={"note": PERSON})


def test_json_of_any_schema_is_one_as_well() -> None:
    assert demanded(CHAT, model="m", response_format={"type": "json_object"}) == Form(json=True)
    assert demanded(GEMINI, generation_config={"response_mime_type": "application/json"}) == Form(json=True)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {}),
        (CHAT, {"response_format": {"type": "text"}}),
        (CHAT, {"tools": [FUNCTION], "tool_choice": "auto"}),
        (CHAT, {"tools": [FUNCTION]}),
        (CHAT, {"tools": [{"type": "custom", "custom": {"name": "x"}}], "tool_choice": "required"}),
        (CHAT, {"response_format": "json", "tools": 7}),  # what no upstream takes
        (RESPONSES, {"tools": [FUNCTION["function"] | {"type": "function"}, {"type": "web_search"}]}),
        (
            RESPONSES,  # a search of the provider's would do
            {
                "tools": [{"type": "function", "name": "note"}, {"type": "web_search"}],
                "tool_choice": "required",
            },
        ),
        (RESPONSES, {"text": {"format": SCHEMA | {"name": "p"}}, "background": True}),
        (GEMINI, {"generationConfig": {"stopSequences": ["```json"]}}),
        ("/v1/embeddings", {"input": "x", "response_format": {"type": "json_object"}}),
    ],
)
def test_whatever_else_is_asked_cannot_be_checked(path: str, body: dict[str, Any]) -> None:
    assert demanded(path, model="m", **body) is None


WANTED = Form(json=True, schema=PERSON)
MUST = Form(call=True, names=("note",), tools={"note": PERSON, "other": None})


@pytest.mark.parametrize(
    ("form", "answer", "found"),
    [
        (WANTED, Given('{"age": 3}', ended="stop"), "ok"),
        (WANTED, Given(' {"age": 3}\n'), "ok"),
        (WANTED, Given('{"age": "3"}'), "schema"),
        (WANTED, Given("{}"), "schema"),
        (WANTED, Given("Here it is: {}"), "json"),
        (WANTED, Given(""), "json"),
        (WANTED, Given('```json\n{"age": 3}\n```'), "json"),
        (WANTED, Given('{"age": 3}', ended="length"), "length"),
        (WANTED, Given('{"age": 3}', ended="filtered"), "refusal"),
        (WANTED, Given("", refused=True), "refusal"),
        (WANTED, Given("\ud800"), "json"),
        (Form(json=True), Given("[" * 100_000), "json"),
        (Form(json=True), Given("7"), "ok"),
        (Form(json=True, tools={"note": PERSON}), Given("", (("note", '{"age": 1}'),)), "ok"),  # it asks back first
        (Form(json=True, tools={"note": PERSON}), Given("", (("note", "{}"),)), "arguments"),
        (MUST, Given("I will.", (("note", '{"age": 1}'),), "tools"), "ok"),
        (MUST, Given("I will."), "call"),
        (MUST, Given("", (("other", "{}"),)), "call"),
        (MUST, Given("", (("note", '{"age": 1}'), ("note", '{"age": "x"}'))), "arguments"),
        (MUST, Given("", (("note", '{"age": 1'),)), "arguments"),
        (MUST, Given("", (("note", "[]"),)), "arguments"),
        (Form(call=True, tools={"note": None}), Given("", (("note", '{"any": 1}'),)), "ok"),
        (Form(call=True, tools={"note": None}), Given("", (("made_up", "{}"),)), "call"),
    ],
)
def test_what_is_found(form: Form, answer: Given, found: str) -> None:
    assert verdict(form, [answer]) == found


def test_of_several_choices_the_first_that_fails_counts_and_nothing_is_no_failure() -> None:
    good, bad = Given('{"age": 1}'), Given("no")
    assert verdict(WANTED, [good, bad, Given("", refused=True)]) == "json"
    assert verdict(WANTED, [good, good]) == "ok"
    assert verdict(WANTED, []) == verdict(WANTED, None) == "unread"


def choice(text: str | None, reason: str = "stop", **more: Any) -> dict[str, Any]:
    return {
        "id": "c",
        "model": "m",
        "choices": [{"index": 0, "message": {"content": text, **more}, "finish_reason": reason}],
    }


CALLED = {"id": "t", "type": "function", "function": {"name": "note", "arguments": '{"age'}}


def chunk(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    return {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def part(text: str, reason: str = "", **more: Any) -> dict[str, Any]:
    ended = {"finishReason": reason} if reason else {}
    return {"candidates": [{"content": {"parts": [{"text": text, **more}], "role": "model"}, **ended}]}


def response(kind: str = "completed", **more: Any) -> dict[str, Any]:
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "{}"}]}
    called = {"type": "function_call", "name": "note", "arguments": '{"age":1}', "call_id": "t"}
    return {"id": "r", "status": kind, "output": [{"type": "reasoning", "summary": []}, said, called], **more}


BLOCKS = [{"type": "text", "text": "{}"}, {"type": "tool_use", "id": "t", "name": "note", "input": {"age": 1}}]
MESSAGE = {"id": "a", "type": "message", "role": "assistant", "model": "m", "content": BLOCKS, "usage": {}}
BEGUN = {**MESSAGE, "content": []}


@pytest.mark.parametrize(
    ("path", "body", "found"),
    [
        (CHAT, choice("{}"), Given("{}", ended="stop")),
        (CHAT, choice("{", "length"), Given("{", ended="length")),
        (CHAT, choice(None, refusal="No."), Given("", ended="stop", refused=True)),
        (CHAT, choice(None, "content_filter"), Given("", ended="filtered")),
        (CHAT, choice(None, "tool_calls", tool_calls=[CALLED]), Given("", (("note", '{"age'),), "tools")),
        (CHAT, sse(chunk({"content": "{"}), chunk({"content": "}"}), chunk({}, "stop")), Given("{}", ended="stop")),
        (
            CHAT,
            sse(
                chunk({"tool_calls": [{"index": 0, **CALLED}]}),
                chunk({"tool_calls": [{"index": 0, "function": {"arguments": '":1}'}}]}),
                chunk({}, "tool_calls"),
            ),
            Given("", (("note", '{"age":1}'),), "tools"),
        ),
        (MESSAGES, {**MESSAGE, "stop_reason": "tool_use"}, Given("{}", (("note", '{"age":1}'),), "tools")),
        (MESSAGES, {**MESSAGE, "stop_reason": "refusal"}, Given("{}", (("note", '{"age":1}'),), "filtered")),
        (
            MESSAGES,
            sse(
                {"type": "message_start", "message": BEGUN},
                {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
                {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": '{"age"'}},
                {"type": "content_block_stop", "index": 0},
                {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {"output_tokens": 3}},
                {"type": "message_stop"},
            ),
            Given('{"age"', ended="length"),
        ),
        (RESPONSES, response(), Given("{}", (("note", '{"age":1}'),), "stop")),
        (
            RESPONSES,
            sse({"type": "response.completed", "response": response()}),
            Given("{}", (("note", '{"age":1}'),), "stop"),
        ),
        (
            RESPONSES,
            sse(
                {
                    "type": "response.incomplete",
                    "response": response("incomplete", incomplete_details={"reason": "max_output_tokens"}),
                }
            ),
            Given("{}", (("note", '{"age":1}'),), "length"),
        ),
        (GEMINI, part("{}", "STOP"), Given("{}", ended="stop")),
        (GEMINI, part("{}", "SAFETY"), Given("{}", ended="filtered")),
        (
            STREAMED,
            json.dumps([part("{"), part("hm", thought=True), part("}", "STOP")]).encode(),
            Given("{}", ended="stop"),
        ),
        (STREAMED + "?alt=sse", sse(part("{"), part("}", "MAX_TOKENS")), Given("{}", ended="length")),
        (
            GEMINI,
            {
                "candidates": [
                    {
                        "content": {"parts": [{"functionCall": {"name": "note", "args": {"age": 1}}}]},
                        "finishReason": "STOP",
                    }
                ]
            },
            Given("", (("note", '{"age":1}'),), "tools"),
        ),
    ],
)
def test_an_answer_is_read_in_each_api(path: str, body: Any, found: Given) -> None:
    assert given(path, body) == given(path, body, 7) == [found]


@pytest.mark.parametrize("path", [CHAT, MESSAGES, RESPONSES, GEMINI, STREAMED])
@pytest.mark.parametrize("body", [b"", b"nonsense", b"{}", b"[]", b"[1]", b'{"choices": 7}', b"data: {\n\n", b"\xff"])
def test_what_is_no_answer_is_not_judged(path: str, body: bytes) -> None:
    assert given(path, body) is None


def test_no_more_is_read_than_is_to_be() -> None:
    for body in (json.dumps(choice("x" * 900)).encode(), sse(*[chunk({"content": "x"})] * 20)):
        reading = CHECKABLE.reading(ROUTES.resolve(b"POST", CHAT.encode(), ""), 900)
        for at in range(0, len(body), 100):
            assert reading.full is (at > 900)
            reading.feed(body[at : at + 100])
        assert reading.given() is None


PIECES = st.sampled_from(
    [b'{"choices": [', b"data: ", b"\n\n", b"[", b"]", b"{}", b'"type":"response.completed"', b"\xff", b":"]
)


@settings(max_examples=150, deadline=None)
@drawn(st.sampled_from([CHAT, MESSAGES, RESPONSES, GEMINI, STREAMED]), st.lists(PIECES | st.binary(max_size=20)))
def test_whatever_comes_it_is_read_or_not_and_never_raises(path: str, pieces: list[bytes]) -> None:
    reading = CHECKABLE.reading(ROUTES.resolve(b"POST", path.encode(), ""), 100)
    for piece in pieces:
        reading.feed(piece)
    assert verdict(WANTED, reading.given()) in FAILURES | {"ok", "unread"}


@settings(max_examples=150, deadline=None)
@drawn(
    st.sampled_from([CHAT, MESSAGES, RESPONSES, GEMINI]),
    st.dictionaries(
        st.sampled_from([*FORM_NAMES, "output_format", "background"]),
        st.recursive(
            st.none() | st.booleans() | st.sampled_from(["any", "required", "json_schema", "function", 3]),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(
                    st.sampled_from(["type", "format", "schema", "function", "name", "mode"]), inner, max_size=3
                )
            ),
            max_leaves=6,
        ),
    ),
)
def test_whatever_is_demanded_it_is_a_form_or_none(path: str, body: dict[str, Any]) -> None:
    try:
        found = demanded(path, **body)
    except BadBody:  # its dialect takes no such body to begin with
        return
    assert found is None or found.json or found.call
