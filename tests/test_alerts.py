"""Alerts do what they say: their files are fresh, promtool and amtool take them, each fires where it should only."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from alerts import artefacts, scenarios
from alerts.alertmanager import ROUTES
from alerts.parts import Links
from gateway.config.schema_slo import DEFAULTS

ROOT = Path(__file__).parent.parent
ALERTS = ROOT / "alerts"
RULES = sorted(ALERTS.glob("*.yaml"))
TESTS = sorted((ALERTS / "tests").glob("*.yaml"))
RUNBOOK = (ALERTS / "RUNBOOK.md").read_text()

needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
needs_amtool = pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool is not installed")


def ran(*command: str, seconds: float = 60) -> str:
    env = {**os.environ, "GOGC": "1000"}  # a third of promtool's time is collecting garbage
    done = subprocess.run(command, cwd=ALERTS, env=env, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerts() -> list[dict[str, Any]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def test_the_files_are_what_the_tables_say() -> None:
    made = artefacts.files(Links())
    assert {name for name, text in made.items() if (ROOT / name).read_text() != text} == set(), "run `make dashboards`"
    there = {path.relative_to(ROOT).as_posix() for path in (*RULES, *TESTS)}
    assert there == {name for name in made if name.startswith("alerts/") and name.endswith(".yaml")}


@needs_promtool
@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_promtool_takes_the_rules(path: Path) -> None:
    ran("promtool", "check", "rules", path.name)


@needs_promtool
@pytest.mark.timeout(600)
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_the_rules_pass_their_tests(path: Path) -> None:
    ran("promtool", "test", "rules", f"tests/{path.name}", seconds=590)


def test_every_alert_fires_in_a_scenario_and_is_silent_in_another() -> None:
    loud: set[str] = set()
    for each in (one for found in scenarios.SCENARIOS.values() for one in found):
        loud |= {name for fired in each.fires.values() for name, _ in fired}
        assert any(each.fires.values()) or len(each.fires) == 1 or not each.fires[min(each.fires)]
    assert loud == {alert["alert"] for alert in alerts()} - {"TollgateWatchdog"}
    for found in scenarios.SCENARIOS.values():
        names = {name for each in found for fired in each.fires.values() for name, _ in fired}
        for name in names:
            silences = [fired for each in found for fired in each.fires.values() if name not in dict(fired)]
            assert silences, name


def test_the_dead_man_never_stops() -> None:
    (watchdog,) = (alert for alert in alerts() if alert["alert"] == "TollgateWatchdog")
    assert watchdog["expr"] == "vector(1)"
    assert "for" not in watchdog


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: f"{alert['alert']}-{alert['labels']['severity']}")
def test_every_alert_says_what_to_do(alert: dict[str, Any]) -> None:
    assert re.fullmatch(r"Tollgate[A-Za-z]+", alert["alert"])
    assert alert["labels"]["severity"] in {"page", "ticket", "info", "none"}
    assert alert["labels"]["team"] in {"platform", "finops"}
    notes = alert["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert notes["summary"]
    assert not notes["summary"].endswith(".")
    assert notes["description"].endswith(".")
    page, _, anchor = notes["runbook_url"].partition("#")
    assert page.endswith("/RUNBOOK.md")
    headings = re.findall(r"^### (.*)", RUNBOOK, re.M)
    sections = {heading.lower().replace(" ", "-"): heading for heading in headings}
    text = RUNBOOK.split(f"### {sections[anchor]}\n")[1].split("\n### ")[0]
    assert "* Look at: " in text
    assert "* Do: " in text


def test_labels_in_texts_are_those_that_an_alert_has() -> None:
    """A label that an expression sums away would leave a hole in the sentence."""
    for alert in alerts():
        named = set(re.findall(r"\$labels\.(\w+)", " ".join(alert["annotations"].values())))
        kept = {label for group in re.findall(r"by \(([^)]*)\)", alert["expr"]) for label in group.split(", ")}
        if "by (" in alert["expr"] and "on (" not in alert["expr"].partition("by (")[0]:
            assert named <= kept, alert["alert"]


def test_the_runbook_has_no_section_of_what_is_gone() -> None:
    linked = {alert["annotations"]["runbook_url"].partition("#")[2] for alert in alerts()}
    sections = {heading.lower().replace(" ", "-") for heading in re.findall(r"^### (.*)", RUNBOOK, re.M)}
    assert sections - linked == {"slo-duration"}, "of a goal that nobody has unless it is configured"
    assert {slo.sli.replace("_", "-") for slo in DEFAULTS} <= set(artefacts.SLIS)


@needs_amtool
def test_alertmanager_takes_its_configuration() -> None:
    ran("amtool", "check-config", "../deploy/alertmanager.yml")


@needs_amtool
@pytest.mark.parametrize(("labels", "receivers"), ROUTES, ids=lambda value: str(value))
def test_alerts_go_where_they_shall(labels: dict[str, str], receivers: tuple[str, ...]) -> None:
    words = [f"{name}={value}" for name, value in labels.items()]
    told = ran("amtool", "config", "routes", "test", "--config.file", "../deploy/alertmanager.yml", *words)
    assert told.strip().split(",") == list(receivers)
