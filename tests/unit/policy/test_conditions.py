"""What is the matter: each cause alone, none where there is none, the gravest first."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.policy.conditions import Broken, Facts, Stopped, Used, conditions
from gateway.policy.spend_pace import Burn, Sums

WELL: dict[str, Any] = {"workers": 2, "workers_ready": 2}


def kinds(**facts: Any) -> list[tuple[str, str]]:
    return [(one.kind, one.severity) for one in conditions(Facts(**{**WELL, **facts}))]


@pytest.mark.parametrize(
    ("facts", "kind", "severity"),
    [
        ({"workers_ready": 0}, "no_worker", "critical"),
        ({"workers_ready": 1}, "workers_missing", "warning"),
        ({"draining": True, "workers_ready": 0}, "draining", "warning"),
        ({"ledger": False}, "ledger_unavailable", "critical"),
        ({"lag_seconds": 5.0}, "journal_lag", "warning"),
        ({"lag_seconds": 60.0}, "journal_lag", "critical"),
        ({"lost": 1}, "journal_lost", "critical"),
        ({"reload_ok": False}, "reload_failed", "warning"),
        ({"needs_restart": ("listen",)}, "needs_restart", "info"),
        ({"breakers": [Broken("a", "open", "", "", 0)]}, "breaker_open", "critical"),
        ({"breakers": [Broken("a", "half_open", "", "", 0)]}, "breaker_open", "warning"),
        ({"breakers": [Broken("a", "closed", "open", "", 0)]}, "breaker_held", "warning"),
        ({"breakers": [Broken("a", "open", "closed", "", 0)]}, "breaker_held", "info"),
        ({"budgets": [Used("a", 0.8, "x")]}, "budget_low", "warning"),
        ({"budgets": [Used("a", 1.0, "x")]}, "budget_spent", "critical"),
        ({"stopped": [Stopped("run", "r", "why", 1)]}, "stopped", "info"),
        ({"hour": Sums(unknown=1)}, "price_unknown", "warning"),
        ({"burns": [Burn("page", 14.4, 20.0, True), Burn("ticket", 6, 9.0, True)]}, "slo_burn", "critical"),
        ({"burns": [Burn("page", 14.4, 7.0, False), Burn("ticket", 6, 7.0, True)]}, "slo_burn", "warning"),
    ],
)
def test_each_cause_is_told(facts: dict[str, Any], kind: str, severity: str) -> None:
    assert kinds(**facts) == [(kind, severity)]


def test_where_all_is_well_nothing_is_told() -> None:
    closed = Broken("a", "closed", "", "", 0)
    calm = Burn("page", 14.4, 0.5, False)
    assert kinds(lag_seconds=4.9, breakers=[closed], budgets=[Used("a", 0.79, "x")], burns=[calm]) == []


def test_the_gravest_come_first_then_the_gateway_then_the_latest() -> None:
    found = conditions(
        Facts(
            **{**WELL, "workers_ready": 0},
            breakers=[Broken("old", "open", "", "", 1), Broken("new", "open", "", "", 2)],
            stopped=[Stopped("run", "r", "why", 9)],
            reload_ok=False,
        )
    )
    assert [one.subject or one.kind for one in found] == ["no_worker", "new", "old", "reload_failed", "run r"]
    assert found[-1].run == "r"


def test_what_is_known_is_said() -> None:
    (one,) = conditions(Facts(**WELL, breakers=[Broken("openai", "open", "", "5 failures in a row", 7)]))
    assert (one.subject, one.text, one.since) == ("openai", "Open: 5 failures in a row.", 7)
    (one,) = conditions(Facts(**WELL, budgets=[Used("team:core|usd|day", 0.93, "9.3 of 10 USD per day")]))
    assert one.text == "93% used: 9.3 of 10 USD per day."
