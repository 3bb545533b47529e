"""From a closed `Call` to its `CallRecord`."""

from __future__ import annotations

import hashlib
from asyncio import CancelledError
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from gateway.call import Answer, Attempt, Cached, Call, Outcome, Request
from gateway.errors import (
    BudgetsUnavailable,
    ClientGone,
    Draining,
    GatewayError,
    JournalUnavailable,
    Overloaded,
    Rejected,
    Source,
    UpstreamFault,
)
from gateway.journal.record import AttemptRecord, CallRecord
from gateway.journal.redact import Redactor, header_text
from gateway.spend import Hold

Capture = Literal["off", "hash", "full"]
_LEFT = (ClientGone, CancelledError)
_REFUSALS = (Rejected, Draining, Overloaded, JournalUnavailable, BudgetsUnavailable)
_INT64 = 1 << 63
_NO_ERROR = ("", "", "", "")
_NOT_ASKED = ("", "", -1, "", 0)  # the cache
_NO_BUDGET = ("", "", 0, -1)
_NO_ANSWER = Answer()
_SCALARS = frozenset({str, float, bool})
_encode = msgspec.msgpack.Encoder().encode
MALFORMED = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, msgspec.MsgspecError)
"""What a value of the wrong kind may raise on its way into a record."""
_EMPTY: dict[str, Any] = {
    **dict.fromkeys(CallRecord.__struct_fields__, ""),
    **dict.fromkeys(("started_at", "duration_ns", "overhead_ns", "status", "step", "trace_flags"), 0),
    **dict.fromkeys(("request_bytes", "response_bytes"), 0),
    **dict.fromkeys(("reserved", "depth", "saved"), 0),
    **dict.fromkeys(("ttft_ns", "sdk_retry", "worker", "remaining", "cache_age_ns"), -1),
    **dict.fromkeys(("finish_reasons", "tool_uses", "tools", "attempts"), ()),
    **{name: {} for name in ("cost_components", "params", "notes")},
    **dict.fromkeys(("input_content", "output_content", "seen"), b""),
    **dict.fromkeys(("stream", "websocket"), False),
    "run_confidence": 0.0,
    "usage": None,
    "prompt_cache": None,
    "usage_source": "none",
    "cost": None,
    "cost_status": "no_usage",
}


def sparse(id: str, started_at: int, outcome: Outcome, **known: Any) -> CallRecord:
    """A record of a call of which little is known: no usage, and a cost that is unknown, not zero."""
    return CallRecord(**{**_EMPTY, "id": id, "started_at": started_at, "outcome": outcome.value, **known})


def outcome_of(call: Call) -> Outcome:
    """How a call ended; see `gateway.call.Outcome`."""
    fault = call.fault
    if fault is None:
        if call.status >= 400 and call.attempts:
            return Outcome.UPSTREAM_ERROR
        answer = call.answer
        if answer is not None and not answer.complete and call.asked.stream:
            return Outcome.TRUNCATED
        return Outcome.OK if call.status else Outcome.ERROR
    if isinstance(fault, _LEFT):
        return Outcome.CANCELLED
    if not isinstance(fault, GatewayError):
        return Outcome.ERROR
    if call.committed:
        return Outcome.TRUNCATED
    if isinstance(fault, UpstreamFault):
        return Outcome.FAILED
    if isinstance(fault, _REFUSALS):
        return Outcome.FAILED if call.attempts else Outcome.REFUSED
    return Outcome.ERROR


def overhead_ns(call: Call, duration: int) -> int:
    """Time spent in the gateway itself: the call without reading the request and without waiting: on upstreams, also
    before another try or on an equal call, for a place in a pool or for a budget."""
    waited = call.queued + call.waited + (call.received - call.began if call.received else 0)
    attempts = call.attempts
    if attempts:
        last = attempts[-1]
        if len(attempts) == 1:
            waited += (call.upstream_last_byte or last.ended or call.ended) - last.began
        else:
            waited += _covered(attempts, call)
    return duration - waited if duration > waited else 0


