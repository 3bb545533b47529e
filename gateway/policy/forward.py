"""Heads on their way through: what passes, what stays behind, what is added. Pure.

Rules
1. Every header passes with its case, order and duplicates, but the hop-by-hop ones (RFC 9110 7.6.1, and those the
   Connection header names), our own `x-tollgate-*`, and W3C baggage, which may carry what is not meant for a provider:
   it passes where the trace does, to an upstream with `propagate_trace`.
2. When the upstream has a key of its own, the client came with a key of the gateway, or the call goes to another
   upstream than the client chose because that failed, every credential of the client stays behind.
3. A tool is never sent the headers by which some servers take a request for another one. Where an HTTP tool has a key
   or headers of the operator, no cookie passes either way: it would be one that another server behind this gateway gave
   to the same client, or the session that the operator's key has opened.
4. A request that was translated for another API takes along no header of the API that its client speaks.
5. `Via` names this gateway, so that a loop is seen (RFC 9110 7.6.3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace

from gateway.call import Asked, Call
from gateway.ports import Exchange, Headers, Spec
from gateway.tool import OVERRIDES

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
CREDENTIALS = frozenset((b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"x-amz-security-token"))
_REQUEST_DROPS = HOP_BY_HOP | {b"expect"}
_KEPT = frozenset((b"host", b"content-length"))  # whatever Connection says: without them the message means another
OURS = b"x-tollgate-"
# Words of one API or of its SDKs, credentials, and what describes the bytes of the client.
_THEIRS = re.compile(
    rb"authorization\Z|x-api-key\Z|api-key\Z|cookie\Z|content-type\Z|content-encoding\Z|accept-encoding\Z|accept\Z"
    rb"|anthropic-|openai-|x-goog-|x-stainless-|x-codex-|x-claude-|x-openai-|originator\Z|idempotency-key\Z"
)
_LENGTH = b"\x00"  # stands for the length in a head yet without it; no header can hold this


@lru_cache(maxsize=256)
def _drops(spec: Spec, injected: bool, ours: bool = False) -> frozenset[bytes]:
    """Lower-case names of the client's headers that stay behind."""
    drops = _REQUEST_DROPS | {name.lower() for name, _ in spec.headers}
    if spec.auth or ours or (spec.tool is not None and spec.headers):
        drops |= CREDENTIALS
    drops |= {b"traceparent", b"tracestate"} if spec.propagate_trace else {b"baggage"}
    if spec.tool is not None:
        drops |= OVERRIDES
    if keeps_cookies(spec):
        drops |= {b"cookie"}
    if injected:
        drops |= {b"accept-encoding"}  # what we add must be taken out again: ask for plain bytes
    return drops


def keeps_cookies(spec: Spec) -> bool:
    """Are its cookies between the operator and an HTTP tool? An MCP server's tell its sessions apart, to balancers."""
    return spec.family == "tool" and bool(spec.auth or spec.headers)


class Made(Struct, frozen=True, eq=False):
    """A head as it was made for equal ones, in front of the length and behind it."""

    spec: Spec
    path: bytes
    injected: bool
    ours: bool  # the credentials of the client stay behind
    before: bytes
    after: bytes


def request_head(call: Call, spec: Spec, length: int, *, upgrade: bool = False) -> bytes:
    """The head to send upstream, for a body of `length` bytes. For equal heads it is made once (`Request.facts`)."""
    if upgrade or spec.propagate_trace or not length:
        return _made(call, spec, b"%d" % length, upgrade)
    injected = call.asked.injected or call.asked.plain
    facts, path, ours = call.request.facts, call.route.path, call.key is not None or call.away
    made: Made | None = facts.get("forwarded")
    if made is None or made.spec is not spec or made.path != path or made.injected != injected or made.ours != ours:
        before, _, after = _made(call, spec, _LENGTH, upgrade).partition(_LENGTH)
        made = facts["forwarded"] = Made(spec, path, injected, ours, before, after)
    return made.before + str(length).encode() + made.after


def other_head(call: Call, spec: Spec, path: bytes, added: Headers, length: int) -> bytes:
    """The head of a request that was translated: what the client says to its own provider stays behind."""
    request = call.request
    kept = [header for header in request.headers if not _THEIRS.match(header[0].lower())]
    kept += [(b"content-type", b"application/json"), (b"accept-encoding", b"identity"), *added]
    names = {name: value for name, value in request.names.items() if not _THEIRS.match(name)}
    shadow = replace(
        call,
        request=replace(request, headers=kept, names=names, facts={}),
        route=replace(call.route, path=path),
        asked=Asked(),
    )
    return _made(shadow, spec, b"%d" % length, False)


