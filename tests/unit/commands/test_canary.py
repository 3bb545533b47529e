"""`tollgate canary status`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.cli import main
from gateway.policy.canary import Canary, Plan, Seen
from gateway.stores.sqlite_canaries import SqliteCanaries

CONFIG = """
routes:
  - {to: [a], model: x, canary: {id: next, to: b}}
  - {to: [a], model: y, canary: {id: later, to: c}}
"""


def run(tmp_path: Path, *more: str, config: str = CONFIG) -> int:
    file = tmp_path / "tollgate.yaml"
    file.write_text(config)
    return main(["canary", "status", "--config", str(file), "--state", str(tmp_path / "state"), *more])


def test_how_each_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    canary, old = Canary(Plan("next", 0.1)), Canary(Plan("old", 0.5))
    for number in range(40):
        canary.see(Seen(f"r{number}", number % 10 == 0, error=number == 0))
    for number in range(40):
        old.see(Seen(f"r{number}", True, error=True))
    (tmp_path / "state").mkdir()
    store = SqliteCanaries(tmp_path / "state" / "canaries.sqlite")
    store.save({"next": canary, "old": old}, {}, 1_790_000_000_000_000_000)
    assert run(tmp_path) == 0
    out = capsys.readouterr().out
    assert "next: running (2026-09-21 14:13:20 UTC)\n  runs: 4 of the canary, 36 of the rest\n" in out
    assert "  error: 1 runs of the canary, 0 of the rest; evidence 2." in out
    assert "old: rolled back: error: worse than what it would replace (2026-09-21 14:13:20 UTC; no longer" in out
    assert "later: no calls yet" in out
    assert run(tmp_path, "--json") == 0
    found = {one["canary"]: one for one in json.loads(capsys.readouterr().out)}
    assert (found["old"]["state"], found["next"]["runs"]) == ("rolled_back", [4, 36])


def test_where_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, config="{}") == 0
    assert capsys.readouterr().out == "no canary is configured, and none was before\n"
