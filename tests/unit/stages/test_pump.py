from __future__ import annotations

import gzip
import json
from collections.abc import Sequence

import brotli
import pytest
import zstandard

from gateway.call import Call
from gateway.errors import ClientGone, GatewayError, StreamStalled, UpstreamReset
from gateway.journal.convert import outcome_of
from gateway.pipeline import serve
from gateway.policy.encoding import STEP
from gateway.stages.peek import PEEK_LIMIT
from gateway.stages.pump import GRACE_SECONDS, WHOLE_LIMIT
from gateway.testing.doubles import MemoryExchange, World, ask, drive

CHAT = "/v1/chat/completions"
QUESTION = b'{"model":"gpt-4o","messages":[]}'
STREAM = b'{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true},"messages":[]}'
UNASKED = b'{"model":"gpt-4o","stream":true,"messages":[]}'
SSE = (b"Content-Type", b"text/event-stream")
JSON = (b"Content-Type", b"application/json")
PING = b": ping\n\n"
CHUNK = b'data: {"id":"c","model":"gpt-4o","choices":[{"index":0,"delta":{"content":"Hi there"}}]}\n\n'
COUNT = b'"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}'
USAGE = b'data: {"id":"c","model":"gpt-4o","choices":[],' + COUNT + b"}\n\n"
HALF = CHUNK[:60] + b"\n\n"
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"busy","type":"server_error","code":"server_is_overloaded"}}\n\n'
ANSWER = b'{"id":"c","model":"gpt-4o","choices":[{"index":0,"message":{"content":"Hi"}}],' + COUNT + b"}"


def play(
    body: bytes,
    headers: Sequence[tuple[bytes, bytes]],
    *pieces: bytes | GatewayError,
    status: int = 200,
    world: World | None = None,
    path: str = CHAT,
) -> tuple[World, MemoryExchange]:
    world = world or World()
    exchange = world.answer(status, headers, pieces)
    drive(serve(ask(path, body), world.down, world.gateway()))
    return world, exchange


def facts(call: Call) -> tuple[int, str, str]:
    assert call.answer is not None
    return call.status, outcome_of(call).value, call.answer.usage_source.value


def test_a_document_is_sent_in_one_piece() -> None:
    world, _ = play(QUESTION, [JSON], ANSWER[:9], ANSWER[9:])
    assert world.names() == ["start", "close exchange", "record", "finish"]
    assert (world.down.sent, facts(world.call)) == (ANSWER, (200, "ok", "provider"))


@pytest.mark.parametrize(
    ("method", "body", "answer"),
    [
        (b"embedContent", b'{"content":{"parts":[{"text":"one two three"}]}}', b'{"embedding":{"values":[0.1]}}'),
        (b"batchEmbedContents", b'{"requests":[{"content":{"parts":[]}}]}', b'{"embeddings":[{"values":[0.1]}]}'),
    ],
)
def test_embeddings_without_usage_are_estimated_though_they_name_nothing(
    method: bytes, body: bytes, answer: bytes
) -> None:
    world, _ = play(body, [JSON], answer, path=f"/v1beta/models/gemini-embedding-001:{method.decode()}")
    assert (world.down.sent, facts(world.call)) == (answer, (200, "ok", "estimated"))
    assert world.call.money.total is not None


def test_a_byte_order_mark_hides_no_usage_and_passes() -> None:
    world, _ = play(QUESTION, [JSON], b"\xef\xbb", b"\xbf" + ANSWER)
    assert (world.down.sent, facts(world.call)) == (b"\xef\xbb\xbf" + ANSWER, (200, "ok", "provider"))


def test_a_large_document_is_sent_as_it_comes() -> None:
    pieces = [ANSWER[:-1], b" " * WHOLE_LIMIT, b" " * 10, b"}"]
    world, _ = play(QUESTION, [JSON], *pieces)
    assert world.down.sent == b"".join(pieces)
    assert world.names()[:4] == ["start", "write", "write", "write"]
    assert facts(world.call) == (200, "ok", "provider")


def test_a_stream_is_sent_piece_by_piece_and_its_end_last() -> None:
    world, exchange = play(STREAM, [SSE], CHUNK, CHUNK[:20], CHUNK[20:], USAGE, DONE)
    assert [data for name, data in world.log if name == "write"] == [CHUNK, CHUNK[:20], CHUNK[20:], USAGE]
    assert world.log[-1] == ("finish", DONE)
    assert exchange.expires == GRACE_SECONDS
    assert facts(world.call) == (200, "ok", "provider")


