"""Cohere's and Ollama's own APIs: what the recordings do not show. Odd requests, cut and failed streams, early ends."""

from __future__ import annotations

import base64
import json
import random
import struct
from pathlib import Path

import pytest

from gateway.call import Call, Request, Trace, Usage, UsageSource, Who
from gateway.config.schema import Prices, Upstream
from gateway.dialects.body import splice
from gateway.dialects.json_lines import LineCutter
from gateway.dialects.registry import DIALECTS
from gateway.dialects.routes import Table
from gateway.dialects.sse import MAX_EVENT
from gateway.dialects.steps import newest_step
from gateway.errors import BadBody, StreamTruncated
from gateway.policy.ceiling import Ceiling
from gateway.policy.estimate import TokenEstimator
from gateway.policy.pricing import PriceTable
from gateway.prices.load import load
from gateway.testing.cassettes import load_all

ROOT = Path(__file__).parents[3]
CATALOGUE = next((ROOT / "gateway" / "prices").glob("*.msgpack")).read_bytes()
PRICES = PriceTable(CATALOGUE)
TABLE = Table({"cohere": "cohere", "ollama": "ollama"})
CEILING = Ceiling(PRICES)
USAGE = Usage(100, 40)
NDJSON, OLD_STREAM = b"application/x-ndjson", b"application/stream+json"


class Talk:
    """A request to one path, and what its dialect makes of it."""

    def __init__(self, path, **body):
        self.body = json.dumps(body).encode()
        self.route = TABLE.resolve(b"POST", path.encode(), "")
        self.dialect = DIALECTS[self.route.dialect]
        self.request = Request(b"POST", self.route.path, (), self.body)
        self.asked = self.dialect.read(self.route, self.request)

    def meter(self, *pieces, kind=NDJSON, status=200):
        found = self.dialect.meter(self.route, self.asked, status, kind)
        for piece in pieces:
            found.feed(piece)
        return found

    def answer(self, *values, **more):
        return self.meter(lines(*values), **more).end()

    def worst(self, ceiling=CEILING):
        call = Call("c", self.request, self.route, self.asked, Who(), Trace(), 0, 0)
        return ceiling.worst(call, self.route.dialect, 1.79e9)

    def edited(self, edits):
        return json.loads(splice(self.body, edits))

    def capped(self, ceiling):
        return self.edited(self.dialect.cap_output(self.route, self.asked, self.body, ceiling))

    def eased(self, effort):
        return self.edited(self.dialect.lower_effort(self.route, self.asked, self.body, effort))


def lines(*values):
    return b"".join([json.dumps(value).encode() + b"\n" for value in values])


def chat(**more):
    return Talk("/ollama/api/chat", model="m", messages=[{"role": "user", "content": "hi"}], **more)


def said(word, **more):
    return {"model": "m", "created_at": "now", "message": {"role": "assistant", "content": word}, "done": False, **more}


DONE = said("", done=True, done_reason="stop", prompt_eval_count=5, eval_count=2)
OLD = {"is_finished": False, "event_type": "text-generation", "text": "word"}
META = {"billed_units": {"input_tokens": 7, "output_tokens": 3}}
OLD_END = {"is_finished": True, "event_type": "stream-end", "finish_reason": "COMPLETE", "response": {"meta": META}}


def old(**more):
    return Talk("/cohere/v1/chat", model="command-r", message="hi", stream=True, **more)


def new(**more):
    return Talk("/cohere/v2/chat", model="command-r", messages=[{"role": "user", "content": "hi"}], **more)


# -- lines of JSON --------------------------------------------------------------------------------------------------


def test_lines_come_out_whole_however_they_are_cut():
    text = b'{"a":1}\r\n\n  \n{"b":"\\n"}\n{"c":3}'
    for seed in range(30):
        cutter, found = LineCutter(), []
        at = sorted(random.Random(seed).randrange(len(text) + 1) for _ in range(seed))
        for start, end in zip([0, *at], [*at, len(text)], strict=True):
            found += cutter.feed(text[start:end])
        assert cutter.partial
        assert [json.loads(line) for _, line in found + cutter.end()] == [{"a": 1}, {"b": "\n"}, {"c": 3}]
        assert not cutter.partial


