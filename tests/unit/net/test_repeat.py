"""Heads that repeat mean what they would mean if each were the first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import GatewayError, HeadersTooLarge
from gateway.net.head import RequestHead, RequestParser, read_request_head
from gateway.net.repeat import HeadReader

POST = b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nX-A: 1\r\n\r\n"


def fresh(raw: bytes) -> RequestHead | str:
    try:
        return read_request_head(raw, RequestParser())
    except GatewayError as fault:
        return fault.code


def read(reader: HeadReader, raw: bytes) -> RequestHead | str:
    try:
        return reader.read(raw, 100)
    except GatewayError as fault:
        return fault.code


lines = st.sampled_from(
    [
        b"Content-Length: 12",
        b"content-length:  7 ",
        b"Content-Length: 12\r\nContent-Length: 12",
        b"Content-Length: +3",
        b"Content-Length: 0012",
        b"Content-Length: 99999999999999999999",
        b"X-Length: 12",
        b"Connection: close",
        b"Connection: x-a",
        b"Expect: 100-continue",
        b"Transfer-Encoding: chunked",
        b"X-A: Content-Length: 12",
        b"authorization: Bearer k",
    ]
)
heads = st.builds(
    lambda method, version, found: (
        b"%b /v1/x HTTP/1.%d\r\nHost: a\r\n%b\r\n" % (method, version, b"".join(line + b"\r\n" for line in found))
    ),
    st.sampled_from([b"POST", b"GET"]),
    st.sampled_from([0, 1]),
    st.lists(lines, max_size=4),
)


@given(st.lists(heads, min_size=1, max_size=6))
def test_a_head_means_the_same_whatever_came_before_it(raws: list[bytes]) -> None:
    reader = HeadReader()
    for raw in [each for one in raws for each in (one, one)]:
        assert read(reader, raw) == fresh(raw)


@given(st.integers(0, len(POST) - 1), st.integers(0, 255))
def test_one_changed_byte_is_another_head(at: int, byte: int) -> None:
    changed = POST[:at] + bytes([byte]) + POST[at + 1 :]
    reader = HeadReader()
    reader.read(POST, 100)
    assert read(reader, changed) == fresh(changed)


@given(st.text("0123456789+-x ", max_size=22))
def test_only_digits_may_differ(digits: str) -> None:
    raw = POST.replace(b" 12", b" " + digits.encode())
    reader = HeadReader()
    reader.read(POST, 100)
    assert read(reader, raw) == fresh(raw)


def test_what_was_made_of_a_head_goes_with_the_equal_ones_only() -> None:
    reader = HeadReader()
    reader.read(POST, 100)
    facts = reader.facts
    facts["x"] = 1
    head = reader.read(POST.replace(b"12", b"345"), 100)
    assert (head.length, head.names[b"content-length"]) == (345, b"345")
    assert dict(head.headers)[b"Content-Length"] == b"345"
    assert reader.facts is facts
    assert reader.parser is None
    reader.read(POST.replace(b"X-A: 1", b"X-A: 2"), 100)
    assert reader.facts == {}
    assert reader.parser is not None


def test_the_limit_of_headers_holds_for_known_heads_too() -> None:
    reader = HeadReader()
    reader.read(POST, 3)
    with pytest.raises(HeadersTooLarge):
        reader.read(POST, 2)
