"""Cheap answers that are checked before they are given, through a real gateway: in each API, whole and in streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from gateway.testing.fake_script import Ask, Reply, ToolAnswer
from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway
from gateway.testing.raw import RawClient, post
from tests.e2e.conftest import NOW, upstreams

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
SCHEMA: Any = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
GOOD, BAD = '{"age": 3}', '{"age": "three"}'
EASY, HARD, LOST = "How old is the cat?", "A hard one: how old is the sea?", "A lost one: how old is time?"
CHEAP = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5", "gemini": "gemini-2.5-flash-lite"}
DEAR = {"openai": "gpt-4o", "anthropic": "claude-sonnet-4-5", "gemini": "gemini-2.5-pro"}


def answer(ask: Ask) -> Reply:
    """The cheap models know nothing of hard questions, and none knows of lost ones."""
    text = ask.turns[-1].text
    wrong = "lost" in text or ("hard" in text and ask.model in CHEAP.values())
    wait = 3600.0 if "slow" in text and ask.model in DEAR.values() else 0.0
    wait = 1.5 if "late" in text and ask.model in DEAR.values() else wait
    if ask.tools:
        return Reply(calls=[ToolAnswer("note", json.loads(BAD if wrong else GOOD), "call_1")], stop="tool", wait=wait)
    return Reply(BAD if wrong else GOOD, wait=wait)


def body_of(form: str, text: str, *, stream: bool, tool: bool = False) -> tuple[str, dict[str, Any]]:
    """The path and body of a question that demands JSON, or the call of a tool."""
    model, schema = f"extract-{form}", {"type": "json_schema", "schema": SCHEMA}
    said = [{"role": "user", "content": text}]
    body: dict[str, Any] = {"model": model, "stream": stream}
    if form == "chat":
        body |= {"messages": said, "max_tokens": 60}
        body |= {"stream_options": {"include_usage": True}} if stream else {}
        if tool:
            function = {"name": "note", "parameters": SCHEMA}
            return CHAT, body | {"tools": [{"type": "function", "function": function}], "tool_choice": "required"}
        return CHAT, body | {"response_format": {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA}}}
    if form == "responses":
        body |= {"input": said, "max_output_tokens": 60}
        if tool:
            return RESPONSES, body | {
                "tools": [{"type": "function", "name": "note", "parameters": SCHEMA}],
                "tool_choice": {"type": "function", "name": "note"},
            }
        return RESPONSES, body | {"text": {"format": {**schema, "name": "p"}}}
    if form == "messages":
        body |= {"messages": said, "max_tokens": 60}
        if tool:
            return MESSAGES, body | {
                "tools": [{"name": "note", "input_schema": SCHEMA}],
                "tool_choice": {"type": "any"},
            }
        return MESSAGES, body | {"output_config": {"format": schema}}
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    body = {"contents": [{"role": "user", "parts": [{"text": text}]}], "generationConfig": {"maxOutputTokens": 60}}
    if tool:
        body |= {
            "tools": [{"functionDeclarations": [{"name": "note", "parametersJsonSchema": SCHEMA}]}],
            "toolConfig": {"functionCallingConfig": {"mode": "ANY"}},
        }
    else:
        body["generationConfig"] |= {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA}
    return f"/v1beta/models/{model}:{method}", body


def rule(form: str, name: str, **more: Any) -> dict[str, Any]:
    return {"model": f"extract-{form}", "to": [CHEAP[name], DEAR[name]], "cascade": {}, "sticky": False, **more}


ROUTES = [
    rule("chat", "openai"),
    rule("responses", "openai", by="cost", to=[DEAR["openai"], CHEAP["openai"]]),
    rule("messages", "anthropic"),
    rule("gemini", "gemini"),
    rule(
        "across",
        "openai",
        to=[{"model": CHEAP["openai"], "upstream": "openai"}, {"model": DEAR["anthropic"], "upstream": "anthropic"}],
    ),
]
FORMS = ["chat", "responses", "messages", "gemini"]


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeUpstream]:
    with FakeUpstream(11, script=answer, clock=lambda: NOW) as running:
        yield running


@pytest.fixture(scope="module")
def gate(fake: FakeUpstream) -> Iterator[RunningGateway]:
    known = {name: {**one, "key": f"sk-house-{name}-123"} for name, one in upstreams(fake.url).items()}
    more: dict[str, Any] = {"cache": {"exact": {"rules": [{"agent": "saver", "ttl": 600}]}}, "telemetry": {"log": None}}
    with RunningGateway(
        known, routes=ROUTES, budgets=[{"scope": "global", "usd": 50, "per": "day"}], **more
    ) as running:
        yield running


@pytest.fixture(autouse=True)
def _afresh(fake: FakeUpstream, salts: Iterator[int]) -> None:
    fake.reset(next(salts))


async def ask(
    gate: RunningGateway, path: str, body: Any, run: str, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    if path == MESSAGES:
        headers["anthropic-version"] = "2023-06-01"
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{gate.url}/run/{run}{path}", json=body, headers=headers) as got,
    ):
        return got.status, {name.lower(): value for name, value in got.headers.items()}, await got.read()


async def directly(fake: FakeUpstream, salt: int) -> bytes:
    """The last answer of the upstream, where the same requests reach it again without a gateway."""
    asked = list(fake.requests)
    fake.reset(salt)
    body = b""
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        for one in asked:
            headers = {name.decode(): value.decode() for name, value in one.headers}
            async with session.post(fake.url + one.target, data=one.body, headers=headers) as got:
                body = await got.read()
    return body


def record(gate: RunningGateway, run: str) -> Any:
    (call,) = gate.calls(1, run=run)
    return gate.get(f"/api/calls/{call['id']}")


def check_money(call: Any, attempts: int) -> None:
    """The cost is the sum of its components, and what was withheld stands under a name of its own."""
    parts = call["cost_components"]
    assert sum(parts.values()) == pytest.approx(call["cost_usd"], abs=1e-12)
    assert ("failed_attempts" in parts) == (attempts > 1)
    made = call["attempts"]
    assert sum(one["cost_usd"] for one in made[:-1]) == pytest.approx(parts.get("failed_attempts", 0), abs=1e-12)
    assert all(one["cost_usd"] > 0 for one in made[:-1])


def counted(gate: RunningGateway, name: str, **labels: str) -> float:
    """The sum of a metric's series with these labels."""
    lines = [line for line in gate.text("/metrics").splitlines() if line.startswith(name)]
    fitting = [line for line in lines if all(f'{label}="{value}"' in line for label, value in labels.items())]
    return sum(float(line.rpartition(" ")[2]) for line in fitting)


