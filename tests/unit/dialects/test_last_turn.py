"""Where a request may be cut for a similarity to look, and what the model says in an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.call import Asked, Route
from gateway.dialects.registry import DIALECTS

ROUTE = Route("/", "x", "chat", "up", b"/")
CHAT, MESSAGES, RESPONSES, GEMINI = (
    DIALECTS[name] for name in ("openai_chat", "anthropic", "openai_responses", "gemini")
)


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


@pytest.mark.parametrize(
    ("dialect", "value", "text", "rest", "before"),
    [
        (CHAT, {"n": 1, "messages": [user("Hi")]}, "Hi", {"n": 1, "messages": [user("")]}, False),
        (
            CHAT,
            {"messages": [{"role": "system", "content": "Be."}, {"role": "assistant", "content": "So?"}, user("Hi")]},
            "Hi",
            {"messages": [{"role": "system", "content": "Be."}, {"role": "assistant", "content": "So?"}, user("")]},
            True,
        ),
        (
            MESSAGES,
            {"messages": [user([{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": {}}])]},
            "b",
            {"messages": [user([{"type": "text", "text": "a"}, {"type": "text", "text": "", "cache_control": {}}])]},
            False,
        ),
        (RESPONSES, {"store": False, "input": "Hi"}, "Hi", {"store": False, "input": ""}, False),
        (
            RESPONSES,
            {"store": False, "input": [user([{"type": "input_text", "text": "Hi"}], type="message")]},
            "Hi",
            {"store": False, "input": [user([{"type": "input_text", "text": ""}], type="message")]},
            False,
        ),
        (
            GEMINI,
            {"contents": [{"role": "model", "parts": []}, {"parts": [{"text": "Hi"}]}]},
            "Hi",
            {"contents": [{"role": "model", "parts": []}, {"parts": [{"text": ""}]}]},
            True,
        ),
        (GEMINI, {"contents": {"parts": {"text": "Hi"}}}, "Hi", {"contents": [{"parts": [{"text": ""}]}]}, False),
    ],
)
def test_a_request_is_cut_into_the_last_text_and_all_the_rest(
    dialect: Any, value: Any, text: str, rest: Any, before: bool
) -> None:
    whole = json.dumps(value)
    found = dialect.last_turn(ROUTE, value)
    assert (found.why, found.text, found.rest, found.before) == ("", text, rest, before)
    assert json.dumps(value) == whole, "the request itself is left alone"


@pytest.mark.parametrize(
    ("dialect", "value", "why"),
    [
        (CHAT, {}, "shape"),
        (CHAT, {"messages": []}, "shape"),
        (CHAT, {"messages": "Hi"}, "shape"),
        (CHAT, {"messages": ["Hi"]}, "shape"),
        (CHAT, {"messages": [user(None)]}, "shape"),
        (CHAT, {"messages": [user([])]}, "shape"),
        (CHAT, {"messages": [user("x"), {"role": "assistant", "content": "y"}]}, "turn"),
        (CHAT, {"messages": [{"role": "tool", "content": "y"}]}, "tools"),
        (CHAT, {"store": True, "messages": [user("x")]}, "stored"),
        (CHAT, {"messages": [user([{"type": "image_url"}, {"type": "text", "text": "x"}])]}, "media"),
        (CHAT, {"messages": [user([{"type": "text", "text": 1}])]}, "media"),
        (MESSAGES, {"messages": [user([{"type": "tool_result"}, {"type": "text", "text": "x"}])]}, "tools"),
        (MESSAGES, {"messages": [user([{"type": "document"}])]}, "media"),
        (RESPONSES, {"input": "x"}, "stored"),
        (RESPONSES, {"input": "x", "store": True}, "stored"),
        (RESPONSES, {"input": [{"type": "function_call_output"}], "store": False}, "tools"),
        (RESPONSES, {"input": [user([{"type": "input_image"}])], "store": False}, "media"),
        (GEMINI, {"contents": "x"}, "shape"),
        (GEMINI, {"contents": [{"role": "model", "parts": [{"text": "x"}]}]}, "turn"),
        (GEMINI, {"contents": [{"role": "function", "parts": [{"text": "x"}]}]}, "tools"),
        (GEMINI, {"contents": [{"parts": [{"functionResponse": {}}]}]}, "tools"),
        (GEMINI, {"contents": [{"parts": [{"inlineData": {}}, {"text": "x"}]}]}, "media"),
        (DIALECTS["openai_completions"], {"prompt": "x", "messages": [user("x")]}, "shape"),
        (DIALECTS["opaque"], {"messages": [user("x")]}, "shape"),
    ],
)
def test_what_is_not_plainly_a_text_of_the_user_has_no_cut(dialect: Any, value: Any, why: str) -> None:
    found = dialect.last_turn(ROUTE, value)
    assert (found.why, found.text, found.rest) == (why, "", {})


def chunks(*values: Any) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(value).encode() for value in values)


def piece(text: str) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": [{"text": text}]}}]}


@pytest.mark.parametrize(
    ("dialect", "body", "stream", "text"),
    [
        (CHAT, {"choices": [{"message": {"content": "Hi"}}]}, False, "Hi"),
        (CHAT, {"choices": [{"message": {"content": None}}]}, False, None),
        (CHAT, {"choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}}]}, False, None),
        (CHAT, {"error": {}}, False, None),
        (MESSAGES, {"content": [{"type": "thinking", "thinking": "?"}, {"type": "text", "text": "Hi"}]}, False, "Hi"),
        (
            RESPONSES,
            {
                "output": [
                    {"type": "reasoning"},
                    {"type": "message", "content": [{"type": "output_text", "text": "Hi"}]},
                ]
            },
            False,
            "Hi",
        ),
        (GEMINI, piece("Hi"), False, "Hi"),
        (GEMINI, [piece("H"), piece("i")], True, "Hi"),
        (GEMINI, chunks(piece("H"), piece("i")), True, "Hi"),
        (GEMINI, {"candidates": [{"content": {"parts": [{"text": "no", "thought": True}]}}]}, False, ""),
        (GEMINI, {"candidates": [{"index": 1, "content": {"parts": [{"text": "x"}]}}]}, False, None),
        (
            CHAT,
            chunks(
                {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "H"}}]},
                {"choices": [{"index": 0, "delta": {"content": "i"}}]},
                {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            ),
            True,
            "Hi",
        ),
        (CHAT, b"no stream", True, None),
        (DIALECTS["opaque"], {"choices": []}, False, None),
    ],
)
def test_what_the_model_says_is_read_in_either_shape(dialect: Any, body: Any, stream: bool, text: str | None) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert dialect.answer_text(ROUTE, Asked(), data, stream=stream) == text
