"""Routes, canaries and what was learned, through the API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway.config.schema import Config
from gateway.config.schema_routing import CanaryTo, Learn, Route
from gateway.policy.canary import Canary, Plan, Seen
from gateway.policy.selection_standing import ArmStanding, ScopeStanding
from gateway.stores.sqlite_canaries import SqliteCanaries
from gateway.stores.sqlite_learned import SqliteLearned


async def test_where_there_are_none(gate: Any) -> None:
    assert await gate.get("/api/routes") == {"routes": [], "canaries": []}


async def test_rules_and_how_their_canaries_stand(gate: Any, tmp_path: Path) -> None:
    gate.config = Config(
        routes=(Route(to=("a",), model="x"), Route(to=("b", "c"), canary=CanaryTo(id="next", to="d", share=0.2)))
    )
    canary, old = Canary(Plan("next", 0.2)), Canary(Plan("old", 0.5))
    for number in range(10):
        canary.see(Seen(f"r{number}", number < 3, error=number == 0))
    for number in range(40):
        old.see(Seen(f"r{number}", True, error=True))
    store = SqliteCanaries(tmp_path / "canaries.sqlite")
    store.save({"next": canary, "old": old}, {}, 1_790_000_000_000_000_000)
    found = await gate.get("/api/routes")
    assert found["routes"] == [
        {"rule": 0, "calls": "model x", "to": "a", "canary": None},
        {
            "rule": 1,
            "calls": "all calls",
            "to": "b, c (the first that fits), each run with one while it is warm (300 s); "
            "canary next: 20% of the runs to d",
            "canary": "next",
        },
    ]
    by_id = {one["id"]: one for one in found["canaries"]}
    assert by_id["next"]["runs"] == {"canary": 3, "rest": 7}
    assert by_id["next"]["counts"]["error"] == {"canary": 1, "rest": 0}
    assert (by_id["next"]["state"], by_id["next"]["configured"], by_id["next"]["reason"]) == ("running", True, None)
    assert (by_id["old"]["state"], by_id["old"]["configured"]) == ("rolled_back", False)
    assert by_id["old"]["evidence"]["all"] >= 100


async def test_a_file_that_cannot_be_read(gate: Any, tmp_path: Path) -> None:
    (tmp_path / "canaries.sqlite").mkdir()
    await gate.get("/api/routes", 503)


async def test_what_was_learned_of_targets(gate: Any, tmp_path: Path) -> None:
    assert await gate.get("/api/routes/learned") == {"scopes": []}
    gate.config = Config(routes=(Route(to=("a", "b"), by="learned", learn=Learn(id="s", per="agent")),))
    arms = (ArmStanding("a", 400.0, 0.9, 0.002, 40), ArmStanding("b", 3.5, None, None, 0, 0.25))
    few = ScopeStanding("s|red", 403.5, 500, False, arms, {"quality": 0.97}, {"first": 39, "explored": 1})
    old = ScopeStanding("old", 600.0, 500, True, (), {"cost": 0.3}, {}, 0.4, "a", 0.98, 0.29, "line 3")
    SqliteLearned(tmp_path / "learned.sqlite").put([few, old], {}, 1_790_000_000_000_000_000)
    first, second = (await gate.get("/api/routes/learned"))["scopes"]
    assert first["configured"] is False
    assert (first["quality"], first["cost"], first["weight"], first["fault"]) == (0.98, 0.29, 0.4, "line 3")
    assert second == {
        "scope": "s|red",
        "configured": True,
        "at": "2026-09-21T14:13:20.000000Z",
        "labels": 403.5,
        "enough": 500,
        "ready": False,
        "goal": {"quality": 0.97},
        "targets": [
            {"target": "a", "labels": 400.0, "score": 0.9, "cost_usd": 0.002, "calls": 40, "withheld": 0.0},
            {"target": "b", "labels": 3.5, "score": None, "cost_usd": None, "calls": 0, "withheld": 0.25},
        ],
        "why": {"first": 39, "explored": 1},
        "weight": None,
        "best": None,
        "quality": None,
        "cost": None,
        "fault": None,
    }
    (tmp_path / "learned.sqlite").unlink()
    (tmp_path / "learned.sqlite").mkdir()
    await gate.get("/api/routes/learned", 503)
