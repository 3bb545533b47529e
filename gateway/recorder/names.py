"""Every metric, label, bucket and span attribute of Tollgate, once.

Rules
1. Whatever is exported under a name has that name here; nothing else spells it.
2. Metric names are Prometheus names without `_total`, base units, inside what Prometheus 2.42 accepts.
3. Labels are enumerations or capped. A run, trace, user, prompt, raw model string, address or URL path is never one.
4. `gen_ai.*` names are those of the OpenTelemetry GenAI conventions: v1.41 ("old") and gen-ai-dev ("new"), side by side
   until the new ones have a release. Where both measure the same thing, the new family is a `View` of the old one.
"""

from __future__ import annotations

from typing import Literal, TypedDict

from msgspec import Struct

NS = 10**9
PICO = 10**12

LATENCY = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
SERVER_TTFT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
SERVER_TPOT = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
# Ours: reasoning models answer after minutes, the gateway itself within a fraction of a millisecond.
DURATION = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300, 600, 1800)
OVERHEAD = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
TTFT = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)
TPOT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5)
LOOKUP = (0.0005, 0.001, 0.002, 0.004, 0.006, 0.008, 0.012, 0.016, 0.025, 0.05, 0.1, 0.25, 1)
STEPS = (1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 987)
RUN_COST = (0.0001, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 100)
SCORE = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 2, 5, 10, 100)

SCHEMA_URL = "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev"

OTHER = "other"
"""The model label of what is neither priced nor configured."""
OVERFLOW = "__other__"
"""What a label value becomes once its label is full."""

INFERENCE = ("chat", "generate_content", "text_completion")
TOKEN_TYPES = ("input", "output", "cache_read", "cache_write", "reasoning")

PROVIDERS = {
    "aws": "aws.bedrock",
    "azure": "azure.ai.openai",
    "google": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshotai": "moonshot_ai",
    "x-ai": "x_ai",
}
"""genai-prices provider id to gen_ai.provider.name, where the two differ."""

LABEL_ATTRIBUTES = {
    "gen_ai_operation_name": "gen_ai.operation.name",
    "gen_ai_provider_name": "gen_ai.provider.name",
    "gen_ai_request_model": "gen_ai.request.model",
    "gen_ai_response_model": "gen_ai.response.model",
    "gen_ai_token_type": "gen_ai.token.type",
    "gen_ai_token_modality": "gen_ai.token.modality",
    "gen_ai_tool_name": "gen_ai.tool.name",
    "server_address": "server.address",
    "server_port": "server.port",
    "error_type": "error.type",
}
"""Prometheus label to OTLP attribute; every other label has one name in both."""

_GEN_AI = (
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "gen_ai_response_model",
    "server_address",
    "server_port",
)
_FAILING = (*_GEN_AI, "error_type")
_MODAL = (*_FAILING, "gen_ai_token_modality")


class View(Struct, frozen=True):
    """A family that shows the cells of another: those where `label` is one of `values`, without the labels `drop`."""

    of: str
    label: str
    values: tuple[str, ...]
    drop: tuple[str, ...] = ()


class Metric(Struct, frozen=True):
    """One family. Cells count in whole units of 1/`scale` (ns, pico-USD), so that sums are exact."""

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    scale: int = 1
    exemplars: bool = False
    otel: str = ""  # OTLP name, where it does not follow from `name`
    unit: str = "1"  # OTLP unit (UCUM)
    view: View | None = None

    @property
    def otel_name(self) -> str:
        """`tollgate_overhead_seconds` is `tollgate.overhead` in seconds."""
        if self.otel:
            return self.otel
        name = self.name.removesuffix("_seconds") if self.unit == "s" else self.name
        return name.replace("tollgate_", "tollgate.", 1)


def _counter(name: str, labels: str, help_: str, *, scale: int = 1, unit: str = "1", otel: str = "") -> Metric:
    return Metric(name, "counter", help_, tuple(labels.split()), scale=scale, unit=unit, otel=otel)


def _gauge(name: str, help_: str, unit: str = "1", labels: str = "") -> Metric:
    return Metric(name, "gauge", help_, tuple(labels.split()), unit=unit)


def _hist(
    name: str,
    labels: str,
    buckets: tuple[float, ...],
    help_: str,
    *,
    scale: int = NS,
    unit: str = "s",
    trace: bool = False,
) -> Metric:
    return Metric(name, "histogram", help_, tuple(labels.split()), buckets, scale, trace, unit=unit)


