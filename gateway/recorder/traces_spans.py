"""The spans of one call, made from its record alone.

    invoke_agent {agent}                  the run: traces_runs; absent where the caller sent its own trace
    ├─ POST /v1/chat/completions          SERVER, the call as the client saw it
    │  └─ chat {model}                    CLIENT, the logical operation, retries included; where tokens pass
    │     ├─ POST                         CLIENT, one per attempt
    │     └─ POST                         ... the next with http.request.resend_count
    └─ execute_tool {tool}                INTERNAL, a tool result that this call brought

    ├─ POST /tools/{tool}                 SERVER, the call of a tool behind this gate
    │  └─ execute_tool {tool}             INTERNAL, its execution, with what it cost; one for each tool of a batch
    │     └─ POST                         CLIENT, one per attempt

Rules
1. Ids follow from the record (policy.trace_ids): exported twice, a span is the same span.
2. Attributes are the newest names of the conventions; `legacy` adds the ones that backends still read.
3. gen_ai.conversation.id only as the client stated it: derived run ids are tollgate.conversation.id.
4. A 4xx is an error of CLIENT spans only; a client that left is no error.
"""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from gateway import __version__
from gateway.call import PICO_USD, Outcome, ToolCall
from gateway.journal.record import AttemptRecord, CallRecord
from gateway.policy.pools import POOL, WAITED
from gateway.policy.sampling import Decision
from gateway.policy.trace_ids import agent_span_id, child_span_id, tool_span_id
from gateway.recorder.facts import error_type_of, gen_ai_provider, tidy, trace_id_of
from gateway.recorder.names import NS, SCHEMA_URL
from gateway.recorder.names_span import Span
from gateway.recorder.traces_content import content_attributes
from gateway.recorder.traces_conventions import PLAIN, Conventions
from gateway.spend import NANO_USD

Value = str | bool | int | float | list[str]
Attributes = dict[str, Value]

SCOPE = InstrumentationScope("tollgate", __version__, SCHEMA_URL)
_UNSET = Status(StatusCode.UNSET)
# Whatever the status says: the client did not get what it asked for.
_BROKEN = frozenset({Outcome.FAILED, Outcome.TRUNCATED, Outcome.ERROR, Outcome.ABANDONED})
_NAME = 256  # characters of a span or attribute text, but content


