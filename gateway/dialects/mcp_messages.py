"""JSON-RPC messages of the Model Context Protocol as clients send them: who is asked for which tool, read strictly.

Rules
1. What is checked is what is sent: a message in which a parser could find another method or tool than this one does is
   refused. Keys that repeat, in any letter case, or that only look like one that counts (`Name`, `methoD`, `paramſ`),
   are refused: some servers match keys without regard to case (GHSA-4gph-2hhr-5mwg).
2. A tool is named by a string of printable characters, byte for byte; `tools/call` in another letter case, or with
   space around it, is refused.
3. Where the transport repeats method or name in headers (Mcp-Method, Mcp-Name), they must agree.
4. A call without an id counts as a call: a server may run it all the same.

Sources: MCP specification 2025-06-18 and 2026-07-28 (transports, tools), JSON-RPC 2.0 sections 4 to 6.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.call import Asked, ToolUse
from gateway.dialects.asking import member
from gateway.dialects.body import read_object
from gateway.dialects.shape import DECODE_FAULTS
from gateway.errors import BadBody, Rejected

CALL = "tools/call"
MAX_BATCH = 100
MAX_NAME = 256  # characters of a tool's name
_ENVELOPE = frozenset(("jsonrpc", "id", "method", "params"))
_CALL_PARAMS = frozenset(("name", "arguments", "_meta"))
_encode = msgspec.json.Encoder().encode
_any = msgspec.json.Decoder()
_array = msgspec.json.Decoder(list[Raw])
_SENTINEL, _END = b"=?base64?", b"?="


class McpAsked(Asked):
    """`ids`: of the requests in the body, as JSON text; `batch`: they came in an array."""

    ids: tuple[str, ...] = ()
    batch: bool = False
    method: str = ""  # of the first message; "" for responses


class Message(Struct, frozen=True):
    method: str = ""
    id: str = ""  # as canonical JSON text; "" where there is none
    tool: str = ""
    trace: str = ""


def read(body: bytes) -> McpAsked:
    """Raises BadBody."""
    text = body.lstrip(b" \t\r\n")
    batch = text.startswith(b"[")
    messages = [_message(raw) for raw in _elements(text)] if batch else [_message(body)]
    ids = [message.id for message in messages if message.id and message.method]
    if len(set(ids)) < len(ids):
        raise BadBody("two requests of the batch have the same id", code="duplicate_id", param="id")
    calls = tuple([ToolUse(message.id, message.tool) for message in messages if message.method == CALL])
    return McpAsked(
        calls=calls,
        aside=not ids and not calls,
        gated=True,
        trace=messages[0].trace.encode("latin-1", "replace"),
        ids=tuple(ids),
        batch=batch,
        method=messages[0].method,
    )


def _elements(text: bytes) -> list[bytes]:
    try:
        found = _array.decode(text)
    except DECODE_FAULTS:
        raise BadBody("the batch is not valid JSON", code="invalid_json") from None
    if not 0 < len(found) <= MAX_BATCH:
        raise BadBody(f"a batch has 1 to {MAX_BATCH} messages", code="invalid_batch")
    return [bytes(raw) for raw in found]


def _message(body: bytes) -> Message:
    fields = read_object(body).fields
    refuse_lookalikes(fields, _ENVELOPE)
    method = _string(fields, "method")
    identifier = _identifier(fields.get("id"))
    if method != CALL:
        if method.strip().casefold() == CALL:
            raise BadBody("the method tools/call is written otherwise", code="invalid_method", param="method")
        return Message(method, identifier)
    params = read_object(bytes(fields.get("params", b""))).fields if "params" in fields else {}
    refuse_lookalikes(params, _CALL_PARAMS)
    tool = _string(params, "name")
    if not tool or len(tool) > MAX_NAME or not tool.isprintable():
        raise BadBody("params.name must be the name of a tool", code="invalid_tool", param="params.name")
    return Message(method, identifier, tool, member(params.get("_meta"), "traceparent"))


def refuse_lookalikes(fields: Iterable[str], known: frozenset[str]) -> None:
    """Keys that some parser takes for one that counts. Raises BadBody."""
    for key in fields:
        if key not in known and key.strip().casefold() in known:
            raise BadBody(f"the field {key[:64]!r} could be taken for another", code="ambiguous_key", param=key[:64])


def _string(fields: Mapping[str, Raw], key: str) -> str:
    """A string field, "" where it is missing. Raises BadBody for anything else."""
    raw = fields.get(key)
    if raw is None:
        return ""
    try:
        value = _any.decode(raw)
    except DECODE_FAULTS:
        value = None
    if not isinstance(value, str):
        raise BadBody(f"{key} must be a string", code=f"invalid_{key}", param=key)
    return value


def _identifier(raw: Raw | None) -> str:
    return "" if raw is None else identity(raw)


def identity(raw: Raw | bytes) -> str:
    """An id as JSON text that is the same for the same id, however it was written; "" for what can be none."""
    try:
        value: Any = _any.decode(raw)
    except DECODE_FAULTS:
        return ""
    return _encode(value).decode() if isinstance(value, str | int) and not isinstance(value, bool) else ""


def check_headers(asked: McpAsked, headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Raises Rejected where headers name another method or tool than the body, or have it twice."""
    for header, stated in ((b"mcp-method", asked.method), (b"mcp-name", asked.calls[0].name if asked.calls else None)):
        values = [value for name, value in headers if name.lower().replace(b"_", b"-") == header]
        if values and (len(values) > 1 or (stated is not None and _decoded(values[0]) != stated)):
            raise Rejected(
                f"the header {header.decode()} does not say what the body does", code="header_mismatch"
            )  # fmt: skip


def _decoded(value: bytes) -> str | None:
    """A header value of the transport, which may be wrapped in base64; None where that cannot be read."""
    text = value.strip()
    if text.startswith(_SENTINEL) and text.endswith(_END):
        try:
            return base64.b64decode(text[len(_SENTINEL) : -len(_END)], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return None
    return text.decode("latin-1")
