from __future__ import annotations

import logging

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans

from gateway import __version__
from gateway.config.schema import Otlp
from gateway.recorder.otlp import Destination, _Seldom, destination, exporter, resource

HERE = Otlp(endpoint="http://127.0.0.1:4318/", headers={"A": "b"})


@pytest.mark.parametrize(
    ("otlp", "environ", "expected"),
    [
        (None, {}, None),
        (HERE, {}, ("http://127.0.0.1:4318/v1/traces", "http/protobuf")),
        (HERE, {"OTEL_SDK_DISABLED": "TRUE"}, None),
        (HERE, {"OTEL_TRACES_EXPORTER": "none"}, None),
        (HERE, {"OTEL_METRICS_EXPORTER": "none"}, ("http://127.0.0.1:4318/v1/traces", "http/protobuf")),
        (Otlp(endpoint="http://c", traces=False), {}, None),
        (Otlp(endpoint="http://c/v1/traces"), {}, ("http://c/v1/traces", "http/protobuf")),
        (Otlp(endpoint="http://c:4317", protocol="grpc"), {}, ("http://c:4317", "grpc")),
        (HERE, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t/x"}, ("http://t/x", "http/protobuf")),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t/x"}, ("http://t/x", "http/protobuf")),
        (None, {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://t/x"}, None),
        (
            None,
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            ("http://t", "grpc"),
        ),
        (HERE, {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, ("http://127.0.0.1:4318", "grpc")),
        (HERE, {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}, None),
    ],
)
def test_destination(otlp: Otlp | None, environ: dict[str, str], expected: tuple[str, str] | None) -> None:
    found = destination("traces", otlp, environ)
    assert (None if found is None else (found.endpoint, found.protocol)) == expected
    if found is not None and otlp is HERE:
        assert found.headers == {"A": "b"}


def test_a_protocol_that_is_not_spoken_is_said(caplog: pytest.LogCaptureFixture) -> None:
    assert destination("traces", HERE, {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}) is None
    assert [record.message for record in caplog.records] == [
        "telemetry: no traces are exported: expected http/protobuf or grpc, got 'http/json'"
    ]


def test_the_stock_exporters_are_used() -> None:
    http = exporter(Destination("traces", "http://c/v1/traces", "http/protobuf", {"A": "b"}), {})
    assert isinstance(http, HttpSpans)
    assert http._compression.value == "gzip"
    assert http._client._headers["a"] == "b"
    assert isinstance(exporter(Destination("metrics", "http://c/v1/metrics", "http/protobuf"), {}), HttpMetrics)
    rpc = exporter(Destination("traces", "http://127.0.0.1:1", "grpc"), {})
    assert isinstance(rpc, GrpcSpans)
    assert rpc._compression is grpc.Compression.Gzip
    rpc.shutdown()


def test_compression_is_the_environments_if_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    environ = {"OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "deflate"}
    monkeypatch.setenv(*environ.popitem())
    environ = {"OTEL_EXPORTER_OTLP_TRACES_COMPRESSION": "deflate"}
    assert exporter(Destination("traces", "http://c", "http/protobuf"), environ)._compression.value == "deflate"


def test_who_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    monkeypatch.delenv("OTEL_RESOURCE_ATTRIBUTES", raising=False)
    assert resource().attributes["service.name"] == "tollgate"
    assert resource().attributes["service.version"] == __version__
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,service.version=9,x=y")
    assert [resource().attributes[name] for name in ("service.name", "service.version", "x")] == ["a", "9", "y"]
    monkeypatch.setenv("OTEL_SERVICE_NAME", "b")
    assert resource().attributes["service.name"] == "b"


def test_failures_are_logged_once_a_minute() -> None:
    now = [100.0]
    seldom = _Seldom(60, lambda: now[0])
    record = logging.LogRecord("x", logging.ERROR, "", 0, "failed", (), None)
    said = []
    for now[0] in (100, 101, 159, 160, 161):
        said.append(seldom.filter(record))
    assert said == [True, False, False, True, False]
