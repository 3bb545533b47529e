"""Events that differ in their text alone: told by their bytes, and merged before they are decoded.

Most of a stream is pieces of text, each wrapped in the same 200 bytes. A mould is what stands in front of the text of
such an event and behind it. Where events of one mould follow one another, what stands between two texts is cut out:
that is one event with the whole text, which says the same, and decoding it costs a fiftieth.

Rules
1. A mould is taken only from an event of which putting another text in its place gives an event with that text.
2. Texts are merged only where each is a whole piece of a JSON string by itself: without quotes, without \\u escapes
   (of which two may make one character), without a character or an escape that is cut. Else nothing is merged.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from gateway.dialects.shape import DECODE_FAULTS

TRIES = 3  # events of a stream that are looked at
WORTH = 8  # events in one piece
LONGEST = 2048  # bytes of the rest of an event
_PROBE = b"~probe~"
_TEXT = re.compile(rb'(?:[^"\\\x00-\x1f]|\\[\\/bfnrt])*')


class Mould:
    __slots__ = ("_after", "_before")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before, self._after = before, after

    def merged(self, blob: bytes, gap: bytes) -> bytes:
        """The same events, those of this mould in a row as one; `gap` ends each event."""
        between = self._after + gap + b"data: " + self._before
        first, *texts = blob.split(between)
        if len(texts) < 3:
            return blob
        last = texts.pop()
        text = b"".join(texts)
        if _TEXT.fullmatch(text) is None or blob.find(b"\\" + between) >= 0:
            return blob
        if not text.isascii():
            try:
                for piece in texts:
                    piece.decode()
            except UnicodeDecodeError:
                return blob
        return between.join((first, text, last))


def mould_of(event: bytes, key: bytes, text_of: Callable[[bytes], str | None]) -> Mould | None:
    """`text_of`: the text of an event that says nothing else. None where this is not such an event."""
    start = event.find(key) + len(key)
    end = event.find(b'"', start)
    if start < len(key) or end < 0 or len(event) > LONGEST or event.find(key, start) >= 0:
        return None
    before, after = event[:start], event[end:]
    try:
        text = text_of(before + _PROBE + after)
    except DECODE_FAULTS:
        return None
    return Mould(before, after) if text == _PROBE.decode() else None
