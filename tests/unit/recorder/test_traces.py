from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode

from gateway.call import CacheHealth, ToolCall, Usage
from gateway.config.schema import Sampling, Telemetry
from gateway.journal.record import AttemptRecord, CallRecord, EventRecord, OutcomeRecord, Record
from gateway.policy.sampling import Decision
from gateway.policy.trace_ids import agent_span_id, run_trace_id
from gateway.recorder.drops import Drops
from gateway.recorder.export import QUEUE_BYTES
from gateway.recorder.names_span import Span
from gateway.recorder.traces import TracesProjection, delay_seconds
from gateway.recorder.traces_runs import RunTraces
from gateway.recorder.traces_spans import CallSpans
from gateway.testing.telemetry_records import T0, call, streamed

RESOURCE = Resource({"service.name": "tollgate"})
KEPT = Decision(True, "error", 1.0)
SECOND = 10**9
CALLER = {"parent_span_id": "00f067aa0ba902b7", "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "trace_flags": 3}
FIRST = AttemptRecord("openai", "openai", "a.example", 443, 1_000_000, 50_000_000, 503, False)
SECOND_TRY = AttemptRecord("backup", "azure", "b.example", 8443, 60_000_000, 900_000_000, 200, True)


class Collector(SpanExporter):
    """Keeps what it is given; may be told to fail, or to block until shut down."""

    def __init__(self, *, fail: bool = False, block: bool = False) -> None:
        self.spans: list[ReadableSpan] = []
        self.fail = fail
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.shut = threading.Event()
        if not block:
            self.gate.set()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.gate.wait(30)
        self.spans += spans
        return SpanExportResult.FAILURE if self.fail else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.shut.set()


def spans(record: CallRecord, *, legacy: bool = False, decision: Decision = KEPT) -> list[ReadableSpan]:
    return CallSpans(record, decision, RESOURCE, legacy=legacy).spans()


def tree(made: Sequence[ReadableSpan]) -> list[str]:
    """Indented names, children after their parent in the order of their start."""
    ids = {span.context.span_id for span in made}
    below: dict[int, list[ReadableSpan]] = {}
    for span in sorted(made, key=lambda span: (span.start_time, span.name)):
        above = span.parent.span_id if span.parent is not None else 0
        below.setdefault(above if above in ids else 0, []).append(span)

    def lines(above: int, depth: int) -> list[str]:
        found = []
        for span in below.get(above, []):
            found.append("  " * depth + f"{span.kind.name} {span.name}")
            found += lines(span.context.span_id, depth + 1)
        return found

    return lines(0, 0)


def export(records: Sequence[Record], **options: Any) -> list[ReadableSpan]:
    """What a projection with a budget for everything exports of these records, from start to close."""
    collector = Collector()
    made = TracesProjection(Telemetry(**options), collector, RESOURCE, lambda: T0 / SECOND, Drops())
    made.apply(records)
    made.close(10)
    return collector.spans


# -- one call ----------------------------------------------------------------------------------------------------------


def test_the_tree_of_a_run() -> None:
    tool = ToolCall("call_1", "get_weather", T0 + 2 * SECOND, SECOND // 2)
    critic = {"agent": "critic", "parent_agent": "researcher"}
    records = [
        call(attempts=(FIRST, SECOND_TRY)),
        streamed(id="c2", span_id="00000000000000c2", started_at=T0 + 3 * SECOND, tools=(tool,), step=2),
        call(id="c3", span_id="00000000000000c3", started_at=T0 + 5 * SECOND, **critic),
        call(id="c4", span_id="00000000000000c4", started_at=T0 + 7 * SECOND, operation="", route="other", **critic),
        OutcomeRecord("o", T0 + 9 * SECOND, "run-1", "success"),
    ]  # fmt: skip
    made = export(records)
    assert tree(made) == [
        "INTERNAL invoke_agent researcher",
        "  SERVER POST /v1/chat/completions",
        "    CLIENT chat gpt-4o",
        "      CLIENT POST",
        "      CLIENT POST",
        "  INTERNAL execute_tool get_weather",
        "  SERVER POST /v1/chat/completions",
        "    CLIENT chat gpt-4o",
        "      CLIENT POST",
        "  INTERNAL invoke_agent critic",
        "    SERVER POST /v1/chat/completions",
        "      CLIENT chat gpt-4o",
        "        CLIENT POST",
        "    SERVER POST other",
        "      CLIENT POST",
    ]
    assert {span.context.trace_id for span in made} == {int(run_trace_id("run-1"), 16)}
    assert len({span.context.span_id for span in made}) == len(made)
    root = next(span for span in made if span.parent is None)
    assert root.attributes == {
        Span.OPERATION: "invoke_agent",
        Span.AGENT_NAME: "researcher",
        Span.AGENT_VERSION: "2",
        Span.RUN: "run-1",
        Span.RUN_SOURCE: "header",
        Span.RUN_CALLS: 4,
        Span.RUN_COST: 0.015,
        Span.RUN_OUTCOME: "success",
    }
    assert (root.start_time, root.end_time) == (T0, T0 + 7 * SECOND + 1_500_000_000)


def test_below_a_caller_there_is_no_root_of_ours() -> None:
    tool = ToolCall("call_1", "get_weather", T0, SECOND)
    made = export([call(**CALLER, trace_state="vendor=1", tools=(tool,))])
    server, operation, attempt, execute = made
    assert {span.context.trace_id for span in made} == {int(CALLER["trace_id"], 16)}  # type: ignore[call-overload]
    assert server.parent is not None
    assert server.parent.span_id == execute.parent.span_id == int(CALLER["parent_span_id"], 16)  # type: ignore
    assert server.parent.is_remote
    assert server.context.span_id == int("b7ad6b7169203331", 16)
    assert operation.parent.span_id == server.context.span_id
    assert attempt.parent.span_id == operation.context.span_id
    assert server.context.trace_state.to_header() == "vendor=1"


def test_a_call_without_a_run_is_a_trace_of_its_own() -> None:
    server = export([call(run_id="")])[0]
    assert server.parent is None
    assert server.context.trace_id == int("0af7651916cd43dd8448eb211c80319c", 16)


def test_attributes_of_the_server_span() -> None:
    record = call(conversation_id="conv", request_class="title", sdk_retry=2, parent_agent="boss")
    server = spans(record, decision=Decision(True, "budget", 0.25))[0]
    assert server.kind is SpanKind.SERVER
    assert server.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/chat/completions",
        "http.response.status_code": 200,
        "client.address": "127.0.0.1",
        "user_agent.original": "OpenAI/Python 3.54.0",
        "http.request.body.size": 2048,
        "http.response.body.size": 900,
        "gen_ai.agent.name": "researcher",
        "gen_ai.agent.version": "2",
        "gen_ai.conversation.id": "conv",
        "tollgate.agent.source": "header",
        "tollgate.agent.parent": "boss",
        "tollgate.conversation.id": "run-1",
        "tollgate.conversation.source": "header",
        "tollgate.conversation.confidence": 1.0,
        "tollgate.step": 1,
        "tollgate.request.class": "title",
        "tollgate.tenant": "acme",
        "tollgate.request.id": "01K7Z0000000000000000CALL1",
        "tollgate.outcome": "ok",
        "tollgate.upstream": "openai",
        "tollgate.overhead": 0.00018,
        "tollgate.attempts": 1,
        "tollgate.client.retry_count": 2,
        "tollgate.sampling.reason": "budget",
        "tollgate.sampling.probability": 0.25,
    }


def test_attributes_of_the_operation() -> None:
    operation = spans(streamed(usage=Usage(1000, 200, 600, 100, 50)))[1]
    assert operation.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.request.stream": True,
        "gen_ai.request.temperature": 0.2,
        "gen_ai.request.max_tokens": 256,
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "gen_ai.response.id": "chatcmpl-1",
        "gen_ai.response.finish_reasons": ["tool_calls"],
        "gen_ai.response.time_to_first_chunk": 0.3,
        "gen_ai.usage.input_tokens": 1000,
        "gen_ai.usage.output_tokens": 200,
        "gen_ai.usage.cache_read.input_tokens": 600,
        "gen_ai.usage.cache_write.input_tokens": 100,
        "gen_ai.usage.reasoning.output_tokens": 50,
        "gen_ai.agent.name": "researcher",
        "gen_ai.agent.version": "2",
        "server.address": "api.openai.com",
        "server.port": 443,
        "tollgate.agent.source": "header",
        "tollgate.conversation.id": "run-1",
        "tollgate.conversation.source": "header",
        "tollgate.conversation.confidence": 1.0,
        "tollgate.step": 1,
        "tollgate.tenant": "acme",
        "tollgate.usage.source": "provider",
        "tollgate.cost.usd": 0.00375,
        "tollgate.cost.input.usd": 0.001,
        "tollgate.cost.cache_read.usd": 0.00075,
        "tollgate.cost.output.usd": 0.002,
        "tollgate.cost.status": "priced",
        "tollgate.price.version": "genai-prices 0.2.3",
    }
    assert (operation.start_time, operation.end_time) == (T0 + 2_000_000, T0 + 1_492_000_000)


