"""Answers are the same by what is written, by their sense where that is wanted, and by a judge where there is one."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.matcher.compare import Comparer
from gateway.ports_semantic import Vectors

LONG = "Your card is on its way and should be with you within a week."
REWORDED = "The card was sent and should reach you in a week."
UNLIKE = "To reset the password open the settings of the app."
ANGLES = {LONG: 0.0, REWORDED: 0.2, UNLIKE: 1.4, f"{REWORDED} In 3 weeks at most.": 0.1}


async def embed(text: str, until: int) -> Vectors | None:
    assert until == 0, "no call waits for it"
    angle = ANGLES.get(text)
    return None if angle is None else np.array([np.cos(angle), np.sin(angle)], dtype=np.float32)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Yes, it is.", "yes,  it is", True),
        ("Yes, it is.", "No, it is not.", False),
        ('{"a": 1, "b": [2]}', '{"b": [2], "a": 1}', True),
        ('{"a": 1}', '{"a": true}', False),
        ('{"a": 1}', '{"a": 2}', False),
        ("[1, 2]", "[2, 1]", False),
        ("{not json", "{not json either", False),
        ('["a"', '["a"]', False),
        (LONG, REWORDED, False),
    ],
)
async def test_by_what_is_written(one: str, other: str, same: bool) -> None:
    assert await Comparer(embed).same("q", one, other, True) is same


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (REWORDED, True),
        (UNLIKE, False),
        (f"{REWORDED} In 3 weeks at most.", False),  # near, but with a number of its own
        ("what cannot be embedded now", False),
    ],
)
async def test_by_sense(other: str, same: bool) -> None:
    comparer = Comparer(embed)
    comparer.by_sense = True
    assert await comparer.same("q", LONG, other, True) is same
    assert await comparer.same("q", other, LONG, False) is same


async def test_the_judge_is_asked_about_the_given_answer_alone() -> None:
    asked: list[str] = []

    async def judge(question: str, stored: str, fresh: str) -> bool | None:
        asked.append(stored)
        return True

    comparer = Comparer(embed)
    comparer.judge = judge
    assert await comparer.same("q", "forty metres", "40 m", True) is True
    assert await comparer.same("q", "four inches", "40 m", False) is None
    assert await comparer.same("q", "40 M.", "40 m", False) is True
    assert asked == ["forty metres"]


async def test_what_the_sense_settles_costs_no_judge() -> None:
    async def judge(question: str, stored: str, fresh: str) -> bool | None:
        raise AssertionError("not to be asked")

    comparer = Comparer(embed)
    comparer.judge, comparer.by_sense = judge, True
    assert await comparer.same("q", LONG, REWORDED, True) is True
