"""Dashboards of calls and money: Overview, Cost & budgets, Agents & runs."""

from __future__ import annotations

from alerts import month
from alerts.cost import EXHAUSTION
from dashboards.parts import ALWAYS, FILTERS, RATE, Board, Panel, Query, grown, or_none, pick, quantiles, rate

USD, COUNT, SHARE, PACE = "currencyUSD", "short", "percentunit", "reqps"
_GUESSED = 'estimated="true"'
_BROKEN = 'outcome=~"failed|error|truncated|abandoned"'
_COST = "tollgate_cost_usd_total"
_EXHAUSTION = f'min by (budget) ({EXHAUSTION}{{job=~"$job", instance=~"$instance"}})'
_ENDS = f"(max by (budget) ({pick('tollgate_budget_window_end_timestamp_seconds')}) - time())"
_LASTS = f'label_replace({_EXHAUSTION} >= {_ENDS}, "lasts", ": lasts", "", "")'
_NEVER = 'label_replace(label_replace(vector(0), "provider", "all", "", ""), "reason", "known", "", "")'
_LEFT_OVER = ((0.001, "orange"), (0.2, "green"))  # as the alerts on budgets


def _slo(name: str) -> str:
    return f"max by (sloth_slo) ({name})"


def _spent(*conditions: str, by: str = "", over: str = "$__range") -> str:
    return grown(_COST, *conditions, by=by, over=over)


def _slices(recording: str) -> str:
    chosen = ", ".join(f'{label}=~"${label}"' for label in (*ALWAYS, *FILTERS))
    return f"sum ({recording}{{{chosen}}})"


_LAST = _spent(by="agent", over="1h")
_BEFORE = f"sum by (agent) (increase({pick(_COST)}[1h] offset 1h))"

OVERVIEW = Board(
    "overview",
    "How calls go, what they cost, whether the goals of service hold, and what changed.",
    {
        "Now": (
            Panel("Calls", "Calls that ended, per second.", PACE, (Query(rate("tollgate_requests_total")),), "stat", 4),
            Panel("Failed", "Share of calls that the gateway or a provider failed.", SHARE, (
                Query(f"({or_none(rate('tollgate_requests_total', _BROKEN))}) / {rate('tollgate_requests_total')}"),
            ), "stat", 4, steps=((0.01, "orange"), (0.05, "red"))),
            Panel("P95", "Of calls, from head to last byte.", "s", (
                Query(quantiles("tollgate_request_duration_seconds")[1].expr),
            ), "stat", 4),
            Panel("Spent per hour", "At the pace of the last hour.", USD, (Query(_spent(over="1h")),), "stat", 4),
            Panel("Active runs", "Runs with a recent call.", COUNT, (
                Query(f"sum ({pick('tollgate_active_runs')})"),
            ), "stat", 4),
            Panel("In flight", "Calls in progress.", COUNT, (
                Query(f"sum ({pick('tollgate_inflight_requests')})"),
            ), "stat", 4),
        ),
        "Rate, errors, duration": (
            Panel("Calls by outcome", "Per second, by how each ended.", PACE, (
                Query(rate("tollgate_requests_total", by="outcome"), "{{outcome}}"),
            ), stacked=True),
            Panel("Errors by type", "Failed calls per second, by stable code or the provider's type.", PACE, (
                Query(rate("tollgate_errors_total", by="type"), "{{type}}"),
            ), stacked=True),
            Panel("Duration", "Of calls, from head to last byte; points lead to traces.", "s",
                  quantiles("tollgate_request_duration_seconds"), exemplars=True),
        ),
        "Goals of service": (
            Panel("Error budget left", "Of 30 days; below zero the goal is missed.", SHARE, (
                Query(_slo("slo:period_error_budget_remaining:ratio"), "{{sloth_slo}}"),
            ), "bars", 8, high=1, steps=_LEFT_OVER, base="red"),
            Panel("Burn rate", "1: the budget lasts exactly 30 days. 14.4 for an hour pages.", COUNT, (
                Query(_slo("slo:current_burn_rate:ratio"), "{{sloth_slo}}"),
            )),
            Panel("Bad share over an hour", "Of what each goal counts.", SHARE, (
                Query(_slo("slo:sli_error:ratio_rate1h"), "{{sloth_slo}}"),
            )),
        ),
        "Who spends, and what changed": (
            Panel("Top agents", "US dollars in the time shown.", USD, (
                Query(f"topk(10, {_spent(by='agent')})", "{{agent}}"),
            ), "bars", 6),
            Panel("Top models", "US dollars in the time shown.", USD, (
                Query(f"topk(10, {_spent(by='model')})", "{{model}}"),
            ), "bars", 6),
            Panel("Changed most", "US dollars of the last hour more than in the one before, by agent.", USD, (
                Query(f"topk(5, {_LAST} - {_BEFORE} or {_LAST})", "{{agent}}"),
            ), "bars", 6, low=None),
            Panel("Alerts", "What fires now.", COUNT, (
                Query('sum by (alertname, severity) (ALERTS{alertname=~"Tollgate.*", alertstate="firing"})',
                      "{{alertname}}"),
            ), "table", 6, hidden=("Time", "Value")),
        ),
    },
)  # fmt: skip