def test_legacy_names_are_opt_in() -> None:
    record = call(provider="google", usage=Usage(10, 1, 0, 4))
    plain, legacy = spans(record)[1].attributes, spans(record, legacy=True)[1].attributes
    added = {name: value for name, value in legacy.items() if name not in plain}
    assert added == {"gen_ai.system": "gcp.gemini", "gen_ai.usage.cache_creation.input_tokens": 4}
    assert plain["gen_ai.provider.name"] == "gcp.gemini"


def test_an_unknown_cost_is_absent_and_explained() -> None:
    attributes = spans(call(cost=None, cost_components={}, cost_status="no_price"))[1].attributes
    assert not [name for name in attributes if name.endswith("usd")]
    assert attributes["tollgate.cost.status"] == "no_price"


def test_attempts_say_how_often_it_was_sent_again() -> None:
    first, second = spans(call(attempts=(FIRST, SECOND_TRY)))[2:4]
    assert "http.request.resend_count" not in first.attributes
    assert second.attributes["http.request.resend_count"] == 1
    assert first.attributes["error.type"] == "503"
    assert first.attributes["server.address"] == "a.example"
    assert first.status.status_code is StatusCode.ERROR
    assert second.status.status_code is StatusCode.UNSET
    assert (second.start_time, second.end_time) == (T0 + 60_000_000, T0 + 960_000_000)


