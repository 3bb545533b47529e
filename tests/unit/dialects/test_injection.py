"""Usage injection adds one splice to the request, and the stripper takes exactly its effects out of the answer."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.dialects.body import splice
from gateway.dialects.injection import UsageStripper, strip_event
from gateway.dialects.sse import MAX_EVENT


def injected(talk, body):
    chat = talk("openai_chat")
    edit = chat.dialect.inject_usage(chat.route, chat.read(body), body)
    return None if edit is None else splice(body, [edit])


@pytest.mark.parametrize(
    ("body", "sent"),
    [
        (b'{"stream":true}', b'{"stream_options":{"include_usage":true},"stream":true}'),
        (b' { "stream" : true }', b' {"stream_options":{"include_usage":true}, "stream" : true }'),
        (b'{"stream":true,"stream_options":{}}', b'{"stream":true,"stream_options":{"include_usage":true}}'),
        (
            b'{"stream":true,"stream_options":{"include_obfuscation":false}}',
            b'{"stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}}',
        ),
        (b'{"stream":true,"stream_options":null}', b'{"stream":true,"stream_options":{"include_usage":true}}'),
        (
            b'{"stream":true,"stream_options":{"include_usage":false}}',
            b'{"stream":true,"stream_options":{"include_usage":true}}',
        ),
        (b'{"stream":true,"stream_options":{"include_usage":true}}', None),
        (b'{"stream":true,"stream_options":"odd"}', None),
        (b'{"stream":false}', None),
        (b'{"model":"m"}', None),
        (b"", None),
    ],
)
def test_the_splice_is_minimal(talk, body, sent):
    assert injected(talk, body) == sent


def test_a_body_that_was_sent_compressed_is_left_alone(talk):
    chat = talk("openai_chat")
    asked = chat.read(b'{"stream":true}')
    assert chat.dialect.inject_usage(chat.route, asked, b"\x1f\x8b\x08 { compressed") is None


@pytest.mark.parametrize(
    ("status", "body", "rejects"),
    [
        (400, b'{"error":{"message":"Unrecognized request argument supplied: stream_options"}}', True),
        (422, b'{"detail":[{"loc":["body","stream_options"],"msg":"extra fields not permitted"}]}', True),
        (400, b'{"error":{"message":"bad model"}}', False),
        (401, b"stream_options", False),
        (200, b"stream_options", False),
    ],
)
def test_rejections(talk, status, body, rejects):
    assert talk("openai_chat").dialect.rejects_injection(status, body) is rejects


CHUNK = b'{"id":"c","choices":[{"index":0,"delta":{"content":"a"}}]'
FILTER = b'{"choices":[],"prompt_filter_results":[{"prompt_index":0}]'
TOTAL = b'{"id":"c","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}'

# what the upstream sends -> what the client shall see
EVENTS = [
    (b"data: " + CHUNK + b',"usage":null}\n\n', b"data: " + CHUNK + b"}\n\n"),
    (b"data: " + CHUNK + b',"usage":null,"obfuscation":"xY"}\n\n', b"data: " + CHUNK + b',"obfuscation":"xY"}\n\n'),
    (b"data: " + CHUNK + b', "usage": null }\r\n\r\n', b"data: " + CHUNK + b" }\r\n\r\n"),
    (b'data: {"usage":null,"choices":[{}]}\n\n', b'data: {"choices":[{}]}\n\n'),
    (b'data: {"a":{"usage":null},"usage":null,"b":{}}\n\n', b'data: {"a":{"usage":null},"b":{}}\n\n'),
    (b'data: {"a":{"b":1,"usage":null}}\n\n', b'data: {"a":{"b":1,"usage":null}}\n\n'),
    (b'data: {"usage":null}\n\n', b"data: {}\n\n"),
    (b"data: " + FILTER + b',"usage":null}\n\n', b"data: " + FILTER + b"}\n\n"),
    (b"data: " + FILTER + b"}\n\n", b"data: " + FILTER + b"}\n\n"),
    (b"data: " + TOTAL + b"\n\n", b""),
    (b"data: " + TOTAL + b"\r\n\r\n", b""),
    (b"data:" + TOTAL.replace(b"[]", b" [ ]") + b"\r\r", b""),
    (b": ping\n\n", b": ping\n\n"),
    (b"data: [DONE]\n\n", b"data: [DONE]\n\n"),
    (b"data: {broken \"usage\"\n\n", b"data: {broken \"usage\"\n\n"),
    (
        b'data: {"choices":[{"delta":{"content":",\\"usage\\":null}"}}]}\n\n',
        b'data: {"choices":[{"delta":{"content":",\\"usage\\":null}"}}]}\n\n',
    ),
    (
        b'data: {"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}\n\n',
        b'data: {"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}\n\n',
    ),
]  # fmt: skip


@pytest.mark.parametrize(("event", "seen"), EVENTS)
def test_one_event(event, seen):
    assert strip_event(event) == seen


def strip(pieces):
    stripper = UsageStripper()
    return b"".join([*map(stripper.feed, pieces), stripper.end()])


@settings(deadline=None)  # shared machines pause
@given(st.lists(st.sampled_from(EVENTS), max_size=6), st.lists(st.integers(0, 400), max_size=6))
def test_any_stream_at_any_split(events, at):
    stream = b"".join(event for event, _ in events)
    seen = b"".join(seen for _, seen in events)
    edges = [0, *sorted(min(i, len(stream)) for i in at), len(stream)]
    assert strip([stream[a:b] for a, b in itertools.pairwise(edges)]) == seen
    assert strip([stream[i : i + 1] for i in range(len(stream))]) == seen


@settings(deadline=None)  # shared machines pause
@given(st.binary(), st.integers(0, 40))
def test_what_is_no_stream_passes_untouched(data, at):
    if b"usage" not in data:
        assert strip([data[:at], data[at:]]) == data


def test_whole_events_are_not_held_back():
    stripper = UsageStripper()
    for event, seen in EVENTS:
        if not event.endswith(b"\r\r"):  # a last CR may be half of a line end
            assert stripper.feed(event) == seen


def test_a_last_chunk_without_its_empty_line():
    assert strip([b"data: " + TOTAL]) == b""
    assert strip([b"data: " + CHUNK]) == b"data: " + CHUNK


def test_an_event_too_large_passes_and_the_next_is_read_again():
    stripper = UsageStripper()
    huge = [b'data: {"usage":null,"x":"', *[b"x" * 65_536] * 40, b'"}\n\n']
    out, held = b"", 0
    for piece in [*huge, b"data: " + TOTAL + b"\n\n", b"data: " + CHUNK + b',"usage":null}\n\n']:
        out += stripper.feed(piece)
        held = max(held, len(stripper._rest))
    assert out + stripper.end() == b"".join(huge) + b"data: " + CHUNK + b"}\n\n"
    assert held <= MAX_EVENT + 65_536


def test_stripping_gives_what_the_upstream_says_without_injection(talk):
    """A recorded pair in spirit: the same answer with and without include_usage."""

    def chunk(n):
        return {"id": "c", "choices": [{"index": 0, "delta": {"content": f"w{n}"}, "finish_reason": None}]}

    plain = [chunk(n) for n in range(20)]
    asked = [{**value, "usage": None} for value in plain] + [json.loads(TOTAL)]

    def encode(values):
        return b"".join(b"data: %b\n\n" % json.dumps(value, separators=(",", ":")).encode() for value in values)

    assert strip([encode(asked) + b"data: [DONE]\n\n"]) == encode(plain) + b"data: [DONE]\n\n"
