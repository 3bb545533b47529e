import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.semantic_compare import MOST_LETTERS, OTHER_BELOW, SAME_FROM, Verdict, by_sense, compare

SAME, OTHER, UNKNOWN = Verdict.SAME, Verdict.OTHER, Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("one", "other", "verdict"),
    [
        ("Paris.", "  paris", SAME),
        ('"Yes!"', "yes", SAME),
        ("a  b\nc", "A b c.", SAME),
        ('{"a": 1, "b": [2, 3]}', '{"b":[2,3],"a":1}', SAME),
        ('{"a": [2, 3]}', '{"a": [3, 2]}', OTHER),
        ('{"a": 1}', '{"a": true}', OTHER),
        ('{"a": 1}', "the value is 1", OTHER),
        ("{a", "{ a", UNKNOWN),
        ("It costs 5 dollars.", "It costs 6 dollars.", OTHER),
        ("It costs 5 dollars.", "The price: 5 dollars", UNKNOWN),
        ("It costs five dollars.", "The price: 5 dollars", UNKNOWN),
        ("See E_ABC.", "See E_ABD.", OTHER),
        ("You can cancel it.", "You cannot cancel it.", OTHER),
        ("It is open.", "The shop is open.", UNKNOWN),
    ],
)
def test_what_is_written_decides_where_it_can(one, other, verdict):
    assert compare(one, other) is compare(other, one) is verdict


def test_the_sense_decides_the_rest_and_between_two_bounds_nothing_does():
    pair = ("It is open.", "The shop is open.")
    assert by_sense(*pair, SAME_FROM) is SAME
    assert by_sense(*pair, SAME_FROM - 0.01) is UNKNOWN
    assert by_sense(*pair, OTHER_BELOW) is UNKNOWN
    assert by_sense(*pair, OTHER_BELOW - 0.01) is OTHER


def test_no_cosine_overrules_what_is_written():
    assert by_sense("It costs 5 dollars.", "It costs 6 dollars.", 1.0) is OTHER
    assert by_sense("Paris", "paris", -1.0) is SAME


def test_of_a_long_answer_only_equality_is_known():
    long = "word " * (MOST_LETTERS // 4)
    assert by_sense(long, long + "more", 1.0) is UNKNOWN
    assert by_sense(long, long + "5", 1.0) is UNKNOWN
    assert by_sense(long, long.upper(), 0.0) is SAME


@given(st.text(max_size=80), st.text(max_size=80), st.floats(-1, 1))
def test_it_is_the_same_both_ways_and_an_answer_equals_itself(one, other, cosine):
    assert by_sense(one, other, cosine) is by_sense(other, one, cosine)
    assert by_sense(one, one, cosine) is SAME


@given(st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3), st.lists, max_leaves=8))
def test_deep_json_is_compared(value):

    text = msgspec.json.encode([value]).decode()
    assert compare(text, f" {text} ") is SAME
    assert compare(text, msgspec.json.encode([value, 0]).decode()) is OTHER