@pytest.mark.parametrize(
    ("changes", "server", "operation", "error"),
    [
        ({}, "UNSET", "UNSET", None),
        (
            {"status": 429, "outcome": "upstream_error", "error_type": "rate_limit_error"},
            "UNSET",
            "ERROR",
            "rate_limit_error",
        ),
        ({"status": 529, "outcome": "upstream_error", "error_type": "over loaded!"}, "ERROR", "ERROR", "http_529"),
        (
            {"status": 200, "outcome": "truncated", "error_code": "upstream_truncated"},
            "ERROR",
            "ERROR",
            "upstream_truncated",
        ),
        ({"status": 200, "outcome": "cancelled", "error_code": "client_gone"}, "UNSET", "UNSET", None),
        ({"status": 502, "outcome": "failed", "error_code": "upstream_reset"}, "ERROR", "ERROR", "upstream_reset"),
        ({"status": 0, "outcome": "abandoned"}, "ERROR", "ERROR", "abandoned"),
    ],
)
def test_status(changes: dict[str, Any], server: str, operation: str, error: str | None) -> None:
    made = spans(call(error_message="it broke", **changes))
    assert [made[0].status.status_code.name, made[1].status.status_code.name] == [server, operation]
    assert made[0].attributes.get("error.type") == made[1].attributes.get("error.type") == error
    if operation == "ERROR":
        assert made[1].status.description == "it broke"


