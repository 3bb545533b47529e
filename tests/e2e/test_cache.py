"""The exact cache through a real gateway: what is answered from it, for whom, in which shape, and what it saves."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import aiohttp
import anthropic
import openai
import pytest

from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import PATIENCE, RunningGateway

CACHE = {
    "exact": {
        "enabled": True,
        "rules": [
            {"agent": "tooler", "tools": True},
            {"agent": "off", "enabled": False},
            {"agent": "brief", "ttl": 0.5},
        ],
    }
}
CHAT = "/v1/chat/completions"
TENANTS = {"tenant_header": "x-tenant"}
ONCE = {"attempts": 1}  # how often something was asked is what is looked at here


def upstreams(url: str) -> dict[str, Any]:
    paid = {"key": "sk-upstream"}
    return {
        "openai": {"dialect": "openai", "url": url, "provider": "openai", **paid},
        "anthropic": {"dialect": "anthropic", "url": url, "provider": "anthropic", **paid},
        "own": {"dialect": "openai", "url": url, "provider": "openai"},
    }


HELD = 3600  # seconds to wait, which are over when `released` says so
released = threading.Event()


async def sleep(seconds: float) -> None:
    while seconds >= HELD and not released.is_set():
        await asyncio.sleep(0.01)
    await asyncio.sleep(seconds % HELD)


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream(5, sleep=sleep) as running:
        yield running


@pytest.fixture(scope="module")
def cached(upstream: FakeUpstream) -> Iterator[RunningGateway]:
    with RunningGateway(upstreams(upstream.url), cache=CACHE, identity=TENANTS, retries=ONCE) as running:
        yield running


def sent(upstream: FakeUpstream, text: str) -> int:
    """How often the upstream was asked this."""
    return sum(text.encode() in request.body for request in upstream.requests)


def question(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], **more}


async def post(gate: RunningGateway, body: Any, path: str = CHAT, **headers: str) -> tuple[int, Any, bytes]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as session,
        session.post(gate.url + path, json=body, headers={"authorization": "Bearer k", **named}) as answer,
    ):
        return answer.status, answer.headers, await answer.read()


async def test_an_equal_question_is_answered_from_the_cache_and_costs_nothing(
    cached: RunningGateway, upstream: FakeUpstream
) -> None:
    first = await post(cached, question("How tall is the tower?"), x_tollgate_run_id="tower")
    again = await post(cached, question("How tall is the tower?"), x_tollgate_run_id="tower")
    assert (first[0], again[0]) == (200, 200)
    assert first[2] == again[2]
    assert (first[1]["x-tollgate-cache"], again[1]["x-tollgate-cache"]) == ("miss", "exact")
    assert int(again[1]["x-tollgate-cache-age"]) >= 0
    assert len(again[1]["x-tollgate-cache-entry"]) == 16
    assert (again[1]["x-tollgate-usage-source"], float(again[1]["x-tollgate-cost-usd"])) == ("cached", 0.0)
    assert sent(upstream, "How tall is the tower?") == 1
    one, two = cached.calls(2, run="tower")
    assert two["cost_usd"] == 0
    assert two["usage_source"] == "cached"
    assert two["attempts"] == []
    assert two["cache"]["result"] == "exact"
    assert two["cache"]["saved_usd"] == one["cost_usd"] > 0
    assert cached.get("/api/runs/tower/summary")["saved_usd"] == one["cost_usd"]
    run = cached.get("/api/runs/tower")
    assert (run["usage"]["input_tokens"], run["cost_usd"]) == (one["usage"]["input_tokens"], one["cost_usd"])
    text = cached.until(lambda: cached.text("/metrics"), lambda text: 'reason="exact_cache"' in text)
    assert 'tollgate_cache_lookups_total{result="hit",tier="exact"}' in text
    assert "tollgate_cache_entries" in text


async def test_what_differs_in_any_field_header_or_asker_is_another_question(
    cached: RunningGateway, upstream: FakeUpstream
) -> None:
    text = "Which of these is the same?"
    asked: list[tuple[dict[str, Any], dict[str, str]]] = [
        (question(text), {}),
        (question(text, chat_template_kwargs={"enable_thinking": True}), {}),
        (question(text, chat_template_kwargs={"enable_thinking": False}), {}),
        (question(text, user="u1"), {}),
        (question(text, seed=1), {}),
        (question(text, unknown_field=None), {}),
        (question(text), {"openai-beta": "x=v1"}),
        (question(text), {"openai-organization": "org"}),
        (question(text), {"x-custom": "1"}),
        (question(text), {"x-tenant": "other"}),
        ({**question(text), "model": "gpt-4o"}, {}),
    ]
    for body, headers in asked:
        status, answer, _ = await post(cached, body, **headers)
        assert (status, answer["x-tollgate-cache"]) == (200, "miss"), (body, headers)
    for body, headers in asked:
        status, answer, _ = await post(cached, dict(reversed(list(body.items()))), **headers, traceparent="x")
        assert (status, answer["x-tollgate-cache"]) == (200, "exact"), (body, headers)
    assert sent(upstream, text) == len(asked)


async def test_clients_with_credentials_of_their_own_share_nothing(cached: RunningGateway) -> None:
    path = f"/own{CHAT}"
    for credential in ("sk-a", "sk-b"):
        results = [
            (await post(cached, question("Whose?"), path, authorization=f"Bearer {credential}"))[1]["x-tollgate-cache"]
            for _ in range(2)
        ]
        assert results == ["miss", "exact"]


async def is_known(gate: RunningGateway, secret: str) -> None:
    """The worker sees a new key at its next look."""
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {secret}"}) as session:
        async with asyncio.timeout(PATIENCE):
            while True:
                async with session.get(f"{gate.url}/v1/models") as answer:
                    if answer.status != 401:
                        return
                await asyncio.sleep(0.02)


async def test_virtual_keys_share_within_a_team_only(upstream: FakeUpstream) -> None:
    with RunningGateway(upstreams(upstream.url), cache=CACHE) as gate:
        keys = {}
        for name, team in (("a1", "a"), ("a2", "a"), ("b1", "b"), ("n1", ""), ("n2", "")):
            keys[name] = gate.post("/api/keys", {"name": name, "team": team})["secret"]
        for secret in keys.values():
            await is_known(gate, secret)
        seen = {}
        for name in ("a1", "a2", "b1", "n1", "n2", "b1"):
            for path in (CHAT, "/v1/embeddings"):
                body = question("Ours?") if path == CHAT else {"model": "text-embedding-3-small", "input": "Ours?"}
                _, headers, _ = await post(gate, body, path, authorization=f"Bearer {keys[name]}")
                seen.setdefault((name, path), []).append(headers["x-tollgate-cache"])
        for path in (CHAT, "/v1/embeddings"):
            assert [seen[name, path] for name in keys] == [["miss"], ["exact"], ["miss", "exact"], ["miss"], ["miss"]]


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("[[tool look {}]] poison a", {"tools": [{"type": "function", "function": {"name": "look"}}]}),
        ("[[tokens 50]] poison b", {"max_tokens": 5}),
        ("poison c", {"temperature": 0.7}),
        ("[[fault 503]] poison d", {}),
        ("[[fault eof]] poison e", {"stream": True}),
        ("[[fault mid_frame]] poison f", {"stream": True}),
    ],
)
async def test_what_is_not_whole_is_never_kept(
    cached: RunningGateway, upstream: FakeUpstream, text: str, body: dict[str, Any]
) -> None:
    for _ in range(2):
        try:
            _, headers, _ = await post(cached, question(text, **body))
        except aiohttp.ClientPayloadError:
            continue
        assert headers["x-tollgate-cache"] in ("miss", "bypass")
    assert sent(upstream, text[-8:]) == 2


async def test_rules_decide_by_agent(cached: RunningGateway) -> None:
    tools = {"tools": [{"type": "function", "function": {"name": "look"}}]}

    async def result(agent: str, body: dict[str, Any]) -> str | None:
        return (await post(cached, body, x_tollgate_agent=agent))[1].get("x-tollgate-cache")

    async def results(agent: str, body: dict[str, Any]) -> list[str | None]:
        return [await result(agent, body) for _ in range(2)]

    assert await results("tooler", question("[[tool look {}]] it", **tools)) == ["miss", "exact"]
    assert await results("off", question("nothing for me")) == [None, None]
    assert await result("brief", question("soon over")) == "miss"
    async with asyncio.timeout(PATIENCE):
        while await result("brief", question("soon over")) != "miss":
            await asyncio.sleep(0.1)


async def test_clients_may_ask_for_less(cached: RunningGateway, upstream: FakeUpstream) -> None:
    body = question("What is new?")

    async def result(**headers: str) -> tuple[int, str]:
        status, answer, _ = await post(cached, body, **headers)
        return status, answer.get("x-tollgate-cache") or answer["x-tollgate-code"]

    assert await result(cache_control="only-if-cached") == (504, "not_cached")
    assert await result(cache_control="no-store") == (200, "bypass")
    assert await result(x_tollgate_cache="only") == (504, "not_cached")
    assert await result(cache_control="no-cache") == (200, "bypass")
    assert await result(x_tollgate_cache="only") == (200, "exact")
    assert await result(x_tollgate_cache="bypass") == (200, "bypass")
    assert await result(cache_control="max-age=0") == (200, "bypass")
    assert await result(cache_control="max-age=60") == (200, "exact")
    assert sent(upstream, "What is new?") == 4


async def written(gate: RunningGateway, count: int, tenant: str = "") -> None:
    """So many entries are in the store: they are written behind the calls."""

    def entries() -> int:
        groups = gate.get("/api/cache")["groups"]
        return sum(group["entries"] for group in groups if not tenant or tenant in group["tenant"])

    await asyncio.to_thread(gate.until, entries, lambda seen: seen == count)


async def test_what_is_cleared_is_gone(cached: RunningGateway) -> None:
    async def result(text: str, **headers: str) -> str:
        return str((await post(cached, question(text), x_tenant="clearing", **headers))[1]["x-tollgate-cache"])

    for text, tag in (("cleared by tag", "blue, red"), ("cleared by name", ""), ("left alone", "green")):
        assert await result(text, x_tollgate_cache_tags=tag) == "miss"
        assert await result(text) == "exact"
    await written(cached, 3, "clearing")
    entry = (await post(cached, question("cleared by name"), x_tenant="clearing"))[1]["x-tollgate-cache-entry"]
    async with aiohttp.ClientSession() as session:
        for query in ("tag=red", f"entry={entry}"):
            async with session.delete(f"{cached.admin_url}/api/cache?{query}") as answer:
                assert (answer.status, await answer.json()) == (200, {"cleared": 1})
        async with session.delete(f"{cached.admin_url}/api/cache?colour=red") as answer:
            assert answer.status == 400
    assert await result("cleared by tag") == "miss"
    assert await result("cleared by name") == "miss"
    assert await result("left alone") == "exact"
    groups = cached.get("/api/cache")["groups"]
    assert any(group["model"] == "gpt-4o-mini" and group["entries"] for group in groups)


async def in_flight(gate: RunningGateway, count: int) -> None:
    await asyncio.to_thread(gate.until, gate.in_flight, lambda seen: seen == count)


async def test_a_hundred_equal_calls_at_once_are_one(cached: RunningGateway, upstream: FakeUpstream) -> None:
    for name, more in (("whole", {}), ("streamed", {"stream": True})):
        body = question(f"[[wait {HELD}]] all at once, {name}", **more)
        released.clear()
        await in_flight(cached, 0)
        calls = [asyncio.create_task(post(cached, body)) for _ in range(100)]
        await in_flight(cached, 100)
        released.set()
        answers = await asyncio.gather(*calls)
        assert {answer[0] for answer in answers} == {200}
        assert len({answer[2] for answer in answers}) == 1
        assert sent(upstream, f"all at once, {name}") == 1
    line = 'tollgate_cache_lookups_total{result="joined",tier="exact"} '
    text = cached.until(lambda: cached.text("/metrics"), lambda text: f"{line}198" in text)
    assert 'tollgate_cost_saved_usd_total{reason="single_flight"}' in text


async def test_a_failing_leader_releases_the_others(cached: RunningGateway, upstream: FakeUpstream) -> None:
    body = question("[[wait 0.3]] [[fault 503 times=1]] released")
    answers = await asyncio.gather(*[post(cached, body) for _ in range(10)])
    assert sorted(answer[0] for answer in answers) == [200] * 9 + [503]
    assert sent(upstream, "released") == 2


async def test_a_leaving_leader_is_read_on_for_the_others(cached: RunningGateway, upstream: FakeUpstream) -> None:
    body = question("[[tokens 60]] [[wait 0.2]] left behind", stream=True)
    leader = asyncio.create_task(post(cached, body))
    await asyncio.sleep(0.1)
    followers = [asyncio.create_task(post(cached, body)) for _ in range(5)]
    await asyncio.sleep(0.05)
    leader.cancel()
    answers = await asyncio.gather(*followers)
    assert all(answer[0] == 200 and answer[2].endswith(b"data: [DONE]\n\n") for answer in answers)
    assert sent(upstream, "left behind") <= 2


async def test_requests_per_minute_count_hits_and_budgets_do_not(upstream: FakeUpstream) -> None:
    limits = {"rates": [{"scope": "global", "rpm": 6, "burst": 6, "tpm": 100_000}]}
    budgets = [{"scope": "global", "usd": 5}]
    with RunningGateway(upstreams(upstream.url), cache=CACHE, limits=limits, budgets=budgets) as gate:
        seen = [await post(gate, question("Again and again?")) for _ in range(7)]
        assert [status for status, _, _ in seen] == [200] * 6 + [429]
        calls = gate.calls(7)
        spent = next(one for one in gate.get("/api/budgets")["budgets"] if one["unit"] == "usd")
        assert spent["spent"] == pytest.approx(calls[0]["cost_usd"], abs=1e-8)
        assert spent["reserved"] == 0


async def test_the_file_outlives_workers_and_is_shared_by_them(upstream: FakeUpstream) -> None:
    with RunningGateway(upstreams(upstream.url), cache=CACHE, workers=2) as gate:
        await post(gate, question("kept for all"))
        await written(gate, 1)
        seen = {(await post(gate, question("kept for all")))[1]["x-tollgate-cache"] for _ in range(12)}
        assert seen == {"exact"}
        for _ in range(2):
            gate.kill_worker()
            gate.until(lambda: len(gate.pids("worker")), lambda count: count == 2)
            gate.until(lambda: gate.status("/readyz"), lambda status: status == 200)
        for _ in range(6):
            assert (await post(gate, question("kept for all")))[1]["x-tollgate-cache"] == "exact"
    assert sent(upstream, "kept for all") == 1


# -- the official SDKs, in every shape ------------------------------------------------------------------------------


@pytest.fixture
def openai_sdk(cached: RunningGateway) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{cached.url}/v1", api_key="k", max_retries=0, timeout=20)


@pytest.fixture
def anthropic_sdk(cached: RunningGateway) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=cached.url, api_key="k", max_retries=0, timeout=20)


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
SAY = "[[say It was the best of times, it was the worst of times.]]"
CALL = '[[tool look {"at": [1, "two"]}]]'


def chat(sdk: openai.OpenAI, text: str, stream: bool) -> tuple[Any, ...]:
    given: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], "tools": [TOOL]}
    given["extra_headers"] = {"x-tollgate-agent": "tooler"}
    if not stream:
        found = sdk.chat.completions.create(**given)
        usage = found.usage
    else:
        with sdk.chat.completions.stream(**given, stream_options={"include_usage": True}) as events:
            found = events.get_final_completion()
            usage = found.usage
    (choice,) = found.choices
    calls = [(c.id, c.function.name, json.loads(c.function.arguments)) for c in choice.message.tool_calls or ()]
    assert usage is not None
    return found.id, choice.message.content or "", calls, choice.finish_reason, usage.total_tokens


def responses(sdk: openai.OpenAI, text: str, stream: bool) -> tuple[Any, ...]:
    tool: Any = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}
    given: dict[str, Any] = {"model": "gpt-4o-mini", "input": text, "tools": [tool]}
    given["extra_headers"] = {"x-tollgate-agent": "tooler"}
    if stream:
        with sdk.responses.stream(**given) as events:
            kinds = [event.type for event in events]
            found: Any = events.get_final_response()
        assert kinds[0] == "response.created"
        assert kinds[-1] == "response.completed"
    else:
        found = sdk.responses.create(**given)
    calls = [(c.call_id, c.name, json.loads(c.arguments)) for c in found.output if c.type == "function_call"]
    return found.id, found.output_text, calls, found.status, found.usage.total_tokens


def messages(sdk: anthropic.Anthropic, text: str, stream: bool) -> tuple[Any, ...]:
    given: dict[str, Any] = {"model": "claude-haiku-4-5", "max_tokens": 4000}
    given["tools"] = [{"name": "look", "input_schema": {"type": "object"}}]
    given |= {"messages": [{"role": "user", "content": text}], "extra_headers": {"x-tollgate-agent": "tooler"}}
    if stream:
        with sdk.messages.stream(**given) as events:
            found = events.get_final_message()
    else:
        found = sdk.messages.create(**given)
    said = "".join(block.text for block in found.content if block.type == "text")
    calls = [(block.id, block.name, block.input) for block in found.content if block.type == "tool_use"]
    return found.id, said, calls, found.stop_reason, found.usage.input_tokens, found.usage.output_tokens


@pytest.mark.parametrize("first", [False, True], ids=["stored as JSON", "stored as a stream"])
@pytest.mark.parametrize("text", [SAY, CALL], ids=["text", "tool"])
@pytest.mark.parametrize("how", [chat, responses, messages])
def test_the_sdk_reads_a_stored_answer_in_either_shape(
    how: Any, text: str, first: bool, openai_sdk: Any, anthropic_sdk: Any, upstream: FakeUpstream
) -> None:
    sdk = anthropic_sdk if how is messages else openai_sdk
    kind = "a call" if text == CALL else "a text"
    text = f"{text} {kind} of {how.__name__}, {first}"
    fresh = how(sdk, text, first)
    assert bool(fresh[2]) == text.startswith(CALL)
    assert how(sdk, text, first) == fresh
    assert how(sdk, text, not first) == fresh
    assert sent(upstream, f"{kind} of {how.__name__}, {first}") == 1