def _gen_ai(
    otel: str, labels: tuple[str, ...], buckets: tuple[float, ...], help_: str, view: View | None = None
) -> Metric:
    name = otel.replace(".", "_")
    if buckets is TOKENS:
        return Metric(name, "histogram", help_, labels, buckets, otel=otel, unit="{token}", view=view)
    return Metric(f"{name}_seconds", "histogram", help_, labels, buckets, NS, otel=otel, unit="s", view=view)


def _usage(kind: str, help_: str) -> Metric:
    otel = f"gen_ai.client.inference.usage.{kind}"
    return _counter(otel.replace(".", "_"), " ".join(_MODAL), help_, unit="{token}", otel=otel)


def _inference(of: str) -> View:
    return View(of, "gen_ai_operation_name", INFERENCE)


def _tokens(kind: str) -> View:
    return View("gen_ai_client_token_usage", "gen_ai_token_type", (kind,), ("gen_ai_token_type",))


class _Usd(TypedDict):
    scale: int
    unit: str


_USD: _Usd = {"scale": PICO, "unit": "{USD}"}

_OF = "scope budget"

# fmt: off

TRAFFIC = (
    _counter("tollgate_requests", "route provider model outcome code", "Calls that ended, by HTTP status sent."),
    _hist("tollgate_request_duration_seconds", "route provider model stream", DURATION,
          "From the request head to the last byte of the answer.", trace=True),
    _hist("tollgate_overhead_seconds", "phase", OVERHEAD, "Time spent in the gateway itself.", trace=True),
    _hist("tollgate_time_to_first_token_seconds", "provider model", TTFT,
          "From the request head to the first body byte, of streams.", trace=True),
    _hist("tollgate_time_per_output_token_seconds", "provider model", TPOT,
          "Streams: time after the first byte per further output token."),
    _counter("tollgate_upstream_attempts", "provider model result", "Requests sent upstream, by how each ended."),
    _counter("tollgate_retries", "reason", "Attempts after the first of a call, by how the one before ended."),
    _counter("tollgate_retries_withheld", "reason",
             "Failures that could have been tried again where they were, and were not: sdk, attempts, wait, deadline "
             "or budget."),
    _counter("tollgate_fallbacks", "upstream to reason",
             "Attempts at another upstream than the one before, by how that one ended."),
    _counter("tollgate_routed_calls", "rule target why",
             "Calls that a rule of `routes` sent somewhere: its place among them, upstream/model, and the reason."),
    _counter("tollgate_cascade_answers", "rule target verdict then",
             "Answers that a cascade of `routes` checked: ok, json, schema, call, arguments, length, refusal, size or "
             "unread, and whether another target was asked (escalated) or it was passed on (passed)."),
    _counter("tollgate_hedges", "upstream to result",
             "Calls whose first content was late, by what became of the second attempt: won, lost, failed, refused (by "
             "a budget or breaker) or capped (the share was used up meanwhile)."),
    _counter("tollgate_probes_beside", "upstream to result",
             "Calls that were the probe of a breaker, and another target was asked beside it, by what became of that "
             "attempt: won, lost, failed or refused (by a budget or breaker)."),
    _counter("tollgate_breaker_changes", "breaker state",
             "Changes of a breaker of some worker to this state: open, half_open or closed."),
    _gauge("tollgate_breakers_open", "Breakers of workers that are not closed."),
    _gauge("tollgate_breaker_open", "Workers in which a breaker is not closed; without a series it is closed in all.",
           labels="breaker"),
    _gauge("tollgate_bulkhead_in_flight", "Calls that have a place in a pool, in all workers.", labels="pool"),
    _gauge("tollgate_bulkhead_waiting", "Calls that wait for a place.", labels="pool"),
    _gauge("tollgate_bulkhead_limit", "Places of a pool, as far as it is in use.", labels="pool"),
    _hist("tollgate_bulkhead_wait_seconds", "pool", DURATION, "What calls waited that found no place free."),
    _counter("tollgate_bulkhead_refused", "pool reason",
             "Calls that found no place: bulkhead_full, queue_timeout or deadline_unreachable."),
    _gauge("tollgate_overload_level", "Of the worst worker: batch calls are refused (1), interactive ones too (2), all "
           "(3)."),
    _counter("tollgate_shed", "cause priority", "Calls that were refused because a worker had too much to do."),
    _counter("tollgate_errors", "type provider", "Failed calls, by stable code or the provider's error type."),
    _counter("tollgate_client_retries", "provider", "Calls that the client says it sent again."),
    _counter("tollgate_model_mismatch", "provider model used",
             "Answers by another model than asked for (dated versions of it are the same)."),
    _counter("tollgate_calls_identified", "run_source", "Calls by where their run id came from."),
    _counter("tollgate_request_bytes", "route", "Bytes of request bodies received.", unit="By"),
    _counter("tollgate_response_bytes", "route", "Bytes of answer bodies sent.", unit="By"),
)

