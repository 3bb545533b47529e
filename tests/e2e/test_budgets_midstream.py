"""Streams that come to what was reserved for them, and calls that taper: with the official SDKs through a gate."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from socket import SHUT_RDWR
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
from google import genai
from google.genai import types

from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.fake_world import Latency
from gateway.testing.gateway import RunningGateway
from tests.e2e.conftest import upstreams
from tests.e2e.money import ask, asked_of, prices, spend

CEILING = 40  # tokens of an answer that nothing limits
LONG = "[[tokens 300]]"
SOCKETS = ("stop-socket", "stop-talk")
STOPPED = ("stop-chat", "stop-responses", "stop-messages", "stop-google", "stop-raw", "stop-books", *SOCKETS)
TAPERED = ("t-effort", "t-model", "t-cap", "t-stop", "t-all")
MODELS = (*STOPPED, *TAPERED, "t-cheap")


def tapering(model: str, *steps: dict[str, Any]) -> dict[str, Any]:
    return {"scope": "model", "match": model, "usd": 0.05, "per": "life", "taper": list(steps)}


BUDGETS = [
    {"scope": "model", "match": "stop-*", "usd": 1, "per": "life"},
    tapering("t-effort", {"at": 0.1, "effort": "low"}),
    tapering("t-model", {"at": 0.1, "model": "cheap"}),
    tapering("t-cap", {"at": 0.1, "max_tokens": 30}),
    tapering("t-stop", {"at": 0.1, "stop": True}),
    tapering("t-all", {"at": 0.1, "effort": "low"}, {"at": 0.2, "max_tokens": 20}, {"at": 0.3, "stop": True}),
]


def settings(**more: Any) -> dict[str, Any]:
    return {
        "prices": {"models": {**prices(*MODELS)["models"], "stop-socket": {"input": 1, "output": 400}}},
        "budgets": BUDGETS,
        "aliases": {"cheap": {"model": "t-cheap"}},
        "telemetry": {"log": None},
        "spending": {"output_ceiling": CEILING, "clamp_floor": 10},
        **more,
    }


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeUpstream]:
    """One that takes a moment for each token, so that a stream is under way when it is stopped."""
    with FakeUpstream(11, latency=Latency(tokens_per_second=3000)) as running:
        yield running


@pytest.fixture(scope="module")
def house(fake: FakeUpstream) -> Iterator[RunningGateway]:
    with RunningGateway(upstreams(fake.url), **settings()) as running:
        yield running


def stopped(gate: RunningGateway, run: str, event: int = 20) -> dict[str, Any]:
    """The record of the one call of this run, which the gateway ended; its bill is for what came. `event`: tokens of
    one, since a stream ends where an event does."""
    (call,) = gate.calls(1, run=run)
    assert call["notes"]["budget"] == "stopped"
    assert (call["status"], call["error"]) == (200, None)
    tokens = call["usage"]["output_tokens"]
    assert CEILING // 2 <= tokens <= CEILING + event
    assert call["cost_usd"] == pytest.approx((call["usage"]["input_tokens"] + 40 * tokens) * 1e-6)
    return call


async def test_the_openai_sdk_sees_length(house: RunningGateway) -> None:
    base = f"{house.url}/run/s-chat/v1"
    async with openai.AsyncOpenAI(base_url=base, api_key="k", max_retries=0) as sdk:
        stream = await sdk.chat.completions.create(
            model="stop-chat", messages=[{"role": "user", "content": LONG}], stream=True,
            stream_options={"include_usage": True},
        )  # fmt: skip
        chunks = [chunk async for chunk in stream]
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert reasons == ["length"]
    (usage,) = [chunk.usage for chunk in chunks if chunk.usage]
    call = await asyncio.to_thread(stopped, house, "s-chat")
    assert usage.completion_tokens == call["usage"]["output_tokens"]
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert len(text) > CEILING  # what came is kept


async def test_the_responses_api_ends_incomplete(house: RunningGateway) -> None:
    async with openai.AsyncOpenAI(base_url=f"{house.url}/run/s-responses/v1", api_key="k", max_retries=0) as sdk:
        stream = await sdk.responses.create(model="stop-responses", input=LONG, stream=True)
        events: list[Any] = [event async for event in stream]
    last = events[-1].response
    assert (events[-1].type, last.status) == ("response.incomplete", "incomplete")
    assert last.incomplete_details.reason == "max_output_tokens"
    call = await asyncio.to_thread(stopped, house, "s-responses")
    assert last.usage.output_tokens == call["usage"]["output_tokens"]
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert last.output_text == said


async def test_the_anthropic_sdk_says_its_own_limit_and_is_not_cut(house: RunningGateway) -> None:
    """Its max_tokens is the reservation: nothing is to be cut, whatever the configured ceiling."""
    asked = {"model": "stop-messages", "max_tokens": 200, "messages": [{"role": "user", "content": LONG}]}
    async with (
        anthropic.AsyncAnthropic(base_url=f"{house.url}/run/s-own", api_key="k", max_retries=0) as sdk,
        sdk.messages.stream(**asked) as stream,  # type: ignore[arg-type]
    ):
        message = await stream.get_final_message()
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 200)
    (call,) = await asyncio.to_thread(house.calls, 1, run="s-own")
    assert "budget" not in call["notes"]


def test_the_google_sdk_sees_max_tokens(house: RunningGateway) -> None:
    options = types.HttpOptions(base_url=f"{house.url}/run/s-gemini", timeout=20_000)
    with genai.Client(api_key="k", http_options=options) as sdk:
        chunks = list(sdk.models.generate_content_stream(model="stop-google", contents=LONG))
    last = chunks[-1]
    assert last.candidates is not None
    assert last.candidates[0].finish_reason is types.FinishReason.MAX_TOKENS
    call = stopped(house, "s-gemini")
    assert last.usage_metadata is not None
    assert last.usage_metadata.candidates_token_count == call["usage"]["output_tokens"]


def test_the_upstream_is_told_to_stop(house: RunningGateway, fake: FakeUpstream) -> None:
    answer = ask(house, "chat", "stop-raw", "[[tokens 4000]] told-to-stop", None, stream=True)
    assert answer.status == 200
    assert answer.raw.endswith(b"data: [DONE]\n\n")
    house.until(lambda: asked_of(fake, "told-to-stop")[0].ended, lambda ended: ended != "open")


def test_the_budget_is_charged_what_was_reserved_for_a_stream_that_reached_it(house: RunningGateway) -> None:
    """The upstream may have made a little more than came: in doubt, what was held is spent."""
    before = ask(house, "chat", "stop-books", "[[tokens 1]]", 5)
    ask(house, "chat", "stop-books", LONG, None, stream=True)
    after = ask(house, "chat", "stop-books", "[[tokens 1]]", 5)
    spent = before.remaining - after.remaining - float(before.headers["x-tollgate-cost-usd"])
    assert spent >= CEILING * 40e-6


def test_on_overrun_finish_lets_it_end_and_carries_the_debt(fake: FakeUpstream) -> None:
    """The answer is whole, all of it is booked, and the next call finds the budget overdrawn."""
    budgets = [{"scope": "model", "match": "stop-raw", "usd": 0.005, "per": "life"}]
    spending = {"output_ceiling": CEILING, "on_overrun": "finish", "clamp_floor": 10}
    with RunningGateway(upstreams(fake.url), **settings(budgets=budgets, spending=spending)) as gate:
        answer = ask(gate, "chat", "stop-raw", LONG, None, stream=True)
        assert b'"finish_reason":"stop"' in answer.raw
        refusal = ask(gate, "chat", "stop-raw", "[[tokens 1]]", 1)
        assert refusal.status == 402
        assert "is $0.005: $0.0120" in refusal.message


async def test_a_websocket_is_ended_when_its_answers_come_to_what_was_held(house: RunningGateway) -> None:
    """Held: one answer of the largest size. The session that makes many is told why it ends, at the end of one."""
    created = {"type": "conversation.item.create", "item": said("[[tokens 300]]")}
    heard: list[str] = []
    async with aiohttp.ClientSession() as session:
        url = f"{house.url}/run/s-socket/v1/realtime?model=stop-socket"
        async with session.ws_connect(url, max_msg_size=0) as socket:
            for _ in range(8):
                await socket.send_json(created)
                await socket.send_json({"type": "response.create"})
                while True:
                    message = await socket.receive(timeout=10)
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        break
                    event = json.loads(message.data)
                    heard.append(event["type"])
                    if event["type"] in {"response.done", "error"}:
                        break
                if socket.closed or heard[-1] == "error":
                    break
            last = event
            code = socket.close_code if socket.closed else (await socket.receive(timeout=10)).data
    assert (last["type"], last["status"]) == ("error", 402)
    assert last["error"]["tollgate_code"] == "budget_exceeded"
    assert code == 1008
    assert 1 <= heard.count("response.done") < 8
    (call,) = await asyncio.to_thread(house.calls, 1, run="s-socket")
    assert (call["notes"]["budget"], call["usage_source"]) == ("stopped", "provider")


def spent_by(house: RunningGateway, run: str) -> float:
    """What a run has spent, once nothing is held for it any more."""

    def account() -> dict[str, Any]:
        (found,) = house.get("/api/budgets", prefix=f"run:{run}|")["budgets"]
        return dict(found)

    return float(house.until(account, lambda one: one["reserved"] == 0)["spent"])


def said(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


@pytest.mark.parametrize("place", ["message", "response"])
async def test_a_websocket_asks_for_no_other_model_than_it_was_admitted_for(house: RunningGateway, place: str) -> None:
    run = f"s-stray-{place}"
    dear = {"model": "dear-socket", "input": f"[[tokens 3]] {run}"}
    asked = {"type": "response.create", **(dear if place == "message" else {"response": dear})}
    async with aiohttp.ClientSession() as session:
        url = f"{house.url}/run/{run}/v1/responses?model=stop-socket"
        async with session.ws_connect(url, max_msg_size=0) as socket:
            await socket.send_json({"type": "response.create", "model": "STOP-socket", "input": "[[tokens 3]]"})
            while (await socket.receive_json(timeout=10))["type"] != "response.completed":
                pass
            await socket.send_json(asked)
            event = await socket.receive_json(timeout=10)
            code = (await socket.receive(timeout=10)).data
    assert (event["type"], event["status"], code) == ("error", 402, 1008)
    assert "stop-socket" in event["error"]["message"]
    (call,) = await asyncio.to_thread(house.calls, 1, run=run)
    assert call["notes"]["budget"] == "stopped"


@pytest.mark.parametrize("kind", ["text", "bytes"])
async def test_a_large_message_of_a_websocket_is_read_for_its_model(house: RunningGateway, kind: str) -> None:
    """Screenshots make messages of megabytes. One that asks for the session's own model is answered."""
    picture = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 3_000_000}
    asked = [{"role": "user", "content": [{"type": "input_text", "text": "[[tokens 3]]"}, picture]}]
    async with aiohttp.ClientSession() as session:
        url = f"{house.url}/run/s-large-{kind}/budget/0.9/v1/responses?model=stop-talk"
        async with session.ws_connect(url, max_msg_size=0) as socket:
            await socket.send_json({"type": "response.create", "model": "stop-talk", "input": asked})
            while (await socket.receive_json(timeout=30))["type"] != "response.completed":
                pass
            dear = json.dumps({"type": "response.create", "model": "dear-socket", "input": asked})
            await (socket.send_str(dear) if kind == "text" else socket.send_bytes(dear.encode()))
            event = await socket.receive_json(timeout=30)
    assert (event["type"], event["error"]["tollgate_code"]) == ("error", "budget_exceeded")
    assert await asyncio.to_thread(spent_by, house, f"s-large-{kind}") < 0.02  # of an answer of three tokens


