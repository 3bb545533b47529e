"""`tollgate slo generate`: rules of the configured goals, or of the usual ones, under the names that Sloth gives."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway import cli
from gateway.policy.slo_burn import ALERTS, DAYS, WINDOWS, seconds_of

SLOS = """
slos:
  - {name: quick, sli: duration, objective: 99.5, seconds: 10, match: {provider: 'open"ai', stream: "true"}, least: 50}
  - {name: lookups, sli: tools, objective: 95, match: {server: files}, page: false}
"""


@pytest.fixture
def generated(tmp_path: Path, monkeypatch: Any, capsys: Any) -> Any:
    """`generated(text, *options)`: the printed document."""
    monkeypatch.chdir(tmp_path)

    def generated_(text: str, *options: str) -> Any:
        (tmp_path / "tollgate.yaml").write_text(text)
        assert cli.main(["slo", "generate", *options]) == 0
        return yaml.safe_load(capsys.readouterr().out)

    return generated_


def rules(document: Any) -> list[dict[str, Any]]:
    return [rule for group in document["groups"] for rule in group["rules"]]


def test_without_goals_the_usual_ones_are_made(generated: Any) -> None:
    made = {rule["labels"]["sloth_slo"] for rule in rules(generated(""))}
    assert made == {"availability", "overhead", "first-token", "tools", "cache", "telemetry"}


def test_the_names_are_those_of_sloth(generated: Any) -> None:
    document = generated(SLOS)
    assert [group["name"] for group in document["groups"]] == [
        f"sloth-slo-{kind}-tollgate-{name}"
        for name in ("quick", "lookups")
        for kind in ("sli-recordings", "meta-recordings", "alerts")
    ]
    recorded = {rule["record"] for rule in rules(document) if "record" in rule}
    assert recorded == {
        *(f"slo:sli_error:ratio_rate{window}" for window in ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d")),
        "slo:objective:ratio", "slo:error_budget:ratio", "slo:time_period:days", "slo:current_burn_rate:ratio",
        "slo:period_burn_rate:ratio", "slo:period_error_budget_remaining:ratio", "sloth_slo_info",
        "slo:sli_events:rate5m", "slo:sli_errors:rate5m",
    }  # fmt: skip
    for rule in rules(document):
        assert {"sloth_id", "sloth_service", "sloth_slo"} <= set(rule["labels"])


def test_what_is_configured_is_in_the_rules(generated: Any) -> None:
    document = generated(SLOS, "--runbook", "https://wiki/runbook", "--dashboard", "https://grafana/d/x")
    quick = [rule for rule in rules(document) if rule["labels"]["sloth_slo"] == "quick"]
    errors = next(rule["expr"] for rule in quick if rule.get("record") == "slo:sli_errors:rate5m")
    assert 'provider="open\\"ai",stream="true",le=~"10|10.0"' in errors
    page, ticket = (rule for rule in quick if "alert" in rule)
    assert page["alert"] == ticket["alert"] == "TollgateSloQuick"
    assert "> 0.072)" in page["expr"], "14.4 times the half percent that may fail"
    assert "* 30 >= 50" in page["expr"]
    assert page["annotations"]["runbook_url"] == "https://wiki/runbook#slo-duration"
    assert page["annotations"]["dashboard_url"] == "https://grafana/d/x"
    severities = {
        (rule["labels"]["sloth_slo"], rule["labels"]["sloth_severity"]): rule["labels"]["severity"]
        for rule in rules(document)
        if "alert" in rule
    }
    assert severities == {
        ("quick", "page"): "page",
        ("quick", "ticket"): "ticket",
        ("lookups", "page"): "ticket",
        ("lookups", "ticket"): "ticket",
    }


def test_the_operator_gets_its_resource(generated: Any) -> None:
    document = generated(SLOS, "--kubernetes")
    assert (document["apiVersion"], document["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert rules(document["spec"]) == rules(generated(SLOS))


def test_the_factors_spend_the_budget_that_the_workbook_says() -> None:
    spent = {(b.severity, b.long): b.factor * seconds_of(b.long) / (DAYS * 86_400) for b in ALERTS}
    assert spent == {
        ("page", "1h"): pytest.approx(0.02),
        ("page", "6h"): pytest.approx(0.05),
        ("ticket", "1d"): pytest.approx(0.1),
        ("ticket", "3d"): pytest.approx(0.1),
    }
    assert {b.short for b in ALERTS} | {b.long for b in ALERTS} <= set(WINDOWS)
    assert all(seconds_of(b.long) in (12 * seconds_of(b.short), 72 * 60 * 60) for b in ALERTS)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_takes_them(generated: Any, tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(generated(SLOS)))
    done = subprocess.run(
        ["promtool", "check", "rules", tmp_path / "rules.yaml"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"SUCCESS: 38 rules found", done.stdout)


def test_a_wrong_goal_is_refused_with_its_place(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tollgate.yaml").write_text("slos: [{name: a, sli: tools, objective: 99, seconds: 3}]")
    assert cli.main(["slo", "generate"]) == 2
    assert "slos.0.seconds" in capsys.readouterr().err