def test_a_line_without_end_is_given_up_and_the_next_is_read():
    cutter = LineCutter()
    for _ in range(MAX_EVENT // 65_536 + 2):
        assert cutter.feed(b"x" * 65_536) == []
        assert len(cutter._rest) <= MAX_EVENT
    assert cutter.overflowed
    assert cutter.partial
    assert cutter.pending(b"x") > 1
    assert cutter.feed(b'x\n{"a":1}\n') == [(b"", b'{"a":1}')]
    assert not cutter.partial


@pytest.mark.parametrize(
    ("pieces", "pending"),
    [([b"a\n"], 0), ([b"a\nb"], 1), ([b"a\nbc", b"de"], 4), ([b"ab"], 2), ([b"a\n", b"b\n\n"], 0)],
)
def test_bytes_behind_the_last_line(pieces, pending):
    cutter = LineCutter()
    for piece in pieces:
        cutter.feed(piece)
    assert cutter.pending(pieces[-1]) == pending


# -- streams that fail, are cut, or are ended -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("talk", "kind", "values"),
    [(chat(), NDJSON, (said("a"), said("b"))), (old(), OLD_STREAM, (OLD, OLD))],
    ids=["ollama", "cohere v1"],
)
def test_what_ends_a_stream_of_lines_stands_on_a_line_of_its_own(talk, kind, values):
    whole = lines(*values)
    meter = talk.meter(whole, kind=kind)
    assert meter.stop(whole) == len(whole)
    (last,) = talk.dialect.finish_early(meter, talk.asked, "r", USAGE, "spent").splitlines()
    judge = talk.meter(whole, last + b"\n", kind=kind)
    answer = judge.end()
    assert (judge.terminal, judge.failed, answer.complete) == (True, "", True)
    assert answer.finish_reasons[0].lower() in ("length", "max_tokens")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (100, 40)
    cut = talk.meter(whole[:-9], kind=kind)
    error = talk.dialect.interruption(StreamTruncated("cut off"), cut, "r")
    assert error.startswith(b"\n")
    judge = talk.meter(whole, error[1:], kind=kind)
    assert not judge.end().complete
    assert judge.failed
    assert judge.draft.error_message == "cut off"


@pytest.mark.parametrize("reason", ["ERROR", "TIMEOUT"])
def test_an_end_with_a_reason_of_failure_is_no_end(talk, frame, reason):
    end = {"type": "message-end", "delta": {"finish_reason": reason, "error": "why", "usage": META}}
    meter = talk("cohere").stream(("message-end", end))
    answer = meter.end()
    assert (meter.terminal, meter.failed, answer.complete) == (False, reason, False)
    assert answer.error_message == "why"
    assert answer.usage.output_tokens == 3  # billed all the same
    restated = DIALECTS["cohere"].restate(new().route, frame(("message-end", end)))
    assert (restated.status, json.loads(restated.body)["message"]) == (500, "why")


def test_v1_as_events_is_ended_as_events():
    talk = old()
    body = b"data: %b\n\n" % json.dumps(OLD).encode()
    meter = talk.meter(body, kind=b"text/event-stream")
    assert meter.started
    end = talk.dialect.finish_early(meter, talk.asked, "r", USAGE) if meter.stop(body) == len(body) else b""
    judge = talk.meter(body, end, kind=b"text/event-stream")
    assert judge.end().complete
    assert json.loads(end[6:])["response"]["text"] == "word"


def test_v1_generate_fails_by_its_own_event():
    talk = Talk("/cohere/v1/generate", model="command", prompt="hi", stream=True)
    event = json.loads(talk.dialect.interruption(StreamTruncated("cut"), talk.meter(kind=OLD_STREAM), "r"))
    assert (event["event_type"], event["finish_reason"], event["err"]) == ("stream-error", "ERROR", "cut")


