"""Alerts of what is spent, and the recordings that they rest on."""

from __future__ import annotations

from alerts import month
from alerts.parts import Alert, grew

HOUR = "tenant:tollgate_cost_usd:increase1h"
MEAN = "tenant:tollgate_cost_usd:baseline_mean"
SPREAD = "tenant:tollgate_cost_usd:baseline_stddev"
SCORE = "tenant:tollgate_cost_usd:zscore"
EXHAUSTION = "budget:tollgate_budget_spent_usd:seconds_to_limit"
OUTCOME = "agent:tollgate_run_cost_usd:mean1d"

_WEEKS = " or ".join(f'label_replace({HOUR} offset {week}w, "week", "{week}", "", "")' for week in range(1, 5))
# The same hour of the last weeks, where there are three of them; else the last day, where there are six hours of it.
_RIPE = f"(count by (tenant) ({_WEEKS}) >= 3)"
_YOUNG = f"and on (tenant) ({HOUR} offset 6h)"


def _baseline(weekly: str, daily: str) -> str:
    return f"{weekly} by (tenant) ({_WEEKS}) and on (tenant) {_RIPE} or {daily}({HOUR}[1d] offset 1h) {_YOUNG}"


_FLOOR = f"(0.1 * {MEAN} + 0.01)"
_RUNS = "sum by (agent, outcome) (increase(tollgate_runs_total[1d]))"

# US dollars a second: of the last half hour; where a window began within it, of that window so far.
_SPENT, _START = "tollgate_budget_spent_usd", "tollgate_budget_window_start_timestamp_seconds"
_TURNED = f"changes({_START}[30m]) > 0"
_PACE = f"(deriv({_SPENT}[30m]) unless {_TURNED} or {_SPENT} / clamp_min(time() - {_START}, 60))"

RECORDINGS = (
    {"record": HOUR, "expr": "sum by (tenant) (increase(tollgate_cost_usd_total[1h]))"},
    {"record": MEAN, "expr": _baseline("avg", "avg_over_time")},
    {"record": SPREAD, "expr": _baseline("stddev", "stddev_over_time")},
    {"record": SCORE, "expr": f"({HOUR} - {MEAN}) / (({SPREAD} > {_FLOOR}) or {_FLOOR})"},
    {
        "record": OUTCOME,
        "expr": f"sum by (agent, outcome) (increase(tollgate_run_cost_usd_total[1d])) / ({_RUNS} >= 10)",
    },
    {"record": EXHAUSTION, "expr": f"(tollgate_budget_limit_usd - {_SPENT} > 0) / ({_PACE} > 0)"},
    *month.RECORDINGS,
)

# Only of windows so long that to run out before their end matters; and not in the last half of the time that is left,
# where a pace that is just right goes up and down.
_LONG = f'{EXHAUSTION}{{budget=~".*[|](week|month|life).*"}} < 6 * 3600'
_DAY = f'{EXHAUSTION}{{budget=~".*[|]day.*"}} < 3600'
_LATE = f"{EXHAUSTION} > 0.5 * (tollgate_budget_window_end_timestamp_seconds - time())"


_ESTIMATED = 'sum by (provider) (increase(tollgate_usage_source_total{source="estimated"}[30m]))'
_UNTOLD = grew('tollgate_cost_unknown_total{reason="no_usage"}', "30m", "provider", above=5)
_USED = "(sum by (provider) (increase(tollgate_usage_source_total[30m])) >= 20)"

