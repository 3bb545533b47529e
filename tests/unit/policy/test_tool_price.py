"""What tool calls are held to cost, and what they came to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Executed, ToolCall, ToolUse
from gateway.policy.tool_price import cost_of, held, money_of, number, price_of
from gateway.tool import Price, Terms

CALL = Price(5_000)
BY_FIELD = Price(3_000, field=("u",), most=4)
BY_HEADER = Price(3_000, b"x-units", most=4)
TERMS = Terms("s", CALL, prices=(("read_*", Price()), ("bulk", BY_FIELD)))
RAN, REFUSED = Executed("1", "t"), Executed("1", "t", ran=False, is_error=True)


def test_each_tool_of_a_server_has_its_price_and_a_batch_adds_up() -> None:
    assert price_of(TERMS, "read_file").pico == 0
    assert price_of(TERMS, "Read_file") is CALL
    uses = [ToolUse("1", name) for name in ("read_file", "bulk", "other", "other")]
    assert held(TERMS, uses) == 4 * 3_000 + 2 * 5_000
    assert held(TERMS, ()) == 0


@pytest.mark.parametrize(
    ("price", "result", "headers", "cost"),
    [
        (CALL, RAN, {}, 5_000),
        (CALL, Executed("1", "t", is_error=True), {}, 5_000),  # it ran, and failed
        (CALL, REFUSED, {}, 0),
        (CALL, None, {}, None),
        (Price(), None, {}, 0),
        (BY_FIELD, Executed("1", "t", units=2), {}, 6_000),
        (BY_FIELD, Executed("1", "t", units=0), {}, 0),
        (BY_FIELD, Executed("1", "t", units=9.5), {}, 28_500),  # more than was held
        (BY_FIELD, RAN, {}, None),
        (BY_HEADER, RAN, {b"x-units": b" 2 "}, 6_000),
        (BY_HEADER, RAN, {b"x-units": b"0.1"}, 300),
        (BY_HEADER, RAN, {b"x-units": b"many"}, None),
        (BY_HEADER, RAN, {b"x-units": b"-1"}, None),
        (BY_HEADER, RAN, {}, None),
        (BY_HEADER, REFUSED, {}, 0),
    ],
)
def test_the_true_cost(price: Price, result: Executed | None, headers: dict[bytes, bytes], cost: int | None) -> None:
    assert cost_of(price, result, headers) == cost


def test_unknown_in_one_is_unknown_in_all() -> None:
    def one(cost: int | None) -> ToolCall:
        return ToolCall("i", "t", 0, 0, cost=cost)

    assert money_of([one(3), one(4)]).components == {"tools": 7}
    assert money_of([one(3), one(4)]).status == "priced"
    assert money_of([one(3), one(None)]).total is None
    assert money_of([one(0)]).status == "free"


@given(st.binary(max_size=30))
def test_a_header_states_a_count_or_nothing(text: bytes) -> None:
    found = number(text)
    assert found is None or 0 <= found < 1e25


@given(st.integers(0, 10**12), st.integers(0, 1000))
def test_whole_units_cost_exactly(pico: int, units: int) -> None:
    assert cost_of(Price(pico, field=("u",)), Executed("", "t", units=units), {}) == pico * units