async def test_a_websocket_is_charged_in_doubt_only_for_what_was_asked(house: RunningGateway) -> None:
    """A session in which nobody asked costs nothing; one that is left amid its second answer what was held."""
    spent = []
    for run, answers in (("s-idle", 0), ("s-left", 1)):
        async with aiohttp.ClientSession() as session:
            url = f"{house.url}/run/{run}/budget/0.9/v1/realtime?model=stop-talk"
            async with session.ws_connect(url) as socket:
                await socket.send_json({"type": "conversation.item.create", "item": said("[[tokens 3]]")})
                for _ in range(answers):
                    await socket.send_json({"type": "response.create"})
                    while (await socket.receive_json(timeout=10))["type"] != "response.done":
                        pass
                    await socket.send_json({"type": "conversation.item.create", "item": said("[[tokens 30000]]")})
                    await socket.send_json({"type": "response.create"})
                    while (await socket.receive_json(timeout=10))["type"] != "response.created":
                        pass
                    socket.get_extra_info("socket").shutdown(SHUT_RDWR)  # without the farewell that ends an answer
        spent.append(await asyncio.to_thread(spent_by, house, run))
    assert spent[0] == 0
    assert spent[1] > 0.2


async def test_a_websocket_of_a_run_that_is_killed_is_told_so(house: RunningGateway) -> None:
    url = f"{house.url}/run/s-killed/v1/realtime?model=stop-socket"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        await socket.receive_json(timeout=10)
        await asyncio.to_thread(house.post, "/api/runs/s-killed/kill", {"reason": "it goes in circles"})
        event = await socket.receive_json(timeout=10)
        code = (await socket.receive(timeout=10)).data
    assert (event["type"], event["error"]["tollgate_code"], code) == ("error", "run_stopped", 1008)
    assert "it goes in circles" in event["error"]["message"]


