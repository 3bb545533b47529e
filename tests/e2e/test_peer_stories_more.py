"""More of what went wrong with money and with failing upstreams in other gateways, and does not here.

As in test_peer_stories, each test bears the name of the peer and the number of its issue.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.faults import Repeat, Send, Wait, answer, chunked
from gateway.testing.gateway import RunningGateway
from gateway.testing.raw import RawClient
from gateway.testing.scripted import ScriptedUpstream
from tests.e2e.conftest import upstreams
from tests.e2e.money import Answer, ask, asked_of, port_of, request_of, until

PRICE = {"input": 3, "output": 15, "cache_read": 0.3, "cache_write": 3.75}
DELTA = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}\n\n'
LAST = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USED = {"prompt_tokens": 1000, "completion_tokens": 70, "total_tokens": 1070}
USAGE = b'data: {"id":"c","model":"m","choices":[],"usage":%b}\n\n' % json.dumps(USED).encode()
DONE = b"data: [DONE]\n\n"
COUNTS = {"input_tokens": 10, "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 200}
COST = (10 * 3 + 1000 * 0.3 + 200 * 3.75 + 900 * 15) / 1e6  # USD of COUNTS and 900 tokens of output
MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
COMMENT = b": " + b"x" * 65_532 + b"\n\n"
COMMENTS = 2000


def event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind, **fields}).encode())


def claude(start: dict[str, Any], end: dict[str, Any]) -> list[Any]:
    """A stream of the Messages API with these usages."""
    begun = {**MESSAGE, "content": [], "stop_reason": None, "usage": start}
    pieces = [event("message_start", message=begun)]
    pieces.append(event("content_block_start", index=0, content_block={"type": "text", "text": ""}))
    pieces.append(event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hello"}))
    pieces.append(event("content_block_stop", index=0))
    pieces.append(event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=end))
    return [Send(chunked(*pieces, event("message_stop")))]


WHOLE = {**MESSAGE, "content": [{"type": "text", "text": "Hello"}], "stop_reason": "end_turn",
         "usage": {**COUNTS, "output_tokens": 900}}  # fmt: skip
SCRIPTS: dict[str, Any] = {
    "whole": [Send(answer(json.dumps(WHOLE).encode()))],
    "at the end": claude({**COUNTS, "output_tokens": 3}, {"output_tokens": 900}),
    "said twice": claude({**COUNTS, "output_tokens": 3}, {**COUNTS, "output_tokens": 900}),
    "goes on": [Send(chunked(DELTA, end=b"")), Wait(0.5), Send(chunked(LAST, USAGE, DONE).partition(b"\r\n\r\n")[2])],
    "silent": [Wait(3600)],
    "down": [Send(answer(b'{"error":{"message":"down"}}', status=b"503 Service Unavailable"))],
    "long": [Send(chunked(DELTA, end=b"")), Repeat(b"%x\r\n%b\r\n" % (len(COMMENT), COMMENT), times=COMMENTS),
             Send(chunked(LAST, USAGE, DONE).partition(b"\r\n\r\n")[2])],
}  # fmt: skip


@pytest.fixture(scope="module")
def gate(fake: FakeUpstream, up: ScriptedUpstream) -> Iterator[RunningGateway]:
    def openai(**more: Any) -> dict[str, Any]:
        return {"dialect": "openai", "url": up.url, "provider": "openai", "inject_usage": False, **more}

    scripted = {
        "gpt": openai(),
        "alone": openai(),
        "drains": openai(on_client_gone="drain"),
        "claude": {"dialect": "anthropic", "url": up.url, "provider": "anthropic"},
    }
    with RunningGateway(
        {**upstreams(fake.url), **scripted},
        prices={"models": {"m": PRICE}},
        runs={"budget_usd": 2},
        breakers={"enabled": True, "refuse": True, "consecutive": 3, "pause": 600, "longest": 600, "volume": 1000},
        retries={"attempts": 1},
        telemetry={"log": None},
    ) as running:
        yield running


def account(gate: RunningGateway, run: str) -> dict[str, Any]:
    (found,) = [b for b in gate.get("/api/budgets", prefix=f"run:{run}")["budgets"] if b["value"] == run]
    return dict(found)


def settled(gate: RunningGateway, run: str) -> float:
    """USD that the budget of this run has spent, when nothing is under way."""
    return float(gate.until(lambda: account(gate, run), lambda a: a["reserved"] == 0, 30)["spent"])


def scripted(gate: RunningGateway, form: str, script: str, run: str, to: str, **more: Any) -> Answer:
    return ask(gate, form, "m", script, 1000, prefix=f"/run/{run}/{to}", headers={"x-script": script}, **more)


# -- money -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("issue", "stream"), [("27381", False), ("23714", True)])
def test_litellm_what_is_spent_never_passes_the_most(
    gate: RunningGateway, fake: FakeUpstream, issue: str, stream: bool
) -> None:
    """There a budget stood in the configuration, the account beyond it, and calls went on: for ever (27381), or where
    they were streams (23714)."""
    run, own = f"most-{issue}", {"x-tollgate-budget-usd": "0.005"}
    statuses = []
    for _ in range(10):
        text = f"[[tokens 100]] {run}"
        statuses.append(ask(gate, "chat", "m", text, 100, prefix=f"/run/{run}", headers=own, stream=stream).status)
        assert settled(gate, run) <= 0.005
    granted = statuses.count(200)
    assert 2 <= granted <= 3
    assert statuses == [200] * granted + [402] * (10 - granted)
    assert len(asked_of(fake, run)) == granted


@pytest.mark.parametrize(
    ("issue", "script"),
    [
        ("litellm_9812", "said twice"),
        ("litellm_11364", "at the end"),
        ("agentgateway_1089", "at the end"),
        ("agentgateway_1993", "whole"),
    ],
)
def test_one_answer_has_one_cost(gate: RunningGateway, issue: str, script: str) -> None:
    """There it hung on how it came: cached tokens were billed wrong in streams (LiteLLM), the output was the 3 tokens
    of the first event (agentgateway 1089), or what was written to the cache was lost without a stream (1993)."""
    run = f"one-cost-{issue}"
    got = scripted(gate, "messages", script, run, "claude", stream=script != "whole")
    assert got.status == 200
    assert settled(gate, run) == pytest.approx(COST, abs=1e-9)
    (call,) = gate.calls(1, run=run)
    assert (call["usage"]["output_tokens"], call["cost_usd"]) == (900, pytest.approx(COST, abs=1e-9))


def test_litellm_35958_who_leaves_a_stream_pays_what_the_provider_says(gate: RunningGateway) -> None:
    """There a part of it was spent, or nothing. Here the rest is read where that is wished, and the usage with it."""
    with RawClient(port_of(gate)) as client:
        client.send(request_of("chat", "m", "hi", 500, prefix="/run/drained/drains", stream=True,
                               headers={"x-script": "goes on"}))  # fmt: skip
        client.until(b"word")
    (call,) = gate.calls(1, run="drained", seconds=30)
    assert (call["usage_source"], call["usage"]["output_tokens"]) == ("provider", 70)
    assert settled(gate, "drained") == pytest.approx((1000 * 3 + 70 * 15) / 1e6, abs=1e-9)


def test_litellm_36008_who_leaves_before_the_first_byte_pays_too(gate: RunningGateway, up: ScriptedUpstream) -> None:
    """There nothing was spent where a client left before anything had come, though the provider was at work."""
    with RawClient(port_of(gate)) as client:
        client.send(request_of("chat", "m", "hi", 500, prefix="/run/early/gpt", headers={"x-script": "silent"}))
        until(lambda: up.of("silent"))
    (call,) = gate.calls(1, run="early", seconds=30)
    assert call["outcome"] == "cancelled"
    assert settled(gate, "early") >= 500 * 15e-6


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_envoy_1169_what_remains_is_less_by_the_cost(gate: RunningGateway, stream: bool) -> None:
    """There it never became less."""
    run, costs = f"remains-{stream}", 0.0
    for number in range(4):
        got = ask(gate, "chat", "m", f"[[tokens {9 + number}]]", 20, prefix=f"/run/{run}", stream=stream)
        (*_, call) = gate.calls(number + 1, run=run)
        costs = sum(call["cost_usd"] for call in gate.calls(number + 1, run=run))
        assert got.status == 200
        assert call["cost_usd"] > 0
        assert settled(gate, run) == pytest.approx(costs, abs=1e-9)
    left = ask(gate, "chat", "m", "[[tokens 1]]", 1, prefix=f"/run/{run}").remaining
    assert 2 - costs - 0.005 < left < 2 - costs


# -- an upstream is down, or long-winded -----------------------------------------------------------------------------


def test_litellm_40130_one_upstream_alone_has_a_breaker(gate: RunningGateway, up: ScriptedUpstream) -> None:
    """There a single deployment was never rested: each call tried it for as long as it was down. Here, where such calls
    are to be refused, the third failure is the last that is asked for."""
    answers = [scripted(gate, "chat", "down", "alone", "alone") for _ in range(9)]
    assert {got.status for got in answers} == {503}
    assert len(up.of("down")) == 3
    assert all(int(got.headers["retry-after"]) > 0 for got in answers[3:])


def most_memory(gate: RunningGateway) -> int:
    """The most bytes that any worker has held so far."""
    found = [Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0] for pid in gate.pids("worker")]
    return max(map(int, found)) * 1024


def test_litellm_12685_and_38193_and_27954_what_passes_is_not_kept(gate: RunningGateway) -> None:
    """There the memory grew with what had passed, up to 40 GiB. Here 131 MB in one stream leave next to nothing."""
    ask(gate, "chat", "m", "[[tokens 5]] warm", 10, prefix="/run/kept")
    before = most_memory(gate)
    with RawClient(port_of(gate), timeout=60) as client:
        client.send(request_of("chat", "m", "hi", 500, prefix="/run/kept/gpt", stream=True,
                               headers={"x-script": "long"}))  # fmt: skip
        passed = b""
        size = 0
        while DONE not in passed:
            size += len(piece := client.more())
            passed = passed[-len(DONE) :] + piece
            assert piece, "cut"
    assert size > len(COMMENT) * COMMENTS
    assert most_memory(gate) - before < len(COMMENT) * COMMENTS / 4
