"""The cache of similar questions through the API: what is known of it, and what people can say."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.policy.cached import Chosen
from gateway.ports import Feedback, MatcherState, Noted, ScopeState


def scope(**more: Any) -> ScopeState:
    return ScopeState(**{
        "scope": "t/a/m", "tenant": "t", "mode": "serve", "target": 0.01, "labels": 500, "verified": 100, "wrong": 1,
        "share": 0.008, "lower": 0.002, "upper": 0.04, "cut": 0.9, "hits": 2000, "would": 5, "saved": 3 * 10**12,
        "shadow_cost": 10**11, "tripped": False, "trips": 0, "entries": 70, "reported": 2, **more,
    })  # fmt: skip


async def test_while_the_matcher_is_away_that_is_said(gate: Any) -> None:
    gate.matcher.known = None
    assert (await gate.get("/api/cache/semantic", 503))["code"] == "matcher_unavailable"
    body = {"verdict": "wrong", "request_id": "c"}
    assert (await gate.post("/api/cache/feedback", body, 503))["code"] == "matcher_unavailable"
    assert await gate.send("DELETE", "/api/cache", 200) == {"cleared": 0}


async def test_what_is_known_of_each_scope(gate: Any) -> None:
    few = scope(scope="u/-/m", labels=3, verified=0, wrong=0, share=0.0, lower=0.0, upper=1.0, cut=2.0)
    gate.matcher.known = MatcherState("mini", "", 70, 1, 2, (few, scope()))
    found = await gate.get("/api/cache/semantic")
    assert (found["embedder"], found["questions"], found["lessons_waiting"], found["dropped"]) == ("mini", 70, 1, 2)
    first, second = found["scopes"]
    assert (first["scope"], first["status"], first["why"], first["cut"]) == ("t/a/m", "serving", "", 0.9)
    assert (first["wrong_share"], first["wrong_lower"], first["wrong_upper"]) == (0.008, 0.002, 0.04)
    assert (first["saved_usd"], first["shadow_cost_usd"], first["reported_wrong"]) == (3.0, 0.1, 2)
    assert (second["status"], second["cut"], second["wrong_share"]) == ("learning", None, None)
    assert "3 compared answers do not show yet that at most 1.00% are wrong" in second["why"]
    await gate.get("/api/cache/semantic?x=1", 400)


@pytest.mark.parametrize(
    ("more", "status", "why"),
    [
        ({"tripped": True, "cut": 2.0}, "tripped", "more than 1.00% of the answers were wrong beyond doubt"),
        ({"mode": "shadow"}, "shadow", "the mode is shadow"),
    ],
)
async def test_why_nothing_is_given(gate: Any, more: Any, status: str, why: str) -> None:
    gate.matcher.known = MatcherState("", "no numpy", 0, 0, 0, (scope(**more),))
    found = await gate.get("/api/cache/semantic")
    assert (found["embedder"], found["trouble"]) == (None, "no numpy")
    assert found["scopes"][0]["status"] == status
    assert why in found["scopes"][0]["why"]


async def test_feedback_reaches_the_matcher(gate: Any) -> None:
    gate.matcher.known, gate.matcher.noted = MatcherState("m", "", 0, 0, 0, ()), Noted(2, ("t/a/m",))
    found = await gate.post("/api/cache/feedback", {"verdict": "wrong", "request_id": "c"}, 200)
    assert found == {"hits": 2, "cleared": 0, "scopes": ["t/a/m"]}
    await gate.post("/api/cache/feedback", {"verdict": "right", "entry": "00ff"}, 200)
    await gate.post("/api/cache/feedback", {"verdict": "wrong", "entry": "00ff"}, 200)
    assert gate.matcher.told == [Feedback(False, "c"), Feedback(True, "", "00ff"), Feedback(False, "", "00ff")]


async def test_feedback_about_nothing_is_refused(gate: Any) -> None:
    gate.matcher.known = MatcherState("m", "", 0, 0, 0, ())
    assert (await gate.post("/api/cache/feedback", {"verdict": "wrong", "entry": "00ff"}, 404))["code"] == "no_such_hit"
    for body in ({"verdict": "wrong"}, {"verdict": "wrong", "entry": "e", "request_id": "c"}):
        assert (await gate.post("/api/cache/feedback", body, 422))["code"] == "invalid_body"
    for bad in ({"verdict": "maybe", "entry": "e"}, {"entry": "e"}, {"verdict": "wrong", "entry": "e", "who": "me"}):
        await gate.post("/api/cache/feedback", bad, 400)


async def test_what_is_cleared_is_told_to_the_matcher(gate: Any) -> None:
    gate.matcher.known = MatcherState("m", "", 0, 0, 0, ())
    await gate.send("DELETE", "/api/cache?tenant=t", 200)
    assert gate.matcher.told == [Chosen(tenant="t")]