COSTS = Board(
    "costs",
    "What is spent, by whom and on what; what was saved; how long budgets last.",
    {
        "Spend": (
            Panel("This hour", "US dollars of the last 60 minutes.", USD, (Query(_spent(over="1h")),), "stat", 4),
            Panel("24 hours", "US dollars of the last 24 hours.", USD, (Query(_spent(over="1d")),), "stat", 4),
            Panel("Month, projected", "US dollars of this month (UTC) when it ends: spent in its full hours so far, "
                  "and for each hour to come what the same hour of the same weekday cost in the last seven days. Of a "
                  "gateway scraped for less than that, and of a name that began within the hour: as the last 24 hours, "
                  "or as many as there are.", USD, (
                Query(f"({or_none(_slices(month.SPENT))}) + {_slices(month.REST)}"),
            ), "stat", 4),
            Panel("Saved", "US dollars that stored answers would have cost, in the time shown.", USD, (
                Query(or_none(grown("tollgate_cost_saved_usd_total"))),
            ), "stat", 4),
            Panel("Calls without a price", "In the time shown; they are in no total.", COUNT, (
                Query(or_none(grown("tollgate_cost_unknown_total", 'reason="no_price"'))),
            ), "stat", 4, steps=((1, "orange"),)),
            Panel("Wasted", "US dollars of answers that nobody got, in the time shown.", USD, (
                Query(or_none(grown("tollgate_cost_wasted_usd_total"))),
            ), "stat", 4),
        ),
        "By whom, on what": (
            Panel("By tenant", "US dollars per hour.", USD, (
                Query(f"3600 * {rate(_COST, by='tenant')}", "{{tenant}}"),
            ), stacked=True),
            Panel("By agent", "US dollars per hour.", USD, (
                Query(f"3600 * {rate(_COST, by='agent')}", "{{agent}}"),
            ), stacked=True),
            Panel("By model", "US dollars per hour.", USD, (
                Query(f"3600 * {rate(_COST, by='model')}", "{{model}}"),
            ), stacked=True),
            Panel("By component", "US dollars per hour: input, output, cache reads and writes.", USD, (
                Query(f"3600 * {rate(_COST, by='component')}", "{{component}}"),
            ), stacked=True),
            Panel("Tokens", "Per second, by type; input includes cache reads and writes.", COUNT, (
                Query(rate("tollgate_tokens_total", by="type"), "{{type}}"),
            )),
            Panel("Estimated share", "Of the cost of each provider: usage that it did not report.", SHARE, (
                Query(f"({or_none(_spent(_GUESSED))}) / {_spent()}", "estimated"),
            ), high=1),
        ),
        "Saved, wasted, unknown": (
            Panel("Saved by", "US dollars per hour: by the cache of equal and similar questions, and by calls that "
                  "waited for an equal one.", USD, (
                Query(f"3600 * {rate('tollgate_cost_saved_usd_total', by='reason')}", "{{reason}}"),
            ), stacked=True),
            Panel("Wasted by", "US dollars per hour of answers that were cut, left or tried again.", USD, (
                Query(f"3600 * {rate('tollgate_cost_wasted_usd_total', by='outcome')}", "{{outcome}}"),
            ), stacked=True),
            Panel("Cost unknown", "Calls per second without a price or without usage.", PACE, (
                Query(f"{rate('tollgate_cost_unknown_total', by='reason, provider')} or on () {_NEVER}",
                      "{{provider}}: {{reason}}"),
            )),
            Panel("Where usage comes from", "Calls with tokens per second.", PACE, (
                Query(rate("tollgate_usage_source_total", by="source"), "{{source}}"),
            ), stacked=True),
            Panel("What the cache itself costs", "US dollars per hour for checks, embeddings and the judge.", USD, (
                Query(f"3600 * ({or_none(rate('tollgate_cache_shadow_cost_usd_total'))})", "checks"),
                Query(f"3600 * ({or_none(rate('tollgate_cache_embedder_cost_usd_total'))})", "embeddings"),
                Query(f"3600 * ({or_none(rate('tollgate_cache_judge_cost_usd_total'))})", "judge"),
            ), stacked=True),
            Panel("Compared with usual", "Spreads that a tenant's last hour is away from the same hour of the last "
                  "weeks; of a young series, from the last day. Above 3 it is an alert.", COUNT, (
                Query('tenant:tollgate_cost_usd:zscore{tenant=~"$tenant"}', "{{tenant}}"),
            ), low=None),
        ),
        "Budgets": (
            Panel("Left of budgets", "What is not spent, in the current window of each.", SHARE, (
                Query(f"bottomk(20, max by (budget) ({pick('tollgate_budget_remaining_ratio')}))", "{{budget}}"),
            ), "bars", 8, high=1, steps=_LEFT_OVER, base="red"),
            Panel("Spent and held", "US dollars: spent in the window, and held by calls under way.", USD, (
                Query(f"topk(10, max by (budget) ({pick('tollgate_budget_spent_usd')}))", "{{budget}} spent"),
                Query(f"topk(10, max by (budget) ({pick('tollgate_budget_reserved_usd')}))", "{{budget}} held"),
            )),
            Panel("Time to exhaustion", "At the pace of the last half hour, or of the window where it is younger; "
                  "nothing where a budget is not being spent. One whose window ends first lasts.", "s", (
                Query(f"{_LASTS} or on (budget) {_EXHAUSTION}", "{{budget}}{{lasts}}"),
            ), "bars", 8, base="blue"),
            Panel("Decisions", "Calls per second that met a limit, by what was decided last.", PACE, (
                Query(rate("tollgate_budget_decisions_total", by="decision"), "{{decision}}"),
            ), stacked=True),
            Panel("Refused by the gateway", "Calls per second, by stable code.", PACE, (
                Query(rate("tollgate_rejected_total", by="reason"), "{{reason}}"),
            ), stacked=True),
            Panel("Booking", "Ended calls that the store does not have yet, that it will never have, and holds of dead "
                  "workers.", COUNT, (
                Query(f"sum ({pick('tollgate_budget_settles_waiting')})", "waiting"),
                Query(grown("tollgate_budget_settles_lost_total", over=RATE), "lost"),
                Query(grown("tollgate_budget_holds_expired_total", over=RATE), "expired holds"),
            )),
        ),
    },
)  # fmt: skip

