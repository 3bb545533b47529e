"""The traces projection: decides which calls are kept, and has their spans made and exported in another thread.

Per record this costs one sampling decision; spans exist only for what is kept, and are built beside their exporter.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from gateway.config.schema import Telemetry
from gateway.journal.record import CallRecord, OutcomeRecord, Record
from gateway.policy.sampling import Decision, Sampler, Seen
from gateway.recorder.drops import Drops
from gateway.recorder.export import Exporting
from gateway.recorder.facts import error_type_of, trace_id_of
from gateway.recorder.names import NS
from gateway.recorder.projection import breathe
from gateway.recorder.traces_conventions import Conventions
from gateway.recorder.traces_runs import RunTrace, RunTraces, run_spans
from gateway.recorder.traces_spans import CallSpans

QUEUE_SPANS = 8192
BATCH_SPANS = 512
DELAY_SECONDS = 1.0
ROOT_IDLE_SECONDS = 60.0
_SIGNAL = "traces"

Item = tuple[CallRecord, Decision] | RunTrace


class TracesProjection:
    """Exports the traces of kept calls through `exporter`.

    `clock` gives seconds since the epoch; `kept` is told of every call that is exported. A run's root span is exported
    after `root_idle_seconds` without a call.
    """

    def __init__(
        self,
        config: Telemetry,
        exporter: SpanExporter,
        resource: Resource,
        clock: Callable[[], float],
        drops: Drops,
        *,
        kept: Callable[[CallRecord], None] = lambda record: None,
        queue_spans: int = QUEUE_SPANS,
        delay_seconds: float = DELAY_SECONDS,
        root_idle_seconds: float = ROOT_IDLE_SECONDS,
    ) -> None:
        sampling = config.sampling
        self._sampler = Sampler(sampling.traces_per_second, sampling.slow_seconds, sampling.expensive_usd)
        self._legacy = config.legacy_attributes
        self._also = Conventions(config.conventions)
        self._exporter = exporter
        self._resource = resource
        self._clock = clock
        self._drops = drops
        self._kept = kept
        self._lock = threading.Lock()  # of the run spans: the exporting thread looks for idle ones
        self._runs = RunTraces(root_idle_seconds)
        self._exporting: Exporting[Item] = Exporting(
            _SIGNAL,
            self._send,
            exporter.shutdown,
            drops,
            limit=queue_spans,
            batch=BATCH_SPANS,
            interval=delay_seconds,
            idle=self._end_idle,
        )
        self._exporting.start()

    def apply(self, batch: Sequence[Record]) -> None:
        with self._lock:
            for record in batch:
                if isinstance(record, CallRecord):
                    self._call(record)
                elif isinstance(record, OutcomeRecord):
                    self._export(self._runs.report(record))

    def close(self, timeout: float) -> None:
        """Export what is queued, and the roots of the open runs, within `timeout` seconds."""
        with self._lock:
            for run in self._runs.rest():
                self._export(run)
        self._exporting.close(timeout)

    def _call(self, r: CallRecord) -> None:
        decision = self._sampler.decide(
            Seen(
                trace_id_of(r),
                r.started_at + r.duration_ns,
                r.duration_ns,
                r.cost or 0,
                error_type_of(r) != "",
                len(r.attempts) > 1 or r.sdk_retry > 0,
                r.model_requested or r.model_used,
                r.agent,
                r.parent_span_id != "",
                r.trace_flags & 1 == 1,
            )
        )
        spans, content = 2 + len(r.attempts) + len(r.tools), len(r.input_content) + len(r.output_content)
        if decision.keep and self._exporting.offer((r, decision), spans, content):
            self._export(self._runs.keep(r))
            self._kept(r)
        elif decision.dropped:
            self._drops.add(_SIGNAL, "rate_limited", spans)
        self._runs.observe(r)

    def _export(self, run: RunTrace | None) -> None:
        if run is not None:
            self._exporting.offer(run, len(run.agents))

    def _end_idle(self) -> None:
        with self._lock:
            for run in self._runs.idle(int(self._clock() * NS)):
                self._export(run)

    def _send(self, items: Sequence[Item]) -> int:
        """How many spans could not be delivered."""
        spans: list[ReadableSpan] = []
        for item in items:
            breathe()
            if isinstance(item, RunTrace):
                spans += run_spans(item, self._resource, self._also)
            else:
                spans += CallSpans(*item, self._resource, legacy=self._legacy, also=self._also).spans()
        try:
            sent = self._exporter.export(spans) is SpanExportResult.SUCCESS
        except (OSError, ValueError, RuntimeError):  # of a channel or session that was closed meanwhile
            sent = False
        return 0 if sent else len(spans)


def delay_seconds(environ: Mapping[str, str]) -> float:
    """Longest time that spans wait for a batch: OTEL_BSP_SCHEDULE_DELAY (ms), or a second."""
    try:
        return max(0.01, float(environ.get("OTEL_BSP_SCHEDULE_DELAY", "")) / 1000)
    except ValueError:
        return DELAY_SECONDS
