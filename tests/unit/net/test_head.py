from __future__ import annotations

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import BadFraming, BadPath
from gateway.net.head import (
    RequestHead,
    RequestParser,
    ResponseHead,
    ResponseParser,
    apparent,
    read_request_head,
    read_response_head,
    whole_chunk,
)


def request(*lines: bytes, line: bytes = b"POST /x HTTP/1.1", host: bytes = b"Host: gate") -> RequestHead:
    parts = [line, *([host] if host else []), *lines]
    return read_request_head(b"\r\n".join(parts) + b"\r\n\r\n", RequestParser())


def response(*lines: bytes, line: bytes = b"HTTP/1.1 200 OK") -> ResponseHead:
    return read_response_head(b"\r\n".join([line, *lines]) + b"\r\n\r\n", ResponseParser())


def test_case_order_and_duplicates_are_kept_and_the_first_value_found_by_name() -> None:
    head = request(b"X-a: 1", b"x-A: 2", b"X-Empty:")
    assert head.headers == [(b"Host", b"gate"), (b"X-a", b"1"), (b"x-A", b"2"), (b"X-Empty", b"")]
    assert (head.method, head.target, head.names[b"x-a"]) == (b"POST", b"/x", b"1")


@pytest.mark.parametrize(
    ("lines", "line", "keep"),
    [
        ([], b"GET / HTTP/1.1", True),
        ([b"Connection: close"], b"GET / HTTP/1.1", False),
        ([b"Connection: X-A, Close"], b"GET / HTTP/1.1", False),
        ([], b"GET / HTTP/1.0", False),
        ([b"Connection: keep-alive"], b"GET / HTTP/1.0", True),
    ],
)
def test_how_long_the_connection_lives(lines: list[bytes], line: bytes, keep: bool) -> None:
    assert request(*lines, line=line).keep_alive is keep


def test_what_the_connection_header_lists() -> None:
    assert request(b"Connection: a, B ", b"connection: c").connection == {b"a", b"b", b"c"}


def test_framing() -> None:
    assert request(b"Content-Length: 12").length == 12
    assert request(b"Transfer-Encoding: Chunked").chunked
    assert request(b"Expect: 100-Continue").expects_continue
    assert not request(b"Expect: 100-continue", line=b"POST / HTTP/1.0").expects_continue
    plain = request()
    assert (plain.length, plain.chunked, plain.expects_continue) == (None, False, False)


@pytest.mark.parametrize("host", [b"gate", b"gate:80", b"127.0.0.1:8787", b"[::1]:80", b"a_b.example", b"xn--x"])
def test_hosts(host: bytes) -> None:
    assert request(host=b"Host: " + host).names[b"host"] == host


def test_only_http_1_0_may_do_without_a_host() -> None:
    assert b"host" not in request(line=b"GET / HTTP/1.0", host=b"").names
    with pytest.raises(BadFraming, match="Host"):
        request(host=b"")


@pytest.mark.parametrize("line", [b"GET /?a=#b HTTP/1.1", b"GET /# HTTP/1.1"])
def test_a_fragment_is_no_part_of_a_target(line: bytes) -> None:
    with pytest.raises(BadPath):
        request(line=line)


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        (b"GET /x HTTP/1.1", (b"GET", b"/x")),
        (b"POST /v1/messages\x00", (b"POST", b"/v1/messages")),
        (b"get /x", (b"", b"")),
        (b"\x16\x03", (b"", b"")),
        (b"", (b"", b"")),
    ],
)
def test_what_a_refused_head_seems_to_ask(raw: bytes, seen: tuple[bytes, bytes]) -> None:
    assert apparent(raw) == seen


