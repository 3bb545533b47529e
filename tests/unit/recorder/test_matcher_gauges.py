"""What metrics say of answers to similar questions."""

from __future__ import annotations

from typing import Any

from gateway.config.schema import Telemetry
from gateway.journal.record import EventRecord
from gateway.ports import MatcherState, ScopeState
from gateway.recorder.matcher_gauges import MatcherGauges, gauges_of
from gateway.recorder.metrics import MetricsProjection
from gateway.recorder.names import GAUGES
from gateway.testing.records import call_record


def scope(name: str, labels: int, **more: Any) -> ScopeState:
    return ScopeState(**{
        "scope": name, "tenant": "t", "mode": "serve", "target": 0.01, "labels": labels, "verified": 100, "wrong": 1,
        "share": 0.008, "lower": 0.002, "upper": 0.04, "cut": 0.9, "hits": 1, "would": 0, "saved": 1, "shadow_cost": 0,
        "tripped": False, "trips": 0, "entries": 1, "reported": 0, **more,
    })  # fmt: skip


def test_every_scope_has_its_evidence_and_the_busiest_have_series() -> None:
    known = (scope("a", 5), scope("b", 9, verified=0), scope("c", 1), scope("d", 7, tripped=True, cut=2.0))
    gauges = gauges_of(MatcherState("mini", "", 4, 0, 0, known), 3)
    assert set(gauges) <= GAUGES
    assert gauges["tollgate_cache_cut"] == {("b",): 0.9, ("d",): 2.0, ("a",): 0.9}
    assert gauges["tollgate_cache_false_hit_ratio"] == {("d",): 0.008, ("a",): 0.008}, "unknown is not zero"
    assert gauges["tollgate_cache_false_hit_ratio_lower"] == {("d",): 0.002, ("a",): 0.002}
    assert gauges["tollgate_cache_false_hit_ratio_upper"] == {("d",): 0.04, ("a",): 0.04}
    assert gauges["tollgate_cache_false_hit_target"] == {("b",): 0.01, ("d",): 0.01, ("a",): 0.01}
    assert gauges["tollgate_cache_breaker_open"] == {("b",): 0.0, ("d",): 1.0, ("a",): 0.0}
    assert (gauges["tollgate_cache_matcher_up"], gauges["tollgate_cache_embedder_up"]) == (1.0, 1.0)
    assert gauges["tollgate_cache_questions"] == 4.0


def test_a_matcher_that_is_away_is_said_and_one_that_is_not_wanted_is_not() -> None:
    time, asked = [0.0], []

    def state() -> MatcherState:
        asked.append(time[0])
        if time[0] < 5:
            raise OSError("away")
        return MatcherState("", "no numpy", 0, 0, 0, ())

    gauges = MatcherGauges(state, lambda: time[0])
    assert gauges.read(False, 10) == {}
    assert asked == []
    assert gauges.read(True, 10) == {"tollgate_cache_matcher_up": 0.0, "tollgate_cache_embedder_up": 0.0}
    gauges.read(True, 10)
    assert asked == [0.0], "several scrapers cost one question"
    time[0] = 5.0
    found = gauges.read(True, 10)
    assert (found["tollgate_cache_matcher_up"], found["tollgate_cache_embedder_up"]) == (1.0, 0.0)


def lines(records: list[Any]) -> list[str]:
    metrics = MetricsProjection(Telemetry(), dict, lambda: 1.0)
    metrics.apply(records)
    text = metrics.render()[0].decode()
    return [line for line in text.splitlines() if line.startswith(("tollgate_cache", "tollgate_cost_saved"))]


def event(kind: str, **detail: Any) -> EventRecord:
    return EventRecord("e", 1, kind, -1, detail)


def test_what_the_matcher_finds_out_is_counted() -> None:
    found = lines(
        [
            *[event("cache_verified", scope="s", right=right) for right in (True, True, False)],
            event("cache_breaker", scope="s", open=True, wrong_lower=0.02),
            event("cache_breaker", scope="s", open=False, wrong_lower=0.0),
            event("cache_feedback", scope="s", right=False, call="c", entry="e"),
            event("cache_embedded", texts=3, tokens=30, cost=6 * 10**9),
            event("cache_embedded", texts=1, tokens=0, cost=-1),
            event("matcher_died", process="matcher"),
        ]
    )
    for line in (
        'tollgate_cache_verified_total{scope="s",verdict="right"} 2.0',
        'tollgate_cache_verified_total{scope="s",verdict="wrong"} 1.0',
        'tollgate_cache_breaker_trips_total{scope="s"} 1.0',
        'tollgate_cache_feedback_total{scope="s",verdict="wrong"} 1.0',
        "tollgate_cache_embedded_total 4.0",
        "tollgate_cache_embedder_cost_usd_total 0.006",
        "tollgate_cache_matcher_deaths_total 1.0",
    ):
        assert line in found


def test_calls_say_what_became_of_their_similarity() -> None:
    asked = {"similar_ns": "7000000"}
    hit = {"cache": "semantic", "usage_source": "cached", "cost": 0, "cost_status": "free", "saved": 10**9}
    found = lines(
        [
            call_record(**hit, notes={"similar": "hit", "similar_score": "0.99", **asked}),
            call_record(cache="miss", notes={"similar": "far", **asked}),
            call_record(cache="miss", notes={"similar": "time"}),
            call_record(cache="miss", notes={}),
            call_record(cache="bypass", cache_reason="shadow", cost=2 * 10**9, notes={}),
        ]
    )
    for line in (
        'tollgate_cache_lookups_total{result="hit",tier="semantic"} 1.0',
        'tollgate_cache_lookups_total{result="miss",tier="semantic"} 1.0',
        'tollgate_cache_lookups_total{result="bypass",tier="semantic"} 1.0',
        'tollgate_cache_lookups_total{result="miss",tier="exact"} 4.0',
        'tollgate_cache_similar_total{reason="hit"} 1.0',
        'tollgate_cache_similar_total{reason="time"} 1.0',
        'tollgate_cost_saved_usd_total{reason="semantic_cache"} 0.001',
        "tollgate_cache_shadow_cost_usd_total 0.002",
        'tollgate_cache_lookup_seconds_bucket{le="0.008",tier="semantic"} 2.0',
        'tollgate_cache_lookup_seconds_bucket{le="0.006",tier="semantic"} 0.0',
    ):
        assert line in found
