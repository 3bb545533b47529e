"""Cohere and Ollama in their own words: what passes, what is recorded and charged, and how the gateway says no."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.testing.faults import Close, Script, Send, Wait, answer, chunked
from gateway.testing.gateway import RunningGateway
from gateway.testing.raw import RawAnswer, RawClient, post
from gateway.testing.scripted import ScriptedUpstream

LINES, EVENTS, STREAM = b"application/x-ndjson", b"text/event-stream", b"application/stream+json"
JSON = b"content-type: application/json"


def lines(*values: dict[str, Any]) -> bytes:
    return b"".join([json.dumps(value).encode() + b"\n" for value in values])


def events(*values: dict[str, Any]) -> bytes:
    texts = [(value["type"], json.dumps(value)) for value in values]
    return "".join([f"event: {name}\ndata: {text}\n\n" for name, text in texts]).encode()


def said(word: str, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": word}
    return {"model": "llama3", "created_at": "2026-01-01T00:00:00Z", "message": message, "done": False, **more}


DONE = said("", done=True, done_reason="stop", prompt_eval_count=26, eval_count=9)
TEXT = {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "word "}}}}
START = [
    {"type": "message-start", "id": "m-1", "delta": {"message": {"role": "assistant", "content": []}}},
    {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
]
USAGE = {"billed_units": {"input_tokens": 40, "output_tokens": 9}, "tokens": {"input_tokens": 500, "output_tokens": 12}}
END = {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": USAGE}}
OLD = {"is_finished": False, "event_type": "text-generation", "text": "word "}
HELLO = lines(said("Hel"), said("lo"), DONE)
CHAT = events(*START, TEXT, {"type": "content-end", "index": 0}, END) + b"data: [DONE]\n\n"
UNENDED = b""  # of a chunked body: more is to come

SCRIPTS: dict[str, Script] = {
    "o-good": [Send(chunked(HELLO, content_type=LINES))],
    "o-cut": [Send(chunked(lines(said("Hel"), said("lo")), end=UNENDED, content_type=LINES)), Close()],
    "o-failed": [Send(chunked(lines({"error": "model runner has stopped"}), content_type=LINES))],
    "o-endless": [
        Send(chunked(lines(said("word ")), end=UNENDED, content_type=LINES)),
        *[Send(b"%x\r\n%b\r\n" % (len(one := lines(said("word " * 4))), one)) for _ in range(200)],
        Wait(3600),
    ],
    "c-good": [Send(chunked(CHAT, content_type=EVENTS))],
    "c-cut": [Send(chunked(events(*START, TEXT), end=UNENDED, content_type=EVENTS)), Close()],
    "c-old-cut": [Send(chunked(lines(OLD, OLD), end=UNENDED, content_type=STREAM)), Close()],
    "c-endless": [
        Send(chunked(events(*START), end=UNENDED, content_type=EVENTS)),
        *[Send(b"%x\r\n%b\r\n" % (len(one := events(TEXT, TEXT)), one)) for _ in range(400)],
        Wait(3600),
    ],
    "rerank": [Send(answer(json.dumps({"id": "r", "meta": {"billed_units": {"search_units": 2}}}).encode(), JSON))],
    "down": [Send(answer(b'{"error":"busy"}', JSON, status=b"503 Service Unavailable"))],
}


@pytest.fixture(scope="module")
def gate(up: ScriptedUpstream) -> Iterator[RunningGateway]:
    ollama = {"dialect": "ollama", "url": up.url}
    upstreams = {
        "ollama": ollama,
        "spare": {**ollama, "headers": {"x-script": "o-good"}},
        "cohere": {"dialect": "cohere", "url": up.url, "provider": "cohere"},
    }
    budgets = [{"scope": "model", "match": "poor*", "usd": 0.000001, "per": "life"}]
    budgets += [{"scope": "model", "match": "tight", "usd": 0.0033, "per": "life", "on_exceed": "clamp"}]
    budgets += [{"scope": "model", "match": "held*", "usd": 5, "per": "life"}]
    models = ("llama3", "poor", "held", "held-c", "tight")
    with RunningGateway(
        upstreams,
        prices={"models": {name: {"input": 1, "output": 40} for name in models}},
        budgets=budgets,
        spending={"output_ceiling": 40, "clamp_floor": 10},
        fallbacks=[{"upstream": "ollama", "agent": "careful", "to": ["spare"]}],
        retries={"attempts": 1},
        telemetry={"log": None},
    ) as running:
        yield running


def ask(gate: RunningGateway, script: str, path: str, **body: Any) -> RawAnswer:
    with RawClient(int(gate.config["listen"].rpartition(":")[2]), timeout=60) as client:
        client.send(post(f"/run/{script}{path}", json.dumps(body).encode(), b"x-script: " + script.encode()))
        return client.answer()


def chat(gate: RunningGateway, script: str, model: str = "llama3", **more: Any) -> RawAnswer:
    return ask(gate, script, "/ollama/api/chat", model=model, messages=[{"role": "user", "content": "hi"}], **more)


def cohere(gate: RunningGateway, script: str, model: str = "command-r", **more: Any) -> RawAnswer:
    messages = [{"role": "user", "content": "hi"}]
    return ask(gate, script, "/cohere/v2/chat", model=model, messages=messages, stream=True, **more)


def record(gate: RunningGateway, script: str) -> dict[str, Any]:
    (call,) = gate.calls(1, run=script)
    return call


def test_an_ollama_stream_passes_and_is_charged_by_its_last_line(gate: RunningGateway) -> None:
    got = chat(gate, "o-good")
    assert (got.status, got.body, got.complete) == (200, HELLO, True)
    call = record(gate, "o-good")
    assert (call["dialect"], call["model_used"], call["stream"], call["outcome"]) == ("ollama", "llama3", True, "ok")
    assert (call["usage"]["input_tokens"], call["usage"]["output_tokens"]) == (26, 9)
    assert call["usage_source"] == "provider"
    assert call["cost_usd"] == pytest.approx((26 + 9 * 40) * 1e-6)


def test_a_cut_ollama_stream_says_so_in_a_line_of_its_own(gate: RunningGateway) -> None:
    got = chat(gate, "o-cut")
    sent = lines(said("Hel"), said("lo"))
    assert got.body.startswith(sent)
    assert not got.complete
    (last,) = got.body[len(sent) :].splitlines()
    assert json.loads(last)["error"]
    call = record(gate, "o-cut")
    assert (call["outcome"], call["usage_source"]) == ("truncated", "estimated")
    assert call["usage"]["input_tokens"]


def test_an_ollama_stream_that_begins_with_an_error_is_one(gate: RunningGateway) -> None:
    got = chat(gate, "o-failed")
    assert (got.status, json.loads(got.body)) == (500, {"error": "model runner has stopped"})
    assert record(gate, "o-failed")["cost_usd"] == 0


def test_an_upstream_of_the_same_family_steps_in(gate: RunningGateway) -> None:
    with RawClient(int(gate.config["listen"].rpartition(":")[2]), timeout=60) as client:
        body = json.dumps({"model": "llama3", "prompt": "hi"}).encode()
        client.send(post("/run/down/agent/careful/ollama/api/generate", body, b"x-script: down"))
        got = client.answer()
    assert (got.status, got.get("x-tollgate-upstream"), got.body) == (200, "spare", HELLO)
    assert record(gate, "down")["usage"]["output_tokens"] == 9


def test_budgets_bound_and_refuse_in_the_words_of_the_api(gate: RunningGateway, up: ScriptedUpstream) -> None:
    got = chat(gate, "o-poor", model="poor")
    assert (got.status, list(json.loads(got.body))) == (402, ["error"])
    assert got.get("x-tollgate-code") == "budget_exceeded"
    got = cohere(gate, "c-poor", model="poor")
    assert (got.status, sorted(json.loads(got.body))) == (402, ["error_type", "id", "message"])
    assert not up.of("o-poor") + up.of("c-poor")


def test_what_a_budget_has_left_becomes_the_limit_of_the_answer(gate: RunningGateway, up: ScriptedUpstream) -> None:
    with RawClient(int(gate.config["listen"].rpartition(":")[2]), timeout=60) as client:
        body = json.dumps({"model": "tight", "prompt": "hi", "options": {"num_predict": -1}}).encode()
        client.send(post("/run/o-tight/ollama/api/generate", body, b"x-script: o-good"))
        got = client.answer()
        assert got.status == 200, got.body
    sent = json.loads(up.seen[-1].raw.rpartition(b"\r\n\r\n")[2])
    assert 10 <= sent["options"]["num_predict"] < 40
    assert record(gate, "o-tight")["notes"]["budget"] == "clamped"


def test_an_ollama_stream_that_uses_up_what_was_reserved_ends_as_at_its_limit(gate: RunningGateway) -> None:
    got = chat(gate, "o-endless", model="held")
    assert got.complete
    values = [json.loads(line) for line in got.body.splitlines()]
    assert (values[-1]["done"], values[-1]["done_reason"]) == (True, "length")
    call = record(gate, "o-endless")
    assert call["notes"]["budget"] == "stopped"
    assert values[-1]["eval_count"] == call["usage"]["output_tokens"]
    assert call["cost_usd"] > 0


def test_a_cohere_stream_is_charged_for_what_is_billed(gate: RunningGateway) -> None:
    got = cohere(gate, "c-good")
    assert (got.body, got.complete) == (CHAT, True)
    call = record(gate, "c-good")
    assert (call["usage"]["input_tokens"], call["usage"]["output_tokens"]) == (40, 9)
    assert call["cost_usd"] == pytest.approx((40 * 0.15 + 9 * 0.6) * 1e-6)  # the catalogue's


def test_a_cut_cohere_stream_ends_as_an_error_of_either_version(gate: RunningGateway) -> None:
    got = cohere(gate, "c-cut")
    assert not got.complete
    last = json.loads(got.body.rpartition(b"data: ")[2])
    assert (last["type"], last["delta"]["finish_reason"]) == ("message-end", "ERROR")
    got = ask(gate, "c-old-cut", "/cohere/v1/chat", model="command-r", message="hi", stream=True)
    assert not got.complete
    last = json.loads(got.body.splitlines()[-1])
    assert (last["event_type"], last["finish_reason"]) == ("stream-end", "ERROR")
    assert {record(gate, name)["outcome"] for name in ("c-cut", "c-old-cut")} == {"truncated"}


def test_a_cohere_stream_that_uses_up_what_was_reserved(gate: RunningGateway) -> None:
    got = cohere(gate, "c-endless", model="held-c")
    assert got.complete
    ends = [json.loads(line[6:]) for line in got.body.split(b"\n") if line.startswith(b"data: {")][-2:]
    assert [end["type"] for end in ends] == ["content-end", "message-end"]
    assert ends[1]["delta"]["finish_reason"] == "MAX_TOKENS"
    billed = ends[1]["delta"]["usage"]["billed_units"]
    assert billed["output_tokens"] == record(gate, "c-endless")["usage"]["output_tokens"]


def test_searches_are_counted_and_their_price_is_not_guessed(gate: RunningGateway) -> None:
    ask(gate, "rerank", "/cohere/v2/rerank", model="rerank-v3.5", query="q", documents=["a", "b"])
    call = record(gate, "rerank")
    assert (call["operation"], call["usage"]["input_tokens"], call["cost_usd"]) == ("rerank", 0, None)
