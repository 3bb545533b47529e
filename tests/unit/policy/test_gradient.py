"""How many calls an upstream takes at once, found out: against an upstream whose capacity is known, in virtual time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.gradient import SAMPLES, WINDOW, Gradient

MS = 10**6


def latency(busy: int, capacity: int) -> int:
    """An upstream that works on so many at once; what comes beside them waits for a turn."""
    return int(200 * MS * max(1.0, busy / capacity))


def load(limit: Gradient, capacity: int, windows: int, now: int = 0, wanted: int = 1000) -> int:
    """Callers that ask for as much as they get; returns the time."""
    for _ in range(windows):
        busy = min(wanted, limit.limit)
        for _ in range(SAMPLES):
            limit.sample(latency(busy, capacity), busy, now)
        now += WINDOW
        limit.sample(latency(busy, capacity), busy, now)
    return now


def test_an_upstream_that_becomes_slow_gets_less_and_more_again_when_it_is_well():
    limit = Gradient(1, 100)
    now = load(limit, 100, 30)
    assert limit.limit == 100
    now = load(limit, 20, 15, now)
    low = limit.limit
    assert 10 < low < 60
    load(limit, 100, 120, now)
    assert limit.limit > 90


def test_a_limit_that_is_not_used_does_not_grow():
    limit = Gradient(1, 100)
    for _ in range(20):
        limit.dropped()
    low = limit.limit
    now = load(limit, 100, 50, wanted=low // 3)
    assert limit.limit == low
    load(limit, 100, 5, now)
    assert limit.limit > low


def test_what_the_upstream_says_itself_lowers_it_at_once():
    limit = Gradient(5, 100)
    limit.dropped()
    assert limit.limit == 90
    for _ in range(100):
        limit.dropped()
    assert limit.limit == 5


def test_few_samples_or_a_short_time_change_nothing():
    limit = Gradient(1, 100)
    load(limit, 100, 20)
    limit.sample(10**12, 100, 10**15)
    assert limit.limit == 100


def test_other_bounds_hold_at_once():
    limit = Gradient(1, 100)
    limit.bound(1, 30)
    assert limit.limit == 30
    limit.bound(50, 80)
    assert limit.limit == 50


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(0, 200), st.integers(0, 2 * 10**9)), max_size=200))
def test_it_stays_within_its_bounds(samples):
    limit, now = Gradient(3, 40), 0
    for took, busy, passed in samples:
        now += passed
        limit.sample(took, busy, now)
        if took % 7 == 0:
            limit.dropped()
        assert 3 <= limit.limit <= 40
