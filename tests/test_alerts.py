"""The alert rules do what they say: promtool runs their tests."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

ALERTS = Path(__file__).parent.parent / "alerts"
RULES = sorted(ALERTS.glob("*.yaml"))

pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_rules_are_right_and_pass_their_tests(path: Path) -> None:
    for command in (["check", "rules", path.name], ["test", "rules", f"tests/{path.name}"]):
        done = subprocess.run(
            ["promtool", *command], cwd=ALERTS, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", RULES, ids=lambda path: path.stem)
def test_every_alert_has_a_test_that_sees_it_fire(path: Path) -> None:
    named = {rule["alert"] for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]}
    tests = yaml.safe_load((ALERTS / "tests" / path.name).read_text())["tests"]
    fired = {one["alertname"] for test in tests for one in test["alert_rule_test"] if one["exp_alerts"]}
    assert named == fired
