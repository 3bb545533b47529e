from __future__ import annotations

import math
import random
import shutil
import subprocess
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway.call import CacheHealth, Outcome, ToolCall, Usage
from gateway.config.schema import Telemetry
from gateway.journal.record import AttemptRecord, EventRecord, OutcomeRecord, decode, encode
from gateway.policy.trace_ids import run_trace_id
from gateway.recorder.drops import Drops
from gateway.recorder.metrics import MetricsProjection
from gateway.recorder.names import GAUGES, OVERFLOW
from gateway.testing.telemetry_records import T0, call, streamed

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
SECOND = 10**9


class Time:
    def __init__(self) -> None:
        self.now = T0 / SECOND

    def __call__(self) -> float:
        return self.now


def projection(**options: object) -> MetricsProjection:
    config = Telemetry(label_limit=options.pop("label_limit", 200))  # type: ignore[arg-type]
    return MetricsProjection(config, dict, options.pop("clock", Time()), **options)  # type: ignore[arg-type]


def samples(metrics: MetricsProjection, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """Values of one sample name, by labels."""
    text = metrics.render()[0].decode()
    return {
        tuple(sorted(sample.labels.items())): sample.value
        for family in parse_text(text)
        for sample in family.samples
        if sample.name == name
    }


def value(metrics: MetricsProjection, name: str, **labels: str) -> float:
    """Sum over the series that have these labels."""
    wanted = set(labels.items())
    return sum(v for found, v in samples(metrics, name).items() if wanted <= set(found))


# -- sums ------------------------------------------------------------------------------------------------------------


def test_money_and_tokens_equal_the_records_exactly() -> None:
    chance = random.Random(7)
    metrics, total, tokens = projection(), 0, 0
    for _ in range(3000):
        parts = {name: chance.randrange(0, 10**10) for name in ("input", "output", "cache_read")}
        usage = Usage(input_tokens=chance.randrange(10**6), output_tokens=chance.randrange(10**5))
        record = call(
            cost=sum(parts.values()),
            cost_components=parts,
            usage=usage,
            agent=f"a{chance.randrange(20)}",
            tenant=f"t{chance.randrange(5)}",
            outcome=chance.choice(["ok", "truncated", "cancelled"]),
        )
        total += record.cost or 0
        tokens += usage.input_tokens
        metrics.apply([record])
    counted = metrics.read().points["tollgate_cost_usd"]
    assert sum(point.value for point in counted) == total
    assert math.isclose(value(metrics, "tollgate_cost_usd_total"), total / 1e12, rel_tol=1e-12)
    assert value(metrics, "tollgate_tokens_total", type="input") == tokens
    assert value(metrics, "gen_ai_client_inference_usage_input_tokens_total") == tokens
    assert value(metrics, "tollgate_run_cost_usd_total") == 0  # the run is still open


def test_what_the_components_leave_open_is_counted_as_other() -> None:
    metrics = projection()
    metrics.apply([call(cost=10, cost_components={"input": 4})])
    assert [(p.labels[4], p.value) for p in metrics.read().points["tollgate_cost_usd"]] == [("input", 4), ("other", 6)]


def test_requests_durations_and_attempts() -> None:
    metrics = projection()
    first = AttemptRecord("openai", "openai", "api.openai.com", 443, 1_000_000, 5_000_000, 0, False, "upstream_reset")
    second = AttemptRecord("openai", "openai", "api.openai.com", 443, 9_000_000, 400_000_000, 429, False)
    metrics.apply([
        call(),
        streamed(),
        call(attempts=(first, second), status=429, outcome="upstream_error", error_type="rate_limit_error", usage=None,
             usage_source="none", cost=None, cost_components={}, cost_status="no_usage", sdk_retry=2),
    ])  # fmt: skip
    assert value(metrics, "tollgate_requests_total", code="200", outcome="ok", model="gpt-4o") == 2
    assert value(metrics, "tollgate_requests_total", code="429", outcome="upstream_error") == 1
    assert value(metrics, "tollgate_request_duration_seconds_sum") == 4.5
    assert value(metrics, "tollgate_request_duration_seconds_bucket", le="1.0") == 0
    assert value(metrics, "tollgate_request_duration_seconds_bucket", le="2.5") == 3
    assert value(metrics, "tollgate_overhead_seconds_bucket", phase="total", le="0.00025") == 3
    assert value(metrics, "tollgate_upstream_attempts_total", result="upstream_reset") == 1
    assert value(metrics, "tollgate_upstream_attempts_total", result="rate_limited") == 1
    assert value(metrics, "tollgate_retries_total", reason="upstream_reset") == 1
    assert value(metrics, "tollgate_errors_total", type="rate_limit_error", provider="openai") == 1
    assert value(metrics, "tollgate_client_retries_total", provider="openai") == 1
    assert value(metrics, "tollgate_cost_unknown_total") == 0  # a refused call produced nothing


def test_attempts_at_several_upstreams() -> None:
    metrics = projection()
    first = AttemptRecord("openai", "openai", "a", 443, 0, 5, 503, False, "", "gpt-4o", 250 * 10**6)
    second = AttemptRecord("azure", "azure", "b", 443, 9, 5, 0, False, "upstream_reset", "gpt-4o")
    third = AttemptRecord("azure", "azure", "b", 443, 15, 5, 200, False, "", "gpt-4o")
    metrics.apply([call(attempts=(first, second, third)), call(notes={"retry_withheld": "sdk"})])
    assert value(metrics, "tollgate_fallbacks_total", upstream="openai", to="azure", reason="server_error") == 1
    assert value(metrics, "tollgate_fallbacks_total") == 1
    assert value(metrics, "tollgate_retries_total") == 2
    assert value(metrics, "tollgate_upstream_attempts_total", provider="azure", result="upstream_reset") == 1
    assert value(metrics, "tollgate_upstream_attempts_total", provider="openai", result="server_error") == 1
    assert value(metrics, "tollgate_cost_wasted_usd_total", outcome="retried", provider="openai") == 0.00025
    assert value(metrics, "tollgate_retries_withheld_total", reason="sdk") == 1


@pytest.mark.parametrize(
    ("race", "counter"), [("hedge", "tollgate_hedges_total"), ("probe", "tollgate_probes_beside_total")]
)
def test_an_attempt_beside_another_is_neither_a_retry_nor_a_fallback(race: str, counter: str) -> None:
    metrics = projection()
    lost = AttemptRecord("openai", "openai", "a", 443, 0, 5, 0, False, "overtaken", "gpt-4o", 250 * 10**6)
    won = AttemptRecord("azure", "azure", "b", 443, 3, 5, 200, False, "", "gpt-4o")
    notes = {race: "won", f"{race}_from": "openai", f"{race}_to": "azure"}
    metrics.apply([call(attempts=(lost, won), notes=notes)])
    assert value(metrics, counter, upstream="openai", to="azure", result="won") == 1
    assert value(metrics, "tollgate_retries_total") == 0
    assert value(metrics, "tollgate_fallbacks_total") == 0
    assert value(metrics, "tollgate_upstream_attempts_total", provider="openai", result="overtaken") == 1
    assert value(metrics, "tollgate_cost_wasted_usd_total", outcome="overtaken", provider="openai") == 0.00025


def test_routed_calls_by_rule_target_and_reason() -> None:
    metrics = projection()
    notes = {"route": "2", "route_why": "cost", "route_to": "openai/gpt-4o"}
    made_up = {"route": "2", "route_why": "breaker", "route_to": "openai/what/a/client/made/up"}
    metrics.apply([call(notes=notes), call(notes=notes), call(notes=made_up), call()])
    assert value(metrics, "tollgate_routed_calls_total", rule="2", target="openai/gpt-4o", why="cost") == 2
    assert value(metrics, "tollgate_routed_calls_total", target="openai/other", why="breaker") == 1
    assert value(metrics, "tollgate_routed_calls_total") == 3


def test_answers_that_a_cascade_checked() -> None:
    """What was withheld is neither a retry nor a fallback: its provider did what it was asked."""
    metrics = projection()
    cheap = AttemptRecord("local", "openai", "a", 1, 0, 5, 200, False, "unverified", "gpt-4o-mini", 250 * 10**6)
    busy = AttemptRecord("openai", "openai", "b", 443, 9, 5, 503, False, "", "gpt-4o")
    dear = AttemptRecord("openai", "openai", "b", 443, 15, 5, 200, False, "", "gpt-4o")
    rule = {"route": "1", "route_why": "priority", "route_to": "local/gpt-4o-mini"}
    metrics.apply([
        call(attempts=(cheap, dear), notes={**rule, "cascade": "schema,ok"}),
        call(attempts=(cheap, busy, dear), notes={**rule, "cascade": "json,call"}),
        call(attempts=(cheap, busy), notes={**rule, "cascade": "length"}),
        call(attempts=(dear,), notes={**rule, "cascade": "size"}),
    ])  # fmt: skip

    def checked(verdict: str, target: str, then: str) -> float:
        return value(metrics, "tollgate_cascade_answers_total", rule="1", verdict=verdict, target=target, then=then)

    for verdict in ("schema", "json", "length"):
        assert checked(verdict, "local/other", "escalated") == 1
    for verdict in ("ok", "call", "size"):
        assert checked(verdict, "openai/gpt-4o", "passed") == 1
    assert value(metrics, "tollgate_cascade_answers_total") == 6
    assert value(metrics, "tollgate_fallbacks_total") == 0
    assert value(metrics, "tollgate_retries_total") == 1  # of the busy one
    assert value(metrics, "tollgate_upstream_attempts_total", result="unverified") == 3
    assert value(metrics, "tollgate_cost_wasted_usd_total", outcome="unverified") == 0.00075


def test_streams_are_timed_per_token() -> None:
    metrics = projection()
    metrics.apply([streamed(duration_ns=2_300_000_000, ttft_ns=300_000_000, usage=Usage(output_tokens=201))])
    assert value(metrics, "tollgate_time_to_first_token_seconds_sum") == 0.3
    assert value(metrics, "tollgate_time_per_output_token_seconds_sum") == 0.01
    assert value(metrics, "gen_ai_client_operation_time_to_first_chunk_seconds_count") == 1
    assert value(metrics, "gen_ai_client_inference_time_to_first_chunk_seconds_count") == 1
    assert value(metrics, "gen_ai_server_time_per_output_token_seconds_bucket", le="0.01") == 1


def test_gen_ai_families_old_and_new() -> None:
    metrics = projection()
    metrics.apply([call(), call(operation="embeddings", route="/v1/embeddings"), call(operation="")])
    labels = {
        "gen_ai_provider_name": "openai",
        "gen_ai_request_model": "gpt-4o",
        "gen_ai_response_model": "gpt-4o-2024-08-06",
        "server_address": "api.openai.com",
        "server_port": "443",
    }
    assert value(metrics, "gen_ai_client_operation_duration_seconds_count", **labels) == 2
    assert value(metrics, "gen_ai_client_inference_duration_seconds_count", **labels) == 1
    assert value(metrics, "gen_ai_client_token_usage_sum", gen_ai_token_type="input") == 2000
    assert value(metrics, "gen_ai_client_inference_operation_input_tokens_sum") == 2000
    assert value(metrics, "gen_ai_client_inference_operation_output_tokens_count") == 2
    assert value(metrics, "gen_ai_client_inference_usage_cache_read_input_tokens_total") == 1200
    assert value(metrics, "gen_ai_client_inference_usage_output_tokens_total", gen_ai_token_modality="unknown") == 400


def test_modalities_are_split_where_the_provider_did() -> None:
    metrics = projection()
    detail = {"input_audio_tokens": 300.0, "input_text_tokens": 600.0, "output_audio_tokens": math.inf}
    metrics.apply([call(usage=Usage(input_tokens=1000, output_tokens=10, detail=detail))])
    name = "gen_ai_client_inference_usage_input_tokens_total"
    assert [value(metrics, name, gen_ai_token_modality=m) for m in ("audio", "text", "unknown")] == [300, 600, 100]
    output = "gen_ai_client_inference_usage_output_tokens_total"
    assert value(metrics, output, gen_ai_token_modality="audio") == 10


def test_unknown_cost_is_counted_and_never_zero() -> None:
    metrics = projection()
    metrics.apply([
        call(cost=None, cost_components={}, cost_status="no_price", model_requested="my-model", model_used=""),
        call(cost=None, cost_components={}, cost_status="no_usage", usage=None, usage_source="none"),
        call(cost=None, cost_components={}, cost_status="no_usage", usage=None, usage_source="none", operation=""),
    ])  # fmt: skip
    assert value(metrics, "tollgate_cost_unknown_total", reason="no_price") == 1
    assert value(metrics, "tollgate_cost_unknown_total", reason="no_usage") == 1
    assert samples(metrics, "tollgate_cost_usd_total") == {}


def test_wasted_money_is_named() -> None:
    metrics = projection()
    metrics.apply(
        [call(outcome="cancelled", cost=5 * 10**11), call(outcome="ok"), call(outcome="truncated", cost=10**11)]
    )
    assert value(metrics, "tollgate_cost_wasted_usd_total", outcome="cancelled") == 0.5
    assert value(metrics, "tollgate_cost_wasted_usd_total") == 0.6
    assert value(metrics, "tollgate_errors_total", provider="openai") == 1  # a client that left is no error


def test_model_mismatch_bills_the_model_that_answered() -> None:
    metrics = projection()
    metrics.apply([call(), call(model_used="gpt-4o-mini"), call(model_used="")])
    assert samples(metrics, "tollgate_model_mismatch_total") == {
        (("model", "gpt-4o"), ("provider", "openai"), ("used", "gpt-4o-mini")): 1
    }
    assert value(metrics, "tollgate_requests_total", model="gpt-4o") == 3
    assert value(metrics, "tollgate_tokens_total", model="gpt-4o-mini", type="input") == 1000


def test_tools() -> None:
    metrics = projection()
    tools = (ToolCall("c1", "get_weather", T0, 2 * SECOND), ToolCall("c2", "get_weather", T0, SECOND, is_error=True))
    metrics.apply([call(tools=tools)])
    assert value(metrics, "tollgate_tool_calls_total", tool="get_weather", result="ok", server="client") == 1
    assert value(metrics, "tollgate_tool_calls_total", tool="get_weather", result="error") == 1
    assert value(metrics, "tollgate_tool_duration_seconds_sum", tool="get_weather") == 3
    assert value(metrics, "gen_ai_execute_tool_duration_seconds_count", error_type="tool_error") == 1


def test_tools_that_passed_through_the_gate() -> None:
    metrics = projection()

    def gated(**facts: object) -> ToolCall:
        return ToolCall(**{"id": "c/0", "name": "search", "started_at": T0, "duration_ns": SECOND, "exact": True,
                           "server": "web", "cost": 5 * 10**9, **facts})  # type: ignore[arg-type]  # fmt: skip

    facts = {"operation": "execute_tool", "usage": None, "usage_source": "none", "upstream": "mcp/web"}
    for tool in (gated(), gated(is_error=True), gated(exact=False, cost=None)):
        metrics.apply([call(tools=(tool,), **facts)])
    metrics.apply([call(tools=(gated(exact=False, cost=0),), outcome="cancelled", **facts)])
    for result in ("ok", "error", "unknown", "cancelled"):
        labels = {"server": "web", "tool": "search", "result": result}
        assert value(metrics, "tollgate_tool_calls_total", **labels) == 1
    assert value(metrics, "tollgate_tool_cost_usd_total", server="web", tool="search") == 0.01
    assert value(metrics, "gen_ai_execute_tool_duration_seconds_count", error_type="tool_error") == 1
    assert not samples(metrics, "gen_ai_client_operation_duration_seconds_count"), "it is no operation of a model"


# -- runs ------------------------------------------------------------------------------------------------------------


def test_an_outcome_counts_the_run_at_once_and_only_once() -> None:
    metrics = projection()
    outcome = OutcomeRecord("o1", T0 + 9 * SECOND, "run-1", "success")
    metrics.apply(
        [
            call(cost=10**12, step=1),
            call(cost=10**12, step=2),
            outcome,
            msgspec.structs.replace(outcome, kind="failure"),
        ]
    )
    metrics.apply([call(cost=10**11, step=3)])  # a late call of the same run
    assert samples(metrics, "tollgate_runs_total") == {(("agent", "researcher"), ("outcome", "success")): 1}
    assert value(metrics, "tollgate_run_cost_usd_total", outcome="success") == 2.1
    assert value(metrics, "tollgate_agent_steps_sum", agent="researcher") == 2
    assert value(metrics, "tollgate_conversation_cost_usd_sum") == 2
    assert value(metrics, "tollgate_conversation_cost_usd_bucket", le="1.0") == 0
    assert value(metrics, "tollgate_conversation_cost_usd_bucket", le="2.5") == 1


def test_a_score_is_observed() -> None:
    metrics = projection()
    metrics.apply(
        [call(), OutcomeRecord("o1", T0, "run-1", "score", 0.75), OutcomeRecord("o2", T0, "x", "score", math.nan)]
    )
    assert value(metrics, "tollgate_run_score_sum", agent="researcher") == 0.75
    assert value(metrics, "tollgate_run_score_count") == 1


def test_an_idle_run_ends_when_the_clock_says_so() -> None:
    clock = Time()
    metrics = projection(clock=clock, run_idle_seconds=600)
    metrics.apply([call(), call(run_id="run-2")])
    assert value(metrics, "tollgate_active_runs") == 2
    assert value(metrics, "tollgate_active_run_steps") == 1
    assert value(metrics, "tollgate_active_run_cost_usd") > 0
    clock.now += 599
    assert value(metrics, "tollgate_runs_total") == 0
    clock.now += 2
    assert value(metrics, "tollgate_runs_total", outcome="none") == 2
    assert value(metrics, "tollgate_active_runs") == 0
    assert value(metrics, "tollgate_active_run_steps") == 0


def test_idle_time_is_that_of_the_records() -> None:
    metrics = projection(run_idle_seconds=600)
    metrics.apply([call(), call(run_id="run-2", started_at=T0 + 1000 * SECOND)])
    assert value(metrics, "tollgate_runs_total", outcome="none") == 1


def test_open_runs_are_bounded() -> None:
    metrics = projection()
    metrics._runs._limit = 100
    metrics.apply([call(run_id=f"run-{n}") for n in range(1000)])
    assert len(metrics._runs.open) == 100
    assert value(metrics, "tollgate_runs_total") == 900


# -- labels ----------------------------------------------------------------------------------------------------------


def test_a_flood_of_unknown_models_is_one_label() -> None:
    metrics = projection()
    flood = {"cost": None, "cost_components": {}, "cost_status": "no_price"}
    metrics.apply([call(model_requested=f"x{n}", model_used=f"y{n}", **flood) for n in range(20_000)])
    assert {dict(labels)["model"] for labels in samples(metrics, "tollgate_requests_total")} == {"other"}
    assert value(metrics, "tollgate_requests_total") == 20_000
    assert sum(len(points) for points in metrics.read().points.values()) < 60
    assert len(metrics._calls._cells) <= 8192


def test_a_configured_model_is_known_unpriced() -> None:
    metrics = projection(models=["house-model"], knows=lambda provider, model: model == "listed")
    unpriced = {"cost": None, "cost_status": "no_price", "model_used": ""}
    metrics.apply([call(model_requested=name, **unpriced) for name in ("house-model", "listed", "stray")])
    found = {dict(labels)["model"] for labels in samples(metrics, "tollgate_requests_total")}
    assert found == {"house-model", "listed", "other"}


def test_a_model_is_known_from_its_first_price_on() -> None:
    metrics = projection()
    failed = {"status": 500, "outcome": "upstream_error", "usage": None, "cost": None, "cost_status": "no_usage"}
    metrics.apply([call(**failed), call(), call(**failed)])
    assert value(metrics, "tollgate_requests_total", model="other") == 1
    assert value(metrics, "tollgate_requests_total", model="gpt-4o", code="500") == 1


@pytest.mark.parametrize("field", ["tenant", "agent"])
def test_a_full_label_overflows_and_says_so(field: str) -> None:
    metrics = projection(label_limit=10)
    metrics.apply([call(**{field: f"v{n}", "run_id": ""}) for n in range(100)])
    counted = samples(metrics, "tollgate_cost_usd_total")
    assert {dict(labels)[field] for labels in counted} == {f"v{n}" for n in range(10)} | {OVERFLOW}
    assert math.isclose(sum(counted.values()), 100 * 0.00375)
    assert value(metrics, "tollgate_label_overflow_total", metric="tollgate_cost_usd", label=field) == 90


def test_the_product_of_labels_is_bounded_too() -> None:
    metrics = projection(label_limit=2)  # 2 * 50 series per family
    kinds = [(t, a, m) for t in range(3) for a in range(3) for m in ("gpt-4o", "o3", "o4") for _ in range(2)]
    for tenant, agent, model in kinds:
        for component in range(30):
            parts = {f"c{component}": 1000}
            who = {"tenant": f"t{tenant}", "agent": f"a{agent}", "model_requested": model, "model_used": model}
            metrics.apply([call(cost=1000, cost_components=parts, **who)])
    points = metrics.read().points["tollgate_cost_usd"]
    assert len(points) <= 102
    assert sum(point.value for point in points) == len(kinds) * 30 * 1000


def test_label_values_cannot_break_the_page() -> None:
    metrics = projection()
    nasty = 'a"b\\c\nd\x1b[31m\u202e' + "x" * 10_000
    metrics.apply([call(agent=nasty, tenant=nasty, tools=(ToolCall("c", nasty, T0, 1),), run_source=nasty)])
    for accept in ("", OPENMETRICS):
        text = metrics.render(accept)[0].decode()
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert max(map(len, text.splitlines())) < 2000
        list(parse_openmetrics(text) if accept else parse_text(text))


# -- formats ---------------------------------------------------------------------------------------------------------


def test_openmetrics_carries_exemplars_with_trace_ids() -> None:
    metrics = projection()
    metrics.apply([call(), streamed(run_id="", trace_id="4bf92f3577b34da6a3ce929d0e0e4736")])
    body, content_type = metrics.render(OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    found = {
        (sample.name, sample.exemplar.labels["trace_id"], sample.exemplar.value)
        for family in parse_openmetrics(body.decode())
        for sample in family.samples
        if sample.exemplar is not None
    }
    name = "tollgate_request_duration_seconds_bucket"
    assert (name, run_trace_id("run-1"), 1.5) in found
    assert (name, "4bf92f3577b34da6a3ce929d0e0e4736", 1.5) in found
    assert ("tollgate_time_to_first_token_seconds_bucket", "4bf92f3577b34da6a3ce929d0e0e4736", 0.3) in found
    assert b"_created" not in body


def test_exemplars_can_be_left_to_the_traces_that_are_kept() -> None:
    metrics = projection()
    kept = metrics.only_given_exemplars()
    first, second = call(trace_id="1" * 32, run_id=""), streamed(trace_id="2" * 32, run_id="")
    metrics.apply([first, second])
    assert "trace_id" not in metrics.render(OPENMETRICS)[0].decode()
    kept(second)
    kept(call(agent="never seen"))
    found = metrics.render(OPENMETRICS)[0].decode()
    assert found.count("2" * 32) == 3  # duration, overhead, time to first token
    assert "1" * 32 not in found
    assert value(metrics, "tollgate_requests_total") == 2


def test_the_classic_format_has_no_exemplars_and_no_created_series() -> None:
    metrics = projection()
    metrics.apply([call()])
    body, content_type = metrics.render("text/plain")
    assert content_type.startswith("text/plain")
    assert b"_created" not in body
    assert b"trace_id" not in body


def test_promtool_finds_nothing_to_complain_about() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: the metrics page was NOT checked (apt-get install prometheus)")
    gauges = dict.fromkeys(GAUGES, 1.0)
    metrics = MetricsProjection(Telemetry(label_limit=1), lambda: gauges, Time())
    metrics.apply([call(), streamed(agent="b"), call(tools=(ToolCall("c", "t", T0, 1),), sdk_retry=1, outcome="failed"),
                   OutcomeRecord("o", T0, "run-1", "score", 0.5)])  # fmt: skip
    body, _ = metrics.render()
    done = subprocess.run([promtool, "check", "metrics"], input=body, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


# -- budgets and runaways ---------------------------------------------------------------------------------------------


def test_decisions_refusals_and_signs_of_a_runaway_are_counted() -> None:
    metrics = projection()
    refused: dict[str, Any] = {"outcome": "refused", "status": 402, "attempts": (), "usage": None, "cost": None}
    looping = {"loop": "cycle,repeated_call", "loop_action": "stop"}
    metrics.apply([
        call(),  # met no limit
        call(budget="granted"),
        call(budget="granted", notes={"loop": "cycle", "loop_action": "note"}),
        call(budget="stopped"),
        call(budget="refused", error_code="budget_exceeded", **refused),
        call(error_code="run_stopped", notes=looping, **refused),
        call(error_code="run_stopped", outcome="truncated"),  # in mid-stream: it was let in
    ])  # fmt: skip
    assert samples(metrics, "tollgate_budget_decisions_total") == {
        (("decision", "granted"),): 2,
        (("decision", "stopped"),): 1,
        (("decision", "refused"),): 1,
    }
    assert samples(metrics, "tollgate_rejected_total") == {
        (("reason", "budget_exceeded"),): 1,
        (("reason", "run_stopped"),): 1,
    }
    assert samples(metrics, "tollgate_loop_signals_total") == {
        (("action", "note"), ("signal", "cycle")): 1,
        (("action", "stop"), ("signal", "cycle")): 1,
        (("action", "stop"), ("signal", "repeated_call")): 1,
    }


def test_prompt_caches_are_counted_by_what_was_lost_and_why() -> None:
    metrics = projection()
    metrics.apply([
        call(agent="a", prompt_cache=CacheHealth(900, 900, 1000)),
        call(agent="a", prompt_cache=CacheHealth(900, 100, 1000, 800, 10**12, "changed", "system", 2, "...")),
        call(agent="a", prompt_cache=CacheHealth(900, 0, 1000, 900, None, "ttl", "", -1, "...")),
        call(agent="a"),
    ])  # fmt: skip
    a = ("agent", "a")
    assert samples(metrics, "tollgate_prompt_cache_tokens_total") == {
        (a, ("type", "input")): 3000,
        (a, ("type", "readable")): 2700,
        (a, ("type", "read")): 1000,
    }
    assert samples(metrics, "tollgate_prompt_cache_lost_tokens_total") == {
        (a, ("cause", "changed")): 800,
        (a, ("cause", "ttl")): 900,
    }
    assert samples(metrics, "tollgate_prompt_cache_lost_usd_total") == {(a, ("cause", "changed")): 1}
    assert samples(metrics, "tollgate_prompt_cache_churn_total") == {(a, ("part", "system")): 1}


# -- itself ----------------------------------------------------------------------------------------------------------


def test_events_and_drops() -> None:
    drops = Drops()
    metrics = projection(drops=drops)
    assert samples(metrics, "tollgate_journal_lost_records_total") == {(): 0}
    metrics.apply([EventRecord("e1", T0, "start"), EventRecord("e2", T0 + SECOND, "reload_failed")])
    assert value(metrics, "tollgate_config_last_reload_success") == 0
    assert value(metrics, "tollgate_config_last_reload_success_timestamp_seconds") == T0 / SECOND
    metrics.apply([
        EventRecord("e3", T0 + 2 * SECOND, "reload"),
        EventRecord("e4", T0, "worker_died"),
        EventRecord("e5", T0, "records_lost", detail={"count": 17, "reason": "no space"}),
        EventRecord("e6", T0, "something_new"),
        EventRecord("e7", T0, "holds_expired", detail={"count": 2}),
        EventRecord("e8", T0, "settles_lost", detail={"count": 3}),
        EventRecord("e9", T0, "cache_writes_lost", detail={"count": 4}),
    ])  # fmt: skip
    drops.add("traces", "queue_full", 3)
    assert value(metrics, "tollgate_config_last_reload_success") == 1
    assert value(metrics, "tollgate_worker_deaths_total") == 1
    assert value(metrics, "tollgate_journal_lost_records_total") == 17
    assert value(metrics, "tollgate_budget_holds_expired_total") == 2
    assert value(metrics, "tollgate_budget_settles_lost_total") == 3
    assert value(metrics, "tollgate_cache_writes_lost_total") == 4
    assert value(metrics, "tollgate_telemetry_dropped_total", signal="traces", reason="queue_full") == 3
    assert value(metrics, "tollgate_telemetry_dropped_total") == 3  # asked twice, counted once


def test_gauges_are_asked_at_every_scrape() -> None:
    now = {"tollgate_inflight_requests": 3.0}
    metrics = MetricsProjection(Telemetry(), lambda: now, Time())
    assert value(metrics, "tollgate_inflight_requests") == 3
    now["tollgate_inflight_requests"] = 4
    assert value(metrics, "tollgate_inflight_requests") == 4
    now["tollgate_nonsense"] = 1
    with pytest.raises(KeyError, match="tollgate_nonsense"):
        metrics.render()


def test_a_snapshot_goes_on_where_the_counters_were() -> None:
    drops = Drops()
    before = projection(drops=drops)
    before.apply([call(), streamed(), call(run_id="run-2"), EventRecord("e", T0, "reload_failed")])
    drops.add("logs", "buffer_full", 2)
    data = before.snapshot()
    after = projection()
    after.restore(data)
    assert _series(after) == _series(before)
    tail = [call(cost=10**12), OutcomeRecord("o", T0, "run-1", "success")]
    before.apply(tail)
    after.apply(tail)
    assert _series(after) == _series(before)
    assert after.read().started_ns == before.read().started_ns


def _series(metrics: MetricsProjection) -> set[str]:
    return set(metrics.render()[0].decode().splitlines())


def test_sums_beyond_64_bits_survive_a_snapshot() -> None:
    before = projection()
    for _ in range(40):
        before.apply([call(cost=(1 << 62), cost_components={"input": 1 << 62}, run_id="")])
    after = projection()
    after.restore(before.snapshot())
    assert sum(point.value for point in after.read().points["tollgate_cost_usd"]) == 40 << 62


def test_a_snapshot_of_another_shape_is_left_out() -> None:
    before = projection()
    before.apply([call()])
    state = msgspec.msgpack.decode(before.snapshot())
    state["cells"]["tollgate_requests"] = [[["only", "two"], "5"]]
    state["cells"]["tollgate_overhead_seconds"] = [[["total"], "5", [1, 2]]]
    state["cells"]["tollgate_gone"] = [[["x"], "5"]]
    after = projection()
    after.restore(msgspec.msgpack.encode(state))
    assert samples(after, "tollgate_requests_total") == {}
    assert value(after, "tollgate_overhead_seconds_count") == 0
    assert value(after, "tollgate_tokens_total", type="input") == 1000
    with pytest.raises(msgspec.MsgspecError):
        after.restore(b"nonsense")


TEXT = st.text(max_size=20)
COUNT = st.integers(0, 2**63 - 1)
ATTEMPTS = st.builds(AttemptRecord, TEXT, TEXT, TEXT, COUNT, COUNT, COUNT, st.integers(0, 999), st.booleans(), TEXT)
RECORDS = st.builds(
    call,
    outcome=st.sampled_from([*(outcome.value for outcome in Outcome), "?"]),
    status=st.integers(-1, 999), model_requested=TEXT, model_used=TEXT, agent=TEXT, tenant=TEXT, run_id=TEXT,
    operation=st.sampled_from(["", "chat", "embeddings"]), stream=st.booleans(), ttft_ns=st.integers(-1, 2**62),
    duration_ns=COUNT, overhead_ns=COUNT, started_at=COUNT, trace_id=TEXT, span_id=TEXT, parent_span_id=TEXT,
    trace_state=TEXT, trace_flags=st.integers(0, 255), parent_agent=TEXT,
    cost=st.none() | COUNT, cost_status=st.sampled_from(["priced", "no_price", "no_usage", "free"]),
    cost_components=st.dictionaries(TEXT, COUNT, max_size=3),
    usage=st.none() | st.builds(Usage, input_tokens=COUNT, output_tokens=COUNT, detail=st.dictionaries(
        st.sampled_from(["input_audio_tokens", "output_text_tokens", "web_searches"]), st.floats(), max_size=3)),
    attempts=st.lists(ATTEMPTS, max_size=3).map(tuple),
    tools=st.lists(st.builds(ToolCall, TEXT, TEXT, COUNT, COUNT, st.booleans(), st.booleans()), max_size=2).map(tuple),
    error_type=TEXT, error_code=TEXT, error_message=TEXT, sdk_retry=st.integers(-1, 9), user_agent=TEXT, method=TEXT,
    params=st.dictionaries(TEXT, TEXT | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.lists(TEXT), max_size=2),
    input_content=st.binary(max_size=50), output_content=st.binary(max_size=50),
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(st.lists(RECORDS, max_size=5))
def test_whatever_a_record_holds_it_is_counted(records: list[object]) -> None:
    metrics = projection(label_limit=3)
    metrics.apply([decode(encode(record)) for record in records])  # type: ignore[arg-type]
    assert value(metrics, "tollgate_requests_total") == len(records)
    list(parse_openmetrics(metrics.render(OPENMETRICS)[0].decode()))
