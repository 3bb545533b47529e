"""What holds what back, with the real Alertmanager: only what is explained, and never what is about somebody else."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.watchers import Alertmanager, Webhook, until

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus-alertmanager") is None, reason="not installed: prometheus-alertmanager"
)

Labels = dict[str, str]
A, B = {"job": "tollgate", "instance": "a"}, {"job": "tollgate", "instance": "b"}


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[Alertmanager]:
    with Webhook() as webhook, Alertmanager(tmp_path / "alertmanager", webhook.url) as running:
        yield running


def held_back(alertmanager: Alertmanager, *alerts: Labels) -> set[int]:
    """Which of the alerts are, by their places."""
    body = json.dumps([{"labels": {**one, "n": str(n)}} for n, one in enumerate(alerts)]).encode()
    url, kind = f"{alertmanager.url}/api/v2/alerts", {"content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, body, kind), timeout=10) as answer:
        answer.read()
    judged = until(
        lambda: json.loads(alertmanager.get("/api/v2/alerts")),
        lambda found: len(found) == len(alerts) and all(one["status"]["state"] != "unprocessed" for one in found),
    )
    return {int(one["labels"]["n"]) for one in judged if one["status"]["inhibitedBy"]}


def alert(name: str, *about: Labels, **more: str) -> Labels:
    return {"alertname": name, **{label: text for one in about for label, text in one.items()}, **more}


def test_a_gateway_that_is_away_holds_back_what_is_about_it_alone(alertmanager: Alertmanager) -> None:
    lost = [alert("TollgateRecordsLost", where, severity="page") for where in (A, B)]
    spent = alert("TollgateBudgetExhausted", B, budget="global|usd|day", severity="page")
    wide = alert("TollgateCostAnomaly", tenant="t", severity="ticket")
    down = alert("TollgateDown", A, severity="page")
    assert held_back(alertmanager, down, *lost, spent, wide) == {1}


def test_where_no_gateway_is_known_all_is_held_back_but_the_watchdog(alertmanager: Alertmanager) -> None:
    others = [alert("TollgateRecordsLost", A, severity="page"), alert("TollgateWatchdog", severity="none")]
    assert held_back(alertmanager, alert("TollgateAbsent", severity="page"), *others) == {1}


def test_an_open_breaker_holds_back_the_errors_of_its_provider_alone(alertmanager: Alertmanager) -> None:
    errors = [
        alert(name, provider=provider, severity="ticket")
        for name in ("TollgateErrorSpike", "TollgateProviderRateLimited")
        for provider in ("openai", "anthropic")
    ]
    fallbacks = alert("TollgateFallbacks", severity="ticket")
    open_ = alert("TollgateBreakerOpen", A, breaker="openai/gpt-4o", provider="openai", severity="ticket")
    assert held_back(alertmanager, open_, *errors, fallbacks) == {1, 3, 5}


def test_a_spent_budget_holds_back_its_lower_steps_and_not_those_of_another_gateway(alertmanager: Alertmanager) -> None:
    """Gateways that share no store have budgets of one name."""
    names = ("TollgateBudgetHalfSpent", "TollgateBudgetNearlySpent", "TollgateBudgetRunsOut")
    lower = [alert(name, where, budget="global|usd|day") for where in (A, B) for name in names]
    other = alert("TollgateBudgetHalfSpent", A, budget="global|usd|month")
    spent = alert("TollgateBudgetExhausted", A, budget="global|usd|day", severity="page")
    held = {1, 2, 3, 4}  # of the other gateway the first alone, by its second
    assert held_back(alertmanager, spent, *lower, other) == held


@pytest.mark.parametrize("server", ["tools", "mcp"])
def test_the_breaker_of_a_tool_holds_nothing_back(alertmanager: Alertmanager, server: str) -> None:
    errors = [alert("TollgateErrorSpike", provider="openai"), alert("TollgateFallbacks")]
    open_ = alert("TollgateBreakerOpen", A, breaker=f"{server}/search", provider=server, severity="ticket")
    assert held_back(alertmanager, open_, *errors) == set()
