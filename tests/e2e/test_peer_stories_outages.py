"""What went wrong in other gateways where an upstream failed, or where bytes had only to pass, and does not here.

As in test_peer_stories, each test bears the name of the peer and the number of its issue; `measured` is what was seen
there without an issue.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.testing.faults import Reset, Send, Wait, answer, chunked
from gateway.testing.gateway import RunningGateway
from gateway.testing.raw import RawAnswer, RawClient, post
from gateway.testing.scripted import Background, ScriptedUpstream

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
DELTA = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}\n\n'
LAST = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"busy","type":"server_error","code":"server_is_overloaded"}}\n\n'
GOOD = (
    b'{"id":"c","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"good"},"finish_reason":'
    b'"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}}'
)
OVERLOADED = b'{"type":"error",  "error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_1"}'
LIMITS = (
    b"retry-after: 17",
    b"anthropic-ratelimit-unified-status: rejected",
    b"anthropic-ratelimit-unified-reset: 1790000000",
    b"request-id: req_1",
)
USED = {"input_tokens": 40, "output_tokens": 7, "total_tokens": 47}
CODEX = {"id": "r", "object": "response", "model": "m", "status": "completed", "output": [], "usage": USED}
ODD = b'data: {"id":"c","model":"m","choices":[{"delta":{"content":7},"index":0}]}\n\ndata: [1]\n\n'
SCRIPTS: dict[str, Any] = {
    "good": [Send(answer(GOOD))],
    "cut": [Send(answer(GOOD[:60], length=len(GOOD))), Reset()],
    "cut at once": [Send(chunked(end=b"")), Reset()],
    "stalled": [Send(chunked(b": ping\n\n", end=b"")), Wait(3600)],
    "malformed": [Send(chunked(b"data: {nonsense\n\n", DONE))],
    "error": [Send(chunked(ERROR, DONE))],
    "reset": [Reset()],
    "503": [Send(answer(b'{"error":{"message":"busy"}}', status=b"503 Service Unavailable"))],
    "529": [Send(answer(OVERLOADED, *LIMITS, status=b"529 Overloaded"))],
    "stream": [Send(chunked(DELTA, DELTA, LAST, DONE))],
    "cut in the middle": [Send(chunked(DELTA, DELTA, DELTA))],
    "odd": [Send(chunked(DELTA, ODD, LAST, DONE))],
    "opens": [Send(chunked(DELTA, end=b"")), Wait(3600)],
    "codex": [Send(chunked(b"event: response.completed\ndata: %b\n\n" % json.dumps(
        {"type": "response.completed", "sequence_number": 0, "response": CODEX}).encode()))],
}  # fmt: skip


@pytest.fixture(scope="module")
def well() -> Iterator[ScriptedUpstream]:
    """Answers well whatever it is asked for."""
    scripts = {"": lambda raw: SCRIPTS["stream" if b'"stream"' in raw else "good"]}
    with Background(ScriptedUpstream(scripts)) as running:
        yield running


@pytest.fixture(scope="module")
def gate(up: ScriptedUpstream, well: ScriptedUpstream) -> Iterator[RunningGateway]:
    def openai(url: str, **more: Any) -> dict[str, Any]:
        return {"dialect": "openai", "url": url, "provider": "openai", "inject_usage": False, **more}

    patient = {"first_content": 1}
    upstreams = {
        "bare": openai(up.url),
        "sick": openai(up.url, timeouts=patient),
        "broken": openai(up.url),
        "routed": openai(up.url),
        "well": openai(well.url),
        "claude": {"dialect": "anthropic", "url": up.url, "provider": "anthropic"},
    }
    with RunningGateway(
        upstreams,
        fallbacks=[{"upstream": name, "to": ["well"]} for name in ("sick", "broken")],
        routes=[{"agent": "chooser", "model": "m", "to": [{"upstream": "routed"}, {"upstream": "well"}]}],
        breakers={"consecutive": 3, "pause": 600, "longest": 600, "volume": 1000},
        retries={"attempts": 1},
        telemetry={"log": None},
    ) as running:
        yield running


def ask(gate: RunningGateway, path: str, body: bytes, script: str, *headers: bytes) -> RawAnswer:
    with RawClient(int(gate.url.rpartition(":")[2]), timeout=30) as client:
        client.send(post(path, body, b"x-script: " + script.encode(), *headers))
        return client.answer()


def chat(script: str, *, stream: bool = False) -> bytes:
    extra = {"stream": True} if stream else {}
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": script}], **extra}).encode()


def record(gate: RunningGateway, got: RawAnswer) -> dict[str, Any]:
    found: dict[str, Any] = gate.until(lambda: gate.get(f"/api/calls/{got.get('x-tollgate-request-id')}"), bool)
    return found


# -- an upstream fails -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cut at once", "stalled", "malformed", "error"])
def test_litellm_40404_the_fallback_is_asked_for_streams_too(gate: RunningGateway, how: str) -> None:
    """There nobody was asked in place of a stream that was cut, stalled or malformed."""
    # the breaker is for others to test: none of these is three times in a row for one model
    body = chat(how, stream=True).replace(b'"m"', b'"m-%b"' % how.encode())
    got = ask(gate, f"/sick{CHAT}", body, how)
    assert (got.status, got.complete, got.get("x-tollgate-upstream")) == (200, True, "well")
    assert got.body == DELTA + DELTA + LAST + DONE


def test_litellm_24004_an_error_event_is_no_success(gate: RunningGateway) -> None:
    """There a stream that held nothing but an error was written down as a success."""
    got = ask(gate, f"/bare{CHAT}", chat("an error", stream=True), "error")
    assert (got.status, b"[DONE]" in got.body) == (503, False)
    assert record(gate, got)["outcome"] == "upstream_error"


def test_litellm_40405_one_upstream_and_a_fallback_have_a_breaker(gate: RunningGateway, up: ScriptedUpstream) -> None:
    """There every call tried the failing one three times, for as long as it failed."""
    mine = b'"m-outage"'
    made = [ask(gate, f"/broken{CHAT}", chat("x").replace(b'"m"', mine), "503") for _ in range(12)]
    assert {(got.status, got.get("x-tollgate-upstream")) for got in made} == {(200, "well")}
    assert [got.get("x-tollgate-attempts") for got in made] == ["2"] * 3 + ["1"] * 9
    assert sum(mine in raw for raw in up.received) == 3


def test_portkey_a_breaker_works_also_where_a_route_decides(gate: RunningGateway, up: ScriptedUpstream) -> None:
    """There it was out of force as soon as a condition chose the target."""
    made = [ask(gate, f"/agent/chooser{CHAT}", chat("a routed call"), "503") for _ in range(8)]
    assert {(got.status, got.get("x-tollgate-upstream")) for got in made} == {(200, "well")}
    assert sum(b"a routed call" in raw for raw in up.received) == 3


def test_portkey_1797_a_cut_stream_is_no_success(gate: RunningGateway) -> None:
    """There it ended like a whole one, and nothing was logged. (TensorZero 475: nor what had come of it.)"""
    got = ask(gate, f"/bare{CHAT}", chat("cut", stream=True), "cut in the middle")
    assert (got.status, got.complete, b"[DONE]" in got.body) == (200, False, False)
    assert b'"error"' in got.body.rpartition(b"\n\ndata: ")[2]
    call = record(gate, got)
    assert (call["outcome"], call["usage_source"]) == ("truncated", "estimated")
    assert call["usage"]["output_tokens"] > 0


@pytest.mark.parametrize("how", ["reset", "cut"])
def test_portkey_267_a_lost_connection_is_never_a_200(gate: RunningGateway, how: str) -> None:
    """There "Network connection lost" came as the body of a success."""
    got = ask(gate, f"/bare{CHAT}", chat(how), how)
    assert (got.status, got.complete) == (502, True)
    assert json.loads(got.body)["error"]["code"].startswith("upstream_")


def test_litellm_measured_an_error_is_the_provider_s_own(gate: RunningGateway) -> None:
    """There a 529 came as a 500 in other words, without `retry-after` and the limits. (Portkey: as OpenAI's error.)"""
    body = b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}'
    got = ask(gate, f"/claude{MESSAGES}", body, "529", b"anthropic-version: 2023-06-01")
    assert (got.status, got.body) == (529, OVERLOADED)
    for line in LIMITS:
        name, _, value = line.decode().partition(": ")
        assert got.all(name) == [value]


