"""Calls whose upstream speaks another API, through the whole pipeline without a network."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest

from gateway.errors import GatewayError, StreamStalled, UpstreamReset
from gateway.journal.convert import outcome_of
from gateway.pipeline import serve
from gateway.testing.doubles import MemoryExchange, World, ask, drive

SSE = (b"Content-Type", b"text/event-stream")
JSON = (b"Content-Type", b"application/json")
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
GEMINI = "/v1beta/models/house:streamGenerateContent"
HELLO = [{"role": "user", "content": "hi"}]
ALIASES = {"house": ("claude-x", "anthropic"), "gpt": ("gpt-x", "openai")}


def event(**fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (fields["type"].encode(), json.dumps(fields).encode())


START = event(type="message_start", message={"id": "m1", "model": "claude-x", "usage": {"input_tokens": 5}})
OPEN = event(type="content_block_start", index=0, content_block={"type": "text", "text": ""})
TEXT = event(type="content_block_delta", index=0, delta={"type": "text_delta", "text": "Hello"})
CLOSE = event(type="content_block_stop", index=0)
LAST = event(type="message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 3})
STOP = event(type="message_stop")
PING = event(type="ping")
ERROR = event(type="error", error={"type": "overloaded_error", "message": "busy"})
MESSAGE = {
    "id": "m1", "type": "message", "model": "claude-x", "content": [{"type": "text", "text": "Hello"}],
    "stop_reason": "end_turn", "usage": {"input_tokens": 5, "output_tokens": 3},
}  # fmt: skip


def play(
    path: str,
    body: dict[str, Any],
    headers: tuple[bytes, bytes],
    *pieces: bytes | GatewayError | None,
    status: int = 200,
    more: tuple[tuple[bytes, bytes], ...] = (),
    sent: tuple[tuple[bytes, bytes], ...] = (),
    **spec: Any,
) -> tuple[World, MemoryExchange]:
    world = World(**spec)
    world.settings["aliases"] = dict(ALIASES)
    exchange = world.answer(status, [headers, *more], pieces)
    drive(serve(ask(path, json.dumps(body).encode(), *sent), world.down, world.gateway()))
    return world, exchange


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "house", "messages": HELLO, **more}


def test_a_document_has_its_length_and_its_cost() -> None:
    text = json.dumps(MESSAGE).encode()
    world, exchange = play(CHAT, chat(), JSON, text[:30], text[30:], more=((b"Content-Length", b"999"), (b"x-a", b"b")))
    assert world.down.head is not None
    status, _, block, length = world.down.head
    assert (status, length) == (200, len(world.down.sent))
    assert block.lower().count(b"content-length") == 1
    assert b"content-length: %d\r\n" % length in block
    assert b"x-a: b\r\n" in block
    assert json.loads(world.down.sent)["choices"][0]["message"]["content"] == "Hello"
    call = world.call
    assert call.answer is not None
    assert call.answer.usage is not None
    assert (call.answer.usage.input_tokens, call.answer.usage.output_tokens) == (5, 3)
    assert call.answer.model == "claude-x"
    assert (call.route.dialect, call.notes["translated"]) == ("openai_chat", "anthropic")
    assert exchange.closed == 1
    assert outcome_of(call) == "ok"


def test_what_is_sent() -> None:
    theirs = (
        (b"Authorization", b"Bearer client"),
        (b"OpenAI-Organization", b"org"),
        (b"X-Stainless-Lang", b"python"),
        (b"Accept-Encoding", b"gzip"),
        (b"User-Agent", b"me"),
        (b"Content-Type", b"application/json; charset=utf-8"),
    )
    world, _ = play(CHAT, chat(), JSON, json.dumps(MESSAGE).encode(), sent=theirs, auth=((b"x-api-key", b"house"),))
    head, _, body = world.upstreams.sent[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1/messages HTTP/1.1"
    names = [line.partition(b":")[0].lower() for line in lines[1:]]
    assert len(names) == len(set(names))
    assert b"x-api-key: house" in lines
    assert b"anthropic-version: 2023-06-01" in lines
    assert b"accept-encoding: identity" in lines
    assert b"User-Agent: me" in lines
    assert b"Content-Length: %d" % len(body) in lines
    assert not {b"authorization", b"openai-organization", b"x-stainless-lang"} & set(names)
    assert json.loads(body)["model"] == "claude-x"


def test_no_credential_of_the_client_goes_to_another_provider() -> None:
    theirs = ((b"Authorization", b"Bearer client"), (b"X-Api-Key", b"client"), (b"Cookie", b"client"))
    world, _ = play(CHAT, chat(), JSON, json.dumps(MESSAGE).encode(), sent=theirs)
    assert b"client" not in world.upstreams.sent[0].partition(b"\r\n\r\n")[0]


def test_a_stream_comes_as_it_comes() -> None:
    world, exchange = play(CHAT, chat(stream=True), SSE, START + PING, OPEN + TEXT[:20], TEXT[20:], CLOSE + LAST, STOP)
    assert world.down.head is not None
    assert b"content-type: text/event-stream\r\n" in world.down.head[2]
    assert world.down.head[3] is None
    writes = [data for name, data in world.log if name == "write"]
    assert b'"content": "Hello"' in writes[0] or b'"content":"Hello"' in writes[0]
    assert world.log[-1][0] == "finish"
    assert world.log[-1][1].endswith(b"data: [DONE]\n\n")
    names = world.names()
    assert names.index("record") < names.index("finish")
    assert exchange.has_spoken
    assert outcome_of(world.call) == "ok"
    assert b'"usage"' not in world.down.sent  # nobody asked for it


@pytest.mark.parametrize("fault", [None, UpstreamReset("gone"), StreamStalled("idle")])
def test_a_cut_stream_is_told_so(fault: GatewayError | None) -> None:
    pieces: list[Any] = [START, OPEN + TEXT, *([fault] if fault else [])]
    world, _ = play(CHAT, chat(stream=True), SSE, *pieces)
    assert world.log[-1][0] == "abort"
    last = json.loads(world.log[-1][1].removeprefix(b"data: "))
    assert last["error"]["code"] in ("upstream_truncated", "upstream_reset", "upstream_stalled")
    assert b"[DONE]" not in world.down.sent
    assert outcome_of(world.call) == "truncated"


def test_an_error_in_mid_stream() -> None:
    world, _ = play(CHAT, chat(stream=True), SSE, START, OPEN + TEXT, ERROR)
    assert world.log[-1][0] == "abort"
    assert json.loads(world.log[-1][1].removeprefix(b"data: "))["error"]["message"] == "busy"
    assert world.call.answer is not None
    assert world.call.answer.error_type == "overloaded_error"


def test_an_error_in_the_first_event_is_an_http_error() -> None:
    world, _ = play(CHAT, chat(stream=True), SSE, ERROR)
    assert world.down.head is not None
    assert world.down.head[0] == 500
    assert json.loads(world.down.sent)["error"]["message"] == "busy"


def test_an_answer_that_cannot_be_said_is_an_error_and_is_paid_for() -> None:
    odd = {**MESSAGE, "content": [{"type": "server_tool_use", "id": "s", "name": "x", "input": {}}]}
    world, _ = play(CHAT, chat(), JSON, json.dumps(odd).encode())
    assert world.down.head is not None
    assert world.down.head[0] == 502
    assert json.loads(world.down.sent)["error"]["code"] == "upstream_bad_answer"
    assert world.call.answer is not None
    assert world.call.answer.usage is not None
    assert world.call.answer.usage.output_tokens == 3
    block = event(type="content_block_start", index=1, content_block=odd["content"][0])  # type: ignore[index]
    world, _ = play(CHAT, chat(stream=True), SSE, START, OPEN + TEXT, block, CLOSE + LAST + STOP)
    assert world.log[-1][0] == "abort"
    assert b"server_tool_use" in world.log[-1][1]


def test_an_error_of_the_upstream() -> None:
    body = b'{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}'
    world, _ = play(CHAT, chat(), JSON, body, status=429, more=((b"retry-after", b"7"),))
    assert world.down.head is not None
    assert world.down.head[0] == 429
    assert b"retry-after: 7\r\n" in world.down.head[2]
    assert json.loads(world.down.sent)["error"]["type"] == "rate_limit_error"
    assert outcome_of(world.call) == "upstream_error"


def test_what_cannot_be_carried_is_refused_before_it_is_sent() -> None:
    world, _ = play(CHAT, chat(seed=1), JSON)
    assert world.down.head is not None
    assert world.down.head[0] == 400
    assert b"x-tollgate-code: untranslatable\r\n" in world.down.head[2]
    assert json.loads(world.down.sent)["error"]["param"] == "seed"
    assert not world.upstreams.sent
    world, _ = play(CHAT, chat(seed=1), JSON, json.dumps(MESSAGE).encode(), droppable=("seed",))
    assert world.call.notes["dropped"] == "seed"


def test_a_compressed_answer_is_read() -> None:
    packed = gzip.compress(json.dumps(MESSAGE).encode(), mtime=0)
    world, _ = play(CHAT, chat(), JSON, packed, more=((b"content-encoding", b"gzip"),))
    assert json.loads(world.down.sent)["choices"][0]["message"]["content"] == "Hello"
    assert world.down.head is not None
    assert b"content-encoding" not in world.down.head[2].lower()
    world, _ = play(CHAT, chat(), JSON, b"\x1f\x8bbroken", more=((b"content-encoding", b"gzip"),))
    assert world.down.head is not None
    assert world.down.head[0] == 502


def test_gemini_clients_without_sse_get_an_array() -> None:
    body = {"contents": [{"parts": [{"text": "hi"}]}]}
    world, _ = play(GEMINI, body, SSE, START, OPEN + TEXT, CLOSE + LAST, STOP)
    assert world.down.head is not None
    assert b"content-type: application/json\r\n" in world.down.head[2]
    assert json.loads(world.down.sent)[-1]["usageMetadata"]["candidatesTokenCount"] == 3
    world, _ = play(GEMINI + "?alt=sse", body, SSE, START, OPEN + TEXT, CLOSE + LAST, STOP)
    assert world.down.sent.startswith(b"data: {")


GEMINI_TEXT = b'data: {"candidates":[{"content":{"parts":[{"text":"Hello"}]},"index":0}],"modelVersion":"g"}\n\n'
GEMINI_END = (
    b'data: {"candidates":[{"content":{"parts":[]},"finishReason":"STOP","index":0}],'
    b'"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":3,"totalTokenCount":8}}\n\n'
)


@pytest.mark.parametrize("pieces", [(GEMINI_TEXT, GEMINI_END), (GEMINI_TEXT + GEMINI_END,)])
@pytest.mark.parametrize("late", [None, StreamStalled("the framing did not end")])
def test_the_end_of_a_stream_that_has_no_terminal_event(pieces: tuple[bytes, ...], late: GatewayError | None) -> None:
    world = World()
    world.settings["aliases"] = {"house": ("gemini-2.5-flash", "gemini")}
    world.answer(200, [SSE], [*pieces, *([late] if late else [])])
    drive(serve(ask(CHAT, json.dumps(chat(stream=True)).encode()), world.down, world.gateway()))
    assert world.log[-1][0] == "finish"
    assert world.log[-1][1].endswith(b"data: [DONE]\n\n")
    assert outcome_of(world.call) == "ok"


@pytest.mark.parametrize("counted", [True, False])
def test_a_chat_stream_without_done_is_whole_with_its_finish_reason(counted: bool) -> None:
    """Its usage was asked for by the translation: without it the stream is no less whole, for record and client."""
    choice = {"index": 0, "delta": {"content": "Hello"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    chunks = [{"id": "c", "model": "gpt-x", "choices": [choice]}]
    chunks += [{"id": "c", "model": "gpt-x", "choices": [], "usage": usage}] if counted else []
    pieces = [b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in chunks]
    body = {"model": "gpt", "messages": HELLO, "max_tokens": 9, "stream": True}
    world, _ = play(MESSAGES, body, SSE, *pieces)
    assert json.loads(world.upstreams.sent[0].partition(b"\r\n\r\n")[2])["stream_options"]["include_usage"] is True
    assert world.log[-1][0] == "finish"
    assert b"event: message_stop" in world.log[-1][1]
    assert not world.down.interrupted
    assert outcome_of(world.call) == "ok"


def test_a_whole_answer_where_a_stream_was_asked_for() -> None:
    world, _ = play(CHAT, chat(stream=True), JSON, json.dumps(MESSAGE).encode())
    assert world.down.head is not None
    assert b"text/event-stream" in world.down.head[2]
    assert world.down.sent.endswith(b"data: [DONE]\n\n")
    assert outcome_of(world.call) == "ok"


def test_a_limit_that_nobody_set_is_one_that_the_model_takes() -> None:
    """What is put in because the API wants a number; its upper bound may be more than a variant makes."""
    for model, limit in (("claude-sonnet-4-5", 64_000), ("claude-opus-5", 128_000), ("unheard-of", 8192)):
        world = World()
        world.settings["aliases"] = {"house": (model, "anthropic")}
        world.answer(200, [JSON], [json.dumps(MESSAGE).encode()])
        drive(serve(ask(CHAT, json.dumps(chat()).encode()), world.down, world.gateway()))
        assert json.loads(world.upstreams.sent[0].partition(b"\r\n\r\n")[2])["max_tokens"] == limit


def test_lowered_limits_are_in_the_translated_request() -> None:
    """Edits of the client's body are made before it is translated."""
    world, _ = play(CHAT, chat(max_tokens=7, reasoning_effort="high"), JSON, json.dumps(MESSAGE).encode())
    sent = json.loads(world.upstreams.sent[0].partition(b"\r\n\r\n")[2])
    assert sent["max_tokens"] == 7
    assert sent["model"] == "claude-x"


