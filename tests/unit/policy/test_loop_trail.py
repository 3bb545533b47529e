"""What is remembered of an agent's steps: compact, the same after a journey through a table, and never a fault."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.loop_facts import SKETCH, sketch
from gateway.policy.loop_trail import ASIDE, LIMIT, STEPS, STREAKS, Mark, Trail, unpack

halves = st.integers(1, 0xFFFF)
few = st.integers(1, 6)  # so that things come again
things = halves | few
marks = st.builds(
    Mark,
    things,
    things,
    st.lists(things, max_size=4).map(tuple),
    st.lists(st.tuples(few, few), max_size=6, unique=True).map(tuple),
    st.lists(few, max_size=3).map(tuple),
)


@given(st.lists(marks, max_size=60), st.integers(4, STEPS), st.integers(0, 2**32 - 1))
def test_a_trail_survives_a_journey_through_the_table(steps, window, key):
    trail = Trail()
    for number, mark in enumerate(steps):
        trail.push(mark, (key + number) & 0xFFFFFFFF, window)
        packed = trail.pack()
        assert len(packed) <= LIMIT
        found = unpack(packed)
        assert found.pack() == packed
        assert (found.key, found.steps, found.stale, found.fresh) == (trail.key, number + 1, trail.stale, trail.fresh)
        assert found.entries == trail.entries
        assert found.streaks == trail.streaks
        assert trail.seen.endswith(found.seen)
        trail = found
    assert trail.entries == tuple(mark.done << 16 | mark.brought for mark in steps[-window:])
    assert len(trail.streaks) <= STREAKS


def test_steps_that_follow_on_no_known_one_count_after_a_while():
    trail = Trail()
    assert not trail.is_aside(8)  # nothing is known
    trail.push(Mark(1, 1, (1,)), 1, 20, 9, 8)
    assert not trail.is_aside(9)
    assert not trail.is_aside(0)  # the body does not show what it follows on
    for _ in range(ASIDE):
        assert trail.is_aside(5)
        trail.aside += 1
        trail = unpack(trail.pack())
    assert not trail.is_aside(5)
    trail.push(Mark(1, 1, (1,)), 2, 20, 6, 5)
    assert not trail.is_aside(7)  # who rewrites its history does so in each step
    trail.push(Mark(1, 1, (1,)), 3, 20, 7, 6)
    assert trail.is_aside(5)


@given(st.binary(max_size=LIMIT))
def test_any_bytes_are_a_trail_that_can_go_on(value):
    trail = unpack(value)
    trail.push(Mark(3, 4, (5,), ((1, 2),), (9,)), 7, 20)
    assert len(trail.pack()) <= LIMIT
    assert trail.entries[-1] == 3 << 16 | 4


@given(st.lists(halves, unique=True, min_size=1, max_size=80))
def test_what_is_new_is_never_stale(news):
    trail = Trail()
    for number, thing in enumerate(news):
        trail.push(Mark(1, 1, (thing,)), number + 1, 20)
        assert trail.stale == 0


def test_news_are_told_from_what_was_seen():
    trail = Trail()
    for thing, stale in ((5, 0), (6, 0), (5, 1), (6, 2), (7, 0), (5, 1)):
        trail.push(Mark(1, 1, (thing,)), 1, 20)
        assert trail.stale == stale
    assert trail.fresh == 0b110010
    assert trail.knows(7)
    assert not trail.knows(8)


def test_bytes_of_neighbours_are_no_thing():
    trail = Trail()
    trail.push(Mark(1, 1, (0x1122, 0x3344)), 1, 20)
    assert not trail.knows(0x4411)
    assert not trail.knows(0x2233)


def test_a_success_ends_the_streak_of_its_tool_only():
    trail = Trail()
    for _ in range(3):
        trail.push(Mark(1, 1, (), ((1, 7), (2, 8))), 1, 20)
    assert sorted((s.tool, s.count, s.dry) for s in trail.streaks) == [(1, 3, 3), (2, 3, 3)]
    trail.push(Mark(1, 1, (99,), (), (2,)), 1, 20)
    assert [(s.tool, s.count, s.dry) for s in trail.streaks] == [(1, 3, 0)]
    trail.push(Mark(1, 1, (), ((1, 7),)), 1, 20)
    assert [(s.tool, s.count, s.dry) for s in trail.streaks] == [(1, 4, 1)]


def test_a_streak_is_forgotten_when_it_left_the_window():
    trail = Trail()
    trail.push(Mark(1, 1, (), ((1, 7),)), 1, 4)
    for thing in range(10, 14):
        trail.push(Mark(1, 1, (thing,), ((2, thing),)), 1, 4)
    assert all(streak.tool != 1 for streak in trail.streaks)


@given(st.text(max_size=500))
def test_a_sketch_is_nothing_or_four_numbers(text):
    assert len(sketch(text)) in (0, SKETCH)
    assert all(0 < value <= 0xFFFF for value in sketch(text))


def test_sketches_of_other_words_share_little():
    said = "the report about vector clocks is complete and every requested section has been written as described"
    again = "as described, every requested section has been written and the complete report is about vector clocks"
    other = "unable to reach database server because permission was denied while opening its socket for reading"
    assert sketch(said) == sketch(again)
    assert len(set(sketch(said)) & set(sketch(other))) <= 1
