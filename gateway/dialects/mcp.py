"""The Model Context Protocol over streamable HTTP: JSON-RPC in, JSON or an event stream out, both byte for byte.

Rules
1. `tools/call` is the one method that this gate decides upon; all others only pass. What is needed of its request is
   read strictly (see mcp_messages), what is needed of its answer leniently (see mcp_meter).
2. The gateway speaks in JSON-RPC errors with the ids that were asked. Where the caller is refused what it asked for,
   the error is an answer of the protocol, with status 200: clients built on the official SDK 1.x take any other status
   as the end of their session. Without an id to answer, for a missing key (401 starts an authorization), for a session
   of another key (404: it is at its end), and where the gateway or the server failed, the status is that of the error.
3. A stream that breaks off and could be resumed (its events have ids) ends without a word of ours: its client asks for
   the rest elsewhere.

Sources: MCP specification 2025-06-18 and 2026-07-28; mcp (Python) 1.30 and 2.3, client/streamable_http.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.call import Asked, Bounds, Request, Route
from gateway.config.patterns import matches
from gateway.dialects import faults
from gateway.dialects.base import BaseDialect
from gateway.dialects.mcp_messages import McpAsked, check_headers, read
from gateway.dialects.mcp_meter import LIST, Field, Listing, McpDocument, McpStream
from gateway.dialects.mcp_outputs import lifetime_of
from gateway.dialects.mcp_sieve import Allowed, Sieve
from gateway.dialects.meters import OpaqueMeter
from gateway.errors import BadBody, GatewayError, Rejected, Source, Unauthorized, UnknownSession, UpstreamFault
from gateway.ports import ErrorAnswer, Meter, Stripper
from gateway.tool import FREE, Terms

PARSE_ERROR, INVALID_REQUEST, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32600, -32602, -32603
REFUSED = -32050  # of the range that JSON-RPC leaves to servers; none of MCP's own
_CODES = {"invalid_json": PARSE_ERROR, "invalid_utf8": PARSE_ERROR, "tool_not_allowed": INVALID_PARAMS}
_PLAIN = (Unauthorized, UnknownSession)  # whose status the transport gives a meaning
_encode = msgspec.json.Encoder().encode


class Mcp(BaseDialect):
    """`terms`: what is configured, by the name of the upstream."""

    name = "mcp"

    def __init__(self, terms: Mapping[str, Terms] | None = None) -> None:
        self._terms = terms or {}

    def question(self, route: Route, request: Request) -> Asked:
        if b"upgrade" in request.names:
            raise Rejected("an MCP server is called by plain HTTP", code="upgrade_not_allowed")
        if request.method != b"POST":
            return McpAsked(aside=True, gated=True)
        check_charset(request.names)
        asked = read(request.body)
        check_headers(asked, request.headers)
        return asked

    def bounds(self, route: Route, asked: Asked) -> Bounds:
        return Bounds(0, tools=tuple([use.name for use in asked.calls]))

    def meter(self, route: Route, asked: Asked, status: int, content_type: bytes) -> Meter:
        asked = asked if isinstance(asked, McpAsked) else McpAsked()
        field, listing = self._field(route), self._listing(route)
        if b"event-stream" in content_type and status < 400:
            return McpStream(asked, field, listing=listing)
        if asked.calls or (listing is not None and asked.method == LIST):
            return McpDocument(asked, status, field, listing=listing)
        return OpaqueMeter(asked, status)

    def _listing(self, route: Route) -> Listing:
        terms = self._terms.get(route.upstream)
        caching = terms.caching if terms is not None else None
        return None if caching is None else lambda name: lifetime_of(caching, name) > 0

    def _field(self, route: Route) -> Field:
        terms = self._terms.get(route.upstream)
        if terms is None:
            return lambda name: ()
        prices, other = terms.prices, terms.price
        return lambda name: next((price for pattern, price in prices if matches(pattern, name)), other or FREE).field

    def sieve(self, allowed: Allowed, *, stream: bool) -> Stripper:
        return Sieve(allowed, stream=stream)

    def refusal(
        self,
        fault: GatewayError,
        request_id: str,
        *,
        stream: bool,
        route: Route | None = None,
        asked: Asked | None = None,
    ) -> ErrorAnswer:
        ids = asked.ids if isinstance(asked, McpAsked) else ()
        batch = isinstance(asked, McpAsked) and asked.batch
        spoken = bool(ids) and fault.source is Source.CLIENT and not isinstance(fault, _PLAIN)
        headers = faults.headers(fault, fault.status)
        return ErrorAnswer(200 if spoken else fault.status, headers, errors(fault, request_id, ids, batch=batch))

    def restate(self, route: Route, frame: bytes) -> ErrorAnswer | None:
        return None

    def remark(self, note: str) -> bytes:
        return b""  # what a server says passes byte for byte

    def interruption(self, fault: GatewayError, meter: Meter, request_id: str) -> bytes:
        if not isinstance(meter, McpStream) or (isinstance(fault, UpstreamFault) and meter.resumable):
            return b""
        told = [
            b"event: message\ndata: %b\n\n" % errors(fault, request_id, (one,)) for one in meter.results.pending
        ]  # fmt: skip
        return (b"\n\n" if told and meter.partial else b"") + b"".join(told)


def errors(fault: GatewayError, request_id: str, ids: Sequence[str], *, batch: bool = False) -> bytes:
    """JSON-RPC errors for these ids; one without an id where there are none."""
    data: dict[str, Any] = {"code": fault.code, "request_id": request_id}
    wait = faults.retry_after(fault, fault.status)
    if wait is not None:
        data["retry_after"] = wait
    error = {"code": code_of(fault), "message": fault.message, "data": data}
    answers = [{"jsonrpc": "2.0", "id": msgspec.Raw(one.encode()), "error": error} for one in ids or ("null",)]
    return _encode(answers if batch else answers[0])


def code_of(fault: GatewayError) -> int:
    known = _CODES.get(fault.code)
    if known is not None:
        return known
    if isinstance(fault, BadBody) or fault.code == "header_mismatch":
        return INVALID_REQUEST
    return REFUSED if fault.source is Source.CLIENT else INTERNAL_ERROR


def check_charset(names: Mapping[bytes, bytes]) -> None:
    """JSON is UTF-8 (RFC 8259 8.1): whoever obeyed another charset would read another message. Raises Rejected."""
    _, _, parameters = names.get(b"content-type", b"").lower().partition(b";")
    if b"charset" in parameters and parameters.replace(b'"', b"").replace(b" ", b"") not in _UTF_8:
        raise Rejected("the body must be UTF-8", code="invalid_charset")


_UTF_8 = frozenset((b"charset=utf-8", b"charset=utf8", b"charset=us-ascii"))
