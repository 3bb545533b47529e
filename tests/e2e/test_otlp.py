"""What really goes over the wire to a collector, read with the protocol's own messages."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from gateway.call import ToolCall
from gateway.config.schema import Otlp, Sampling, Telemetry
from gateway.journal.record import OutcomeRecord, Record
from gateway.policy.trace_ids import agent_span_id, run_trace_id
from gateway.recorder.telemetry import Projections, projections
from gateway.testing.otlp_collector import OtlpCollector
from gateway.testing.telemetry_records import T0, call, streamed

SECOND = 10**9
STOCK = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """The exporters log every failure."""
    for name in STOCK:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    yield
    for name in STOCK:
        logging.getLogger(name).setLevel(logging.NOTSET)


def build(url: str, environ: dict[str, str] | None = None, **options: Any) -> Projections:
    otlp = Otlp(endpoint=url, **options)
    config = Telemetry(otlp=otlp, log=None, sampling=Sampling(traces_per_second=10_000))
    return projections(config, lambda: {"tollgate_inflight_requests": 2.0}, lambda: T0 / SECOND, environ or {})


def feed(made: Projections, records: list[Record]) -> None:
    for projection in (made.metrics, *made.sinks):
        projection.apply(records)


def plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None


def attributes(items: Any) -> dict[str, Any]:
    found: list[KeyValue] = list(items)
    return {item.key: plain(item.value) for item in found}


def dropped(made: Projections) -> dict[tuple[str, str], float]:
    """Telemetry that was given up, as /metrics tells it."""
    points = made.metrics.read().points["tollgate_telemetry_dropped"]
    return {(point.labels[0], point.labels[1]): point.value for point in points}


def test_traces_field_by_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    with OtlpCollector() as collector:
        made = build(collector.url, headers={"X-Scope": "team"}, metrics=False)
        feed(made, [
            streamed(tools=(ToolCall("call_0", "search", T0 - SECOND, SECOND // 2, is_error=True),)),
            OutcomeRecord("o", T0 + SECOND, "run-1", "success"),
        ])  # fmt: skip
        made.close(20)
    (headers,) = collector.headers
    assert headers["content-type"] == "application/x-protobuf"
    assert headers["content-encoding"] == "gzip"
    assert headers["x-scope"] == "team"
    (group,) = collector.resource_spans
    who = attributes(group.resource.attributes)
    assert who["service.name"] == "tollgate"
    assert who["deployment.environment.name"] == "test"
    assert who["telemetry.sdk.name"] == "opentelemetry"
    assert group.scope_spans[0].scope.name == "tollgate"
    assert group.scope_spans[0].schema_url == "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev"
    spans = {span.name: span for span in collector.spans}
    assert {name: (span.kind, span.status.code) for name, span in spans.items()} == {
        "POST /v1/chat/completions": (Span.SPAN_KIND_SERVER, Status.STATUS_CODE_UNSET),
        "chat gpt-4o": (Span.SPAN_KIND_CLIENT, Status.STATUS_CODE_UNSET),
        "POST": (Span.SPAN_KIND_CLIENT, Status.STATUS_CODE_UNSET),
        "execute_tool search": (Span.SPAN_KIND_INTERNAL, Status.STATUS_CODE_ERROR),
        "invoke_agent researcher": (Span.SPAN_KIND_INTERNAL, Status.STATUS_CODE_UNSET),
    }
    assert {span.trace_id.hex() for span in collector.spans} == {run_trace_id("run-1")}
    server, chat, attempt = spans["POST /v1/chat/completions"], spans["chat gpt-4o"], spans["POST"]
    root = spans["invoke_agent researcher"]
    assert root.span_id.hex() == agent_span_id("run-1")
    assert root.parent_span_id == b""
    assert server.parent_span_id == spans["execute_tool search"].parent_span_id == root.span_id
    assert (chat.parent_span_id, attempt.parent_span_id) == (server.span_id, chat.span_id)
    assert server.span_id.hex() == "b7ad6b7169203331"
    assert (server.start_time_unix_nano, server.end_time_unix_nano) == (T0, T0 + 1_500_000_000)
    assert attempt.start_time_unix_nano == T0 + 2_000_000
    chatted = attributes(chat.attributes)
    assert chatted["gen_ai.usage.input_tokens"] == 1000
    assert chatted["gen_ai.response.finish_reasons"] == ["tool_calls"]
    assert chatted["gen_ai.request.temperature"] == 0.2
    assert chatted["tollgate.cost.usd"] == 0.00375
    assert attributes(root.attributes)["tollgate.run.outcome"] == "success"


def test_a_callers_context_is_kept() -> None:
    with OtlpCollector() as collector:
        made = build(collector.url, metrics=False)
        feed(made, [call(parent_span_id="00f067aa0ba902b7", trace_id="4bf92f3577b34da6a3ce929d0e0e4736", trace_flags=3,
                         trace_state="congo=t61rcWkgMzE,rojo=00f067aa0ba902b7")])  # fmt: skip
        made.close(20)
    server = collector.spans[0]
    assert server.parent_span_id.hex() == "00f067aa0ba902b7"
    assert {span.trace_id.hex() for span in collector.spans} == {"4bf92f3577b34da6a3ce929d0e0e4736"}
    assert server.trace_state == "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7"
    assert len(collector.spans) == 3


def test_metrics_field_by_field() -> None:
    with OtlpCollector() as collector:
        made = build(collector.url, traces=False)
        feed(made, [call(), call(cost=10**12, cost_components={"input": 10**12})])
        made.close(20)
    found = {metric.name: metric for metric in collector.metrics()}
    requests = found["tollgate.requests"]
    assert requests.sum.is_monotonic
    assert requests.sum.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    (point,) = requests.sum.data_points
    assert point.as_int == 2
    labels = {"route": "/v1/chat/completions", "provider": "openai", "model": "gpt-4o", "outcome": "ok", "code": "200"}
    assert attributes(point.attributes) == labels
    assert sum(point.as_double for point in found["tollgate.cost_usd"].sum.data_points) == pytest.approx(
        1.00375, rel=1e-12
    )
    assert found["tollgate.cost_usd"].unit == "{USD}"
    duration = found["gen_ai.client.operation.duration"]
    assert duration.unit == "s"
    (point,) = duration.histogram.data_points
    assert (point.count, point.sum) == (2, 2.996)
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1 == 15
    assert list(point.bucket_counts).index(2) == list(point.explicit_bounds).index(2.56)
    assert not point.HasField("min")
    assert attributes(point.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.response.model": "gpt-4o-2024-08-06",
        "server.address": "api.openai.com",
        "server.port": 443,
    }
    assert found["gen_ai.client.inference.duration"].histogram.data_points[0].count == 2
    (point,) = found["tollgate.request_duration"].histogram.data_points
    assert [exemplar.trace_id.hex() for exemplar in point.exemplars] == [run_trace_id("run-1")]
    assert [exemplar.span_id.hex() for exemplar in point.exemplars] == ["b7ad6b7169203331"]
    assert found["tollgate.inflight_requests"].gauge.data_points[0].as_double == 2
    assert found["tollgate.build"].gauge.data_points[0].as_int == 1


def test_the_standard_variables_say_where(monkeypatch: pytest.MonkeyPatch) -> None:
    with OtlpCollector() as collector:
        environ = {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.url}/v1/traces",
            "OTEL_EXPORTER_OTLP_HEADERS": "api-key=of-the-collector",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
            "OTEL_SERVICE_NAME": "my-gate",
        }
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        made = projections(Telemetry(log=None), dict, lambda: T0 / SECOND, environ)
        feed(made, [call()])
        made.close(20)
    (headers,) = collector.headers
    assert headers["api-key"] == "of-the-collector"
    assert "content-encoding" not in headers
    assert attributes(collector.resource_spans[0].resource.attributes)["service.name"] == "my-gate"


class GrpcCollector(TraceServiceServicer):  # type: ignore[misc]
    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.metadata: list[dict[str, str]] = []

    def Export(self, request: Any, context: grpc.ServicerContext) -> ExportTraceServiceResponse:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        return ExportTraceServiceResponse()


def test_traces_over_grpc() -> None:
    collector, server = GrpcCollector(), grpc.server(ThreadPoolExecutor(1))
    add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    made = build(f"http://127.0.0.1:{port}", protocol="grpc", headers={"X-Scope": "team"}, metrics=False)
    feed(made, [call()])
    made.close(20)
    server.stop(None).wait(10)
    (request,) = collector.requests
    assert sorted(span.name for scope in request.resource_spans[0].scope_spans for span in scope.spans) == [
        "POST",
        "POST /v1/chat/completions",
        "chat gpt-4o",
        "invoke_agent researcher",
    ]
    assert collector.metadata[0]["x-scope"] == "team"


def closed_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def close_within(made: Projections, timeout: float) -> bool:
    """Does `close(timeout)` return at all, soon after what it promises?"""
    closing = threading.Thread(target=made.close, args=(timeout,), daemon=True)
    closing.start()
    closing.join(timeout + 15)
    return not closing.is_alive()


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_dead_collector_holds_up_nothing(protocol: Any) -> None:
    made = build(closed_port(), protocol=protocol)
    logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter").setLevel(logging.CRITICAL)
    for _ in range(20):
        feed(made, [call() for _ in range(500)])
    assert dropped(made)[("traces", "queue_full")] > 0
    assert close_within(made, 1.0)
    assert ("traces", "shutdown") in dropped(made)
    assert sum(point.value for point in made.metrics.read().points["tollgate_requests"]) == 10_000


def test_a_collector_that_never_answers_holds_up_nothing() -> None:
    with OtlpCollector() as collector:
        collector.open.clear()
        made = build(collector.url)
        feed(made, [call(run_id="")])
        assert collector.requests(1)
        for _ in range(20):
            feed(made, [call() for _ in range(500)])
        assert dropped(made)[("traces", "queue_full")] > 0
        assert close_within(made, 1.0)
    assert ("traces", "shutdown") in dropped(made)


@pytest.mark.parametrize("status", [413, 400, 500])
def test_a_collector_that_refuses_is_counted(status: int) -> None:
    with OtlpCollector(status) as collector:
        made = build(collector.url)
        feed(made, [call()])
        made.close(20)
        assert len(collector.headers) == 2  # neither is tried again
    assert dropped(made)[("traces", "export_failed")] == 4
    assert dropped(made)[("metrics", "export_failed")] > 20


def test_what_a_collector_takes_in_part_is_counted() -> None:
    said = ExportTracePartialSuccess(rejected_spans=3, error_message="no room")
    with OtlpCollector() as collector:
        collector.answer = ExportTraceServiceResponse(partial_success=said).SerializeToString()
        made = build(collector.url, metrics=False)
        feed(made, [call(run_id="")])
        made.close(20)
    assert dropped(made) == {("traces", "rejected"): 3}


def test_an_answer_that_is_no_protobuf_is_a_success() -> None:
    with OtlpCollector() as collector:
        collector.answer = b"<html>ok"
        made = build(collector.url)
        feed(made, [call()])
        made.close(20)
    assert dropped(made) == {}


def test_a_redirect_is_no_success() -> None:
    with OtlpCollector(301) as collector:
        collector.answer_headers = {"location": "https://collector.example/v1/traces"}
        made = build(collector.url)
        feed(made, [call()])
        made.close(20)
        assert len(collector.headers) == 2  # it is neither followed nor tried again
    assert dropped(made)[("traces", "export_failed")] == 4
    assert dropped(made)[("metrics", "export_failed")] > 20


def test_a_collector_that_comes_back_gets_what_comes_then() -> None:
    with OtlpCollector(413) as collector:
        made = build(collector.url, metrics=False)
        feed(made, [call(run_id="")])
        assert collector.requests(1)
        collector.status = 200
        feed(made, [call(run_id="", trace_id="1" * 32)])
        made.close(20)
    assert {span.trace_id.hex() for span in collector.spans} == {"1" * 32}


def test_planted_secrets_reach_nobody(tmp_path: Any) -> None:
    """A record holds no secrets; nothing else may get into telemetry: not the collector's key, not our environment."""
    log = tmp_path / "calls.log"
    secret = "canary-5f2c"
    with OtlpCollector() as collector:
        otlp = Otlp(endpoint=collector.url, headers={"authorization": f"Bearer {secret}"})
        environ = {"OPENAI_API_KEY": secret, "TOLLGATE_ADMIN_TOKEN": secret}
        made = projections(Telemetry(otlp=otlp, log=str(log)), dict, lambda: T0 / SECOND, environ)
        feed(made, [call(), streamed(outcome="failed", error_message="key [redacted] is wrong")])
        made.close(20)
        assert [headers["authorization"] for headers in collector.headers] == [f"Bearer {secret}"] * 2
    exported = [group.SerializeToString() for group in (*collector.resource_spans, *collector.resource_metrics)]
    pages = [made.metrics.render(accept)[0] for accept in ("", "application/openmetrics-text")]
    for data in (*exported, *pages, log.read_bytes(), made.metrics.snapshot()):
        assert data
        assert secret.encode() not in data