def test_nothing_is_committed_before_something_was_said() -> None:
    world, _ = play(STREAM, [SSE], PING, PING, CHUNK, DONE)
    assert world.log[1] == ("write", PING + PING + CHUNK)


def test_pings_are_not_held_for_ever() -> None:
    world = World()
    world.step = 2_000_000_000
    world, _ = play(STREAM, [SSE], PING, PING, PING, CHUNK, DONE, world=world)
    assert next(len(data) for name, data in world.log if name == "write") < 3 * len(PING)


def test_neither_is_a_beginning_of_any_size() -> None:
    comment = b": " + b"x" * PEEK_LIMIT + b"\n\n"
    world, _ = play(STREAM, [SSE], comment, PING, CHUNK, DONE)
    assert world.log[1] == ("write", comment)


def test_usage_that_was_asked_for_here_is_taken_out_again() -> None:
    world, _ = play(UNASKED, [SSE, (b"Content-Length", b"999")], CHUNK, USAGE, DONE)
    assert world.down.sent == CHUNK + DONE
    assert world.down.head is not None
    assert world.down.head[3] is None, "its length is no longer known"
    assert b"ontent-Length" not in world.down.head[2]
    assert facts(world.call) == (200, "ok", "injected")


def test_an_error_in_the_first_event_is_the_answer_it_should_have_been() -> None:
    world, _ = play(STREAM, [SSE, (b"X-Up", b"1")], PING, ERROR)
    assert world.down.head is not None
    status, _, block, length = world.down.head
    assert (status, length) == (503, len(world.down.sent))
    assert json.loads(world.down.sent)["error"]["message"] == "busy"
    assert b"X-Up: 1" in block
    assert b"event-stream" not in block
    assert facts(world.call) == (503, "upstream_error", "none")


@pytest.mark.parametrize(
    "pieces", [[ERROR + DONE], [PING + ERROR + DONE], [PING, (ERROR + DONE).replace(b"\n", b"\r\n")]]
)
def test_also_where_the_end_comes_along_with_it(pieces: list[bytes]) -> None:
    world, _ = play(STREAM, [SSE], *pieces)
    assert world.down.head is not None
    assert (world.down.head[0], json.loads(world.down.sent)["error"]["message"]) == (503, "busy")


def test_also_where_it_is_compressed() -> None:
    world, _ = play(STREAM, [SSE, (b"Content-Encoding", b"gzip")], gzip.compress(ERROR))
    assert json.loads(world.down.sent)["error"]["message"] == "busy"
    assert world.down.head is not None
    assert b"gzip" not in world.down.head[2]


def test_an_error_later_passes_and_the_stream_is_cut() -> None:
    world, _ = play(STREAM, [SSE], CHUNK, ERROR)
    assert world.down.sent == CHUNK + ERROR
    assert world.down.endings == ["abort"]
    assert facts(world.call) == (200, "truncated", "estimated")


@pytest.mark.parametrize(
    ("pieces", "code"),
    [
        ([CHUNK], "upstream_truncated"),
        ([CHUNK, CHUNK[:30]], "upstream_truncated"),
        ([CHUNK, UpstreamReset("x", code="upstream_cut")], "upstream_cut"),
        ([CHUNK, StreamStalled("x")], "upstream_stalled"),
    ],
)
def test_a_stream_without_an_end_is_told_and_cut(pieces: list[bytes | GatewayError], code: str) -> None:
    world, _ = play(STREAM, [SSE], *pieces)
    assert world.down.endings == ["abort"]
    event = world.down.sent.rpartition(b"\n\ndata: ")[2]
    assert json.loads(event)["error"]["code"] == code
    assert b"[DONE]" not in world.down.sent
    assert facts(world.call) == (200, "truncated", "estimated")


@pytest.mark.parametrize("pieces", [[], [PING, PING], [UpstreamReset("x", code="upstream_cut")]])
def test_a_stream_that_said_nothing_is_an_error(pieces: list[bytes | GatewayError]) -> None:
    world, _ = play(STREAM, [SSE], *pieces)
    assert (world.call.status, world.down.endings, outcome_of(world.call)) == (502, ["finish"], "failed")


def test_no_event_is_written_where_it_would_break_the_framing_or_the_coding() -> None:
    cut = UpstreamReset("x", code="upstream_cut")
    packed = gzip.compress(CHUNK * 9)
    for header, data in (((b"Content-Length", b"1000"), CHUNK), ((b"Content-Encoding", b"gzip"), packed)):
        world, _ = play(STREAM, [SSE, header], data, cut)
        assert (world.down.sent, world.down.endings) == (data, ["abort"])


