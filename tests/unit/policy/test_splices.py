"""Edits that were made for different reasons become one list that can be applied."""

from __future__ import annotations

import pytest

from gateway.call import Edit
from gateway.policy.splices import merged


def test_insertions_keep_the_order_in_which_they_were_made():
    first, second, later = Edit(1, 1, b"a"), Edit(1, 1, b"b"), Edit(5, 6, b"c")
    assert merged([later, first, second]) == (first, second, later)
    assert merged([later, second, first]) == (second, first, later)


def test_an_insertion_comes_before_what_is_replaced_at_its_place():
    insertion, replacement = Edit(4, 4, b"a"), Edit(4, 6, b"b")
    assert merged([replacement, insertion]) == (insertion, replacement)


@pytest.mark.parametrize(
    ("first", "second", "stands"),
    [(b"100", b"20", b"20"), (b"20", b"100", b"20"), (b'"a"', b'"b"', b'"b"'), (b"5", b"null", b"null")],
)
def test_of_two_numbers_in_one_place_the_smaller_stands_and_else_the_later(first, second, stands):
    assert merged([Edit(2, 4, first), Edit(2, 4, second)]) == (Edit(2, 4, stands),)


@pytest.mark.parametrize("other", [Edit(3, 9, b""), Edit(4, 5, b""), Edit(4, 4, b"")])
def test_edits_that_overlap_in_part_are_a_mistake(other):
    with pytest.raises(ValueError):
        merged([Edit(2, 6, b"x"), other])