MONEY = (
    _counter("tollgate_tokens", "provider model type tenant",
             "Tokens; input includes cache reads and writes, output includes reasoning.", unit="{token}"),
    _counter("tollgate_cost_usd", "provider model tenant agent component estimated",
             "US dollars, by component; estimated where the provider did not report usage.", **_USD),
    _counter("tollgate_cost_unknown", "reason provider", "Calls whose cost is unknown (never counted as zero)."),
    _counter("tollgate_cost_wasted_usd", "provider model outcome",
             "US dollars of answers that the client did not get to the end, of attempts that another followed "
             "(`retried`), that another was quicker than (`overtaken`), or whose answer a cascade withheld "
             "(`unverified`).", **_USD),
    _counter("tollgate_prompt_cache_tokens", "agent type",
             "Tokens of calls that could hit their provider's cache: input, readable and read.", unit="{token}"),
    _counter("tollgate_prompt_cache_lost_tokens", "agent cause", "Readable tokens that were not read.", unit="{token}"),
    _counter("tollgate_prompt_cache_lost_usd", "agent cause", "US dollars a stable prefix would have saved.", **_USD),
    _counter("tollgate_prompt_cache_churn", "agent part", "Calls that lost because their prefix changed, by what did."),
    _counter("tollgate_usage_source", "provider source", "Calls with tokens, by where their usage came from."),
)

BUDGETS = (
    _counter("tollgate_budget_decisions", "decision",
             "Calls that met a limit, by the last decision: granted, queued, clamped, tapered, refused or stopped."),
    _counter("tollgate_rejected", "reason", "Calls that the gateway refused itself, by stable code."),
    _counter("tollgate_loop_signals", "signal action",
             "Signs of a runaway agent in calls, and the strongest action any of them led to."),
    _gauge("tollgate_budget_limit_usd", "Limit in force, of budgets in US dollars that calls have met.", "{USD}", _OF),
    _gauge("tollgate_budget_spent_usd", "Spent of it in the current window.", "{USD}", _OF),
    _gauge("tollgate_budget_reserved_usd", "Held of it by calls under way: their worst cases.", "{USD}", _OF),
    _gauge("tollgate_budget_remaining_ratio",
           "What is not spent of it, by the limit in force (0 to 1); what is held does not count.", labels=_OF),
    _gauge("tollgate_budget_window_start_timestamp_seconds",
           "When its current window began, Unix time; none of a rolling one, or one for life.", "s", _OF),
    _gauge("tollgate_budget_window_end_timestamp_seconds", "When that window ends.", "s", _OF),
    _gauge("tollgate_budget_store_available", "Whether every worker can use the store of budgets."),
    _gauge("tollgate_budget_settles_waiting", "Settled calls that the store of budgets does not have yet."),
    _counter("tollgate_budget_holds_expired", "", "Holds of dead workers that were charged or freed, as configured."),
    _counter("tollgate_budget_settles_lost", "", "Settled calls that the store of budgets will never have."),
    _gauge("tollgate_keys", "Virtual keys by state: active, expired or disabled.", labels="state"),
)

