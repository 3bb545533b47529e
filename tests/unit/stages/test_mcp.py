"""An MCP server behind the gate, through the whole pipeline on doubles."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.call import Call
from gateway.config.schema import Limits, Rates, Runs
from gateway.dialects.tool_paths import MCP_METHODS, Door
from gateway.errors import UpstreamReset
from gateway.journal.convert import outcome_of
from gateway.key import Key
from gateway.pipeline import serve
from gateway.policy.controls import Scope, Standing
from gateway.testing.doubles import World, ask, drive
from gateway.testing.memory_budgets import limit
from gateway.tool import Price, Terms

JSON = ((b"Content-Type", b"application/json"),)
SSE = ((b"Content-Type", b"text/event-stream"),)
PRICE = Price(2 * 10**9)
RESULT = b'{"jsonrpc":"2.0","id":1,"result":{"content":[]}}'
LIST = b'{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"add"}, {"name":"rm"}]}}'


class OneKey:
    """`ports.Keys`: whoever comes has this one."""

    required = True

    def __init__(self, key: Key) -> None:
        self.key = key

    def find(self, presented: bytes) -> Key | None:
        return self.key


def having(key: Key | None = None, **terms: Any) -> World:
    world = World()
    world.tool(Terms("s", PRICE, **terms), Door("/mcp", MCP_METHODS), mcp=True)
    if key is not None:
        world.settings["keys"] = OneKey(key)
    return world


def message(method: str = "tools/call", id: Any = 1, **params: Any) -> dict[str, Any]:
    found = {"jsonrpc": "2.0", "id": id, "method": method, "params": params or {"name": "add"}}
    return {key: value for key, value in found.items() if key != "id" or value is not None}


def sent(
    world: World, body: Any = None, *headers: tuple[bytes, bytes], method: bytes = b"POST", path: str = "/mcp/s"
) -> Call:
    world.down.sent = b""
    data = body if isinstance(body, bytes) else json.dumps(body if body is not None else message()).encode()
    pairs = ((b"authorization", b"Bearer tg-k1-secret"), *headers) if "keys" in world.settings else headers
    drive(serve(ask(path, data, *pairs, method=method), world.down, world.gateway()))
    return world.journal.records[-1]


def refusal(world: World) -> tuple[Any, int, str]:
    found = json.loads(world.down.sent)
    return found["id"], found["error"]["code"], found["error"]["data"]["code"]


def test_a_call_passes_byte_for_byte_and_is_paid_for() -> None:
    world = having()
    body = b'{ "jsonrpc": "2.0","id":1, "x":[1 ],"method":"tools/call","params":{"name":"add","_meta":{"trace":"?"}}}'
    answer = b'{"jsonrpc":"2.0" ,"id":1,"result":{"content":[ ],"isError":true}}'
    world.answer(200, (*JSON, (b"Mcp-Session-Id", b"s-1")), [answer[:20], answer[20:]])
    made = sent(world, body, (b"Mcp-Session-Id", b"s-0"), (b"MCP-Protocol-Version", b"2025-06-18"))
    head, _, received = world.upstreams.sent[0].partition(b"\r\n\r\n")
    assert received == body
    assert head.startswith(b"POST /mcp HTTP/1.1\r\n")
    assert b"Mcp-Session-Id: s-0\r\nMCP-Protocol-Version: 2025-06-18\r\n" in head + b"\r\n"
    assert world.down.sent == answer
    assert world.down.head is not None
    assert b"Mcp-Session-Id: s-1" in world.down.head[2]
    (tool,) = made.tools
    assert (tool.name, tool.server, tool.is_error, tool.cost) == ("add", "s", True, 2 * 10**9)
    assert (made.money.total, made.route.operation, outcome_of(made)) == (2 * 10**9, "execute_tool", "ok")


def test_other_methods_pass_and_cost_nothing() -> None:
    world = having()
    limit(world, runs=Runs(budget_usd=0.001))
    for method in ("initialize", "tools/list", "resources/read", "whatever/else"):
        world.answer(200, JSON, [RESULT])
        made = sent(world, message(method, name="rm"))
        assert (made.status, made.money.total, made.tools, made.route.operation) == (200, 0, [], "")


def test_a_stream_begins_at_once_and_is_over_with_its_response() -> None:
    world = having()
    first, last = b": ping\n\n", b'id: 3\ndata: {"jsonrpc":"2.0","id":1,"result":{}}\n\n'
    exchange = world.answer(200, SSE, [first, b'id: 2\ndata: {"method":"x"}\n\n', last])
    made = sent(world)
    assert world.down.sent == first + b'id: 2\ndata: {"method":"x"}\n\n' + last
    assert world.names()[:3] == ["start", "write", "write"], "the head is not held back for an event"
    assert world.names()[-2:] == ["record", "finish"]
    assert exchange.expires == 0.25
    assert (made.money.total, made.tools[0].exact) == (2 * 10**9, True)


def test_a_stream_that_ends_without_the_response_is_not_broken_but_unknown() -> None:
    world = having()
    world.answer(200, SSE, [b"id: 1\ndata: \n\n"])
    made = sent(world)
    assert (outcome_of(made), world.names()[-1]) == ("ok", "finish")
    assert (made.money.total, made.tools[0].exact, made.tools[0].is_error) == (None, False, False)


@pytest.mark.parametrize(("resumable", "said"), [(b"id: 1\n", b""), (b"", b"upstream_reset")])
def test_a_stream_that_breaks_off_is_left_to_be_resumed_where_it_can_be(resumable: bytes, said: bytes) -> None:
    world = having()
    world.answer(200, SSE, [resumable + b'data: {"method":"x"}\n\n', UpstreamReset()])
    sent(world)
    assert world.names()[-1] == "abort"
    assert (b"upstream_reset" in world.down.sent) == bool(said)
    if said:
        event = world.down.sent.split(b"\n\n")[-2]
        assert event.startswith(b"event: message\ndata: ")
        assert json.loads(event.partition(b"data: ")[2])["id"] == 1


def test_streams_and_ends_of_sessions_pass_whatever_the_limits_say() -> None:
    world = having()
    limit(world, limits=Limits(rates=(Rates(scope="upstream", rpm=1, burst=1, concurrency=1),)), runs=Runs(max_calls=1))
    world.answer(200, JSON, [RESULT])
    assert sent(world).status == 200
    for method, body in (
        (b"GET", b""),
        (b"DELETE", b""),
        (b"POST", json.dumps(message("notifications/x", None)).encode()),
    ):
        world.answer(200, SSE, [b'data: {"id":9,"result":{}}\n\n'])
        made = sent(world, body, method=method)
        assert (made.status, made.money.total) == (200, 0)
    assert sent(world).status == 200
    assert refusal(world)[2] == "budget_exceeded"


@pytest.mark.parametrize("method", [b"PUT", b"PATCH", b"HEAD", b"OPTIONS"])
def test_methods_of_the_transport_alone(method: bytes) -> None:
    world = having()
    assert sent(world, b"", method=method).status == 405


def test_one_path_only() -> None:
    world = having()
    for path in ("/mcp/s/x", "/mcp/s//", "/mcp/other", "/mcp", "/mcp/s/.."):
        assert sent(world, path=path).status in (400, 404)
        assert not world.upstreams.sent
        assert json.loads(world.down.sent)["jsonrpc"] == "2.0", "in the words of the protocol"
    world.answer(200, JSON, [RESULT])
    assert sent(world, path="/mcp/s/?x=1").status == 200
    assert world.upstreams.sent[0].startswith(b"POST /mcp?x=1 HTTP/1.1")


# -- refusals -------------------------------------------------------------------------------------------------------


def test_a_tool_that_is_not_allowed_is_answered_in_the_protocol() -> None:
    world = having(deny=("rm",))
    for name in ("rm", "RM", "rM"):
        made = sent(world, message(id="a", name=name))
        assert refusal(world) == ("a", -32602, "tool_not_allowed")
        assert (made.status, outcome_of(made), world.upstreams.sent, made.tools) == (200, "refused", [], [])


def test_a_batch_is_refused_as_a_whole_if_one_of_its_calls_is() -> None:
    world = having(allow=("add",))
    sent(world, [message(id=1), message(id=2, name="rm"), message("notifications/x", None)])
    found = json.loads(world.down.sent)
    assert [one["id"] for one in found] == [1, 2]
    assert not world.upstreams.sent


def test_a_batch_pays_for_each_of_its_calls() -> None:
    world = having()
    limit(world, runs=Runs(budget_usd=0.005))
    world.answer(200, JSON, [b'[{"id":1,"result":{}},{"id":2,"error":{"code":1,"message":"m"}}]'])
    made = sent(world, [message(id=1), message(id=2)])
    assert (made.hold.usd if made.hold else 0, made.money.total) == (4 * 10**6, 2 * 10**9)
    assert [(tool.is_error, tool.cost) for tool in made.tools] == [(False, 2 * 10**9), (True, 0)]
    sent(world, [message(id=1), message(id=2)])
    assert json.loads(world.down.sent)[1]["error"]["data"]["code"] == "budget_exceeded"


def test_a_stopped_run_is_told() -> None:
    world = having()
    world.controls.take([Standing(Scope.RUN, "run-1", 1, killed_at=1, reason="it loops", who="ops")])
    assert sent(world).status == 200
    assert refusal(world) == (1, -32050, "run_stopped")


@pytest.mark.parametrize(
    ("body", "code"),
    [(b"{", -32700), (b'{"id":1,"method":"ping","Method":"tools/call"}', -32600), (b"[]", -32600)],
)
def test_what_could_not_be_read_has_no_id_and_a_status_of_its_own(body: bytes, code: int) -> None:
    world = having()
    assert sent(world, body).status == 400
    assert refusal(world)[:2] == (None, code)


def test_a_server_that_fails_is_a_failure_of_http() -> None:
    world = having()
    world.upstreams.answers.append(UpstreamReset())
    made = sent(world)
    assert (made.status, refusal(world)[:2], made.tools[0].is_error) == (502, (1, -32603), True)


def test_a_call_is_not_sent_again_and_the_rest_is() -> None:
    for body, tries in ((message(), 1), (message("tools/list"), 2)):
        world = having()
        world.upstreams.kept = True
        world.upstreams.answers.append(UpstreamReset())
        world.answer(200, JSON, [RESULT])
        sent(world, body)
        assert len(world.upstreams.sent) == tries


def test_another_charset_or_protocol_is_refused() -> None:
    world = having()
    assert sent(world, None, (b"Content-Type", b"application/json; charset=utf-16")).status == 400
    assert sent(world, None, (b"Upgrade", b"websocket"), (b"Connection", b"upgrade")).status == 400
    world.answer(200, JSON, [RESULT])
    assert sent(world, None, (b"Content-Type", b'application/json; charset="UTF-8"')).status == 200


# -- what is hidden -------------------------------------------------------------------------------------------------


def test_lists_show_what_may_be_called() -> None:
    world = having(deny=("rm",))
    world.answer(200, (*JSON, (b"Content-Length", b"%d" % len(LIST))), [LIST[:60], LIST[60:]])
    sent(world, message("tools/list"), (b"Accept-Encoding", b"gzip"))
    assert world.down.sent == LIST.replace(b', {"name":"rm"}', b"")
    assert world.down.head is not None
    assert world.down.head[3] is None
    assert b"content-length" not in world.down.head[2].lower()
    assert b"accept-encoding: identity" in world.upstreams.sent[0]
    assert b"gzip" not in world.upstreams.sent[0]


def test_lists_on_any_stream_are_looked_through() -> None:
    world = having(allow=("add",))
    for method, body in ((b"POST", None), (b"GET", b"")):
        world.answer(200, SSE, [b"id: 1\ndata: " + LIST + b"\n\n"])
        sent(world, body, method=method)
        assert b"rm" not in world.down.sent
        assert b"add" in world.down.sent


def test_without_rules_nothing_is_looked_at() -> None:
    world = having()
    world.answer(200, (*JSON, (b"Content-Encoding", b"gzip"), (b"Content-Length", b"3")), [b"\x1f\x8bx"])
    made = sent(world, message("tools/list"))
    assert (world.down.sent, made.status) == (b"\x1f\x8bx", 200)
    assert world.down.head is not None
    assert world.down.head[3] == 3


def test_what_is_compressed_against_our_word_is_not_shown() -> None:
    world = having(deny=("rm",))
    world.answer(200, (*JSON, (b"Content-Encoding", b"gzip")), [b"\x1f\x8b\x08"])
    assert sent(world, message("tools/list")).status == 502


# -- keys -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tools", "allowed"),
    [(("*",), True), (("add",), True), (("s/add",), True), (("s/*",), True), (("t/*",), False), (("Add",), False),
     (("ad",), False), ((), False)],
)  # fmt: skip
def test_a_key_names_tools_plainly_or_with_their_server(tools: tuple[str, ...], allowed: bool) -> None:
    world = having(Key(id="k1", name="ci", tools=tools))
    world.answer(200, JSON, [RESULT])
    made = sent(world)
    assert bool(world.upstreams.sent) == allowed
    assert made.status == 200
    world.upstreams.answers.clear()
    world.answer(200, JSON, [LIST])
    sent(world, message("tools/list"))
    assert (b'"add"' in world.down.sent) == allowed


def test_a_key_that_may_not_use_tools_or_the_server() -> None:
    for rights in ({"operations": ("chat",)}, {"upstreams": ("openai",)}):
        world = having(Key(id="k1", name="ci", **rights))  # type: ignore[arg-type]
        for body, method in ((message("tools/list"), b"POST"), (b"", b"GET"), (message(), b"POST")):
            sent(world, body, method=method)
            assert not world.upstreams.sent
