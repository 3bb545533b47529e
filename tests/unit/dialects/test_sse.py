"""The SSE splitter gives the events of the WHATWG rules, however the bytes are cut."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects.sse import MAX_EVENT, Splitter, parse, parse_frame, without_done


def reference(stream):
    """The rules of the standard, line by line over the whole text."""
    stream = stream.removeprefix(b"\xef\xbb\xbf")
    lines = re.split(rb"\r\n|\r|\n", stream)
    events, name, data = [], b"", []
    for line in lines[:-1]:
        if not line:
            if data:
                events.append((name, b"\n".join(data)))
            name, data = b"", []
            continue
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return events


def split(pieces):
    splitter = Splitter()
    return [event for piece in pieces for event in splitter.feed(piece)]


CASES = [
    b"data: a\n\ndata: b\n\n",
    b"data: a\r\n\r\ndata: b\r\n\r\n",
    b"data: a\r\rdata: b\r\r",
    b"data: a\n\r\ndata: b\r\n\n",
    b"\xef\xbb\xbfdata: bom\n\n\xef\xbb\xbfdata: not at the start\n\n",
    b": comment\n\n: another\ndata: x\n\n",
    b"event: e\ndata: 1\ndata: 2\ndata\ndata:\n\n",
    b"data:no space\n\ndata:  two\n\n",
    b"id: 7\nretry: 10\nevent:e\nunknown: x\ndata: y\n\n",
    "data: ü😀\n\ndata: ☂\n\n".encode(),
    b"\n\n\ndata: a\n\n\n\n\ndata: b\n\n",
    b"event: only\n\ndata: z\n\n",
    b"data: open",
    b"",
]


@pytest.mark.parametrize("stream", CASES)
def test_every_split_gives_the_same_events(stream):
    expected = reference(stream)
    assert split([stream]) == expected
    assert split([stream[i : i + 1] for i in range(len(stream))]) == expected
    for first, second in itertools.combinations(range(len(stream) + 1), 2):
        assert split([stream[:first], stream[first:second], stream[second:]]) == expected


@settings(deadline=None)  # shared machines pause
@given(
    st.lists(st.sampled_from([b"data", b": ", b":", b"event", b"x", b"\n", b"\r", b"\r\n", b"\xef\xbb\xbf", b"\xc3"])),
    st.lists(st.integers(0, 60), max_size=4),
)
def test_any_text_any_split(tokens, at):
    stream = b"".join(tokens)
    edges = [0, *sorted(min(i, len(stream)) for i in at), len(stream)]
    assert split([stream[a:b] for a, b in itertools.pairwise(edges)]) == reference(stream)


def test_an_event_ended_by_cr_is_given_at_once():
    assert split([b"data: a\r\r"]) == [(b"", b"a")]


def test_the_rest_without_its_empty_line_is_given_at_the_end():
    splitter = Splitter()
    assert splitter.feed(b"data: a\n\nevent: e\ndata: b\n") == [(b"", b"a")]
    assert splitter.partial
    assert splitter.end() == [(b"e", b"b")]
    assert not splitter.partial


def test_idle_between_events_only():
    splitter = Splitter()
    assert splitter.idle
    splitter.feed(b"\xef")
    assert not splitter.idle
    splitter.feed(b"\xbb\xbfdata: a\n\n")
    assert splitter.idle
    splitter.feed(b"d")
    assert not splitter.idle
    splitter.feed(b"ata: b\r\n\r")
    assert not splitter.idle
    splitter.feed(b"\n")
    assert splitter.idle


@pytest.mark.parametrize("size", [MAX_EVENT, 1000, 65_536])
def test_an_event_too_large_is_skipped_and_flagged(size):
    splitter = Splitter()
    found = []
    held = 0
    for piece in [b"data: ", *[b"x" * size] * (2 * MAX_EVENT // size + 2), b"\n", b"\ndata: after\n\n"]:
        found += splitter.feed(piece)
        held = max(held, len(splitter._rest))
    assert splitter.overflowed
    assert found == [(b"", b"after")]
    assert held <= MAX_EVENT + size


def test_parse_needs_data():
    assert parse(b": comment") is None
    assert parse(b"event: x") is None
    assert parse(b"data") == (b"", b"")


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("before", [b"", b"\n\n", b": hold on\n\n", b"event: ping\ndata: {}\n\n"])
@pytest.mark.parametrize("behind", [b"", b"\n\n", b"\n\ndata: [DONE]\n\n", b"\n\nevent: b\ndata: 3"])
def test_a_frame_is_its_first_event(end, before, behind):
    text = before + b"event: a\ndata: 1\ndata: 2" + behind
    assert parse_frame(b"\xef\xbb\xbf" + text.replace(b"\n", end)) == (b"a", b"1\n2")


def test_a_frame_may_have_no_event():
    assert parse_frame(b'[{"error": {}}]') is None
    assert parse_frame(b": ping\n\nevent: ping\ndata: {}\n\n") is None


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("field", [b"data: ", b"data:"])
def test_a_tail_without_its_done_keeps_everything_else(end, field):
    error = b'data: {"error": "data: [DONE]"}' + end * 2
    assert without_done(error + field + b"[DONE]" + end * 2) == error
    assert without_done(error + field + b"[DONE]") == error
    assert without_done(b"") == b""
