"""The scripted agents, played straight against the fake: every dialect, every way to end."""

import random
from collections.abc import AsyncIterator

import aiohttp
import pytest

from gateway.testing.agent_wire import Seen, sse_events
from gateway.testing.agents import CAST, Stage
from gateway.testing.fake_upstream import FakeUpstream


@pytest.fixture
async def fake() -> AsyncIterator[FakeUpstream]:
    async with FakeUpstream(5) as running:
        yield running


async def play(fake: FakeUpstream, name: str, seed: int = 2) -> list[Seen]:
    log: list[Seen] = []
    async with aiohttp.ClientSession(read_bufsize=2**20) as session:
        await CAST[name](Stage(session, fake.url, log, random.Random(seed), tool_seconds=0))
    return log


@pytest.mark.parametrize("name", ["coder", "researcher", "embedder", "summariser"])
async def test_a_run_succeeds_and_every_call_tells_its_usage(fake: FakeUpstream, name: str) -> None:
    log = await play(fake, name)
    assert {(seen.ended, seen.status) for seen in log} == {("ok", 200)}
    assert all(seen.input_tokens for seen in log)
    assert len({seen.run for seen in log}) == 1
    assert [request.ended for request in fake.requests] == ["answered"] * len(log)


async def test_a_tool_loop_asks_for_tools_and_then_answers(fake: FakeUpstream) -> None:
    log = await play(fake, "coder")
    assert log[0].tools == 2
    assert log[-1].tools == 0
    assert fake.requests[1].body.count(b'"tool_use_id"') == 2


async def test_sub_agents_share_the_run_of_their_parent(fake: FakeUpstream) -> None:
    log = await play(fake, "researcher")
    assert {seen.agent for seen in log} == {"codex", "reader"}
    sessions = {request.header("session-id") for request in fake.requests}
    threads = {request.header("thread-id") for request in fake.requests}
    assert (len(sessions), len(threads)) == (1, 3)


async def test_the_leaver_leaves_and_the_upstream_notices(fake: FakeUpstream) -> None:
    (seen,) = await play(fake, "leaver")
    assert (seen.ended, seen.input_tokens) == ("left", None)


async def test_an_unknown_model_is_not_tried_again(fake: FakeUpstream) -> None:
    (seen,) = await play(fake, "lost")
    assert (seen.ended, seen.status) == ("error", 404)


@pytest.mark.parametrize("kind", ["429", "cut", "first_frame", "eof", "mid_frame"])
@pytest.mark.parametrize("name", ["coder", "researcher", "summariser"])
async def test_failures_are_tried_again_three_times_in_all(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(_seconds: float) -> None:
        return

    monkeypatch.setattr("gateway.testing.agent_wire.asyncio.sleep", at_once)
    async with FakeUpstream(5, chances={kind: 1}) as fake:
        log = await play(fake, name)
    assert {seen.ended for seen in log} == {"error"}
    assert [request.header("x-stainless-retry-count") for request in fake.requests][:3] == ["0", "1", "2"][: len(log)]
    assert len(log) % 3 == 0


async def test_events_of_a_stream() -> None:
    async def lines() -> AsyncIterator[bytes]:
        for line in (
            b": hi\n",
            b"event: a\r\n",
            b'data: {"x":\n',
            b"data: 1}\n",
            b"\n",
            b"\n",
            b"data: [DONE]\n",
            b"\n",
        ):
            yield line

    assert [event async for event in sse_events(lines())] == [("a", {"x": 1}), ("", "[DONE]")]
