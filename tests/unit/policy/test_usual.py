"""What calls usually cost: a running percentile."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.usual import ENOUGH, MOST, fed, usual_key, usual_of

COUNT = st.integers(0, 2**70)


def memory(values: list[int]) -> bytes | None:
    value: bytes | None = None
    for one in values:
        value = fed(value, one, one)
    return value


def test_it_is_not_trusted_before_enough_calls() -> None:
    assert usual_of(memory([5] * (ENOUGH - 1))) is None
    usual = usual_of(memory([5] * ENOUGH))
    assert usual is not None
    assert (usual.nano, usual.tokens) == (5, 5)


@pytest.mark.parametrize("seed", range(5))
def test_about_one_call_in_twenty_is_above_it(seed: int) -> None:
    rng = random.Random(seed)
    value, above = None, 0
    for at in range(6000):
        drawn = int(rng.lognormvariate(12, 0.8))
        usual = usual_of(value)
        if at >= 1000 and usual is not None:
            above += drawn > usual.nano
        value = fed(value, drawn, 1)
    assert 0.03 < above / 5000 < 0.09


def test_it_follows_a_change() -> None:
    usual = usual_of(memory([1_000] * 300 + [50_000] * 300))
    assert usual is not None
    assert 40_000 < usual.nano <= 50_000


@given(st.lists(st.tuples(COUNT, COUNT), max_size=60))
def test_any_counts_are_taken_and_never_pass_the_largest(values: list[tuple[int, int]]) -> None:
    value: bytes | None = None
    for nano, tokens in values:
        value = fed(value, nano, tokens)
    usual = usual_of(value)
    if usual is not None:
        assert 0 <= usual.nano <= min(max(nano for nano, _ in values), MOST)
        assert 0 <= usual.tokens <= min(max(tokens for _, tokens in values), MOST)


@given(st.binary(max_size=40))
def test_what_is_no_memory_is_none(value: bytes) -> None:
    usual_of(value)
    assert isinstance(fed(value, 1, 1), bytes)


def test_keys_of_different_pairs_differ() -> None:
    assert len({usual_key("a", "bc"), usual_key("ab", "c"), usual_key("", "abc")}) == 3
