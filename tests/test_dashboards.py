"""Dashboards are fresh, can be read, and only name what is there; what is there is shown somewhere."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.boards import BOARDS, NOT_SHOWN
from dashboards.generate import files
from dashboards.parts import TITLES, pick
from gateway.recorder.names import METRICS

ROOT = Path(__file__).parent.parent
MADE = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "dashboards").glob("*.json"))}
UNITS = {"short", "percentunit", "currencyUSD", "s", "reqps", "bytes", "Bps"}
VARIABLES = {
    "$__rate_interval": "1m",
    "$__range": "1h",
    **{f"${name}": ".*" for name in ("job", "instance", "tenant", "agent", "model")},
}
_WORD = re.compile(r"\b((?:tollgate|gen_ai)_[a-z0-9_]+)\b")


def panels(uid: str) -> list[dict[str, Any]]:
    return [panel for panel in MADE[uid]["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str, str]]:
    """(dashboard, panel, expression without variables)."""
    for uid in MADE:
        for panel in panels(uid):
            for target in panel["targets"]:
                expr = target["expr"]
                for name, value in VARIABLES.items():
                    expr = expr.replace(name, value)
                yield uid, panel["title"], expr


def base(name: str) -> str:
    while name not in METRICS and "_" in name:
        shorter = re.sub(r"_(total|bucket|count|sum|info)$", "", name)
        if shorter == name:
            break
        name = shorter
    return name


def test_everything_generated_is_fresh() -> None:
    stale = {name for name, text in files().items() if (ROOT / name).read_text() != text}
    assert not stale, "run `make dashboards`"
    assert set(MADE) == {board.uid for board in BOARDS} == set(TITLES)


@pytest.mark.parametrize("uid", MADE)
def test_a_dashboard_can_be_chosen_from_and_leads_on(uid: str) -> None:
    made = MADE[uid]
    assert made["uid"] == f"tollgate-{uid}"
    assert made["title"].startswith("Tollgate / ")
    assert made["description"]
    assert made["editable"] is False
    assert made["schemaVersion"] >= 36
    names = [variable["name"] for variable in made["templating"]["list"]]
    assert names[:3] == ["datasource", "job", "instance"]
    assert all(variable.get("refresh", 2) == 2 for variable in made["templating"]["list"]), "with the time range"
    links = {link["url"] for link in made["links"] if link["type"] == "link"}
    assert links == {f"/d/tollgate-{other}" for other in TITLES if other != uid}
    assert all(link["keepTime"] and link["includeVars"] for link in made["links"])
    noted = {note["name"] for note in made["annotations"]["list"]}
    assert {"Deploys", "Reloads", "Canary decisions"} <= noted
    used = set(re.findall(r"\$(\w+)", json.dumps(panels(uid)))) - {"__rate_interval", "__range", "datasource"}
    assert used <= set(names)


@pytest.mark.parametrize("uid", MADE)
def test_every_panel_says_what_it_is(uid: str) -> None:
    titles = [panel["title"] for panel in panels(uid)]
    assert len(set(titles)) == len(titles)
    for panel in panels(uid):
        assert panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["targets"]
        assert {panel["datasource"]["uid"], *(target["datasource"]["uid"] for target in panel["targets"])} == {
            "$datasource"
        }
        for target in panel["targets"]:
            assert target["expr"]
            assert target.get("range") or target.get("instant")


@pytest.mark.parametrize("uid", MADE)
def test_panels_do_not_lie_on_each_other(uid: str) -> None:
    places = [panel["gridPos"] for panel in MADE[uid]["panels"]]
    assert len({panel["id"] for panel in MADE[uid]["panels"]}) == len(places)
    for one, other in itertools.combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
    assert all(place["x"] + place["w"] <= 24 for place in places)


def test_counters_are_asked_for_their_rate_in_the_interval_of_the_scrape() -> None:
    for uid in MADE:
        for panel in panels(uid):
            for target in panel["targets"]:
                for window in re.findall(r"rate\([^\[\]]*\[([^\]]+)\]", target["expr"]):
                    assert window == "$__rate_interval", (uid, panel["title"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_can_read_every_query(tmp_path: Path) -> None:
    notes = [(uid, note["name"], note["expr"]) for uid in MADE for note in MADE[uid]["annotations"]["list"]]
    rules = [{"record": f"query:{index}", "expr": expr} for index, (_, _, expr) in enumerate([*queries(), *notes])]
    rules = [{**rule, "record": rule["record"].replace(":", ":n")} for rule in rules]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(
        ["promtool", "check", "rules", tmp_path / "rules.yaml"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_a_canary_that_was_decided_is_noted_once_and_not_again_when_its_gateway_comes_back(tmp_path: Path) -> None:
    (expr,) = (note["expr"] for note in MADE["overview"]["annotations"]["list"] if note["name"] == "Canary decisions")
    state = 'tollgate_canary_state{job="tollgate",instance="a",canary="newer",state='
    series = [
        {"series": f'{state}"running"}}', "values": "1x9 0x20 _x20 0x20"},
        {"series": f'{state}"rolled_back"}}', "values": "0x9 1x20 _x20 1x20"},
    ]
    noted = [{"labels": '{canary="newer",state="rolled_back"}', "value": 1}]
    tests = [
        {"expr": expr, "eval_time": f"{minute}m", "exp_samples": noted if minute == 11 else []}
        for minute in (5, 11, 25, 55)
    ]
    (tmp_path / "test.yaml").write_text(
        yaml.safe_dump({"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": tests}]})
    )
    done = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "test.yaml"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_how_long_a_budget_lasts_is_known_around_the_turn_of_its_window(tmp_path: Path) -> None:
    """Of an hour, 100 USD: a dollar a minute lasts, two do not; at ten past one it is told by these ten minutes."""
    ((_, _, expr),) = (one for one in queries() if one[1] == "Time to exhaustion")
    series = []
    for team, per in (("a", 1), ("b", 2)):
        labels = f'{{job="tollgate",instance="i",scope="team",budget="team:{team}|usd|hour"}}'
        for name, values in (
            ("limit_usd", "100x80"), ("spent_usd", f"0+{per}x59 0+{per}x20"),
            ("window_start_timestamp_seconds", "0x59 3600x20"), ("window_end_timestamp_seconds", "3600x59 7200x20"),
        ):  # fmt: skip
            series.append({"series": f"tollgate_budget_{name}{labels}", "values": values})
    told = {
        minute: [
            {"labels": '{budget="team:a|usd|hour", lasts=": lasts"}', "value": 60 * (100 - spent)},
            {"labels": '{budget="team:b|usd|hour"}', "value": 30 * (100 - 2 * spent)},
        ]
        for minute, spent in ((40, 40), (70, 10))
    }
    tests = [
        {"expr": expr, "eval_time": f"{minute}m", "exp_samples": samples}
        for minute, samples in (*told.items(), (60, []))
    ]
    made = {"rule_files": [str(ROOT / "alerts" / "cost.yaml")], "evaluation_interval": "1m"}
    test = {"interval": "1m", "input_series": series, "promql_expr_test": tests}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({**made, "tests": [test]}))
    done = subprocess.run(
        ["promtool", "test", "rules", tmp_path / "test.yaml"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_recordings_that_panels_use_are_made() -> None:
    rules = [
        rule["record"]
        for path in (ROOT / "alerts").glob("*.yaml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "record" in rule
    ]
    used = {name for _, _, expr in queries() for name in re.findall(r"\b(\w+:\w+:\w+)\b", expr)}
    assert used
    assert used <= set(rules)


def test_every_metric_is_shown_or_listed_with_the_reason() -> None:
    texts = [path.read_text() for path in (ROOT / "alerts").glob("*.yaml")]
    seen = {base(name) for text in (*texts, *(expr for _, _, expr in queries())) for name in _WORD.findall(text)}
    assert set(METRICS) - seen == set(NOT_SHOWN)
    assert all(NOT_SHOWN.values())


def test_a_name_that_is_not_in_the_table_cannot_be_asked_for() -> None:
    assert pick("tollgate_tool_calls_total", 'server="s"') == (
        'tollgate_tool_calls_total{server="s", job=~"$job", instance=~"$instance"}'
    )
    with pytest.raises(KeyError):
        pick("tollgate_tool_call_total")
    with pytest.raises(KeyError):
        pick("tollgate_tool_calls_total", 'servr="s"')
