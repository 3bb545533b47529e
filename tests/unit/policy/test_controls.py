"""Decisions, and what they add up to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Asked, Call, Request, Route, Trace, Who
from gateway.key import Key
from gateway.policy.controls import Caps, Decision, Kind, Scope, Standing, Standings, after, words
from gateway.spend import NANO_USD, RunLimits

decisions = st.builds(
    Decision,
    kind=st.sampled_from(Kind),
    scope=st.sampled_from(Scope),
    value=st.sampled_from(["a", "b"]),
    amount=st.integers(1, 9 * NANO_USD),
    reason=st.sampled_from(["", "loops", "too dear"]),
    who=st.sampled_from(["", "ops"]),
    at=st.integers(0, 10**18),
    limits=st.one_of(st.none(), st.builds(RunLimits, calls=st.integers(1, 9))),
    caps=st.one_of(st.none(), st.builds(Caps, rpm=st.integers(1, 9))),
)


def call_of(**who: str) -> Call:
    request = Request(b"POST", b"/v1/chat/completions", (), b"")
    route = Route("/v1/chat/completions", "openai_chat", "chat", "openai", b"/v1/chat/completions")
    return Call("c1", request, route, Asked(), Who(**who), Trace(), 0, 0)


def taken(*made: Decision) -> Standings:
    """As a store applies them, one by one."""
    known: dict[tuple[str, str], Standing] = {}
    standings = Standings()
    for revision, decision in enumerate(made, 1):
        subject = (decision.scope, decision.value)
        known[subject] = after(known.get(subject), decision, revision)
        standings.take([known[subject]])
    return standings


@pytest.mark.parametrize(
    ("scope", "who"),
    [
        (Scope.RUN, {"run_id": "x"}),
        (Scope.AGENT, {"agent": "x"}),
        (Scope.AGENT, {"agent": "y", "parent_agent": "x"}),
        (Scope.KEY, {"key_id": "x"}),
        (Scope.TEAM, {"team": "x"}),
        (Scope.TEAM, {"tenant": "x"}),
    ],
)
def test_a_kill_stops_its_subject_and_nobody_else(scope: Scope, who: dict[str, str]) -> None:
    standings = taken(Decision(Kind.KILL, scope, "x", reason="it loops", who="ops", at=5))
    why = standings.stopped(call_of(**who))
    assert why == f"{scope} x was stopped by ops: it loops. Every call is refused until it is resumed."
    others = {"run_id": "r", "agent": "a", "parent_agent": "p", "key_id": "k", "team": "t"}
    assert standings.stopped(call_of(**{"tenant": "x", **others})) is None  # the team of a key comes first
    assert standings.stopped(call_of(**others)) is None
    assert standings.stopped(call_of()) is None
    resumed = taken(Decision(Kind.KILL, scope, "x", at=5), Decision(Kind.RESUME, scope, "x", at=6))
    assert resumed.stopped(call_of(**who)) is None
    assert not resumed.stops


def test_a_key_is_stopped_by_its_name_and_with_those_above_it() -> None:
    call = call_of()
    call.key = Key("k2", name="laptop", parent="k1", above=(Key("k1", name="house", parent="k0"), Key("k0")))
    for value, stopped in (("laptop", True), ("k2", True), ("k1", True), ("house", True), ("k0", True), ("k3", False)):
        standings = taken(Decision(Kind.KILL, Scope.KEY, value, at=5))
        assert (standings.stopped(call) is not None) == stopped


def test_the_first_reason_stays_until_it_is_resumed() -> None:
    kill = Decision(Kind.KILL, Scope.RUN, "x", reason="first", at=1)
    again = Decision(Kind.KILL, Scope.RUN, "x", reason="second", at=2)
    resume = Decision(Kind.RESUME, Scope.RUN, "x", at=3)
    run = call_of(run_id="x")
    assert "first" in (taken(kill, again).stopped(run) or "")
    assert "second" in (taken(kill, resume, again).stopped(run) or "")


def test_a_raise_does_not_resume_and_a_resume_keeps_the_budget() -> None:
    kill = Decision(Kind.KILL, Scope.RUN, "x", at=1)
    more = Decision(Kind.RAISE, Scope.RUN, "x", 3 * NANO_USD, at=2)
    standings = taken(kill, more)
    assert standings.stopped(call_of(run_id="x")) is not None
    assert standings.raised("x") == 3 * NANO_USD
    assert taken(kill, more, Decision(Kind.RESUME, Scope.RUN, "x", at=3)).raised("x") == 3 * NANO_USD
    assert standings.raised("y") is None


def test_limits_are_set_as_a_whole() -> None:
    first = Decision(Kind.LIMIT, Scope.RUN, "x", limits=RunLimits(usd=5, calls=7))
    second = Decision(Kind.LIMIT, Scope.RUN, "x", limits=RunLimits(tools=2))
    assert taken(first).limits("x") == RunLimits(usd=5, calls=7)
    assert taken(first, second).limits("x") == RunLimits(tools=2)
    assert taken(first, Decision(Kind.LIMIT, Scope.RUN, "x")).limits("x") is None


def test_words_without_a_reason_or_a_name() -> None:
    assert (
        words(Standing(Scope.TEAM, "t", killed_at=1))
        == "team t was stopped. Every call is refused until it is resumed."
    )


@given(st.lists(decisions, max_size=12))
def test_only_the_last_decisions_of_a_subject_count(made: list[Decision]) -> None:
    standings = taken(*made)
    for scope in Scope:
        for value in ("a", "b"):
            mine = [d for d in made if (d.scope, d.value) == (scope, value)]
            last = next((d.kind for d in reversed(mine) if d.kind in (Kind.KILL, Kind.RESUME)), None)
            assert ((str(scope), value) in standings.stops) == (last is Kind.KILL)
            capped = next((d.caps for d in reversed(mine) if d.kind is Kind.CAP), None)
            assert standings.caps.get((str(scope), value)) == capped
    for value in ("a", "b"):
        mine = [d for d in made if (d.scope, d.value) == (Scope.RUN, value)]
        assert standings.raised(value) == next((d.amount for d in reversed(mine) if d.kind is Kind.RAISE), None)
        assert standings.limits(value) == next((d.limits for d in reversed(mine) if d.kind is Kind.LIMIT), None)


@given(st.lists(decisions, max_size=12), st.integers(0, 12))
def test_taking_the_changes_is_as_good_as_taking_everything(made: list[Decision], split: int) -> None:
    known: dict[tuple[str, str], Standing] = {}
    for revision, decision in enumerate(made, 1):
        subject = (decision.scope, decision.value)
        known[subject] = after(known.get(subject), decision, revision)
    anew = Standings()
    anew.replace([standing for standing in known.values() if standing.matters])
    step = taken(*made[:split])
    step.take(standing for standing in known.values() if standing.revision > split)
    assert step.stops == anew.stops
    assert step.caps == anew.caps
    before = step.caps
    step.replace([standing for standing in known.values() if standing.matters])
    assert step.caps is before  # nothing has changed: nobody has to look
    assert all(step.raised(v) == anew.raised(v) and step.limits(v) == anew.limits(v) for v in ("a", "b"))
