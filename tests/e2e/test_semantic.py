"""Answers to similar questions through a real gateway, with the real embedder: what is served, to whom, how wrong, and
what survives when processes die."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import urllib.error
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from gateway.semantic import parts
from gateway.testing.fake_script import Ask, Reply
from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway

pytestmark = pytest.mark.skipif(bool(parts.missing()), reason=f"not installed: {', '.join(parts.missing())}")

THINGS = [f"{how} {what}" for how in ("red", "old", "tall") for what in ("barn", "tower", "bridge", "mill")]
WAYS = ("who built the {}", "by whom was the {} built", "tell me who built the {}", "please say who has built the {}")
WRONG_WAY = "when was the {} built by them"
CHAT = "/v1/chat/completions"


def truth(text: str) -> str:
    """By class: every wording of a question has one answer."""
    thing = next((thing for thing in THINGS if thing in text), "?")
    return f"The {'year' if 'when' in text else 'builder'} of the {thing} is known."


def script(ask: Ask) -> Reply:
    return Reply(text=truth(ask.turns[-1].text))


def question(draw: random.Random) -> str:
    way = WRONG_WAY if draw.random() < 0.3 else draw.choice(WAYS)
    return f"{way.format(draw.choice(THINGS))} in the {draw.choice(('valley', 'village', 'county'))}"


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream(5, script=script) as running:
        yield running


def gateway(upstream: FakeUpstream, *, exact: Any = None, settings: Any = None, **more: Any) -> RunningGateway:
    """`patience` is long: the machine that runs tests may be busy."""
    paid = {"key": "sk-upstream", "url": upstream.url}
    upstreams = {
        "openai": {"dialect": "openai", "provider": "openai", **paid},
        "anthropic": {"dialect": "anthropic", "provider": "anthropic", **paid},
        "gemini": {"dialect": "gemini", "provider": "google", **paid},
    }
    semantic = {"mode": "serve", "target": 0.02, "patience": 5, **(settings or {})}
    cache = {"exact": exact or {"enabled": True}, "semantic": semantic}
    return RunningGateway(upstreams, cache=cache, identity={"tenant_header": "x-tenant"}, **more)


@pytest.fixture(scope="module")
def taught(upstream: FakeUpstream) -> Iterator[RunningGateway]:
    """A gateway that serves similar questions: it has seen enough of them."""
    with gateway(upstream) as gate:
        ready(gate)
        asyncio.run(learn(gate))
        yield gate


def ready(gate: RunningGateway) -> None:
    gate.until(lambda: state(gate), lambda found: bool(found.get("embedder")), 30)


def state(gate: RunningGateway) -> dict[str, Any]:
    try:
        found: dict[str, Any] = gate.get("/api/cache/semantic")
    except urllib.error.HTTPError as fault:
        fault.close()
        return {}
    return found


class Client:
    """One session; what was asked, how it was answered."""

    def __init__(self, gate: RunningGateway, session: aiohttp.ClientSession) -> None:
        self.gate, self.session = gate, session
        self.results: dict[str, int] = {}
        self.wrong = 0

    async def ask(self, text: str, tenant: str = "t", path: str = CHAT, **body: Any) -> tuple[Any, str]:
        given = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **body}
        headers = {"authorization": "Bearer k", "x-tenant": tenant, "x-tollgate-agent": "bot"}
        async with self.session.post(self.gate.url + path, json=given, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            said = await answer.text()
            result = answer.headers.get("x-tollgate-cache", "")
            self.results[result] = self.results.get(result, 0) + 1
            if result == "semantic" and truth(text) not in "".join(re.findall(r'"(?:content|text)": ?"([^"]*)"', said)):
                self.wrong += 1
            return answer.headers, said


async def learn(gate: RunningGateway, count: int = 500, seed: int = 1, **more: Any) -> Client:
    draw = random.Random(seed)
    async with aiohttp.ClientSession() as session:
        client = Client(gate, session)
        for _ in range(count):
            await client.ask(question(draw) + draw.choice(("", "?", " exactly?", " , do you know?")), **more)
        return client


async def test_it_learns_to_serve_what_is_right_and_says_how_sure_it_is(taught: RunningGateway) -> None:
    client = await learn(taught, 300, seed=2)
    assert client.results.get("semantic", 0) > 30, (client.results, state(taught))
    assert client.wrong <= 1
    (scope,) = [one for one in state(taught)["scopes"] if one["tenant"] == "t"]
    assert scope["scope"] == "t/bot/gpt-4o-mini"
    assert scope["status"] == "serving"
    assert scope["wrong_lower"] <= client.wrong / client.results["semantic"] <= scope["wrong_upper"]
    assert scope["hits"] > 30
    assert scope["verified"] > 10
    assert scope["saved_usd"] > scope["shadow_cost_usd"] > 0


async def test_a_hit_says_what_it_is_in_headers_record_and_metrics(taught: RunningGateway) -> None:
    async with aiohttp.ClientSession() as session:
        client = Client(taught, session)
        headers = None
        for number in range(60):
            found, _ = await client.ask(f"who built the red barn in the valley, {'so ' * number} anybody?")
            if found["x-tollgate-cache"] == "semantic":
                headers = found
                break
        assert headers is not None, client.results
    assert 0.5 < float(headers["x-tollgate-cache-score"]) <= 1
    assert int(headers["x-tollgate-cache-age"]) >= 0
    assert float(headers["x-tollgate-cost-usd"]) == 0
    call = taught.until(
        lambda: taught.get("/api/calls/" + headers["x-tollgate-request-id"]), lambda call: bool(call.get("cache"))
    )
    assert call["cache"]["result"] == "semantic"
    assert call["cache"]["saved_usd"] > 0
    assert (call["cost_usd"], call["attempts"]) == (0, [])
    text = taught.until(lambda: taught.text("/metrics"), lambda text: 'reason="semantic_cache"' in text)
    for name in (
        'tollgate_cache_lookups_total{result="hit",tier="semantic"}',
        'tollgate_cache_verified_total{scope="t/bot/gpt-4o-mini",verdict="right"}',
        'tollgate_cache_false_hit_ratio{scope="t/bot/gpt-4o-mini"}',
        'tollgate_cache_false_hit_ratio_lower{scope="t/bot/gpt-4o-mini"}',
        'tollgate_cache_false_hit_ratio_upper{scope="t/bot/gpt-4o-mini"}',
        'tollgate_cache_cut{scope="t/bot/gpt-4o-mini"}',
        'tollgate_cache_breaker_open{scope="t/bot/gpt-4o-mini"} 0.0',
        "tollgate_cache_matcher_up 1.0",
        "tollgate_cache_embedder_up 1.0",
        "tollgate_cache_shadow_cost_usd_total",
        "tollgate_cache_lookup_seconds_bucket",
    ):
        assert name in text, name


async def test_checks_are_calls_of_their_own_class_and_cost_what_they_cost(taught: RunningGateway) -> None:
    calls = taught.calls(10, limit=1000)
    checks = [call for call in calls if call["request_class"] == "shadow"]
    assert checks
    assert all(call["cache"]["reason"] == "shadow" and call["cost_usd"] > 0 and call["attempts"] for call in checks)
    served = sum(call["cache"] is not None and call["cache"]["result"] == "semantic" for call in calls)
    assert len(checks) <= served


async def test_nothing_is_given_to_another_tenant_however_often_it_asks(taught: RunningGateway) -> None:
    draw = random.Random(9)
    async with aiohttp.ClientSession() as session:
        client = Client(taught, session)
        for number in range(60):
            await client.ask(question(draw), tenant=f"tenant {number}")
        assert client.results == {"miss": 60}


async def test_the_system_prompt_the_history_and_the_parameters_are_walls(taught: RunningGateway) -> None:
    text = "who built the red barn in the valley, anybody?"
    walls: list[dict[str, Any]] = [
        {"messages": [{"role": "system", "content": "You are a pirate."}, {"role": "user", "content": text}]},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"},
                      {"role": "user", "content": text}]},
        {"seed": 3}, {"user": "u"}, {"response_format": {"type": "json_object"}}, {"model": "gpt-4o"},
    ]  # fmt: skip
    async with aiohttp.ClientSession() as session:
        client = Client(taught, session)
        for wall in walls:
            headers, _ = await client.ask(text, **wall)
            assert headers["x-tollgate-cache"] == "miss", wall


async def test_what_people_call_wrong_is_not_given_to_that_text_again(taught: RunningGateway) -> None:
    async with aiohttp.ClientSession() as session:
        client = Client(taught, session)
        for number in range(60):
            text = f"by whom was the tall mill built in the village,{' well' * number} anybody?"
            headers, _ = await client.ask(text)
            if headers["x-tollgate-cache"] == "semantic":
                break
        else:
            raise AssertionError(client.results)
        cut = next(one for one in state(taught)["scopes"] if one["tenant"] == "t")["cut"]
        body = {"verdict": "wrong", "request_id": headers["x-tollgate-request-id"]}
        found = await asyncio.to_thread(taught.post, "/api/cache/feedback", body)
        assert found["hits"] == 1
        again, _ = await client.ask(text)
        assert (
            again["x-tollgate-cache"] == "miss" or again["x-tollgate-cache-entry"] != headers["x-tollgate-cache-entry"]
        )
        scope = next(one for one in state(taught)["scopes"] if one["tenant"] == "t")
        assert scope["reported_wrong"] == 1
        assert scope["cut"] is None or scope["cut"] >= cut


# -- every dialect, either shape ------------------------------------------------------------------------------------

ASKS: dict[str, tuple[str, Any]] = {
    "chat": (CHAT, lambda text: {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}]}),
    "messages": (
        "/v1/messages",
        lambda text: {"model": "claude-haiku-4-5", "max_tokens": 99, "messages": [{"role": "user", "content": text}]},
    ),
    "responses": ("/v1/responses", lambda text: {"model": "gpt-4o-mini", "input": text, "store": False}),
    "gemini": (
        "/v1beta/models/gemini-2.5-flash:generateContent",
        lambda text: {"contents": [{"role": "user", "parts": [{"text": text}]}]},
    ),
}


@pytest.mark.parametrize("name", ASKS)
async def test_every_dialect_learns_and_serves(name: str, upstream: FakeUpstream) -> None:
    path, make = ASKS[name]
    draw = random.Random(4)
    with gateway(upstream) as gate:
        ready(gate)
        async with aiohttp.ClientSession() as session:
            served = wrong = streamed = 0
            for number in range(450):
                text = question(draw) + draw.choice(("", "?", " exactly?", " , do you know?"))
                body = make(text)
                if name != "gemini" and number % 3 == 2:
                    body["stream"] = True
                headers = {"authorization": "Bearer k", "x-tollgate-agent": "bot", "anthropic-version": "2023-06-01"}
                if name != "messages":
                    del headers["anthropic-version"]
                async with session.post(gate.url + path, json=body, headers=headers) as answer:
                    said = await answer.text()
                    assert answer.status == 200, said
                    if answer.headers["x-tollgate-cache"] != "semantic":
                        continue
                served += 1
                streamed += bool(body.get("stream"))
                pieces = re.findall(r'"(?:content|text|delta)": ?"((?:[^"\\]|\\.)*)"', said)
                wrong += truth(text) not in "".join(json.loads(f'"{piece}"') for piece in pieces)
        assert served > 20, (served, state(gate))
        assert wrong <= 1
        assert streamed or name == "gemini"


# -- what dies ------------------------------------------------------------------------------------------------------


async def serves_again(gate: RunningGateway) -> None:
    """A worker finds the next matcher a moment after people do."""
    for seed in range(100, 140):
        if (await learn(gate, 10, seed=seed)).results.get("semantic"):
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"nothing is served: {state(gate)}")


async def test_a_killed_matcher_is_a_miss_and_its_evidence_is_there_again(upstream: FakeUpstream) -> None:
    with gateway(upstream) as gate:
        ready(gate)
        await learn(gate)
        await asyncio.sleep(2.5)  # evidence is written every two seconds
        before = state(gate)["scopes"][0]
        assert before["status"] == "serving"
        killed = set[int]()
        for _ in range(2):
            (pid,) = gate.pids("matcher")
            killed.add(pid)
            task = asyncio.create_task(learn(gate, 60, seed=7))
            await asyncio.sleep(0.2)
            os.kill(pid, signal.SIGKILL)
            client = await task
            assert client.wrong == 0
            gate.until(lambda: len(set(gate.pids("matcher")) - killed), lambda others: others == 1)
            ready(gate)
        after = state(gate)["scopes"][0]
        assert after["labels"] >= before["labels"]
        assert after["hits"] >= before["hits"]
        assert after["status"] == "serving"
        await serves_again(gate)
        client = await learn(gate, 150, seed=8)
        assert client.results.get("semantic", 0) > 10
        assert client.wrong <= 1
        assert "tollgate_cache_matcher_deaths_total 2.0" in gate.text("/metrics")


async def test_a_killed_worker_leaves_the_evidence_to_the_next(upstream: FakeUpstream) -> None:
    with gateway(upstream, workers=2) as gate:
        ready(gate)
        await learn(gate, 300)
        labels = state(gate)["scopes"][0]["labels"]
        gate.kill_worker()
        gate.until(lambda: len(gate.pids("worker")), lambda count: count == 2)
        gate.until(lambda: gate.status("/readyz"), lambda status: status == 200)
        await serves_again(gate)
        client = await learn(gate, 200, seed=5)
        assert client.wrong <= 1
        assert state(gate)["scopes"][0]["labels"] > labels


async def test_without_an_embedder_equal_questions_are_answered_as_before(upstream: FakeUpstream) -> None:
    lost = {"embedder": {"upstream": "openai", "model": "no-such"}, "mode": "serve"}
    upstream.world.script = lambda ask: script(ask)
    with gateway(upstream, settings=lost) as gate:
        client = await learn(gate, 40)
        assert set(client.results) <= {"miss", "exact", "semantic"}
        again = await learn(gate, 40)
        assert again.results == {"exact": 40}


async def test_a_scope_that_is_off_or_only_learns_serves_nothing(upstream: FakeUpstream) -> None:
    rules = [{"agent": "bot", "mode": "shadow"}]
    with gateway(upstream, settings={"mode": "off", "rules": rules}) as gate:
        ready(gate)
        client = await learn(gate, 500)
        assert "semantic" not in client.results
        (scope,) = state(gate)["scopes"]
        assert (scope["mode"], scope["hits"]) == ("shadow", 0)
        assert scope["would_be_hits"] > 20
        assert scope["verified"] == scope["would_be_hits"]
        assert scope["shadow_cost_usd"] == 0
        config = {**gate.config, "cache": {**gate.config["cache"], "semantic": {"mode": "serve", "patience": 5}}}
        gate.write_config(config)
        gate.until(lambda: "configuration reloaded" in gate.log, bool)
        client = await learn(gate, 150, seed=3)
        assert client.results.get("semantic", 0) > 10, "with the evidence of the time when it only learned"


async def test_it_is_not_started_where_nobody_wants_it(upstream: FakeUpstream) -> None:
    with gateway(upstream, settings={"mode": "off"}) as gate:
        assert gate.pids("matcher") == []
        assert not (gate.state / "semantic.sqlite").exists()
        gate.write_config({**gate.config, "cache": {"exact": {"enabled": True}, "semantic": {"mode": "shadow"}}})
        gate.until(lambda: gate.pids("matcher"), lambda pids: len(pids) == 1)
        ready(gate)
        assert os.stat(gate.state / "matcher.sock").st_mode & 0o777 == 0o600
        assert os.stat(gate.state / "semantic.sqlite").st_mode & 0o777 == 0o600
        gate.write_config({**gate.config, "cache": {"exact": {"enabled": True}}})
        gate.until(lambda: gate.pids("matcher"), lambda pids: pids == [])
