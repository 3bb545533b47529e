"""What went wrong with budgets in other gateways, told in our own words, and shown not to happen here.

Each test bears the name of the peer and the number of its issue. The upstream says what it likes about usage; what is
booked is read from the account of the budget, and must be right to the nano-dollar.
"""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config.schema import TaperStep
from gateway.policy.taper import taper
from gateway.spend import Charge, Demand, Grant, Level, Rule, Unit
from gateway.stores.sqlite_budgets import SqliteBudgets
from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.faults import Repeat, Send, Wait, answer, chunked
from gateway.testing.gateway import RunningGateway
from gateway.testing.raw import RawClient
from gateway.testing.scripted import ScriptedUpstream
from tests.e2e.conftest import upstreams
from tests.e2e.money import FORMS, Answer, Waiting, ask, asked_of, port_of, request_of, under_way, until

PRICE = {"input": 3, "output": 15, "cache_read": 0.3, "cache_write": 3.75, "cache_write_1h": 6, "web_searches": 10}
CHEAP, DEAR = {"input": 1, "output": 40}, {"input": 10, "output": 400}
CEILING = 60  # tokens of output that a stream without a limit of its own is held to
DELTA = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"word "},"finish_reason":null}]}\n\n'


def event(kind: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), json.dumps({"type": kind, **fields}).encode())


