"""Breakpoints where the client set none: by splices, at most four, and nothing else of the body changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Edit, Request, Route
from gateway.dialects.cache_marks import MOST
from gateway.dialects.registry import DIALECTS
from gateway.policy.splices import merged
from gateway.stages.attempt import spliced

ROUTE = Route("/v1/messages", "anthropic", "chat", "anthropic", b"/v1/messages")
MARK = {"type": "ephemeral"}
ANTHROPIC = DIALECTS["anthropic"]


def edits(raw: bytes, sent: bytes | None = None) -> tuple[Edit, ...]:
    asked = ANTHROPIC.read(ROUTE, Request(b"POST", b"/v1/messages", [], raw))
    return ANTHROPIC.mark_prefix(ROUTE, asked, raw if sent is None else sent)


def marked(body: Any, **how: Any) -> Any:
    raw = json.dumps(body, **how).encode()
    return json.loads(spliced(raw, edits(raw)))


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def answer(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


TOOLS = [{"name": "a", "input_schema": {}}, {"name": "b", "input_schema": {"type": "object"}}]
LONE = {"type": "text", "text": "hi"}


def places(body: Any) -> list[str]:
    """Where the marks stand, in the order of caching."""
    found = [f"tools.{n}" for n, tool in enumerate(body.get("tools", [])) if "cache_control" in tool]
    system = body.get("system", [])
    found += [f"system.{n}" for n, b in enumerate(system) if isinstance(b, dict) and "cache_control" in b]
    for n, message in enumerate(body["messages"]):
        blocks = message["content"]
        found += [f"{n}.{k}" for k, b in enumerate(blocks) if isinstance(b, dict) and "cache_control" in b]
    return found


def unmarked(value: Any) -> Any:
    """Without marks, and a lone block of text as its string."""
    if isinstance(value, dict):
        return {key: unmarked(item) for key, item in value.items() if key != "cache_control"}
    if isinstance(value, list):
        items = [unmarked(item) for item in value]
        lone = len(items) == 1 and isinstance(items[0], dict) and items[0].keys() == {"type", "text"}
        return items[0]["text"] if lone else items
    return value


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"messages": [user("hi")]}, []),  # a lone question would pay for writing it in vain
        ({"system": "be brief", "messages": [user("hi")]}, ["system.0"]),
        ({"tools": TOOLS, "messages": [user("hi")]}, ["tools.1", "0.0"]),
        (
            {"tools": TOOLS, "system": [LONE, LONE], "messages": [user("hi"), answer("ho"), user([LONE, LONE])]},
            ["tools.1", "system.1", "0.0", "2.1"],
        ),
        ({"messages": [user("a"), answer("b"), user("c"), answer("d"), answer("e"), user("f")]}, ["2.0", "5.0"]),
        ({"messages": [user("a"), answer("b"), user("c"), user("d")]}, ["0.0", "3.0"]),
        ({"messages": [user("a"), answer([{"type": "thinking", "thinking": "x"}])]}, ["0.0"]),
        ({"tools": [{"name": "a", "defer_loading": True}], "messages": [user("hi")]}, ["0.0"]),
        ({"tools": [{}], "messages": [user("")]}, ["tools.0"]),
        ({"system": " ", "messages": [user([]), answer("x"), user([{"type": "text", "text": ""}])]}, []),
        ({"messages": [user("a"), answer("b"), user([{"type": "tool_result", "tool_use_id": "t"}])]}, ["0.0", "2.0"]),
    ],
)
@pytest.mark.parametrize("how", [{}, {"separators": (",", ":")}, {"indent": 2}], ids=["spaced", "compact", "indented"])
def test_what_is_stable_is_marked(body, where, how):
    made = marked({"model": "m", "max_tokens": 9, **body}, **how)
    assert places(made) == where
    assert unmarked(made) == unmarked({"model": "m", "max_tokens": 9, **body})


@pytest.mark.parametrize(
    "place",
    [
        {"tools": [{"name": "a", "cache_control": MARK}]},
        {"system": [{**LONE, "cache_control": None}]},
        {"messages": [user([{**LONE, "cache_control": MARK}]), answer("x"), user("y")]},
        {"cache_control": MARK},
    ],
)
def test_never_where_the_client_set_one(place):
    raw = json.dumps({"model": "m", "messages": [user("a"), answer("b"), user("c")], **place}).encode()
    assert edits(raw) == ()
    for odd in (rb"cache\u005fcontrol", rb"c\u0061che\u005Fcontro\u006C", rb"\u0063ache_control"):
        assert edits(raw.replace(b"cache_control", odd)) == (), odd


def test_text_about_marks_is_no_mark():
    body = {"model": "m", "messages": [user('say "cache_control"'), answer("x"), user("y")]}
    assert places(marked(body)) == ["0.0", "2.0"]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b'{"messages":"hi"}',
        b'{"messages":[]}',
        b'{"messages":[1,null,"x"]}',
        b'{"messages":[[]],"tools":{}}',
        b'{"messages":[{"role":"user","content":"a","content":"b"},{"role":"user"}]}',
        b'{"tools":[1],"messages":[{}, {}]}',
        b'{"messages":[{"role":"user","content":{}},7],"system":5}',
    ],
)
def test_odd_bodies_stay_as_they_are(raw):
    assert edits(raw) == ()


def test_a_body_that_was_not_read_as_it_stands_stays_as_it_is():
    raw = json.dumps({"tools": TOOLS, "messages": [user("hi")]}).encode()
    assert edits(raw, sent=b"\x1f\x8b compressed " * 40) == ()


def test_other_apis_and_paths_have_no_marks():
    raw = json.dumps({"model": "m", "tools": TOOLS, "messages": [user("hi")]}).encode()
    request = Request(b"POST", b"/", [], raw)
    for name, dialect in DIALECTS.items():
        path = Route("/v1/chat/completions", name, "chat", "up", b"/v1/chat/completions")
        if not dialect.caches_marked:
            assert dialect.mark_prefix(path, dialect.read(path, request), raw) == ()
    counting = Route("/v1/messages/count_tokens", "anthropic", "", "up", b"/v1/messages/count_tokens")
    assert ANTHROPIC.mark_prefix(counting, ANTHROPIC.read(counting, request), raw) == ()


kinds = st.sampled_from(["text", "thinking", "tool_use", "odd"])
blocks = st.fixed_dictionaries({"type": kinds, "text": st.text(max_size=4)})
contents = st.one_of(st.text(max_size=8), st.lists(blocks, max_size=4))
bodies = st.fixed_dictionaries(
    {
        "model": st.just("m"),
        "messages": st.lists(
            st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": contents}), max_size=9
        ),
    },
    optional={
        "system": contents,
        "tools": st.lists(st.dictionaries(st.sampled_from(["name", "x"]), st.text(max_size=4)), max_size=3),
        "max_tokens": st.integers(1, 9),
    },
)


@given(bodies, st.sampled_from([None, 1]), st.booleans())
def test_nothing_but_marks_is_added(body, indent, unicode):
    raw = json.dumps(body, indent=indent, ensure_ascii=unicode).encode("utf-8", "surrogatepass")
    if b"\\ud" in raw or b"\xed" in raw:
        return  # lone surrogates are refused
    made = edits(raw)
    assert all(edit.start == edit.end for edit in made)
    assert merged([*made, Edit(0, 0, b"")])  # fits beside other edits
    result = json.loads(spliced(raw, made))
    assert unmarked(result) == unmarked(body)
    assert len(places(result)) <= MOST
    assert b"".join([raw[:0], *[e.text for e in made]]).count(b"cache_control") == len(places(result))
