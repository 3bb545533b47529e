"""`tollgate route status`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.policy.selection_standing import ArmStanding, ScopeStanding
from gateway.stores.sqlite_learned import SqliteLearned

CONFIG = """
routes:
  - {to: [a, b], model: x, by: learned, learn: {id: helpdesk}}
  - {to: [a, b], model: y, learn: {id: later}}
"""
AT = 1_790_000_000_000_000_000


def run(tmp_path: Path, *more: str, config: str = CONFIG) -> int:
    file = tmp_path / "tollgate.yaml"
    file.write_text(config)
    return main(["route", "status", "--config", str(file), "--state", str(tmp_path / "state"), *more])


def standing(scope: str, labels: float, **known: object) -> ScopeStanding:
    arms = (ArmStanding("a", labels, 0.9, 0.002, 40), ArmStanding("b", 0, None, None, 1, 0.125))
    return ScopeStanding(scope, labels, 500, labels >= 500, arms, {"quality": 0.97}, {"first": 41}, **known)  # type: ignore[arg-type]


def test_what_was_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "state").mkdir()
    ready = standing("helpdesk", 612.5, weight=0.31, best="a", quality=0.984, cost=0.273)
    SqliteLearned(tmp_path / "state" / "learned.sqlite").put(
        [ready, standing("old|red", 7, fault="no such file")], {}, AT
    )
    assert run(tmp_path) == 0
    assert capsys.readouterr().out.splitlines() == [
        "helpdesk: chooses by what was learned: 612.5 labels, 500 are needed (2026-09-21 14:13:20 UTC)",
        "  goal: quality 0.97",
        "  a: 612.5 labels, mean score 0.900, 0.002000 USD a call, 40 calls",
        "  b: 0 labels, no score yet, no price, 1 calls, 12.5% withheld",
        "  expected: 98.4% of the quality of a at 27.3% of its cost (weight of cost 0.31)",
        "  calls by reason: first 41",
        "old|red: too few labels to choose by: 7 labels, 500 are needed "
        "(2026-09-21 14:13:20 UTC; no longer configured)",
        "  goal: quality 0.97",
        "  a: 7 labels, mean score 0.900, 0.002000 USD a call, 40 calls",
        "  b: 0 labels, no score yet, no price, 1 calls, 12.5% withheld",
        "  calls by reason: first 41",
        "  the labelled file cannot be used: no such file",
        "later: no calls yet",
    ]
    assert run(tmp_path, "--json") == 0
    found = {one["scope"]: one for one in json.loads(capsys.readouterr().out)}
    assert (found["helpdesk"]["cost"], found["old|red"]["cost"]) == (0.273, None)
    assert found["helpdesk"]["arms"][1] == {
        "target": "b",
        "labels": 0,
        "score": None,
        "cost": None,
        "calls": 1,
        "withheld": 0.125,
    }


def test_where_nothing_is_learned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, config="{}") == 0
    assert capsys.readouterr().out == "no rule learns, and none did before\n"
