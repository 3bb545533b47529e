"""Goals of service in the configuration: what is refused, and that their bounds are those of the table of names."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from gateway.config.check_slo import PAGED
from gateway.config.schema_slo import DEFAULTS, SliName
from gateway.config.slis import SLIS
from gateway.policy.slo_burn import ALERTS
from gateway.recorder.names import METRICS

COUNTED = {
    "availability": "tollgate_requests",
    "overhead": "tollgate_overhead_seconds",
    "first_token": "tollgate_time_to_first_token_seconds",
    "duration": "tollgate_request_duration_seconds",
    "tools": "tollgate_tool_calls",
    "cache": "tollgate_cache_verified",
}


def test_what_goals_can_be_about_is_what_is_counted() -> None:
    assert set(SLIS) == set(get_args(SliName)) == {*COUNTED, "telemetry"}
    for sli, name in COUNTED.items():
        assert set(SLIS[sli].labels) <= set(METRICS[name].labels)
        assert SLIS[sli].seconds == METRICS[name].buckets


def test_from_which_objective_on_a_page_can_be_sent_is_what_its_factors_say() -> None:
    slowest = min(burn.factor for burn in ALERTS if burn.severity == "page")
    assert slowest * (100 - PAGED) / 100 == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{name: A, sli: tools, objective: 99}", "slos.0.name"),
        ("{name: a, sli: tool, objective: 99}", "slos.0.sli"),
        ("{name: a, sli: tools, objective: 100}", "slos.0.objective"),
        ("{name: a, sli: tools, objective: 99, seconds: 1}", "slos.0.seconds: tools is not about time"),
        ("{name: a, sli: overhead, objective: 99}", "slos.0.seconds: expected one of the bounds"),
        ("{name: a, sli: first_token, objective: 99, seconds: 3}", "slos.0.seconds: expected one of the bounds"),
        ("{name: a, sli: tools, objective: 99, match: {tols: x}}", "slos.0.match.tols: tools has no such label"),
        ("{name: a, sli: overhead, objective: 99, seconds: 0.01, match: {phase: x}}", "slos.0.match.phase"),
        ("{name: a, sli: tools, objective: 99, match: {tool: ''}}", "slos.0.match.tool: must be 1 to 128"),
        (
            "{name: a, sli: tools, objective: 99}, {name: a, sli: cache, objective: 99}",
            "slos.1.name: another goal has this name",
        ),
    ],
)
def test_what_is_refused(refused: Any, text: str, problem: str) -> None:
    (line,) = refused(f"slos: [{text}]")
    assert problem in line


def test_the_usual_goals_could_stand_in_a_file(loading: Any) -> None:
    written = ", ".join(
        f"{{name: {slo.name}, sli: {slo.sli}, objective: {slo.objective}, page: {str(slo.page).lower()}"
        + (f", seconds: {slo.seconds}" if slo.seconds else "")
        + "}"
        for slo in DEFAULTS
    )
    assert loading(f"slos: [{written}]").slos == DEFAULTS