ALERTS = (
    Alert(
        "TollgateCostAnomaly", f"{SCORE} > 3 and {HOUR} > 1", "10m", "ticket", "finops", "costs",
        "{{ $labels.tenant }} spends far more than usual",
        "The last hour is {{ $value | humanize }} spreads above the same hour of the last weeks (of a young series: "
        "above the last day).",
        "Cost & budgets: by agent and model, since when. What was deployed; a price that changed.",
        "Ask who owns it. A budget for the tenant bounds it: `tollgate limits set`.",
    ),
    Alert(
        "TollgateBudgetHalfSpent", "tollgate_budget_remaining_ratio <= 0.5", "", "info", "finops", "costs",
        "Half of {{ $labels.budget }} is spent",
        "{{ $value | humanizePercentage }} of it is left in this window.",
        "Cost & budgets: its pace, and what it goes on.",
        "Nothing, where the window is half over too.",
    ),
    Alert(
        "TollgateBudgetNearlySpent", "tollgate_budget_remaining_ratio <= 0.2", "", "ticket", "finops", "costs",
        "{{ $labels.budget }} is nearly spent",
        "{{ $value | humanizePercentage }} of it is left; then calls are refused, clamped or queued, as configured.",
        "Cost & budgets: who spends it; time to exhaustion.",
        "Raise it (`tollgate limits set`), or have agents taper: `runs.taper`.",
    ),
    Alert(
        "TollgateBudgetExhausted", "tollgate_budget_remaining_ratio <= 0.001", "", "page", "finops", "costs",
        "{{ $labels.budget }} is spent",
        "Calls that it covers are not served as before until its window ends.",
        "`curl http://HOST:8788/api/budgets`; budget decisions on the dashboard.",
        "Raise it, or tell those whose agents have stopped when the window ends.",
    ),
    Alert(
        "TollgateBudgetRunsOut", f"({_LONG} or {_DAY}) unless {_LATE}", "15m", "ticket", "finops", "costs",
        "{{ $labels.budget }} will be spent within {{ $value | humanizeDuration }}",
        "At the pace of the last half hour, and before half of what is left of its window is over.",
        "Cost & budgets: which agent has sped up.",
        "Stop it if it should not run (`tollgate runs kill --agent`), else raise the budget in time.",
    ),
    Alert(
        "TollgateRunawayRun", "tollgate_active_run_cost_usd > 25 or tollgate_active_run_steps > 500", "", "page",
        "finops", "agents",
        "A run at {{ $labels.instance }} costs or does far more than runs do",
        "One run stands at {{ $value | humanize }} (US dollars above 25, or calls above 500).",
        "`tollgate runs list`: the dearest, its agent, what its last calls were.",
        "`tollgate runs kill ID --reason ...` ends it within a second. `runs.budget_usd` and `runs.max_calls` bound "
        "all runs.",
    ),
    Alert(
        "TollgateAgentLooping",
        grew('tollgate_loop_signals_total{action=~"warn|downshift|stop"}', "10m", "signal", "action", above=0),
        "", "ticket", "finops", "agents",
        "An agent goes in circles: {{ $labels.signal }}",
        "{{ $value | humanize }} calls in ten minutes; what was done about it: {{ $labels.action }}.",
        "Agents & runs; `tollgate runs list` for the run, its trace for the circle.",
        "docs/loops.md: what each sign means, and how to act on it sooner or later.",
        hold="5m",
    ),
    Alert(
        "TollgateOutcomeCostDrift", f"{OUTCOME} > 1.5 * ({OUTCOME} offset 1w) and {OUTCOME} > 0.01", "1h", "ticket",
        "finops", "agents",
        "Runs of {{ $labels.agent }} that end in {{ $labels.outcome }} became dearer",
        "{{ $value | humanize }} US dollars each over a day, more than half again what it was a week ago.",
        "Agents & runs: steps per run, models, tokens; prompt caches that no longer hit (docs/prompt-cache.md).",
        "Compare a run of today with one of last week; take back what changed, or accept the new price.",
    ),
    Alert(
        "TollgatePriceUnknown", grew('tollgate_cost_unknown_total{reason="no_price"}', "30m", "provider", above=0), "",
        "ticket", "finops", "costs",
        "Calls of {{ $labels.provider }} have no price",
        "{{ $value | humanize }} calls in 30 minutes cost an unknown amount; it is in no total and in no budget.",
        "`tollgate check` lists models without a price.",
        "`prices.models` in the configuration, or a newer catalogue.",
    ),
    Alert(
        "TollgateUsageMissing",
        f"{_ESTIMATED} / {_USED} > 0.1 or {_UNTOLD}",
        "", "ticket", "finops", "costs",
        "{{ $labels.provider }} does not say what was used",
        "Tokens of its calls are estimated or unknown, and so is their cost.",
        "Whether streams end before their usage; `inject_usage` of the upstream; a proxy between.",
        "Let streams ask for usage. Clients that leave early: `on_client_gone: drain`.",
    ),
    Alert(
        "TollgateMoneyWasted",
        "sum by (provider, outcome) (increase(tollgate_cost_wasted_usd_total[1h])) > 1", "", "info", "finops", "costs",
        "Answers are paid for that nobody gets: {{ $labels.outcome }}",
        "{{ $value | humanize }} US dollars in an hour at {{ $labels.provider }}.",
        "Timeouts of clients shorter than the answers; retries of answers that had begun.",
        "Longer timeouts in the client; `cancel` on_client_gone.",
    ),
    Alert(
        "TollgatePromptCacheLost", "sum by (agent, cause) (increase(tollgate_prompt_cache_lost_usd_total[1d])) > 5",
        "", "info", "finops", "cache",
        "{{ $labels.agent }} does not use its provider's cache: {{ $labels.cause }}",
        "A stable prefix would have saved {{ $value | humanize }} US dollars in a day.",
        "docs/prompt-cache.md; which part of the prefix changes (`tollgate_prompt_cache_churn_total`).",
        "Move what changes behind what does not; `prompt_cache` can set the marks.",
    ),
    Alert(
        "TollgateSettlesLost", grew("tollgate_budget_settles_lost_total", "1h", above=0), "", "page", "finops", "costs",
        "Spend was not booked at {{ $labels.instance }}",
        "{{ $value | humanize }} calls will never be charged to their budgets.",
        "The log around it; how long the store was away.",
        "The ledger has what they cost: lower the budgets by hand where it matters.",
    ),
    Alert(
        "TollgateSettlesWaiting", "tollgate_budget_settles_waiting > 100", "10m", "ticket", "finops", "costs",
        "Spend of {{ $labels.instance }} waits to be booked",
        "{{ $value }} calls have ended that the store of budgets does not know of.",
        "Whether the store is slow or away.",
        "Bring it back before the queue is full.",
    ),
)  # fmt: skip
