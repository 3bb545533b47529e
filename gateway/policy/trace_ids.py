"""Trace and span ids that follow from what is already known, so that spans made apart hang together.

A call without a caller's `traceparent` stands in the trace of its run, and under a root span that is exported when
the run ends: both ids are derived from the run id. Ids are lower-case hex, never all zero (W3C Trace Context).
A run id that has the form of a trace id, as those that the gateway makes, is its own trace id.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b

_TRACE = re.compile("[0-9a-f]{32}")


def _digest(size: int, purpose: bytes, *parts: str) -> str:
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    digest = blake2b(text, digest_size=size, person=purpose).hexdigest()
    return digest if digest.strip("0") else digest[:-1] + "1"


@lru_cache(2_048)
def run_trace_id(run_id: str) -> str:
    """Trace of all calls of a run."""
    if _TRACE.fullmatch(run_id) is not None and run_id.strip("0"):
        return run_id
    return _digest(16, b"tollgate trace", run_id)


@lru_cache(2_048)
def agent_span_id(run_id: str, agent: str = "") -> str:
    """Span of one agent within a run; the empty name is the root."""
    return _digest(8, b"tollgate agent", run_id, agent)


def child_span_id(span_id: str, kind: str, number: int = 0) -> str:
    """Span below our server span `span_id`: its operation, or one of its attempts."""
    return _digest(8, b"tollgate span", span_id, kind, str(number))


def tool_span_id(trace_id: str, tool_call_id: str) -> str:
    """Span of a tool execution; the same whichever later request shows its result."""
    return _digest(8, b"tollgate tool", trace_id, tool_call_id)