async def test_a_websocket_that_names_no_model_is_not_let_by_the_budgets_of_models(house: RunningGateway) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
            await session.ws_connect(f"{house.url}/v1/responses")
    assert caught.value.status == 402


# -- taper -----------------------------------------------------------------------------------------------------------


def until_tapered(gate: RunningGateway, model: str, **more: Any) -> Any:
    for number in range(12):
        answer = ask(gate, "chat", model, f"[[tokens 60]] {model}-{number}", 60, **more)
        if "x-tollgate-taper" in answer.headers or answer.status != 200:
            return number, answer
    raise AssertionError("it never tapered")


def call_of(gate: RunningGateway, answer: Any) -> dict[str, Any]:
    id = answer.headers["x-tollgate-request-id"]
    (call,) = gate.until(lambda: [c for c in gate.get("/api/calls")["calls"] if c["id"] == id], bool)
    return dict(call)


@pytest.mark.parametrize(
    ("model", "more", "changed"),
    [
        ("t-effort", {"reasoning_effort": "high"}, {"reasoning_effort": "low"}),
        ("t-model", {}, {"model": "t-cheap"}),
        ("t-cap", {}, {"max_tokens": 30}),
    ],
)
def test_each_step_makes_the_call_cheaper_and_is_seen(
    house: RunningGateway, fake: FakeUpstream, model: str, more: dict[str, Any], changed: dict[str, Any]
) -> None:
    number, answer = until_tapered(house, model, **more)
    assert answer.status == 200, answer.raw
    assert answer.headers["x-tollgate-taper"] == "0.1"
    assert number >= 2  # $0.05: a tenth is spent after three calls of about $0.0024
    (sent,) = asked_of(fake, f"{model}-{number}")
    (before,) = asked_of(fake, f"{model}-{number - 1}")
    for name, value in json.loads(sent.body).items():
        if name in changed:
            assert value == changed[name]
        elif name != "messages":
            assert value == json.loads(before.body)[name]
    call = call_of(house, answer)
    assert call["notes"]["budget"] == "tapered"
    assert call["notes"]["taper"].startswith("0.1 of model:")
    if model == "t-model":
        assert (call["model_requested"], call["model_used"]) == ("t-model", "t-cheap")


