"""Reading HTTP/1.1 heads strictly: one meaning for every byte, or no call at all.

Rules
1. A head is read only when it is complete, by llhttp (httptools) in strict mode, which refuses obs-fold, bare CR or LF,
   both Content-Length and Transfer-Encoding, duplicate or signed Content-Length, and bad tokens (RFC 9112 2.2, 5, 6).
2. What llhttp leaves open is refused here: versions other than 1.0 and 1.1, Transfer-Encoding in HTTP/1.0 or other than
   exactly `chunked`, a missing, repeated or malformed Host, targets that are not in origin form or have a fragment,
   loose request lines, TRACE (its answer would show the upstream's key), framing headers spelt with an underscore
   (CGI-like servers take it for a hyphen).
3. Header names keep their case, headers their order and duplicates.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import httptools
from msgspec import Struct

from gateway.errors import BadFraming, BadPath

Header = tuple[bytes, bytes]

HEAD_LIMIT = 262_144  # bytes of the head of an answer
_CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"

_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_LINE = re.compile(rb"[A-Z-]{1,32} /[!-~]* HTTP/1\.[01]\r\n")
_APPARENT = re.compile(rb"([A-Z]{1,16}) (/[!-~]{0,512})")
_FRAMING = frozenset(
    (
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"content_length",
        b"transfer_encoding",
        b"connection",
        b"expect",
    )
)


class RequestHead(Struct):
    method: bytes
    target: bytes
    headers: list[Header]
    length: int | None = None  # Content-Length
    chunked: bool = False
    keep_alive: bool = True
    http10: bool = False
    expects_continue: bool = False
    connection: frozenset[bytes] = frozenset()  # header names the Connection header lists, lower case
    names: dict[bytes, bytes] = {}  # lower-case name -> first value


class RequestParser:
    """Collects one request: llhttp's callbacks, and the pieces of a chunked body."""

    __slots__ = ("body", "complete", "headers", "parser", "pipelined", "target", "trailing")

    def __init__(self) -> None:
        self.headers: list[Header] = []
        self.body: list[bytes] = []
        self.target = b""
        self.complete = False
        self.trailing = False
        self.pipelined = False
        self.parser = httptools.HttpRequestParser(self)

    def on_message_begin(self) -> None:
        if self.complete:
            self.pipelined = True  # bytes of a next request came with the end of a chunked one

    def on_url(self, url: bytes) -> None:
        if not self.complete:
            self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.trailing:  # trailers are dropped
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.trailing = True

    def on_body(self, data: bytes) -> None:
        if not self.complete:  # else it belongs to a request behind this one
            self.body.append(data)

    def on_message_complete(self) -> None:
        self.complete = True

    def release(self) -> None:
        """Nothing more is fed. llhttp's parser and its callbacks hold one another, and a call shall leave no cycle."""
        if hasattr(self, "parser"):
            del self.parser

    def feed(self, data: bytes) -> None:
        """Raises BadFraming. After `complete`, nothing more of this connection may be read if `pipelined`."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            if not self.complete:
                raise BadFraming(f"malformed HTTP: {error}") from None
            self.pipelined = True


def read_request_head(raw: bytes, parser: RequestParser) -> RequestHead:
    """Read one complete head (with its blank line). Raises BadFraming."""
    parser.feed(raw)
    version = parser.parser.get_http_version()
    if version not in ("1.1", "1.0"):
        raise BadFraming(f"HTTP version {version} is not supported")
    head = RequestHead(parser.parser.get_method(), parser.target, parser.headers, http10=version == "1.0")
    hosts = 0
    names = head.names
    for name, value in parser.headers:
        lower = name.lower()
        if lower not in names:
            names[lower] = value
        if lower in _FRAMING:
            if lower == b"host":
                hosts += 1
                if _HOST.fullmatch(value) is None:
                    raise BadFraming("malformed Host header")
            else:
                _framing_header(head, lower, value)
    if hosts != 1 and not (hosts == 0 and head.http10):
        raise BadFraming("exactly one Host header is required")
    _check_line(raw, head)
    if head.http10:
        _only_in_1_1(head)
    if head.chunked and parser.complete:  # llhttp takes what follows for the other protocol
        raise BadFraming("a request to upgrade cannot have a chunked body")
    return head


def _check_line(raw: bytes, head: RequestHead) -> None:
    if _LINE.match(raw) is None:
        raise BadFraming("the request line must be a method, a target in origin form and HTTP/1.1, one space between")
    if head.method == b"TRACE":
        raise BadFraming("TRACE would show a client what the gateway adds to its requests")
    if head.target.find(b"#") >= 0:
        raise BadPath("a fragment is not part of a request target")


def _only_in_1_1(head: RequestHead) -> None:
    if head.chunked:
        raise BadFraming("Transfer-Encoding is not defined for HTTP/1.0")
    if b"keep-alive" not in head.connection:
        head.keep_alive = False


def _framing_header(head: RequestHead, name: bytes, value: bytes) -> None:
    if name == b"content-length":
        if not value.isdigit() or len(value) > 18:
            raise BadFraming("malformed Content-Length")
        head.length = int(value)
    elif name == b"transfer-encoding":
        if head.chunked or value.lower() != b"chunked":
            raise BadFraming("only Transfer-Encoding: chunked is supported")
        head.chunked = True
    elif name == b"connection":
        tokens = frozenset(token.strip().lower() for token in value.split(b","))
        head.connection |= tokens
        if b"close" in tokens:
            head.keep_alive = False
    elif name == b"expect":
        if value.lower() != b"100-continue":
            raise BadFraming("unknown expectation")
        head.expects_continue = not head.http10
    elif b"_" in name:
        raise BadFraming("a framing header spelt with an underscore")


@lru_cache(256)
def status_line(status: int, reason: bytes) -> bytes:
    """Of an answer to a client."""
    return b"HTTP/1.1 %d %b\r\n" % (status, reason)


def apparent(raw: bytes) -> tuple[bytes, bytes]:
    """Method and target that a refused head seems to have: good for choosing the dialect of its answer, no more."""
    match = _APPARENT.match(raw)
    return (match[1], match[2]) if match else (b"", b"")


class ResponseHead(Struct):
    status: int
    reason: bytes
    _headers: list[Header] | None  # None: still to be taken from the block
    names: dict[bytes, bytes]  # lower-case name -> first value
    block: bytes  # the header lines as they came, each with its CRLF
    length: int | None
    chunked: bool
    keep_alive: bool
    facts: dict[str, Any] = {}  # what was made of alike heads before; see gateway.net.repeat

    @property
    def headers(self) -> list[Header]:
        if self._headers is None:  # then each line is a name, a colon, a space and the value
            lines = [line.partition(b": ") for line in self.block.split(b"\r\n")[:-1]]
            self._headers = [(name, value) for name, _, value in lines]
        return self._headers


class ResponseParser:
    """Collects one answer: head by llhttp, then the pieces of a chunked body."""

    __slots__ = (
        *("between_chunks", "body", "chunk_ended", "complete", "headers", "keep_alive", "parser", "reason", "surplus"),
        "trailing",
    )

    def __init__(self) -> None:
        self.headers: list[Header] = []
        self.body: list[bytes] = []
        self.reason = b""
        self.complete = False
        self.surplus = False  # something follows the end of the answer
        self.keep_alive = False
        self.trailing = False
        self.chunk_ended = False
        self.between_chunks = False  # of a chunked body: the next byte begins a size line
        self.parser = httptools.HttpResponseParser(self)

    def on_message_begin(self) -> None:
        self.surplus = self.complete

    def on_status(self, reason: bytes) -> None:
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.trailing:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if not self.trailing:  # llhttp forgets it with the end of the message
            self.keep_alive = self.parser.should_keep_alive()
        self.trailing = True

    def on_body(self, data: bytes) -> None:
        if not self.complete:
            self.body.append(data)

    def on_chunk_header(self) -> None:
        self.chunk_ended = False

    def on_chunk_complete(self) -> None:
        self.chunk_ended = True

    def on_message_complete(self) -> None:
        self.complete = True

    def release(self) -> None:
        """Nothing more is fed. llhttp's parser and its callbacks hold one another, and a call shall leave no cycle."""
        if hasattr(self, "parser"):
            del self.parser

    def feed(self, data: bytes) -> None:
        """Raises httptools.HttpParserError."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        self.between_chunks = (
            self.chunk_ended and not self.complete and data.endswith(b"\r\n")  # else a size line has begun
        )


def read_response_head(raw: bytes, parser: ResponseParser) -> ResponseHead:
    """Read one complete head. Raises httptools.HttpParserError or ValueError for what is not HTTP/1.x."""
    if not raw.startswith(b"HTTP/1."):  # llhttp leaves out empty lines in front of it
        raise ValueError("no status line")
    parser.feed(raw)
    status = parser.parser.get_status_code()
    names: dict[bytes, bytes] = {}
    for name, value in parser.headers:
        lower = name.lower()
        if lower not in names:
            names[lower] = value
        elif lower == b"transfer-encoding":
            raise ValueError("repeated Transfer-Encoding")
    length, chunked = _framing(names)
    parser.between_chunks = chunked
    block = raw[raw.index(b"\n") + 1 : -2]
    return ResponseHead(status, parser.reason, parser.headers, names, block, length, chunked, parser.keep_alive)


def chunk_parser() -> ResponseParser:
    """For the chunked body of an answer whose head was read in another way."""
    parser = ResponseParser()
    parser.feed(_CHUNKED_HEAD)
    parser.between_chunks = True
    return parser


def check_beginning(raw: bytes) -> None:
    """Can this become the head of an answer? Raises ValueError."""
    if len(raw) > HEAD_LIMIT:
        raise ValueError("head too large")
    if raw.find(b"\n\n") >= 0:
        raise ValueError("lines must end with CRLF")
    if not raw.startswith(b"HTTP/1."[: len(raw)]):
        raise ValueError("no status line")


def whole_chunk(data: bytes) -> int:
    """Size of the one whole, plainly written chunk that this is; 0 for everything else (RFC 9112 7.1)."""
    size = chunk_size(len(data))
    return size if size and data.startswith(size_line(size)) and data.endswith(b"\r\n") else 0


@lru_cache(4096)
def size_line(size: int) -> bytes:
    """The line in front of a chunk. Most chunks of a stream have one of few sizes."""
    return b"%x\r\n" % size


@lru_cache(4096)
def chunk_size(length: int) -> int:
    """Of the data in a chunk that takes `length` bytes with its framing; 0 where no chunk does."""
    for digits in range(1, 9):
        size = length - digits - 4
        if size > 0 and len(b"%x" % size) == digits:
            return size
    return 0


def _framing(names: dict[bytes, bytes]) -> tuple[int | None, bool]:
    coding, length = names.get(b"transfer-encoding"), names.get(b"content-length")
    if coding is not None:
        if length is not None:
            raise ValueError("both Content-Length and Transfer-Encoding")
        if coding.lower() != b"chunked":
            raise ValueError("unsupported Transfer-Encoding")
        return None, True
    if length is None:
        return None, False
    if not length.isdigit() or len(length) > 18:
        raise ValueError("malformed Content-Length")
    return int(length), False
