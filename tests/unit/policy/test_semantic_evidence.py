import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.semantic_evidence import Tally, wilson


def test_wilson_gives_published_values():
    found = wilson(10, 100)  # Newcombe 1998, method 3
    assert (found.lower, found.upper) == pytest.approx((0.0552, 0.1744), abs=1e-4)


def test_nothing_is_known_of_nothing():
    found = wilson(0, 0)
    assert (found.lower, found.upper) == (0.0, 1.0)


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_the_interval_holds_the_share_seen(count, part):
    wrong = round(count * part)
    found = wilson(wrong, count)
    assert 0 <= found.lower <= wrong / count <= found.upper <= 1


def test_the_ends_are_exact():
    for count in range(1, 2000):
        assert wilson(0, count).lower == 0.0
        assert wilson(count, count).upper == 1.0


def test_equal_weights_count_like_none():
    plain, weighted = Tally(), Tally()
    for number in range(100):
        plain.add(number % 10 != 0, 1.0)
        weighted.add(number % 10 != 0, 25.0)
    assert weighted.effective == pytest.approx(100)
    assert weighted.interval.upper == pytest.approx(plain.interval.upper)


def test_one_wrong_hit_that_stands_for_many_is_one_event():
    tally, plain = Tally(), Tally()
    for number in range(150):
        tally.add(True, 2.0)
        plain.add(number > 0, 2.0)
    tally.add(False, 25.0)
    assert tally.effective == pytest.approx((300 + 25) / 25)  # the wrong one, and so many like it as it is the share of
    assert tally.interval.lower < 0.02 < tally.share
    assert plain.effective == pytest.approx(150)


@pytest.mark.parametrize(("share", "hits"), [(0.002, 1500), (0.01, 2500)])
def test_the_interval_holds_the_truth_also_where_wrong_hits_are_rare(share, hits):
    """The first hundred and fifty hits by every second, those behind by every twenty-fifth, the doubtful ones more."""
    draw, inside, tries = random.Random(6), 0, 300
    for _ in range(tries):
        tally, wrong = Tally(), 0
        for number in range(hits):
            doubt = min(0.5, draw.expovariate(1 / share))
            right = draw.random() >= doubt
            wrong += not right
            checked = 0.5 if number < 150 else min(0.5, 0.04 * max(0.8, (doubt / share) ** 0.5))
            if draw.random() < checked:
                tally.add(right, 1 / checked)
        inside += tally.interval.lower <= wrong / hits <= tally.interval.upper
    assert inside >= 0.94 * tries


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """A sample drawn by doubt, as a scope draws it: nineteen in twenty, give or take what 400 tries allow."""
    draw = random.Random(3)
    inside = 0
    for _ in range(400):
        tally, wrong, hits = Tally(), 0, 2000
        for _ in range(hits):
            doubtful = draw.random() < 0.3
            right = draw.random() >= (0.05 if doubtful else 0.004)
            wrong += not right
            share = 0.08 if doubtful else 0.03
            if draw.random() < share:
                tally.add(right, 1 / share)
        inside += tally.interval.lower <= wrong / hits <= tally.interval.upper
    assert inside >= 400 * 0.93
