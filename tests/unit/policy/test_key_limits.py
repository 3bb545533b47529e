from __future__ import annotations

from datetime import UTC

from hypothesis import given
from hypothesis import strategies as st

from gateway.config.schema import Limits as LimitsConfig
from gateway.config.schema import Runs, Spending
from gateway.key import Key, KeyBudget
from gateway.policy.ceiling import Worst
from gateway.policy.key_limits import limits_of
from gateway.policy.limits import Limits, Scopes
from gateway.spend import NANO_USD, Rule, Unit

NOW = 1_795_780_800 * 10**9
LIMITS = Limits((), Runs(), LimitsConfig(), Spending(), UTC)


def demands(key: Key):
    return LIMITS.demands(Scopes(key="k"), Worst(1, 2, 3, basis="client"), NOW, extra=limits_of(key)).demands


def test_what_came_with_a_key_is_asked_for():
    key = Key(
        "i", budgets=(KeyBudget(5 * NANO_USD, 900, "day"), KeyBudget(tokens=9, rolling=True)), rpm=6, concurrency=2
    )
    assert [(d.account, d.rule, d.unit, d.limit) for d in demands(key)] == [
        ("key:k|usd|day|2026-11-27", Rule.TOTAL, Unit.USD, 5 * NANO_USD),
        ("key:k|tokens|day|2026-11-27", Rule.TOTAL, Unit.TOKENS, 900),
        ("key:k|tokens|month|rolling", Rule.ROLLING, Unit.TOKENS, 9),
        ("key:k|calls|rate", Rule.RATE, Unit.CALLS, 6),
        ("key:k|concurrency", Rule.SLOTS, Unit.CONCURRENCY, 2),
    ]


def test_a_key_without_limits_asks_for_nothing():
    assert limits_of(Key("i")) == ()
    assert demands(Key("i")) == ()


@given(st.integers(1, 10**15))
def test_no_nano_dollar_is_lost(usd: int):
    assert demands(Key("i", budgets=(KeyBudget(usd),)))[0].limit == usd


def test_the_same_limits_are_the_same_tuple():
    one, other = (Key(id, budgets=(KeyBudget(NANO_USD),), metadata={"a": id}) for id in "ab")
    assert limits_of(one) is limits_of(other)
