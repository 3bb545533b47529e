"""Heads that repeat: what an alike head means was found out before, by llhttp and the rules of `gateway.net.head`.

1. A client's next request most often has the same head but for its Content-Length. Alike is meant byte for byte, the
   digits of the length apart, and only within one connection.
2. The answers of an upstream mostly have the same headers in the same order; dates, ids and counters differ. Alike is
   an answer with the same status line and names, and the same values of whatever frames or codes a body (`_FIXED`);
   all other values are text without control characters, as llhttp would have it. One regular expression costs a tenth
   of llhttp's callbacks into Python.
"""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct, structs

from gateway.errors import HeadersTooLarge
from gateway.net.head import (
    Header,
    RequestHead,
    RequestParser,
    ResponseHead,
    ResponseParser,
    chunk_parser,
    read_request_head,
    read_response_head,
)

SHAPES = 4  # of answers, that are known of one origin at a time
SHAPES_MADE = 32  # of one origin at most: making one costs as much as reading a hundred heads
SEEN_LIMIT = 256  # outlines counted
OFTEN = 3  # an outline seen so often is worth a shape
_LENGTH = b"content-length"
_FIXED = frozenset(
    (b"connection", b"proxy-connection", b"transfer-encoding", b"upgrade", b"content-type", b"content-encoding")
)
_CONTROLS = bytes(code for code in range(32) if code != 9) + b"\x7f"


class HeadReader:
    """Reads the heads of one connection. `facts` goes with the head just read: what was made of an equal one before."""

    __slots__ = ("_last", "facts", "parser")

    def __init__(self) -> None:
        self._last: Known | None = None
        self.facts: dict[str, Any] = {}
        self.parser: RequestParser | None = None  # of the head just read, unless it was known

    def read(self, raw: bytes, limit: int) -> RequestHead:
        """Read one complete head of at most `limit` headers. Raises BadFraming, BadPath, HeadersTooLarge."""
        self.parser = None
        last = self._last
        head = again(last, raw) if last is not None else None
        if head is None:
            self.parser = RequestParser()
            head = read_request_head(raw, self.parser)
            self._last = known(raw, head)
            self.facts = {}
        if len(head.headers) > limit:
            raise HeadersTooLarge(f"more than {limit} headers")
        return head


class Known(Struct):
    """A head that was read. The next one of its connection is most often the same but for its Content-Length."""

    before: bytes  # the head up to the digits of its Content-Length, or all of it
    after: bytes  # and behind them
    start: int  # lengths of the two, and of both
    rest: int
    at: int  # index of Content-Length among the headers; -1: it has none
    head: RequestHead


def known(raw: bytes, head: RequestHead) -> Known | None:
    """What to remember of a head just read; None where it says more than a length about its body."""
    if head.chunked or head.expects_continue:
        return None
    found = [at for at, (name, _) in enumerate(head.headers) if name.lower() == b"content-length"]
    if not found:
        return Known(raw, b"", len(raw), len(raw), -1, head)
    name, value = head.headers[found[0]]
    place = raw.find(b"\r\n%b: %b\r\n" % (name, value))
    if place < 0:  # spaced in another way
        return None
    place += len(name) + 4
    return Known(raw[:place], raw[place + len(value) :], place, len(raw) - len(value), found[0], head)


def again(last: Known, raw: bytes) -> RequestHead | None:
    """The meaning of a head that equals the last one but for the digits of its length; None for any other."""
    head = last.head
    if last.at < 0:
        return structs.replace(head) if raw == last.before else None
    size = len(raw) - last.rest
    if not 0 < size <= 18 or not raw.startswith(last.before) or not raw.endswith(last.after):
        return None
    digits = raw[last.start : last.start + size]
    if not digits.isdigit():
        return None
    headers, names = head.headers.copy(), head.names.copy()
    headers[last.at] = (headers[last.at][0], digits)
    names[b"content-length"] = digits
    return RequestHead(
        head.method,
        head.target,
        headers,
        int(digits),
        False,
        head.keep_alive,
        head.http10,
        False,
        head.connection,
        names,
    )