CACHE = (
    _counter("tollgate_cache_lookups", "tier result",
             "Calls that the cache was asked about (of models: `exact`, of tools: `tool`): hit, joined (an equal call "
             "was under way), miss or bypass."),
    _counter("tollgate_cost_saved_usd", "reason",
             "US dollars that answers cost when they were paid for, which were then given again.", **_USD),
    _gauge("tollgate_cache_entries", "Answers in the cache that are still good."),
    _gauge("tollgate_cache_bytes", "Bytes that they take in the file or in Redis.", "By"),
    _gauge("tollgate_cache_store_available", "Whether every worker can use the store of answers."),
    _counter("tollgate_cache_memory_dropped_bytes", "cache",
             "Bytes that workers short of memory let go of: answers (still in the file) or links (what joins the calls "
             "of runs).", unit="By"),
    _counter("tollgate_cache_writes_lost", "", "Answers that could not be written to the store."),
    _counter("tollgate_cache_similar", "reason",
             "Calls without an equal answer: given that of a similar question (hit), or why not."),
    _hist("tollgate_cache_lookup_seconds", "tier", LOOKUP, "What calls waited for the matcher."),
    _counter("tollgate_cache_verified", "scope verdict",
             "Answers to similar questions that were held against fresh ones: right or wrong."),
    _counter("tollgate_cache_feedback", "scope verdict", "Hits that people called right or wrong."),
    _counter("tollgate_cache_breaker_trips", "scope", "Times that a scope fell back to equal questions by itself."),
    _counter("tollgate_cache_shadow_cost_usd", "", "US dollars of calls that checked hits.", **_USD),
    _counter("tollgate_cache_embedded", "", "Texts sent to an upstream's embeddings by the cache itself."),
    _counter("tollgate_cache_embedder_cost_usd", "", "US dollars that those cost, as far as it is known.", **_USD),
    _counter("tollgate_cache_judged", "verdict", "Pairs of answers that the judge was asked about."),
    _counter("tollgate_cache_judge_cost_usd", "", "US dollars that this cost, as far as it is known.", **_USD),
    _gauge("tollgate_cache_false_hit_ratio", "Share of wrong answers among those to similar questions, estimated from "
           "the verified ones.", labels="scope"),
    _gauge("tollgate_cache_false_hit_ratio_lower", "Lower end of its interval of 95 %.", labels="scope"),
    _gauge("tollgate_cache_false_hit_ratio_upper", "Upper end of its interval of 95 %.", labels="scope"),
    _gauge("tollgate_cache_false_hit_target", "Share that is tolerated.", labels="scope"),
    _gauge("tollgate_cache_cut", "Chance of being right from which on answers are given; 2: none are.", labels="scope"),
    _gauge("tollgate_cache_breaker_open", "Whether too many were wrong, so that none are given until new evidence.",
           labels="scope"),
    _gauge("tollgate_cache_questions", "Questions that the matcher remembers."),
    _gauge("tollgate_cache_matcher_up", "Whether the matcher answers."),
    _gauge("tollgate_cache_embedder_up", "Whether it can tell how alike questions are."),
    _counter("tollgate_cache_matcher_deaths", "", "Matchers that died and were replaced."),
)

CANARIES = (
    _gauge("tollgate_canary_state", "1 for the state that a canary is in: running, promoted or rolled_back.",
           labels="canary state"),
    _gauge("tollgate_canary_runs", "Runs that a canary was judged by: its own, and the rest.", labels="canary arm"),
    _gauge("tollgate_canary_evidence", "Evidence that a canary is worse; 1 / alpha takes it back.", labels="canary"),
)

LEARNED = (
    _gauge("tollgate_learned_labels", "Weight of the labels that a choice is learned from.", labels="scope target"),
    _gauge("tollgate_learned_ready", "Whether there are labels enough to choose by.", labels="scope"),
    _gauge("tollgate_learned_quality_ratio", "Quality expected of the choice, as a share of the best single target's.",
           labels="scope"),
    _gauge("tollgate_learned_cost_ratio", "Cost expected of the choice, as a share of that target's.", labels="scope"),
)

AGENTS = (
    _counter("tollgate_tool_calls", "server tool result",
             "Tool calls: passed through the gate to this server, or seen in LLM traffic (`client`); `cached`: "
             "answered without one."),
    _hist("tollgate_tool_duration_seconds", "server tool", DURATION,
          "Of the call that passed through; else from the tool call in an answer to its result in a request."),
    _counter("tollgate_tool_cost_usd", "server tool", "US dollars of tool executions whose cost is known.", **_USD),
    _hist("tollgate_agent_steps", "agent", STEPS, "Calls per run, observed when it ends or idles.", scale=1, unit="1"),
    _hist("tollgate_conversation_cost_usd", "agent", RUN_COST,
          "US dollars per run, observed when it ends or idles.", **_USD),
    _counter("tollgate_runs", "agent outcome", "Runs that ended, by reported outcome (none: no report)."),
    _counter("tollgate_run_cost_usd", "agent outcome", "US dollars of runs that ended, by reported outcome.", **_USD),
    _hist("tollgate_run_score", "agent", SCORE, "Scores reported for runs.", scale=10**6, unit="1"),
    _gauge("tollgate_active_runs", "Runs with a recent call."),
    _gauge("tollgate_active_run_cost_usd", "Of those, the most that one of them has cost.", "{USD}"),
    _gauge("tollgate_active_run_steps", "Of those, the most calls that one of them has made."),
)