def test_the_same_api_is_left_alone() -> None:
    body = json.dumps({"model": "gpt", "messages": HELLO, "seed": 1, "new": True}).encode()
    world = World()
    world.settings["aliases"] = dict(ALIASES)
    world.answer(200, [JSON], [b'{"x": 1}'])
    drive(serve(ask(CHAT, body), world.down, world.gateway()))
    assert world.down.sent == b'{"x": 1}'
    assert world.upstreams.sent[0].endswith(body.replace(b'"gpt"', b'"gpt-x"'))
    assert world.call.translated is None


def test_other_paths_are_refused() -> None:
    world, _ = play("/v1/embeddings", {"model": "house", "input": "x"}, JSON)
    assert world.down.head is not None
    assert b"x-tollgate-code: alias_speaks_another_api\r\n" in world.down.head[2]
    world, _ = play("/v1/responses/compact", {"model": "house", "input": "x"}, JSON)
    assert world.down.head is not None
    assert world.down.head[0] == 400


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_is_killed_at_any_await_is_recorded_once(stream: bool) -> None:
    pieces = [START, OPEN + TEXT, CLOSE + LAST, STOP] if stream else [json.dumps(MESSAGE).encode()]
    at = 0
    while True:
        world = World(slow=stream)
        world.settings["aliases"] = dict(ALIASES)
        exchange = world.answer(200, [SSE if stream else JSON], pieces)
        work = serve(ask(CHAT, json.dumps(chat(stream=stream)).encode()), world.down, world.gateway())
        try:
            stops = drive(work, at=at, raising=asyncio.CancelledError())
        except asyncio.CancelledError:
            assert world.names().count("record") == 1
            assert exchange.closed == len(world.upstreams.opened)
            at += 1
            continue
        assert at >= len(stops)
        break
    assert at > 3
