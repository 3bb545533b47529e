"""What went wrong with caches, telemetry and translation in other gateways, and does not here.

As in test_peer_stories, each test bears the name of the peer and the number of its issue.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway
from gateway.testing.raw import post
from tests.e2e.conftest import upstreams
from tests.e2e.money import Answer, ask, asked_of, send

PRICE = {"input": 3, "output": 15}
DONE = b"data: [DONE]\n\n"
LABELS = 12


@pytest.fixture(scope="module")
def gate(fake: FakeUpstream) -> Iterator[RunningGateway]:
    with RunningGateway(
        {name: {**one, "key": "sk-house"} for name, one in upstreams(fake.url).items()},
        prices={"models": {name: PRICE for name in ("m", "claude-sonnet-5", "gpt-4o-mini")}},
        aliases={
            "as-claude": {"model": "claude-sonnet-5", "upstream": "anthropic"},
            "as-gpt": {"model": "gpt-4o-mini", "upstream": "openai"},
        },
        cache={"exact": {"enabled": True, "rules": [{"agent": "cached", "tools": True}, {"enabled": False}]}},
        retries={"attempts": 1},
        telemetry={"log": None, "label_limit": LABELS},
    ) as running:
        yield running


def events(got: Answer) -> list[Any]:
    """The documents of a stream, but for [DONE]."""
    lines = [line[6:] for line in got.raw.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


# -- caches ----------------------------------------------------------------------------------------------------------


def turned(value: Any) -> Any:
    """The same with the members of every object in the opposite order."""
    if isinstance(value, dict):
        return {name: turned(value[name]) for name in reversed(value)}
    return [turned(one) for one in value] if isinstance(value, list) else value


def cached(gate: RunningGateway, body: dict[str, Any], run: str = "cached") -> Answer:
    return send(gate, post(f"/run/{run}/agent/cached/v1/chat/completions", json.dumps(body).encode()))


def question(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **more}


TOOLS = [{"type": "function", "function": {"name": f"t{n}", "parameters": {"type": "object", "properties": {
    name: {"type": "string", "description": name} for name in ("alpha", "beta", "gamma", "delta")}}}}
    for n in range(3)]  # fmt: skip


def test_bifrost_2791_the_order_of_members_is_no_other_question(gate: RunningGateway, fake: FakeUpstream) -> None:
    """There an object deep in the request had its members hashed in any order, and equal requests never hit."""
    body = question("[[tokens 5]] in-order", tools=TOOLS, metadata={"a": "1", "b": "2"})
    assert list(turned(body)["tools"][0]["function"]["parameters"]["properties"]) == ["delta", "gamma", "beta", "alpha"]
    found = [cached(gate, one) for one in (body, turned(body), body, {**body, "tools": TOOLS[::-1]})]
    assert [got.headers["x-tollgate-cache"] for got in found] == ["miss", "exact", "exact", "miss"]
    assert len(asked_of(fake, "in-order")) == 2


def test_bifrost_3049_a_stream_says_that_it_was_stored(gate: RunningGateway) -> None:
    """There what told of the cache was lost where the answer was a stream."""
    body = question("[[tokens 5]] tells", stream=True)
    found = [cached(gate, body, "tells") for _ in range(2)]
    assert found[0].raw == found[1].raw
    assert [got.headers["x-tollgate-cache"] for got in found] == ["miss", "exact"]
    assert int(found[1].headers["x-tollgate-cache-age"]) >= 0
    first, second = gate.calls(2, run="tells")
    assert (second["cache"]["result"], second["usage_source"]) == ("exact", "cached")
    assert second["cache"]["saved_usd"] == first["cost_usd"] > 0


@pytest.mark.parametrize("stored", [False, True], ids=["stored whole", "stored as a stream"])
def test_tensorzero_1791_a_stored_stream_has_its_usage(gate: RunningGateway, stored: bool) -> None:
    """There a stream out of the cache had none."""
    asks = {"stream": True, "stream_options": {"include_usage": True}}
    body = question(f"[[tokens 7]] with usage, {stored}")
    first = cached(gate, {**body, **(asks if stored else {})})
    again = cached(gate, {**body, **asks})
    assert [got.headers["x-tollgate-cache"] for got in (first, again)] == ["miss", "exact"]
    usage = events(first)[-1]["usage"] if stored else first.json["usage"]
    assert events(again)[-1]["usage"] == usage
    assert usage["completion_tokens"] >= 7


# -- telemetry -------------------------------------------------------------------------------------------------------


def test_litellm_27272_and_12099_no_series_for_every_name(gate: RunningGateway) -> None:
    """There each end user (27272) and each alias (12099) made series of its own, without end."""
    count = 3 * LABELS
    for number in range(count):
        for model in ("m", f"named-{number}"):  # what is not priced has no series of cost, by agents
            got = ask(gate, "chat", model, "[[tokens 1]]", 5, prefix=f"/run/names/agent/agent-{number}",
                      user=f"user-{number}")  # fmt: skip
            assert got.status == 200
    costs = sum(call["cost_usd"] or 0 for call in gate.calls(2 * count, run="names", seconds=30))

    def counted(page: str) -> bool:
        lines = [line for line in page.splitlines() if line.startswith("tollgate_cost_usd_total{")]
        return sum(float(line.rpartition(" ")[2]) for line in lines) >= costs - 1e-9

    page = gate.until(lambda: gate.text("/metrics"), counted, 30)
    agents = set(re.findall(r'"(agent-\d+)"', page))
    assert 0 < len(agents) <= LABELS
    assert '"__other__"' in page
    assert not re.findall(r'"(?:user|named)-\d+"', page)


def test_kagent_2550_a_run_without_traceparent_is_one_trace(gate: RunningGateway) -> None:
    """There the agent sent none, and each call was a trace by itself. Here the run is the root of its calls."""
    for run in ("root-a", "root-b", "root-a"):
        assert ask(gate, "chat", "m", "[[tokens 1]]", 5, prefix=f"/run/{run}").status == 200
    ours = {call["trace_id"] for call in gate.calls(2, run="root-a")}
    theirs = {call["trace_id"] for call in gate.calls(1, run="root-b")}
    assert len(ours) == len(theirs) == 1
    assert ours != theirs
    assert "" not in ours | theirs


# -- another API ------------------------------------------------------------------------------------------------------


def test_portkey_497_the_usage_of_a_translated_stream_has_its_form(gate: RunningGateway) -> None:
    """There it stood in another place than the client looks for it. It is one event, after all choices."""
    for asks in ({}, {"stream_options": {"include_usage": True}}):
        got = ask(gate, "chat", "as-claude", "[[tokens 7]]", 50, prefix="/run/form", stream=True, **asks)
        assert got.status == 200
        stated = [one for one in events(got) if one.get("usage")]
        assert len(stated) == len(asks)
        assert got.raw.endswith(DONE)
    (last,) = stated
    assert last == events(got)[-1]
    assert last["choices"] == []
    usage = last["usage"]
    assert usage["prompt_tokens"] > 0 < usage["completion_tokens"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.mark.parametrize("issue", ["1936", "2127"])
def test_envoy_a_client_of_openai_and_an_upstream_of_anthropic(gate: RunningGateway, issue: str) -> None:
    """There the configuration was accepted, and every call a 500."""
    stream = issue == "2127"
    got = ask(gate, "chat", "as-claude", "[[say well done]]", 50, prefix="/run/across", stream=stream)
    assert got.status == 200
    texts = ([c["delta"].get("content") or "" for one in events(got) for c in one["choices"]] if stream
             else [got.json["choices"][0]["message"]["content"]])  # fmt: skip
    assert "".join(texts) == "well done"


def test_vercel_17326_claude_code_learns_the_input_of_a_translated_stream(gate: RunningGateway) -> None:
    """There the usage was 0 and 0 in message_start, and nothing said it later: the cost shown was wrong."""
    got = ask(gate, "messages", "as-gpt", "[[tokens 9]] learn", 50, prefix="/run/learns", stream=True)
    assert got.status == 200
    begun: dict[str, int] = events(got)[0]["message"]["usage"]
    assert begun["input_tokens"] > 0, "an estimate: the provider says it at the end"
    usage: dict[str, Any] = {}
    for one in events(got):
        usage |= {k: v for k, v in (one.get("message") or one).get("usage", {}).items() if v is not None}
    (call,) = gate.calls(1, run="learns")
    assert usage["input_tokens"] == call["usage"]["input_tokens"] > 0
    assert usage["output_tokens"] == call["usage"]["output_tokens"] > 0


def test_bifrost_3456_the_tools_of_claude_code_at_another_provider(gate: RunningGateway, fake: FakeUpstream) -> None:
    """There the flow broke off at the first tool. Here its result comes to the provider under the id of the call."""
    tool = {"name": "look", "input_schema": {"type": "object", "properties": {"at": {"type": "string"}}}}
    text = '[[tool look {"at": "x"}]][[then]][[say seen.]]'
    first = ask(gate, "messages", "as-gpt", text, 90, prefix="/run/flow", stream=True, tools=[tool])
    (block,) = [one["content_block"] for one in events(first) if one["type"] == "content_block_start"]
    given = "".join(
        one["delta"].get("partial_json", "") for one in events(first) if one["type"] == "content_block_delta"
    )
    (end,) = [one for one in events(first) if one["type"] == "message_delta"]
    assert (block["type"], block["name"], json.loads(given)) == ("tool_use", "look", {"at": "x"})
    assert end["delta"]["stop_reason"] == "tool_use"
    result = {"type": "tool_result", "tool_use_id": block["id"], "content": "a mill"}
    turns = [
        {"role": "user", "content": text},
        {"role": "assistant", "content": [{**block, "input": {"at": "x"}}]},
        {"role": "user", "content": [result]},
    ]
    body = {"model": "as-gpt", "max_tokens": 90, "tools": [tool], "messages": turns}
    second = send(gate, post("/run/flow/v1/messages", json.dumps(body).encode(), b"anthropic-version: 2023-06-01"))
    assert (second.status, second.json["content"][-1]["text"]) == (200, "seen.")
    sent = json.loads(asked_of(fake, "a mill")[-1].body)["messages"]
    assert sent[-1] == {"role": "tool", "tool_call_id": block["id"], "content": "a mill"}
    assert sent[-2]["tool_calls"][0]["id"] == block["id"]
