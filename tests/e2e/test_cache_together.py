"""Equal calls at once through many workers and gateways: one goes upstream, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import aiohttp
import pytest

from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.fake_world import Latency
from gateway.testing.gateway import RunningGateway
from tests.e2e.test_cache import CACHE, question, sent, upstreams
from tests.redis_server import NEEDS_REDIS, RedisServer

REDIS = pytest.param("redis", marks=NEEDS_REDIS)
MANY = 200


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeUpstream]:
    with FakeUpstream(5) as running:
        yield running


@pytest.fixture(scope="module")
def steady() -> Iterator[FakeUpstream]:
    """Its streams take a second or so."""
    with FakeUpstream(5, latency=Latency(tokens_per_second=30)) as running:
        yield running


@pytest.fixture(params=["files", REDIS], scope="module")
def gates(
    request: pytest.FixtureRequest, upstream: FakeUpstream, steady: FakeUpstream
) -> Iterator[list[RunningGateway]]:
    """One gateway of two workers, over a file; or two of them, over Redis."""
    with ExitStack() as stack:
        cache: dict[str, Any] = dict(CACHE)
        if request.param == "redis":
            redis = stack.enter_context(RedisServer())
            cache |= {"store": "redis", "redis": redis.url, "timeout": 2}
        settings: dict[str, Any] = {"cache": cache, "workers": 2, "identity": {"tenant_header": "x-tenant"}}
        settings |= {"telemetry": {"log": None}, "retries": {"attempts": 1}}  # how often it is asked is looked at here
        slow = {**upstreams(steady.url)["openai"]}
        yield [
            stack.enter_context(RunningGateway({**upstreams(upstream.url), "steady": slow}, **settings))
            for _ in range(2 if request.param == "redis" else 1)
        ]


async def ask(gate: RunningGateway, body: dict[str, Any], **headers: str) -> tuple[int, str, bytes]:
    """Status, what the cache says, and the body; b"" where the connection ended early. Each on its own connection."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"{gate.url}/v1/chat/completions", json=body, headers={"authorization": "Bearer k", **named}
            ) as answer,
        ):
            return answer.status, answer.headers.get("x-tollgate-cache", ""), await answer.read()
    except aiohttp.ClientError:
        return 0, "", b""


async def at_once(gates: list[RunningGateway], body: dict[str, Any], count: int) -> list[tuple[int, str, bytes]]:
    return await asyncio.gather(*[ask(gates[number % len(gates)], body) for number in range(count)])


async def has_been_asked(upstream: FakeUpstream, text: str) -> None:
    while not sent(upstream, text):
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_two_hundred_equal_calls_are_one(
    gates: list[RunningGateway], upstream: FakeUpstream, stream: bool
) -> None:
    text = f"all of us, {len(gates)} {stream}"
    answers = await at_once(gates, question(f"[[wait 0.5]] {text}", stream=stream), MANY)
    assert {status for status, _, _ in answers} == {200}
    assert len({body for _, _, body in answers}) == 1
    assert sent(upstream, text) == 1
    said = [result for _, result, _ in answers]
    assert said.count("miss") == 1
    assert set(said) <= {"miss", "exact"}
    again = await at_once(gates, question(f"[[wait 0.5]] {text}", stream=stream), 20)
    assert {result for _, result, _ in again} == {"exact"}
    assert sent(upstream, text) == 1


async def test_a_stream_is_passed_on_as_it_comes(gates: list[RunningGateway], steady: FakeUpstream) -> None:
    """Followers in other workers have begun to read before the leader's answer is over."""
    text = f"as it comes, {len(gates)}"
    body = question(f"[[tokens 60]] {text}", stream=True)
    begun: list[float] = []
    loop = asyncio.get_running_loop()

    async def read(gate: RunningGateway) -> float:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{gate.url}/steady/v1/chat/completions", json=body) as answer,
        ):
            await answer.content.readany()
            begun.append(loop.time())
            await answer.read()
            return loop.time()

    ends = await asyncio.gather(*[read(gates[number % len(gates)]) for number in range(24)])
    assert sent(steady, text) == 1
    assert max(begun) < min(ends)


async def test_tenants_never_share_a_call(gates: list[RunningGateway], upstream: FakeUpstream) -> None:
    text = f"whose is it, {len(gates)}"
    body = question(f"[[wait 0.3]] {text}")
    calls = [ask(gates[n % len(gates)], body, x_tenant=f"t{n % 5}") for n in range(50)]
    answers = await asyncio.gather(*calls)
    assert {status for status, _, _ in answers} == {200}
    assert sent(upstream, text) == 5


async def test_what_was_cleared_is_not_joined(gates: list[RunningGateway], upstream: FakeUpstream) -> None:
    """Who asks after a clearing does not get what was asked for before it, though that is still under way."""
    text = f"begun before, {len(gates)}"
    body = question(f"[[wait 1]] {text}")
    before = asyncio.create_task(at_once(gates, body, 8))
    await has_been_asked(upstream, text)
    async with aiohttp.ClientSession() as session, session.delete(f"{gates[0].admin_url}/api/cache") as answer:
        assert answer.status == 200
    after = await at_once(gates, body, 8)
    assert {status for status, _, _ in [*await before, *after]} == {200}
    assert sent(upstream, text) == 2


async def test_a_failing_leader_releases_the_others(gates: list[RunningGateway], upstream: FakeUpstream) -> None:
    text = f"let go, {len(gates)}"
    answers = await at_once(gates, question(f"[[wait 0.3]] [[fault 503 times=1]] {text}"), 24)
    assert sorted(status for status, _, _ in answers) == [200] * 23 + [503]
    assert sent(upstream, text) == 2


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_leader_that_leaves_before_its_answer_costs_no_other_call(
    gates: list[RunningGateway], upstream: FakeUpstream, stream: bool
) -> None:
    text = f"gone early, {len(gates)} {stream}"
    body = question(f"[[wait 4]] {text}", stream=stream)
    leader = asyncio.create_task(ask(gates[0], body))
    await has_been_asked(upstream, text)
    others = asyncio.create_task(at_once(gates[-1:], body, 8))  # with Redis: all of them with another gateway
    while sum([gate.in_flight() for gate in gates]) < 9:
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.3)  # the first of them has joined: then there is something to join for all
    leader.cancel()
    assert {(status, result) for status, result, _ in await others} == {(200, "exact")}
    assert sent(upstream, text) == 1


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_killed_leader_costs_one_call_more_at_most(
    gates: list[RunningGateway], upstream: FakeUpstream, stream: bool
) -> None:
    """Half of the workers die, by SIGKILL, while the call is under way; the leader may be among them."""
    text = f"kill it, {len(gates)} {stream}"
    body = question(f"[[wait 1.5]] {text}", stream=stream)
    calls = asyncio.create_task(at_once(gates, body, 60))
    await has_been_asked(upstream, text)
    await asyncio.sleep(0.3)
    for gate in gates:
        os.kill(gate.pids("worker")[0], signal.SIGKILL)
    answers = await calls
    lived = [(status, body) for status, _, body in answers if status]
    assert lived, "some were with another worker"
    assert {status for status, _ in lived} == {200}
    for _, found in lived:
        assert found.endswith(b"data: [DONE]\n\n") if stream else json.loads(found)["choices"]
    assert sent(upstream, text) <= 2
    for gate in gates:
        gate.until(lambda gate=gate: len(gate.pids("worker")), lambda count: count == 2)  # type: ignore[misc]
        gate.until(lambda gate=gate: gate.status("/readyz"), lambda status: status == 200)  # type: ignore[misc]
