"""Which tools a caller may call and see."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.key import Key
from gateway.policy.tool_rules import refused, sight
from gateway.tool import Terms

RULES = Terms("s", allow=("read_*", "add"), deny=("read_secret*",))


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("add", True), ("read_file", True), ("Add", False), ("rm", False), ("read_secrets", False),
     ("READ_SECRETS", False), ("read_Secret", False), ("read_", True), ("", False),
     ("read_secrets ", False), ("\u00a0read_secrets", False), ("ｒead_ｓecrets", False), ("read_\ufb01le", True)],
)  # fmt: skip
def test_the_operators_word(name: str, allowed: bool) -> None:
    assert (refused(RULES, None, "mcp/s", name) == "") is allowed


def test_both_words_must_allow_it() -> None:
    key = Key(id="k", tools=("add", "rm", "s/read_*"))
    assert [name for name in ("add", "rm", "read_a", "read_secret") if not refused(RULES, key, "mcp/s", name)] == [
        *("add", "read_a"),
    ]
    assert "key" in refused(Terms("s"), key, "mcp/s", "other")


def test_a_tool_of_http_has_no_server_beside_its_name() -> None:
    assert refused(Terms("s"), Key(id="k", tools=("s/s",)), "tools/s", "s")
    assert not refused(Terms("s"), Key(id="k", tools=("s",)), "tools/s", "s")


def test_who_may_see_everything_needs_no_look() -> None:
    assert sight(Terms("s"), None, "mcp/s") is None
    assert sight(Terms("s"), Key(id="k"), "mcp/s") is None
    assert sight(RULES, None, "tools/s") is None
    assert sight(Terms("s"), Key(id="k", tools=("a",)), "mcp/s") is not None
    assert sight(Terms("s", deny=("x",)), None, "mcp/s") is not None


@given(st.text(max_size=8), st.lists(st.text("ab*/s", max_size=4), max_size=3))
def test_what_is_seen_is_what_may_be_called(name: str, tools: list[str]) -> None:
    key = Key(id="k", tools=tuple(tools))
    shown = sight(RULES, key, "mcp/s")
    assert (shown is None or shown(name)) == (not refused(RULES, key, "mcp/s", name))