@pytest.mark.parametrize("tool", [False, True], ids=["json", "tool"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("form", FORMS)
async def test_what_has_not_the_form_is_withheld_and_what_comes_instead_is_passed_on_byte_for_byte(
    gate: RunningGateway, fake: FakeUpstream, salts: Iterator[int], form: str, stream: bool, tool: bool
) -> None:
    salt = next(salts)
    fake.reset(salt)
    run = f"hard-{form}-{stream}-{tool}"
    path, body = body_of(form, HARD, stream=stream, tool=tool)
    status, headers, raw = await ask(gate, path, body, run)
    assert status == 200
    assert len(fake.requests) == 2
    assert b"three" not in raw
    assert headers["x-tollgate-attempts"] == "2"
    why = "arguments" if tool else "schema"
    assert headers["x-tollgate-cascade"] in ((why, f"{why}, ok") if stream else (f"{why}, ok",))
    assert raw == await directly(fake, salt)
    call = record(gate, run)
    assert [one["error_code"] for one in call["attempts"]] == ["unverified", None]
    assert (call["outcome"], call["notes"]["cascade"]) == ("ok", f"{why},ok")
    assert "fallback" not in call["notes"]
    check_money(call, 2)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("form", FORMS)
async def test_what_has_it_is_the_only_answer(
    gate: RunningGateway, fake: FakeUpstream, salts: Iterator[int], form: str, stream: bool
) -> None:
    salt = next(salts)
    fake.reset(salt)
    run = f"easy-{form}-{stream}"
    path, body = body_of(form, EASY, stream=stream)
    status, headers, raw = await ask(gate, path, body, run)
    assert (status, len(fake.requests), headers["x-tollgate-cascade"]) == (200, 1, "ok")
    assert raw == await directly(fake, salt)
    call = record(gate, run)
    assert call["notes"]["cascade"] == "ok"
    check_money(call, 1)


async def test_the_last_answer_is_given_whatever_it_is_and_is_not_cached(
    gate: RunningGateway, fake: FakeUpstream
) -> None:
    path, body = body_of("chat", LOST, stream=False)
    for again in range(2):
        run = f"lost-{again}"
        status, headers, raw = await ask(gate, "/agent/saver" + path, body, run)
        assert (status, headers["x-tollgate-cascade"]) == (200, "schema, schema")
        assert json.loads(raw)["choices"][0]["message"]["content"] == BAD
        assert record(gate, run)["notes"]["cascade"] == "schema,schema"
    assert len(fake.requests) == 4

    path, body = body_of("chat", EASY, stream=False)
    for again in range(2):
        status, headers, raw = await ask(gate, "/agent/saver" + path, body, f"kept-{again}")
        assert json.loads(raw)["choices"][0]["message"]["content"] == GOOD
    assert len(fake.requests) == 5  # one for both


async def test_a_client_of_one_api_gets_the_answer_of_another(gate: RunningGateway, fake: FakeUpstream) -> None:
    path, body = body_of("chat", HARD, stream=False)
    status, headers, raw = await ask(gate, path, {**body, "model": "extract-across"}, "across-whole")
    assert (status, headers["x-tollgate-upstream"], headers["x-tollgate-cascade"]) == (200, "anthropic", "schema, ok")
    assert json.loads(raw)["choices"][0]["message"]["content"] == GOOD
    check_money(record(gate, "across-whole"), 2)
    path, body = body_of("messages", HARD, stream=True)
    status, headers, raw = await ask(gate, path, {**body, "model": "extract-across"}, "across-stream")
    assert (status, headers["x-tollgate-upstream"]) == (200, "anthropic")
    assert b"three" not in raw
    assert raw.count(b"event: message_stop") == 1
    assert record(gate, "across-stream")["notes"]["cascade"] == "schema,ok"
    check_money(record(gate, "across-stream"), 2)
    assert [one.target for one in fake.requests] == [CHAT, MESSAGES] * 2


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_where_the_dear_one_does_not_fit_the_budget_the_cheap_answer_is_given(
    gate: RunningGateway, fake: FakeUpstream, stream: bool
) -> None:
    run = f"tight-{stream}"
    path, body = body_of("chat", HARD, stream=stream)
    # 60 tokens of output cost 0.000036 USD with the one, 0.0006 with the other.
    status, headers, raw = await ask(gate, path, body, run, **{"x-tollgate-budget-usd": "0.0003"})
    assert (status, headers["x-tollgate-cascade"], headers["x-tollgate-attempts"]) == (200, "schema", "1")
    assert b"three" in raw
    assert len(fake.requests) == 1
    call = record(gate, run)
    assert (call["outcome"], call["notes"]["cascade"], call["notes"]["cascade_withheld"]) == ("ok", "schema", "budget")
    check_money(call, 1)
    assert call["budget"]["decision"] == "granted"


async def test_a_client_that_leaves_ends_the_cascade_and_all_of_it_is_charged_once(
    gate: RunningGateway, fake: FakeUpstream
) -> None:
    path, body = body_of("chat", HARD + " slow", stream=True)
    with RawClient(int(gate.url.rpartition(":")[2])) as client:
        client.send(post(f"/run/leaves{path}", json.dumps(body).encode()))
        gate.until(lambda: len(fake.requests), lambda count: count == 2)  # the dear one is being asked
    call = record(gate, "leaves")
    assert (call["outcome"], call["notes"]["cascade"]) == ("cancelled", "schema")
    cheap, dear = call["attempts"]
    assert (cheap["error_code"], dear["error_code"]) == ("unverified", "client_gone")
    assert sum(call["cost_components"].values()) == pytest.approx(call["cost_usd"], abs=1e-12)
    assert call["cost_usd"] >= cheap["cost_usd"] > 0
    gate.until(lambda: fake.requests[1].ended, lambda ended: ended == "client_gone")
    assert len(fake.requests) == 2


async def test_many_at_once_are_each_charged_for_what_they_took(fake: FakeUpstream) -> None:
    """Sixty clients of all APIs beside each other; the budget has room for some of the dear answers only."""
    known = {name: {**one, "key": f"sk-house-{name}-123"} for name, one in upstreams(fake.url).items()}
    limits: dict[str, Any] = {"budgets": [{"scope": "global", "usd": 0.012, "per": "day"}], "telemetry": {"log": None}}
    with RunningGateway(known, routes=ROUTES, **limits) as gate:
        asked = [body_of(FORMS[at % 4], (HARD, EASY)[at // 4 % 2], stream=at % 3 == 0) for at in range(60)]
        got = await asyncio.gather(*[ask(gate, path, body, f"many-{at}") for at, (path, body) in enumerate(asked)])
        calls = [gate.get(f"/api/calls/{call['id']}") for call in gate.calls(60)]
        assert sum(len(call["attempts"]) for call in calls) == len(fake.requests)
        assert sorted(status for status, _, _ in got) == sorted(call["status"] for call in calls)
        withheld = [call for call in calls if call["notes"].get("cascade_withheld") == "budget"]
        escalated = [call for call in calls if len(call["attempts"]) == 2]
        assert withheld
        assert escalated
        for call in calls:
            assert sum(call["cost_components"].values()) == pytest.approx(call["cost_usd"], abs=1e-12)
        total = sum(call["cost_usd"] for call in calls)

        def account() -> Any:
            (only,) = gate.get("/api/budgets")["budgets"]
            return only

        budget = gate.until(account, lambda found: found["reserved"] == 0)
        assert budget["spent"] == pytest.approx(total, abs=60 * 1e-9)  # accounts count nano-USD
        assert budget["spent"] <= budget["limit"]


async def test_a_client_is_kept_waiting_by_pings(fake: FakeUpstream) -> None:
    known = {name: {**one, "key": f"sk-house-{name}-123"} for name, one in upstreams(fake.url).items()}
    more: dict[str, Any] = {"timeouts": [{"ping": 0.1}], "telemetry": {"log": None}}
    with RunningGateway(known, routes=ROUTES, **more) as gate:
        path, body = body_of("messages", HARD + " late", stream=True)
        status, headers, raw = await ask(gate, path, body, "late")
        assert (status, headers["x-tollgate-cascade"]) == (200, "schema")
        assert raw.startswith(b"event: ping")
        assert b"three" not in raw
        assert raw.count(b"event: message_start") == raw.count(b"event: message_stop") == 1
        assert record(gate, "late")["notes"]["cascade"] == "schema,ok"


async def test_metrics_tell_what_was_found_of_each_target(gate: RunningGateway) -> None:
    name = "tollgate_cascade_answers_total"
    before = counted(gate, name, rule="0", then="escalated")
    retries, fallbacks = counted(gate, "tollgate_retries_total"), counted(gate, "tollgate_fallbacks_total")
    path, body = body_of("chat", HARD, stream=False)
    await ask(gate, path, body, "metrics")
    gate.until(lambda: counted(gate, name, rule="0", then="escalated"), lambda now: now == before + 1)
    assert counted(gate, name, target="openai/gpt-4o-mini", verdict="schema", then="escalated") >= 1
    assert counted(gate, name, target="openai/gpt-4o", verdict="ok", then="passed") >= 1
    assert counted(gate, "tollgate_retries_total") == retries
    assert counted(gate, "tollgate_fallbacks_total") == fallbacks
