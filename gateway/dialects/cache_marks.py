"""`cache_control` breakpoints where the client set none: what is stable is marked, by splices and nothing else.

Rules
1. Never where the client set a mark of its own, and never more than `MOST`: that is what the API takes.
2. In the order in which the API caches: behind the last tool definition, the last system block, the message that ended
   the call before (to read what that one wrote), and the last message (to write for the next one).
3. Messages are marked only where a next call is to be expected: there are tools, or turns already. Writing costs more
   than fresh input, and a lone question would pay for it in vain.
4. A place that may not be marked (thinking, an empty text, tools that are loaded later) or that is not read with
   certainty stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.call import Asked, Edit
from gateway.dialects.body import Span, nested
from gateway.dialects.shape import DECODE_FAULTS
from gateway.errors import BadBody

MOST = 4  # one each behind tools and system, two in the messages
LOOK_BACK = 64  # messages from the end within which the one before the last answer must be
_MARK = b'"cache_control":{"type":"ephemeral"}'
_KEY = b'"cache_control"'
_ESCAPED = re.compile(b'"%b"' % b"".join([rb"(?:%c|\\u00(?i:%02x))" % (byte, byte) for byte in _KEY[1:-1]]))
_BLANKS = b" \t\r\n"
_BETWEEN = b" \t\r\n,"
_MARKABLE = frozenset(("text", "image", "document", "tool_use", "tool_result"))


class _Block(Struct, gc=False):
    type: Any = None
    text: Any = None


class _Message(Struct, gc=False):
    role: Any = None


_blocks = msgspec.json.Decoder(list[Raw])
_block = msgspec.json.Decoder(_Block)
_message = msgspec.json.Decoder(_Message)


def marks(asked: Asked, body: bytes) -> tuple[Edit, ...]:
    """The splices; () where the client set a mark, or `body` is not the text that was read (it came compressed)."""
    start, end = asked.spans.get("messages", (0, 0))
    if _is_marked(body) or not asked.messages or body[start : start + 1] != b"[" or body[end - 1 : end] != b"]":
        return ()
    found: list[Edit] = []
    if asked.tools and b'"defer_loading"' not in asked.tools:
        found += _last_of(body, asked.spans["tools"], tools=True)
    if asked.system:
        found += _content(body, asked.spans["system"])
    if asked.tools or len(asked.messages) > 1:
        for span in reversed(list(_turns(asked.messages, body, end - 1))):
            found += _message_content(body, span)
    return tuple(found)


def _is_marked(body: bytes) -> bool:
    """Does the client set a mark, in whatever letters? (One used for something else is taken for a mark.)"""
    return _KEY in body or (b"\\u00" in body and _ESCAPED.search(body) is not None)


def _turns(messages: Sequence[Any], body: bytes, end: int) -> Iterator[Span]:
    """Where the last message stands, and the last one before the last answer; found from the end of the array."""
    answered = False
    for number, raw in enumerate(reversed(messages[-LOOK_BACK:])):
        text = bytes(raw)
        while body[end - 1] in (_BETWEEN if number else _BLANKS):
            end -= 1
        start = end - len(text)
        if body[start:end] != text:
            return
        answers = _role(text) == "assistant"
        if number == 0 or (answered and not answers):
            yield start, end
        if answered and not answers:
            return
        answered = answered or answers
        end = start


def _role(text: bytes) -> Any:
    try:
        return _message.decode(text).role
    except DECODE_FAULTS:
        return None


def _message_content(body: bytes, span: Span) -> list[Edit]:
    try:
        _, spans = nested(body, span, "messages")
    except BadBody:
        return []
    return _content(body, spans["content"]) if "content" in spans else []


def _content(body: bytes, span: Span) -> list[Edit]:
    """A string becomes a block of text that is marked; of blocks the last one is."""
    start, end = span
    if body[start : start + 1] == b'"':
        if body[start + 1 : end - 1].isspace() or end - start <= 2:
            return []
        return [Edit(start, start, b'[{"type":"text","text":'), Edit(end, end, b",%b}]" % _MARK)]
    return _last_of(body, span, tools=False)


def _last_of(body: bytes, span: Span, *, tools: bool) -> list[Edit]:
    """Mark the last object of an array."""
    start, end = span
    try:
        items = _blocks.decode(body[start:end])
        last = _block.decode(items[-1]) if items else None
    except DECODE_FAULTS:
        return []
    if last is None or not (tools or _may_be_marked(last)):
        return []
    at = end - 1
    while body[at - 1] in _BLANKS:
        at -= 1
    at -= 1  # its closing brace
    before = at
    while body[before - 1] in _BLANKS:
        before -= 1
    return [Edit(at, at, _MARK if body[before - 1 : before] == b"{" else b"," + _MARK)]


def _may_be_marked(block: _Block) -> bool:
    if block.type == "text":
        return isinstance(block.text, str) and bool(block.text.strip())
    return isinstance(block.type, str) and block.type in _MARKABLE
