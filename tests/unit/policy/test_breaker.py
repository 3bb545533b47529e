from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.breaker import NANO, PROBE_SECONDS, Breaker, Outcome, Permit, State, Terms

GOOD, BAD, SLOW, NEITHER = Outcome.SUCCESS, Outcome.FAILURE, Outcome.SLOW, Outcome.NEITHER
QUICK = Terms(window=10 * NANO, volume=4, failures=0.5, consecutive=3, pause=NANO, longest=4 * NANO)
RATES = Terms(window=10 * NANO, volume=4, failures=0.5, slow=0.75, consecutive=0)


def feed(breaker: Breaker, outcomes: list[Outcome], now: int = 0) -> None:
    for outcome in outcomes:
        permit = breaker.admit(now)
        assert permit is not None
        breaker.report(permit, outcome, now)


def opened(terms: Terms = QUICK, now: int = 0) -> Breaker:
    breaker = Breaker(terms)
    feed(breaker, [BAD] * 3, now)
    assert breaker.state is State.OPEN
    return breaker


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [
        ([BAD, BAD], State.CLOSED),
        ([BAD, BAD, BAD], State.OPEN),
        ([BAD, BAD, GOOD, BAD], State.OPEN),  # three of four
        ([BAD, NEITHER, BAD, NEITHER, BAD], State.OPEN),
        ([BAD, BAD, GOOD], State.CLOSED),
        ([NEITHER] * 50, State.CLOSED),
    ],
)
def test_when_it_opens(outcomes: list[Outcome], state: State) -> None:
    breaker = Breaker(QUICK)
    feed(breaker, outcomes)
    assert breaker.state is state


def test_four_bad_and_one_good_for_ever_do_open_it() -> None:
    breaker = Breaker(Terms(volume=10, failures=0.5, consecutive=5))
    feed(breaker, [BAD, BAD, BAD, BAD, GOOD, BAD, BAD, BAD, BAD])
    assert breaker.state is State.CLOSED
    feed(breaker, [GOOD, BAD])
    assert breaker.state is State.OPEN
    assert "of 11 calls failed" in breaker.why


def test_slow_calls_count_where_that_is_wanted() -> None:
    breaker = Breaker(RATES)
    feed(breaker, [SLOW, GOOD, SLOW, SLOW])
    assert breaker.state is State.OPEN
    breaker = Breaker(QUICK)
    feed(breaker, [SLOW] * 20)
    assert breaker.state is State.CLOSED


def test_what_left_the_window_is_forgotten() -> None:
    breaker = Breaker(RATES)
    feed(breaker, [BAD, BAD], now=0)
    feed(breaker, [GOOD], now=5 * NANO)
    feed(breaker, [BAD], now=11 * NANO)
    assert breaker.state is State.CLOSED
    feed(breaker, [BAD], now=12 * NANO)
    assert breaker.state is State.CLOSED, "one good, two bad: three calls are too few"
    feed(breaker, [BAD], now=12 * NANO)
    assert breaker.state is State.OPEN


def test_a_clock_that_jumps_forgets_and_breaks_nothing() -> None:
    breaker = Breaker(RATES)
    feed(breaker, [BAD, BAD, BAD], now=10**15)
    feed(breaker, [BAD], now=5)
    assert breaker.state is State.CLOSED
    feed(breaker, [BAD] * 3, now=10**18)
    assert breaker.state is State.CLOSED


def test_open_means_open_until_its_time_is_over() -> None:
    breaker = opened()
    assert breaker.admit(NANO - 1) is None
    probe = breaker.admit(NANO)
    assert probe is not None
    assert probe.probe
    assert breaker.state is State.HALF_OPEN


def test_one_probe_at_a_time() -> None:
    breaker = opened(Terms(consecutive=3, pause=NANO, probes=2))
    first = breaker.admit(NANO)
    assert first is not None
    assert [breaker.admit(NANO) for _ in range(500)] == [None] * 500
    breaker.report(first, GOOD, NANO)
    second = breaker.admit(NANO)
    assert second is not None
    assert breaker.admit(NANO) is None
    breaker.report(second, GOOD, NANO)
    assert breaker.state is State.CLOSED
    assert breaker.admit(NANO) is not None


