"""Which tool a message asks for, whatever it is dressed up as (GHSA-4gph-2hhr-5mwg)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import ToolUse
from gateway.dialects.mcp_messages import check_headers, identity, read
from gateway.errors import BadBody, GatewayError, Rejected


def call(name: str = "add", id: Any = 1, **more: Any) -> dict[str, Any]:
    message = {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": name, "arguments": {}}}
    return {**message, **more}


def code(body: bytes | str) -> str:
    with pytest.raises(BadBody) as caught:
        read(body.encode() if isinstance(body, str) else body)
    return caught.value.code


def test_a_tool_call_is_known_by_its_name_and_id() -> None:
    asked = read(json.dumps(call("läsen", "a-1")).encode())
    assert asked.calls == (ToolUse('"a-1"', "läsen"),)
    assert (asked.ids, asked.batch, asked.aside, asked.gated, asked.method) == (
        ('"a-1"',), False, False, True, "tools/call",
    )  # fmt: skip


def test_escapes_are_read_for_what_they_mean() -> None:
    body = rb'{"jsonrpc":"2.0","id":1,"m\u0065thod":"tools\/c\u0061ll","params":{"n\u0061me":"\u0061dd"}}'
    assert read(body).calls == (ToolUse("1", "add"),)


def test_a_batch_has_all_its_calls() -> None:
    other = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
    quiet = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
    asked = read(json.dumps([call("a", 1), other, quiet, call("b", "1")]).encode())
    assert [use.name for use in asked.calls] == ["a", "b"]
    assert asked.ids == ("1", "2", '"1"')
    assert asked.batch


@pytest.mark.parametrize(
    "message",
    [
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 4, "result": {"name": "x"}},
        {"jsonrpc": "2.0", "id": 4, "error": {"code": 1, "message": "m"}},
    ],
)
def test_what_asks_for_nothing_only_keeps_the_session_going(message: Any) -> None:
    asked = read(json.dumps(message).encode())
    assert (asked.aside, asked.calls, asked.ids) == (True, (), ())


def test_a_call_without_an_id_is_a_call() -> None:
    message = call()
    del message["id"]
    asked = read(json.dumps(message).encode())
    assert asked.calls == (ToolUse("", "add"),)
    assert not asked.aside


def test_trace_context_is_read_from_meta() -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    message = call(params={"name": "add", "_meta": {"traceparent": parent}})
    assert read(json.dumps(message).encode()).trace == parent.encode()
    assert read(json.dumps(call(params={"name": "add", "_meta": 3})).encode()).trace == b""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"id":1,"method":"ping","method":"tools/call","params":{"name":"x"}}', "duplicate_key"),
        ('{"id":1,"method":"tools/call","params":{"name":"add"},"params":{"name":"rm"}}', "duplicate_key"),
        ('{"id":1,"method":"tools/call","params":{"name":"add","name":"rm"}}', "duplicate_key"),
        ('{"id":1,"method":"tools/call","params":{"name":"add","n\\u0061me":"rm"}}', "duplicate_key"),
        ('{"id":1,"method":"tools/call","params":{"name":"add","Name":"rm"}}', "duplicate_key"),
        ('{"id":1,"method":"tools/call","params":{"name":"add","NAME":"rm"}}', "duplicate_key"),
        ('{"id":1,"method":"tools/call","params":{"Name":"rm"}}', "ambiguous_key"),
        ('{"id":1,"method":"tools/call","params":{"name ":"rm","name":"add"}}', "ambiguous_key"),
        ('{"id":1,"method":"tools/call","paramſ":{"name":"rm"}}', "ambiguous_key"),
        ('{"id":1,"method":"tools/call","params":{"name":"add"},"paramſ":{"name":"rm"}}', "ambiguous_key"),
        ('{"id":1,"Method":"tools/call","params":{"name":"rm"}}', "ambiguous_key"),
        ('{"id":1,"METHOD":"tools/call","method":"ping"}', "duplicate_key"),
        ('{"id":1,"ID":2,"method":"ping"}', "duplicate_key"),
        ('{"id":1,"method":"tools/call","Params":{"name":"rm"}}', "ambiguous_key"),
        ('{"id":1,"method":"Tools/Call","params":{"name":"rm"}}', "invalid_method"),
        ('{"id":1,"method":" tools/call","params":{"name":"rm"}}', "invalid_method"),
        ('{"id":1,"method":"toolſ/call","params":{"name":"rm"}}', "invalid_method"),
        ('{"id":1,"method":["tools/call"],"params":{"name":"rm"}}', "invalid_method"),
        ('{"id":1,"method":null,"params":{"name":"rm"}}', "invalid_method"),
        ('{"id":1,"method":"tools/call"}', "invalid_tool"),
        ('{"id":1,"method":"tools/call","params":{}}', "invalid_tool"),
        ('{"id":1,"method":"tools/call","params":{"name":""}}', "invalid_tool"),
        ('{"id":1,"method":"tools/call","params":{"name":["add"]}}', "invalid_name"),
        ('{"id":1,"method":"tools/call","params":{"name":null}}', "invalid_name"),
        ('{"id":1,"method":"tools/call","params":["add"]}', "not_an_object"),
        ('{"id":1,"method":"tools/call","params":"add"}', "not_an_object"),
        (json.dumps(call("x" * 257)), "invalid_tool"),
        (json.dumps(call("rm\0")), "invalid_tool"),
        (json.dumps(call("r\u200bm")), "invalid_tool"),
        (json.dumps([call("a", 1), call("b", 1)]), "duplicate_id"),
        ("[]", "invalid_batch"),
        (json.dumps([call("a", number) for number in range(101)]), "invalid_batch"),
        ("[1]", "not_an_object"),
        ("[[]]", "not_an_object"),
        ('[{"id":1,"method":"ping","Method":"tools/call"}]', "duplicate_key"),
        ("", "invalid_json"),
        ("{", "invalid_json"),
        ('{"id":1,"method":"ping"} {"id":2}', "invalid_json"),
        ('"tools/call"', "not_an_object"),
        (b'{"id":1,"method":"\xff"}', "invalid_utf8"),
        ('{"a":' * 200 + "1" + "}" * 200, "json_too_deep"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(body: bytes | str, said: str) -> None:
    assert code(body) == said


@pytest.mark.parametrize(
    ("headers", "ok"),
    [
        ([(b"Mcp-Method", b"tools/call"), (b"Mcp-Name", b"add")], True),
        ([(b"mcp-name", b"=?base64?YWRk?=")], True),
        ([], True),
        ([(b"Mcp-Name", b"rm")], False),
        ([(b"Mcp-Name", b"Add")], False),
        ([(b"mcp_name", b"rm")], False),
        ([(b"Mcp-Method", b"ping")], False),
        ([(b"Mcp-Name", b"add"), (b"mcp-name", b"add")], False),
        ([(b"Mcp-Name", b"=?base64?###?=")], False),
        ([(b"Mcp-Name", b"=?base64?/w==?=")], False),
    ],
)
def test_headers_must_say_what_the_body_does(headers: list[tuple[bytes, bytes]], ok: bool) -> None:
    asked = read(json.dumps(call()).encode())
    if ok:
        check_headers(asked, headers)
        return
    with pytest.raises(Rejected) as caught:
        check_headers(asked, headers)
    assert caught.value.code == "header_mismatch"


def test_ids_are_the_same_however_they_are_written() -> None:
    assert identity(b'"a"') == identity(b'"\\u0061"')
    assert len({identity(text) for text in (b"1", b'"1"', b"2")}) == 3
    assert [identity(text) for text in (b"null", b"true", b"1.5", b"[1]", b"{}", b"")] == [""] * 6


KEYS = st.sampled_from(["id", "method", "params", "jsonrpc", "Method", "Name", "name", "x", "paramſ", "ID"])
VALUES = st.sampled_from(
    ['"tools/call"', '"ping"', "1", "null", '{"name":"rm"}', '{"name":"add"}', '{"Name":"rm","name":"add"}', "[]"]
)


@given(st.lists(st.tuples(KEYS, VALUES), max_size=6))
def test_no_lenient_reader_finds_another_tool(pairs: list[tuple[str, str]]) -> None:
    """Whatever passes means the same to a parser that takes the first key, the last one, or minds no letter case."""
    body = "{" + ",".join(f"{json.dumps(key)}:{value}" for key, value in pairs) + "}"
    try:
        asked = read(body.encode())
    except GatewayError:
        return
    expected = [use.name for use in asked.calls]

    def fold(found: list[tuple[str, Any]], *, first: bool, case: bool) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in found:
            key = key if case else key.casefold()
            if not (first and key in made):
                made[key] = value
        return made

    for first in (True, False):
        for case in (True, False):
            message = json.loads(body, object_pairs_hook=lambda f, a=first, b=case: fold(f, first=a, case=b))
            params = message.get("params")
            runs = message.get("method") == "tools/call" and isinstance(params, dict)
            assert ([params.get("name")] if runs and params.get("name") else []) == expected