def test_tool_calls_of_v1_count_once_however_they_come():
    pieces = [{"index": 0, "name": "f"}, {"index": 0, "parameters": '{"a'}, {"index": 0, "parameters": '":1}'}]
    chunks = [{"event_type": "tool-calls-chunk", "tool_call_delta": one} for one in pieces]
    whole = {"event_type": "tool-calls-generation", "tool_calls": [{"name": "f", "parameters": {"a": 1}}]}
    for events in ([*chunks, whole], [whole]):
        answer = old().answer(*events, OLD_END, kind=OLD_STREAM)
        assert [use.name for use in answer.tool_uses] == ["f"]


def test_an_error_is_a_line_and_a_word_of_error_is_none():
    meter = chat().meter(lines(said('{"error": 1}'), said("b")))
    assert not meter.failed
    meter.feed(lines({"error": "gone"}))
    assert meter.failed
    assert DIALECTS["ollama"].restate(chat().route, lines({"error": "gone"})).status == 500
    assert DIALECTS["ollama"].restate(chat().route, lines(said("a"))) is None


# -- what was used --------------------------------------------------------------------------------------------------


def test_a_prompt_from_the_cache_is_estimated_and_the_answer_is_not():
    talk = chat()
    answer = talk.answer(said("a"), said("", done=True, eval_count=50))
    assert (answer.usage_source, answer.usage) == (UsageSource.ESTIMATED, Usage(0, 50))
    call = Call("c", talk.request, talk.route, talk.asked, Who(), Trace(), 0, 0)
    usage = TokenEstimator().estimate(call, answer)
    assert usage.output_tokens == 50
    assert usage.input_tokens > 0


def test_a_model_that_is_only_loaded_has_used_nothing():
    answer = Talk("/ollama/api/generate", model="m").answer({"model": "m", "done": True, "done_reason": "load"})
    assert (answer.usage, answer.usage_source) == (Usage(), UsageSource.PROVIDER)


@pytest.mark.parametrize("count", [-1, 1.5, "7", 10**12, [1]])
def test_what_is_no_count_is_no_usage(count):
    assert chat().answer(said("a"), said("", done=True, prompt_eval_count=count, eval_count=1)).usage is None
    meta = {"billed_units": {"input_tokens": count, "output_tokens": 1}}
    assert old().answer({**OLD_END, "response": {"meta": meta}}, kind=OLD_STREAM).usage is None


def test_where_nothing_is_billed_all_that_was_processed_counts():
    stated = {"tokens": {"input_tokens": 90, "output_tokens": 8, "reasoning_tokens": 5}, "cached_tokens": 64}
    answer = new().answer({"id": "i", "usage": stated}, kind=b"application/json")
    assert answer.usage == Usage(90, 8, 64, 0, 5)
    answer = new().answer({"id": "i", "usage": {**stated, **META}}, kind=b"application/json")
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.cache_read_tokens) == (7, 3, 0)
    assert answer.usage.detail["processed_input_tokens"] == 90


def test_cohere_costs_what_its_billed_units_do():
    """As the catalogue's own reader has it; see README of genai-prices, provider cohere."""
    found = [
        one
        for one in load_all(ROOT / "tests" / "golden" / "cassettes" / "cohere")
        if one.target.startswith("/v2/chat") and one.status == 200
    ]
    priced = 0
    for exchange in found:
        talk = Talk("/cohere" + exchange.target, **json.loads(exchange.request_body))
        kind = b"text/event-stream" if exchange.stream else b"application/json"
        usage = talk.meter(exchange.body, kind=kind).end().usage
        (stated,) = exchange.usage
        billed = stated["usage"]["billed_units"]
        for model, rates in (("command-a-03-2025", (2.5, 10)), ("command-r7b-12-2024", (0.0375, 0.15))):
            cost = PRICES.price("cohere", model, usage, 1.79e9).total
            want = billed["input_tokens"] * rates[0] + billed["output_tokens"] * rates[1]
            assert cost == pytest.approx(want * 1e6, abs=1)
            priced += 1
    assert priced > 10