class Shape:
    """Answers that are alike. `pattern` has a group for each value that may differ."""

    __slots__ = ("_lines", "_names", "_pattern", "_sized", "_start", "_variable", "facts", "head")

    def __init__(self, raw: bytes, head: ResponseHead) -> None:
        pieces = [re.escape(raw[: raw.index(b"\n") + 1])]
        self._variable: list[bytes] = []
        for name, value in head.headers:
            lower = name.lower()
            if lower in _FIXED:
                text = re.escape(value)
            elif lower == _LENGTH:
                text = b"([0-9]{1,18})"
            else:
                text = rb"([^\r \t][^\r]*)"
            if text.startswith(b"("):
                self._variable.append(lower)
            pieces.append(re.escape(name) + b": " + text + b"\r\n")
        self._pattern = re.compile(b"".join(pieces) + b"\r\n")
        self._names = head.names
        self._start = len(raw) - len(head.block) - 2
        self._lines = 2 * (len(head.headers) + 2)
        self._sized = head.length is not None
        self.head = head
        self.facts: dict[str, Any] = {}  # what was made of such heads; see Request.facts

    def read(self, raw: bytes) -> ResponseHead | None:
        """None for a head that is not alike."""
        found = self._pattern.fullmatch(raw)
        if found is None or len(raw.translate(None, _CONTROLS)) + self._lines != len(raw):
            return None
        if raw.find(b" \r\n") >= 0 or raw.find(b"\t\r\n") >= 0:
            return None  # blanks that are no part of a value
        names = self._names.copy()
        names.update(zip(self._variable, found.groups(), strict=True))
        head = self.head
        length = int(names[_LENGTH]) if self._sized else None
        block = raw[self._start : -2]
        return ResponseHead(
            head.status, head.reason, None, names, block, length, head.chunked, head.keep_alive, self.facts
        )


class AnswerReader:
    """Knows the last few shapes of one origin's answers."""

    __slots__ = ("_made", "_seen", "_shapes")

    def __init__(self) -> None:
        self._shapes: list[Shape] = []
        self._seen: dict[tuple[bytes, ...], int] = {}
        self._made = 0

    def parsed(self, raw: bytes) -> tuple[ResponseHead, ResponseParser | None]:
        """The meaning of a complete head, and a parser for its body, where there is one: of a head that is not known,
        or for chunks. Raises as `read_response_head`."""
        head = self.read(raw)
        if head is None:
            parser = ResponseParser()
            head = read_response_head(raw, parser)
            self.learn(raw, head)
            return head, parser
        return head, chunk_parser() if head.chunked else None

    def read(self, raw: bytes) -> ResponseHead | None:
        """The meaning of a complete head that is alike to others; None for any other."""
        for shape in self._shapes:
            head = shape.read(raw)
            if head is not None:
                return head
        return None

    def learn(self, raw: bytes, head: ResponseHead) -> None:
        """A head was read by llhttp. What keeps coming gets a shape."""
        if self._made >= SHAPES_MADE or head.status == 101 or has_twins(head.headers):
            return
        outline = (raw[: raw.index(b"\n")], *[part for header in head.headers for part in outlined(header)])
        count = self._seen.get(outline, 0) + 1
        if count < OFTEN:
            if len(self._seen) >= SEEN_LIMIT:
                self._seen.clear()
            self._seen[outline] = count
            return
        self._seen.pop(outline, None)
        shape = Shape(raw, head)
        if shape.read(raw) is not None:  # else it is spaced in another way
            self._made += 1
            self._shapes = [shape, *self._shapes[: SHAPES - 1]]


def outlined(header: Header) -> tuple[bytes, bytes]:
    name, value = header
    return (name, value if name.lower() in _FIXED else b"")


def has_twins(headers: list[Header]) -> bool:
    """Is a name repeated? Of the values the first one counts, which groups do not tell."""
    return len({name.lower() for name, _ in headers}) < len(headers)
