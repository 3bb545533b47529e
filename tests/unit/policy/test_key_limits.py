from __future__ import annotations

from datetime import UTC

from hypothesis import given
from hypothesis import strategies as st

from gateway.config.schema import Budget, Runs, Spending
from gateway.config.schema import Limits as LimitsConfig
from gateway.key import Key, KeyBudget
from gateway.policy.ceiling import Worst
from gateway.policy.key_limits import limits_of, owners_above
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


def test_what_a_key_spends_counts_for_those_above_it_in_their_accounts():
    top = Key("a", "house", budgets=(KeyBudget(9 * NANO_USD, per="day"),))
    middle = Key("b", "", parent="a", concurrency=3)
    low = Key("c", "laptop", parent="b", budgets=(KeyBudget(5 * NANO_USD, per="day"),), above=(middle, top))
    configured = (Budget(scope="key", match="house", usd=7, per="life"), Budget(scope="key", match="b", tokens=8))
    limits = Limits(configured, Runs(), LimitsConfig(), Spending(), UTC)
    who = Scopes(key="laptop", key_id="c", above=owners_above(low))
    found = limits.demands(who, Worst(1, 2, 3, basis="client"), NOW, extra=limits_of(low)).demands
    assert [(d.account, d.limit) for d in found] == [
        ("key:house|usd|life", 7 * NANO_USD),
        ("key:house|usd|day|2026-11-27", 9 * NANO_USD),
        ("key:b|tokens|month|2026-11", 8),
        ("key:b|concurrency", 3),
        ("key:laptop|usd|day|2026-11-27", 5 * NANO_USD),
    ]


def test_a_limit_may_name_a_key_by_its_id_and_has_the_same_account():
    who = Scopes(key="laptop", key_id="k7")
    for match in ("laptop", "k7", "k*", "lap*"):
        limits = Limits((Budget(scope="key", match=match, usd=1, per="life"),), Runs(), LimitsConfig(), Spending(), UTC)
        found = limits.demands(who, Worst(1, 2, 3, basis="client"), NOW).demands
        assert [d.account for d in found] == ["key:laptop|usd|life"], match
    limits = Limits((Budget(scope="key", match="k8", usd=1),), Runs(), LimitsConfig(), Spending(), UTC)
    assert limits.demands(who, Worst(1, 2, 3, basis="client"), NOW).demands == ()


def test_a_key_without_limits_asks_for_nothing():
    assert limits_of(Key("i")) == ()
    assert demands(Key("i")) == ()


@given(st.integers(1, 10**15))
def test_no_nano_dollar_is_lost(usd: int):
    assert demands(Key("i", budgets=(KeyBudget(usd),)))[0].limit == usd


def test_the_same_limits_are_the_same_tuple():
    one, other = (Key(id, budgets=(KeyBudget(NANO_USD),), metadata={"a": id}) for id in "ab")
    assert limits_of(one) is limits_of(other)
