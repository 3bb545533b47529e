"""The share of each limit that a worker grants by itself, once in each window."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.spend import Charge, Demand, Grant, Refusal, Rule, Unit
from gateway.stores.local_share import LocalShare

NOW = 1_795_384_800 * 10**9


def usd(amount: int, limit: int = 1000, account: str = "x", until: int = 0) -> Demand:
    return Demand(account, Rule.TOTAL, Unit.USD, amount, limit, until=until)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=60), st.integers(0, 100))
def test_never_more_than_the_share(calls: list[tuple[int, int]], percent: int) -> None:
    share, spent = LocalShare(percent / 100, "w"), 0
    for n, (worst, cost) in enumerate(calls):
        answer = share.reserve(str(n), [usd(worst)], NOW + n)
        if isinstance(answer, Grant):
            assert spent + worst <= 10 * percent
            spent += min(cost, worst)
            share.settle(str(n), Charge(usd=min(cost, worst)), NOW + n)
        else:
            assert spent + worst > 10 * percent


def test_depth_and_age_are_no_amounts_to_share() -> None:
    share = LocalShare(0.01, "w")
    depth = Demand("d", Rule.LEVEL, Unit.DEPTH, 3, 3)
    age = Demand("a", Rule.AGE, Unit.SECONDS, 0, 60)
    assert isinstance(share.reserve("a", [depth, age], NOW), Grant)
    assert isinstance(share.reserve("b", [age], NOW + 61 * 10**9), Refusal)


def test_a_rate_has_a_burst_of_one_at_least() -> None:
    share = LocalShare(0.1, "w")
    rate = Demand("r", Rule.RATE, Unit.CALLS, 1, 60, period=60 * 10**9, burst=5)
    assert isinstance(share.reserve("a", [rate], NOW), Grant)
    refused = share.reserve("b", [rate], NOW)
    assert isinstance(refused, Refusal)
    assert refused.retry_after == 10 * 10**9


def test_what_it_does_not_know_is_not_settled() -> None:
    share = LocalShare(1.0, "w")
    share.settle("never", Charge(usd=5), NOW)
    answer = share.reserve("a", [usd(1000)], NOW)
    assert isinstance(answer, Grant)
    assert answer.levels[0].spent == 0
