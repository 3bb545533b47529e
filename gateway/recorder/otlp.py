"""OTLP: what is exported where, with which of the stock exporters, under which resource.

The section `telemetry.otlp` names a collector; the standard variables OTEL_EXPORTER_OTLP_{TRACES,METRICS}_{ENDPOINT,
PROTOCOL}, OTEL_SDK_DISABLED and OTEL_{TRACES,METRICS}_EXPORTER=none outrank it, and all else that the exporters read in
the environment (headers, certificates, timeouts, compression) stays theirs. Without a word on compression: gzip.
The exporters are imported when they are needed: gRPC alone costs a tenth of a second and 15 MB.
"""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from msgspec import Struct
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource

from gateway import __version__
from gateway.config.schema import Otlp

Signal = Literal["traces", "metrics"]
_CLASS = {"traces": "OTLPSpanExporter", "metrics": "OTLPMetricExporter"}
_MODULE = {"traces": "trace_exporter", "metrics": "metric_exporter"}
_PACKAGE = {"http/protobuf": "opentelemetry.exporter.otlp.proto.http", "grpc": "opentelemetry.exporter.otlp.proto.grpc"}
_SESSION_VARIABLE = "_CREDENTIAL_PROVIDER"  # names a plug-in of the user's that makes the HTTP session
_LOG_SECONDS = 60
_log = logging.getLogger("tollgate.recorder")


class Destination(Struct, frozen=True):
    """Where one signal goes. `endpoint` is complete: with the signal's path for HTTP."""

    signal: Signal
    endpoint: str
    protocol: str
    headers: dict[str, str] = {}


def destination(signal: Signal, otlp: Otlp | None, environ: Mapping[str, str]) -> Destination | None:
    """Where a signal goes, or None if it is not exported. `environ` is the process environment."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    if environ.get(f"OTEL_{signal.upper()}_EXPORTER", "").strip().lower() == "none":
        return None
    if otlp is not None and not getattr(otlp, signal):
        return None
    own = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "")
    protocol = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL") or (
        otlp.protocol if otlp is not None else environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    )
    if not (own or otlp):
        return None
    if protocol not in _PACKAGE:
        _log.error("telemetry: no %s are exported: expected %s, got %r", signal, " or ".join(_PACKAGE), protocol)
        return None
    endpoint = own
    if otlp is not None and not own:
        base = otlp.endpoint.rstrip("/")
        endpoint = base if protocol == "grpc" or base.endswith(f"/v1/{signal}") else f"{base}/v1/{signal}"
    return Destination(signal, endpoint, protocol, otlp.headers if otlp is not None else {})


def exporter(to: Destination, environ: Mapping[str, str], rejected: Callable[[int], None] = lambda count: None) -> Any:
    """The stock SpanExporter or MetricExporter of a destination. Raises OSError for unreadable TLS files.

    `rejected` is told of what a collector did not take of a batch that it accepted, over HTTP.
    """
    package = _PACKAGE[to.protocol]
    library = importlib.import_module(package)
    module = importlib.import_module(f"{package}.{_MODULE[to.signal]}")
    options: dict[str, Any] = {"endpoint": to.endpoint}
    if to.headers:
        options["headers"] = {name.lower(): value for name, value in to.headers.items()}
    said = environ.get(f"OTEL_EXPORTER_OTLP_{to.signal.upper()}_COMPRESSION") or environ.get(
        "OTEL_EXPORTER_OTLP_COMPRESSION"
    )
    if not said:
        compression = importlib.import_module("grpc") if to.protocol == "grpc" else library
        options["compression"] = compression.Compression.Gzip
    watched = [module.__name__, f"{package}.exporter"]
    if to.protocol != "grpc" and not any(name.endswith(_SESSION_VARIABLE) for name in environ):
        answers = importlib.import_module("gateway.recorder.otlp_answers")
        options["session"] = answers.session(to.signal, rejected)
        watched.append(answers.__name__)
    for name in watched:
        logging.getLogger(name).addFilter(_Seldom(_LOG_SECONDS, time.monotonic))
    return getattr(module, _CLASS[to.signal])(**options)


def resource() -> Resource:
    """Who reports: service.name is tollgate unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES say otherwise."""
    found = Resource.create({})
    ours = {SERVICE_VERSION: __version__}
    if str(found.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        found = found.merge(Resource({SERVICE_NAME: "tollgate"}))
    return Resource(ours).merge(found)


class _Seldom(logging.Filter):
    """A dead collector fails every second: one line a minute says so as well."""

    def __init__(self, seconds: float, monotonic: Callable[[], float]) -> None:
        super().__init__()
        self._seconds = seconds
        self._monotonic = monotonic
        self._next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        now = self._monotonic()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True
