"""The beginning of a stream: what is held, what may be committed, and when the gateway pings."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gateway.call import Waits
from gateway.errors import GatewayError, UpstreamTimeout
from gateway.journal.convert import outcome_of
from gateway.pipeline import serve
from gateway.testing.doubles import MemoryExchange, World, ask, drive

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
GEMINI = "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
STREAM = b'{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true},"messages":[]}'
CLAUDE = b'{"model":"claude-sonnet-4-5","stream":true,"max_tokens":9,"messages":[]}'
SSE = (b"Content-Type", b"text/event-stream")
PING = b": ping\n\n"
CHUNK = b'data: {"id":"c","model":"gpt-4o","choices":[{"index":0,"delta":{"content":"Hi there"}}]}\n\n'
USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}\n\n'
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"busy","type":"server_error","code":"server_is_overloaded"}}\n\n'
SILENCE = None


def play(
    *pieces: bytes | GatewayError | None,
    ping: float | None = 10,
    headers: Sequence[tuple[bytes, bytes]] = (SSE,),
    path: str = CHAT,
    body: bytes = STREAM,
) -> tuple[World, MemoryExchange]:
    world = World()
    world.settings["waits"] = lambda call: Waits(1, 2, 3, 4, 5, ping)
    exchange = world.answer(200, headers, pieces)
    drive(serve(ask(path, body), world.down, world.gateway()))
    return world, exchange


def test_a_silence_behind_the_head_is_filled_with_pings() -> None:
    world, exchange = play(SILENCE, SILENCE, CHUNK, USAGE, DONE)
    assert world.down.sent == PING + PING + CHUNK + USAGE + DONE
    assert outcome_of(world.call) == "ok"
    assert exchange.has_spoken
    assert world.call.response_bytes == len(CHUNK + USAGE + DONE), "its own pings are not the answer"


def test_in_the_words_of_the_dialect() -> None:
    world, _ = play(SILENCE, b"", path=MESSAGES, body=CLAUDE)
    assert world.down.sent.startswith(b'event: ping\ndata: {"type": "ping"}\n\n')


def test_not_where_a_client_of_the_dialect_would_choke_on_it() -> None:
    world = World()
    world.settings["waits"] = lambda call: Waits(1, 2, 3, 4, 5, 10)
    chunk = b'data: {"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"}]}\r\n\r\n'
    world.answer(200, (SSE,), [chunk])
    drive(serve(ask(GEMINI, b'{"contents":[]}'), world.down, world.gateway()))
    assert world.down.sent == chunk


def test_never_within_an_event() -> None:
    world, _ = play(CHUNK[:10], SILENCE, CHUNK[10:], DONE)
    assert world.down.sent == CHUNK + DONE


def test_behind_a_whole_comment_of_the_upstream() -> None:
    world, _ = play(PING[:-1], PING[-1:], SILENCE, CHUNK, DONE)
    assert world.down.sent == PING + PING + CHUNK + DONE


@pytest.mark.parametrize("header", [(b"Content-Encoding", b"gzip"), (b"Content-Length", b"500")])
def test_not_into_what_nothing_can_be_added_to(header: tuple[bytes, bytes]) -> None:
    world, _ = play(b"\x1f\x8b", UpstreamTimeout("x"), headers=(SSE, header))
    assert PING not in world.down.sent


def test_an_error_behind_a_ping_is_an_event_and_the_stream_is_cut() -> None:
    world, _ = play(SILENCE, ERROR)
    assert world.down.sent == PING + ERROR
    assert (world.down.endings, outcome_of(world.call)) == (["abort"], "truncated")


def test_a_fault_behind_a_ping_is_told_in_the_stream() -> None:
    world, _ = play(SILENCE, UpstreamTimeout("said nothing", code="upstream_first_content_timeout"))
    assert world.down.sent.startswith(PING + b'data: {"error"')
    assert b"[DONE]" not in world.down.sent
    assert world.down.endings == ["abort"]


def test_before_anything_was_said_the_same_fault_has_a_status() -> None:
    world, _ = play(PING, UpstreamTimeout("said nothing", code="upstream_first_content_timeout"), ping=None)
    assert world.down.head is not None
    assert (world.down.head[0], outcome_of(world.call)) == (504, "failed")


RESPONSES = b'{"model":"gpt-4o","stream":true,"input":"x"}'
ROLE = b'data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}\n\n'
START = b'event: message_start\ndata: {"type":"message_start","message":{}}\n\nevent: ping\ndata: {"type":"ping"}\n\n'
CREATED = b'event: response.created\ndata: {"type":"response.created","sequence_number":0,"response":{"id":"r"}}\n\n'
OVERLOADED = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}\n\n'
FAILED = b"""event: response.failed
data: {"type":"response.failed","response":{"error":{"code":"server_is_overloaded","message":"busy"}}}

"""


@pytest.mark.parametrize(
    ("path", "body", "beginning", "error", "status"),
    [
        (CHAT, STREAM, ROLE, ERROR, 503),
        (MESSAGES, CLAUDE, START, OVERLOADED, 529),
        ("/v1/responses", RESPONSES, CREATED, FAILED, 503),
    ],
)
def test_who_is_going_to_answer_is_not_passed_on_before_it_answers(
    path: str, body: bytes, beginning: bytes, error: bytes, status: int
) -> None:
    """So what fails then can still be told by a status, and tried elsewhere."""
    for end, told, outcome in (
        (UpstreamTimeout("said nothing", code="upstream_first_content_timeout"), 504, "failed"),
        (b"", 502, "failed"),
        (error, status, "upstream_error"),
    ):
        world, _ = play(beginning, end, ping=None, path=path, body=body)
        assert world.down.head is not None
        assert (world.down.head[0], outcome_of(world.call)) == (told, outcome)


def test_who_is_going_to_answer_passes_with_the_first_content_byte_for_byte() -> None:
    world, exchange = play(ROLE, CHUNK, USAGE, DONE, ping=None)
    assert world.down.sent == ROLE + CHUNK + USAGE + DONE
    assert exchange.has_spoken


@pytest.mark.parametrize(
    ("path", "body", "beginning"),
    [(CHAT, STREAM, ROLE), (MESSAGES, CLAUDE, START), ("/v1/responses", RESPONSES, CREATED)],
)
def test_who_is_going_to_answer_waits_a_moment_for_what_it_says_and_passes(
    path: str, body: bytes, beginning: bytes
) -> None:
    for ping in (None, 10):
        world, exchange = play(beginning, SILENCE, UpstreamTimeout("x"), ping=ping, path=path, body=body)
        assert world.down.sent.startswith(beginning)
        assert not exchange.has_spoken, "it is no content"


def test_who_is_going_to_answer_passes_before_a_ping() -> None:
    world, _ = play(ROLE, SILENCE, SILENCE, CHUNK, USAGE, DONE)
    assert world.down.sent == ROLE + PING + CHUNK + USAGE + DONE


def test_pings_of_the_upstream_that_were_held_for_long_pass_and_are_still_no_content() -> None:
    world = World()
    world.step = 2_000_000_000
    exchange = world.answer(200, (SSE,), [PING, PING, PING, UpstreamTimeout("x")])
    drive(serve(ask(CHAT, STREAM), world.down, world.gateway()))
    assert world.down.sent.startswith(PING)
    assert not exchange.has_spoken
