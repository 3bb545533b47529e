"""What became of each tool call, read in JSON and in event streams, cut anywhere."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Executed, Route
from gateway.dialects.mcp import Mcp
from gateway.dialects.mcp_messages import McpAsked, read
from gateway.dialects.mcp_meter import McpStream
from gateway.tool import Price, Terms

ROUTE = Route("/mcp/{server}", "mcp", "", "mcp/s", b"/mcp")
PRICED = Mcp({"mcp/s": Terms("s", prices=(("bulk*", Price(5, field=("structuredContent", "units"))),))})
SSE, JSON = b"text/event-stream", b"application/json"


def asking(*messages: dict[str, Any]) -> McpAsked:
    body = messages[0] if len(messages) == 1 else list(messages)
    return read(json.dumps(body).encode())


def call(id: Any = 1, name: str = "add") -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": name}}


def result(id: Any = 1, **fields: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "result": {"content": [], **fields}}


def error(id: Any = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id, "error": {"code": -32602, "message": "no such tool"}}


def events(*messages: Any) -> bytes:
    return b"".join(b"event: message\r\ndata: %b\r\n\r\n" % json.dumps(message).encode() for message in messages)


def met(asked: McpAsked, data: bytes, *, kind: bytes = JSON, status: int = 200, size: int = 1 << 20) -> Any:
    meter = PRICED.meter(ROUTE, asked, status, kind)
    for at in range(0, len(data), size):
        meter.feed(data[at : at + size])
    return meter


@pytest.mark.parametrize("kind", [JSON, SSE])
@pytest.mark.parametrize(
    ("answer", "executed"),
    [
        (result(), Executed("1", "add")),
        (result(isError=False), Executed("1", "add")),
        (result(isError=True), Executed("1", "add", True, True)),
        (result(isError="yes"), Executed("1", "add")),
        (error(), Executed("1", "add", False, True)),
    ],
)
def test_one_call(kind: bytes, answer: dict[str, Any], executed: Executed) -> None:
    data = json.dumps(answer).encode() if kind is JSON else events(answer)
    for size in (1, 13, 1 << 20):
        meter = met(asking(call()), data, kind=kind, size=size)
        if kind is SSE:
            assert meter.terminal
        assert meter.end().executed == (executed,)


def test_notifications_and_other_responses_are_not_the_answer() -> None:
    noise = [{"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}, result(2), result("1"),
             {"jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage", "params": {}}]  # fmt: skip
    meter = met(asking(call()), events(*noise), kind=SSE)
    assert (meter.started, meter.terminal) == (True, False)
    answer = meter.end()
    assert (answer.executed, answer.complete) == ((), True), "a stream may end early and go on elsewhere"


def test_a_batch_is_over_when_all_have_their_response() -> None:
    asked = asking(call(1, "a"), {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}, call("x", "b"))
    meter = met(asked, events(result("x", isError=True), result(2)), kind=SSE)
    assert not meter.terminal
    meter.feed(events(error(1)))
    assert meter.terminal
    found = {one.name: (one.ran, one.is_error) for one in meter.end().executed}
    assert found == {"a": (False, True), "b": (True, True)}
    document = met(asked, json.dumps([result(1), result(2), result("x")]).encode())
    assert [one.name for one in document.end().executed] == ["a", "b"]


def test_units_are_read_within_the_result() -> None:
    answer = result(structuredContent={"units": 3})
    for name, units in (("bulk_get", 3.0), ("add", None)):
        for kind, data in ((JSON, json.dumps(answer).encode()), (SSE, events(answer))):
            assert met(asking(call(1, name)), data, kind=kind).end().executed[0].units == units


def test_a_result_may_be_a_large_picture() -> None:
    large = result(content=[{"type": "image", "data": "A" * 3_000_000, "mimeType": "image/png"}])
    for kind, data in ((JSON, json.dumps(large).encode()), (SSE, events(large))):
        assert met(asking(call()), data, kind=kind, size=65_536).end().executed == (Executed("1", "add"),)


def test_an_error_of_http_means_that_nothing_ran() -> None:
    for body in (b"Bad Gateway", json.dumps(error()).encode(), b""):
        answer = met(asking(call()), body, status=502).end()
        assert [(one.ran, one.is_error) for one in answer.executed] == [(False, True)]


def test_streams_that_can_be_resumed() -> None:
    for text, resumable in (
        (b"id: 7\ndata: \n\n", True),
        (b"event: message\nid: 7\ndata: {}\n\n", True),
        (b"data: id: 7\n\n", False),
        (b": id: 7\n\n", False),
        (b"retry: 5\ndata: {}\n\n", False),
    ):
        for size in (1, 3, 100):
            meter = met(asking(call()), text, kind=SSE, size=size)
            assert isinstance(meter, McpStream)
            assert meter.resumable is resumable


@given(st.binary(max_size=200), st.integers(1, 20))
def test_reading_never_raises(data: bytes, size: int) -> None:
    for kind in (JSON, SSE):
        meter = met(asking(call()), data, kind=kind, size=size)
        meter.end()
