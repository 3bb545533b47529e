"""Messages of every dialect as items: roles, tools, text, and bytes that stay the same across turns."""

from __future__ import annotations

import json

import pytest

from gateway.call import ToolResult
from gateway.dialects.identity_text import LIMIT, digest_text
from gateway.dialects.items import read_item


def item(dialect, value):
    return read_item(dialect, value if isinstance(value, bytes) else json.dumps(value).encode())


CHAT, RESPONSES, CLAUDE, GEMINI = "openai_chat", "openai_responses", "anthropic", "gemini"


@pytest.mark.parametrize(
    ("dialect", "value", "role", "uses", "results", "text"),
    [
        (CHAT, {"role": "user", "content": "hi"}, "user", (), (), "hi"),
        (CHAT, {"role": "system", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
         "system", (), (), "ab"),
        (CHAT, {"role": "assistant", "content": None, "tool_calls": [{"id": "t1", "function": {"name": "f"}}]},
         "assistant", ("t1",), (), ""),
        (CHAT, {"role": "tool", "tool_call_id": "t1", "content": "42"}, "tool", (), (ToolResult("t1"),), ""),
        (RESPONSES, "hi", "user", (), (), "hi"),
        (RESPONSES, {"role": "user", "content": "hi"}, "user", (), (), "hi"),
        (RESPONSES, {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]},
         "assistant", (), (), "x"),
        (RESPONSES, {"type": "function_call", "call_id": "c1", "id": "i", "name": "f"}, "assistant", ("c1",), (), ""),
        (RESPONSES, {"type": "custom_tool_call", "call_id": "c1"}, "assistant", ("c1",), (), ""),
        (RESPONSES, {"type": "web_search_call", "id": "w"}, "assistant", (), (), ""),
        (RESPONSES, {"type": "reasoning", "summary": []}, "assistant", (), (), ""),
        (RESPONSES, {"type": "function_call_output", "call_id": "c1", "output": "3"}, "tool", (),
         (ToolResult("c1"),), ""),
        (CLAUDE, {"role": "user", "content": "hi"}, "user", (), (), "hi"),
        (CLAUDE, {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "x"}, {"type": "text", "text": "a"},
            {"type": "tool_use", "id": "t1", "name": "f", "input": {}}]}, "assistant", ("t1",), (), "a"),
        (CLAUDE, {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t1", "is_error": True, "content": [{"type": "text", "text": "n"}]},
            {"type": "tool_result", "tool_use_id": "t2", "content": "ok"},
            {"type": "text", "text": "go on"}]},
         "user", (), (ToolResult("t1", True), ToolResult("t2")), "go on"),
        (GEMINI, {"role": "model", "parts": [{"text": "a"}, {"text": "hm", "thought": True},
                                             {"functionCall": {"name": "f", "args": {}}}]},
         "assistant", (), (), "a"),
        (GEMINI, {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {}}}]},
         "tool", (), (ToolResult("", False, "f"),), ""),
        (GEMINI, {"role": "model", "parts": [{"functionCall": {"id": "c1", "name": "f"}}]},
         "assistant", ("c1",), (), ""),
        (GEMINI, {"parts": [{"text": "hi"}]}, "user", (), (), "hi"),
    ],
)  # fmt: skip
def test_items(dialect, value, role, uses, results, text):
    found = item(dialect, value)
    assert (found.role, found.tool_use_ids, found.tool_results) == (role, uses, results)
    assert found.text_digest == (digest_text(text) if text else b"")


@pytest.mark.parametrize("dialect", [CHAT, RESPONSES, CLAUDE, GEMINI, "unknown"])
@pytest.mark.parametrize("raw", [b"3", b"null", b"[]", b"{}", b'{"role":5}', b"{", b"", b'"\xff"', b"[" * 5000])
def test_what_is_no_message_is_an_empty_item(dialect, raw):
    found = item(dialect, raw)
    assert found.tool_use_ids == ()
    assert found.text_digest == b""
    assert len(found.canonical) == 16


def test_fields_of_odd_types_do_not_hide_the_others():
    found = item(CHAT, {"role": "assistant", "content": 7, "tool_calls": [{"id": "t1"}]})
    assert (found.role, found.tool_use_ids) == ("assistant", ("t1",))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"role":"user","content":"hi"}', b'{ "content" : "hi", "role":"user" }'),
        (b'{"role":"user","content":"hi"}', b'{"role":"user","content":"hi","name":null}'),
        (
            b'{"role":"user","content":"hi"}',
            b'{"role":"user","content":[{"type":"text","text":"hi","cache_control":{"type":"ephemeral"}}]}',
        ),
        (
            b'{"role":"user","content":[{"type":"tool_result","tool_use_id":"t"},{"type":"text","text":"a"}]}',
            b'{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","cache_control":{"type":"ephemeral",'
            b'"ttl":"1h"}},{"text":"a","type":"text"}]}',
        ),
    ],
)
def test_canonical_bytes_agree(one, other):
    assert item(CLAUDE, one).canonical == item(CLAUDE, other).canonical


@pytest.mark.parametrize(
    "other",
    [
        b'{"role":"assistant","content":"hi"}',
        b'{"role":"user","content":"hi "}',
        b'{"role":"user","content":[{"type":"text","text":"hi"},{"type":"text","text":""}]}',
        b'{"role":"user","content":"hi","cache":1}',
    ],
)
def test_canonical_bytes_differ(other):
    assert item(CLAUDE, b'{"role":"user","content":"hi"}').canonical != item(CLAUDE, other).canonical


def test_digest_ignores_white_space():
    assert digest_text(" a\n\nb  c\t") == digest_text("a b c")
    assert digest_text("a b") != digest_text("ab")
    assert len(digest_text("x")) == 16
    assert digest_text(" \n") == digest_text("") == b""
    assert digest_text("\ud800") != b""


def test_digest_of_long_text_is_that_of_its_beginning():
    assert digest_text("x" * LIMIT + "tail") == digest_text("  " + "x" * LIMIT)