def test_no_list_says_what_a_local_model_costs():
    near, far = (Upstream(dialect=name, url="http://127.0.0.1:1") for name in ("ollama", "openai"))
    table: PriceTable = load(CATALOGUE, None, {"near": near, "far": far})
    assert table.price("near", "command-r", USAGE, 1.79e9).total is None
    assert table.price("far", "command-r", USAGE, 1.79e9).total


# -- what is asked --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stated", "stream"), [({}, True), ({"stream": None}, True), ({"stream": False}, False)])
def test_a_stream_is_what_ollama_gives_unless_told_otherwise(stated, stream):
    assert chat(**stated).asked.stream is stream
    assert not Talk("/ollama/api/embed", model="m", input="hi").asked.stream


def test_fields_count_in_any_letter_case_as_their_server_reads_them():
    talk = Talk("/ollama/api/chat", **{"Model": "m", "STREAM": False, "Options": {"num_predict": 900}, "messages": []})
    assert (talk.asked.model, talk.asked.stream, talk.asked.max_tokens) == ("m", False, 900)
    assert talk.capped(7)["Options"] == {"num_predict": 7}
    with pytest.raises(BadBody):
        Talk("/ollama/api/chat", **{"model": "m", "Model": "n"})


@pytest.mark.parametrize(
    ("options", "limit"),
    [({"num_predict": 9}, 9), ({"num_predict": -1}, None), ({"num_predict": 0}, None), ({"num_predict": "x"}, None)],
)
def test_only_a_positive_num_predict_limits(options, limit):
    talk = chat(options=options, max_tokens=3)  # which Ollama does not know
    assert talk.asked.max_tokens == limit
    assert talk.dialect.bounds(talk.route, talk.asked).max_output == limit
    worst = talk.worst()
    assert (worst.basis, worst.tokens_out) == (("client", 9) if limit else ("configured", 32_768))
    assert talk.capped(8)["options"] == {"num_predict": 8}
    assert talk.dialect.cap_output(talk.route, talk.asked, talk.body, 0) is None


@pytest.mark.parametrize("options", [{}, {"options": None}, {"options": {}}, {"options": {"seed": 1}}])
def test_a_limit_is_written_where_there_is_none(options):
    assert chat(**options).capped(8)["options"]["num_predict"] == 8


def test_less_thinking():
    assert chat(think="high").eased("minimal")["think"] == "low"
    assert chat(think=True).eased("low")["think"] is True
    assert new(thinking={"type": "enabled"}).eased("low")["thinking"]["token_budget"] == 1024
    assert new(thinking={"type": "enabled", "token_budget": 9000}).eased("low")["thinking"]["token_budget"] == 1024
    assert new(thinking={"type": "disabled"}).eased("low")["thinking"] == {"type": "disabled"}


def test_cohere_is_capped_where_it_writes():
    assert new().capped(5)["max_tokens"] == 5
    assert new(max_tokens=3).capped(5)["max_tokens"] == 3
    embed = Talk("/cohere/v2/embed", model="embed-v4.0", texts=["a"])
    assert embed.dialect.cap_output(embed.route, embed.asked, embed.body, 5) is None


def png(width, height, size=30_000):
    head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height)
    return base64.b64encode(head + b"\0" * size).decode()


def test_pictures_count_as_pictures_and_not_as_text():
    plain = chat().worst().tokens_in
    for talk in (
        Talk("/ollama/api/chat", model="m", messages=[{"role": "user", "content": "hi", "images": [png(896, 896)]}]),
        Talk("/ollama/api/generate", model="m", prompt="hi", images=[png(896, 896)]),
    ):
        more = talk.worst().tokens_in - plain
        assert 6_500 <= more < 12_000  # of 40,000 bytes of base64
    text = "x" * 5_000
    talk = Talk("/ollama/api/chat", model="m", messages=[{"role": "user", "content": "hi", "images": [text]}])
    assert talk.worst().tokens_in - plain >= len(text) * 0.6
    url = "data:image/png;base64," + png(2000, 2000)
    assert Talk("/cohere/v2/embed", model="embed-v4.0", images=[url]).worst().tokens_in > 20_000


