"""Outputs of HTTP tools: which of them may be kept. What is asked is the whole request; what is kept the whole answer.

Rules
1. GET and POST alone, and no part of an answer (`Range`).
2. A body that is JSON counts by its meaning, every other one byte for byte. A query counts as written, the order of its
   parameters too: some APIs mind.
3. What says that it is JSON is kept only if it is; an event stream never is.
"""

from __future__ import annotations

import msgspec

from gateway.call import Call
from gateway.dialects.shape import DECODE_FAULTS
from gateway.dialects.tool_paths import allows
from gateway.ports import Wanted
from gateway.tool import TOOL_PREFIX, Caching

_any = msgspec.json.Decoder()


class ToolOutputs:
    """Implements ports.Outputs. `base`: the path of the tool's URL."""

    counted = frozenset((b"accept", b"content-type", b"origin", b"referer"))
    left: frozenset[bytes] = frozenset()
    headed = True

    def __init__(self, caching: Caching, base: str) -> None:
        self._lifetimes = caching.lifetimes
        self.dated = not caching.override
        self._base = base.rstrip("/").encode()

    def wanted(self, call: Call, body: bytes) -> Wanted:
        name = call.route.upstream.removeprefix(TOOL_PREFIX)
        lifetime = self._lifetime(call) if call.request.method in (b"GET", b"POST") else 0
        names = call.request.names
        if b"range" in names:
            return Wanted(name, lifetime, "range")
        meant = is_json(names.get(b"content-type", b"")) and bool(body)
        return Wanted(name, lifetime, json=body if meant else b"", plain=b"" if meant else body)

    def _lifetime(self, call: Call) -> int:
        below = call.route.path.partition(b"?")[0].removeprefix(self._base).decode("ascii") or "/"
        return next((ns for pattern, ns in self._lifetimes if allows(pattern, below)), 0)

    def session(self, call: Call) -> str:
        return ""

    def kept(self, call: Call, kind: bytes, body: bytes) -> bytes | None:
        if kind.lower().startswith(b"text/event-stream"):
            return None
        if is_json(kind):
            try:
                _any.decode(body)
            except DECODE_FAULTS:
                return None
        return body

    def given(self, call: Call, kind: bytes, kept: bytes) -> tuple[bytes, bytes]:
        return kind, kept


def is_json(kind: bytes) -> bool:
    plain = kind.partition(b";")[0].strip().lower()
    return plain == b"application/json" or (plain.startswith(b"application/") and plain.endswith(b"+json"))