# -- bytes pass ------------------------------------------------------------------------------------------------------

THINKING = (
    b'{"type":"thinking","thinking":"a \\u00fc b","signature":"c2lnbmVk"},{"type":"redacted_thinking","data":"eHg="}'
)
MARK = b'"cache_control" : {"ttl":"1h","type":"ephemeral"}'
PASSING = {
    "bifrost_898_order_and_spaces": b'{"stream" :false,\n "messages":[{"content":"hi","role":"user"}],  "model":"m",'
    b'"max_tokens":9, "temperature":1.0}',
    "bifrost_6342_signed_thinking": b'{"model":"m","max_tokens":9,"messages":[{"role":"assistant","content":['
    + THINKING + b']},{"role":"user","content":"go on"}]}',
    "portkey_1579_marks_on_tools": b'{"model":"m","max_tokens":9,"tools":[{"name":"t","input_schema":{"type":"object"},'
    + MARK + b'}],"messages":[{"role":"user","content":"hi"}]}',
    "portkey_1140_marks_on_blocks": b'{"model":"m","max_tokens":9,"messages":[{"role":"user","content":[{"type":"text",'
    b'"text":"hi",' + MARK + b"}]}]}",
    "portkey_1593_marks_at_the_top": b'{"model":"m","max_tokens":9,' + MARK
    + b',"messages":[{"role":"user","content":"hi"}]}',
    "portkey_measured_fields_nobody_knows": b'{"model":"m","max_tokens":9,"brand_new_param":{"a":[1e2]},'
    b'"context_management":{"edits":[]},"messages":[{"role":"user","content":"hi"}]}',
}  # fmt: skip


