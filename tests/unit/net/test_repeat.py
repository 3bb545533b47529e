"""Heads that repeat mean what they would mean if each were the first."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import GatewayError, HeadersTooLarge
from gateway.net.head import (
    RequestHead,
    RequestParser,
    ResponseHead,
    ResponseParser,
    read_request_head,
    read_response_head,
)
from gateway.net.repeat import OFTEN, SHAPES, SHAPES_MADE, AnswerReader, HeadReader

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


@settings(deadline=None)
@given(st.lists(heads, min_size=1, max_size=6))
def test_a_head_means_the_same_whatever_came_before_it(raws: list[bytes]) -> None:
    reader = HeadReader()
    for raw in [each for one in raws for each in (one, one)]:
        assert read(reader, raw) == fresh(raw)


@settings(deadline=None)
@given(st.integers(0, len(POST) - 1), st.integers(0, 255))
def test_one_changed_byte_is_another_head(at: int, byte: int) -> None:
    changed = POST[:at] + bytes([byte]) + POST[at + 1 :]
    reader = HeadReader()
    reader.read(POST, 100)
    assert read(reader, changed) == fresh(changed)


@settings(deadline=None)
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


# -- answers

ANSWER = (
    b"HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 22:00:00 GMT\r\nContent-Type: application/json\r\n"
    b"X-Request-Id: req_1\r\nx-none: -\r\nContent-Length: 12\r\nConnection: keep-alive\r\n\r\n"
)


def by_llhttp(raw: bytes) -> tuple[object, ...] | None:
    try:
        return facts_of(read_response_head(raw, ResponseParser()))
    except (ValueError, httptools.HttpParserError):
        return None


def facts_of(head: ResponseHead) -> tuple[object, ...]:
    return (
        *(head.status, head.reason, head.headers, head.names, head.block, head.length, head.chunked),
        head.keep_alive,
    )


def taught(raw: bytes = ANSWER) -> AnswerReader:
    reader = AnswerReader()
    for _ in range(OFTEN):
        assert reader.read(raw) is None
        reader.learn(raw, read_response_head(raw, ResponseParser()))
    return reader


@pytest.mark.parametrize(
    "other",
    [
        ANSWER,
        ANSWER.replace(b"req_1", b"req_22222").replace(b": 12", b": 4711"),
        ANSWER.replace(b"req_1", b"a\tb \xe4\xf6: c"),
    ],
)
def test_an_answer_with_the_same_headers_means_what_llhttp_says(other: bytes) -> None:
    head = taught().read(other)
    assert head is not None
    assert facts_of(head) == by_llhttp(other)


@pytest.mark.parametrize(
    "other",
    [
        ANSWER.replace(b"200 OK", b"201 OK"),
        ANSWER.replace(b"HTTP/1.1", b"HTTP/1.0"),
        ANSWER.replace(b"keep-alive", b"close"),
        ANSWER.replace(b"application/json", b"text/event-stream"),
        ANSWER.replace(b": 12", b": +12"),
        ANSWER.replace(b": 12", b": 1" + b"0" * 18),
        ANSWER.replace(b": 12", b": 12\r\nTransfer-Encoding: chunked"),
        ANSWER.replace(b"req_1", b"req_1\r\nSet-Cookie: a=b"),
        ANSWER.replace(b"req_1", b"req\r1"),
        ANSWER.replace(b"req_1", b"req\n1"),
        ANSWER.replace(b"req_1", b"req\n 1"),
        ANSWER.replace(b"req_1", b"req\x001"),
        ANSWER.replace(b"req_1", b"req\x7f1"),
        ANSWER.replace(b"req_1", b"req_1 "),
        ANSWER.replace(b"req_1", b" req_1"),
        ANSWER.replace(b"req_1", b""),
        ANSWER.replace(b"X-Request-Id", b"X-Request-ID"),
    ],
)
def test_an_answer_that_differs_in_anything_else_is_left_to_llhttp(other: bytes) -> None:
    assert taught().read(other) is None


@settings(deadline=None)
@given(st.integers(0, len(ANSWER)), st.integers(0, 12), st.binary(max_size=12))
def test_no_mutation_is_read_in_another_way_than_by_llhttp(at: int, cut: int, put: bytes) -> None:
    raw = ANSWER[:at] + put + ANSWER[at + cut :]
    end = raw.find(b"\r\n\r\n")
    raw = raw[: end + 4]
    head = taught().read(raw) if end >= 0 else None
    if head is not None:
        assert facts_of(head) == by_llhttp(raw)


def test_repeated_names_odd_spacing_and_upgrades_get_no_shape() -> None:
    for raw in (
        ANSWER.replace(b"x-none: -", b"x-request-id: 2"),
        ANSWER.replace(b"X-Request-Id: ", b"X-Request-Id:"),
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ):
        assert taught(raw).read(raw) is None


def test_as_many_shapes_are_known_as_are_worth_it_and_no_more_are_made() -> None:
    reader = AnswerReader()
    made = [ANSWER.replace(b"X-Request-Id", b"X-Request-Id-%d" % number) for number in range(SHAPES_MADE + 1)]
    for raw in made:
        for _ in range(OFTEN):
            reader.learn(raw, read_response_head(raw, ResponseParser()))
    known = [raw for raw in made if reader.read(raw) is not None]
    assert known == made[SHAPES_MADE - SHAPES : SHAPES_MADE]


def test_alike_answers_share_what_was_made_of_their_heads() -> None:
    reader = taught()
    one, other = reader.read(ANSWER), reader.read(ANSWER.replace(b"req_1", b"req_2"))
    assert one is not None
    assert other is not None
    one.facts["seen"] = True
    assert other.facts == {"seen": True}
