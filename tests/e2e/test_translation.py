"""Clients of one API, upstreams of another, with the official SDKs: what they get, what it costs, what is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import types

from gateway.testing.fake_send import Recorded
from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.fake_world import Latency
from gateway.testing.gateway import RunningGateway
from tests.e2e.conftest import upstreams
from tests.e2e.money import prices

OWN = {"openai": "sk-house-openai-123", "anthropic": "sk-ant-house-12345", "gemini": "house-gemini-12345"}
ALIASES = {
    "claude": {"model": "claude-sonnet-5", "upstream": "anthropic"},
    "gpt": {"model": "gpt-4o-mini", "upstream": "openai"},
    "flash": {"model": "gemini-2.5-flash", "upstream": "gemini"},
    "lenient": {"model": "claude-sonnet-5", "upstream": "lenient"},
    "capped": {"model": "unheard-of", "upstream": "anthropic"},
}
SAY = "Say something. [[say Grüße aus dem Tor, one two three]]"
SAID = "Grüße aus dem Tor, one two three"
LOOP = '[[say Let me look.]][[tool weather {"city": "Oslo"}]][[tool weather {"city": "Rome"}]][[then]][[say Sunny.]]'
SCHEMA: Any = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CHAT_TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
CLAUDE_TOOL: Any = {"name": "weather", "input_schema": SCHEMA}


@pytest.fixture(scope="module")
def fake() -> Iterator[FakeUpstream]:
    """One that takes a moment for each token, so that a stream is under way when it is stopped."""
    with FakeUpstream(11, latency=Latency(tokens_per_second=3000)) as running:
        yield running


@pytest.fixture(scope="module")
def gate(fake: FakeUpstream) -> Iterator[RunningGateway]:
    known = {name: {**upstream, "key": OWN[name]} for name, upstream in upstreams(fake.url).items()}
    known["lenient"] = {**known["anthropic"], "droppable": ["seed", "messages[].name"]}
    budgets = [{"scope": "model", "match": "unheard-of", "usd": 1, "per": "life"}]
    more = {"spending": {"output_ceiling": 40, "clamp_floor": 10}, "prices": prices("unheard-of")}
    with RunningGateway(known, aliases=ALIASES, budgets=budgets, telemetry={"log": None}, **more) as running:
        yield running


@pytest.fixture(autouse=True)
def _afresh(fake: FakeUpstream, salts: Iterator[int]) -> None:
    fake.reset(next(salts))


def chat(gate: RunningGateway, run: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gate.url}/run/{run}/v1", api_key="sk-client-0123456789", max_retries=0, timeout=20)


def claude(gate: RunningGateway, run: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=f"{gate.url}/run/{run}", api_key="sk-ant-client-01234", max_retries=0, timeout=20
    )


def google(gate: RunningGateway, run: str) -> genai.Client:
    options = types.HttpOptions(base_url=f"{gate.url}/run/{run}", timeout=20_000)
    return genai.Client(api_key="client-0123456789", http_options=options)


def sent(fake: FakeUpstream) -> Recorded:
    return fake.requests[-1]


def recorded(gate: RunningGateway, run: str, calls: int = 1) -> dict[str, Any]:
    """The newest record of a run."""
    found = gate.calls(calls, run=run)
    assert len(found) == calls
    return found[-1]


def billed(gate: RunningGateway, run: str, model: str, upstream: str, calls: int = 1) -> dict[str, Any]:
    """What was written: priced by what the upstream itself stated."""
    call = recorded(gate, run, calls)
    assert (call["outcome"], call["status"], call["error"]) == ("ok", 200, None)
    assert (call["model_requested"], call["model_used"], call["upstream"]) == (
        model,
        ALIASES[model]["model"],
        upstream,
    )
    assert call["usage_source"] == "provider"
    assert call["cost_usd"] > 0
    return call


def test_the_openai_sdk_and_an_anthropic_upstream(gate: RunningGateway, fake: FakeUpstream) -> None:
    with chat(gate, "t-chat") as sdk:
        raw = sdk.chat.completions.with_raw_response.create(
            model="claude", messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": SAY}]
        )
        answer = raw.parse()
    assert answer.choices[0].message.content == SAID
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert raw.headers["content-type"] == "application/json"
    assert float(raw.headers["x-tollgate-cost-usd"]) > 0
    call = billed(gate, "t-chat", "claude", "anthropic")
    assert (call["dialect"], call["notes"]["translated"]) == ("openai_chat", "anthropic")
    assert call["usage"]["input_tokens"] == answer.usage.prompt_tokens
    assert call["usage"]["output_tokens"] == answer.usage.completion_tokens
    asked = sent(fake)
    assert asked.target == "/v1/messages"
    assert asked.header("x-api-key") == OWN["anthropic"]
    assert asked.header("anthropic-version")
    assert not any(b"sk-client" in value for _, value in asked.headers)
    body = json.loads(asked.body)
    assert body["system"] == [{"type": "text", "text": "Be brief."}]


def test_the_openai_sdk_streams_a_tool_loop(gate: RunningGateway, fake: FakeUpstream) -> None:
    messages: list[Any] = [{"role": "user", "content": LOOP}]
    with chat(gate, "t-loop") as sdk:
        with sdk.chat.completions.stream(
            model="claude", messages=messages, tools=[CHAT_TOOL], stream_options={"include_usage": True}
        ) as stream:
            first = stream.get_final_completion()
        message = first.choices[0].message
        assert first.choices[0].finish_reason == "tool_calls"
        assert message.content == "Let me look."
        assert message.tool_calls is not None
        assert [json.loads(call.function.arguments) for call in message.tool_calls] == [
            {"city": "Oslo"},
            {"city": "Rome"},
        ]
        assert first.usage is not None
        messages.append(message.model_dump(exclude_none=True, exclude={"parsed", "tool_calls"}))
        messages[-1]["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": "weather", "arguments": call.function.arguments}}
            for call in message.tool_calls
        ]
        messages += [{"role": "tool", "tool_call_id": call.id, "content": "20"} for call in message.tool_calls]
        with sdk.chat.completions.stream(model="claude", messages=messages, tools=[CHAT_TOOL]) as stream:
            last = stream.get_final_completion()
    assert last.choices[0].message.content == "Sunny."
    assert last.usage is None  # nobody asked for it
    call = billed(gate, "t-loop", "claude", "anthropic", calls=2)
    assert call["stream"]
    assert call["usage"]["output_tokens"] > 0
    results = json.loads(sent(fake).body)["messages"][-1]["content"]
    assert [block["type"] for block in results] == ["tool_result", "tool_result"]


def test_the_anthropic_sdk_streams_a_tool_loop(gate: RunningGateway, fake: FakeUpstream) -> None:
    messages: list[Any] = [{"role": "user", "content": LOOP}]
    with claude(gate, "t-claude") as sdk:
        with sdk.messages.stream(model="gpt", max_tokens=200, messages=messages, tools=[CLAUDE_TOOL]) as stream:
            kinds = [event.type for event in stream]
            first = stream.get_final_message()
        assert first.stop_reason == "tool_use"
        uses = [block for block in first.content if block.type == "tool_use"]
        assert [use.input for use in uses] == [{"city": "Oslo"}, {"city": "Rome"}]
        assert kinds[0] == "message_start"
        assert kinds[-1] == "message_stop"
        results = [{"type": "tool_result", "tool_use_id": use.id, "content": "20"} for use in uses]
        messages += [{"role": "assistant", "content": first.content}, {"role": "user", "content": results}]
        last = sdk.messages.create(model="gpt", max_tokens=200, messages=messages, tools=[CLAUDE_TOOL])
    assert [block.text for block in last.content if block.type == "text"] == ["Sunny."]
    assert last.stop_reason == "end_turn"
    call = billed(gate, "t-claude", "gpt", "openai", calls=2)
    assert (call["dialect"], call["notes"]["translated"]) == ("anthropic", "openai_chat")
    usage = last.usage
    inputs = usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    assert (call["usage"]["input_tokens"], call["usage"]["output_tokens"]) == (inputs, usage.output_tokens)
    asked = sent(fake)
    assert (asked.target, asked.header("authorization")) == ("/v1/chat/completions", f"Bearer {OWN['openai']}")
    assert not any(name.lower().startswith((b"anthropic-", b"x-stainless")) for name, _ in asked.headers)


def test_the_google_sdk_and_an_anthropic_upstream(gate: RunningGateway) -> None:
    with google(gate, "t-google") as sdk:
        whole = sdk.models.generate_content(model="claude", contents=SAY)
        chunks = list(sdk.models.generate_content_stream(model="claude", contents=SAY))
    assert whole.text == SAID
    assert "".join(chunk.text or "" for chunk in chunks) == SAID
    last = chunks[-1]
    assert last.candidates is not None
    assert last.candidates[0].finish_reason is types.FinishReason.STOP
    call = billed(gate, "t-google", "claude", "anthropic", calls=2)
    assert last.usage_metadata is not None
    assert last.usage_metadata.prompt_token_count == call["usage"]["input_tokens"]


def test_the_openai_sdk_and_a_gemini_upstream(gate: RunningGateway, fake: FakeUpstream) -> None:
    with chat(gate, "t-flash") as sdk:
        whole = sdk.chat.completions.create(model="flash", messages=[{"role": "user", "content": SAY}])
        stream = sdk.chat.completions.create(
            model="flash", messages=[{"role": "user", "content": LOOP}], tools=[CHAT_TOOL], stream=True
        )
        chunks = list(stream)
    assert whole.choices[0].message.content == SAID
    calls = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or () if call.id]
    assert len({call.id for call in calls}) == 2
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    billed(gate, "t-flash", "flash", "gemini", calls=2)
    assert sent(fake).target.endswith("gemini-2.5-flash:streamGenerateContent?alt=sse")


@pytest.mark.parametrize("model", ["claude", "flash"])
def test_the_responses_api_and_upstreams_without_it(gate: RunningGateway, model: str) -> None:
    run = f"t-responses-{model}"
    with chat(gate, run) as sdk:
        whole = sdk.responses.create(model=model, input=SAY, instructions="Be brief.", store=False)
        stream = sdk.responses.create(model=model, input=SAY, store=False, stream=True)
        events: list[Any] = list(stream)
    assert whole.output_text == SAID
    assert (whole.status, whole.instructions) == ("completed", "Be brief.")
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == SAID
    call = billed(gate, run, model, ALIASES[model]["upstream"], calls=2)
    assert events[-1].response.usage.output_tokens == call["usage"]["output_tokens"]


def test_what_cannot_be_said_is_refused_and_nothing_is_sent(gate: RunningGateway, fake: FakeUpstream) -> None:
    named: Any = {"role": "user", "content": SAY, "name": "bob"}
    with chat(gate, "t-refused") as sdk:
        with pytest.raises(openai.BadRequestError) as caught:
            sdk.chat.completions.create(model="claude", messages=[named], seed=3)
        assert not fake.requests
        answer = sdk.chat.completions.create(model="lenient", messages=[named], seed=3)
    assert caught.value.code == "untranslatable"
    assert caught.value.param == "messages[0].name"
    assert "'seed'" in caught.value.message
    assert answer.choices[0].message.content == SAID
    found = gate.calls(2, run="t-refused")
    assert found[1]["notes"]["dropped"] == "messages[].name,seed"
    assert (found[0]["outcome"], found[0]["cost_usd"]) == ("refused", 0)


def test_paths_that_have_no_translation(gate: RunningGateway, fake: FakeUpstream) -> None:
    with chat(gate, "t-none") as sdk, pytest.raises(openai.BadRequestError) as caught:
        sdk.embeddings.create(model="claude", input="x")
    assert caught.value.code == "alias_speaks_another_api"
    assert not fake.requests


def test_errors_of_the_upstream_in_the_words_of_the_client(gate: RunningGateway) -> None:
    with chat(gate, "t-error") as sdk, pytest.raises(openai.RateLimitError) as caught:
        sdk.chat.completions.create(model="claude", messages=[{"role": "user", "content": "[[fault 429]]"}])
    assert caught.value.status_code == 429
    assert caught.value.type == "rate_limit_error"
    with claude(gate, "t-error") as sdk2, pytest.raises(anthropic.RateLimitError) as caught2:
        sdk2.messages.create(model="gpt", max_tokens=9, messages=[{"role": "user", "content": "[[fault 429]]"}])
    assert caught2.value.body["error"]["type"] == "rate_limit_error"  # type: ignore[index,call-overload]
    assert recorded(gate, "t-error", 2)["outcome"] == "upstream_error"


@pytest.mark.parametrize("kind", ["mid_frame after=4", "cut after=4", "reset after=4"])
def test_streams_that_break_never_end_well(gate: RunningGateway, kind: str) -> None:
    run = f"t-broken-{kind.split(maxsplit=1)[0]}"
    text = f"[[fault {kind}]][[tokens 60]]"
    with chat(gate, run) as sdk, pytest.raises(openai.APIError):
        for _ in sdk.chat.completions.create(model="claude", messages=[{"role": "user", "content": text}], stream=True):
            pass
    with (
        claude(gate, run) as sdk2,
        pytest.raises((anthropic.APIError, anthropic.APIStatusError)),
        sdk2.messages.stream(model="gpt", max_tokens=200, messages=[{"role": "user", "content": text}]) as stream,
    ):
        stream.get_final_message()
    for call in gate.calls(2, run=run):
        assert call["outcome"] in ("truncated", "failed", "upstream_error")
        assert call["error"] is not None


def test_an_error_in_the_first_event_gets_its_status(gate: RunningGateway) -> None:
    with chat(gate, "t-first") as sdk, pytest.raises(openai.APIStatusError) as caught:
        sdk.chat.completions.create(
            model="claude", messages=[{"role": "user", "content": "[[fault first_frame]]"}], stream=True
        )
    assert caught.value.status_code >= 400


def test_a_stream_that_used_up_its_allowance_ends_at_its_length(gate: RunningGateway) -> None:
    with chat(gate, "t-capped") as sdk:
        stream = sdk.chat.completions.create(
            model="capped", messages=[{"role": "user", "content": "[[tokens 300]]"}], stream=True,
            stream_options={"include_usage": True},
        )  # fmt: skip
        chunks = list(stream)
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert reasons == ["length"]
    (usage,) = [chunk.usage for chunk in chunks if chunk.usage]
    call = recorded(gate, "t-capped")
    assert call["notes"]["budget"] == "stopped"
    assert usage.completion_tokens == call["usage"]["output_tokens"]


def test_bytes_of_the_same_api_stay_as_they_are(gate: RunningGateway, fake: FakeUpstream) -> None:
    with chat(gate, "t-same") as sdk:
        sdk.chat.completions.create(model="gpt", messages=[{"role": "user", "content": SAY}], seed=3)
    assert json.loads(sent(fake).body)["seed"] == 3
    assert "translated" not in recorded(gate, "t-same")["notes"]