def test_what_breaks_behind_the_end_breaks_nothing() -> None:
    world, _ = play(STREAM, [SSE], CHUNK, USAGE, DONE, UpstreamReset("x", code="upstream_cut"))
    assert (world.down.sent, world.down.endings) == (CHUNK + USAGE + DONE, ["finish"])
    assert facts(world.call) == (200, "ok", "provider")


def test_but_a_stated_length_is_kept_or_cut() -> None:
    cut = UpstreamReset("x", code="upstream_cut")
    world, _ = play(STREAM, [SSE, (b"Content-Length", b"999")], CHUNK, USAGE, DONE, cut)
    assert (world.down.sent, world.down.endings) == (CHUNK + USAGE + DONE, ["abort"])


def test_what_goes_on_behind_the_end_is_not_gathered() -> None:
    comments = [PING * 100_000] * 4
    world, _ = play(STREAM, [SSE], CHUNK, DONE, *comments)
    assert world.down.sent == CHUNK + DONE + b"".join(comments)
    assert max(len(data) for name, data in world.log if name == "finish") < 2 * WHOLE_LIMIT
    assert "drained" not in world.names()


@pytest.mark.parametrize("body", [QUESTION, STREAM])
def test_a_web_page_is_no_answer(body: bytes) -> None:
    world, exchange = play(body, [(b"Content-Type", b"text/html; charset=utf-8")], b"<html>")
    assert (world.call.status, outcome_of(world.call), exchange.closed > 0) == (502, "failed", True)
    assert b"upstream_bad_answer" in world.down.sent


@pytest.mark.parametrize(("status", "path"), [(503, CHAT), (200, "/v1/files")])
def test_but_it_may_be_an_error_or_a_file(status: int, path: str) -> None:
    world, _ = play(QUESTION, [(b"Content-Type", b"text/html")], b"<html>", status=status, path=path)
    assert (world.call.status, world.down.sent) == (status, b"<html>")


def test_the_cost_of_a_stream_can_follow_it() -> None:
    world = World()
    world.settings["stream_cost_comment"] = True
    world, _ = play(STREAM, [SSE], CHUNK, USAGE, DONE, world=world)
    assert world.down.sent == CHUNK + USAGE + DONE + b": tollgate cost_usd=0.000009000000 usage_source=provider\n\n"


def test_but_not_where_it_would_break_the_framing() -> None:
    world = World()
    world.settings["stream_cost_comment"] = True
    length = len(CHUNK + USAGE + DONE)
    world, _ = play(STREAM, [SSE, (b"Content-Length", b"%d" % length)], CHUNK, USAGE, DONE, world=world)
    assert world.down.sent == CHUNK + USAGE + DONE


def test_the_cost_header_can_be_left_out() -> None:
    world = World()
    world.settings["cost_header"] = False
    world, _ = play(QUESTION, [JSON], ANSWER, world=world)
    assert world.down.head is not None
    assert b"cost-usd" not in world.down.head[2]


def test_content_is_kept_where_it_is_captured_and_only_so_much() -> None:
    for limit in (0, 10, 10_000):
        world = World()
        world.settings["capture_bytes"] = limit
        world, _ = play(QUESTION, [JSON, (b"Content-Encoding", b"gzip")], gzip.compress(ANSWER), world=world)
        assert world.call.captured == ANSWER[:limit]