def test_a_probe_that_nobody_waits_for_has_several_times_what_answers_take() -> None:
    terms = Terms(consecutive=3, pause=NANO, longest=4 * NANO)
    breaker = Breaker(terms)
    for _ in range(50):
        breaker.learn(2 * NANO, stream=True)
        breaker.learn(NANO // 10, stream=False)
    assert breaker.bound(stream=True) == 10 * NANO
    assert breaker.bound(stream=False) == NANO, "a pause at least"
    unknown, bounds = opened(terms), []
    for _ in range(10):
        bounds.append(unknown.bound(stream=True) // NANO)
        probe = unknown.admit(unknown.until)
        assert probe is not None
        unknown.report(probe, SLOW, unknown.until)
    assert bounds == [4, 8, 16, 32, 64, 128, 256, 512, PROBE_SECONDS, PROBE_SECONDS]


def test_a_probe_of_which_nothing_is_known_gives_its_place_back() -> None:
    breaker = opened()
    probe = breaker.admit(NANO)
    assert probe is not None
    assert breaker.report(probe, NEITHER, NANO) is None
    assert breaker.state is State.HALF_OPEN
    assert breaker.admit(NANO) is not None


def test_a_probe_that_is_never_heard_of_loses_its_place() -> None:
    breaker = opened()
    assert breaker.admit(NANO) is not None
    assert breaker.admit(2 * NANO) is None
    assert breaker.admit(NANO + PROBE_SECONDS * NANO) is not None


def test_a_probe_that_fails_opens_it_for_twice_as_long() -> None:
    breaker, now, pauses = opened(), 0, []
    for _ in range(5):
        now = breaker.until
        probe = breaker.admit(now)
        assert probe is not None
        breaker.report(probe, BAD, now)
        pauses.append((breaker.until - now) // NANO)
    assert pauses == [2, 4, 4, 4, 4]
    probe = breaker.admit(breaker.until)
    assert probe is not None
    now = breaker.until
    breaker.report(probe, GOOD, now)
    feed(breaker, [BAD] * 3, now=now)
    assert breaker.until == now + NANO, "a recovery begins anew"


def test_what_the_upstream_asks_for_is_kept_up_to_the_longest() -> None:
    for wait, until in ((3, 3), (100, 4), (0, 1)):
        breaker = Breaker(QUICK)
        feed(breaker, [BAD, BAD])
        permit = breaker.admit(0)
        assert permit is not None
        breaker.report(permit, BAD, 0, wait * NANO)
        assert breaker.until == until * NANO


@pytest.mark.parametrize("wait", [NANO, 2 * NANO])
def test_one_that_asks_to_be_left_alone_is(wait: int) -> None:
    breaker = Breaker(QUICK)
    permit = breaker.admit(0)
    assert permit is not None
    assert breaker.report(permit, BAD, 0, NANO - 1) is None, "less than a second is for the retry"
    change = breaker.report(permit, BAD, 0, wait)
    assert change is not None
    assert (change.state, breaker.until) == (State.OPEN, wait)


def test_late_failures_of_calls_begun_before_are_dropped() -> None:
    breaker = Breaker(QUICK)
    late = [breaker.admit(0) for _ in range(10)]
    feed(breaker, [BAD] * 3)
    until = breaker.until
    for permit in late:
        assert permit is not None
        assert breaker.report(permit, BAD, NANO // 2) is None
    assert breaker.until == until
    probe = breaker.admit(NANO)
    assert probe is not None
    assert breaker.report(Permit(0), BAD, NANO) is None
    breaker.report(probe, GOOD, NANO)
    assert breaker.state is State.CLOSED


def test_what_others_found_is_taken_over_where_it_is_newer() -> None:
    breaker = Breaker(QUICK)
    change = breaker.adopt(opened=True, until=9 * NANO, at=1, now=NANO)
    assert change is not None
    assert (breaker.state, breaker.refuses(2 * NANO), breaker.why) == (State.OPEN, True, "others found it failing")
    assert breaker.until - NANO <= QUICK.longest, "no longer than it may be"
    assert breaker.adopt(opened=True, until=99 * NANO, at=2, now=NANO) is None
    assert breaker.adopt(opened=False, until=0, at=NANO, now=2 * NANO) is None
    assert breaker.refuses(NANO + 1), "that was before"
    assert breaker.adopt(opened=False, until=0, at=NANO + 5, now=2 * NANO) is None
    assert not breaker.refuses(2 * NANO)
    probe = breaker.admit(2 * NANO)
    assert probe is not None
    assert probe.probe
    breaker.report(probe, GOOD, 2 * NANO + 1)
    assert breaker.state is State.CLOSED
    for at in (2 * NANO, 2 * NANO + 1):
        assert breaker.adopt(opened=True, until=99 * NANO, at=at, now=3 * NANO) is None, "it has healed since"
    assert breaker.adopt(opened=True, until=3 * NANO, at=3 * NANO, now=3 * NANO) is None, "that is over"


def test_changes_are_told() -> None:
    breaker = Breaker(QUICK)
    feed(breaker, [BAD, BAD])
    permit = breaker.admit(0)
    assert permit is not None
    change = breaker.report(permit, BAD, 0)
    assert change is not None
    assert (change.state, change.why, change.until) == (State.OPEN, "3 failures in a row", NANO)


STEPS = st.lists(
    st.tuples(st.sampled_from([GOOD, BAD, SLOW, NEITHER]), st.integers(0, 3), st.booleans()), min_size=1, max_size=120
)


@settings(max_examples=300)
@given(STEPS)
def test_against_a_plain_model(steps: list[tuple[Outcome, int, bool]]) -> None:
    """The model keeps every outcome and counts by hand. Time moves by whole tenths of the window, so both cut alike."""
    terms = Terms(window=10 * NANO, volume=5, failures=0.6, slow=0.8, consecutive=4, pause=3 * NANO, longest=12 * NANO)
    breaker, now = Breaker(terms), 0
    seen: deque[tuple[int, Outcome]] = deque()
    row = tries = until = 0
    state, pending = State.CLOSED, 0
    for outcome, seconds, held in steps:
        now += seconds * NANO
        if state is State.OPEN and now >= until:
            state, pending = State.HALF_OPEN, 0
        wanted = state is State.CLOSED or (state is State.HALF_OPEN and not pending)
        before = (breaker.state, breaker.era)
        assert breaker.refuses(now) == (not wanted)
        assert (breaker.state, breaker.era) == before, "it was only asked"
        permit = breaker.admit(now)
        assert (permit is not None) == wanted
        assert breaker.state is state
        if permit is None:
            continue
        if state is State.HALF_OPEN and held:
            pending = 1
            assert breaker.admit(now) is None
            assert breaker.refuses(now)
            pending = 0
        breaker.report(permit, outcome, now)
        if outcome is NEITHER:
            continue
        if state is State.HALF_OPEN:
            seen.clear()
            row = 0
            if outcome is GOOD:
                state, tries = State.CLOSED, 0
            else:
                until, tries, state = now + min(12, 3 << tries) * NANO, tries + 1, State.OPEN
            continue
        seen.append((now // NANO, outcome))
        row = row + 1 if outcome is BAD else 0
        while seen and seen[0][0] <= now // NANO - 10:
            seen.popleft()
        bad = sum(one is BAD for _, one in seen)
        slow = sum(one is not GOOD for _, one in seen)
        enough = len(seen) >= 5 and (bad >= 0.6 * len(seen) or slow >= 0.8 * len(seen))
        if outcome is not GOOD and (row >= 4 or enough):
            until, tries, state = now + min(12, 3 << tries) * NANO, tries + 1, State.OPEN
            seen.clear()
            row = 0
    assert breaker.state is state
