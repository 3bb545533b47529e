"""HTTP tools: relayed unread, but for the units that their price counts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Request, Route
from gateway.dialects.tool import Tool, count, units_in
from gateway.errors import BudgetExceeded, Rejected
from gateway.tool import Price, Terms

ROUTE = Route("/tools/{tool}", "tool", "execute_tool", "tools/search", b"/search")
PLAIN = Tool({"tools/search": Terms("search", Price(5))})
COUNTING = Tool({"tools/search": Terms("search", Price(5, field=("usage", "credits"), most=4))})


def answer(dialect: Tool, status: int, *pieces: bytes, kind: bytes = b"application/json") -> Any:
    asked = dialect.read(ROUTE, Request(b"GET", b"/search", (), b""))
    meter = dialect.meter(ROUTE, asked, status, kind)
    for piece in pieces:
        meter.feed(piece)
    return meter.end()


def test_a_call_is_one_of_the_tool_it_goes_to() -> None:
    (use,) = PLAIN.read(ROUTE, Request(b"POST", b"/search", (), b"\xff not json")).calls
    assert (use.id, use.name) == ("", "search")
    asked = PLAIN.read(ROUTE, Request(b"GET", b"/search", (), b""))
    assert PLAIN.bounds(ROUTE, asked).tools == ("search",)


def test_another_protocol_is_refused() -> None:
    with pytest.raises(Rejected) as caught:
        PLAIN.read(ROUTE, Request(b"GET", b"/search", (), b"", names={b"upgrade": b"websocket"}))
    assert caught.value.code == "upgrade_not_allowed"


@pytest.mark.parametrize(
    ("status", "ran", "failed"),
    [(200, True, False), (204, True, False), (302, False, False), (304, False, False), (404, False, True),
     (503, False, True)],
)  # fmt: skip
def test_the_status_says_what_became_of_it(status: int, ran: bool, failed: bool) -> None:
    (done,) = answer(PLAIN, status, b"x").executed
    assert (done.name, done.ran, done.is_error, done.units) == ("search", ran, failed, None)


def test_units_are_read_where_they_stand() -> None:
    body = json.dumps({"usage": {"credits": 2.5}}).encode()
    for size in (1, 7, 1000):
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        assert answer(COUNTING, 200, *pieces).executed[0].units == 2.5


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"nope", b'{"usage":3}', b'{"usage":{"credits":"2"}}',
                                  b'{"usage":{"credits":-1}}', b'{"usage":{"credits":true}}',
                                  b'{"usage":{"credits":1e400}}', b"[" * 100_000])  # fmt: skip
def test_units_that_are_not_stated_are_unknown(body: bytes) -> None:
    assert answer(COUNTING, 200, body).executed[0].units is None


def test_a_stream_is_not_held_back() -> None:
    asked = COUNTING.read(ROUTE, Request(b"GET", b"/search", (), b""))
    meter = COUNTING.meter(ROUTE, asked, 200, b"text/event-stream")
    assert meter.started
    assert COUNTING.interruption(BudgetExceeded("no"), meter, "r") == b""


def test_a_refusal_is_json_with_our_code() -> None:
    refused = PLAIN.refusal(BudgetExceeded("no"), "r", stream=False, route=ROUTE)
    assert refused.status == 402
    assert json.loads(refused.body)["error"]["tollgate_code"] == "budget_exceeded"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(JSON, st.lists(st.sampled_from(["a", "0", "7", "", "-1", "²"]), max_size=4))
def test_reading_units_never_raises(value: Any, field: list[str]) -> None:
    found = units_in(value, field)
    assert found is None or (found >= 0 and found == found)


def test_counts() -> None:
    assert [count(value) for value in (0, 3, 2.5, -1, True, None, float("nan"), float("inf"), 10**30)] == [
        *(0.0, 3.0, 2.5),
        *([None] * 6),
    ]