def _made(call: Call, spec: Spec, length: bytes, upgrade: bool) -> bytes:
    request, injected = call.request, call.asked.injected or call.asked.plain
    parts: list[bytes] = [request.method, b" ", _target(call, spec), b" HTTP/1.1\r\n"]
    if b"host" not in request.names:
        parts += (b"host: ", spec.host, b"\r\n")
    _pass_headers(
        request.headers,
        _drops(spec, injected, call.key is not None or call.away) | listed(request.names, request.headers),
        spec.host,
        length,
        parts,
    )
    for name, value in (*spec.auth, *spec.headers):
        parts += (name, b": ", value, b"\r\n")
    if spec.propagate_trace:
        trace = call.trace
        parts.append(f"traceparent: 00-{trace.trace_id}-{trace.span_id}-{trace.flags:02x}\r\n".encode())
        if trace.state:
            parts.append(f"tracestate: {trace.state}\r\n".encode())
    if injected:
        parts.append(b"accept-encoding: identity\r\n")
    if upgrade:
        parts.append(b"connection: Upgrade\r\nupgrade: websocket\r\n")
    parts += (b"via: 1.1 ", call.via, b"\r\n\r\n")
    return b"".join(parts)


def _pass_headers(headers: Headers, dropped: frozenset[bytes], host: bytes, length: bytes, parts: list[bytes]) -> None:
    sized = False
    for name, value in headers:
        lower = name.lower()
        if lower in dropped or lower.startswith(OURS):
            continue
        if lower == b"host":
            parts += (name, b": ", host, b"\r\n")
        elif lower == b"content-length":
            parts += (name, b": ", length, b"\r\n")
            sized = True
        else:
            parts += (name, b": ", value, b"\r\n")
    if length != b"0" and not sized:
        parts += (b"content-length: ", length, b"\r\n")


def _target(call: Call, spec: Spec) -> bytes:
    """The request target: the upstream's path prefix and the path as asked, the version not twice."""
    path = call.route.path
    if spec.tool is not None:
        return path if call.key is None else without_key(path, call.request.facts.get("presented", b""))
    if (spec.auth or call.key is not None or call.away) and path.find(b"key=") >= 0:
        path = without_key(path)
    prefix = spec.target.base_path
    if prefix:
        version = prefix[prefix.rfind(b"/") :]
        if path.startswith(version + b"/"):
            path = path[len(version) :]
        if path.startswith(prefix + b"/"):
            return path
    return prefix + path


def without_key(path: bytes, secret: bytes = b"") -> bytes:
    """Take the `key=` parameter (the client's Gemini credential) out of a query; `secret`: only where it is that."""
    head, _, query = path.partition(b"?")
    kept = [pair for pair in query.split(b"&") if not pair.startswith(b"key=") or (secret and pair[4:] != secret)]
    return head + b"?" + b"&".join(kept) if kept and kept != [b""] else head


def listed(names: Mapping[bytes, bytes], headers: Headers) -> frozenset[bytes]:
    """The names that Connection headers list, lower case; they are hop-by-hop too."""
    if b"connection" not in names:
        return frozenset()
    found: frozenset[bytes] = frozenset()
    for name, value in headers:
        if name.lower() == b"connection":
            found |= frozenset(token.strip().lower() for token in value.split(b","))
    return found - _KEPT


def response_block(exchange: Exchange, *, dropped: frozenset[bytes] = frozenset()) -> bytes:
    """The header lines for the client: as they came, or without what is hop-by-hop, ours, or `dropped`."""
    names, block = exchange.names, exchange.block
    if not dropped and names.keys().isdisjoint(HOP_BY_HOP) and block.lower().find(b"tollgate-") < 0:
        return block
    dropped = dropped | HOP_BY_HOP | listed(names, exchange.headers)
    parts: list[bytes] = []
    for name, value in exchange.headers:
        lower = name.lower()
        if lower not in dropped and not lower.startswith(OURS):
            parts += (name, b": ", value, b"\r\n")
    return b"".join(parts)


def rendered(headers: Headers) -> bytes:
    """Header lines of name-value pairs."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])
