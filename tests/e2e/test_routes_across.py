"""Rules whose targets speak other APIs than the client, with the official SDKs; and targets that are left alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import types

from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway, dead_port
from tests.e2e.conftest import upstreams

SAY = "Say something. [[say one two three]]"
SAID = "one two three"
TOOLS = '[[tool weather {"city": "Oslo"}]][[tool weather {"city": "Rome"}]]'
CITIES = [{"city": "Oslo"}, {"city": "Rome"}]
SCHEMA: Any = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-sonnet-5", "gemini": "gemini-2.5-flash"}
AT: dict[str, dict[str, str]] = {name: {"model": model, "upstream": name} for name, model in MODELS.items()}
ROUTES = [
    *[{"model": f"to-{name}", "to": [AT[name]]} for name in MODELS],
    {"model": "wide", "to": [AT["anthropic"], AT["openai"]]},
    {"model": "sturdy", "to": [{"model": "gpt-4o", "upstream": "dead"}, AT["anthropic"]], "sticky": False},
]


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeUpstream]:
    with FakeUpstream(11) as running:
        yield running


@pytest.fixture(scope="module")
def gate(fake: FakeUpstream) -> Iterator[RunningGateway]:
    known = {name: {**upstream, "key": f"sk-house-{name}-123"} for name, upstream in upstreams(fake.url).items()}
    known["dead"] = {**known["openai"], "url": f"http://127.0.0.1:{dead_port()}"}
    more: dict[str, Any] = {"breakers": {"consecutive": 3, "pause": 60}, "telemetry": {"log": None}}
    with RunningGateway(known, routes=ROUTES, **more) as running:
        yield running


@pytest.fixture(autouse=True)
def _afresh(fake: FakeUpstream, salts: Iterator[int]) -> None:
    fake.reset(next(salts))


def base(gate: RunningGateway, run: str) -> str:
    return f"{gate.url}/run/{run}"


def by_openai(gate: RunningGateway, run: str, model: str) -> tuple[str, list[Any]]:
    """What was said, and what a streamed call of tools held."""
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
    with openai.OpenAI(base_url=f"{base(gate, run)}/v1", api_key="sk-client-0123", max_retries=0, timeout=20) as sdk:
        whole = sdk.chat.completions.create(model=model, messages=[{"role": "user", "content": SAY}])
        with sdk.chat.completions.stream(
            model=model, messages=[{"role": "user", "content": TOOLS}], tools=[tool]
        ) as stream:
            calls = stream.get_final_completion().choices[0].message.tool_calls
    return whole.choices[0].message.content or "", [json.loads(call.function.arguments) for call in calls or ()]


def by_anthropic(gate: RunningGateway, run: str, model: str) -> tuple[str, list[Any]]:
    tool: Any = {"name": "weather", "input_schema": SCHEMA}
    with anthropic.Anthropic(base_url=base(gate, run), api_key="sk-ant-client", max_retries=0, timeout=20) as sdk:
        whole = sdk.messages.create(model=model, max_tokens=90, messages=[{"role": "user", "content": SAY}])
        with sdk.messages.stream(
            model=model, max_tokens=90, messages=[{"role": "user", "content": TOOLS}], tools=[tool]
        ) as stream:
            last = stream.get_final_message()
    text = "".join(block.text for block in whole.content if block.type == "text")
    return text, [block.input for block in last.content if block.type == "tool_use"]


def by_google(gate: RunningGateway, run: str, model: str) -> tuple[str, list[Any]]:
    declared = types.FunctionDeclaration(name="weather", parameters_json_schema=SCHEMA)
    config = types.GenerateContentConfig(
        tools=[types.Tool(function_declarations=[declared])],
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    options = types.HttpOptions(base_url=base(gate, run), timeout=20_000)
    with genai.Client(api_key="client-0123456789", http_options=options) as sdk:
        whole = sdk.models.generate_content(model=model, contents=SAY)
        chunks = list(sdk.models.generate_content_stream(model=model, contents=TOOLS, config=config))
    return whole.text or "", [call.args for chunk in chunks for call in chunk.function_calls or ()]


CLIENTS: dict[str, Callable[[RunningGateway, str, str], tuple[str, list[Any]]]] = {
    "openai": by_openai,
    "anthropic": by_anthropic,
    "gemini": by_google,
}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("upstream", MODELS)
def test_a_client_of_any_api_is_routed_to_an_upstream_of_any(
    gate: RunningGateway, fake: FakeUpstream, client: str, upstream: str
) -> None:
    run = f"across-{client}-{upstream}"
    assert CLIENTS[client](gate, run, f"to-{upstream}") == (SAID, CITIES)
    for call in gate.calls(2, run=run):
        assert (call["outcome"], call["upstream"], call["model_used"]) == ("ok", upstream, MODELS[upstream])
        assert ("translated" in call["notes"]) == (client != upstream)
        assert call["cost_usd"] > 0
        assert call["usage_source"] in ("provider", "injected")
    assert len(fake.requests) == 2
    for request in fake.requests:
        assert not any(b"client" in value for name, value in request.headers if name.lower() != b"user-agent")


def test_what_one_api_cannot_say_goes_to_another_and_where_none_can_the_field_is_named(
    gate: RunningGateway, fake: FakeUpstream
) -> None:
    ask: list[Any] = [{"role": "user", "content": SAY}]
    with openai.OpenAI(base_url=f"{base(gate, 'said')}/v1", api_key="sk-client-0123", max_retries=0) as sdk:
        sdk.chat.completions.create(model="wide", messages=ask)
        sdk.chat.completions.create(model="wide", messages=ask, seed=7)
        assert [request.target for request in fake.requests] == ["/v1/messages", "/v1/chat/completions"]
        with pytest.raises(openai.BadRequestError) as caught:
            sdk.chat.completions.create(model="to-anthropic", messages=ask, seed=7)
    assert (caught.value.code, caught.value.param) == ("untranslatable", "seed")
    assert len(fake.requests) == 2


def test_the_next_target_answers_for_one_that_is_gone_and_soon_it_is_passed_over(gate: RunningGateway) -> None:
    """The SDK says that it retries by itself: going on to the next target does not wait for that."""
    with openai.OpenAI(base_url=f"{base(gate, 'sturdy')}/v1", api_key="sk-client-0123", max_retries=0) as sdk:
        for _ in range(6):
            answer = sdk.chat.completions.create(model="sturdy", messages=[{"role": "user", "content": SAY}])
            assert answer.choices[0].message.content == SAID
    calls = sorted(gate.calls(6, run="sturdy"), key=lambda call: str(call["id"]))
    assert [call["outcome"] for call in calls] == ["ok"] * 6
    assert [len(call["attempts"]) for call in calls] == [2, 2, 2, 1, 1, 1]
    assert [call["notes"]["route_why"] for call in calls] == ["priority"] * 3 + ["breaker"] * 3
    assert {call["attempts"][-1]["upstream"] for call in calls} == {"anthropic"}
