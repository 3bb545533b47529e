"""The breaker around a store: one fault opens it, each change is told once, probes grow apart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.outage import FIRST, LONGEST, Outage, State


def test_one_fault_is_enough_and_is_told_once() -> None:
    outage = Outage()
    assert (outage.state, outage.here) == (State.STARTING, False)
    assert outage.back(1.0)
    assert outage.here
    assert not outage.back(2.0)
    assert outage.fault(3.0)
    assert not outage.here
    assert not outage.fault(4.0)
    assert (outage.outages, outage.since) == (1, 3.0)
    assert outage.learning(5.0)
    assert not outage.learning(6.0)
    assert not outage.here
    assert outage.back(7.0)


def test_probes_grow_apart_and_begin_anew_after_an_outage() -> None:
    outage = Outage()
    outage.back(0)
    outage.fault(1)
    pauses = [outage.pause()]
    for n in range(12):
        outage.fault(2 + n)
        pauses.append(outage.pause())
    assert pauses[:3] == [FIRST, 2 * FIRST, 4 * FIRST]
    assert pauses[-1] == LONGEST
    outage.back(20)
    outage.fault(21)
    assert outage.pause() == FIRST


@given(st.lists(st.sampled_from(["fault", "back", "learning"]), max_size=60))
def test_told_is_what_changed(steps: list[str]) -> None:
    outage, outages = Outage(), 0
    for now, step in enumerate(steps):
        before = outage.state
        told = getattr(outage, step)(float(now))
        assert told == (outage.state is not before)
        outages += step == "fault" and told
        assert outage.outages == outages
        assert FIRST <= outage.pause() <= LONGEST
        assert outage.here == (outage.state is State.HERE)
