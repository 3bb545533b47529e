"""What several projections read in a record and must read alike."""

from __future__ import annotations

import re

from gateway.call import Outcome, ToolCall
from gateway.journal.record import AttemptRecord, CallRecord
from gateway.policy.trace_ids import run_trace_id
from gateway.recorder.names import PROVIDERS

# Not failures: a client may leave whenever it likes.
_NO_ERROR = frozenset({Outcome.OK.value, Outcome.CANCELLED.value})
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,63}")
# Controls, line separators, marks that turn the direction of text, lone surrogates.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+")
_DATE = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8}|\d{4}|\d{3}|latest)(?:-v\d+(?::\d+)?)?")


def trace_id_of(record: CallRecord) -> str:
    """The trace that the spans of a call stand in.

    The caller's, where it sent one; else one for all calls of the run, else the call's own.
    """
    if record.run_id and not record.parent_span_id:
        return run_trace_id(record.run_id)
    return record.trace_id or run_trace_id(record.id)


def error_type_of(record: CallRecord) -> str:
    """Low-cardinality error.type of a call: our code, the provider's type, or the status; "" if it did not fail."""
    if record.outcome in _NO_ERROR:
        return ""
    if record.outcome == Outcome.UPSTREAM_ERROR.value:
        kind = record.error_type
        return kind if _WORD.fullmatch(kind) else f"http_{record.status}"
    return record.error_code or record.outcome


OVERTAKEN = "overtaken"
"""Error code of an attempt that another one beside it was quicker than; see stages.race."""


UNVERIFIED = "unverified"
"""Error code of an attempt whose answer had not the form that was demanded; see stages.cascade."""


def attempt_result(attempt: AttemptRecord) -> str:
    """ok, our error code, or the class of the status."""
    if attempt.error_code:
        return attempt.error_code
    if attempt.status == 429:
        return "rate_limited"
    if attempt.status >= 500:
        return "server_error"
    if attempt.status >= 400:
        return "client_error"
    return "ok" if attempt.status else "no_answer"


def tool_result(tool: ToolCall, record: CallRecord) -> str:
    """ok, cached (nothing ran), error, cancelled (its client left), or unknown (of what passed through the gate, no
    result was seen)."""
    if tool.cached:
        return "cached"
    if tool.is_error:
        return "error"
    if tool.server and not tool.exact:
        return "cancelled" if record.outcome == Outcome.CANCELLED.value else "unknown"
    return "ok"


def gen_ai_provider(record: CallRecord) -> str:
    """gen_ai.provider.name: the convention's word, the price data's, or the name of the upstream."""
    return PROVIDERS.get(record.provider, record.provider) or record.upstream


def same_model(requested: str, used: str) -> bool:
    """Is `used` the requested model, or a dated version of it (gpt-4o-2024-08-06 for gpt-4o)?"""
    if requested == used or not requested or not used:
        return True
    short, long = sorted((requested.rpartition("/")[2], used.rpartition("/")[2]), key=len)
    return long.startswith(short) and (long == short or _DATE.fullmatch(long, len(short)) is not None)


def tidy(text: str, limit: int = 256) -> str:
    """`text` on one line, without what a terminal would obey, at most `limit` characters."""
    if len(text) > limit:
        text = text[:limit]
    return text if text.isprintable() else _UNPRINTABLE.sub(" ", text)
