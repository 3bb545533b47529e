"""Goals of service as rules for Prometheus, under the names that Sloth gives them.

Theory of operation: of every goal two rates are recorded, of bad events and of all; each window's share is the sum of
the one over the sum of the other, so that an hour without traffic weighs nothing. A goal burns when a long and a short
window both lose its error budget faster than a factor allows (Google's workbook, 30 days): the long one says that it
matters, the short one that it still goes on.

Rules
1. Names and labels are those of Sloth v0.11, so that its dashboards work. Beside them stand the two rates.
2. A goal without events has no series: nothing is concluded from silence, nor from fewer than `least` events.
3. Only PromQL that 2.42 has.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from gateway.config.schema_slo import Slo
from gateway.policy.slo_burn import ALERTS, DAYS, SHORTEST, WINDOWS, seconds_of

SERVICE = "tollgate"
INTERVAL = 30
RUNBOOK = "http://127.0.0.1:9090/user/RUNBOOK.md"
"""Where Prometheus serves alerts/RUNBOOK.md in compose.yaml."""
DASHBOARD = "http://127.0.0.1:3000/d/tollgate-overview"

_SPEC = "tollgate/v1"
_BROKEN = 'outcome=~"failed|error|truncated|abandoned"'
_SERVER = 'outcome="upstream_error",code=~"5.."'
_AWAY = 'outcome="refused",code="503"'

Rule = dict[str, Any]


class Links(Struct, frozen=True):
    """Where alerts lead."""

    runbook: str = RUNBOOK
    dashboard: str = DASHBOARD


class Counts(Struct, frozen=True):
    """PromQL of a goal: bad events and all events per second."""

    bad: str
    all: str


def groups(slos: Iterable[Slo], links: Links | None = None, interval: int = INTERVAL) -> dict[str, Any]:
    """The rule file: recordings, facts and alerts of every goal. `interval`: seconds between evaluations."""
    found: list[dict[str, Any]] = []
    for slo in slos:
        id = f"{SERVICE}-{slo.name}"
        every = {"interval": f"{interval}s"}
        found += [
            {"name": f"sloth-slo-sli-recordings-{id}", **every, "rules": _recordings(slo)},
            {"name": f"sloth-slo-meta-recordings-{id}", **every, "rules": _meta(slo)},
            {"name": f"sloth-slo-alerts-{id}", **every, "rules": _alerts(slo, links or Links(), interval)},
        ]
    return {"groups": found}


def counts(slo: Slo) -> Counts:
    """What is counted."""
    match = "".join(f',{label}="{_escaped(value)}"' for label, value in slo.match.items())
    return {
        "availability": lambda: _availability(match),
        "overhead": lambda: _slower("tollgate_overhead_seconds", f'phase="total"{match}', slo.seconds or 0),
        "first_token": lambda: _slower("tollgate_time_to_first_token_seconds", match[1:], slo.seconds or 0),
        "duration": lambda: _slower("tollgate_request_duration_seconds", match[1:], slo.seconds or 0),
        "tools": lambda: _tools(match, own="server" in slo.match),
        "cache": lambda: Counts(
            _rate("tollgate_cache_verified_total", f'verdict="wrong"{match}'),
            _rate("tollgate_cache_verified_total", match[1:]),
        ),
        "telemetry": _telemetry,
    }[slo.sli]()


def _availability(match: str) -> Counts:
    """Bad: what broke, what a provider could not serve, what the gateway could not take. What the client did wrong, or
    a limit refused as it should, is no event."""
    name = "tollgate_requests_total"
    bad = " or ".join(_series(name, condition + match) for condition in (_BROKEN, _SERVER, _AWAY))
    good = _series(name, f'outcome="ok"{match}')
    return Counts(f"sum({bad})", f"sum({good} or {bad})")


def _tools(match: str, *, own: bool) -> Counts:
    """Without those that agents run themselves, unless they are asked for: a test that fails is their daily work."""
    gate = match if own else f'{match},server!="client"'
    return Counts(
        _rate("tollgate_tool_calls_total", f'result="error"{gate}'),
        _rate("tollgate_tool_calls_total", f'result=~"ok|error"{gate}'),
    )


def _telemetry() -> Counts:
    """Bad: records and telemetry that were lost; all: calls, each of which is to be told of."""
    lost = _rate("tollgate_journal_lost_records_total", "")
    dropped = _rate("tollgate_telemetry_dropped_total", 'reason!="rate_limited"')
    calls = _rate("tollgate_requests_total", "")
    bad = f"({lost} + ({dropped} or vector(0)))"
    return Counts(bad, f"({calls} + {bad})")


def _slower(name: str, match: str, seconds: float) -> Counts:
    every = _rate(f"{name}_count", match)
    within = _rate(f"{name}_bucket", ",".join(part for part in (match, _le(seconds)) if part))
    return Counts(f"({every} - {within})", every)


def _le(seconds: float) -> str:
    """Bounds that are whole are written with and without a fraction, by version."""
    text = repr(float(seconds))
    return f'le=~"{text.removesuffix(".0")}|{text}"' if text.endswith(".0") else f'le="{text}"'


def _rate(name: str, match: str) -> str:
    return f"sum({_series(name, match)})"


def _series(name: str, match: str) -> str:
    return f"rate({name}{{{match}}}[{SHORTEST}])" if match else f"rate({name}[{SHORTEST}])"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def _ids(slo: Slo) -> dict[str, str]:
    return {"sloth_id": f"{SERVICE}-{slo.name}", "sloth_service": SERVICE, "sloth_slo": slo.name}


def _of(slo: Slo, name: str) -> str:
    return name + "{" + ", ".join(f'{label}="{value}"' for label, value in _ids(slo).items()) + "}"


def _recordings(slo: Slo) -> list[Rule]:
    expressions = counts(slo)
    bad, every, ids = expressions.bad, expressions.all, _ids(slo)
    rules: list[Rule] = [
        {"record": "slo:sli_events:rate5m", "expr": every, "labels": ids},
        {"record": "slo:sli_errors:rate5m", "expr": f"{bad} or 0 * {every}", "labels": ids},
    ]
    errors, events = _of(slo, "slo:sli_errors:rate5m"), _of(slo, "slo:sli_events:rate5m")
    for window in WINDOWS:
        part = (errors, events) if window == SHORTEST else tuple(
            f"sum_over_time({one}[{window}])" for one in (errors, events)
        )  # fmt: skip
        expr = f"clamp_max({part[0]} / ({part[1]} > 0), 1)"
        labels = {**ids, "sloth_window": window}
        rules.append({"record": f"slo:sli_error:ratio_rate{window}", "expr": expr, "labels": labels})
    return rules


def _meta(slo: Slo) -> list[Rule]:
    ids, good = _ids(slo), slo.objective / 100
    budget = _of(slo, "slo:error_budget:ratio")
    join = "on (sloth_id, sloth_slo, sloth_service) group_left"
    facts = {
        "slo:objective:ratio": f"vector({good:.10g})",
        "slo:error_budget:ratio": f"vector({1 - good:.10g})",
        "slo:time_period:days": f"vector({DAYS})",
        "slo:current_burn_rate:ratio": f"{_of(slo, 'slo:sli_error:ratio_rate5m')} / {join} {budget}",
        "slo:period_burn_rate:ratio": f"{_of(slo, f'slo:sli_error:ratio_rate{DAYS}d')} / {join} {budget}",
        "slo:period_error_budget_remaining:ratio": f"1 - {_of(slo, 'slo:period_burn_rate:ratio')}",
    }
    rules: list[Rule] = [{"record": name, "expr": expr, "labels": ids} for name, expr in facts.items()]
    told = {"sloth_mode": "tollgate", "sloth_objective": f"{slo.objective:g}", "sloth_spec": _SPEC}
    return [*rules, {"record": "sloth_slo_info", "expr": "vector(1)", "labels": {**ids, **told}}]


def _alerts(slo: Slo, links: Links, interval: int) -> list[Rule]:
    rules: list[Rule] = []
    name = "TollgateSlo" + "".join(part.capitalize() for part in slo.name.replace("_", "-").split("-"))
    for severity in ("page", "ticket"):
        pairs = [burn for burn in ALERTS if burn.severity == severity]
        expr = "\nor\n".join(_burning(slo, burn.short, burn.long, burn.factor, interval) for burn in pairs)
        shown = severity if slo.page else "ticket"
        pace = "fast" if severity == "page" else "slowly"
        labels = {**_ids(slo), "sloth_severity": severity, "severity": shown, "team": "platform", "slo": slo.name}
        annotations = {
            "summary": f"The error budget of {slo.name} is burning {pace}",
            "description": f"{{{{ $value | humanizePercentage }}}} of {slo.sli} is bad now, and "
            f"{100 - slo.objective:.10g}% may be over {DAYS} days.",
            "runbook_url": f"{links.runbook}#slo-{slo.sli.replace('_', '-')}",
            "dashboard_url": links.dashboard,
        }
        rules.append({"alert": name, "expr": expr, "labels": labels, "annotations": annotations})
    return rules


def _burning(slo: Slo, short: str, long: str, factor: float, interval: int) -> str:
    limit = f"{factor * (100 - slo.objective) / 100:.10g}"
    over = [
        f"max without (sloth_window) ({_of(slo, f'slo:sli_error:ratio_rate{window}')} > {limit})"
        for window in (short, long)
    ]
    events = f"sum_over_time({_of(slo, 'slo:sli_events:rate5m')}[{long}]) * {interval} >= {slo.least}"
    assert seconds_of(long) > interval
    return f"({over[0]}\n  and {over[1]}\n  and {events})"