_RUN_USD, _RUNS = "tollgate_run_cost_usd_total", "tollgate_runs_total"
AGENTS = Board(
    "agents",
    "Runs of agents: what they cost, how long they go on, how they end, and which were stopped.",
    {
        "Runs": (
            Panel("Active", "Runs with a recent call.", COUNT, (
                Query(f"sum ({pick('tollgate_active_runs')})"),
            ), "stat", 6),
            Panel("Ended", "In the time shown: outcome reported, or without a call for an hour.", COUNT, (
                Query(grown(_RUNS)),
            ), "stat", 6),
            Panel("Dearest running", "US dollars of the dearest run that has a recent call.", USD, (
                Query(f"max ({pick('tollgate_active_run_cost_usd')})"),
            ), "stat", 6, steps=((10, "orange"), (25, "red"))),
            Panel("Longest running", "Calls of the longest run that has a recent call.", COUNT, (
                Query(f"max ({pick('tollgate_active_run_steps')})"),
            ), "stat", 6, steps=((200, "orange"), (500, "red"))),
        ),
        "Cost and outcome": (
            Panel("Cost of a run", "US dollars, of runs that ended.", USD,
                  quantiles("tollgate_conversation_cost_usd")),
            Panel("Mean cost by agent", "US dollars of a run that ended.", USD, (
                Query(f"{rate('tollgate_conversation_cost_usd_sum', by='agent')} / "
                      f"({rate('tollgate_conversation_cost_usd_count', by='agent')} > 0)", "{{agent}}"),
            )),
            Panel("Cost per outcome", "US dollars of a run, by the outcome that it was reported with.", USD, (
                Query(f"{grown(_RUN_USD, by='agent, outcome')} / ({grown(_RUNS, by='agent, outcome')} > 0)",
                      "{{agent}}: {{outcome}}"),
            ), "bars", 8),
            Panel("Outcomes", "Runs that ended, per hour.", COUNT, (
                Query(f"3600 * {rate(_RUNS, by='outcome')}", "{{outcome}}"),
            ), stacked=True),
            Panel("Score", "Mean of the scores that were reported.", COUNT, (
                Query(f"{grown('tollgate_run_score_sum', by='agent')} / "
                      f"({grown('tollgate_run_score_count', by='agent')} > 0)", "{{agent}}"),
            ), "bars", 8, low=None),
            Panel("Spend by agent", "US dollars in the time shown.", USD, (
                Query(f"topk(20, {_spent(by='agent')})", "{{agent}}"),
            ), "bars", 8),
        ),
        "Steps and loops": (
            Panel("Steps of a run", "Calls per run, of runs that ended.", COUNT, quantiles("tollgate_agent_steps")),
            Panel("Tools called", "Per second, by tool.", PACE, (
                Query(f"topk(10, {rate('tollgate_tool_calls_total', by='tool')})", "{{tool}}"),
            )),
            Panel("Signs of loops", "Calls per second with a sign of a runaway, and what was done about it.", PACE, (
                Query(rate("tollgate_loop_signals_total", by="signal, action"), "{{signal}}: {{action}}"),
            ), stacked=True),
            Panel("Stopped", "Calls of runs that were stopped or had spent their budget, in the time shown.", COUNT, (
                Query(or_none(grown("tollgate_rejected_total", 'reason=~"run_stopped|budget_exceeded"'))),
            ), "stat", 8),
            Panel("How runs are known", "Calls per second, by where their run id came from.", PACE, (
                Query(rate("tollgate_calls_identified_total", by="run_source"), "{{run_source}}"),
            ), stacked=True),
            Panel("Retries of clients", "Calls per second that a client says it sent again.", PACE, (
                Query(or_none(rate("tollgate_client_retries_total")), "retries"),
            )),
        ),
    },
)  # fmt: skip