@pytest.mark.parametrize("kind", ["document", "stream", "held"])
@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_an_answer_that_expands_is_read_to_its_end_in_turns(coding: str, kind: str) -> None:
    encode = {"gzip": gzip.compress, "br": brotli.compress, "zstd": zstandard.compress}[coding]
    blank = b": " + b"x" * 1000 + b"\n\n"  # a comment
    if kind == "document":
        question, header, packed = QUESTION, JSON, [encode(b" " * (24 * STEP) + ANSWER)]
    elif kind == "stream":
        whole = encode(CHUNK + blank * (24 * STEP // 1000) + USAGE + DONE)
        question, header, packed = STREAM, SSE, [whole[:40], whole[40:]]
    else:
        question, header, packed = STREAM, SSE, [encode(blank * (24 * STEP // 1000) + CHUNK + USAGE + DONE)]
    world, _ = play(question, [header, (b"Content-Encoding", coding.encode())], *packed)
    assert world.down.sent == b"".join(packed)
    assert facts(world.call) == (200, "ok", "provider")
    assert world.call.answer is not None
    assert world.turns.taken > 0


def test_a_coding_that_nobody_here_knows_is_noted_and_passes() -> None:
    world, _ = play(QUESTION, [JSON, (b"Content-Encoding", b"compress")], b"\x1f\x9d")
    assert world.down.sent == b"\x1f\x9d"
    assert world.call.notes["answer"] == "content coding cannot be read"


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        (b"gzip", b"no gzip"),
        (b"gzip", gzip.compress(ANSWER)[:-20]),
        (b"identity", b"\xff\x00"),
        (b"identity", ANSWER[:-2]),
        (b"identity", b'{"id":"c","model":"gpt-4o","choices":[nonsense]}'),
        (b"identity", b"Service unavailable"),
    ],
)
def test_what_is_not_json_though_it_says_so_is_no_answer(coding: bytes, body: bytes) -> None:
    world, _ = play(QUESTION, [JSON, (b"Content-Encoding", coding)], body)
    assert world.down.head is not None
    assert world.down.head[0] == 502
    assert b"upstream_bad_answer" in world.down.sent
    assert world.call.notes.get("answer") is None


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'"ok"', b'{"object":"list","data":[]}', b' {"a": "\\ud800"}\n'])
def test_json_of_another_shape_passes(body: bytes) -> None:
    world, _ = play(QUESTION, [JSON], body)
    assert world.down.sent == body
    assert world.call.status == 200


@pytest.mark.parametrize("pieces", [[HALF, DONE], [PING, HALF + DONE], [b"data: It works!\n\n", HALF, DONE]])
def test_a_stream_of_which_nothing_can_be_read_is_no_answer(pieces: list[bytes]) -> None:
    world, _ = play(STREAM, [SSE], *pieces)
    assert world.down.head is not None
    assert (world.down.head[0], outcome_of(world.call)) == (502, "failed")
    assert b"upstream_bad_answer" in world.down.sent


def test_also_where_it_was_held_for_too_long() -> None:
    world = World()
    world.step = 2_000_000_000
    world, _ = play(STREAM, [SSE], HALF, HALF, HALF, DONE, world=world)
    assert world.down.endings == ["abort"]
    assert b"[DONE]" not in world.down.sent
    assert outcome_of(world.call) == "truncated"


@pytest.mark.parametrize("odd", [HALF, b"data: one moment\n\n", b"data: []\n\n", b'data: "ok"\n\n'])
def test_what_cannot_be_read_beside_what_can_passes_as_it_came(odd: bytes) -> None:
    for pieces in ([odd, CHUNK, USAGE, DONE], [CHUNK, odd, USAGE, DONE], [odd + CHUNK + USAGE + DONE]):
        world, _ = play(STREAM, [SSE], *pieces)
        assert world.down.sent == b"".join(pieces)
        assert facts(world.call) == (200, "ok", "provider")


def left(world: World, at: int, *pieces: bytes) -> MemoryExchange:
    """The client leaves at the await number `at`."""
    exchange = world.answer(200, [SSE], pieces)
    drive(serve(ask(CHAT, STREAM), world.down, world.gateway()), at=at, raising=ClientGone())
    return exchange


def test_who_leaves_takes_the_upstream_along() -> None:
    world = World()
    exchange = left(world, 3, CHUNK, CHUNK, USAGE, DONE)
    assert exchange.closed
    assert len(exchange.pieces) == 3
    assert facts(world.call) == (200, "cancelled", "estimated")


def test_or_is_drained_for() -> None:
    world = World(drain=True)
    exchange = left(world, 3, CHUNK, CHUNK, USAGE, DONE)
    assert not exchange.pieces
    assert exchange.expires == 30
    assert facts(world.call) == (200, "cancelled", "provider")
    assert world.call.notes["client_gone"] == "drained"


def test_draining_costs_only_so_much() -> None:
    world = World(drain=True, drain_usd=0.0000001)
    exchange = left(world, 3, *[CHUNK] * 100)
    assert len(exchange.pieces) > 90
    assert facts(world.call)[1:] == ("cancelled", "estimated")


def test_and_takes_only_so_long() -> None:
    world = World(drain=True, drain_seconds=0.01)
    exchange = left(world, 3, *[CHUNK] * 100)
    assert 50 < len(exchange.pieces) < 99


def test_a_client_that_left_meanwhile_gets_no_ending() -> None:
    world = World()
    world.answer(200, [JSON], [ANSWER])
    world.down.gone = True
    drive(serve(ask(CHAT, QUESTION), world.down, world.gateway()))
    assert world.down.endings == ["abort"]
    assert outcome_of(world.call) == "cancelled"
