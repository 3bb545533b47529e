"""Heads that repeat: a client's next request most often has the same head but for its Content-Length.

What an equal head means was found out before, by llhttp and the rules of `gateway.net.head`; it is not read again.
Equal is meant byte for byte, the digits of the length apart, and only within one connection.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, structs

from gateway.errors import HeadersTooLarge
from gateway.net.head import RequestHead, RequestParser, read_request_head


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
    at: int  # index of Content-Length among the headers; -1: it has none
    head: RequestHead


def known(raw: bytes, head: RequestHead) -> Known | None:
    """What to remember of a head just read; None where it says more than a length about its body."""
    if head.chunked or head.expects_continue:
        return None
    found = [at for at, (name, _) in enumerate(head.headers) if name.lower() == b"content-length"]
    if not found:
        return Known(raw, b"", -1, head)
    name, value = head.headers[found[0]]
    place = raw.find(b"\r\n%b: %b\r\n" % (name, value))
    if place < 0:  # spaced in another way
        return None
    place += len(name) + 4
    return Known(raw[:place], raw[place + len(value) :], found[0], head)


def again(last: Known, raw: bytes) -> RequestHead | None:
    """The meaning of a head that equals the last one but for the digits of its length; None for any other."""
    before, after, head = last.before, last.after, last.head
    if last.at < 0:
        return structs.replace(head) if raw == before else None
    if not (raw.startswith(before) and raw.endswith(after)):
        return None
    digits = raw[len(before) : len(raw) - len(after)]
    if not digits.isdigit() or len(digits) > 18 or len(before) + len(digits) + len(after) != len(raw):
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