def claude(start: dict[str, Any], end: dict[str, Any], *more: dict[str, Any]) -> list[Any]:
    """A stream of the Messages API with these usages: in message_start, in message_delta (and further ones)."""
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
    pieces = [event("message_start", message={**message, "usage": start})]
    pieces.append(event("content_block_start", index=0, content_block={"type": "text", "text": ""}))
    pieces.append(event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hello"}))
    pieces.append(event("content_block_stop", index=0))
    stop = {"stop_reason": "end_turn", "stop_sequence": None}
    pieces += [event("message_delta", delta=stop, usage=usage) for usage in (*more, end)]
    return [Send(chunked(*pieces, event("message_stop")))]


def gpt(usage: dict[str, Any]) -> list[Any]:
    """A whole answer of Chat Completions."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
    return [Send(answer(json.dumps({"id": "c", "model": "m", "choices": [choice], "usage": usage}).encode()))]


def gemini(*usages: dict[str, Any]) -> list[Any]:
    """A stream of generateContent, with usage so far in every piece."""
    pieces = []
    for number, usage in enumerate(usages, 1):
        candidate: dict[str, Any] = {"content": {"parts": [{"text": "Hi"}], "role": "model"}, "index": 0}
        if number == len(usages):
            candidate["finishReason"] = "STOP"
        document = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m"}
        pieces.append(b"data: %b\r\n\r\n" % json.dumps(document).encode())
    return [Send(chunked(*pieces))]


def counts(given: int, cached: int, written: int, out: int, **more: Any) -> dict[str, Any]:
    return {"input_tokens": given, "cache_read_input_tokens": cached, "cache_creation_input_tokens": written,
            "output_tokens": out, **more}  # fmt: skip


SEARCHED = {"server_tool_use": {"web_search_requests": 2}}
HOUR = {"cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 1000}}
SCRIPTS: dict[str, Any] = {
    "cached": claude(counts(10, 1000, 200, 1), counts(10, 1000, 200, 50)),
    "twice": claude(counts(10, 0, 4000, 1), counts(10, 0, 4000, 50), counts(10, 0, 4000, 20)),
    "late": claude(counts(0, 0, 0, 0), counts(2000, 0, 0, 50)),
    "hour": claude(counts(10, 0, 1000, 1, **HOUR), {"output_tokens": 50}),
    "server": claude(counts(100, 0, 0, 1), counts(5000, 300, 0, 50, **SEARCHED)),
    "gpt-cached": gpt({"prompt_tokens": 1000, "completion_tokens": 50, "total_tokens": 1050,
                       "prompt_tokens_details": {"cached_tokens": 900}}),
    "gpt-reasons": gpt({"prompt_tokens": 100, "completion_tokens": 500, "total_tokens": 600,
                        "completion_tokens_details": {"reasoning_tokens": 480}}),
    "gpt-zero": gpt({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}),
    "cumulates": gemini(*({"promptTokenCount": 40, "candidatesTokenCount": n, "totalTokenCount": 40 + n}
                          for n in (1, 2, 3, 4, 5))),
    "deltas": [Send(chunked(DELTA * 200, end=b"")), Wait(20)],
    "silent": [Wait(20)],
    "endless": [Send(chunked(end=b"")), Repeat(b"%x\r\n%b\r\n" % (len(DELTA), DELTA), times=5000)],
}  # fmt: skip


@pytest.fixture(scope="module")
def gate(fake: FakeUpstream, up: ScriptedUpstream) -> Iterator[RunningGateway]:
    scripted = {name: {"dialect": dialect, "url": up.url, "provider": provider, "inject_usage": False}
                for name, dialect, provider in (("gpt", "openai", "openai"), ("claude", "anthropic", "anthropic"),
                                                ("google", "gemini", "google"))}  # fmt: skip
    scripted["gpt"]["timeouts"] = {"first_byte": 0.3}
    budgets = [
        {"scope": "agent", "match": "new-*", "usd": 0.03, "per": "day"},
        {"scope": "agent", "match": "penniless", "usd": 0.000001, "per": "life"},
        {"scope": "agent", "match": "tokens", "tokens": 1_000_000, "per": "life"},
    ]
    with RunningGateway(
        {**upstreams(fake.url), **scripted},
        prices={"models": {"m": PRICE, "cheap": CHEAP, "dear": DEAR}},
        runs={"budget_usd": 2},
        budgets=budgets,
        limits={"rates": [{"scope": "agent", "match": "slow-*", "rpm": 6, "burst": 1}]},
        spending={"output_ceiling": CEILING, "clamp_floor": 10},
        telemetry={"log": None},
    ) as running:
        yield running


def account(gate: RunningGateway, scope: str, prefix: str) -> dict[str, Any]:
    (found,) = [b for b in gate.get("/api/budgets", prefix=f"{scope}:{prefix}")["budgets"] if b["value"] == prefix]
    return dict(found)


def settled(gate: RunningGateway, run: str) -> float:
    """USD that the budget of this run has spent, when nothing is under way."""
    return float(gate.until(lambda: account(gate, "run", run), lambda a: a["reserved"] == 0)["spent"])


def booked(gate: RunningGateway, script: str, prefix: str, form: str, **more: Any) -> float:
    """USD booked for one call that the upstream answers so."""
    run = f"story-{script}"
    got = ask(gate, form, "m", "hi", 100, prefix=f"/run/{run}/{prefix}", headers={"x-script": script}, **more)
    assert got.status == 200, got.raw
    return settled(gate, run)


def usd(given: int = 0, out: int = 0, read: int = 0, write: int = 0, hour: int = 0, searches: int = 0) -> float:
    """By the price list above."""
    tokens = 3 * given + 15 * out + 0.3 * read + 3.75 * write + 6 * hour
    return tokens / 1e6 + searches * 10 / 1000


def same(found: float, right: float) -> None:
    assert found == pytest.approx(right, abs=1e-9)


def together(count: int, work: Any) -> list[Answer]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


# -- LiteLLM ---------------------------------------------------------------------------------------------------------


def test_litellm_34732_parallel_turns_of_one_session(gate: RunningGateway, fake: FakeUpstream) -> None:
    """There each of many turns at once saw the session below its budget, and all passed: the overspend grew with them.
    Here each holds its worst case before it goes."""
    own = {"x-tollgate-budget-usd": "0.02"}
    answers = together(24, lambda n: ask(gate, "chat", "cheap", f"[[wait 0.2]] [[tokens 100]] turns-{n}", 100,
                                         prefix="/run/turns", headers=own))  # fmt: skip
    statuses = [a.status for a in answers]
    assert 2 <= statuses.count(200) <= 4
    assert statuses.count(402) == 24 - statuses.count(200)
    true = sum(a.json["usage"]["prompt_tokens"] * 1e-6 + a.json["usage"]["completion_tokens"] * 40e-6
               for a in answers if a.status == 200)  # fmt: skip
    assert true <= 0.02
    same(settled(gate, "turns"), true)
    assert len(asked_of(fake, "turns-")) == statuses.count(200)


def test_litellm_40095_first_calls_of_somebody_new_at_once(gate: RunningGateway) -> None:
    """There the default budget of a user came into being with the first call, and those beside it went free."""
    answers = together(12, lambda n: ask(gate, "chat", "cheap", "[[wait 0.2]] [[tokens 150]]", 150,
                                         prefix="/agent/new-bot"))  # fmt: skip
    assert [a.status for a in answers].count(200) == 4  # of $0.03, each may need $0.0063 to $0.0067


def test_litellm_26672_a_budget_that_is_configured_is_in_force(gate: RunningGateway) -> None:
    """There the limiter was never registered, and nothing told so. Here what a call costs is seen in its account."""
    got = ask(gate, "chat", "cheap", "[[tokens 10]]", 20, prefix="/run/in-force/agent/new-one")
    cost = float(got.headers["x-tollgate-cost-usd"])
    assert cost > 0
    same(settled(gate, "in-force"), cost)
    same(account(gate, "agent", "new-one")["spent"], cost)


async def test_litellm_40020_a_window_that_is_over_is_over(tmp_path: Path) -> None:
    """There a second, local counter beside the budget was never set back, and refused for ever. Here there is one
    account for each window, and one clock."""
    now = 1_790_000_000 * 10**9
    store = SqliteBudgets(tmp_path / "b.sqlite", "w", clock=lambda: now, monotonic=lambda: now)
    try:
        day = 86_400 * 10**9
        for number in range(3):
            since = now - now % day
            demand = Demand(f"key:k|usd|day|{number}", Rule.TOTAL, Unit.USD, 10, 10, since, since + day)
            assert isinstance(await store.reserve(f"a{number}", [demand]), Grant)
            store.settle(f"a{number}", Charge(usd=10))
            assert not isinstance(await store.reserve(f"b{number}", [demand]), Grant)
            now += day
    finally:
        store.close()


def test_litellm_11789_cached_tokens_of_a_stream(gate: RunningGateway) -> None:
    """There tokens read from and written to the cache were billed wrong for streams, for a year and a half."""
    same(booked(gate, "cached", "claude", "messages", stream=True), usd(10, 50, read=1000, write=200))


def test_litellm_42663_server_tools_of_a_stream(gate: RunningGateway) -> None:
    """There only what the first event said was priced, and what the server's tools brought in later was given away."""
    found = booked(gate, "server", "claude", "messages", stream=True)
    same(found, usd(5000, 50, read=300, searches=2))


@pytest.mark.parametrize("issue", ["14457", "37558"])
def test_litellm_a_client_that_leaves_has_spent(gate: RunningGateway, issue: str) -> None:
    """There who left in mid-stream had spent nothing, or only the input. What is not known is charged as held."""
    run = f"leaves-{issue}"
    with RawClient(port_of(gate)) as client:
        client.send(request_of("chat", "m", "hi", 500, prefix=f"/run/{run}/gpt", stream=True,
                               headers={"x-script": "deltas"}))  # fmt: skip
        client.until(b"word")
    (call,) = gate.calls(1, run=run)
    assert call["outcome"] == "cancelled"
    assert call["cost_usd"] > 0
    assert settled(gate, run) >= max(call["cost_usd"], 500 * 15e-6)


def test_litellm_37992_zero_is_a_number(gate: RunningGateway) -> None:
    """There a usage of zero was taken for none, and an estimate billed in its place."""
    assert booked(gate, "gpt-zero", "gpt", "chat") == 0


# -- Bifrost ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_bifrost_2873_no_route_goes_past_the_budget(gate: RunningGateway, fake: FakeUpstream, form: str) -> None:
    """There pass-through routes were not checked. Here every route is, before anything is sent."""
    got = ask(gate, form, "cheap", f"past-{form}-", 100, prefix="/agent/penniless")
    assert got.status == 402
    assert not asked_of(fake, f"past-{form}-")


def test_bifrost_2873_not_even_a_route_that_nobody_knows(gate: RunningGateway, fake: FakeUpstream) -> None:
    data = request_of("chat", "cheap", "past-unknown", 100, prefix="/agent/penniless")
    for path in (b"/v1/audio/speech", b"/v1/chat/completions/"):  # with a slash too many, too
        with RawClient(port_of(gate)) as client:
            client.send(data.replace(b"/v1/chat/completions", path))
            assert client.answer().status == 402, path
    assert not asked_of(fake, "past-unknown")


def test_bifrost_5770_a_share_is_a_share_of_the_limit() -> None:
    """There a rule for "more than 99 % used" came into force after $0.40 of $15."""
    steps = [[TaperStep(at=0.99, model="cheap")]]
    for spent, reached in ((0, False), (400_000_000, False), (14_849_999_999, False), (14_850_000_000, True)):
        level = Level("key:k|usd|day", 15_000_000_000, spent, 0)
        assert (taper([level], steps) is not None) == reached, spent


def test_bifrost_904_cached_input_is_not_fresh_input(gate: RunningGateway) -> None:
    """There tokens from the cache cost as much as fresh ones: five times too much."""
    same(booked(gate, "gpt-cached", "gpt", "chat"), usd(100, 50, read=900))


def test_bifrost_3451_cache_writes_count_once(gate: RunningGateway) -> None:
    """There they stood in two events of a stream, and were charged twice."""
    same(booked(gate, "twice", "claude", "messages", stream=True), usd(10, 50, write=4000))


def test_bifrost_3357_a_call_that_timed_out_is_not_free(gate: RunningGateway) -> None:
    """There calls that were cancelled or ran out of time were recorded with $0."""
    run = "timed-out"
    got = ask(gate, "chat", "m", "hi", 100, prefix=f"/run/{run}/gpt", headers={"x-script": "silent"})
    assert got.status == 504
    assert settled(gate, run) >= 100 * 15e-6


def test_bifrost_3709_a_cancelled_stream_has_the_tokens_it_had(gate: RunningGateway) -> None:
    """There a stream cut after 806 deltas was billed one token. Here what came is counted."""
    with RawClient(port_of(gate)) as client:
        client.send(request_of("chat", "m", "hi", 500, prefix="/run/many-deltas/gpt", stream=True,
                               headers={"x-script": "deltas"}))  # fmt: skip
        for _ in range(150):
            client.until(b"word ")
    (call,) = gate.calls(1, run="many-deltas")
    assert call["usage_source"] == "estimated"
    assert call["usage"]["output_tokens"] >= 150


# -- agentgateway ----------------------------------------------------------------------------------------------------


def test_agentgateway_3228_reasoning_is_part_of_the_output(gate: RunningGateway) -> None:
    """There, where reasoning tokens were told, the rest of the output was left out of the cost."""
    same(booked(gate, "gpt-reasons", "gpt", "chat"), usd(100, 500))


def test_agentgateway_2626_money_is_what_is_limited(gate: RunningGateway) -> None:
    """There limits were in tokens or requests only. Here the same tokens of a dear model exhaust a budget sooner."""
    for model, fits in (("cheap", True), ("dear", False)):
        got = ask(gate, "chat", model, "[[tokens 10]]", 100, prefix=f"/budget/0.02/run/money-{model}")
        assert (got.status == 200) == fits


def test_agentgateway_1398_one_budget_for_everything_of_a_run(gate: RunningGateway) -> None:
    """There models, tools and memory had budgets of their own, or none. Here all that a run asks counts in one."""
    costs = []
    for form in ("chat", "responses", "messages", "gemini", "embeddings", "completions"):
        got = ask(gate, form, "cheap", "[[tokens 5]] and more", 20, prefix="/run/one")
        assert got.status == 200, got.raw
        costs.append(float(got.headers["x-tollgate-cost-usd"]))
    assert all(cost > 0 for cost in costs)
    same(settled(gate, "one"), sum(costs))


def test_agentgateway_a_limit_is_of_whom_it_names(gate: RunningGateway) -> None:
    """There a local limit held for the gateway as a whole, where users had thought it was each key's."""
    assert [ask(gate, "chat", "cheap", prefix="/agent/slow-a").status for _ in range(2)] == [200, 429]
    assert ask(gate, "chat", "cheap", prefix="/agent/slow-b").status == 200
    assert ask(gate, "chat", "cheap", prefix="/agent/other").status == 200


async def test_agentgateway_debt_is_carried(tmp_path: Path) -> None:
    """There what was taken beyond the limit was forgotten, as the bucket ends at zero. Here a raise that is smaller
    than the debt lets nothing through."""
    now = 1_790_000_000 * 10**9
    store = SqliteBudgets(tmp_path / "b.sqlite", "w", clock=lambda: now, monotonic=lambda: now)

    def demand(limit: int) -> list[Demand]:
        return [Demand("run:r|usd|life", Rule.TOTAL, Unit.USD, 1, limit)]

    try:
        assert isinstance(await store.reserve("a", demand(10)), Grant)
        store.settle("a", Charge(usd=50))
        for limit, granted in ((10, False), (40, False), (50, False), (51, True)):
            assert isinstance(await store.reserve(f"b{limit}", demand(limit)), Grant) == granted
    finally:
        store.close()


# -- Envoy AI Gateway, and others of its kind ------------------------------------------------------------------------


def test_envoy_a_stream_does_not_run_past_what_was_admitted(gate: RunningGateway) -> None:
    """There a stream that was let in may exceed its limit, and is charged at its end. Here it is ended."""
    got = ask(gate, "chat", "m", "hi", None, prefix="/run/endless/gpt", stream=True, headers={"x-script": "endless"})
    assert got.status == 200
    assert b'"finish_reason":"length"' in got.raw
    assert got.raw.endswith(b"data: [DONE]\n\n")
    assert got.raw.count(b"word") < 5000
    (call,) = gate.calls(1, run="endless")
    assert call["notes"]["budget"] == "stopped"


@pytest.mark.parametrize("tokens", [1, 37, 250])
def test_envoy_2248_and_wso2_2932_n_tokens_move_the_counter_by_n(gate: RunningGateway, tokens: int) -> None:
    """There each request moved the counter of tokens or cost by one, whatever it used."""
    ask(gate, "chat", "cheap", "[[tokens 1]]", 300, prefix="/agent/tokens")
    before = gate.until(lambda: account(gate, "agent", "tokens"), lambda a: a["reserved"] == 0)["spent"]
    got = ask(gate, "chat", "cheap", f"[[tokens {tokens}]]", 300, prefix="/agent/tokens")
    used = got.json["usage"]["total_tokens"]
    assert used > tokens
    gate.until(lambda: account(gate, "agent", "tokens")["spent"], lambda spent: spent == before + used)


def test_envoy_1754_what_remains_goes_down(gate: RunningGateway) -> None:
    """There the number in the header stayed where it was."""
    left = [ask(gate, "chat", "cheap", "[[tokens 20]]", 20, prefix="/run/remains").remaining for _ in range(5)]
    assert all(later < sooner for sooner, later in itertools.pairwise(left))


def test_envoy_2290_usage_that_comes_late(gate: RunningGateway) -> None:
    """There the input was taken from the first event of a stream alone, which may say 0."""
    same(booked(gate, "late", "claude", "messages", stream=True), usd(2000, 50))


def test_envoy_2677_a_cache_for_an_hour_has_its_own_price(gate: RunningGateway) -> None:
    """There it was written at the price of five minutes."""
    same(booked(gate, "hour", "claude", "messages", stream=True), usd(10, 50, hour=1000))


def test_envoy_a_quota_for_a_name_that_nothing_has(tmp_path: Path) -> None:
    """There a quota whose model was misspelt was silently not applied. Here the configuration is refused."""
    config = {
        "upstreams": {"openai": {"dialect": "openai", "url": "http://127.0.0.1:9"}},
        "budgets": [{"scope": "upstream", "match": "opnai", "usd": 5}],
        "state": str(tmp_path / "state"),
    }
    file = tmp_path / "tollgate.yaml"
    file.write_text(yaml.safe_dump(config))
    program = "import sys; from gateway.cli import main; sys.exit(main())"
    words = [sys.executable, "-c", program, "check", "--config", str(file)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode != 0
    assert re.search(r"budgets\.0\.match.*matches no upstream.*openai", done.stdout + done.stderr)


def test_tensorzero_5481_usage_so_far_is_not_added_up(gate: RunningGateway) -> None:
    """There the usage of every event was added, where each says how much it was so far."""
    same(booked(gate, "cumulates", "google", "gemini_stream"), usd(40, 5))


def test_what_is_held_is_seen_and_becomes_what_is_recorded(gate: RunningGateway, fake: FakeUpstream) -> None:
    """Nobody's story: the account shows the hold while the call goes on, and its record's cost afterwards."""
    slow = Waiting(gate, "chat", "cheap", "[[wait 0.3]] [[tokens 5]] whole", 20, prefix="/run/whole")
    under_way(fake, "whole")
    assert account(gate, "run", "whole")["reserved"] > 20 * 40e-6
    assert slow.answer().status == 200
    cost = until(lambda: gate.get("/api/runs/whole")["cost_usd"] if gate.status("/api/runs/whole") == 200 else None)
    same(settled(gate, "whole"), cost)


def test_bifrost_2873_not_even_without_a_run(gate: RunningGateway, fake: FakeUpstream) -> None:
    """A path that nobody knows belongs to no run: it is no way past the budgets of runs."""
    for path in (b"/v1/images/generations", b"/v1beta/models/m:batchGenerateContent"):
        data = request_of("chat", "cheap", "no-run", 10).replace(b"/v1/chat/completions", path, 1)
        with RawClient(port_of(gate)) as client:
            client.send(data)
            assert client.answer().status == 402, path
    assert not asked_of(fake, "no-run")