def _covered(attempts: Sequence[Attempt], call: Call) -> int:
    """How long at least one of them was under way: hedges run beside each other."""
    last = attempts[-1]
    spans = [(attempt.began, attempt.ended or call.ended) for attempt in attempts[:-1]]
    spans.append((last.began, call.upstream_last_byte or last.ended or call.ended))
    covered, until = 0, 0
    for began, ended in sorted(spans):
        covered += max(0, ended - max(began, until))
        until = max(until, ended)
    return covered


class Converter:
    """Makes records; holds what the configuration says about them.

    `capture` keeps message content: not at all, as "sha256:<hex>", or the first `capture_bytes` of it. The answer's
    content is what the relay left in `call.captured`.
    """

    def __init__(
        self, worker: int, capture: Capture = "off", capture_bytes: int = 65_536, secrets: Iterable[str] = ()
    ) -> None:
        self._worker = worker
        self._capture = capture
        self._capture_bytes = capture_bytes
        self._redactor = Redactor(secrets)

    def encoded(self, call: Call) -> bytes:
        """The record as it is written: what `encode(record_of(call))` gives, without making the record."""
        return _encode(self._fields(call))

    def record_of(self, call: Call) -> CallRecord:
        return CallRecord(*self._fields(call)[1:])

    def _fields(self, call: Call) -> tuple[Any, ...]:
        """Tag and fields of a record in the order of the schema: naming 60 of them would cost more than encoding."""
        outcome = outcome_of(call)
        return _asked(call, outcome) + self._answered(call, outcome)

    def _answered(self, call: Call, outcome: Outcome) -> tuple[Any, ...]:
        """The fields from `usage` on."""
        request, answer, money, facts = call.request, call.answer or _NO_ANSWER, call.money, call.request.facts
        agent, retry = facts.get("client") or facts.setdefault("client", _client(request))
        captures = self._capture != "off"
        return (
            answer.usage,
            str(answer.usage_source),
            money.total,
            money.components,
            money.status,
            money.version,
            answer.finish_reasons,
            answer.response_id,
            answer.tool_uses,
            tuple(call.tools),
            tuple([_attempt(call, attempt) for attempt in call.attempts]),
            *(self._error(call, outcome) if outcome is not Outcome.OK else _NO_ERROR),
            len(request.body),
            call.response_bytes,
            agent,
            request.client,
            retry,
            _params(call) if call.asked.params else {},
            call.notes,
            self._worker,
            self._content(request.body) if captures else b"",
            self._content(call.captured[: self._capture_bytes]) if captures else b"",
            *(_budget(call.hold, call.notes) if call.hold is not None or "budget" in call.notes else _NO_BUDGET),
            call.who.depth,
            *(_cached(call.cached) if call.cached is not None else _NOT_ASKED),
            call.prompt_cache,
            call.seen,
        )

    def salvage(self, call: Call) -> CallRecord:
        """The record of a call of which some value cannot be written: that value is left out."""
        try:
            record = self.record_of(call)
        except MALFORMED:
            return sparse(call.id, call.started_at, Outcome.ERROR, worker=self._worker, notes={"record": "reduced"})
        for name in record.__struct_fields__:
            value = getattr(record, name)
            if isinstance(value, str):
                setattr(record, name, value.encode("utf-8", "replace").decode())
                continue
            try:
                _encode(value)
            except MALFORMED:
                setattr(record, name, _EMPTY[name])
        return record

    def _error(self, call: Call, outcome: Outcome) -> tuple[str, str, str, str]:
        """(source, code, provider's type, message) of a call that did not end well."""
        fault, answer = call.fault, call.answer
        kind = answer.error_type if answer is not None else ""
        said = answer.error_message if answer is not None else ""
        if isinstance(fault, GatewayError):
            source, code, said = fault.source.value, fault.code, said or fault.message
        elif outcome is Outcome.CANCELLED:
            source, code = Source.CLIENT.value, ClientGone.code
        elif fault is not None:  # a bug: its text may quote anything
            source, code, said = Source.GATEWAY.value, GatewayError.code, type(fault).__name__
        elif outcome is Outcome.UPSTREAM_ERROR:
            source, code = Source.UPSTREAM.value, outcome.value
        elif outcome is Outcome.TRUNCATED:
            source, code = Source.UPSTREAM.value, "upstream_truncated"
        else:
            source, code = Source.GATEWAY.value, GatewayError.code
        return source, code, header_text(kind.encode("latin-1", "replace")), self._redactor.clean(said, call.request)

    def _content(self, data: bytes) -> bytes:
        if not data or self._capture == "full":
            return data[: self._capture_bytes]
        return b"sha256:" + hashlib.sha256(data).hexdigest().encode()


