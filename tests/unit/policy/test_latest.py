"""What answers took lately: quantiles of the newest, against sorting them all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.latest import FRESH, KEPT, TARGETS, Delays, Latest


def test_below_the_sample_nothing_is_known() -> None:
    latest = Latest()
    for value in range(9):
        latest.add(value, 0)
    assert latest.quantile(0.95, 10, 0) is None
    latest.add(9, 0)
    assert latest.quantile(0.95, 10, 0) == 9
    assert latest.quantile(0.5, 10, 0) == 5


def test_what_is_old_is_forgotten() -> None:
    latest = Latest()
    for value in (1, 2, 3):
        latest.add(value, value)
    assert latest.quantile(0.95, 3, FRESH + 1) == 3
    assert latest.quantile(0.95, 3, FRESH + 2) is None
    assert latest.quantile(0.0, 2, FRESH + 2) == 2


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, FRESH // 40)), max_size=3 * KEPT), st.floats(0.5, 0.99))
def test_against_all_of_them_sorted(steps: list[tuple[int, int]], share: float) -> None:
    latest, now = Latest(), 0
    seen: list[tuple[int, int]] = []
    for value, later in steps:
        now += later
        latest.add(value, now)
        seen.append((now, value))
    newest = sorted(value for at, value in seen[-KEPT:] if now - at <= FRESH)
    expected = newest[min(len(newest) - 1, int(share * len(newest)))] if len(newest) >= 20 else None
    assert latest.quantile(share, 20, now) == expected


def test_the_share_that_comes_later_is_as_asked_for() -> None:
    latest = Latest()
    for value in range(KEPT):
        latest.add(value * 7919 % KEPT, 0)
    late = latest.quantile(0.95, 20, 0)
    assert late is not None
    assert sum(value > late for value in range(KEPT)) / KEPT < 0.05


def test_targets_are_apart_and_do_not_pile_up() -> None:
    delays = Delays()
    assert delays.quantile("a", 0.5, 1, 0) is None
    delays.add("a", 3, 0)
    delays.add("b", 5, 0)
    assert (delays.quantile("a", 0.5, 1, 0), delays.quantile("b", 0.5, 1, 0)) == (3, 5)
    for number in range(3 * TARGETS):
        delays.add(number, 1, 0)
    assert len(delays._of) <= TARGETS
