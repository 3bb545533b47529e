"""Bedrock behind a real gateway: one call of each kind, broken streams, refusals, and who leaves in the middle.

What is sent is what botocore sends (a signature of AWS, which the gateway's own key takes the place of).
"""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from gateway.dialects import eventstream
from gateway.testing.faults import Close, Script, Send, Wait, answer, chunked
from gateway.testing.gateway import RunningGateway
from gateway.testing.raw import RawAnswer, RawClient, chunks, post
from gateway.testing.scripted import ScriptedUpstream

MODEL = "us.anthropic.claude-sonnet-4-5-20250929-v1%3A0"
SIGNED = (
    b"Authorization: AWS4-HMAC-SHA256 Credential=AKID/20261128/us-east-1/bedrock/aws4_request, Signature=5e55",
    b"X-Amz-Date: 20261128T140926Z",
    b"X-Amz-Security-Token: session-secret",
)


def said(name: str, **payload: Any) -> bytes:
    return eventstream.event(name.encode(), json.dumps(payload).encode())


BEGIN = said("messageStart", role="assistant") + said("contentBlockDelta", contentBlockIndex=0, delta={"text": "Hello"})
MORE = said("contentBlockDelta", contentBlockIndex=0, delta={"text": "word " * 400})
END = (
    said("contentBlockStop", contentBlockIndex=0)
    + said("messageStop", stopReason="end_turn")
    + said("metadata", usage={"inputTokens": 7, "outputTokens": 100, "totalTokens": 107}, metrics={"latencyMs": 1})
)
THROTTLED = eventstream.exception(b"throttlingException", b'{"message":"slow"}')
USAGE = {"inputTokens": 7, "outputTokens": 3, "totalTokens": 10, "cacheReadInputTokens": 100}
DOCUMENT = json.dumps({"output": {"message": {"content": [{"text": "Hi"}]}}, "stopReason": "end_turn", "usage": USAGE})


def stream(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> Send:
    return Send(chunked(*pieces, end=end, content_type=eventstream.CONTENT_TYPE))


SCRIPTS: dict[str, Script] = {
    "": [Send(answer(DOCUMENT.encode()))],
    "stream": [stream(BEGIN, END)],
    "cut": [stream(BEGIN, end=b""), Close()],
    "late": [stream(BEGIN, THROTTLED)],
    "throttled": [stream(THROTTLED)],
    "long": [stream(BEGIN, end=b""), *[Wait(0.02), Send(chunks(MORE, end=b""))] * 30, Send(chunks(END))],
    "left": [stream(BEGIN, end=b""), Wait(0.3), Send(chunks(END))],
}


@pytest.fixture
def gate(up: ScriptedUpstream) -> Any:
    upstreams = {"bedrock": {"dialect": "bedrock", "url": up.url, "key": "bedrock-api-key"}}
    budgets = [
        {"scope": "team", "match": "small", "usd": 0.01, "per": "day"},
        {"scope": "model", "match": "stop-*", "usd": 1, "per": "day"},
    ]
    with RunningGateway(
        upstreams,
        budgets=budgets,
        spending={"output_ceiling": 400},
        prices={"models": {"stop-1": {"input": 1, "output": 2}}},
        identity={"tenant_header": "x-team"},
        retries={"attempts": 1},
        telemetry={"log": None},
    ) as running:
        yield running


def request(script: str, model: str, verb: str, body: dict[str, Any], *headers: bytes) -> bytes:
    said = json.dumps({"messages": [{"role": "user", "content": [{"text": "hi"}]}], **body}).encode()
    return post(f"/model/{model}/{verb}", said, b"x-script: " + script.encode(), *SIGNED, *headers)


def ask(gate: RunningGateway, script: str, verb: str, *headers: bytes, model: str = MODEL, **body: Any) -> RawAnswer:
    client = RawClient(int(gate.url.rpartition(":")[2]))
    client.send(request(script, model, verb, body, *headers))
    try:
        return client.answer()
    finally:
        client.close()


def names(body: bytes) -> list[str]:
    """The kinds of the messages of a stream, by their headers."""
    found = []
    while body:
        total, size = struct.unpack(">II", body[:8])
        headers = eventstream.headers(body[12 : 12 + size])
        found.append((headers.get(b":event-type") or headers[b":exception-type"]).decode())
        body = body[total:]
    return found


def test_calls_pass_and_are_priced(gate: RunningGateway, up: ScriptedUpstream) -> None:
    got = ask(gate, "", "converse")
    assert (got.status, got.body) == (200, DOCUMENT.encode())
    assert float(got.get("x-tollgate-cost-usd")) > 0
    sent = up.seen[-1].raw
    assert b"\r\nauthorization: Bearer bedrock-api-key\r\n" in sent
    assert b"session-secret" not in sent
    assert f"POST /model/{MODEL}/converse HTTP/1.1".encode() in sent
    assert ask(gate, "stream", "converse-stream").body == BEGIN + END
    document, streamed = gate.calls(2)
    assert document["model_requested"] == MODEL.replace("%3A", ":")
    assert (document["usage"]["input_tokens"], document["usage"]["cache_read_tokens"]) == (107, 100)
    assert (document["usage_source"], document["provider"]) == ("provider", "aws")
    assert (streamed["usage"]["output_tokens"], streamed["stream"], streamed["outcome"]) == (100, True, "ok")


def test_what_breaks_is_told_in_the_words_of_aws(gate: RunningGateway) -> None:
    cut = ask(gate, "cut", "converse-stream")
    assert cut.body.startswith(BEGIN)
    assert names(cut.body)[2:] == ["internalServerException"]
    assert not cut.complete
    late = ask(gate, "late", "converse-stream")
    assert names(late.body)[2:] == ["throttlingException"]
    first = ask(gate, "throttled", "converse-stream")
    assert (first.status, first.body) == (429, b'{"message":"slow"}')
    assert first.get("x-amzn-errortype") == "throttlingException"


def test_a_budget_refuses_and_ends_streams(gate: RunningGateway) -> None:
    refused = ask(gate, "", "converse", b"x-team: small", inferenceConfig={"maxTokens": 100_000})
    assert (refused.status, refused.get("x-amzn-errortype")) == (402, "ServiceQuotaExceededException")
    ended = ask(gate, "long", "converse-stream", model="stop-1")
    assert names(ended.body)[-3:] == ["contentBlockStop", "messageStop", "metadata"]
    assert b'"max_tokens"' in ended.body
    assert len(ended.body) < len(MORE) * 10


def test_a_client_that_leaves_is_billed_what_the_provider_bills(gate: RunningGateway) -> None:
    """Bedrock goes on to the end and bills it: the stream is drained, and its usage known."""
    client = RawClient(int(gate.url.rpartition(":")[2]))
    client.send(request("left", MODEL, "converse-stream", {}))
    client.until(b"Hello")
    client.reset()
    (call,) = gate.calls(1)
    assert (call["outcome"], call["usage"]["output_tokens"], call["usage_source"]) == ("cancelled", 100, "provider")