class CallSpans:
    """The spans of one record."""

    def __init__(
        self, r: CallRecord, decision: Decision, resource: Resource, *, legacy: bool, also: Conventions = PLAIN
    ) -> None:
        self._r = r
        self._decision = decision
        self._resource = resource
        self._legacy = legacy
        self._also = also
        self._state = TraceState.from_header([r.trace_state]) if r.trace_state else None
        self._trace_id = trace_id_of(r)
        self._server_id = r.span_id or child_span_id(r.id, "server")
        self._error = error_type_of(r)

    def spans(self) -> list[ReadableSpan]:
        r = self._r
        made = [self._server()]
        parent = self._server_id
        passed = [tool for tool in r.tools if tool.server]
        if passed:
            parent = tool_span_id(self._trace_id, passed[0].id)
        elif r.operation and r.attempts:
            parent = child_span_id(self._server_id, "operation")
            made.append(self._operation(parent))
        made += [self._attempt(parent, number, attempt) for number, attempt in enumerate(r.attempts)]
        made += [self._tool(tool) for tool in r.tools]
        return made

    def _above(self) -> tuple[str, bool]:
        """(parent of the server span, whether it is the caller's)."""
        r = self._r
        if r.parent_span_id:
            return r.parent_span_id, True
        if r.run_id:
            return agent_span_id(r.run_id, r.agent if r.parent_agent else ""), False
        return "", False

    def _server(self) -> ReadableSpan:
        r, cache = self._r, self._r.prompt_cache
        attributes = self._identity()
        attributes |= _present({
            Span.METHOD: r.method,
            Span.ROUTE: r.route,
            Span.STATUS_CODE: r.status or None,
            Span.CLIENT_ADDRESS: r.client_address,
            Span.USER_AGENT: r.user_agent,
            Span.REQUEST_SIZE: r.request_bytes,
            Span.RESPONSE_SIZE: r.response_bytes,
            Span.ERROR_TYPE: self._error,
            Span.REQUEST_ID: r.id,
            Span.OUTCOME: r.outcome,
            Span.UPSTREAM: r.upstream,
            Span.OVERHEAD: r.overhead_ns / NS,
            Span.ATTEMPTS: len(r.attempts),
            Span.CASCADE: r.notes.get("cascade"),
            Span.RETRY_WITHHELD: r.notes.get("retry_withheld"),
            Span.BULKHEAD: r.notes.get(POOL),
            Span.BULKHEAD_WAITED: int(r.notes[WAITED]) / NS if r.notes.get(WAITED, "").isdecimal() else None,
            Span.CLIENT_RETRY: r.sdk_retry if r.sdk_retry > 0 else None,
            Span.BUDGET: r.budget,
            Span.BUDGET_ACCOUNT: tidy(r.budget_account, _NAME),
            Span.BUDGET_RESERVED: r.reserved / NANO_USD if r.budget else None,
            Span.BUDGET_REMAINING: r.remaining / NANO_USD if r.remaining >= 0 else None,
            Span.CACHE: r.cache,
            Span.CACHE_AGE: r.cache_age_ns / NS if r.cache_age_ns >= 0 else None,
            Span.SAVED: r.saved / PICO_USD if r.saved else None,
            Span.LOOP: r.notes.get("loop"),
            Span.LOOP_ACTION: r.notes.get("loop_action"),
            Span.CACHE_LOST: cache.lost / PICO_USD if cache is not None and cache.lost else None,
            Span.CACHE_HINT: cache.hint if cache is not None else None,
            Span.SAMPLING_REASON: self._decision.reason,
            Span.SAMPLING_PROBABILITY: self._decision.probability,
        })  # fmt: skip
        attributes |= self._also.kind("CHAIN", r.conversation_id)
        parent, remote = self._above()
        failed = r.status >= 500 or r.outcome in _BROKEN
        return self._span(
            f"{tidy(r.method, 16)} {r.route}",
            SpanKind.SERVER,
            span_id=self._server_id,
            parent=parent,
            times=(r.started_at, r.started_at + r.duration_ns),
            attributes=attributes,
            status=self._status(failed),
            remote=remote,
        )

    def _operation(self, span_id: str) -> ReadableSpan:
        r, last = self._r, self._r.attempts[-1]
        attributes = self._identity()
        attributes |= _present({
            Span.OPERATION: r.operation,
            Span.PROVIDER: gen_ai_provider(r),
            Span.SYSTEM: gen_ai_provider(r) if self._legacy else None,
            Span.REQUEST_MODEL: r.model_requested,
            Span.REQUEST_STREAM: True if r.stream else None,
            Span.RESPONSE_MODEL: r.model_used,
            Span.RESPONSE_ID: r.response_id,
            Span.FINISH_REASONS: list(r.finish_reasons),
            Span.FIRST_CHUNK: (r.ttft_ns / NS) if r.stream and r.ttft_ns >= 0 else None,
            Span.SERVER_ADDRESS: last.address,
            Span.SERVER_PORT: last.port,
            Span.ERROR_TYPE: self._error,
            Span.USAGE_SOURCE: r.usage_source,
        })  # fmt: skip
        for name, value in r.params.items():
            attributes[Span.REQUEST_PARAM + tidy(name, 64)] = _clean(value)
        attributes |= self._usage() | self._cost() | content_attributes(r.input_content, r.output_content)
        attributes |= self._also.operation(r)
        model = tidy(r.model_requested or r.model_used, _NAME)
        start = r.started_at + r.attempts[0].offset_ns
        end = max(start, min(r.started_at + r.duration_ns, r.started_at + last.offset_ns + last.duration_ns))
        return self._span(
            f"{r.operation} {model}".strip(),
            SpanKind.CLIENT,
            span_id=span_id,
            parent=self._server_id,
            times=(start, end),
            attributes=attributes,
            status=self._status(bool(self._error)),
        )

    def _attempt(self, parent: str, number: int, attempt: AttemptRecord) -> ReadableSpan:
        error = attempt.error_code or (str(attempt.status) if attempt.status >= 400 else "")
        attributes = _present({
            Span.METHOD: self._r.method,
            Span.SERVER_ADDRESS: attempt.address,
            Span.SERVER_PORT: attempt.port,
            Span.STATUS_CODE: attempt.status or None,
            Span.RESEND_COUNT: number or None,
            Span.ERROR_TYPE: error,
            Span.UPSTREAM: attempt.upstream,
            Span.REUSED: attempt.reused,
            Span.ATTEMPT_MODEL: attempt.model if number + 1 < len(self._r.attempts) else None,
            Span.COST: attempt.cost / PICO_USD if attempt.cost else None,
        })  # fmt: skip
        attributes |= self._also.kind("CHAIN")
        start = self._r.started_at + attempt.offset_ns
        return self._span(
            tidy(self._r.method, 16),
            SpanKind.CLIENT,
            span_id=child_span_id(self._server_id, "attempt", number),
            parent=parent,
            times=(start, start + attempt.duration_ns),
            attributes=attributes,
            status=Status(StatusCode.ERROR) if error else _UNSET,
        )

    def _tool(self, tool: ToolCall) -> ReadableSpan:
        r, name = self._r, tidy(tool.name, _NAME)
        attributes = _present({
            Span.OPERATION: "execute_tool",
            Span.TOOL_NAME: name,
            Span.TOOL_CALL_ID: tool.id if not tool.server else None,
            Span.TOOL_TYPE: "function" if not tool.server else "extension",
            Span.TOOL_EXACT: tool.exact if not tool.server else None,
            Span.TOOL_SERVER: tool.server,
            Span.COST: tool.cost / PICO_USD if tool.cost else None,
            Span.ERROR_TYPE: "tool_error" if tool.is_error else None,
            Span.AGENT_NAME: r.agent,
            Span.CONVERSATION: r.conversation_id,
            Span.RUN: r.run_id,
        })  # fmt: skip
        attributes |= self._also.tool(tool, r.conversation_id)
        parent, remote = self._above() if not tool.server else (self._server_id, False)
        return self._span(
            f"execute_tool {name}",
            SpanKind.INTERNAL,
            span_id=tool_span_id(self._trace_id, tool.id),
            parent=parent,
            times=(tool.started_at, tool.started_at + tool.duration_ns),
            attributes=attributes,
            status=Status(StatusCode.ERROR) if tool.is_error else _UNSET,
            remote=remote,
        )

    def _identity(self) -> Attributes:
        r = self._r
        return _present({
            Span.TENANT: r.tenant,
            Span.AGENT_NAME: r.agent,
            Span.AGENT_VERSION: r.agent_version,
            Span.AGENT_SOURCE: r.agent_source,
            Span.PARENT_AGENT: r.parent_agent,
            Span.CONVERSATION: r.conversation_id,
            Span.RUN: r.run_id,
            Span.RUN_SOURCE: r.run_source,
            Span.RUN_CONFIDENCE: r.run_confidence if r.run_id else None,
            Span.STEP: r.step,
            Span.KEY: r.key_id,
            Span.DEPTH: r.depth or None,
            Span.REQUEST_CLASS: r.request_class,
        })  # fmt: skip

    def _usage(self) -> Attributes:
        usage = self._r.usage
        if usage is None:
            return {}
        attributes: Attributes = {Span.INPUT_TOKENS: usage.input_tokens, Span.OUTPUT_TOKENS: usage.output_tokens}
        if usage.reasoning_tokens:
            attributes[Span.REASONING_TOKENS] = usage.reasoning_tokens
        if usage.cache_read_tokens:
            attributes[Span.CACHE_READ_TOKENS] = usage.cache_read_tokens
        if usage.cache_write_tokens:
            attributes[Span.CACHE_WRITE_TOKENS] = usage.cache_write_tokens
            if self._legacy:
                attributes[Span.CACHE_CREATION_TOKENS] = usage.cache_write_tokens
        return attributes

    def _cost(self) -> Attributes:
        r = self._r
        attributes: Attributes = {Span.COST_STATUS: r.cost_status}
        if r.cost is not None:
            attributes[Span.COST] = r.cost / PICO_USD
            attributes[Span.PRICE_VERSION] = r.price_version
            for component, part in r.cost_components.items():
                attributes[f"{Span.COST_PART}{tidy(component, 64)}.usd"] = part / PICO_USD
        return attributes

    def _status(self, failed: bool) -> Status:
        if not failed:
            return _UNSET
        return Status(StatusCode.ERROR, tidy(self._r.error_message or self._error, _NAME) or None)

    def _span(
        self,
        name: str,
        kind: SpanKind,
        *,
        span_id: str,
        parent: str,
        times: tuple[int, int],
        attributes: Attributes,
        status: Status,
        remote: bool = False,
    ) -> ReadableSpan:
        return ReadableSpan(
            name=name,
            context=context(self._trace_id, span_id, self._state),
            parent=context(self._trace_id, parent, self._state, remote=remote) if parent else None,
            resource=self._resource,
            attributes=attributes,
            kind=kind,
            status=status,
            start_time=times[0],
            end_time=max(times),
            instrumentation_scope=SCOPE,
        )


def context(trace_id: str, span_id: str, state: TraceState | None = None, *, remote: bool = False) -> SpanContext:
    """Of ids in hex; what is not hex becomes the invalid id 0."""
    return SpanContext(_number(trace_id, 32), _number(span_id, 16), remote, TraceFlags(TraceFlags.SAMPLED), state)


def _number(text: str, digits: int) -> int:
    try:
        return int(text[:digits], 16)
    except ValueError:
        return 0


def _present(values: Mapping[str, Value | None]) -> Attributes:
    """Without what is unknown (None, empty text or list); texts tidied."""
    return {name: _clean(value) for name, value in values.items() if value is not None and value not in ("", [])}


def _clean(value: Value) -> Value:
    if isinstance(value, str):
        return tidy(value, _NAME)
    if isinstance(value, list):
        return [tidy(item, _NAME) for item in value]
    return value