def test_a_refused_call_is_one_span() -> None:
    (server,) = spans(call(attempts=(), status=401, outcome="refused", error_code="unauthorized"))
    assert server.status.status_code is StatusCode.UNSET
    assert server.attributes["error.type"] == "unauthorized"


def test_a_failed_tool_is_an_error() -> None:
    tool = ToolCall("call_1", "get_weather", T0, SECOND, exact=True, is_error=True)
    execute = spans(call(tools=(tool,), conversation_id="conv"))[-1]
    assert execute.status.status_code is StatusCode.ERROR
    assert execute.attributes == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "get_weather",
        "gen_ai.tool.call.id": "call_1",
        "gen_ai.tool.type": "function",
        "gen_ai.agent.name": "researcher",
        "gen_ai.conversation.id": "conv",
        "error.type": "tool_error",
        "tollgate.tool.duration_exact": True,
        "tollgate.conversation.id": "run-1",
    }


def test_derived_run_ids_are_no_conversation() -> None:
    for span in export([call(tools=(ToolCall("c", "t", T0, 1),))]):
        assert Span.CONVERSATION not in span.attributes


# -- content -----------------------------------------------------------------------------------------------------------


def content(request: object, answer: object = b"") -> dict[str, Any]:
    bodies = [body if isinstance(body, bytes) else msgspec.json.encode(body) for body in (request, answer)]
    attributes = spans(call(input_content=bodies[0], output_content=bodies[1]))[1].attributes
    wanted = ("gen_ai.input", "gen_ai.output", "gen_ai.system_instr", "gen_ai.tool.def", "tollgate.content")
    return {
        name: msgspec.json.decode(value) if name.startswith("gen_ai") else value
        for name, value in attributes.items()
        if name.startswith(wanted)
    }


def test_no_content_unless_captured() -> None:
    assert content(b"") == {}


def test_openai_content() -> None:
    function = {"name": "get_weather", "arguments": '{"city":"Paris"}'}
    request = {
        "model": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {
                "role": "user",
                "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "u"}}],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": function}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "rain"},
        ],
        "tools": [{"type": "function"}],
    }
    answer = {"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Rain."}}]}
    assert content(request, answer) == {
        "gen_ai.input.messages": [
            {"role": "system", "parts": [{"type": "text", "content": "be brief"}]},
            {"role": "user", "parts": [
                {"type": "text", "content": "hi"}, {"type": "image_url", "image_url": {"url": "u"}}]},
            {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", **function}]},
            {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "rain"}]},
        ],
        "gen_ai.tool.definitions": [{"type": "function"}],
        "gen_ai.output.messages": [
            {"role": "assistant", "parts": [{"type": "text", "content": "Rain."}], "finish_reason": "stop"}],
    }  # fmt: skip


def test_anthropic_content() -> None:
    request = {
        "system": [{"type": "text", "text": "be brief"}],
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "rain"}]},
        ],
    }
    answer = {
        "role": "assistant",
        "stop_reason": "tool_use",
        "content": [
            {"type": "thinking", "thinking": "hm"},
            {"type": "tool_use", "id": "t2", "name": "f", "input": {"a": 1}},
        ],
    }
    assert content(request, answer) == {
        "gen_ai.system_instructions": [{"type": "text", "content": "be brief"}],
        "gen_ai.input.messages": [
            {"role": "user", "parts": [{"type": "text", "content": "hi"}]},
            {"role": "user", "parts": [{"type": "tool_call_response", "id": "t1", "response": "rain"}]},
        ],
        "gen_ai.output.messages": [{"role": "assistant", "finish_reason": "tool_use", "parts": [
            {"type": "reasoning", "content": "hm"},
            {"type": "tool_call", "id": "t2", "name": "f", "arguments": {"a": 1}}]}],
    }  # fmt: skip


