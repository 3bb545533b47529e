"""A second attempt beside one that is late, through a real gateway: which one answers, and what both cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.faults import Script, Send, Wait, answer, chunked
from gateway.testing.gateway import RunningGateway
from gateway.testing.raw import RawAnswer, RawClient, post
from gateway.testing.scripted import Background, ScriptedUpstream

CHAT = "/v1/chat/completions"
COUNT = b'"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}'
GOOD = (
    b'{"id":"c","object":"chat.completion","model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"from the first"},"finish_reason":"stop"}],' + COUNT + b"}"
)
EVENT = (
    b'data: {"id":"c","object":"chat.completion.chunk","model":"gpt-4o","choices":[{"index":0,'
    b'"delta":{"content":"from the first"},"finish_reason":"stop"}]}\n\n'
)
USAGE = b'data: {"id":"c","object":"chat.completion.chunk","model":"gpt-4o","choices":[],' + COUNT + b"}\n\n"
STREAM = EVENT + USAGE + b"data: [DONE]\n\n"
SCRIPTS: dict[str, Script] = {
    "quick": [Send(answer(GOOD))],
    "quick stream": [Send(chunked(STREAM))],
    "silent": [Wait(3600)],
    "silent stream": [Send(chunked(b": ping\n\n", end=b"")), Wait(3600)],
    "late": [Wait(1.5), Send(answer(GOOD))],
}


@pytest.fixture(scope="module")
def first() -> Iterator[ScriptedUpstream]:
    with Background(ScriptedUpstream(SCRIPTS)) as running:
        yield running


@pytest.fixture(scope="module")
def second() -> Iterator[FakeUpstream]:
    with FakeUpstream(5) as running:
        yield running


def config(first: ScriptedUpstream, second: FakeUpstream, **hedging: Any) -> dict[str, Any]:
    return {
        "upstreams": {
            "first": {"dialect": "openai", "provider": "openai", "url": first.url, "key": "sk-of-the-first"},
            "second": {"dialect": "openai", "provider": "openai", "url": second.url, "key": "sk-of-the-second"},
        },
        "fallbacks": [{"upstream": "first", "to": ["second"]}],
        "hedging": {"enabled": True, "sample": 10, "least": 0.2, "share": 1, **hedging},
        "telemetry": {"log": None},
    }


@pytest.fixture
def gate(first: ScriptedUpstream, second: FakeUpstream) -> Iterator[RunningGateway]:
    with RunningGateway(**config(first, second), runs={"budget_usd": 1}) as running:
        yield running


def ask(gate: RunningGateway, script: str, run: str) -> RawAnswer:
    body: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "[[say from the second]]"}]}
    body |= {"max_tokens": 50}
    if "stream" in script:
        body["stream"] = True
    with RawClient(int(gate.url.rpartition(":")[2]), timeout=20) as client:
        headers = (b"x-script: " + script.encode(), b"x-session-id: " + run.encode())
        client.send(post(f"/first{CHAT}", json.dumps(body).encode(), *headers))
        return client.answer()


@pytest.mark.parametrize("kind", ["", " stream"])
def test_the_second_answers_for_one_that_is_silent(gate: RunningGateway, first: ScriptedUpstream, kind: str) -> None:
    for n in range(12):
        assert b"from the first" in ask(gate, f"quick{kind}", f"quick-{n}").body
    got = ask(gate, f"silent{kind}", "hedged")
    assert (got.status, got.complete) == (200, True)
    assert b"first" not in got.body
    assert b"second" in got.body
    assert got.get("x-tollgate-upstream") == "second"
    assert got.get("x-tollgate-attempts") == "2"
    (call,) = gate.calls(1, run="hedged")
    lost, won = call["attempts"]
    assert (call["outcome"], call["upstream"], call["notes"]["hedge"]) == ("ok", "second", "won")
    assert (lost["upstream"], lost["error_code"]) == ("first", "overtaken")
    assert (won["upstream"], won["status"]) == ("second", 200)
    assert lost["cost_usd"] > 0
    assert call["cost_components"]["hedged_attempts"] == pytest.approx(lost["cost_usd"])
    assert call["cost_usd"] == pytest.approx(sum(call["cost_components"].values()))
    seen = first.of(f"silent{kind}")[-1]
    gate.until(lambda: seen.left_at, bool)  # it was broken off
    page = gate.until(lambda: gate.text("/metrics"), lambda text: "tollgate_hedges_total{" in text)
    counted = [line for line in page.splitlines() if line.startswith("tollgate_hedges_total{")]
    assert len(counted) == 1
    assert all(label in counted[0] for label in ('upstream="first"', 'to="second"', 'result="won"'))
    assert 'result="overtaken"' in page
    assert "tollgate_retries_total{" not in page


def test_the_share_is_kept(first: ScriptedUpstream, second: FakeUpstream) -> None:
    with RunningGateway(**config(first, second, share=0.05)) as gate:
        for n in range(12):
            ask(gate, "quick", f"few-{n}")
        assert b"from the first" in ask(gate, "late", "capped").body
        (call,) = gate.calls(1, run="capped")
        assert (len(call["attempts"]), "hedge" in call["notes"]) == (1, False)


def test_without_being_asked_for_there_is_none(first: ScriptedUpstream, second: FakeUpstream) -> None:
    settings = config(first, second)
    del settings["hedging"]
    with RunningGateway(**settings) as gate:
        for n in range(12):
            ask(gate, "quick", f"off-{n}")
        assert b"from the first" in ask(gate, "late", "off").body
        (call,) = gate.calls(1, run="off")
        assert (len(call["attempts"]), "hedge" in call["notes"]) == (1, False)