SELF = (
    _gauge("tollgate_inflight_requests", "Calls in progress in all workers."),
    _gauge("tollgate_descriptors_used_ratio",
           "Of the worst worker: how much of the file descriptors that it may have it has, 0 to 1."),
    _gauge("tollgate_event_loop_lag_seconds", "Largest recent delay of a worker's event loop.", "s"),
    _gauge("tollgate_journal_lag_seconds", "Age of the oldest record that the recorder has not read yet.", "s"),
    _gauge("tollgate_journal_lag_bytes", "Bytes of the journal that the recorder has not read yet.", "By"),
    _counter("tollgate_journal_lost_records", "", "Records that could not be written to the journal."),
    _gauge("tollgate_journal_lost_pending", "Lost records that the journal could not note yet."),
    _counter("tollgate_worker_deaths", "", "Workers that died and were replaced."),
    _counter("tollgate_telemetry_dropped", "signal reason", "Spans, log lines and metric points that were dropped."),
    _counter("tollgate_label_overflow", "metric label", "Observations whose label value was replaced."),
    Metric("tollgate_build", "info", "Version of the gateway.", ("version",)),
    _gauge("tollgate_config_last_reload_success", "Whether the last reload of the configuration succeeded."),
    _gauge("tollgate_config_last_reload_success_timestamp_seconds", "When it was last loaded.", "s"),
)

GEN_AI = (
    _gen_ai("gen_ai.client.operation.duration", _FAILING, LATENCY, "GenAI operation duration."),
    _gen_ai("gen_ai.client.token.usage", (*_FAILING, "gen_ai_token_type"), TOKENS, "Input and output tokens used."),
    _gen_ai("gen_ai.client.operation.time_to_first_chunk", _GEN_AI, LATENCY, "Time to the first chunk of a stream."),
    _gen_ai("gen_ai.server.time_to_first_token", _GEN_AI, SERVER_TTFT, "Time to first token, seen from the gateway."),
    _gen_ai("gen_ai.server.time_per_output_token", _GEN_AI, SERVER_TPOT,
            "Time per output token after the first, seen from the gateway."),
    _gen_ai("gen_ai.client.inference.duration", _FAILING, LATENCY, "GenAI inference duration.",
            _inference("gen_ai_client_operation_duration_seconds")),
    _gen_ai("gen_ai.client.inference.time_to_first_chunk", _GEN_AI, LATENCY, "Time to the first chunk of a stream.",
            _inference("gen_ai_client_operation_time_to_first_chunk_seconds")),
    _gen_ai("gen_ai.client.inference.operation.input_tokens", _FAILING, TOKENS, "Input tokens per operation.",
            _tokens("input")),
    _gen_ai("gen_ai.client.inference.operation.output_tokens", _FAILING, TOKENS, "Output tokens per operation.",
            _tokens("output")),
    _usage("input_tokens", "Input tokens, cache reads and writes included."),
    _usage("output_tokens", "Output tokens, reasoning included."),
    _usage("cache_read.input_tokens", "Input tokens read from the provider's cache."),
    _usage("cache_write.input_tokens", "Input tokens written to the provider's cache."),
    _usage("reasoning.output_tokens", "Output tokens spent on reasoning."),
    _gen_ai("gen_ai.execute_tool.duration", ("gen_ai_tool_name", "error_type"), LATENCY, "Tool execution duration."),
)
# fmt: on

METRICS: dict[str, Metric] = {
    metric.name: metric for metric in (*TRAFFIC, *MONEY, *BUDGETS, *CACHE, *CANARIES, *LEARNED, *AGENTS, *SELF, *GEN_AI)
}
GAUGES = frozenset(metric.name for metric in METRICS.values() if metric.kind == "gauge")