def test_gemini_content() -> None:
    request = {
        "systemInstruction": {"parts": [{"text": "be brief"}]},
        "contents": [
            {"role": "user", "parts": [{"text": "hi"}]},
            {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {"a": 1}}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"r": 2}}}]},
        ],
    }
    answer = {"candidates": [{"content": {"role": "model", "parts": [{"text": "Rain."}]}, "finishReason": "STOP"}]}
    found = content(request, answer)
    assert found["gen_ai.system_instructions"] == [{"type": "text", "content": "be brief"}]
    assert [message["parts"][0]["type"] for message in found["gen_ai.input.messages"]] == [
        "text", "tool_call", "tool_call_response"]  # fmt: skip
    assert found["gen_ai.output.messages"] == [
        {"role": "model", "parts": [{"type": "text", "content": "Rain."}], "finish_reason": "STOP"}]  # fmt: skip


def test_responses_content() -> None:
    request = {
        "instructions": "be brief",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        ],
    }
    answer = {
        "output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Rain."}]}]
    }
    assert content(request, answer) == {
        "gen_ai.system_instructions": [{"type": "text", "content": "be brief"}],
        "gen_ai.input.messages": [
            {"role": "user", "parts": [{"type": "text", "content": "hi"}]},
            {"role": "user", "parts": [{"type": "tool_call_response", "id": "c1", "response": "rain"}]},
        ],
        "gen_ai.output.messages": [{"role": "assistant", "parts": [{"type": "text", "content": "Rain."}]}],
    }


