"""Gauges of canaries."""

from __future__ import annotations

from gateway.policy.canary import Canary, Decision, Plan, Seen
from gateway.recorder.routing_gauges import canaries


def unusable() -> list[tuple[Decision, int]]:
    raise OSError("damaged")


def test_gauges_are_there_where_there_is_a_canary() -> None:
    assert canaries(unusable, 9) == {}
    assert canaries(list, 9) == {}
    canary = Canary(Plan("next", 0.2))
    canary.see(Seen("a", True))
    canary.see(Seen("b", False, error=True))
    found = canaries(lambda: [(canary.standing(), 1), (Canary(Plan("old", 0.1)).standing(), 1)], 1)
    assert found["tollgate_canary_runs"] == {("next", "canary"): 1.0, ("next", "rest"): 1.0}
    states = {("next", "running"): 1.0, ("next", "promoted"): 0.0, ("next", "rolled_back"): 0.0}
    assert found["tollgate_canary_state"] == states
    assert found["tollgate_canary_evidence"] == {("next",): canary.evidence}