@pytest.mark.parametrize("story", PASSING)
def test_what_is_asked_is_what_arrives(gate: RunningGateway, up: ScriptedUpstream, story: str) -> None:
    """There bodies were written anew: prompt caches missed (at five times the cost), signatures broke, fields were
    gone while the beta header that announces them stayed, and that header was sorted."""
    beta = b"anthropic-beta: zeta-2026-01-01,context-management-2025-06-27,alpha-2025-01-01"
    body = PASSING[story]
    assert ask(gate, f"/claude{MESSAGES}", body, "good", b"anthropic-version: 2023-06-01", beta).status == 200
    head, _, arrived = up.received[-1].partition(b"\r\n\r\n")
    assert arrived == body
    assert beta in head.split(b"\r\n")


def test_envoy_1894_what_nobody_here_understands_passes(gate: RunningGateway) -> None:
    """There a client had not a single byte of a stream that the gateway could not read."""
    got = ask(gate, f"/bare{CHAT}", chat("odd", stream=True), "odd")
    assert (got.status, got.complete, got.body) == (200, True, DELTA + ODD + LAST + DONE)


def test_envoy_494_a_stream_is_passed_on_while_it_lasts(gate: RunningGateway) -> None:
    """There it was gathered first, and refused where it was long. Here the beginning comes, though no end ever does."""
    with RawClient(int(gate.url.rpartition(":")[2]), timeout=30) as client:
        client.send(post(f"/bare{CHAT}", chat("opens", stream=True), b"x-script: opens"))
        assert b"word " in client.until(b"word ")


def test_agentgateway_1686_the_usage_of_a_stream_of_codex(gate: RunningGateway) -> None:
    """There streams of the Responses API had no usage. It stands within the response of the last event."""
    got = ask(gate, f"/bare{RESPONSES}", b'{"model":"m","input":"hi","stream":true}', "codex")
    call = record(gate, got)
    assert (call["usage_source"], call["usage"]["input_tokens"], call["usage"]["output_tokens"]) == ("provider", 40, 7)