def test_short_texts_count_too():
    assert Talk("/cohere/v2/embed", model="embed-v4.0", texts=["a", "b"]).worst().tokens_in >= 2
    assert Talk("/ollama/api/embed", model="m", input=["a"] * 30).worst().tokens_in >= 30 * 3  # two marks around each


def test_what_cohere_keeps_or_searches_is_in_the_bound():
    assert old(conversation_id="c", max_tokens=5).worst().tokens_in > 300_000
    connected = old(connectors=[{"id": "web-search"}], max_tokens=5)
    assert connected.worst().tokens_in > 10 * old(max_tokens=5).worst().tokens_in
    assert connected.dialect.bounds(connected.route, connected.asked).server_tools == (("connectors", 0),)
    talk = Talk("/cohere/v1/generate", model="command", prompt="hi", num_generations=4, max_tokens=6)
    assert talk.worst().tokens_out == 24


@pytest.mark.parametrize(
    ("documents", "query", "least", "most"),
    [(["a"], "q", 1, 1), (["a b c"] * 250, "q", 3, 3), (["word " * 4000] * 50, "q", 4, 20), (["a"], "q" * 900, 1, 8)],
)
def test_a_ranking_is_bound_by_its_searches(documents, query, least, most, tmp_path):
    listed = tmp_path / "prices.json"
    listed.write_text(json.dumps({"rerank-v3.5": {"input_cost_per_query": 0.002, "litellm_provider": "cohere"}}))
    ceiling = Ceiling(load(CATALOGUE, Prices(litellm_file=str(listed))))
    talk = Talk("/cohere/v2/rerank", model="rerank-v3.5", query=query, documents=documents)
    assert least <= talk.worst(ceiling).nano_usd / 2_000_000 <= most
    assert talk.worst().nano_usd is None


def test_steps_of_both_apis_are_read():
    call = {"function": {"name": "f", "arguments": {"b": 1, "a": 2}}}
    result = {"role": "tool", "tool_name": "f", "content": "Error: no"}
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": [call]}, result]
    step = newest_step("ollama", Talk("/ollama/api/chat", model="m", messages=[*turns, {"role": "user"}]).asked)
    (turn,) = step.tools
    assert turn.name == "f"
    assert turn.failure
    history = [{"role": "USER", "message": "a"}, {"role": "CHATBOT", "message": "b"}, {"role": "USER", "message": "c"}]
    step = newest_step("cohere", old(chat_history=history).asked)
    assert step.text == "b"


# -- where ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "template", "dialect", "operation"),
    [
        ("/cohere/v2/chat", "/v2/chat", "cohere", "chat"),
        ("/cohere/v1/chat", "/v1/chat", "cohere", "chat"),
        ("/cohere/chat", "/v2/chat", "cohere", "chat"),
        ("/cohere/v2/rerank", "/v2/rerank", "cohere", "rerank"),
        ("/cohere/compatibility/v1/chat/completions", "/openai/chat/completions", "openai_chat", "chat"),
        ("/v2/embed", "/v2/embed", "cohere", "embeddings"),
        ("/api/chat", "/api/chat", "ollama", "chat"),
        ("/ollama/api/generate/", "/api/generate", "ollama", "generate_content"),
        ("/ollama/api/embeddings", "/api/embed", "ollama", "embeddings"),
        ("/ollama/api/pull", "other", "ollama", ""),
        ("/ollama/v1/chat/completions", "/openai/chat/completions", "openai_chat", "chat"),
        ("/ollama/v1/responses", "/openai/responses", "openai_responses", "chat"),
        ("/cohere/v1/tokenize", "other", "cohere", ""),
    ],
)
def test_paths(path, template, dialect, operation):
    route = TABLE.resolve(b"POST", path.encode(), "")
    assert (route.template, route.dialect, route.operation) == (template, dialect, operation)
