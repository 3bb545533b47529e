"""When calls are sent away, and which."""

from __future__ import annotations

import pytest

from gateway.policy.bulkhead import BATCH, INTERACTIVE, URGENT
from gateway.policy.overload import CALM, Marks, Overload

MS = 10**6
TICK = 250 * MS
MARKS = Marks(lag=200 * MS, memory=1000)


def looked(*lags: int, memory: int = 0) -> Overload:
    overload = Overload(MARKS)
    for at, lag in enumerate(lags):
        overload.look(lag * MS, memory, at * TICK)
    return overload


@pytest.mark.parametrize(("lag", "level"), [(0, 0), (190, 0), (210, 1), (420, 2), (900, 3)])
def test_the_loop_is_late(lag: int, level: int) -> None:
    overload = looked(*[lag] * 10)
    assert (overload.level, overload.cause) == (level, "lag" if level else "")


@pytest.mark.parametrize(("memory", "level"), [(999, 0), (1000, 1), (1100, 2), (1199, 2), (1200, 3)])
def test_memory_is_short(memory: int, level: int) -> None:
    assert looked(0, memory=memory).level == level


def test_one_hiccup_is_none():
    assert looked(0, 390, 0, 0).level == 0


def test_what_is_not_marked_is_not_looked_at():
    overload = Overload(Marks(memory=1000))
    overload.look(10**12, 10, 0)
    assert overload.level == 0


@pytest.mark.parametrize(
    ("level", "away"),
    [
        (0, set()),
        (1, {(BATCH, False), (BATCH, True), (INTERACTIVE, True)}),
        (2, {(BATCH, False), (BATCH, True), (INTERACTIVE, False), (INTERACTIVE, True), (URGENT, True)}),
        (3, {(kind, again) for kind in (BATCH, INTERACTIVE, URGENT) for again in (False, True)}),
    ],
)
def test_those_that_matter_least_go_first_and_retries_before_first_attempts(level, away):
    overload = Overload(MARKS)
    overload.level = level
    sent = {
        (kind, again)
        for kind in (BATCH, INTERACTIVE, URGENT)
        for again in (False, True)
        if overload.sheds(kind, again=again)
    }
    assert sent == away


def test_it_is_over_within_five_seconds():
    overload = looked(*[3000] * 10)
    assert overload.level == 3
    now, began = 10 * TICK, 10 * TICK
    levels = []
    while overload.level:
        overload.look(0, 0, now)
        levels.append(overload.level)
        now += TICK
        assert now - began < 5 * 10**9
    assert levels == sorted(levels, reverse=True)
    assert now - began >= 3 * CALM  # one step after the other
    assert overload.cause == ""


def test_load_just_below_the_mark_keeps_the_level():
    overload = looked(*[250] * 10)
    for at in range(40):
        overload.look(190 * MS, 0, (10 + at) * TICK)
    assert overload.level == 1
