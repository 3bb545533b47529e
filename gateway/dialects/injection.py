"""Asking OpenAI-dialect streams for their usage, and taking what that adds out of the answer again.

Rules
1. The request is changed by one splice, only where the client streams and did not ask for usage itself.
2. Of the answer, exactly two things go: the chunk whose `choices` are empty and whose `usage` is an object, and the
   `"usage":null` members of other chunks. Every other byte stays, also in chunks without choices (Azure's prompt
   filter results).
3. Bytes are held back only up to the end of their event; an event above `MAX_EVENT` passes as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
from msgspec import Raw

from gateway.call import Asked, Edit
from gateway.dialects.body import nested, scan
from gateway.dialects.shape import NULL, TRUE
from gateway.dialects.sse import EVENT_END, MAX_EVENT, parse
from gateway.errors import BadBody

_WANTED = b'"include_usage":true'


def usage_edit(asked: Asked, body: bytes) -> Edit | None:
    """The splice that asks for usage. None where the client does not stream, or asked already.

    None, too, where `body` is not the text that was read (it was sent compressed).
    """
    start, end = asked.spans.get("stream", (0, 0))
    if not asked.stream or body[start:end] != b"true":
        return None
    options = asked.fields.get("stream_options")
    if options is None:
        at = body.index(b"{") + 1
        return Edit(at, at, b'"stream_options":{%b},' % _WANTED)
    start, end = asked.spans["stream_options"]
    if options == NULL:
        return Edit(start, end, b"{%b}" % _WANTED)
    if body[start : start + 1] != b"{":
        return None
    fields, spans = nested(body, (start, end), "stream_options")
    wanted = fields.get("include_usage")
    if wanted is None:
        return Edit(start + 1, start + 1, _WANTED + (b"," if fields else b""))
    if wanted == TRUE:
        return None
    return Edit(*spans["include_usage"], b"true")


def asks_usage(fields: Mapping[str, Raw]) -> bool:
    """Did the client itself ask for usage?"""
    options = fields.get("stream_options")
    if options is None or bytes(options).find(b"include_usage") < 0:
        return False
    try:
        return scan(bytes(options))[0].get("include_usage") == TRUE
    except BadBody:
        return False


def is_rejection(status: int, body: bytes) -> bool:
    """Does an upstream error blame `stream_options`?"""
    return status in {400, 404, 415, 422, 500, 501} and (b"stream_options" in body or b"include_usage" in body)


# A null usage as the last member but for a flat, bracket-free rest: surely a member of the outermost object.
_NULL_MEMBER = re.compile(rb',\s*"usage"\s*:\s*null(?=(?:\s*,\s*"\w+"\s*:\s*"[^"\\{}\[\]]*")?\s*\}\s*\Z)')


class UsageStripper:
    """See the rules above. Works at any split of the stream."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._passing = False  # inside an event too large to judge

    def feed(self, data: bytes) -> bytes:
        rest = self._rest
        if not rest and data.endswith(b"\n\n") and not self._passing and data.find(b"\r") < 0:
            if data.find(b'"usage"') < 0:
                return data
            return b"".join([strip_event(block + b"\n\n") for block in data[:-2].split(b"\n\n")])
        known = max(len(rest) - 3, 0)
        rest += data
        out: list[bytes] = []
        done = 0
        for end in EVENT_END.finditer(rest, known):
            out.append(self._event(bytes(rest[done : end.end()])))
            done = end.end()
        del rest[:done]
        if len(rest) > MAX_EVENT:
            out.append(bytes(rest[:-3]))
            del rest[:-3]
            self._passing = True
        return b"".join(out)

    def end(self) -> bytes:
        rest = bytes(self._rest)
        self._rest.clear()
        return self._event(rest)

    def _event(self, block: bytes) -> bytes:
        if self._passing:
            self._passing = False
            return block
        return strip_event(block)


def strip_event(block: bytes) -> bytes:
    """One event without what usage injection added to it; b"" for the added chunk itself."""
    if block.find(b'"usage"') < 0:
        return block
    head, member, tail = block.rpartition(b',"usage":null')
    if member and tail == b"}\n\n" and head.find(b'"usage"') < 0:
        return head + tail
    stripped, changed = _NULL_MEMBER.subn(b"", block)
    if changed and b'"usage"' not in stripped:
        return stripped
    event = parse(block.replace(b"\r\n", b"\n").replace(b"\r", b"\n").strip(b"\n"))
    if event is None:
        return block
    data = event[1]
    try:
        fields, spans = scan(data)
    except BadBody:
        return block
    usage = fields.get("usage")
    if usage is None:
        return block
    if usage != NULL:
        return b"" if _is_added(fields) else block
    return _without(block, data, list(spans), spans)


def _is_added(fields: Mapping[str, Raw]) -> bool:
    try:
        return msgspec.json.decode(fields.get("choices", NULL)) == [] and bytes(fields["usage"])[:1] == b"{"
    except msgspec.DecodeError:
        return False


def _without(block: bytes, data: bytes, keys: list[str], spans: Mapping[str, tuple[int, int]]) -> bytes:
    """The block without the top-level member `usage` of its data, which must stand in it on one line."""
    at = keys.index("usage")
    start, end = spans["usage"]
    if at:
        start = spans[keys[at - 1]][1]
    else:
        start = data.index(b"{") + 1
        end = data.index(b'"', end) if len(keys) > 1 else end
    offset = block.find(data)
    if offset < 0:
        return block
    return block[: offset + start] + block[offset + end :]
