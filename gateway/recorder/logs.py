"""The log projection: one wide JSON line per call, to standard output or a file.

Theory of operation: `apply` encodes lines and puts them, by the batch, into a bounded buffer; a thread writes them. A
reader that does not read (a blocked pipe) or a full disk costs lines, which are counted, and never holds up anything
else. A file is opened anew when it was renamed or removed, so that log rotation needs no signal.

A line holds no content unless capture is on, no header but the user agent, and no character that could move a
terminal or look like another line.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from gateway.call import PICO_USD
from gateway.journal.record import CallRecord, EventRecord, OutcomeRecord, Record
from gateway.policy.controls import Scope
from gateway.recorder.drops import Drops
from gateway.recorder.facts import error_type_of, trace_id_of
from gateway.recorder.logs_line import CallLine, EventLine, OutcomeLine, encode, level_of
from gateway.recorder.logs_writer import FileSink, Sink, StdoutSink, Writer
from gateway.spend import NANO_USD

BUFFER_BYTES = 8 << 20
_NS = 10**9
_MS = 10**6
_SECONDS_KEPT = 256
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z
_DECIDED = {f"{scope}_{done}" for scope in Scope for done in ("killed", "resumed", "raised", "limited", "capped")}
_QUIET = frozenset({"start", "stop", "reload", "budget_adjusted", "caches_shrunk", *_DECIDED})


class Clock:
    """RFC 3339 in UTC with microseconds; the text of a second is kept for the calls that end in it."""

    def __init__(self) -> None:
        self._seconds: dict[int, str] = {}

    def format(self, ns: int) -> str:
        second, rest = divmod(ns, _NS)
        text = self._seconds.get(second)
        if text is None:
            text = self._second(second)
        return f"{text}.{rest // 1000:06d}Z"

    def _second(self, second: int) -> str:
        if len(self._seconds) >= _SECONDS_KEPT:
            self._seconds.clear()
        within = min(max(second, 0), _LAST_SECOND)
        text = datetime.fromtimestamp(within, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        self._seconds[second] = text
        return text


class LogProjection:
    """Writes records as lines to `target`: "stdout", the path of a file, or a sink."""

    def __init__(self, target: str | Sink, drops: Drops, *, buffer_bytes: int = BUFFER_BYTES) -> None:
        if isinstance(target, str):
            target = StdoutSink() if target == "stdout" else FileSink(target)
        self._clock = Clock()
        self._writer = Writer(target, drops, buffer_bytes)
        self._writer.start()

    def apply(self, batch: Sequence[Record]) -> None:
        lines = [encode(self._line(record)) for record in batch]
        if lines:
            self._writer.offer(b"".join(lines), len(lines))

    def close(self, timeout: float) -> None:
        """Write what is buffered within `timeout` seconds."""
        self._writer.close(timeout)

    def _line(self, record: Record) -> CallLine | OutcomeLine | EventLine:
        if isinstance(record, CallRecord):
            return self._call(record)
        at = self._clock.format(record.at)
        if isinstance(record, OutcomeRecord):
            return OutcomeLine(
                ts=at, level="info", event="run.outcome", run_id=record.run_id, outcome=record.kind,
                value=record.value, note=record.note,
            )  # fmt: skip
        return self._event(at, record)

    @staticmethod
    def _event(at: str, record: EventRecord) -> EventLine:
        level = "info" if record.kind in _QUIET else "error"
        return EventLine(ts=at, level=level, event=f"gateway.{record.kind}", worker=record.worker, detail=record.detail)

    def _call(self, r: CallRecord) -> CallLine:
        usage, cache, last = r.usage, r.prompt_cache, r.attempts[-1] if r.attempts else None
        return CallLine(
            ts=self._clock.format(r.started_at + r.duration_ns), level=level_of(r),
            event="llm.call" if r.operation else "http.call", trace_id=trace_id_of(r), span_id=r.span_id,
            trace_flags=r.trace_flags, request_id=r.id, method=r.method, route=r.route, operation=r.operation,
            dialect=r.dialect, tenant=r.tenant, key_id=r.key_id, agent=r.agent, agent_source=r.agent_source,
            agent_version=r.agent_version, parent_agent=r.parent_agent, run_id=r.run_id, run_source=r.run_source,
            conversation_id=r.conversation_id, step=r.step, depth=r.depth, request_class=r.request_class,
            end_user=r.end_user, upstream=r.upstream, provider=r.provider,
            server_address=last.address if last is not None else "",
            model_requested=r.model_requested, model_used=r.model_used, stream=r.stream, attempts=len(r.attempts),
            status=r.status, outcome=r.outcome, error_type=error_type_of(r), error_source=r.error_source,
            error_message=r.error_message, input_tokens=usage.input_tokens if usage is not None else None,
            output_tokens=usage.output_tokens if usage is not None else None,
            cache_read_tokens=usage.cache_read_tokens if usage is not None else None,
            cache_write_tokens=usage.cache_write_tokens if usage is not None else None,
            reasoning_tokens=usage.reasoning_tokens if usage is not None else None, usage_source=r.usage_source,
            cost_usd=r.cost / PICO_USD if r.cost is not None else None, cost_status=r.cost_status,
            price_version=r.price_version, latency_ms=r.duration_ns / _MS,
            ttft_ms=r.ttft_ns / _MS if r.ttft_ns >= 0 else None, overhead_ms=r.overhead_ns / _MS,
            budget=r.budget, budget_account=r.budget_account,
            budget_reserved_usd=r.reserved / NANO_USD if r.budget else None,
            budget_remaining_usd=r.remaining / NANO_USD if r.remaining >= 0 else None,
            cache=r.cache, cache_age_ms=r.cache_age_ns / _MS if r.cache_age_ns >= 0 else None,
            saved_usd=r.saved / PICO_USD if r.saved else None,
            loop=r.notes.get("loop", ""), loop_action=r.notes.get("loop_action", ""),
            cache_hint=cache.hint if cache is not None else "",
            cache_lost_usd=cache.lost / PICO_USD if cache is not None and cache.lost else None,
            finish_reasons=r.finish_reasons,
            tool_names=tuple([tool.name for tool in r.tool_uses]) if r.tool_uses else (), tool_results=len(r.tools),
            request_bytes=r.request_bytes, response_bytes=r.response_bytes, client_address=r.client_address,
            user_agent=r.user_agent, client_retry=r.sdk_retry if r.sdk_retry > 0 else None, worker=r.worker,
            input_content=r.input_content.decode("utf-8", "replace") if r.input_content else "",
            output_content=r.output_content.decode("utf-8", "replace") if r.output_content else "",
        )  # fmt: skip
