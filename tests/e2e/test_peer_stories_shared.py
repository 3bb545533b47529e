"""What callers of one gateway share, and what went wrong with it in others: answers, keys, upstreams, the machine.

As in test_peer_stories, each test bears the name of the peer and the number of its issue.
"""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gateway.semantic import parts
from gateway.testing.fake_schema import WORDS
from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.faults import Send, answer
from gateway.testing.gateway import PATIENCE, RunningGateway
from gateway.testing.raw import RawAnswer, RawClient, post
from gateway.testing.scripted import Background, ScriptedUpstream
from tests.e2e.money import CHAT, Answer, port_of, request_of, seen, send

NEEDS_MATCHER = pytest.mark.skipif(bool(parts.missing()), reason=f"not installed: {', '.join(parts.missing())}")
MODEL = "gpt-4o-mini"
GOOD = b'{"id":"c","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"}}],"usage":%b}'
GOOD %= b'{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}'
DOWN = b'{"error":{"message":"down"}}'


def alike(raw: bytes) -> list[Any]:
    """An embedder to whom all texts are the same."""
    texts = json.loads(raw.partition(b"\r\n\r\n")[2])["input"]
    count = len(texts) if isinstance(texts, list) else 1
    data = [{"object": "embedding", "index": n, "embedding": [1.0] * 8} for n in range(count)]
    return [Send(answer(json.dumps({"object": "list", "data": data, "model": "alike", "usage": {}}).encode()))]


def asked(gate: RunningGateway, text: str, tenant: str = "t", **headers: str) -> Answer:
    return send(gate, request_of("chat", MODEL, text, 50, headers={"x-tenant": tenant, **headers}))


# -- answers ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def similar(fake: FakeUpstream) -> Iterator[RunningGateway]:
    """It gives answers to similar questions, and its embedder finds all questions the same."""
    with Background(ScriptedUpstream({"": alike})) as embedder:
        upstreams = {
            "openai": {"dialect": "openai", "url": fake.url, "provider": "openai", "key": "sk-upstream"},
            "embedder": {"dialect": "openai", "url": embedder.url, "key": "sk-upstream"},
        }
        semantic = {"mode": "serve", "target": 0.05, "patience": 5, "embedder": {"upstream": "embedder", "model": "e"}}
        cache = {"exact": {"enabled": True}, "semantic": semantic}
        settings: dict[str, Any] = {"cache": cache, "identity": {"tenant_header": "x-tenant"}}
        with RunningGateway(upstreams, **settings, prices={"models": {"e": {"input": 0}}}) as gate:
            gate.until(lambda: gate.get("/api/cache/semantic").get("embedder"), bool)
            yield gate


@NEEDS_MATCHER
def test_litellm_12234_questions_that_look_alike_have_their_own_answers(similar: RunningGateway) -> None:
    """There every question got the answer to the first: whatever the embedder says, nothing is served on its word."""
    for word in sorted(set(WORDS))[:40]:
        got = asked(similar, f"[[say {word}]] which word is meant by that?")
        assert (got.json["choices"][0]["message"]["content"], got.headers["x-tollgate-cache"]) == (word, "miss")

    def scope() -> dict[str, Any]:
        (found,) = similar.get("/api/cache/semantic")["scopes"]
        print(found)
        return dict(found)

    found = similar.until(scope, lambda one: one["labels"] > 10, 10)  # held against what was said
    assert (found["hits"], found["status"] == "serving") == (0, False)


@NEEDS_MATCHER
def test_litellm_6954_an_equal_question_is_found_every_time(similar: RunningGateway, fake: FakeUpstream) -> None:
    """There what was stored was not used, identical repeats missed, and answers crossed over."""
    texts = [f"[[say this is {number}]] repeated" for number in range(10)]
    for cache in ("miss", "exact", "exact"):
        for number, text in enumerate(texts):
            got = asked(similar, text, "repeats")
            assert got.headers["x-tollgate-cache"] == cache
            assert got.json["choices"][0]["message"]["content"] == f"this is {number}"
    assert sum(b"repeated" in one.body for one in fake.requests) == len(texts)


@NEEDS_MATCHER
def test_litellm_19575_nothing_crosses_over_to_another_tenant(similar: RunningGateway) -> None:
    """There the namespace of a request was no wall for what is found by similarity."""
    text = "[[say mine]] whose is it?"
    assert [asked(similar, text, "one").headers["x-tollgate-cache"] for _ in range(2)] == ["miss", "exact"]
    assert [asked(similar, text, "two").headers["x-tollgate-cache"] for _ in range(2)] == ["miss", "exact"]
    scopes = similar.get("/api/cache/semantic")["scopes"]
    labels = {one["scope"].partition("/")[0]: one["labels"] for one in scopes}
    assert labels.get("one", 0) == labels.get("two", 0) == 0, "nothing is like what nobody of them has asked"


# -- keys -------------------------------------------------------------------------------------------------------------


