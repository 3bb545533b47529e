"""Results of MCP tool calls: what is asked, which of them may be kept, and how one is told to somebody else.

Rules
1. What is asked is the whole message but for its id and, of `_meta`, what concerns its transport alone (ASIDE).
2. Kept is the response message, byte for byte: one that is complete, no error, and in whose stream nothing passed but
   progress and log messages. A server that asked its client something has a result that hangs on the client's word.
3. It is given with the id of the caller in the place of the first one's, in the shape it had (JSON, or the one event of
   a stream) where the client accepts that. Events get no id: there is nothing to resume.

Sources: MCP specification 2025-06-18, 2025-11-25 (tasks) and 2026-07-28 (resultType, _meta of requests).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from gateway.call import Call, Edit
from gateway.config.patterns import matches
from gateway.dialects.body import read_object, scan, splice
from gateway.dialects.mcp_messages import identity
from gateway.dialects.shape import DECODE_FAULTS
from gateway.dialects.sse import Splitter
from gateway.errors import BadBody
from gateway.ports import Wanted
from gateway.tool import Caching

ASIDE = frozenset(("progressToken", "traceparent", "tracestate", "baggage", "io.modelcontextprotocol/logLevel"))
"""Of the `_meta` of a request: where its progress is told, its trace, how much it wants to hear meanwhile."""
SESSION = b"mcp-session-id"
_PASSING = frozenset(("notifications/progress", "notifications/message"))
_JSON, _EVENTS = b"application/json", b"text/event-stream"
_any = msgspec.json.Decoder()
_encode = msgspec.json.Encoder().encode


class McpOutputs:
    """Implements ports.Outputs."""

    counted: frozenset[bytes] = frozenset()
    left = frozenset((SESSION, b"mcp-method", b"mcp-name", b"last-event-id"))  # the body says it, or `Wanted.session`
    headed = False
    dated = False  # its servers send no-cache with every event stream: of the stream, not of a tool's result

    def __init__(self, caching: Caching) -> None:
        self._caching = caching

    def wanted(self, call: Call, body: bytes) -> Wanted:
        calls = call.asked.calls
        name = calls[0].name
        lifetime = max([lifetime_of(self._caching, use.name) for use in calls])
        if not lifetime:
            return Wanted(name, 0)
        if len(calls) > 1 or body.lstrip()[:1] == b"[":
            return Wanted(name, lifetime, "batch")
        if not calls[0].id:
            return Wanted(name, lifetime, "notification")
        told = asked(body)
        session = None if self._caching.shared else self.session(call)
        return Wanted(name, lifetime, "" if told else "ambiguous", json=told, session=session)

    def session(self, call: Call) -> str:
        return call.request.names.get(SESSION, b"").decode("latin-1")

    def kept(self, call: Call, kind: bytes, body: bytes) -> bytes | None:
        try:
            found = _sole_response(_events(body) if _is_stream(kind) else [body], call.asked.calls[0].id)
        except (BadBody, *DECODE_FAULTS):
            return None
        return found

    def given(self, call: Call, kind: bytes, kept: bytes) -> tuple[bytes, bytes]:
        _, spans = scan(kept)
        start, end = spans["id"]
        told = splice(kept, [Edit(start, end, call.asked.calls[0].id.encode())])
        accepted = call.request.names.get(b"accept", b"*/*").lower()
        other = _JSON if _is_stream(kind) else _EVENTS
        streamed = _is_stream(kind)
        if b"*/*" not in accepted and (_EVENTS if streamed else _JSON) not in accepted and other in accepted:
            streamed = not streamed
        if not streamed:
            return _JSON if _is_stream(kind) else kind, told
        line = told.replace(b"\r", b" ").replace(b"\n", b" ")  # between the values of JSON, space is space
        return _EVENTS, b"event: message\ndata: %b\n\n" % line


def lifetime_of(caching: Caching, name: str) -> int:
    return next((ns for pattern, ns in caching.lifetimes if matches(pattern, name)), 0)


def asked(body: bytes) -> bytes:
    """The message without its id and what stands aside; b"" where that cannot be told for certain."""
    try:
        fields = dict(read_object(body).fields)
        params = dict(read_object(bytes(fields["params"])).fields)
        meta = _object(params.pop("_meta", Raw(b"{}")))
    except (BadBody, KeyError, *DECODE_FAULTS):
        return b""
    if meta is None:
        return b""
    rest = {key: value for key, value in meta.items() if key not in ASIDE}
    if rest:
        params["_meta"] = Raw(_encode(rest))
    del fields["params"]
    fields.pop("id", None)
    return b'{"message":%b,"params":%b}' % (_encode(fields), _encode(params))


def _object(raw: Raw) -> Mapping[str, Raw] | None:
    return read_object(bytes(raw)).fields if bytes(raw)[:1] == b"{" else None


def _is_stream(kind: bytes) -> bool:
    return kind.lower().startswith(_EVENTS)


def _events(body: bytes) -> list[bytes]:
    cutter = Splitter()
    found = [text for _, text in (*cutter.feed(body), *cutter.end()) if text.strip()]
    return [] if cutter.overflowed else found


def _sole_response(messages: list[bytes], id: str) -> bytes | None:
    """The one response of these messages, if it is a result to keep. Raises BadBody and decode faults."""
    found = None
    for text in messages:
        fields = read_object(text).fields
        if "method" in fields:
            if "id" in fields or _any.decode(fields["method"]) not in _PASSING:
                return None
            continue
        if found is not None or identity(fields.get("id", b"")) != id or "error" in fields:
            return None
        if not is_whole(_any.decode(fields.get("result", b"null"))):
            return None
        found = text
    return found


def is_whole(result: Any) -> bool:
    """A result that says what the tool said, and that it did not fail."""
    if not isinstance(result, dict) or result.get("isError", False) is not False:
        return False
    if result.get("resultType", "complete") != "complete" or "task" in result:
        return False
    if any(key.casefold() == "tools" for key in result):  # what is taken out of such lists depends on who asks
        return False
    return isinstance(result.get("content"), list) or isinstance(result.get("structuredContent"), dict)
