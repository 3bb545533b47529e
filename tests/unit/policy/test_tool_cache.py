"""Keys of outputs of tools: any difference in meaning is a difference in key, and none in spelling is."""

from __future__ import annotations

import copy
import itertools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.call import Asked, Call, Request, Route, Target, ToolUse, Trace, Who
from gateway.dialects.mcp_outputs import ASIDE, McpOutputs
from gateway.dialects.tool_outputs import ToolOutputs
from gateway.key import Key
from gateway.policy.cache_key import Basis, meaning, place_of
from gateway.policy.tool_cache import hint_key, key_of_output, lines_of, own_place
from gateway.ports import Spec
from gateway.testing.doubles import ask
from gateway.tool import Caching

PAID = Spec("mcp/s", "mcp", Target("mcp/s", "", "h", 443, True, b""), b"h", auth=((b"authorization", b"x"),))
FREE = Spec("mcp/s", "mcp", PAID.target, b"h")
ARGUMENTS: dict[str, Any] = {"path": "/x", "depth": 1, "only": ["a", {"b": None}]}
OUTPUTS = McpOutputs(Caching((("*", 10**9),)))
TOOL = ToolOutputs(Caching((("/**", 10**9),)), "/v1")


def key(
    message: Any = None,
    request: Request | None = None,
    spec: Spec = PAID,
    route: Route | None = None,
    outputs: Any = OUTPUTS,
    ignored: frozenset[bytes] = frozenset(),
    **more: Any,
) -> bytes:
    body = message if isinstance(message, bytes) else json.dumps(message or said()).encode()
    asked = Asked(calls=(ToolUse("1", "read"),), gated=True)
    place = route or Route("/mcp/{server}", "mcp", "execute_tool", "mcp/s", b"/mcp")
    call = Call("c", request or ask("/mcp", body), place, asked, more.pop("who", Who()), Trace(), 0, 0, **more)
    wanted = outputs.wanted(call, body)
    assert wanted.why == ""
    found = key_of_output(call, spec, Basis(b"1", own_place(spec, place_of(spec)), ignored), outputs, wanted)
    assert found is not None
    assert len(found) == 32
    return found


def said(arguments: Any = ARGUMENTS, **params: Any) -> dict[str, Any]:
    return {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "read", "arguments": arguments, **params},
    }


leaves = st.none() | st.booleans() | st.integers(-99, 99) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    leaves | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def normal(value: Any) -> str:
    """The meaning in the words of another library."""
    return json.dumps(value, sort_keys=True)


def shuffled(value: Any, draw: Any) -> Any:
    if isinstance(value, dict):
        return {name: shuffled(value[name], draw) for name in draw(st.permutations(list(value)))}
    return [shuffled(item, draw) for item in value] if isinstance(value, list) else value


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "path"]), values), st.data())
def test_order_white_space_escapes_ids_and_what_stands_aside_do_not_count(more: Any, data: st.DataObject) -> None:
    first = said({**ARGUMENTS, **more})
    other = shuffled(first, data.draw)
    other["id"] = data.draw(st.integers(0, 99) | st.text(max_size=3))
    other["params"]["_meta"] = data.draw(st.dictionaries(st.sampled_from(sorted(ASIDE)), st.text(max_size=3)))
    text = json.dumps(other, indent=data.draw(st.sampled_from([None, 2])), ensure_ascii=data.draw(st.booleans()))
    assert key(text.encode()) == key(first)


@settings(max_examples=200, deadline=None)
@given(values, st.data())
def test_any_change_of_any_argument_is_another_key(new: Any, data: st.DataObject) -> None:
    changed = copy.deepcopy(ARGUMENTS)
    path = data.draw(st.sampled_from([("path",), ("depth",), ("only",), ("only", 0), ("only", 1, "b"), ("more",)]))
    inner: Any = changed
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = new
    assert (key(said(changed)) == key()) == (normal(changed) == normal(ARGUMENTS))


def test_every_other_part_of_the_message_counts() -> None:
    messages = [
        said(),
        said({}),
        said(_meta={"k": 1}),
        said(_meta={"progressToken": {"k": 1}, "k": 2}),
        said(task={}),
        {**said(), "x": 1},
        {**said(), "params": {"name": "read"}},
        {**said(), "params": {"name": "Read", "arguments": ARGUMENTS}},
        said({**ARGUMENTS, "depth": 1.0}),
        said({**ARGUMENTS, "depth": "1"}),
    ]
    assert len({key(message) for message in messages}) == len(messages)


@pytest.mark.parametrize("text", [b'{"a":1,"a":1}', b'[{"a":1,"\\u0061":1}]', b'{"a":"\\u0022"}', b"{", b"", b'"\xff"'])
def test_what_has_no_sure_meaning_has_none(text: bytes) -> None:
    assert meaning(text) is None


