"""What spending comes to, and how fast an objective's allowance goes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.spend_pace import (
    FEW,
    HOUR,
    MINUTE,
    YOUNGEST,
    Sums,
    burn_rate,
    burns,
    days_to_come,
    pace,
    projected,
    total,
    within,
)

NOW = 1_000_000 * MINUTE
USD = 10**12


def minutes(*parts: tuple[int, int, int]) -> dict[int, Sums]:
    """(minutes ago, judged, faults)"""
    return {NOW // MINUTE - ago: Sums(calls=judged, judged=judged, faults=faults) for ago, judged, faults in parts}


def test_sums_add_up_in_every_field() -> None:
    names = Sums.__struct_fields__
    one, two = (Sums(**{name: n + k for n, name in enumerate(names)}) for k in (1, 10))
    assert [getattr(total([one, two]), name) for name in names] == [2 * n + 11 for n in range(len(names))]
    assert total([]) == Sums()


def test_minutes_are_taken_from_their_beginning_on() -> None:
    found = {10: Sums(calls=1), 11: Sums(calls=2), 12: Sums(calls=4)}
    assert within(found, 10 * MINUTE, 12 * MINUTE).calls == 3
    assert within(found, 10 * MINUTE + 1, 13 * MINUTE).calls == 6


def test_a_pace_is_never_that_of_a_moment() -> None:
    assert pace(USD, None, NOW, HOUR) == 0
    assert pace(USD, NOW - 1, NOW, HOUR) == USD / YOUNGEST
    assert pace(USD, NOW - 30 * MINUTE, NOW, HOUR) == USD / (30 * MINUTE)
    assert pace(USD, NOW - 30 * HOUR, NOW, HOUR) == USD / HOUR


@given(st.integers(0, 10**15), st.floats(0, 1e6), st.integers(0, 10**15))
def test_what_is_to_come_is_no_less_than_what_was(spent: int, per_ns: float, left: int) -> None:
    assert projected(spent, per_ns, NOW, NOW + left) >= spent
    assert projected(spent, per_ns, NOW, NOW - 1) == spent


def test_a_few_calls_burn_nothing() -> None:
    assert burn_rate(Sums(judged=FEW - 1, faults=FEW - 1), 0.99) is None
    assert burn_rate(Sums(judged=FEW, faults=FEW), 0.99) == pytest.approx(100)
    assert [burn.rate for burn in burns(minutes((1, FEW - 1, FEW - 1)), NOW)] == [None] * 3


@pytest.mark.parametrize(
    ("parts", "firing"),
    [
        ([(1, 1000, 200)], [True, True, True]),
        ([(1, 1000, 1)], [False, False, False]),  # within the allowance
        ([(20, 1000, 200), (1, 1000, 0)], [False, True, True]),  # over in the short window of the first
        ([(50, 1000, 200), (1, 1000, 0)], [False, False, True]),
        ([(150, 1000, 200), (1, 1000, 0)], [False, False, False]),  # over in all short ones
        ([(300, 100_000, 0), (1, 1000, 200)], [True, False, False]),  # too little of six hours
        ([(2000, 1000, 1000), (1, 1000, 0)], [False, False, False]),  # long ago
    ],
)
def test_both_windows_must_burn(parts: list[tuple[int, int, int]], firing: list[bool]) -> None:
    found = burns(minutes(*parts), NOW)
    assert [burn.severity for burn in found] == ["page", "page", "ticket"]
    assert [burn.firing for burn in found] == firing


def test_days_to_come_are_those_of_the_week_again_and_of_a_young_one_its_mean() -> None:
    week = [5, 0, 0, 7, 8, 9, 6]  # the day after today is like the first
    assert [days_to_come(week, 0, days) for days in (0, 1, 3, 7, 9)] == [0, 5, 5, 35, 40]
    assert days_to_come(week, 3, 4) == 30, "of 7, 8, 9 and 6"
    assert days_to_come([0, 0, 0, 0, 0, 0, 6], 6, 3) == 18
