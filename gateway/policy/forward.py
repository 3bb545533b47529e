"""Heads on their way through: what passes, what stays behind, what is added. Pure.

Rules
1. Every header passes with its case, order and duplicates, but the hop-by-hop ones (RFC 9110 7.6.1, and those the
   Connection header names), our own `x-tollgate-*`, and W3C baggage, which may carry what is not meant for a provider.
2. When the upstream has a key of its own, every credential of the client stays behind.
3. `Via` names this gateway, so that a loop is seen (RFC 9110 7.6.3).
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.call import Call
from gateway.ports import Headers, Spec

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
CREDENTIALS = frozenset((b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key"))
_REQUEST_DROPS = HOP_BY_HOP | {b"expect"}
OURS = b"x-tollgate-"


def request_head(call: Call, spec: Spec, length: int, *, upgrade: bool = False) -> bytes:
    """The head to send upstream, for a body of `length` bytes."""
    request = call.request
    dropped = _REQUEST_DROPS
    if spec.auth:
        dropped = dropped | CREDENTIALS
    replaced = {name.lower() for name, _ in spec.headers}
    if replaced or not spec.propagate_trace:
        dropped = dropped | replaced | {b"baggage"}
    if spec.propagate_trace:
        dropped = dropped | {b"traceparent", b"tracestate"}
    if call.asked.injected:
        dropped = dropped | {b"accept-encoding"}  # what we add must be taken out again: ask for plain bytes
    dropped = dropped | listed(request.headers)
    parts: list[bytes] = [request.method, b" ", _target(call, spec), b" HTTP/1.1\r\n"]
    sized = False
    for name, value in request.headers:
        lower = name.lower()
        if lower in dropped or lower.startswith(OURS):
            continue
        if lower == b"host":
            value = spec.host
        elif lower == b"content-length":
            value, sized = b"%d" % length, True
        parts += (name, b": ", value, b"\r\n")
    if length and not sized:
        parts.append(b"content-length: %d\r\n" % length)
    for name, value in (*spec.auth, *spec.headers):
        parts += (name, b": ", value, b"\r\n")
    if spec.propagate_trace:
        trace = call.trace
        parts.append(f"traceparent: 00-{trace.trace_id}-{trace.span_id}-{trace.flags:02x}\r\n".encode())
        if trace.state:
            parts.append(f"tracestate: {trace.state}\r\n".encode())
    if call.asked.injected:
        parts.append(b"accept-encoding: identity\r\n")
    if upgrade:
        parts.append(b"connection: Upgrade\r\nupgrade: websocket\r\n")
    parts += (b"via: 1.1 ", call.via, b"\r\n\r\n")
    return b"".join(parts)


def _target(call: Call, spec: Spec) -> bytes:
    """The request target: the upstream's path prefix and the path as asked, the version not twice."""
    path = call.route.path
    if spec.auth and b"key=" in path:
        path = without_key(path)
    prefix = spec.target.base_path
    if prefix:
        version = prefix[prefix.rfind(b"/") :]
        if path.startswith(version + b"/"):
            path = path[len(version) :]
        if path.startswith(prefix + b"/"):
            return path
    return prefix + path


def without_key(path: bytes) -> bytes:
    """Take the `key=` parameter (the client's Gemini credential) out of a query."""
    head, _, query = path.partition(b"?")
    kept = [pair for pair in query.split(b"&") if not pair.startswith(b"key=")]
    return head + b"?" + b"&".join(kept) if kept and kept != [b""] else head


def listed(headers: Headers) -> frozenset[bytes]:
    """The names that Connection headers list, lower case; they are hop-by-hop too."""
    names: frozenset[bytes] = frozenset()
    for name, value in headers:
        if len(name) == 10 and name.lower() == b"connection":
            names |= frozenset(token.strip().lower() for token in value.split(b","))
    return names


def response_headers(headers: Headers, added: Sequence[tuple[bytes, bytes]], *, resized: bool) -> Headers:
    """The headers for the client. `resized`: the body will not have the length the upstream stated."""
    dropped = HOP_BY_HOP | listed(headers)
    if resized:
        dropped = dropped | {b"content-length"}
    out = []
    for header in headers:
        lower = header[0].lower()
        if lower not in dropped and not lower.startswith(OURS):
            out.append(header)
    out.extend(added)
    return out


def header(headers: Headers, name: bytes) -> bytes:
    """The first value of a header, or b""."""
    for key, value in headers:
        if len(key) == len(name) and key.lower() == name:
            return value
    return b""