def test_any_value_has_a_meaning() -> None:
    texts = [b"[1,2]", b"[2,1]", b"1", b"1.0", b'"1"', b"null", b'{"a":[]}', b"[]", b'"a\\"b"']
    assert len({meaning(text) for text in texts} - {None}) == len(texts)


def test_nobody_shares_with_another_tenant_user_or_team_by_any_route() -> None:
    keys = set()
    whos = [Who(tenant=tenant, end_user=user) for tenant, user in itertools.product(("a", "b", "ab"), ("", "u", "b"))]
    owners = [None, Key("k1"), Key("k2"), Key("k3", team="a"), Key("k4", team="b")]
    routes = [
        Route("/mcp/{server}", "mcp", "execute_tool", "mcp/s", b"/mcp"),
        Route("/mcp/{server}", "mcp", "execute_tool", "mcp/t", b"/mcp"),
        Route("/mcp/{server}", "mcp", "execute_tool", "mcp/s", b"/mcp?x"),
    ]
    for who, owner, route in itertools.product(whos, owners, routes):
        keys.add(key(who=who, key=owner, route=route))
    assert len(keys) == len(whos) * len(owners) * len(routes)
    assert key(key=Key("k3", team="a")) == key(key=Key("k5", team="a"))


def test_what_a_client_brings_counts_where_it_is_sent_on() -> None:
    secrets = [((b"Authorization", b"Bearer a"),), ((b"Authorization", b"Bearer b"),), ((b"X-Api-Key", b"a"),), ()]
    requests = [ask("/mcp", b"x", *headers) for headers in secrets]
    assert len({key(request=request, spec=FREE) for request in requests}) == len(requests)
    assert len({key(request=request) for request in requests}) == 1


def test_the_key_url_and_headers_of_the_operator_count() -> None:
    target = PAID.target
    specs = [
        PAID,
        FREE,
        Spec("mcp/s", "mcp", target, b"h", auth=((b"authorization", b"y"),)),
        Spec("mcp/s", "mcp", target, b"h", auth=PAID.auth, headers=((b"x-space", b"1"),)),
        Spec("mcp/s", "mcp", Target("mcp/s", "", "h2", 443, True, b""), b"h2", auth=PAID.auth),
    ]
    assert len({key(spec=spec) for spec in specs}) == len(specs)


def test_sessions_count_and_headers_that_only_repeat_the_body_do_not() -> None:
    def headed(*headers: tuple[bytes, bytes]) -> bytes:
        return key(request=ask("/mcp", b"x", *headers))

    plain = headed()
    assert headed((b"Mcp-Name", b"read"), (b"Mcp-Method", b"tools/call"), (b"Accept", b"*/*")) == plain
    assert headed((b"MCP-Protocol-Version", b"2025-06-18")) != plain
    assert headed((b"Mcp-Session-Id", b"a")) != headed((b"Mcp-Session-Id", b"b")) != plain
    shared = McpOutputs(Caching((("*", 10**9),), shared=True))
    assert key(request=ask("/mcp", b"x", (b"Mcp-Session-Id", b"a")), outputs=shared) == key(outputs=shared)


def test_headers_of_a_tool_count_unless_the_operator_says_that_they_change_nothing() -> None:
    route = Route("/tools/{tool}", "tool", "execute_tool", "tools/t", b"/v1/x")
    headers = [(), ((b"Accept", b"a/b"),), ((b"Content-Type", b"a/b"),), ((b"X-Page", b"2"),), ((b"Origin", b"o"),)]
    requests = [ask("/v1/x", b"b", *more) for more in headers]
    assert len({key(b"b", request, route=route, outputs=TOOL) for request in requests}) == len(requests)
    more = {"route": route, "outputs": TOOL, "ignored": frozenset((b"x-page",))}
    assert key(b"b", requests[3], **more) == key(b"b", requests[0], **more)


def test_what_was_said_of_a_tool_is_of_that_server_session_and_tool() -> None:
    parts = [
        ("a", b"p", "", "t"),
        ("b", b"p", "", "t"),
        ("a", b"q", "", "t"),
        ("a", b"p", "s", "t"),
        ("a", b"p", "", "u"),
    ]
    assert len({hint_key(*one) for one in parts}) == len(parts)


def test_lines_that_are_kept_are_those_that_belong_to_the_output() -> None:
    headers = (
        (b"Content-Type", b"x"), (b"Link", b"a"), (b"link", b"b"), (b"Set-Cookie", b"c"), (b"Connection", b"X-Hop"),
        (b"X-Hop", b"1"), (b"Transfer-Encoding", b"chunked"), (b"X-RateLimit-Reset", b"1"),
        (b"x-tollgate-cache", b"exact"), (b"ETag", b'"1"'),
    )  # fmt: skip
    assert lines_of(headers) == b'Link: a\r\nlink: b\r\nETag: "1"\r\n'
