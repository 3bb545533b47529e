from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.errors import BudgetExceeded, LimitReached
from gateway.policy.ceiling import Worst
from gateway.policy.refused import clamped, explain, shown
from gateway.spend import NANO_USD, Demand, Level, Refusal, Rule, Unit

NOW = 1_795_780_800 * 10**9  # 2026-11-27T12:00:00Z
SECOND = 10**9


def demand(amount: int = NANO_USD, limit: int = 10 * NANO_USD, **more: Any) -> Demand:
    known = {"account": "team:payments|usd|day|2026-11-27", "rule": Rule.TOTAL, "unit": Unit.USD}
    return Demand(**{**known, "amount": amount, "limit": limit, "label": "team payments, per day", **more})


def refusal(asked: Demand, spent: int = 0, reserved: int = 0, **more: Any) -> Refusal:
    return Refusal("op", 0, Level(asked.account, asked.limit, spent, reserved, more.pop("resets_at", 0)), **more)


def test_a_budget_that_is_spent_says_which_how_much_and_until_when():
    asked = demand(until=NOW + 12 * 3600 * SECOND)
    fault = explain(refusal(asked, 9_250_000_000, 500_000_000), [asked], NOW)
    assert isinstance(fault, BudgetExceeded)
    assert (fault.status, fault.code, fault.retryable, fault.retry_after) == (402, "budget_exceeded", False, None)
    assert fault.message == (
        "The budget of team payments, per day is $10.00: $9.25 spent and $0.50 reserved by calls under way; "
        "this call may need $1.00. It resets at 2026-11-28T00:00:00Z."
    )


def test_a_budget_for_life_does_not_reset():
    asked = demand(account="run:r|usd|life", label="run r")
    assert "resets" not in explain(refusal(asked, 9_500_000_000), [asked], NOW).message


@pytest.mark.parametrize(
    ("left", "seconds"), [(1, 1), (SECOND, 1), (SECOND + 1, 2), (59_500_000_000, 60), (60 * SECOND, 60)]
)
def test_a_window_that_ends_within_a_minute_is_worth_waiting_for(left: int, seconds: int):
    asked = demand(until=NOW + left)
    fault = explain(refusal(asked, 10 * NANO_USD), [asked], NOW)
    assert isinstance(fault, LimitReached)
    assert (fault.status, fault.retry_after, fault.retryable) == (429, seconds, True)
    assert f"try again in {seconds}s" in fault.message


def test_one_that_ends_later_is_not():
    asked = demand(until=NOW + 60 * SECOND + 1)
    assert isinstance(explain(refusal(asked, 10 * NANO_USD), [asked], NOW), BudgetExceeded)


def test_a_rolling_minute_is_a_minute_though_its_first_slice_ends_a_moment_later():
    wait = 60_900_000_000
    minute = demand(rule=Rule.ROLLING, period=60 * SECOND)
    fault = explain(refusal(minute, 10 * NANO_USD, retry_after=wait), [minute], NOW)
    assert (fault.status, fault.retry_after) == (429, 61)
    hour = demand(rule=Rule.ROLLING, period=3600 * SECOND)
    assert isinstance(explain(refusal(hour, 10 * NANO_USD, retry_after=wait), [hour], NOW), BudgetExceeded)
    whole = demand(amount=11 * NANO_USD, rule=Rule.ROLLING, period=60 * SECOND)
    assert isinstance(explain(refusal(whole, retry_after=wait), [whole], NOW), BudgetExceeded)


def test_what_never_fits_is_never_worth_waiting_for():
    for asked in (
        demand(11 * NANO_USD, until=NOW + SECOND),
        demand(900, 600, rule=Rule.RATE, unit=Unit.TOKENS),
        demand(5, 60, burst=4, rule=Rule.RATE, unit=Unit.CALLS),
    ):
        assert isinstance(explain(refusal(asked, retry_after=SECOND), [asked], NOW), BudgetExceeded)


