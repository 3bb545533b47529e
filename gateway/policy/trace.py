"""Where a call stands in its caller's trace (W3C Trace Context level 2, W3C Baggage). Pure.

Rules
1. A malformed `traceparent`, or more than one, starts a new trace; it is never an error of the caller.
2. Flags are bits: of what a caller sends we know `sampled` (01) and `random` (02); the others are not handed on.
3. A higher version is read as far as version 00 goes; `ff` is no version.
4. `tracestate` belongs to its `traceparent`: without a valid one it is dropped, and so is one that breaks the syntax.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from gateway.call import Trace
from gateway.ports import Headers

_PARENT = re.compile(rb"[ \t]*([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[^ \t]*)?[ \t]*")
_MEMBER = re.compile(r"(?:[a-z0-9][a-z0-9_\-*/]{0,240}@)?[a-z][a-z0-9_\-*/]{0,255}=[ -+\--<>-~]{0,255}[!-+\--<>-~]")
_KNOWN_FLAGS = 0x03
_NO_TRACE, _NO_SPAN = b"0" * 32, b"0" * 16
STATE_MEMBERS = 32
BAGGAGE_MEMBERS = 64  # the least that a propagator must take; W3C Baggage 3.3.2
BAGGAGE_BYTES = 8192


def trace_of(headers: Headers, new_trace_id: str, new_span_id: str) -> Trace:
    """The trace context of our server span: below the caller's span if there is one, else a new trace.

    The ids are given by the caller in lower-case hex (32 and 16 digits). `parent_id` is empty for a new trace.
    """
    parents = []
    states = []
    for name, value in headers:
        if len(name) == 11 and name.lower() == b"traceparent":
            parents.append(value)
        elif len(name) == 10 and name.lower() == b"tracestate":
            states.append(value)
    found = _PARENT.fullmatch(parents[0]) if len(parents) == 1 else None
    if found is None:
        return Trace(new_trace_id, new_span_id)
    version, trace_id, span_id, flags, rest = found.groups()
    if version == b"ff" or (version == b"00" and rest is not None) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return Trace(new_trace_id, new_span_id)
    return Trace(
        trace_id.decode(),
        new_span_id,
        span_id.decode(),
        int(flags, 16) & _KNOWN_FLAGS,
        _state(states) if states else "",
    )


def _state(values: list[bytes]) -> str:
    """The members of all tracestate headers in order, or "" where one of them is malformed, doubled or too many."""
    members = [member.strip(" \t") for member in b",".join(values).decode("latin-1").split(",")]
    members = [member for member in members if member]
    keys = {member.partition("=")[0] for member in members}
    if len(members) > STATE_MEMBERS or len(keys) < len(members):
        return ""
    return ",".join(members) if all(_MEMBER.fullmatch(member) for member in members) else ""


def read_baggage(value: bytes) -> dict[str, str]:
    """Members of one baggage header, percent-decoded, properties dropped; what is malformed is left out."""
    found: dict[str, str] = {}
    for member in value[:BAGGAGE_BYTES].decode("latin-1").split(",", BAGGAGE_MEMBERS)[:BAGGAGE_MEMBERS]:
        key, equals, rest = member.partition(";")[0].partition("=")
        key = key.strip(" \t")
        if equals and key:
            found.setdefault(key, unquote(rest.strip(" \t"), errors="replace"))
    return found
