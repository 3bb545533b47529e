"""Streams that are ended by the gateway: the client gets whole events, then what the provider says at `max_tokens`."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from gateway.call import Request, Usage
from gateway.dialects.json_array import ArrayCutter
from gateway.dialects.meters import BYTES, TOKENS
from gateway.dialects.registry import DIALECTS
from gateway.dialects.routes import Table
from gateway.dialects.sse import Splitter
from gateway.testing import cassettes

ROOT = Path(__file__).parents[2] / "golden" / "cassettes"
FAMILIES = {"anthropic": "anthropic", "gemini": "gemini", "vertex": "gemini", "cohere": "cohere"}
TABLE = Table({name: name for name in ("openai", "anthropic", "gemini", "cohere", "ollama", "opaque")})
USAGE = Usage(input_tokens=100, output_tokens=40, cache_read_tokens=30, reasoning_tokens=8)
REASONS = {"openai_chat": "length", "openai_completions": "length", "openai_responses": "max_output_tokens",
           "anthropic": "max_tokens", "gemini": "MAX_TOKENS", "cohere": "MAX_TOKENS"}  # fmt: skip


class Stream:
    """A recorded stream and what reads it."""

    def __init__(self, path):
        self.exchange = cassettes.load(path)
        family = FAMILIES.get(path.parent.name, "openai")
        target = "/" + self.exchange.target.lstrip("/").encode("ascii", "replace").decode().replace("%2F", "~")
        self.route = TABLE.resolve(b"POST", f"/{family}{target}".encode(), "")
        self.dialect = DIALECTS[self.route.dialect]
        question = Request(b"POST", self.route.path, (), self.exchange.request_body)
        self.asked = self.dialect.read(self.route, question)
        self.body = self.exchange.body

    def meter(self):
        return self.dialect.meter(self.route, self.asked, 200, b"text/event-stream")

    def stopped(self, pieces, after):
        """(meter, what the client has, what ends it), stopped at the first chance after so many bytes; None where the
        stream ends before."""
        meter, sent, seen = self.meter(), b"", 0
        for piece in pieces:
            meter.feed(piece)
            if meter.terminal or meter.failed:
                return None
            seen += len(piece)
            if seen >= after and meter.started:
                kept = meter.stop(piece)
                if kept >= 0:
                    sent += piece[:kept]
                    return meter, sent, self.dialect.finish_early(meter, self.asked, "req-1", USAGE, "spent")
            sent += piece
        return None

    def judged(self, body):
        """The answer in these bytes, by a meter that knows nothing of their history."""
        meter = self.meter()
        meter.feed(body)
        return meter.end(), meter


def streams():
    found = []
    for path in sorted(ROOT.glob("*/*-sse-200-*.json")):
        if path.parent.name in ("bedrock", "writer") or path.name.startswith(("interactions-", "other-")):
            continue
        found.append(path)
    return found


@pytest.fixture(scope="module", params=streams(), ids=lambda path: f"{path.parent.name}-{path.stem}")
def stream(request):
    return Stream(request.param)


def cuts(body, count, seed):
    at = sorted(random.Random(seed).randrange(len(body) + 1) for _ in range(count))
    return [body[start:end] for start, end in zip([0, *at], [*at, len(body)], strict=True)]


def whole_events(body):
    return [piece for piece in re.findall(rb"(?s).*?(?:\r?\n\r?\n|\Z)", body) if piece]


def test_there_are_streams_of_every_dialect_that_can_be_stopped():
    found = [Stream(path) for path in streams()]
    stopped = [one.route.dialect for one in found if one.stopped(whole_events(one.body), 0) is not None]
    assert set(stopped) == set(REASONS)
    assert len(stopped) > 0.8 * len(found)


def test_a_stream_stopped_anywhere_ends_like_a_full_one(stream):
    """Cut at random, stopped at random: whole events as sent, and an end that every reader takes for one."""
    for seed in range(16):
        dice = random.Random(seed)
        pieces = whole_events(stream.body) if seed < 4 else cuts(stream.body, dice.choice([3, 30, 200]), seed)
        found = stream.stopped(pieces, dice.randrange(len(stream.body)) if seed else 0)
        if found is None:
            continue
        meter, sent, end = found
        assert stream.body.startswith(sent)
        assert sent.endswith((b"\n\n", b"\r\n\r\n")) or not sent
        assert end.endswith(b"\n\n")
        answer, reader = stream.judged(sent + end)
        assert reader.terminal
        assert not reader.failed
        assert answer.complete
        assert REASONS[stream.dialect.name] in answer.finish_reasons or not meter.unfinished
        for block in re.split(rb"\n\n", end)[:-1]:
            line = block.rpartition(b"\n")[2]
            assert line.startswith(b": tollgate spent") or line == b"data: [DONE]" or json.loads(line[6:])
        mine = meter.end()
        assert not mine.complete
        assert mine.finish_reasons == answer.finish_reasons
        assert stream.dialect.finish_early(meter, stream.asked, "req-1", USAGE, "spent") == end


def test_the_client_has_all_whole_events_so_far(stream):
    """With pieces of whole events, nothing of what came is held back."""
    pieces = whole_events(stream.body)
    for count in range(1, len(pieces), max(len(pieces) // 8, 1)):
        found = stream.stopped(pieces[:count], sum(map(len, pieces[:count])))
        if found is not None:
            assert found[1] == b"".join(pieces[:count])


def test_what_is_produced_is_never_less_than_what_the_provider_counts_in_the_end(stream):
    """Visible tokens, of answers of some length; below the limit asked for, the estimate may only be higher still."""
    answer, meter = stream.judged(stream.body)
    if answer.usage is None or not answer.complete or answer.output_chars < 200:
        return
    visible = answer.usage.output_tokens - answer.usage.reasoning_tokens
    assert meter.draft.tokens() >= visible
    paced = stream.meter()
    for piece in cuts(stream.body, 40, 7):
        paced.feed(piece)
        exact = stream.meter()
    exact.feed(stream.body)
    exact.drain()
    assert paced.produced(10**9) >= exact.draft.tokens()
    assert paced.produced(0) == exact.draft.tokens()


def test_asking_for_what_is_produced_below_the_limit_decodes_nothing(talk, frame):
    meter = talk("openai_chat").stream(frame({"id": "c", "model": "m", "choices": [{"delta": {"content": "a"}}]}))
    piece = frame({"id": "c", "model": "m", "choices": [{"delta": {"content": "word"}}]})
    for _ in range(50):
        meter.feed(piece)
    held = len(meter._held)
    assert held
    rough = meter.produced(10**6)
    assert len(meter._held) == held
    assert rough == (1 + 50 * len(piece) if held == 50 else 1 + 4 * (50 - held) + held * len(piece)) * TOKENS // BYTES
    assert meter.produced(10) == (1 + 4 * 50) * TOKENS // BYTES
    assert not meter._held


def test_bytes_count_not_characters(talk, frame):
    meter = talk("openai_chat").stream(frame({"choices": [{"delta": {"content": "語" * 100}}]}))
    assert meter.produced(0) == 300 * TOKENS // BYTES


def test_usage_that_the_stream_states_counts_where_it_is_more(talk, frame):
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 60, "thoughtsTokenCount": 40}
    talk = talk("gemini", "/v1beta/models/g:streamGenerateContent?alt=sse")
    meter = talk.stream(frame({"candidates": [{"content": {"parts": [{"text": "a"}]}}], "usageMetadata": usage}))
    assert meter.produced(1) == 100


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_what_is_no_stream_cannot_be_stopped(talk, name):
    one = talk(name)
    meter = one.meter()
    meter.feed(b'{"a":')
    assert meter.stop(b'{"a":') == -1
    assert meter.produced(5) == 0
    assert one.dialect.finish_early(meter, one.read(b""), "r", USAGE) == b""


# -- exact ends ---------------------------------------------------------------------------------------------------


def events(data):
    return [json.loads(line[6:]) for line in data.split(b"\n") if line.startswith(b"data: {")]


def ended(one, meter, last, body=b"", note="budget_exceeded of run r-1\r\n"):
    assert meter.stop(last) == len(last)
    return one.dialect.finish_early(meter, one.read(body), "req-1", USAGE, note)


def test_chat_without_usage_asked_for(talk, frame):
    one = talk("openai_chat")
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 17, "model": "m"}
    last = frame({**chunk, "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]})
    body = b'{"stream":true}'
    end = ended(one, one.stream(last, body=body), last, body)
    said = {**chunk, "choices": [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}]}
    text = json.dumps(said, separators=(",", ":")).encode()
    assert end == b": tollgate budget_exceeded of run r-1\n\ndata: %b\n\ndata: [DONE]\n\n" % text


def test_chat_with_usage_and_choices_of_which_one_is_over(talk, frame):
    one = talk("openai_chat")
    body = b'{"stream":true,"n":3,"stream_options":{"include_usage":true}}'
    last = frame({"id": "c", "model": "m", "choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]})
    found = events(ended(one, one.stream(last, body=body), last, body))
    assert [[choice["index"] for choice in chunk["choices"]] for chunk in found] == [[0], [2], []]
    assert [chunk["usage"] for chunk in found[:2]] == [None, None]
    assert found[2]["usage"] == {
        "prompt_tokens": 100,
        "completion_tokens": 40,
        "total_tokens": 140,
        "prompt_tokens_details": {"cached_tokens": 30},
        "completion_tokens_details": {"reasoning_tokens": 8},
    }


def test_legacy_completions(talk, frame):
    one = talk("openai_completions")
    body = b'{"stream":true,"prompt":["a","b"]}'
    last = frame({"id": "cmpl-1", "model": "m", "created": 5, "choices": [{"index": 0, "text": "x"}]})
    found = events(ended(one, one.stream(last, body=body), last, body))
    assert found == [
        {
            "id": "cmpl-1",
            "object": "text_completion",
            "created": 5,
            "model": "m",
            "choices": [{"index": index, "text": "", "logprobs": None, "finish_reason": "length"}],
        }
        for index in (0, 1)
    ]


def anthropic(*more):
    return [
        ("message_start", {"type": "message_start", "message": {"id": "msg_1", "model": "c", "content": [],
         "usage": {"input_tokens": 70, "cache_read_input_tokens": 30, "output_tokens": 1}}}),
        *more,
    ]  # fmt: skip


def block(index, kind, **more):
    start = {"type": "content_block_start", "index": index, "content_block": {"type": kind, **more}}
    return ("content_block_start", start)


STOP = ("content_block_stop", {"type": "content_block_stop", "index": 0})
DELTA = {
    "type": "message_delta",
    "delta": {"stop_reason": "max_tokens", "stop_sequence": None},
    "usage": {"input_tokens": 70, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 30, "output_tokens": 40},
}


@pytest.mark.parametrize(
    ("sent", "end"),
    [
        ([block(0, "text", text="")], [{"type": "content_block_stop", "index": 0}, DELTA]),
        ([block(0, "text", text=""), STOP], [DELTA]),
        ([block(0, "text", text=""), STOP, block(1, "tool_use", id="t", name="n", input={})],
         [{"type": "content_block_stop", "index": 1}, DELTA]),
        ([("message_delta", {"type": "message_delta", "delta": {"stop_reason": "end_turn"}})], []),
    ],
    ids=["text", "between blocks", "tool", "nearly over"],
)  # fmt: skip
def test_anthropic(talk, frame, sent, end):
    one = talk("anthropic")
    sent = anthropic(*sent)
    data = ended(one, one.stream(*sent), frame(sent[-1]))
    assert events(data) == [*end, {"type": "message_stop"}]
    names = re.findall(rb"event: (\w+)\ndata: \{\"type\":\"(\w+)\"", data)
    assert len(names) == len(end) + 1
    assert all(name == kind for name, kind in names)


def test_gemini_as_events_and_as_an_array(talk, frame):
    chunk = {
        "candidates": [{"index": 0, "content": {"parts": [{"text": "a"}]}}],
        "modelVersion": "g",
        "responseId": "r",
    }
    said = {
        "candidates": [
            {
                "content": {"parts": [{"text": ""}], "role": "model"},
                "finishReason": "MAX_TOKENS",
                "finishMessage": "tollgate: budget_exceeded of run r-1",
                "index": 0,
            }
        ],
        "usageMetadata": {
            "promptTokenCount": 100,
            "candidatesTokenCount": 32,
            "totalTokenCount": 140,
            "cachedContentTokenCount": 30,
            "thoughtsTokenCount": 8,
        },
        "modelVersion": "g",
        "responseId": "r",
    }
    one = talk("gemini", "/v1beta/models/g:streamGenerateContent?alt=sse")
    assert events(ended(one, one.stream(frame(chunk)), frame(chunk))) == [said]

    one = talk("gemini", "/v1beta/models/g:streamGenerateContent")
    body = b"[" + json.dumps(chunk).encode() + b"\n,\r\n" + json.dumps(chunk).encode() + b"\n,\r\n{"
    for size in (1, 7, len(body)):
        meter, sent = one.meter(), b""
        for at in range(0, len(body), size):
            piece = body[at : at + size]
            meter.feed(piece)
            kept = meter.stop(piece) if at + size >= len(body) - 8 else -1
            if kept >= 0:
                sent += piece[:kept]
                break
            sent += piece
        if kept < 0:
            assert sent == body
            continue
        end = one.dialect.finish_early(meter, one.read(b""), "req-1", USAGE, "budget_exceeded of run r-1")
        assert json.loads(sent + end) == [chunk, chunk, said]


def response(kind, number, **more):
    return (kind, {"type": kind, "sequence_number": number, **more})


HEAD = {"id": "resp_1", "object": "response", "created_at": 5, "status": "in_progress", "model": "m", "output": [],
        "tools": [{"type": "web_search"}], "metadata": {"a": "b"}}  # fmt: skip


def test_responses_keep_what_was_said(talk, frame):
    """In the order and with the members of a recorded `response.incomplete`."""
    first = {"id": "rs_1", "type": "reasoning", "summary": []}
    item = {"id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant", "content": []}
    call = {
        "id": "fc_1",
        "type": "function_call",
        "status": "in_progress",
        "call_id": "c",
        "name": "f",
        "arguments": "",
    }
    sent = [
        response("response.created", 0, response=HEAD),
        response("response.output_item.added", 1, output_index=0, item=first),
        response("response.output_item.done", 2, output_index=0, item=first),
        response("response.output_item.added", 3, output_index=1, item=item),
        response("response.output_text.delta", 4, output_index=1, content_index=0, delta="Hal"),
        response("response.output_text.delta", 5, output_index=1, content_index=0, delta="lo"),
        response("response.output_item.added", 6, output_index=2, item=call),
        response("response.function_call_arguments.delta", 7, output_index=2, delta='{"a":'),
    ]
    one = talk("openai_responses")
    end = ended(one, one.stream(*sent), frame(sent[-1]))
    found = events(end)
    part = {"type": "output_text", "text": "Hallo", "annotations": [], "logprobs": []}
    where = {"item_id": "msg_1", "output_index": 1, "content_index": 0}
    over = {**item, "status": "incomplete", "content": [part]}
    assert [event["sequence_number"] for event in found] == [8, 9, 10, 11]
    assert found[:3] == [
        {"type": "response.output_text.done", **where, "text": "Hallo", "logprobs": [], "sequence_number": 8},
        {"type": "response.content_part.done", **where, "part": part, "sequence_number": 9},
        {"type": "response.output_item.done", "output_index": 1, "item": over, "sequence_number": 10},
    ]
    assert found[3]["type"] == "response.incomplete"
    assert found[3]["response"] == {
        **HEAD,
        "status": "incomplete",
        "incomplete_details": {"reason": "max_output_tokens"},
        "error": None,
        "output": [first, over],  # half a call of a tool is nobody's to make
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "usage": {
            "input_tokens": 100,
            "input_tokens_details": {"cached_tokens": 30},
            "output_tokens": 40,
            "output_tokens_details": {"reasoning_tokens": 8},
            "total_tokens": 140,
        },
    }


def test_a_part_that_has_ended_does_not_end_again(talk, frame):
    item = {"id": "msg_1", "type": "message", "role": "assistant", "content": []}
    sent = [
        response("response.created", 0, response=HEAD),
        response("response.output_item.added", 1, output_index=0, item=item),
        response("response.output_text.delta", 2, output_index=0, content_index=0, delta="a"),
        response("response.content_part.done", 3, output_index=0, content_index=0, part={}),
        response("response.refusal.delta", 4, output_index=0, content_index=1, delta="no"),
    ]
    one = talk("openai_responses")
    found = events(ended(one, one.stream(*sent), frame(sent[-1])))
    assert [event["type"] for event in found] == [
        "response.refusal.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert [part["type"] for part in found[-1]["response"]["output"][0]["content"]] == ["output_text", "refusal"]


def test_an_endless_answer_keeps_memory_bounded(talk, frame):
    one = talk("openai_responses")
    meter = one.stream(response("response.created", 0, response=HEAD))
    piece = frame(response("response.output_text.delta", 1, output_index=0, content_index=0, delta="x" * 60_000))
    for _ in range(100):
        meter.feed(piece)
    meter.drain()
    kept = sum(len(text) for texts in meter.output._said.values() for text in texts)
    assert 900_000 < kept <= 1024 * 1024
    assert meter.stop(piece) == len(piece)
    assert events(one.dialect.finish_early(meter, one.read(b""), "r", USAGE))[-1]["type"] == "response.incomplete"


def test_nothing_known_of_the_stream_is_no_reason_to_break(talk, frame):
    one = talk("openai_responses")
    last = frame({"type": "response.output_text.delta", "delta": "a"})
    (only,) = events(ended(one, one.stream(last), last))
    assert (only["sequence_number"], only["response"]["id"]) == (0, "resp_req-1")


# -- where the last whole event ends --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "pending"),
    [
        ([b"data: a\n\n"], 0),
        ([b"data: a\n\ndata: b"], 7),
        ([b"data: a\n\ndata: ", b"b"], 7),
        ([b"data: a\n\ndata: b\n", b"\ndata: c"], 7),
        ([b"data: a\r\n\r\ndata: b"], 7),
        ([b"data: a\r\n\r\ndata: b\r\n"], 9),
        ([b"data: a\r\n\r\n", b"data: b\r\n"], 10),  # its beginning is not looked for in the pieces before
        ([b"data: a\n\ndata: b\r"], 18),
        ([b"data: a\r\n\r\n"], 0),
        ([b": ping\n\n", b": pi"], 4),
    ],
)
def test_bytes_behind_the_last_event(pieces, pending):
    splitter = Splitter()
    for piece in pieces:
        splitter.feed(piece)
    assert splitter.pending(pieces[-1]) == pending


@pytest.mark.parametrize(
    ("pieces", "pending"),
    [
        ([b'[{"a":1}'], 0),
        ([b'[{"a":1}', b"\n"], 1),
        ([b'[{"a":1}\n,', b'\r\n{"b"'], 8),
        ([b'[{"a":1},{"b":{}}]'], 1),
        ([b'[{"a":"}"', b"}"], 0),
    ],
)
def test_bytes_behind_the_last_element(pieces, pending):
    cutter = ArrayCutter()
    for piece in pieces:
        cutter.feed(piece)
    assert cutter.pending(pieces[-1]) == pending


def test_an_array_cannot_be_ended_before_its_first_element():
    cutter = ArrayCutter()
    cutter.feed(b"[")
    assert cutter.pending(b"[") > 1


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_a_remark_is_one_comment_that_no_client_reads(name):
    remark = DIALECTS[name].remark("a\r\n\r\ndata: [DONE]\n\n" + "x" * 500)
    assert remark.count(b"\n") == 2 * bool(remark)
    assert len(remark) < 300
    assert (remark == b"") is (
        name == "gemini" or name.startswith("bedrock")
    )  # it has no place in JSON or in messages of AWS
    splitter = Splitter()
    assert splitter.feed(remark) == []
    assert splitter.idle
