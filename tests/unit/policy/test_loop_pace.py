"""Calls and money per minute, against what is usual: rushes are seen, ordinary ups and downs are not."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.schema import Loops
from gateway.policy.loop_pace import KNOWN, MINIMUM_CALLS, MINUTE, Baseline, baseline, busy, pulse
from gateway.policy.loop_signals import call_rate, spend_rate

START = 1_790_000_000 // 60 * MINUTE
NANO = 10**9


def minute(beat, number, calls, nano_usd=0):
    return [beat.beat(START + number * MINUTE + n, nano_usd) for n in range(calls)]


def fed(values, spent=0):
    usual = Baseline()
    for value in values:
        usual.feed(value, spent)
    return usual


@given(st.binary(max_size=40))
def test_any_bytes_can_go_on(value):
    beat = pulse(value)
    beat.beat(START, 5)
    assert pulse(beat.pack()).pack() == beat.pack()
    usual = baseline(value)
    usual.feed(3, 4)
    assert baseline(usual.pack()).minutes == usual.minutes
    busy(value, START)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 2**40)), max_size=60))
def test_a_baseline_survives_a_journey_through_the_table(minutes):
    usual = Baseline()
    for calls, spent in minutes:
        usual.feed(calls, spent)
        found = baseline(usual.pack())
        assert found.calls.median == pytest.approx(usual.calls.median, abs=1 / 256)
        assert found.spent.spread == pytest.approx(usual.spent.spread, abs=1 / 256)
        assert found.pack() == usual.pack()
        usual = found


def test_minutes_are_told_when_they_are_over_and_idle_ones_do_not_count():
    beat = pulse(None)
    assert minute(beat, 0, 3, 2000) == [None] * 3
    assert minute(beat, 7, 2) == [(3, 6), None]
    assert (beat.calls, beat.spent, beat.usual.minutes) == (2, 0, 1)
    beat.beat(START, 0)  # another worker's clock is a little behind
    assert beat.calls == 3


def test_it_is_busy_only_in_a_minute_with_many_calls_or_much_money():
    beat = pulse(None)
    minute(beat, 0, MINIMUM_CALLS - 1)
    assert not busy(beat.pack(), START)
    minute(beat, 0, 1)
    assert busy(beat.pack(), START)
    assert not busy(beat.pack(), START + MINUTE)
    dear = pulse(None)
    minute(dear, 0, 1, 2 * NANO)
    assert busy(dear.pack(), START)
    assert not busy(None, START)


def test_a_median_stands_against_a_minority_of_wild_minutes():
    random = Random(1)
    usual = fed([1000 if random.random() < 0.3 else 4 for _ in range(250)])
    assert 3 < 2**usual.calls.median < 8


def test_a_rush_is_measured_against_the_agent_where_it_is_known_and_else_against_the_run():
    beat = pulse(None)
    for number in range(KNOWN):
        minute(beat, number, 4)
    minute(beat, KNOWN, MINIMUM_CALLS)
    found = call_rate(beat, Baseline(), Loops())
    assert found is not None
    assert found.evidence == {"count": 60, "usual": 4}
    assert found.reason == "60 calls within a minute, where 4 are usual."
    assert call_rate(beat, fed([30] * 20), Loops()) is None, "this agent is a quick one"
    assert call_rate(beat, fed([5] * 20), Loops()) is not None
    assert call_rate(beat, fed([5] * 20), Loops(rate_factor=20)) is None


def test_nothing_is_far_from_what_nobody_knows():
    beat = pulse(None)
    minute(beat, 0, 5000, NANO)
    assert call_rate(beat, fed([4] * (KNOWN - 1)), Loops()) is None
    assert spend_rate(beat, Baseline(), Loops()) is None


def test_spending_is_seen_though_the_calls_are_few():
    beat = pulse(None)
    minute(beat, 0, 3, NANO)
    usual = fed([3] * 20, spent=20_000)
    found = spend_rate(beat, usual, Loops())
    assert found is not None
    assert found.reason == "$3.00 spent within a minute, where $0.0200 are usual."
    assert call_rate(beat, usual, Loops()) is None
    assert spend_rate(beat, fed([3] * 20, spent=500_000), Loops()) is None


def test_wide_spreads_need_more():
    random = Random(2)
    steady, wild = fed([6] * 200), fed([int(2 ** random.uniform(0, 9)) for _ in range(200)])
    beat = pulse(None)
    minute(beat, 0, 300)
    assert call_rate(beat, steady, Loops()) is not None
    assert call_rate(beat, wild, Loops()) is None