def test_the_last_step_stops(house: RunningGateway, fake: FakeUpstream) -> None:
    number, answer = until_tapered(house, "t-stop")
    assert answer.status == 402
    assert answer.headers["x-should-retry"] == "false"
    assert "0.1 of model:t-stop" in answer.message
    assert not asked_of(fake, f"t-stop-{number}")


def test_steps_come_one_after_another(house: RunningGateway) -> None:
    steps: list[str] = []
    for _ in range(30):
        answer = ask(house, "chat", "t-all", "[[tokens 60]]", 60, reasoning_effort="high")
        if answer.status != 200:
            break
        steps.append(answer.headers.get("x-tollgate-taper", ""))
    assert answer.status == 402
    assert [step for at, step in enumerate(steps) if at == 0 or steps[at - 1] != step] == ["", "0.1", "0.2"]


def test_a_taper_leads_no_key_to_an_upstream_it_may_not_use(fake: FakeUpstream) -> None:
    second = {"second": {"dialect": "openai", "url": fake.url, "key": "sk-second"}}
    ours = {**upstreams(fake.url), **second}
    ours["openai"] = {**ours["openai"], "key": "sk-first"}
    aliases = {"cheap": {"model": "t-cheap", "upstream": "second"}}
    with RunningGateway(ours, **settings(aliases=aliases)) as gate:
        bound = gate.post("/api/keys", {"name": "bound", "upstreams": ["openai"]})["secret"]
        free = gate.post("/api/keys", {"name": "free"})["secret"]
        refusal = gate.until(lambda: ask(gate, "chat", "t-model", headers=bearer(bound)), lambda a: a.status == 200)
        assert refusal.status == 200
        for _ in range(4):
            ask(gate, "chat", "t-model", "[[tokens 60]]", 60, headers=bearer(bound))
        kept = ask(gate, "chat", "t-model", "[[tokens 5]] kept-here", 60, headers=bearer(bound))
        gone = gate.until(
            lambda: ask(gate, "chat", "t-model", "[[tokens 5]] gone-there", 60, headers=bearer(free)),
            lambda answer: answer.status != 401,  # each key is in force within a second
        )
        assert (kept.headers["x-tollgate-upstream"], gone.headers["x-tollgate-upstream"]) == ("openai", "second")
    (sent,) = asked_of(fake, "kept-here")
    assert json.loads(sent.body)["model"] == "t-model"
    assert sent.header("authorization") == "Bearer sk-first"


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


# -- prices that nobody knows ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["ceiling", "allow"])
def test_unknown_prices_as_configured(fake: FakeUpstream, how: str) -> None:
    """`ceiling`: each such call is held to cost so much, and does; `allow`: it goes free, as before."""
    budgets = [{"scope": "global", "usd": 1, "per": "day"}]
    spending = {"unknown_price": how, "ceiling_usd": 0.4}
    with RunningGateway(upstreams(fake.url), **settings(budgets=budgets, spending=spending)) as gate:
        statuses = [ask(gate, "chat", "nobody-knows").status for _ in range(3)]
        known = ask(gate, "chat", "t-cheap")
        assert known.status == 200
        assert known.remaining == pytest.approx(0.2 if how == "ceiling" else 1, abs=0.01)
        assert statuses == ([200, 200, 402] if how == "ceiling" else [200, 200, 200])
        if how == "ceiling":
            refusal = spend(gate, "nobody-knows")
            assert refusal.message.startswith("The budget of global, per day is $1.00: $0.80")