@pytest.mark.parametrize(
    "body", [b"sha256:abcd", b'{"messages": [{"role": "us', b"\xff\xfe", b"[]", b'{"messages": 5}']
)
def test_content_that_is_no_message_is_kept_as_text(body: bytes) -> None:
    found = content(body, body)
    assert found == dict.fromkeys([Span.CONTENT_IN, Span.CONTENT_OUT], body.decode("utf-8", "replace"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "content", "parts", "type", "text", "tool_calls", "function", "id", "functionCall"]
            ),
            inner | st.sampled_from(["text", "tool_use", "tool_result"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=150)
@given(
    st.dictionaries(st.sampled_from(["messages", "contents", "input", "choices", "output", "content", "role"]), JSON)
)
def test_content_of_any_shape_is_an_attribute(body: dict[str, Any]) -> None:
    data = msgspec.json.encode(body)
    encode_spans(spans(call(input_content=data, output_content=data)))


# -- keeping and dropping ----------------------------------------------------------------------------------------------


def test_a_caller_that_did_not_sample_is_honoured() -> None:
    assert export([call(), call(**{**CALLER, "trace_flags": 2})])[-1].context.trace_id == int(run_trace_id("run-1"), 16)
    assert len(export([call(**{**CALLER, "trace_flags": 3})])) == 3


def test_an_idle_run_gets_its_root_and_later_calls_no_second_one() -> None:
    runs = RunTraces(60)
    runs.keep(call())
    runs.observe(call())
    ended = T0 + 1_500_000_000
    assert runs.idle(ended + 59 * SECOND) == []
    (run,) = runs.idle(ended + 60 * SECOND)
    assert run.agents[""].calls == 1
    assert runs.keep(call()) is None
    runs.observe(call())
    assert runs.rest() == []


def test_runs_are_bounded() -> None:
    runs = RunTraces(60, limit=3)
    pushed = []
    for n in range(10):
        record = call(run_id=f"r{n}")
        pushed.append(runs.keep(record))
        runs.observe(record)
    assert [run.run_id for run in pushed if run is not None] == [f"r{n}" for n in range(7)]
    assert len(runs._done) == 3


def test_sub_agents_of_a_run_are_bounded() -> None:
    runs = RunTraces(60)
    runs.keep(call())
    for n in range(1000):
        runs.observe(call(agent=f"sub{n}", parent_agent="researcher"))
    assert len(runs.rest()[0].agents) == 65


def test_a_sub_agent_of_a_sub_agent() -> None:
    made = export([
        call(),
        call(id="2", span_id="2" * 16, agent="a", parent_agent="researcher"),
        call(id="3", span_id="3" * 16, agent="b", parent_agent="a"),
    ])  # fmt: skip
    above = {span.attributes[Span.AGENT_NAME]: span.parent for span in made if span.name.startswith("invoke_agent")}
    assert above["researcher"] is None
    assert above["a"].span_id == int(agent_span_id("run-1"), 16)
    assert above["b"].span_id == int(agent_span_id("run-1", "a"), 16)


def projection(collector: Collector, drops: Drops, **options: Any) -> TracesProjection:
    config = Telemetry(sampling=Sampling(traces_per_second=1000))
    return TracesProjection(config, collector, RESOURCE, lambda: T0 / SECOND, drops, **options)


def test_a_blocked_collector_costs_spans_and_nothing_else() -> None:
    collector, drops = Collector(block=True), Drops()
    made = projection(collector, drops, queue_spans=60, delay_seconds=0.001)
    made.apply([call(run_id="")])
    assert collector.entered.wait(30)  # the thread is stuck in export now
    for n in range(200):
        made.apply([call(run_id="", trace_id=f"{n:032x}")])
    dropped = drops.counts()[("traces", "queue_full")]
    assert dropped == 200 * 3 - 60
    collector.gate.set()
    made.close(30)
    assert len(collector.spans) == 3 + 60


def test_captured_content_bounds_what_waits() -> None:
    collector, drops = Collector(block=True), Drops()
    made = projection(collector, drops, delay_seconds=0.001)
    made.apply([call(run_id="")])
    assert collector.entered.wait(30)  # the thread is stuck in export now
    content, kept = b"x" * (QUEUE_BYTES // 4), 4
    for n in range(kept + 2):
        half = len(content) // 2
        made.apply([call(run_id="", trace_id=f"{n:032x}", input_content=content[:half], output_content=content[half:])])
    assert drops.counts() == {("traces", "queue_full"): 2 * 3}
    collector.gate.set()
    made.close(30)
    assert len(collector.spans) == 3 + kept * 3


def test_close_is_bounded_when_the_collector_never_answers() -> None:
    collector, drops = Collector(block=True), Drops()
    made = projection(collector, drops, delay_seconds=0.001)
    made.apply([call(run_id="")])
    assert collector.entered.wait(30)
    made.apply([call()])
    closing = threading.Thread(target=made.close, args=(0.2,))
    closing.start()
    closing.join(20)
    assert not closing.is_alive()
    assert collector.shut.is_set()
    assert drops.counts() == {("traces", "shutdown"): 4}
    collector.gate.set()


def test_a_refused_batch_is_counted() -> None:
    collector, drops = Collector(fail=True), Drops()
    made = projection(collector, drops)
    made.apply([call()])
    made.close(30)
    assert drops.counts() == {("traces", "export_failed"): 4}


def test_an_exporter_that_raises_is_a_refused_batch() -> None:
    class Closed(Collector):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            raise ValueError("Cannot invoke RPC on closed channel!")

    drops = Drops()
    made = projection(Closed(), drops)
    made.apply([call(run_id="")])
    made.close(30)
    assert drops.counts() == {("traces", "export_failed"): 3}


def test_a_storm_of_errors_is_cut_and_counted() -> None:
    collector, drops = Collector(), Drops()
    config = Telemetry(sampling=Sampling(traces_per_second=0))
    made = TracesProjection(config, collector, RESOURCE, lambda: T0 / SECOND, drops, queue_spans=10**6)
    made.apply([call(run_id="", status=500, outcome="upstream_error") for _ in range(2000)])
    made.close(30)
    assert len(collector.spans) == 3000
    assert drops.counts() == {("traces", "rate_limited"): 3000}


def test_every_kept_call_is_told() -> None:
    kept: list[CallRecord] = []
    collector = Collector()
    config = Telemetry(sampling=Sampling(traces_per_second=0))
    made = TracesProjection(config, collector, RESOURCE, lambda: 0.0, Drops(), kept=kept.append)
    made.apply([call(), call(id="plain"), call(id="bad", outcome="failed")])
    made.close(30)
    assert [record.id for record in kept] == ["01K7Z0000000000000000CALL1", "bad"]


def test_other_records_pass() -> None:
    assert export([EventRecord("e", T0, "start"), OutcomeRecord("o", T0, "nobody", "success")]) == []


def test_the_delay_is_configurable_as_the_specification_says() -> None:
    assert delay_seconds({"OTEL_BSP_SCHEDULE_DELAY": "250"}) == 0.25
    assert delay_seconds({"OTEL_BSP_SCHEDULE_DELAY": "soon"}) == delay_seconds({}) == 1.0


def test_budgets_and_signs_of_a_runaway_are_attributes_of_the_server_span() -> None:
    notes = {"loop": "cycle", "loop_action": "note"}
    account = "team:a|usd|day|2026-11-27"
    told = call(budget="queued", budget_account=account, reserved=5_000_000, remaining=0, key_id="key_1", notes=notes)
    server = next(span for span in spans(told) if span.kind is SpanKind.SERVER)
    assert server.attributes is not None
    found = {name: value for name, value in server.attributes.items() if name.startswith(("tollgate.b", "tollgate.l"))}
    assert found == {
        "tollgate.budget.decision": "queued",
        "tollgate.budget.account": account,
        "tollgate.budget.reserved_usd": 0.005,
        "tollgate.budget.remaining_usd": 0.0,
        "tollgate.loop.signals": "cycle",
        "tollgate.loop.action": "note",
    }
    assert server.attributes["tollgate.key.id"] == "key_1"
    plain = next(span for span in spans(call()) if span.kind is SpanKind.SERVER)
    assert not [name for name in plain.attributes or {} if name.startswith(("tollgate.budget", "tollgate.loop"))]


def test_what_a_prompt_cache_lost_is_an_attribute_of_the_server_span() -> None:
    told = [
        call(prompt_cache=CacheHealth(9, 1, 9, 8, 5 * 10**11, "changed", "tool", 3, "tool definition 3 changed")),
        call(prompt_cache=CacheHealth(9, 1, 9, 8, None, "provider", "", -1, "stable")),
        call(prompt_cache=CacheHealth(9, 9, 9)),
        call(),
    ]
    found = []
    for record in told:
        server = next(span for span in spans(record) if span.kind is SpanKind.SERVER)
        names = (Span.CACHE_LOST, Span.CACHE_HINT)
        found.append(tuple((server.attributes or {}).get(name) for name in names))
    assert found == [(0.5, "tool definition 3 changed"), (None, "stable"), (None, None), (None, None)]


def test_a_tool_that_passed_through_the_gate_is_one_span_above_its_attempts() -> None:
    tool = ToolCall("c1/0", "search", T0, SECOND, True, True, "web", 5 * 10**9)
    facts: dict[str, Any] = {"operation": "execute_tool", "route": "/mcp/{server}", "upstream": "mcp/web"}
    made = export([call(tools=(tool,), attempts=(FIRST,), **facts)])
    assert tree(made)[1:] == ["  SERVER POST /mcp/{server}", "    INTERNAL execute_tool search", "      CLIENT POST"]
    attributes = next(span for span in made if span.name == "execute_tool search").attributes
    assert attributes is not None
    assert attributes[Span.TOOL_SERVER] == "web"
    assert attributes[Span.COST] == 0.005
    assert attributes[Span.ERROR_TYPE] == "tool_error"
    assert Span.TOOL_CALL_ID not in attributes