def test_rates_and_places_free_themselves():
    rate = demand(1, 60, rule=Rule.RATE, unit=Unit.CALLS, label="key k, per minute")
    fault = explain(refusal(rate, retry_after=1_200_000_000), [rate], NOW)
    assert (fault.status, fault.retry_after) == (429, 2)
    assert fault.message == "The limit of key k, per minute is 60 calls. Please try again in 2s."
    slots = demand(1, 4, rule=Rule.SLOTS, unit=Unit.CONCURRENCY, label="key k")
    fault = explain(refusal(slots, reserved=4), [slots], NOW)
    assert (fault.status, fault.retry_after) == (429, 1)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            demand(1, 200, unit=Unit.CALLS, label="run r"),
            "The limit of run r is 200 calls: 200 spent, and this call brings 1.",
        ),
        (demand(0, 30, rule=Rule.AGE, unit=Unit.SECONDS, label="run r"), "30 seconds since its first call"),
        (
            demand(9, 3, rule=Rule.LEVEL, unit=Unit.DEPTH, label="run r"),
            "3 levels of sub-agents; this call is made at level 9",
        ),
    ],
)
def test_limits_of_runs_are_final(asked: Demand, words: str):
    fault = explain(refusal(asked, asked.limit, retry_after=SECOND if asked.rule is Rule.AGE else 0), [asked], NOW)
    assert fault.status == 402
    assert words in fault.message


@given(
    st.sampled_from(list(Rule)), st.integers(0, 10**12), st.integers(0, 10**12),
    st.integers(0, 10**12), st.integers(0, 2 * 10**11), st.integers(0, 2 * 10**11),
)  # fmt: skip
def test_it_is_429_with_a_whole_wait_of_at_most_a_minute_or_402_without(
    rule: Rule, amount: int, limit: int, spent: int, until: int, retry_after: int
):
    asked = demand(amount, limit, rule=rule, until=until and NOW + until)
    fault = explain(refusal(asked, spent, retry_after=retry_after), [asked], NOW)
    if isinstance(fault, LimitReached):
        assert 1 <= (fault.retry_after or 0) <= 60
    else:
        assert isinstance(fault, BudgetExceeded)
        assert fault.retry_after is None


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "$0.00"),
        (1, "$0.00"),
        (1000, "$0.000001"),
        (12_340_000_000, "$12.34"),
        (10**18, "$1000000000.00"),
        (-NANO_USD, "-$1.00"),
    ],
)
def test_money_for_people(nano: int, text: str):
    assert shown(nano, Unit.USD) == text


worsts = st.builds(
    lambda tokens_in, each, choices, extra, base, rate: Worst(
        tokens_in,
        each * choices + extra,
        -(-(base + rate * each * choices) // 1000),
        False,
        "client",
        each,
        choices,
        base,
        rate,
    ),
    st.integers(0, 10**6), st.integers(1, 10**6), st.integers(1, 4), st.integers(0, 50), st.integers(0, 10**12),
    st.integers(1, 10**9),
)  # fmt: skip


@given(worsts, st.lists(st.tuples(st.booleans(), st.integers(0, 10**13)), min_size=1, max_size=4), st.integers(1, 500))
def test_what_is_clamped_fits_and_one_token_more_does_not(worst: Worst, accounts: list[tuple[bool, int]], floor: int):
    def demands(of: Worst) -> list[Demand]:
        return [
            demand(of.nano_usd or 0) if money else demand(of.tokens_in + of.tokens_out, unit=Unit.TOKENS)
            for money, _ in accounts
        ]

    def fits(of: Worst) -> bool:
        return all(d.amount <= available for d, (_, available) in zip(demands(of), accounts, strict=True))

    asked = demands(worst)
    assume(not fits(worst))
    found = clamped(refusal(asked[0], available=[available for _, available in accounts]), asked, worst, floor)
    if found is None:
        assert not fits(worst.lowered(floor)) or floor > worst.each
        return
    assert floor <= found < worst.each
    assert fits(worst.lowered(found))
    assert not fits(worst.lowered(found + 1))


def test_where_the_length_changes_nothing_there_is_no_clamping():
    worst = Worst(100, 500, 600, False, "client", 500, 1, 100_000, 1000)
    calls = demand(1, 5, unit=Unit.CALLS)
    money = demand(600)
    assert clamped(refusal(calls, available=[0, 10**9]), [calls, money], worst, 1) is None
    assert clamped(refusal(money, available=[1, 400]), [calls, money], worst, 1) == 300
    assert clamped(refusal(money, available=[1, 400]), [calls, money], worst, 301) is None
    unpriced = Worst(100, 500, None, False, "client", 500)
    assert clamped(refusal(money, available=[1, 400]), [calls, money], unpriced, 1) is None
    over = demand(0, 30, rule=Rule.AGE, unit=Unit.SECONDS)
    assert clamped(refusal(over, available=[0, 10**9]), [over, money], worst, 1) is None
    soft = demand(300)
    assert clamped(refusal(money, available=[300, 400]), [soft, money], worst, 1) == 300
