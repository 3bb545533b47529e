"""Takes out of an MCP server's answers the tools that a caller may not see, by a minimal splice.

Rules
1. Only entries of `result.tools` go, each with the comma before it; every other byte stays, and where nothing is hidden
   all of them do.
2. Any message may bring such a list: a stream that is resumed brings the responses of others, so all are looked at.
3. What cannot be read for certain (repeated keys, invalid JSON) and may hold a list of tools is withheld: an error with
   the same id takes its place. An entry whose name is not certain is hidden.
4. At most MAX_HELD bytes are held; a larger message is withheld.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec
from msgspec import Raw

from gateway.call import Edit
from gateway.dialects.body import nested, scan, splice
from gateway.dialects.shape import DECODE_FAULTS
from gateway.dialects.sse import EVENT_END
from gateway.errors import BadBody

MAX_HELD = 32 * 1024 * 1024
BREAK = 3  # bytes of the two line breaks that end an event, without the last one
Allowed = Callable[[str], bool]
_SPACE = b" \t\r\n"
_any = msgspec.json.Decoder()
_array = msgspec.json.Decoder(list[Raw])
_object = msgspec.json.Decoder(dict[str, Raw])
_LINE = re.compile(rb"\r\n|\n|\r")
_DATA = re.compile(rb"(?:\xef\xbb\xbf)?data(?:: ?|\Z)")
_ESCAPED = re.compile(rb"[\"'][^\"']{0,64}\\u", re.IGNORECASE)


class Sieve:
    """`ports.Stripper` of one answer. `stream`: it is an event stream, else one document."""

    def __init__(self, allowed: Allowed, *, stream: bool) -> None:
        self._allowed = allowed
        self._stream = stream
        self._held = bytearray()
        self._over = False

    def feed(self, data: bytes) -> bytes:
        if self._over and not self._stream:
            return b""
        held, known = self._held, len(self._held)
        held += data
        found: list[bytes] = []
        if self._stream:
            at = 0
            for end in [end.end() for end in EVENT_END.finditer(held, max(known - BREAK, 0))]:
                found.append(self._event(bytes(held[at:end])))
                at = end
            del held[:at]
        if len(held) > MAX_HELD:
            if not self._over:
                found.append(b"data: " + withheld(b"") + b"\n\n" if self._stream else withheld(b""))
            self._over = True
            del held[:-BREAK]  # in which the end of it may begin
        return b"".join(found)

    def end(self) -> bytes:
        held = bytes(self._held)
        self._held.clear()
        if not held or (self._over and not self._stream):
            return b""
        return self._event(held) if self._stream else sifted(held, self._allowed)

    def _event(self, raw: bytes) -> bytes:
        """One event, with the empty line that ends it."""
        if self._over:
            self._over = False
            return b""  # the rest of what was too large
        if not may_list(raw):
            return raw
        places = [place for place in _lines(raw) if _DATA.match(raw, place[0], place[1]) is not None]
        if not places:
            return raw
        starts = [_after_label(raw, *place) for place in places]
        text = b"\n".join([raw[start:end] for start, (_, end) in zip(starts, places, strict=True)])
        changed = sifted(text, self._allowed)
        if changed is text:
            return raw
        rest = [Edit(start, end, b"") for start, end in places[1:]]
        whole = changed.replace(b"\r", b" ").replace(b"\n", b" ")  # between the values of JSON, space is space
        return splice(raw, [Edit(starts[0], places[0][1], whole), *_with_breaks(raw, rest)])


def _lines(raw: bytes) -> list[tuple[int, int]]:
    """(start, end) of each line, its break left out."""
    found, at = [], 0
    for line in _LINE.finditer(raw):
        found.append((at, line.start()))
        at = line.end()
    return [*found, (at, len(raw))] if at < len(raw) else found


def _with_breaks(raw: bytes, edits: list[Edit]) -> list[Edit]:
    """The same, each with the line break behind it."""
    found = []
    for edit in edits:
        line = _LINE.match(raw, edit.end)
        found.append(Edit(edit.start, line.end() if line is not None else edit.end, b""))
    return found


def _after_label(raw: bytes, start: int, end: int) -> int:
    label = _DATA.match(raw, start, end)
    assert label is not None
    return label.end()


def may_list(text: bytes) -> bool:
    """May a name in it be `tools`, however it is written?"""
    lower = text.lower()
    return b"tool" in lower or b"\xc5\xbf" in lower or (b"\\u" in lower and _ESCAPED.search(text) is not None)


def sifted(text: bytes, allowed: Allowed) -> bytes:
    """A message or a batch without the hidden tools; the very same object where there are none."""
    if not may_list(text):
        return text
    at = len(text) - len(text.lstrip(_SPACE))
    try:
        if text[at : at + 1] == b"[":
            spans = elements(text, at, len(text.rstrip(_SPACE)))
            edits = [edit for start, end in spans for edit in _message(text, start, end, allowed)]
        else:
            edits = _message(text, at, len(text.rstrip(_SPACE)), allowed)
    except BadBody:
        return withheld(text)
    return splice(text, edits) if edits else text


def _message(text: bytes, start: int, end: int, allowed: Allowed) -> list[Edit]:
    """Raises BadBody for what cannot be read for certain."""
    if text[start : start + 1] != b"{":
        return []
    _, spans = nested(text, (start, end), "message")
    result = one_of(spans, "result")
    if result is None or text[result[0] : result[0] + 1] != b"{":
        return []
    _, spans = nested(text, result, "result")
    tools = one_of(spans, "tools")
    if tools is None or text[tools[0] : tools[0] + 1] != b"[":
        return []
    places = elements(text, *tools)
    kept = [place for place in places if _is_shown(text, place, allowed)]
    return [Edit(*tools, _without(text, tools, places, set(kept)))] if len(kept) < len(places) else []


def one_of(spans: Mapping[str, tuple[int, int]], name: str) -> tuple[int, int] | None:
    """Where the value under this name stands, in whatever letter case. Raises BadBody where there are two."""
    found = [span for key, span in spans.items() if key.strip().casefold() == name]
    if len(found) > 1:
        raise BadBody("a key stands twice", code="duplicate_key", param=name)
    return found[0] if found else None


def _is_shown(text: bytes, place: tuple[int, int], allowed: Allowed) -> bool:
    if text[place[0] : place[0] + 1] != b"{":
        return True
    try:
        fields, spans = scan(text[slice(*place)])
        named = one_of(spans, "name")
        if named is None or "name" not in fields:
            return False
        name = _any.decode(fields["name"])
    except (BadBody, *DECODE_FAULTS):
        return False
    return isinstance(name, str) and allowed(name)


def elements(text: bytes, start: int, end: int) -> list[tuple[int, int]]:
    """Where each element of an array stands. Raises BadBody for what is no array."""
    try:
        raws = _array.decode(text[start:end])
    except DECODE_FAULTS:
        raise BadBody("not a valid array", code="invalid_json") from None
    found, at = [], start + 1
    for raw in raws:
        while text[at] in b" \t\r\n,":
            at += 1
        found.append((at, at + len(raw)))
        at += len(raw)
    return found


def _without(text: bytes, array: tuple[int, int], places: list[tuple[int, int]], kept: set[tuple[int, int]]) -> bytes:
    """The array with the kept elements alone, each behind the bytes that stood before it."""
    parts = [text[array[0] : places[0][0]]]
    first = True
    for number, (start, end) in enumerate(places):
        if (start, end) in kept:
            parts += [b"" if first else text[places[number - 1][1] : start], text[start:end]]
            first = False
    parts.append(text[places[-1][1] : array[1]])
    return b"".join(parts)


def withheld(text: bytes) -> bytes:
    """What stands in the place of a message that cannot be shown, with the id of that message where it can be read."""
    identifier: object = None
    try:
        identifier = _any.decode(_object.decode(text).get("id", Raw(b"null")))
    except DECODE_FAULTS:
        pass
    if not isinstance(identifier, str | int):
        identifier = None
    error = {"code": -32603, "message": "the answer of the server cannot be read for certain, and was withheld"}
    return msgspec.json.encode({"jsonrpc": "2.0", "id": identifier, "error": error})
