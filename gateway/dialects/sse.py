"""Server-sent events: an incremental splitter after the WHATWG rules (HTML standard, section 9.2.6).

Rules
1. A line ends with LF, CR or CRLF, an event with an empty line; the pieces fed may be cut anywhere.
2. One byte order mark at the very start is ignored, so are comments and unknown fields.
3. The values of several `data` fields are joined with LF; one space after the colon is not part of a value.
4. An event larger than `most` bytes is given up: it is skipped to its end and `overflowed` is set. No other input
   makes the splitter hold more than that.
5. An event without its final empty line is returned by `end` (a browser would drop it; a meter wants the usage
   in it).

CR and CRLF become LF as bytes come in, so that the splitter itself only looks for two LFs.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

MAX_EVENT = 2 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"

# An event's end and the empty line behind it; a lone CR at the very end may yet be half of a CRLF. (Written twice, it
# is looked for by its first byte, six times as fast as with {2}.)
_BREAK = rb"(?:\r\n|\n|\r(?!\n|\Z))"
EVENT_END = re.compile(_BREAK + _BREAK)
_DONE = re.compile(rb"(?<![^\r\n])data: ?\[DONE\][\r\n]*")

Event = tuple[bytes, bytes]
"""(event name or b"", data)."""


def parse(block: bytes) -> Event | None:
    """Read the lines of one event, ended by LF. None for a block without data."""
    if block[:6] == b"data: " and block.find(b"\n") < 0:
        return b"", block[6:]
    name = b""
    data: list[bytes] = []
    for line in block.split(b"\n"):
        field, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return (name, b"\n".join(data)) if data else None


def parse_frame(frame: bytes, *, beyond: Container[bytes] = ()) -> Event | None:
    """Read the first event that has data and is no ping, as it came: with any line ends, a byte order mark, comments
    and empty lines before it, and whatever behind it. `beyond`: names of events that are passed over, too."""
    known = (event for event in frames(frame) if event[0] not in beyond)
    return next(known, None)


def frames(frame: bytes) -> Iterator[Event]:
    """All events that have data and are no pings."""
    text = frame.replace(b"\r\n", b"\n").replace(b"\r", b"\n").lstrip(_BOM)
    events = (parse(block.strip(b"\n")) for block in text.split(b"\n\n"))
    return (event for event in events if event is not None and event[0] != b"ping")


class Splitter:
    """Bytes in, events out. `partial`: the bytes so far stop inside an event; `idle`: the next byte begins an event."""

    __slots__ = ("_begun", "_cr", "_most", "_rest", "_skipping", "overflowed")

    def __init__(self, most: int = MAX_EVENT) -> None:
        self._most = most
        self._rest = bytearray()
        self._begun = False
        self._cr = False
        self._skipping = False
        self.overflowed = False

    @property
    def idle(self) -> bool:
        return not (self._rest or self._cr or self._skipping)

    @property
    def partial(self) -> bool:
        return bool(self._rest) or self._skipping

    def pending(self, data: bytes) -> int:
        """How many bytes, as sent, follow the last whole event, `data` being the last piece fed; more than it has where
        the event under way began before it, or its beginning is not known for certain."""
        if self._skipping or self._cr:
            return len(data) + 1
        if not self._rest or data.find(b"\r") < 0:
            return len(self._rest)
        ends = [end.end() for end in EVENT_END.finditer(data)]
        return len(data) - ends[-1] if ends else len(data) + 1

    def forget(self) -> None:
        """Drop the event under way."""
        self._rest.clear()

    def passed(self) -> None:
        """Whole events were read elsewhere."""
        self._begun = True

    def feed(self, data: bytes) -> list[Event]:
        rest = self._rest
        known = len(rest)
        if self._cr or data.find(b"\r") >= 0:
            data = self._unify(data)
        rest += data
        if not self._begun and not self._begin():
            return []
        cut = rest.rfind(b"\n\n", max(known - 1, 0))
        if cut < 0:
            if len(rest) > self._most:
                self._give_up()
            return []
        block = bytes(rest[:cut])
        del rest[: cut + 2]
        if self._skipping:
            self._skipping = False
            block = block.partition(b"\n\n")[2]
        if len(rest) > self._most:
            self._give_up()
        events = (parse(part) for part in block.split(b"\n\n") if part)
        return [event for event in events if event is not None]

    def end(self) -> list[Event]:
        """What was not ended by an empty line."""
        block = bytes(self._rest)
        self._rest.clear()
        if self._skipping or not block:
            return []
        event = parse(block)
        return [event] if event is not None else []

    def _unify(self, data: bytes) -> bytes:
        if self._cr and data:
            self._cr = False
            if data[:1] == b"\n":  # the second half of a CRLF whose CR already counted as a line end
                data = data[1:]
        if data[-1:] == b"\r":
            self._cr = True
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _begin(self) -> bool:
        """Drop the byte order mark; false while it may still be incomplete."""
        if self._rest[:3] == _BOM:
            del self._rest[:3]
        elif len(self._rest) < 3 and _BOM.startswith(self._rest):
            return False
        self._begun = True
        return True

    def _give_up(self) -> None:
        self.overflowed = True
        self._skipping = True
        del self._rest[:-1]  # the last byte may be the first half of the empty line


def without_done(tail: bytes) -> bytes:
    """The end of a stream without its `[DONE]`, at which OpenAI's SDKs stop reading, content."""
    return _DONE.sub(b"", tail)
