"""`tollgate limits`, without a gateway and with one that answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway import cli
from gateway.commands import limits
from gateway.policy.controls import Cap, Caps
from gateway.stores.sqlite_controls import SqliteControls, SqliteDecisions

TEAM = ("team", "pay*")


def test_without_a_gateway_it_is_written_for_the_next_one(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(options[1]) / "controls.sqlite"
    what = ["--budget", "2.5/day", "--budget", "500tok/rolling-hour", "--on-exceed", "queue", "--rpm", "6"]
    assert cli.main(["limits", "set", *TEAM, *what, "--reason", "spree", *options]) == 0
    assert (
        "team pay*: $2.5 per day (queue), 500 tokens per rolling hour (queue), 6 rpm; no gateway"
        in capsys.readouterr().out
    )
    caps = Caps((Cap(2_500_000_000, None, "day", False, "queue"), Cap(None, 500, "hour", True, "queue")), 6)
    assert SqliteControls(path).caps == {TEAM: caps}
    (made,) = SqliteDecisions(path).decisions()
    assert (made.reason, bool(made.who)) == ("spree", True)
    assert cli.main(["limits", "set", "global", "--concurrency", "3", *options]) == 0
    capsys.readouterr()
    assert cli.main(["limits", "list", *options]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "global *: 3 concurrency",
        "team pay*: $2.5 per day (queue), 500 tokens per rolling hour (queue), 6 rpm",
    ]
    assert cli.main(["limits", "remove", *TEAM, *options]) == 0
    assert "taken away" in capsys.readouterr().out
    assert set(SqliteControls(path).caps) == {("global", "*")}
    assert cli.main(["limits", "list", "--json", *options]) == 0
    assert json.loads(capsys.readouterr().out) == [{"scope": "global", "value": "*", "limits": ["3 concurrency"]}]


def test_a_gateway_that_answers_is_asked(
    options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str, Any]] = []

    class Admin:
        def ask(self, method: str, path: str, body: Any = None) -> Any:
            asked.append((method, path, body))
            return {"in_force": len(asked) > 1}

    monkeypatch.setattr(limits, "admin_of", lambda config: Admin())
    monkeypatch.setattr(limits, "whoever", lambda: "ann")
    assert cli.main(["limits", "set", "model", "a/b", "--budget", "1/life", "--tpm", "9", *options]) == 0
    assert "not every worker" in capsys.readouterr().out
    assert cli.main(["limits", "remove", "model", "a/b", "--reason", "done", *options]) == 0
    budget = {"usd": 1.0, "tokens": None, "per": "life", "rolling": False, "on_exceed": "refuse"}
    counts = {"rpm": None, "tpm": 9, "concurrency": None, "burst": None}
    assert asked == [
        ("PUT", "/api/limits/model/a%2Fb", {"budgets": [budget], **counts, "reason": "", "by": "ann"}),
        ("DELETE", "/api/limits/model/a%2Fb?reason=done&by=ann", None),
    ]
    assert not (Path(options[1]) / "controls.sqlite").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["team", "a"],
        ["team", "a", "--burst", "3"],
        ["team", "a", "--rpm", "0"],
        ["team", "a", "--budget", "0/day"],
        ["team", "a", "--budget", "5/decade"],
        ["global", "a", "--rpm", "3"],
    ],
)
def test_what_limits_nothing_is_refused(
    options: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["limits", "set", *words, *options]) == 1
    assert capsys.readouterr().err.startswith("tollgate: ")
    assert not (Path(options[1]) / "controls.sqlite").exists()
