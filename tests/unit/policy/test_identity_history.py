"""The history of a request: turns from the end, one digest however it was reached, marks left out."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Asked, ToolResult
from gateway.dialects.identity_text import digest_text
from gateway.dialects.items import read_item
from gateway.policy.identity_history import READ_LIMIT, History, same_first, same_prompt, unmarked

_items = msgspec.json.Decoder(list[msgspec.Raw])


def history(*messages: dict[str, Any], system: bytes = b"") -> History:
    return History("openai_chat", Asked(messages=_items.decode(json.dumps(messages)), system=system), read_item)


def m(role: str, text: str = "", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": text, **more}


def calling(*ids: str) -> dict[str, Any]:
    return m("assistant", tool_calls=[{"id": one, "function": {"name": "f"}} for one in ids])


def test_the_last_turn_and_what_came_behind_it() -> None:
    found = history(
        m("user", "a"), calling("1"), m("tool", tool_call_id="1"), calling("2", "3"), m("assistant", "text"),
        m("tool", tool_call_id="2"), m("tool", tool_call_id="3"), m("user", "b"),
    )  # fmt: skip
    assert found.last is not None
    assert (found.last.start, found.last.end, found.last.ids) == (3, 5, ["2", "3"])
    assert found.last.text() == digest_text("text")
    assert found.results == [ToolResult("2"), ToolResult("3")]
    before = found.earlier(found.last)
    assert before is not None
    assert (before.start, before.ids) == (1, ["1"])
    assert found.earlier(before) is None


def test_a_first_request_has_no_turn() -> None:
    assert history(m("system", "s"), m("user", "a")).last is None
    assert history(m("user", "a"), m("user", "b")).last is None
    assert history().last is None


def test_the_search_for_a_turn_is_bounded() -> None:
    many = [m("user", str(n)) for n in range(READ_LIMIT)]
    assert history(m("assistant", "x"), *many).last is None
    assert history(m("assistant", "x"), *many[1:]).last is not None


def test_system_messages_are_the_prompt_and_no_history() -> None:
    one = history(m("system", "now 10:01"), m("developer", "d"), m("user", "a"))
    two = history(m("system", "now 10:02"), m("developer", "d"), m("user", "a"))
    assert one.trail(3) == two.trail(3)
    assert b"10:01" in one.prompt
    assert not same_prompt(one.shape, two.shape)
    assert same_first(one.shape, two.shape)
    assert not same_first(one.shape, history(m("user", "b")).shape)
    assert history(m("system", "s"), system=b'"given"').prompt == b'"given"'


@given(st.lists(st.integers(0, 80), min_size=1, max_size=6))
def test_a_digest_is_the_same_whatever_was_asked_before(ends: list[int]) -> None:
    messages = [m("user", str(n)) for n in range(80)]
    found = history(*messages)
    for end in ends:
        assert found.trail(end) == history(*messages).trail(end)
        assert end == 80 or found.trail(end) == history(*messages[:end], m("user", "else")).trail(end)


def test_a_digest_knows_every_message_and_its_bounds() -> None:
    digests = {
        history(*messages).trail(len(messages))
        for messages in (
            (m("user", "a"), m("user", "b")),
            (m("user", "b"), m("user", "a")),
            (m("user", "ab"),),
            (m("user", "a"),),
            (m("assistant", "a"), m("user", "b")),
        )
    }
    assert len(digests) == 5


MARKED = [
    b'[{"a":1,"cache_control":{"type":"ephemeral"}}]',
    b'[{"a":1, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]',
    b'[{"cache_control":{"type":"ephemeral"},"a":1}]',
    b'[{"cache_control" : null , "a":1}]',
    b'[{"a":1}]',
]


@pytest.mark.parametrize("text", MARKED)
def test_marks_are_taken_out(text: bytes) -> None:
    assert re.sub(rb"\s", b"", unmarked(text)) == b'[{"a":1}]'


def test_what_only_looks_like_a_mark_stays() -> None:
    for text in (
        b'{"t":"\\"cache_control\\":{}"}',
        b'{"t":"cache_control"}',
        b'["cache_control"]',
        b'{"cache_control":5}',
    ):
        assert unmarked(text) == text


blocks = st.lists(
    st.fixed_dictionaries(
        {"type": st.just("text"), "text": st.text(max_size=20)},
        optional={"cache_control": st.just({"type": "ephemeral"})},
    ),
    max_size=5,
)


@given(blocks, st.booleans())
def test_a_history_is_the_same_with_marks_and_without(content: list[dict[str, Any]], spaced: bool) -> None:
    separators = (", ", ": ") if spaced else (",", ":")
    bare = [{key: value for key, value in block.items() if key != "cache_control"} for block in content]
    marked, plain = (json.dumps(value, separators=separators).encode() for value in (content, bare))
    assert unmarked(marked) == plain
