"""What makes each alert fire, and what just does not: written as tests for promtool.

A scenario names every alert that fires at each of its moments; all others of its file must be silent then. Series come
in pairs where that is possible: one that fires, and a twin just below. `by` is the label that tells the two apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

GATE = 'job="tollgate",instance="a"'
ALIVE = {f"up{{{GATE}}}": "1x{}", f'tollgate_build_info{{{GATE},version="1"}}': "1x{}"}
LENGTH = 5200  # samples of what is always there


@dataclass(frozen=True)
class Scenario:
    """`fires`: minute -> alerts (and their value of `by`)."""

    file: str
    series: Mapping[str, str]
    fires: Mapping[int, Sequence[tuple[str, str]]]
    by: str = "instance"
    step: str = "1m"
    alive: bool = True


def series(name: str, labels: str = "") -> str:
    """`name` of the one gateway, with further labels."""
    return f"{name}{{{GATE}{',' if labels else ''}{labels}}}"


def counts(name: str, labels: str, before: int, rise: str, after: int = 0) -> dict[str, str]:
    """A counter that stands for `before` samples, rises by `rise` (as 0+2x10), and stands again."""
    parts = rise.split("+")
    start = int(parts[0])
    per, times = (int(part) for part in parts[1].split("x"))
    values = [f"{start}x{before}", f"{start + per}+{per}x{times - 1}"]
    if after:
        values.append(f"{start + per * times}x{after}")
    return {series(name, labels): " ".join(values)}


def rising(*parts: tuple[int, int]) -> str:
    """A counter from 0 on: (by so much, so many times), one after the other."""
    total, words = 0, ["0"]
    for per, times in parts:
        words.append(f"{total + per}+{per}x{times - 1}")
        total += per * times
    return " ".join(words)


def gauge(name: str, values: str, labels: str = "") -> dict[str, str]:
    return {series(name, labels): values}


def one(file: str, alert: str, found: Mapping[str, str], *minutes: int, who: str = "a", **more: Any) -> Scenario:
    """Silent at one minute, fires at another, and is silent again at a third."""
    silent, fires, quiet = (*minutes, 0)[:3]
    moments: dict[int, Sequence[tuple[str, str]]] = {silent: (), fires: ((alert, who),)}
    if quiet:
        moments[quiet] = ()
    return Scenario(file, found, moments, **more)


BORN = "_x30 1x60"  # a counter that begins after half an hour
HEALTH = [
    Scenario("health", {}, {10: ()}),
    Scenario("health", {f"up{{{GATE}}}": "1x10 0x5 1x20"}, {11: (), 14: (("TollgateDown", "a"),), 20: ()}, alive=False),
    Scenario("health", {"other{}": "1x20"}, {4: (), 6: (("TollgateAbsent", ""),)}, alive=False),
    one("health", "TollgateBreakerOpen",
        gauge("tollgate_breaker_open", "_x5 1x10 stale _x10", 'breaker="openai/gpt-4o"')
        | gauge("tollgate_breaker_open", "0x30", 'breaker="openai"'), 5, 8, 18, by="breaker", who="openai/gpt-4o"),
    Scenario("health", gauge("tollgate_breaker_open", "2x30", 'breaker="openai"')
             | gauge("tollgate_breaker_open", "_x10 1x20", 'breaker="tools/search"')
             | gauge("tollgate_breaker_open", "_x10 1x1 stale _x20", 'breaker="blinks"'),  # shorter than its wait
             {5: (("TollgateBreakerOpen", "openai"),),
              14: (("TollgateBreakerOpen", "openai"), ("TollgateBreakerOpen", "tools/search"))}, by="breaker"),
    one("health", "TollgateOverloaded",
        gauge("tollgate_rejected_total", BORN, 'reason="overloaded"')
        | gauge("tollgate_rejected_total", BORN, 'reason="budget_exceeded"'), 29, 31, 45),
    one("health", "TollgateShedding", gauge("tollgate_overload_level", "1x10 2x10 1x20"), 9, 14, 25),
    one("health", "TollgateDescriptorsShort", gauge("tollgate_descriptors_used_ratio", "0.84x10 0.86x10 0.84x20"),
        10, 13, 25),
    one("health", "TollgateDescriptorsShort",
        gauge("tollgate_rejected_total", BORN, 'reason="no_descriptors"')
        | gauge("tollgate_rejected_total", BORN, 'reason="budget_exceeded"'), 29, 33, 45),
    one("health", "TollgatePoolRefuses",
        gauge("tollgate_bulkhead_refused_total", BORN, 'pool="p",reason="queue_timeout"')
        | counts("tollgate_bulkhead_refused_total", 'pool="q",reason="queue_timeout"', 90, "0+1x1"), 29, 33, 45,
        by="pool", who="p"),
    one("health", "TollgatePoolFull",
        gauge("tollgate_bulkhead_in_flight", "5x10 10x20 5x10", 'pool="p"')
        | gauge("tollgate_bulkhead_limit", "10x40", 'pool="p"')
        | gauge("tollgate_bulkhead_in_flight", "9x40", 'pool="q"')
        | gauge("tollgate_bulkhead_limit", "10x40", 'pool="q"'),
        18, 22, 33, by="pool", who="p"),
    one("health", "TollgateQueueing",
        {series("tollgate_bulkhead_wait_seconds_bucket", f'pool="{pool}",le="{le}"'): f"0+{per}x20 {20 * per}x20"
         for pool, slow in (("p", 10), ("q", 0)) for le, per in (("5.0", 100 - slow), ("10.0", 100), ("+Inf", 100))},
        5, 12, 35, by="pool", who="p"),
    one("health", "TollgateProviderRateLimited",
        counts("tollgate_upstream_attempts_total", 'provider="p",model="m",result="ok"', 10, "100+9x40")
        | counts("tollgate_upstream_attempts_total", 'provider="p",model="m",result="rate_limited"', 10, "1+1x20", 40)
        | counts("tollgate_upstream_attempts_total", 'provider="q",model="m",result="ok"', 10, "100+99x60")
        | counts("tollgate_upstream_attempts_total", 'provider="q",model="m",result="rate_limited"', 10, "1+1x20", 40),
        10, 25, 48, by="provider", who="p"),
    one("health", "TollgateErrorSpike",
        counts("tollgate_errors_total", 'type="upstream_timeout",provider="p"', 30, "3+5x30", 30)
        | counts("tollgate_errors_total", 'type="rate_limit",provider="p"', 30, "3+1x60")
        | counts("tollgate_errors_total", 'type="budget_exceeded",provider="p"', 30, "3+5x30", 30),
        29, 45, 85, by="type", who="upstream_timeout"),
    one("health", "TollgateFallbacks",
        counts("tollgate_requests_total", 'route="r",provider="p",model="m",outcome="ok",code="200"', 0, "0+10x120")
        | counts("tollgate_fallbacks_total", 'upstream="p",to="q",reason="server_error"', 30, "1+3x30", 60),
        32, 50, 90, who=""),
    one("health", "TollgateToolFailing",
        counts("tollgate_tool_calls_total", 'server="client",tool="edit",result="ok"', 20, "1+1x20", 60)
        | counts("tollgate_tool_calls_total", 'server="client",tool="edit",result="error"', 20, "1+4x20", 60),
        20, 40, 70, by="tool", who="edit"),
    one("health", "TollgateToolFailing",
        counts("tollgate_tool_calls_total", 'server="s",tool="bad",result="ok"', 0, "0+2x90")
        | counts("tollgate_tool_calls_total", 'server="s",tool="bad",result="error"', 20, "1+2x20", 60)
        | counts("tollgate_tool_calls_total", 'server="s",tool="good",result="ok"', 0, "0+8x90")
        | counts("tollgate_tool_calls_total", 'server="s",tool="good",result="error"', 20, "1+2x20", 60)
        | counts("tollgate_tool_calls_total", 'server="client",tool="tests",result="ok"', 0, "0+2x90")
        | counts("tollgate_tool_calls_total", 'server="client",tool="tests",result="error"', 20, "1+2x20", 60)
        | counts("tollgate_tool_calls_total", 'server="s",tool="rare",result="error"', 20, "0+1x3", 60),
        20, 40, 70, by="tool", who="bad"),
    one("health", "TollgateRecordsLost",
        counts("tollgate_journal_lost_records_total", "", 30, "0+3x2", 60), 29, 32, 55),
    one("health", "TollgateRecordsLost", gauge("tollgate_journal_lost_pending", "0x10 4x3 0x30"), 9, 11, 30),
    one("health", "TollgateJournalLag", gauge("tollgate_journal_lag_seconds", "2x10 61x10 60x30"), 14, 17, 30),
    one("health", "TollgateTelemetryDropped",
        gauge("tollgate_telemetry_dropped_total", BORN, 'signal="traces",reason="export_failed"')
        | gauge("tollgate_telemetry_dropped_total", BORN, 'signal="traces",reason="rate_limited"'),
        29, 35, 50, by="reason", who="export_failed"),
    one("health", "TollgateConfigReloadFailed",
        gauge("tollgate_config_last_reload_success", "1x10 0x5 1x20"), 10, 13, 20),
    one("health", "TollgateBudgetStoreAway", gauge("tollgate_budget_store_available", "1x10 0x5 1x20"), 10, 13, 20),
    one("health", "TollgateCacheStoreAway", gauge("tollgate_cache_store_available", "1x10 0x8 1x20"), 13, 17, 22),
    one("health", "TollgateWorkerDied", counts("tollgate_worker_deaths_total", "", 30, "0+1x1", 60), 29, 32, 55),
    one("health", "TollgateEventLoopLag",
        gauge("tollgate_event_loop_lag_seconds", "0.25x10 0.3x10 0.1x20"), 14, 17, 25),
    one("health", "TollgateLabelOverflow",
        gauge("tollgate_label_overflow_total", "_x80 1x100", 'metric="tollgate_cost_usd",label="agent"'), 79, 90, 150),
    one("health", "TollgateCanaryRolledBack",
        gauge("tollgate_canary_state", "0x80 1x100", 'canary="c",state="rolled_back"')
        | gauge("tollgate_canary_state", "0x80 1x100", 'canary="d",state="promoted"'),
        79, 90, 150, by="canary", who="c"),
]  # fmt: skip

_USD = 'provider="p",model="m",tenant="{}",agent="a",component="input",estimated="false"'
COST = [
    Scenario(
        "cost",
        gauge("tollgate_budget_remaining_ratio", "0.51x10 0.5x10 0.21x10 0.2x10 0.0x10 0.99x10",
              'scope="team",budget="team:t|usd|day"'),
        {
            9: (),
            15: (("TollgateBudgetHalfSpent", "a"),),
            25: (("TollgateBudgetHalfSpent", "a"),),
            36: (("TollgateBudgetHalfSpent", "a"), ("TollgateBudgetNearlySpent", "a")),
            46: (
                ("TollgateBudgetHalfSpent", "a"), ("TollgateBudgetNearlySpent", "a"), ("TollgateBudgetExhausted", "a")
            ),
            58: (),
        },
    ),
    # 100 a month at 0.2 a minute: 70 left run out in 5.8 hours; a tenth of that pace, and an hourly budget, do not.
    Scenario(
        "cost",
        gauge("tollgate_budget_limit_usd", "100x240", 'scope="team",budget="team:fast|usd|month"')
        | gauge("tollgate_budget_spent_usd", "10x60 10.2+0.2x120 34.2x60", 'scope="team",budget="team:fast|usd|month"')
        | gauge("tollgate_budget_limit_usd", "100x240", 'scope="team",budget="team:slow|usd|month"')
        | gauge("tollgate_budget_spent_usd", "10x60 10.02+0.02x120", 'scope="team",budget="team:slow|usd|month"')
        | gauge("tollgate_budget_limit_usd", "100x240", 'scope="team",budget="team:fast|usd|hour"')
        | gauge("tollgate_budget_spent_usd", "10x60 10.2+0.2x120", 'scope="team",budget="team:fast|usd|hour"'),
        {75: (), 179: (("TollgateBudgetRunsOut", "team:fast|usd|month"),), 235: ()},
        by="budget",
    ),
    one("cost", "TollgateRunawayRun", gauge("tollgate_active_run_cost_usd", "25x10 26x10 3x10"), 9, 12, 25),
    one("cost", "TollgateRunawayRun", gauge("tollgate_active_run_steps", "500x10 501x10 3x10"), 9, 12, 25),
    one("cost", "TollgateAgentLooping",
        gauge("tollgate_loop_signals_total", BORN, 'signal="cycle",action="stop"')
        | gauge("tollgate_loop_signals_total", BORN, 'signal="repeated_call",action="note"'),
        29, 35, 50, by="signal", who="cycle"),
    one("cost", "TollgatePriceUnknown",
        gauge("tollgate_cost_unknown_total", "_x60 1x60", 'reason="no_price",provider="p"'),
        59, 65, 95, by="provider", who="p"),
    one("cost", "TollgateUsageMissing",
        counts("tollgate_cost_unknown_total", 'reason="no_usage",provider="p"', 60, "1+2x5", 60)
        | counts("tollgate_cost_unknown_total", 'reason="no_usage",provider="q"', 60, "1+1x4", 60),
        60, 70, 110, by="provider", who="p"),
    one("cost", "TollgateUsageMissing",
        counts("tollgate_usage_source_total", 'provider="p",source="provider"', 0, "0+5x120")
        | counts("tollgate_usage_source_total", 'provider="p",source="estimated"', 40, "1+2x30", 60)
        | counts("tollgate_usage_source_total", 'provider="q",source="provider"', 0, "0+50x120")
        | counts("tollgate_usage_source_total", 'provider="q",source="estimated"', 40, "1+2x30", 60),
        40, 65, 105, by="provider", who="p"),
    one("cost", "TollgateMoneyWasted",
        {series("tollgate_cost_wasted_usd_total", 'provider="p",model="m",outcome="cancelled"'): "1x30 1.1+0.1x20 3x90",
         series("tollgate_cost_wasted_usd_total",
        'provider="p",model="m",outcome="retried"'): "1x30 1.01+0.01x20 1.3x90"},
        30, 60, 130, by="outcome", who="cancelled"),
    one("cost", "TollgatePromptCacheLost",
        {series("tollgate_prompt_cache_lost_usd_total", 'agent="x",cause="changed"'): "1x30 1.2+0.2x60",
         series("tollgate_prompt_cache_lost_usd_total", 'agent="y",cause="changed"'): "1x30 1.02+0.02x60"},
        30, 88, by="agent", who="x"),
    one("cost", "TollgateSettlesLost", counts("tollgate_budget_settles_lost_total", "", 90, "0+1x1", 120), 89, 95, 180),
    one("cost", "TollgateSettlesWaiting", gauge("tollgate_budget_settles_waiting", "100x10 101x15 5x10"), 18, 22, 30),
]  # fmt: skip


def _day(team: str, spent: str) -> dict[str, str]:
    """A budget of 100 USD a day, from midnight on and until two of the next night. Every sample is five minutes."""
    labels, midnight = f'scope="team",budget="team:{team}|usd|day"', 86_400
    return {
        **gauge("tollgate_budget_limit_usd", "100x312", labels),
        **gauge("tollgate_budget_spent_usd", spent, labels),
        **gauge("tollgate_budget_window_start_timestamp_seconds", f"0x287 {midnight}x24", labels),
        **gauge("tollgate_budget_window_end_timestamp_seconds", f"{midnight}x287 {2 * midnight}x24", labels),
    }


def _moved(name: str, labels: str) -> dict[str, str]:
    """From one gateway to another, after 96 samples."""
    other = GATE.replace('instance="a"', 'instance="b"')
    return {f"{name}{{{GATE},{labels}}}": "0+1x96 stale", f"{name}{{{other},{labels}}}": "_x97 0+1x12"}


_ROLLING = 'scope="team",budget="team:last|usd|day|rolling"'
COST_BUDGETS = [
    # Used evenly to 99 % it lasts. At half a dollar a minute it does not, nor does one of the last 24 hours. What was
    # spent the day before says nothing of the pace after midnight.
    Scenario(
        "cost-budgets",
        _day("even", "0+0.34375x287 0+0.34375x24")
        | _day("hurried", "0x120 2.5+2.5x39 100x126 0x24")
        | _day("night", "0+0.34375x287 0+8.5x10 85x14")
        | gauge("tollgate_budget_limit_usd", "100x312", _ROLLING)
        | gauge("tollgate_budget_spent_usd", "0x120 2.5+2.5x39 100x151", _ROLLING),
        {
            735: (),
            790: (("TollgateBudgetRunsOut", "team:hurried|usd|day"),
                  ("TollgateBudgetRunsOut", "team:last|usd|day|rolling")),
            805: (), 1400: (), 1425: (), 1435: (), 1445: (),
            1465: (("TollgateBudgetRunsOut", "team:night|usd|day"),), 1535: (),
        },
        by="budget", step="5m",
    ),
]  # fmt: skip

# Every sample is half an hour, as is every evaluation.
COST_HISTORY = [
    # Two dollars an hour for five weeks, then eight; another tenant has the same peak every week.
    Scenario(
        "cost-history",
        {
            series("tollgate_cost_usd_total", _USD.format("steady")): rising((1, 1674), (4, 20)),
            series("tollgate_cost_usd_total", _USD.format("weekly")): rising(*[(1, 330), (4, 6)] * 5, (1, 14)),
        },
        {50_190: (), 50_310: (("TollgateCostAnomaly", "steady"),)},
        by="tenant", step="30m",
    ),
    # Two days of history only: the last day is what is compared with. A counter that begins anew, and a tenant whose
    # calls another gateway takes over, are as before.
    Scenario(
        "cost-history",
        {
            series("tollgate_cost_usd_total", _USD.format("young")): rising((1, 96), (10, 14)),
            series("tollgate_cost_usd_total", _USD.format("even")): rising((1, 110)),
            series("tollgate_cost_usd_total", _USD.format("newborn")): "_x96 0+9x14",
            series("tollgate_cost_usd_total", _USD.format("restarted")): "0+1x96 0+1x13",
            **_moved("tollgate_cost_usd_total", _USD.format("moved")),
        },
        {2850: (), 2970: (("TollgateCostAnomaly", "young"),)},
        by="tenant", step="30m",
    ),
    # Runs of one agent cost 1 USD, and 2 after nine days; the other's 1 and 1.4.
    Scenario(
        "cost-history",
        {
            series("tollgate_runs_total", 'agent="x",outcome="success"'): "0+1x500",
            series("tollgate_run_cost_usd_total", 'agent="x",outcome="success"'): "0+1x334 336+2x166",
            series("tollgate_runs_total", 'agent="y",outcome="success"'): "0+1x500",
            series("tollgate_run_cost_usd_total", 'agent="y",outcome="success"'): "0+1x334 335.4+1.4x166",
        },
        {9900: (), 12_900: (("TollgateOutcomeCostDrift", "x"),)},
        by="agent", step="30m",
    ),
]  # fmt: skip

_RATIO, _TARGET = "tollgate_cache_false_hit_ratio_lower", "tollgate_cache_false_hit_target"
CACHE = [
    one("cache", "TollgateSimilarAnswersWrong",
        gauge(_RATIO, "0.02x60", 'scope="bad"') | gauge(_TARGET, "0.01x60", 'scope="bad"')
        | gauge(_RATIO, "0.009x60", 'scope="good"') | gauge(_TARGET, "0.01x60", 'scope="good"')
        | gauge(_RATIO, "0.02x20 0.0x40", 'scope="brief"') | gauge(_TARGET, "0.01x60", 'scope="brief"'),
        29, 31, by="scope", who="bad"),
    one("cache", "TollgateSimilarAnswersStopped",
        gauge("tollgate_cache_breaker_open", "0x5 1x10 0x10", 'scope="s"')
        | gauge("tollgate_cache_breaker_open", "0x25", 'scope="t"'), 9, 12, 20, by="scope", who="s"),
    one("cache", "TollgateEmbedderAway",
        gauge("tollgate_cache_matcher_up", "1x40") | gauge("tollgate_cache_embedder_up", "1x5 0x20 1x10"), 19, 22, 30),
    one("cache", "TollgateMatcherAway",
        gauge("tollgate_cache_matcher_up", "1x5 0x10 1x10") | gauge("tollgate_cache_embedder_up", "0x40"), 9, 12, 18),
    one("cache", "TollgateMatcherDied", counts("tollgate_cache_matcher_deaths_total", "", 40, "0+1x4", 60), 42, 46, 80),
    one("cache", "TollgateCacheWritesLost",
        counts("tollgate_cache_writes_lost_total", "", 40, "0+1x2", 60), 40, 44, 80),
]  # fmt: skip


def _traffic(bad: str, minutes: int, per: int = 100) -> dict[str, str]:
    """Calls of which `bad` (a series of increments) fail."""
    labels = 'route="r",provider="p",model="m",outcome="{}",code="{}"'
    return {
        series("tollgate_requests_total", labels.format("ok", 200)): f"0+{per}x{minutes}",
        series("tollgate_requests_total", labels.format("upstream_error", 503)): bad,
        series("tollgate_requests_total", labels.format("upstream_error", 429)): f"0+{per}x{minutes}",
        series("tollgate_requests_total", labels.format("refused", 402)): f"0+{per}x{minutes}",
    }


def _slow(name: str, labels: str, le: str, within: float, minutes: int) -> dict[str, str]:
    """100 a minute, of which so many are within the bound."""
    comma = "," if labels else ""
    return {
        series(f"{name}_count", labels): f"0+100x{minutes}",
        series(f"{name}_bucket", f'{labels}{comma}le="{le}"'): f"0+{within}x{minutes}",
        series(f"{name}_bucket", f'{labels}{comma}le="+Inf"'): f"0+100x{minutes}",
    }


def _burns(name: str, fast: bool) -> tuple[tuple[str, str], ...]:
    pair = ((f"TollgateSlo{name}", "page"), (f"TollgateSlo{name}", "ticket"))
    return pair if fast else pair[1:]


_PAGE = "sloth_severity"
SLO = [
    # 2 % of failures: 20 times what 99.9 % allows; over five minutes after the cause. 1 % in the last hour: 10 times.
    Scenario("slo", _traffic("0x120 2+2x45 182x60", 300), {
        118: (), 180: _burns("Availability", True), 240: _burns("Availability", False),
    }, by=_PAGE),
    # Everything fails, but there were only a few calls: silent.
    Scenario("slo", {series("tollgate_requests_total", 'outcome="failed",code="502"'): "0x10 1+1x10 11x60"},
             {25: (), 60: ()}, by=_PAGE),
    Scenario("slo", {series("tollgate_requests_total", 'outcome="failed",code="502"'): "0x10 3+3x20 63x60"},
             {9: (), 28: _burns("Availability", True)}, by=_PAGE),
    # 20 % slower than 10 ms, and 5 % (five times what 99 % allows: for tickets only after a while).
    Scenario("slo", _slow("tollgate_overhead_seconds", 'phase="total"', "0.01", 80, 45), {40: _burns("Overhead", True)},
             by=_PAGE),
    Scenario("slo", _slow("tollgate_overhead_seconds", 'phase="total"', "0.01", 99.5, 45), {40: ()}, by=_PAGE),
    # Nothing within 5 s; both ways of writing the bound.
    Scenario("slo", _slow("tollgate_time_to_first_token_seconds", 'provider="p",model="m"', "5.0", 10, 45),
             {40: _burns("FirstToken", True)}, by=_PAGE),
    Scenario("slo", _slow("tollgate_time_to_first_token_seconds", 'provider="p",model="m"', "5", 96, 45), {40: ()},
             by=_PAGE),
    Scenario("slo", {series("tollgate_tool_calls_total", 'server="s",tool="t",result="ok"'): "0+80x45",
                     series("tollgate_tool_calls_total", 'server="s",tool="t",result="error"'): "0+20x45"},
             {40: _burns("Tools", True)}, by=_PAGE),
    Scenario("slo", {series("tollgate_tool_calls_total", 'server="s",tool="t",result="ok"'): "0+199x45",
                     series("tollgate_tool_calls_total", 'server="s",tool="t",result="error"'): "0+1x45",
                     series("tollgate_tool_calls_total", 'server="s",tool="t",result="unknown"'): "0+50x45"},
             {40: ()}, by=_PAGE),
    Scenario("slo", {series("tollgate_cache_verified_total", 'scope="s",verdict="right"'): "0+8x45",
                     series("tollgate_cache_verified_total", 'scope="s",verdict="wrong"'): "0+2x45"},
             {40: _burns("Cache", True)}, by=_PAGE),
    Scenario("slo", {series("tollgate_cache_verified_total", 'scope="s",verdict="right"'): "0+8x45",
                     series("tollgate_cache_verified_total", 'scope="s",verdict="wrong"'): "0x45"},
             {40: ()}, by=_PAGE),
    Scenario("slo", _traffic("0x45", 45) | {series("tollgate_journal_lost_records_total"): "0x20 10+10x25"},
             {19: (), 40: _burns("Telemetry", True)}, by=_PAGE),
    Scenario("slo", _traffic("0x45", 45) | {
        series("tollgate_journal_lost_records_total"): "0x45",
        series("tollgate_telemetry_dropped_total", 'signal="traces",reason="rate_limited"'): "0+50x45"},
        {40: ()}, by=_PAGE),
]  # fmt: skip

# Every sample is two minutes, every evaluation ten.
SLO_SLOW = [
    # 0.9 %: under 14.4 times, over 6: the pair of six hours and thirty minutes.
    Scenario("slo-slow", _traffic("0x30 9+9x200", 230, 1000), {59: (), 420: _burns("Availability", True)}, by=_PAGE,
             step="2m"),
    # 0.4 % for more than a day: the pair of a day and two hours, and nobody is woken.
    Scenario("slo-slow", _traffic("0+4x900", 900, 1000), {1780: _burns("Availability", False)}, by=_PAGE, step="2m"),
    # 0.2 % for three days: the slowest pair alone. 0.08 %: within the goal.
    Scenario("slo-slow", _traffic("0+2x2250", 2250, 1000), {4400: _burns("Availability", False)}, by=_PAGE, step="2m"),
    Scenario("slo-slow", _traffic("0+8x2250", 2250, 10_000), {4400: ()}, by=_PAGE, step="2m"),
]  # fmt: skip

SCENARIOS: Mapping[str, Sequence[Scenario]] = {
    "health": HEALTH,
    "cost": COST,
    "cost-budgets": COST_BUDGETS,
    "cost-history": COST_HISTORY,
    "cache": CACHE,
    "slo": SLO,
    "slo-slow": SLO_SLOW,
}
EVALUATION = {"slo": "30s", "ordinary": "30s", "cost-budgets": "5m", "cost-history": "30m", "slo-slow": "10m"}
"""How often the rules of a file are evaluated; the others: each minute."""


@dataclass
class Ordinary:
    """Traffic in which nothing is wrong, and a little always is: no alert of any file fires."""

    series: dict[str, str] = field(default_factory=lambda: {
        **_traffic("0+1x180", 180, 10_000),
        **_slow("tollgate_overhead_seconds", 'phase="total"', "0.01", 100, 180),
        **_slow("tollgate_time_to_first_token_seconds", 'provider="p",model="m"', "5.0", 98, 180),
        **gauge("tollgate_upstream_attempts_total", "0+100x180", 'provider="p",model="m",result="ok"'),
        **gauge("tollgate_upstream_attempts_total", "0+1x180", 'provider="p",model="m",result="rate_limited"'),
        **gauge("tollgate_errors_total", "0+1x180", 'type="rate_limit_error",provider="p"'),
        **gauge("tollgate_fallbacks_total", "0+1x180", 'upstream="p",to="q",reason="rate_limited"'),
        **gauge("tollgate_tool_calls_total", "0+400x180", 'server="s",tool="t",result="ok"'),
        **gauge("tollgate_tool_calls_total", "0+1x180", 'server="s",tool="t",result="error"'),
        **gauge("tollgate_cost_usd_total", "0+0.1x180", _USD.format("t")),
        **gauge("tollgate_runs_total", "0+1x180", 'agent="a",outcome="success"'),
        **gauge("tollgate_run_cost_usd_total", "0+0.5x180", 'agent="a",outcome="success"'),
        **gauge("tollgate_usage_source_total", "0+100x180", 'provider="p",source="provider"'),
        **gauge("tollgate_usage_source_total", "0+1x180", 'provider="p",source="estimated"'),
        **gauge("tollgate_budget_limit_usd", "1000x180", 'scope="global",budget="global|usd|month"'),
        **gauge("tollgate_budget_spent_usd", "10+0.1x180", 'scope="global",budget="global|usd|month"'),
        **gauge("tollgate_budget_remaining_ratio", "0.9x180", 'scope="global",budget="global|usd|month"'),
        **gauge("tollgate_active_run_cost_usd", "0.5x180"), **gauge("tollgate_active_run_steps", "30x180"),
        **gauge("tollgate_descriptors_used_ratio", "0.5x180"),
        **gauge("tollgate_overload_level", "1x180"), **gauge("tollgate_bulkhead_in_flight", "8x180", 'pool="p"'),
        **gauge("tollgate_bulkhead_limit", "10x180", 'pool="p"'),
        **gauge("tollgate_breaker_open", "0x180", 'breaker="openai"'),
        **gauge("tollgate_config_last_reload_success", "1x180"),
        **gauge("tollgate_budget_store_available", "1x180"), **gauge("tollgate_event_loop_lag_seconds", "0.01x180"),
        **gauge("tollgate_journal_lag_seconds", "0.2x180"), **gauge("tollgate_journal_lost_pending", "0x180"),
        **gauge("tollgate_journal_lost_records_total", "0x180"), **gauge("tollgate_worker_deaths_total", "0x180"),
    })  # fmt: skip


def tests(name: str, groups: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """A file for `promtool test rules`; "ordinary" is the one of all rules together. `groups`: names by rule file."""
    if name == "ordinary":
        found, rules = [Scenario("", Ordinary().series, {30: (), 170: ()})], sorted(groups)
    else:
        found, rules = [*SCENARIOS[name]], [name.partition("-")[0]]
    return {
        "rule_files": [f"../{file}.yaml" for file in rules],
        "evaluation_interval": EVALUATION.get(name, "1m"),
        "group_eval_order": [group for file in rules for group in groups[file]],
        "tests": [_test(scenario) for scenario in found],
    }


def _test(scenario: Scenario) -> dict[str, Any]:
    given = dict(scenario.series)
    if scenario.alive:
        given = {**{series: values.format(LENGTH) for series, values in ALIVE.items()}, **given}
    by = scenario.by
    query = f'group by (alertname, {by}) (ALERTS{{alertstate="firing", alertname!="TollgateWatchdog"}})'
    return {
        "interval": scenario.step,
        "input_series": [{"series": series, "values": values} for series, values in given.items()],
        "promql_expr_test": [
            {
                "expr": query,
                "eval_time": f"{minute}m",
                "exp_samples": [
                    {"labels": f'{{alertname="{alert}"' + (f', {by}="{who}"}}' if who else "}"), "value": 1}
                    for alert, who in alerts
                ],
            }
            for minute, alerts in scenario.fires.items()
        ],
    }