def _budget(hold: Hold | None, notes: Mapping[str, str]) -> tuple[str, str, int, int]:
    """The fields from `budget` to `remaining`; `notes` are those of stages.admit."""
    decision, account = notes.get("budget", "granted"), notes.get("budget_account", "")
    return (decision, account, 0, -1) if hold is None else (decision, account, hold.usd, hold.remaining)


def _cached(cached: Cached) -> tuple[str, str, int, str, int]:
    """The fields from `cache` to `saved`."""
    return cached.result, cached.reason, cached.age, cached.entry, cached.saved


def _asked(call: Call, outcome: Outcome) -> tuple[Any, ...]:
    """The tag and the fields up to `trace_state`."""
    route, asked, trace, attempts = call.route, call.asked, call.trace, call.attempts
    who, answer, began = call.who, call.answer or _NO_ANSWER, call.began
    duration = max(0, call.ended - began)
    target = attempts[-1].target if attempts else None
    return (
        "call",
        call.id,
        call.started_at,
        duration,
        call.first_byte - began if call.first_byte else -1,
        overhead_ns(call, duration),
        call.request.method.decode("latin-1"),
        route.template,
        route.dialect,
        route.operation,
        target.upstream if target is not None else route.upstream,
        target.provider if target is not None else "",
        call.status,
        str(outcome),
        asked.stream,
        call.websocket,
        asked.model,
        answer.model,
        who.tenant,
        who.key_id,
        who.agent,
        who.agent_source,
        who.agent_version,
        who.parent_agent,
        who.run_id,
        who.run_source,
        who.run_confidence,
        who.step,
        who.request_class,
        who.conversation_id,
        who.end_user,
        trace.trace_id,
        trace.span_id,
        trace.parent_id,
        trace.flags,
        trace.state,
    )


def _attempt(call: Call, attempt: Attempt) -> AttemptRecord:
    target = attempt.target
    return AttemptRecord(
        target.upstream,
        target.provider,
        target.host,
        target.port,
        attempt.began - call.began,
        (attempt.ended or call.ended) - attempt.began,
        attempt.status,
        attempt.reused,
        attempt.fault.code if attempt.fault is not None else "",
        attempt.model,
        attempt.cost,
        attempt.usage,
        attempt.usage_source,
    )


def _client(request: Request) -> tuple[str, int]:
    """(user agent, retry count of the client's SDK); -1 where it does not say."""
    agent, retry = "", -1
    for name, value in request.headers:
        size = len(name)
        if size == 10:
            if name.lower() == b"user-agent":
                agent = header_text(value)
        elif size == 23 and name.lower() == b"x-stainless-retry-count" and value.isdigit() and len(value) < 7:
            retry = int(value)
    return agent, retry


def _params(call: Call) -> dict[str, str | int | float | bool | list[str]]:
    """Request parameters, only of the shapes that the schema knows."""
    found: dict[str, str | int | float | bool | list[str]] = {}
    for name, value in call.asked.params.items():
        kind = type(value)
        if kind in _SCALARS:
            found[name] = value
        elif isinstance(value, int):
            if -_INT64 <= value < _INT64:
                found[name] = value
        elif isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
            found[name] = list(value)
    return found