def test_a_chunked_body_ends_where_it_says_and_trailers_are_dropped() -> None:
    parser = RequestParser()
    read_request_head(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", parser)
    parser.feed(b"3\r\nabc\r\n")
    parser.feed(b"2;x=y\r\nde\r\n0\r\nX-T: 1\r\n\r\n")
    assert (b"".join(parser.body), parser.complete, parser.pipelined) == (b"abcde", True, False)
    assert (b"X-T", b"1") not in parser.headers


@pytest.mark.parametrize("behind", [b"GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\nxyz", b"\x00garbage"])
def test_what_follows_a_chunked_body_is_no_part_of_it(behind: bytes) -> None:
    parser = RequestParser()
    read_request_head(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", parser)
    parser.feed(b"3\r\nabc\r\n0\r\n\r\n" + behind)
    assert (b"".join(parser.body), parser.complete, parser.pipelined) == (b"abc", True, True)


def test_an_answer_and_its_block() -> None:
    head = response(b"X-a: 1", b"x-A: 2", b"Content-Length: 5", line=b"HTTP/1.1 201 All Right")
    assert (head.status, head.reason, head.length, head.chunked, head.keep_alive) == (201, b"All Right", 5, False, True)
    assert head.block == b"X-a: 1\r\nx-A: 2\r\nContent-Length: 5\r\n"
    assert head.names[b"x-a"] == b"1"


@pytest.mark.parametrize(
    ("lines", "line", "keep"),
    [
        ([b"Content-Length: 0"], b"HTTP/1.1 200 OK", True),
        ([b"Content-Length: 0", b"Connection: close"], b"HTTP/1.1 200 OK", False),
        ([b"Content-Length: 0"], b"HTTP/1.0 200 OK", False),
        ([], b"HTTP/1.1 200 OK", False),
    ],
)
def test_whether_the_upstream_keeps_its_connection(lines: list[bytes], line: bytes, keep: bool) -> None:
    assert response(*lines, line=line).keep_alive is keep


@pytest.mark.parametrize(
    "lines",
    [
        [b"Content-Length: 3", b"Transfer-Encoding: chunked"],
        [b"Transfer-Encoding: gzip"],
        [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
        [b"Content-Length: many"],
        [b"Content-Length: 3", b"Content-Length: 4"],
        [b"X: a\r\n folded"],
        [b"X : a"],
    ],
)
def test_answers_of_two_meanings_are_none(lines: list[bytes]) -> None:
    with pytest.raises((httptools.HttpParserError, ValueError)):
        response(*lines)


@pytest.mark.parametrize("start", [b"\r\n", b"\r\n\r\n", b" ", b"x"])
def test_nothing_stands_before_the_status_line(start: bytes) -> None:
    """An empty line there would make the status line one of the headers that are passed on."""
    with pytest.raises((httptools.HttpParserError, ValueError)):
        read_response_head(start + b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n", ResponseParser())


def test_what_follows_an_answer_is_no_part_of_it() -> None:
    parser = ResponseParser()
    read_response_head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", parser)
    parser.feed(b"3\r\nabc\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nxyz")
    assert (b"".join(parser.body), parser.complete, parser.surplus) == (b"abc", True, True)


def framed(pieces: list[bytes]) -> bytes:
    return b"".join([b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces])


@pytest.mark.parametrize(
    "data",
    [b"", b"0\r\n\r\n", b"05\r\nhello\r\n", b"A\r\n0123456789\r\n", b"5 \r\nhello\r\n", b"5;x=y\r\nhello\r\n",
     b"+5\r\nhello\r\n", b"5\nhello\r\n", b"5\r\nhello\n\n", b"5\r\nhello", b"5\r\nhello\r", b"4\r\nhello\r\n",
     b"6\r\nhello\r\n", b"0x5\r\nhello\r\n", b"5_0\r\nhello\r\n", b"ffffffffff\r\nhello\r\n"],
)  # fmt: skip
def test_whatever_is_written_in_another_way_is_left_to_llhttp(data: bytes) -> None:
    assert whole_chunk(data) == 0


@settings(deadline=None)
@given(st.integers(1, 70_000))
def test_a_whole_chunk_is_known_by_its_length(size: int) -> None:
    data = framed([b"x" * size])
    assert whole_chunk(data) == size
    assert whole_chunk(data + b"\r\n") == 0
