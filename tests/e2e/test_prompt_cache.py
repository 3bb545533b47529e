"""Prompt-cache health through a real gateway: what it says was lost is what the provider's own figures say.

The provider is the fake with its prompt caches; the clients are the official SDKs. The dollars expected are reckoned
here from the usage that the SDKs saw and from list prices, without a line of the gateway.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import anthropic
import openai
import pytest

from gateway.policy.canary import State, canary_arm
from gateway.stores.sqlite_canaries import SqliteCanaries
from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway
from tests.e2e.conftest import upstreams

MODEL, CHAT_MODEL = "claude-sonnet-4-6", "gpt-4.1"
FRESH, READ, WRITE = Decimal("3e-6"), Decimal("0.3e-6"), Decimal("3.75e-6")  # list prices of MODEL, USD per token
CHAT_FRESH, CHAT_READ = Decimal("2e-6"), Decimal("0.5e-6")
MARK = {"type": "ephemeral"}
TOOLS: Any = [
    {"name": f"tool_{n}", "description": f"Tool number {n} of the agent. " * 20, "input_schema": {"type": "object"}}
    for n in range(8)
]
RULES = "Be careful, work step by step, and say what you did. "


@pytest.fixture(scope="module")
def provider() -> Iterator[FakeUpstream]:
    with FakeUpstream(5) as running:
        yield running


@pytest.fixture(scope="module")
def plain(provider: FakeUpstream) -> Iterator[RunningGateway]:
    with RunningGateway(upstreams(provider.url)) as running:
        yield running


@pytest.fixture(scope="module")
def marking(provider: FakeUpstream) -> Iterator[RunningGateway]:
    with RunningGateway(upstreams(provider.url), prompt_cache={"breakpoints": True}) as running:
        yield running


def claude(url: str, run: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=url, api_key="sk-ant-e2e", max_retries=0, timeout=20, default_headers={"x-tollgate-run-id": run}
    )


class Agent:
    """A conversation as an agent has it with the Messages API. `marks`: it sets its own breakpoints."""

    def __init__(self, gate: RunningGateway, run: str, *, marks: bool, clock: bool = False) -> None:
        self.gate, self.run, self.marks, self.clock = gate, run, marks, clock
        self.messages: list[Any] = []
        self.usage: list[Any] = []
        self.texts: list[str] = []

    def play(self, turns: int) -> None:
        with claude(self.gate.url, self.run) as sdk:
            for turn in range(turns):
                self.messages.append({"role": "user", "content": f"[[say done {turn}]] " + f"Item {turn}. " * 60})
                answer = sdk.messages.create(
                    model=MODEL, max_tokens=300, tools=TOOLS, system=self.system(turn), messages=self.shown()
                )
                self.usage.append(answer.usage)
                (block,) = answer.content
                self.texts.append(block.text)
                self.messages.append({"role": "assistant", "content": block.text})

    def system(self, turn: int) -> Any:
        blocks: list[Any] = [{"type": "text", "text": RULES * 30}, {"type": "text", "text": RULES * 20}]
        if self.clock:
            blocks.append({"type": "text", "text": f"It is {turn} o'clock."})
        if self.marks:
            blocks[-1]["cache_control"] = MARK
        return blocks

    def shown(self) -> Any:
        """The messages, the last two of the user marked."""
        if not self.marks:
            return self.messages
        last = {id(m) for m in [m for m in self.messages if m["role"] == "user"][-2:]}
        return [
            {**m, "content": [{"type": "text", "text": m["content"], "cache_control": MARK}]} if id(m) in last else m
            for m in self.messages
        ]

    def calls(self) -> list[dict[str, Any]]:
        return sorted(self.gate.calls(len(self.usage), run=self.run), key=lambda call: call["started_at"])

    def billed(self) -> Decimal:
        """What the provider charges by its own figures, for input."""
        return sum(
            (
                u.input_tokens * FRESH + u.cache_read_input_tokens * READ + u.cache_creation_input_tokens * WRITE
                for u in self.usage
            ),
            Decimal(0),
        )


def total(usage: Any) -> int:
    return int(usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens)


def test_a_stable_agent_loses_nothing(plain: RunningGateway) -> None:
    agent = Agent(plain, "stable", marks=True)
    agent.play(5)
    first, *others = agent.calls()
    assert first["prompt_cache"] is None
    for call, before, usage in zip(others, agent.usage, agent.usage[1:], strict=False):
        health = call["prompt_cache"]
        assert health["readable_tokens"] == before.cache_read_input_tokens + before.cache_creation_input_tokens
        assert health["read_tokens"] == usage.cache_read_input_tokens > 1024
        assert (health["lost_tokens"], health["lost_usd"], health["cause"], health["hint"]) == (0, 0, None, None)
    shown = plain.get("/api/runs/stable")["prompt_cache"]
    read, sent = sum(u.cache_read_input_tokens for u in agent.usage[1:]), sum(map(total, agent.usage[1:]))
    assert (shown["calls"], shown["lost_usd"]) == (4, 0)
    assert shown["hit_ratio"] == pytest.approx(read / sent)
    assert shown["agents"][0]["losses"] == []


def test_the_dollars_that_a_clock_in_the_system_prompt_costs(plain: RunningGateway) -> None:
    agent = Agent(plain, "clock", marks=True, clock=True)
    agent.play(5)
    expected = []
    for before, usage in zip(agent.usage, agent.usage[1:], strict=False):
        readable = min(before.cache_read_input_tokens + before.cache_creation_input_tokens, total(usage))
        missed = readable - usage.cache_read_input_tokens
        rewritten = min(missed, usage.cache_creation_input_tokens)
        expected.append(rewritten * (WRITE - READ) + (missed - rewritten) * (FRESH - READ))
    healths = [call["prompt_cache"] for call in agent.calls()[1:]]
    assert [health["lost_usd"] for health in healths] == [pytest.approx(float(usd), abs=1e-12) for usd in expected]
    assert min(expected) > 0
    assert {(h["cause"], h["part"], h["index"]) for h in healths} == {("changed", "system", 2)}
    assert [h["hint"] for h in healths] == [
        "system block 2 changed", *["system block 2 changes on every call"] * 3
    ]  # fmt: skip
    shown = plain.get("/api/runs/clock")["prompt_cache"]
    assert shown["lost_usd"] == pytest.approx(float(sum(expected)), abs=1e-12)
    (loss,) = shown["agents"][0]["losses"]
    assert (loss["part"], loss["index"], loss["calls"]) == ("system", 2, 4)
    assert loss["hint"] == "system block 2 changes on every call"
    metrics = plain.text("/metrics")
    assert value(metrics, "tollgate_prompt_cache_lost_usd_total", 'cause="changed"') >= float(sum(expected)) - 1e-9
    assert value(metrics, "tollgate_prompt_cache_churn_total", 'part="system"') >= 4


def value(metrics: str, name: str, label: str) -> float:
    lines = [line for line in metrics.splitlines() if line.startswith(name + "{") and label in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def test_the_dollars_that_a_chat_loses_where_caching_is_automatic(plain: RunningGateway) -> None:
    usages = []
    messages: list[Any] = []
    headers = {"x-tollgate-run-id": "chat"}
    with openai.OpenAI(base_url=plain.url + "/v1", api_key="k", max_retries=0, default_headers=headers) as sdk:
        for turn in range(4):
            system: Any = {"role": "system", "content": f"It is {turn} o'clock. " + RULES * 120}
            messages.append({"role": "user", "content": f"[[say yes {turn}]] " + "More. " * 50})
            answer = sdk.chat.completions.create(model=CHAT_MODEL, messages=[system, *messages])
            assert answer.usage is not None
            usages.append(answer.usage)
            messages.append({"role": "assistant", "content": answer.choices[0].message.content})
    calls = sorted(plain.calls(4, run="chat"), key=lambda call: call["started_at"])
    for call, before, usage in zip(calls[1:], usages, usages[1:], strict=False):
        health = call["prompt_cache"]
        missed = before.prompt_tokens // 128 * 128 - usage.prompt_tokens_details.cached_tokens
        assert missed > 1024
        assert health["lost_usd"] == pytest.approx(float(missed * (CHAT_FRESH - CHAT_READ)), abs=1e-12)
        assert (health["part"], health["index"]) == ("system", 0)


def test_breakpoints_of_the_gateway_save_what_it_says_their_absence_costs(
    provider: FakeUpstream, plain: RunningGateway, marking: RunningGateway
) -> None:
    """The same conversation twice, its client setting no mark: once as it is, once with breakpoints set on the way."""
    bare, helped = Agent(plain, "bare", marks=False), Agent(marking, "helped", marks=False)
    bare.play(6)
    helped.play(6)
    assert bare.texts == helped.texts
    assert [total(u) for u in bare.usage] == pytest.approx([total(u) for u in helped.usage], rel=0.01)
    assert all(u.cache_read_input_tokens == 0 for u in bare.usage)
    assert all(u.cache_read_input_tokens > 1024 for u in helped.usage[1:])
    saved = bare.billed() - helped.billed()
    assert saved > bare.billed() / 2  # measured: 66 %
    costs = [sum(call["cost_usd"] for call in agent.calls()) for agent in (bare, helped)]
    assert costs[0] - costs[1] == pytest.approx(float(saved), abs=1e-9)
    assert {call["prompt_cache"]["cause"] for call in helped.calls()[1:]} == {None}
    assert helped.calls()[0]["notes"]["cache_marks"] == "3"
    sent = [json.loads(r.body) for r in provider.requests if "/v1/messages" in r.target][-6:]
    assert [json.dumps(body).count('"cache_control"') for body in sent] == [3, 4, 4, 4, 4, 4]


def test_marks_of_the_client_pass_byte_for_byte(provider: FakeUpstream, marking: RunningGateway) -> None:
    agent = Agent(marking, "own", marks=True)
    agent.play(2)
    last = [r for r in provider.requests if "/v1/messages" in r.target][-1]
    assert json.loads(last.body)["messages"] == Agent.shown(_without_last_answer(agent))
    assert "cache_marks" not in agent.calls()[-1]["notes"]


def _without_last_answer(agent: Agent) -> Agent:
    agent.messages.pop()
    return agent


def test_off_means_off(provider: FakeUpstream) -> None:
    with RunningGateway(upstreams(provider.url), prompt_cache={"health": False}) as gate:
        agent = Agent(gate, "off", marks=True, clock=True)
        agent.play(2)
        assert [call["prompt_cache"] for call in agent.calls()] == [None, None]
        assert gate.get("/api/runs/off")["prompt_cache"] is None
        assert "tollgate_prompt_cache_lost_usd_total{" not in gate.text("/metrics")


# -- on trial ---------------------------------------------------------------------------------------------------------


def on_trial(share: float = 0.5, least_runs: int = 200) -> dict[str, Any]:
    canary = {"id": "marks", "breakpoints": True, "share": share, "least_runs": least_runs}
    return {"routes": [{"model": "claude-*", "to": [MODEL], "canary": canary}], "telemetry": {"log": None}}


def test_the_runs_of_a_canary_get_breakpoints_and_the_others_do_not() -> None:
    """A run keeps its arm, and what the provider is sent is that of its arm."""
    with FakeUpstream(6) as fake, RunningGateway(upstreams(fake.url), **on_trial()) as gate:
        runs = {f"trial-{n}": Agent(gate, f"trial-{n}", marks=False) for n in range(8)}
        for agent in runs.values():
            agent.play(3)
        arms = {run: canary_arm("marks", run, 0.5) for run in runs}
        assert set(arms.values()) == {True, False}
        for run, agent in runs.items():
            notes = [call["notes"] for call in agent.calls()]
            assert {one["canary"] for one in notes} == {"marks"}
            assert {one["canary_arm"] for one in notes} == {"canary" if arms[run] else "rest"}
            assert [("cache_marks" in one) for one in notes] == [arms[run]] * 3
            read = sum(usage.cache_read_input_tokens for usage in agent.usage)
            assert (read > 0) == arms[run]  # the provider saw them
            assert agent.calls()[-1]["notes"]["route_why"] == "only"
        sent = [b"cache_control" in request.body for request in fake.requests]
        assert sum(sent) == 3 * sum(arms.values())
        dear = max(agent.billed() for run, agent in runs.items() if arms[run])
        assert dear < min(agent.billed() for run, agent in runs.items() if not arms[run])


def test_other_apis_are_not_on_trial_and_a_client_that_marks_keeps_its_marks() -> None:
    with FakeUpstream(6) as fake, RunningGateway(upstreams(fake.url), **on_trial()) as gate:
        run = next(f"own-{n}" for n in range(50) if canary_arm("marks", f"own-{n}", 0.5))
        agent = Agent(gate, run, marks=True)
        agent.play(2)
        assert not any("cache_marks" in call["notes"] for call in agent.calls())
        with openai.OpenAI(base_url=f"{gate.url}/v1", api_key="sk-e2e", max_retries=0, timeout=20) as sdk:
            sdk.chat.completions.create(
                model="claude-x", messages=[{"role": "user", "content": "[[say hi]]"}],
                extra_headers={"x-tollgate-run-id": "chat"},
            )  # fmt: skip
        (call,) = gate.calls(1, run="chat")
        assert "canary" not in call["notes"]


def test_breakpoints_that_save_money_are_promoted_and_all_runs_get_them() -> None:
    """By the gateway itself, from what the runs of both arms cost; no run that does not get them is left."""
    with FakeUpstream(6) as fake, RunningGateway(upstreams(fake.url), **on_trial(least_runs=60)) as gate:
        for n in range(600):
            Agent(gate, f"run-{n}", marks=False).play(1)
            if n % 20 == 0 and "canary marks: promoted" in gate.log:
                break
        gate.until(lambda: gate.log, lambda log: "canary marks: promoted" in log)
        ((decision, _),) = SqliteCanaries(gate.state / "canaries.sqlite").standings()
        assert decision.state is State.PROMOTED
        assert decision.runs[0] >= 60
        assert decision.not_worse >= 20
        other = next(f"later-{n}" for n in range(50) if not canary_arm("marks", f"later-{n}", 0.5))

        def later() -> dict[str, Any]:
            agent = Agent(gate, other, marks=False)
            agent.play(1)
            return dict(agent.calls()[-1]["notes"])

        notes = gate.until(later, lambda notes: "cache_marks" in notes)
        assert "canary" not in notes