def test_agentgateway_2171_keys_come_change_and_go_while_it_runs(fake: FakeUpstream) -> None:
    """There a key with a budget, a rate and models of its own had to be in the configuration."""
    with RunningGateway(
        {"openai": {"dialect": "openai", "url": fake.url, "provider": "openai", "key": "sk-up"}}
    ) as gate:
        file, processes = gate.config_file.read_bytes(), gate.processes()

        def by(secret: str, model: str = MODEL, most: int = 50) -> Answer:
            return send(
                gate, request_of("chat", model, "[[tokens 5]]", most, headers={"authorization": f"Bearer {secret}"})
            )

        def status(secret: str, wanted: int, model: str = MODEL) -> None:
            gate.until(lambda: by(secret, model).status, lambda found: found == wanted)

        made = gate.post("/api/keys", {"name": "app", "models": ["gpt-4o*"], "budgets": [{"usd": 0.005, "per": "day"}]})
        status(made["secret"], 200)
        assert by(made["secret"], "gpt-4.1").status == 403
        assert by(made["secret"], most=16_000).status == 402  # may cost nearly a cent
        slow = gate.post("/api/keys", {"name": "slow", "rpm": 1, "burst": 1})
        gate.until(lambda: by(slow["secret"]).status, lambda found: found in (200, 429))
        assert by(slow["secret"]).status == 429
        turned = gate.post("/api/keys/app/rotate", {})
        status(turned["secret"], 200)
        status(made["secret"], 401)
        gate.post("/api/keys/app/disable", {})
        status(turned["secret"], 401)
        assert (gate.config_file.read_bytes(), gate.processes()) == (file, processes), (
            "nothing was written or restarted"
        )


# -- upstreams --------------------------------------------------------------------------------------------------------


def test_agentgateway_2086_no_upstream_is_left_alone_where_nobody_asked_for_that() -> None:
    """There an upstream was evicted by its failures although no eviction was configured."""
    well = threading.Event()

    def sick(_: bytes) -> list[Any]:
        return [Send(answer(GOOD) if well.is_set() else answer(DOWN, status=b"503 Service Unavailable"))]

    with Background(ScriptedUpstream({"": sick})) as up:
        upstreams = {"openai": {"dialect": "openai", "url": up.url, "provider": "openai"}}
        with RunningGateway(upstreams, retries={"attempts": 1}) as gate:

            def ask() -> RawAnswer:
                with RawClient(port_of(gate)) as client:
                    client.send(post(CHAT, b'{"model":"m","messages":[]}'))
                    return client.answer()

            assert {(got.status, got.body) for got in (ask() for _ in range(60))} == {(503, DOWN)}
            assert len(up.seen) == 60, "each of them was for the upstream to answer"
            well.set()
            assert ask().status == 200
            assert gate.get("/api/breakers") == {"breakers": []}


# -- the machine ------------------------------------------------------------------------------------------------------


def cpu(gate: RunningGateway) -> float:
    """Seconds of the processor that the worker has used."""
    (worker,) = gate.pids("worker")
    with open(f"/proc/{worker}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_litellm_13546_a_picture_costs_what_its_bytes_cost(gate: RunningGateway) -> None:
    """There calls with pictures in base64 had a gateway look into them: beyond 15 of them a second all were late."""
    size = 1_000_000

    def spent(part: dict[str, Any]) -> float:
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "[[say ok]]"}, part]}],
        }
        raw = post(CHAT, json.dumps(body).encode())
        before = cpu(gate)
        for _ in range(12):
            assert send(gate, raw).status == 200
        return cpu(gate) - before

    text = spent({"type": "text", "text": "x" * size})
    picture = spent({"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0K" * (size // 8)}})
    assert picture < 2 * text + 0.2, (picture, text)


def test_litellm_21046_five_hundred_calls_at_once_are_five_hundred_calls_upstream() -> None:
    """There half of the throughput was lost between 500 clients and a model that had time for all of them."""
    released = threading.Event()
    count = 500

    async def hold(_: float) -> None:
        while not released.is_set():
            await asyncio.sleep(0.05)

    with FakeUpstream(5, sleep=hold) as upstream:
        known = {"openai": {"dialect": "openai", "url": upstream.url, "provider": "openai"}}
        with RunningGateway(known) as gate, ThreadPoolExecutor(1) as pool:
            clients = [RawClient(port_of(gate), timeout=PATIENCE) for _ in range(count)]
            try:
                for client in clients:
                    client.send(request_of("chat", MODEL, "[[wait 1]] [[say ok]] held", 50))
                gate.until(lambda: len(upstream.requests), lambda arrived: arrived == count)  # none has been answered
                released.set()
                answers = pool.submit(lambda: [seen(client.answer()) for client in clients]).result(PATIENCE)
            finally:
                released.set()
                for client in clients:
                    client.close()
            assert [got.status for got in answers] == [200] * count
            assert len(gate.calls(count)) == count
