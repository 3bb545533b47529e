"""Patterns with one wildcard, held against the regular expression they stand for."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.config.patterns import any_matches, covers, matches

WORDS = st.text("ab*", max_size=8)
NAMES = st.text("ab", max_size=10)


def by_expression(pattern, name):
    return re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name, re.DOTALL) is not None


@given(WORDS, NAMES)
@example("a*a", "a")
@example("ab*ba", "aba")
@example("*", "")
def test_it_means_what_the_expression_means(pattern, name):
    assert matches(pattern, name) == by_expression(pattern, name)


@given(WORDS, WORDS, NAMES)
def test_what_is_covered_matches_nothing_else(wide, narrow, name):
    if covers(wide, narrow) and matches(narrow, name):
        assert matches(wide, name)


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ("*", "gpt-*", True),
        ("gpt-*", "gpt-4o", True),
        ("gpt-*", "gpt-4*", True),
        ("gpt-*", "*", False),
        ("gpt-*", "claude-x", False),
        ("*-mini", "gpt-*-mini", True),
        ("gpt-4o", "gpt-4*", False),
        ("a*c*", "a*", False),
    ],
)
def test_coverage(wide, narrow, expected):
    assert covers(wide, narrow) is expected


def test_no_other_character_is_special():
    assert not matches("a.c", "abc")
    assert not matches("a?c", "abc")
    assert matches("[a]", "[a]")
    assert any_matches(("x", "a*"), "abc")
    assert not any_matches((), "abc")


def test_many_wildcards_cost_no_more_than_their_number():
    pattern, name = "a*" * 100 + "b", "a" * 5000
    assert not matches(pattern, name)  # a backtracking match would not end
