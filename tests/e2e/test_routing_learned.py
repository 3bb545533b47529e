"""A choice between two models that is learned from what was reported of runs, through a real gateway.

One model is good at everything and dear, the other at one kind of prompts only. Nobody tells the gateway which.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from gateway.testing.fake_script import Ask, Reply
from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway

CHAT = "/v1/chat/completions"
WORDS = ["river", "stone", "letter", "window", "garden", "bread", "winter", "music", "paper", "bridge", "candle"]
PLACES = ["north", "south", "harbour", "market", "castle", "valley", "school", "mill", "chapel", "orchard"]
DEAR, CHEAP = "gpt-4o", "gpt-4o-mini"


def answer(ask: Ask) -> Reply:
    """The cheap model cannot count."""
    text = ask.turns[-1].text
    if "agree" in text:
        return Reply(f"It is {3 if ask.model == CHEAP and 'about' in text else 4}.")
    return Reply("wrong" if "add up" in text and ask.model == CHEAP else "right")


def prompt(draw: random.Random, *, counting: bool) -> str:
    words = " ".join(draw.sample(WORDS, 3) + draw.sample(PLACES, 2))
    if counting:
        return (
            f"Please add up {draw.randrange(900)} and {draw.randrange(900)} and {draw.randrange(90)} for the {words}."
        )
    return f"Please write two friendly sentences about the {words}."


def route(by: str, **learn: Any) -> dict[str, Any]:
    return {"model": "smart", "to": [DEAR, CHEAP], "by": by, "learn": {"id": "smart", "explore": 0, **learn}}


@pytest.fixture
def fake() -> Iterator[FakeUpstream]:
    with FakeUpstream(11, script=answer, keep=10) as running:
        yield running


def upstreams(fake: FakeUpstream) -> dict[str, Any]:
    return {"openai": {"dialect": "openai", "url": fake.url, "provider": "openai", "key": "sk-upstream"}}


async def serve(gate: RunningGateway, prompts: dict[str, str], *, report: bool) -> dict[str, str]:
    """Ask each in a run of its own; the models that answered. `report`: say of each whether the answer was right."""
    gates, models = asyncio.Semaphore(24), {}

    async def one(session: aiohttp.ClientSession, run: str, text: str) -> None:
        body = {"model": "smart", "messages": [{"role": "user", "content": text}]}
        async with gates:
            async with session.post(f"{gate.url}/run/{run}{CHAT}", json=body) as got:
                found = await got.json()
            models[run] = found["model"]
            right = found["choices"][0]["message"]["content"] == "right"
            if report:
                outcome = {"outcome": "success" if right else "failure"}
                async with session.post(f"{gate.admin_url}/api/runs/{run}/outcome", json=outcome) as told:
                    assert told.status in (201, 202), await told.text()

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*[one(session, run, text) for run, text in prompts.items()])
    return models


async def decided(gate: RunningGateway, session: aiohttp.ClientSession, run: str) -> str:
    """How a call of this run was decided."""
    body = {"model": "smart", "messages": [{"role": "user", "content": "hello"}]}
    async with session.post(f"{gate.url}/run/{run}{CHAT}", json=body) as got:
        assert got.status == 200
    call = gate.until(lambda: gate.get("/api/calls", run=run)["calls"], bool)[0]
    return str(gate.get(f"/api/calls/{call['id']}")["notes"]["route_why"])


def drawn(seed: int, count: int, name: str) -> dict[str, str]:
    draw = random.Random(seed)
    return {f"{name}-{at}": prompt(draw, counting=at % 2 == 0) for at in range(count)}


def scope(gate: RunningGateway) -> Any:
    (found,) = gate.get("/api/routes/learned")["scopes"]
    return found


def labelled(gate: RunningGateway, least: float) -> Any:
    return gate.until(lambda: scope(gate), lambda found: found["labels"] >= least, seconds=40)


async def test_the_choice_is_learned_from_reported_outcomes(fake: FakeUpstream) -> None:
    with RunningGateway(upstreams(fake), routes=[route("weight")], telemetry={"log": None}) as gate:
        # While there are few labels nothing is claimed.
        await serve(gate, drawn(1, 300, "few"), report=True)
        found = labelled(gate, 300)
        assert (found["labels"], found["ready"], found["quality"], found["cost"]) == (300, False, None, None)
        assert 'tollgate_learned_ready{scope="smart"} 0' in gate.text("/metrics")

        await serve(gate, drawn(2, 340, "more"), report=True)
        gate.until(lambda: scope(gate), lambda found: found["ready"] and found["labels"] == 640, seconds=60)

        gate.write_config({**gate.config, "routes": [route("learned")]})
        probes = (f"probe-{number}" for number in range(1000))
        async with aiohttp.ClientSession() as session:
            while await decided(gate, session, next(probes)) != "learned":  # until the worker has read all of it
                pass
        for attempt in range(2):
            fresh = drawn(3 + attempt, 200, f"new{attempt}")
            models = await serve(gate, fresh, report=False)
            taken = Counter((models[run], "add up" in text) for run, text in fresh.items())
            assert taken[DEAR, True] >= 98, taken
            assert taken[CHEAP, False] >= 98, taken
            if not attempt:  # what was learned outlives the gateway
                assert gate.stop() == 0
                gate.settings["routes"] = [route("learned")]
                gate.start()
        call = gate.until(lambda: gate.get("/api/calls", run="new1-1")["calls"], bool)[0]
        notes = gate.get(f"/api/calls/{call['id']}")["notes"]
        assert notes["route_why"] == "learned"
        assert 0.5 < float(notes["learn_score"]) < 1.5
        assert (notes["learn"], notes["learn_arm"]) == ("smart", models["new1-1"])
        found = scope(gate)
        assert found["best"] == DEAR
        assert found["quality"] >= 0.97
        assert found["cost"] < 0.7


async def test_a_sample_is_asked_of_another_model_behind_the_clients_back(fake: FakeUpstream) -> None:
    """Every answer is of the first model; the other is learned of all the same, at the cost of a few calls more."""
    with RunningGateway(upstreams(fake), routes=[route("learned", shadow=0.05)], telemetry={"log": None}) as gate:
        kinds = ("what is two and two", "about what is two and two")
        asked = {f"shadowed-{at}": f"Do you agree {kinds[at % 2]}, {WORDS[at % 11]}?" for at in range(800)}
        models = await serve(gate, asked, report=False)
        assert set(models.values()) == {DEAR}
        found = labelled(gate, 15)
        dear, cheap = found["targets"]
        assert (dear["target"], cheap["target"]) == (DEAR, CHEAP)
        assert 15 <= cheap["labels"] == found["labels"] <= 100  # of 800, one in twenty
        assert dear["labels"] == min(30, cheap["labels"])  # taken for perfect, until it is known
        assert 0 < cheap["score"] < 1
        assert dear["score"] == 1
        assert found["why"]["shadow"] >= found["labels"]
        assert cheap["calls"] == found["why"]["shadow"]
