"""Routes and canaries through a real gateway: where calls go, that runs stay, and that a bad canary is rolled back."""

from __future__ import annotations

import asyncio
import json
import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from gateway.policy.canary import State
from gateway.stores.sqlite_canaries import SqliteCanaries
from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def good() -> Iterator[FakeUpstream]:
    with FakeUpstream(5) as running:
        yield running


@pytest.fixture(scope="module")
def other() -> Iterator[FakeUpstream]:
    with FakeUpstream(6) as running:
        yield running


def upstreams(good: FakeUpstream, other: FakeUpstream) -> dict[str, Any]:
    return {
        "openai": {"dialect": "openai", "url": good.url, "provider": "openai", "key": "sk-upstream"},
        "second": {"dialect": "openai", "url": other.url, "provider": "openai", "key": "sk-upstream"},
    }


ROUTES = [
    {"model": "spread", "to": [{"model": "gpt-4o", "weight": 3}, {"model": "gpt-4o-mini", "upstream": "second"}],
     "by": "weight"},
    {"model": "pinned", "agent_version": "1.*", "to": ["gpt-4o"]},
    {"model": "pinned", "agent_version": "2.*", "to": ["gpt-4.1"]},
    {"model": "thrifty", "to": ["gpt-4o", "gpt-4o-mini"], "by": "cost"},
    {"model": "able", "to": [{"model": "gpt-4o-mini", "lacks": ["tools"]}, "gpt-4o"]},
]  # fmt: skip


@pytest.fixture(scope="module")
def routed(good: FakeUpstream, other: FakeUpstream) -> Iterator[RunningGateway]:
    with RunningGateway(upstreams(good, other), routes=ROUTES) as running:
        yield running


async def ask(
    session: aiohttp.ClientSession, gate: RunningGateway, model: str, run: str, text: str = "hello", **more: Any
) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": text}], **more.pop("body", {})}
    async with session.post(f"{gate.url}/run/{run}{CHAT}", json=body, **more) as answer:
        await answer.read()
        return answer.status


async def asked(gate: RunningGateway, model: str, runs: list[str], **more: Any) -> Counter[int]:
    gates = asyncio.Semaphore(16)

    async def one(session: aiohttp.ClientSession, run: str) -> int:
        async with gates:
            return await ask(session, gate, model, run, f"{run} says hello", **more)

    async with aiohttp.ClientSession() as session:
        return Counter(await asyncio.gather(*[one(session, run) for run in runs]))


def calls_of(gate: RunningGateway, model: str, count: int) -> list[dict[str, Any]]:
    return [call for call in gate.calls(count, model=model) if call["model"]["requested"] == model]


def models_at(upstream: FakeUpstream, text: str) -> list[str]:
    """The models that requests with this text asked for."""
    return [json.loads(request.body)["model"] for request in upstream.requests if text.encode() in request.body]


async def test_weights_hold_over_many_runs_and_each_run_stays(
    routed: RunningGateway, good: FakeUpstream, other: FakeUpstream
) -> None:
    runs = [f"spread-{n}" for n in range(400)]
    assert await asked(routed, "spread", runs) == {200: 400}
    share = len(models_at(good, "spread-")) / 400
    assert abs(share - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 400)
    assert set(models_at(good, "spread-")) == {"gpt-4o"}
    assert set(models_at(other, "spread-")) == {"gpt-4o-mini"}
    assert await asked(routed, "spread", runs[:100]) == {200: 100}
    for run in runs[:100]:
        assert 2 in (len(models_at(good, f'"{run} says')), len(models_at(other, f'"{run} says')))


async def test_an_agents_version_pins_its_model(routed: RunningGateway, good: FakeUpstream) -> None:
    for version, model in (("1.4", "gpt-4o"), ("2.0", "gpt-4.1")):
        headers = {"x-tollgate-agent-version": version}
        assert await asked(routed, "pinned", [f"pin-{version}"], headers=headers) == {200: 1}
        assert models_at(good, f"pin-{version} ") == [model]
        assert await asked(routed, "pinned", [f"url-{version}/version/{version}"]) == {200: 1}
        assert models_at(good, f"url-{version}/version/{version} ") == [model]


async def test_the_cheaper_and_the_able_model(routed: RunningGateway, good: FakeUpstream) -> None:
    assert await asked(routed, "thrifty", ["thrift"]) == {200: 1}
    assert models_at(good, "thrift says") == ["gpt-4o-mini"]
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    assert await asked(routed, "able", ["plain"]) == {200: 1}
    assert await asked(routed, "able", ["tooled"], body={"tools": [tool]}) == {200: 1}
    assert models_at(good, "plain says") == ["gpt-4o-mini"]
    assert models_at(good, "tooled says") == ["gpt-4o"]


async def test_the_record_says_which_rule_and_why(routed: RunningGateway) -> None:
    assert await asked(routed, "thrifty", ["noted"]) == {200: 1}
    found = routed.until(lambda: routed.get("/api/calls", run="noted")["calls"], bool)
    detail = routed.get(f"/api/calls/{found[0]['id']}")
    assert (detail["notes"]["route"], detail["notes"]["route_why"]) == ("3", "cost")


async def test_a_canary_with_five_percent_errors_is_rolled_back_and_stays_so(good: FakeUpstream) -> None:
    """By the gateway itself, which shows its evidence; no later call goes there, nor any after a restart."""
    with FakeUpstream(7, chances={"500": 0.05}) as bad:
        canary = {"id": "next", "to": {"model": "gpt-4.1", "upstream": "second"}, "share": 0.3}
        routes = [{"model": "app", "to": ["gpt-4o"], "canary": canary}]
        with RunningGateway(upstreams(good, bad), routes=routes, telemetry={"log": None}) as gate:
            for batch in range(20):
                await asked(gate, "app", [f"b{batch}-{n}" for n in range(100)])
                if "canary next: rolled_back" in gate.log:
                    break
            gate.until(lambda: gate.log, lambda log: "canary next: rolled_back" in log)
            ((decision, _),) = SqliteCanaries(gate.state / "canaries.sqlite").standings()
            assert decision.state is State.ROLLED_BACK
            assert decision.evidence["all"] >= 100
            assert decision.counts["error"][0] > 3
            assert decision.counts["error"][1] == 0
            await asyncio.sleep(0.6)  # two looks of the worker
            before = len(bad.requests)
            assert (await asked(gate, "app", [f"after-{n}" for n in range(60)])) == {200: 60}
            gate.stop()
            gate.start()
            assert (await asked(gate, "app", [f"later-{n}" for n in range(60)])) == {200: 60}
            assert len(bad.requests) == before
