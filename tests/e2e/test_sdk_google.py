"""The official google-genai SDK through the gateway."""

from __future__ import annotations

import asyncio
from typing import Any

import pydantic
import pytest
from google import genai
from google.genai import errors, types

from gateway.testing.twice import Twice

MODEL = "gemini-2.5-flash"
SAY = "Say something. [[say Grüße aus dem Tor, one two three, and a bit more so that there is more than one chunk]]"


def client(url: str) -> genai.Client:
    return genai.Client(api_key="e2e-key", http_options=types.HttpOptions(base_url=url, timeout=20_000))


def shown(answer: types.GenerateContentResponse) -> dict[str, Any]:
    """All but the headers of the hop."""
    return answer.model_dump(exclude={"sdk_http_response"}, exclude_none=True)


def assert_recorded(call: dict[str, Any], usage: Any) -> None:
    assert (call["model_requested"], call["model_used"], call["outcome"], call["status"]) == (MODEL, MODEL, "ok", 200)
    output = usage["candidates_token_count"] + usage.get("thoughts_token_count", 0)
    assert (call["usage"]["input_tokens"], call["usage"]["output_tokens"]) == (usage["prompt_token_count"], output)
    assert call["usage_source"] == "provider"
    assert call["cost_usd"] > 0


def test_an_answer_in_one_piece(twice: Twice) -> None:
    def scenario(url: str) -> Any:
        with client(url) as sdk:
            return shown(sdk.models.generate_content(model=MODEL, contents=SAY))

    played = twice.both(scenario)
    assert_recorded(played.call, played.result["usage_metadata"])
    assert played.requests[0].header("x-goog-api-key") == "e2e-key"


def test_a_stream_with_thoughts(twice: Twice) -> None:
    config = types.GenerateContentConfig(thinking_config=types.ThinkingConfig(include_thoughts=True))

    def scenario(url: str) -> Any:
        with client(url) as sdk:
            return [
                shown(chunk) for chunk in sdk.models.generate_content_stream(model=MODEL, contents=SAY, config=config)
            ]

    played = twice.both(scenario)
    assert len(played.result) > 2
    assert played.result[-1]["usage_metadata"]["thoughts_token_count"] > 0
    assert_recorded(played.call, played.result[-1]["usage_metadata"])
    assert played.call["stream"]


@pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")  # the SDK's own
def test_async_streams(twice: Twice) -> None:
    def scenario(url: str) -> Any:
        async def main() -> Any:
            async with client(url).aio as sdk:
                stream = await sdk.models.generate_content_stream(model=MODEL, contents=SAY)
                return [shown(chunk) async for chunk in stream]

        return asyncio.run(main())

    assert twice.both(scenario).call["outcome"] == "ok"


def weather(city: str) -> str:
    """Weather of a city.

    Args:
        city: its name
    """
    return f"21 degrees in {city}"


def test_functions_called_by_the_sdk_are_one_run(twice: Twice) -> None:
    prompt = 'Where is it warm? [[tool weather {"city": "Rome"}]] [[then]] [[say In Rome.]]'
    config = types.GenerateContentConfig(tools=[weather])

    def scenario(url: str) -> Any:
        with client(url) as sdk:
            return shown(sdk.models.generate_content(model=MODEL, contents=prompt, config=config))

    played = twice.both(scenario)
    assert played.result["candidates"][0]["content"]["parts"][0]["text"] == "In Rome."
    assert b"21 degrees in Rome" in played.requests[1].body
    assert played.run()
    assert [call["step"] for call in played.calls] == [1, 2]


def test_a_chat_is_one_run(twice: Twice) -> None:
    def scenario(url: str) -> Any:
        with client(url) as sdk:
            chat = sdk.chats.create(model=MODEL)
            return [chat.send_message(f"Turn {n}. [[say Answer {n}.]]").text for n in range(3)]

    played = twice.both(scenario)
    assert played.result == ["Answer 0.", "Answer 1.", "Answer 2."]
    assert played.run()
    assert [call["step"] for call in played.calls] == [1, 2, 3]


class City(pydantic.BaseModel):
    name: str
    inhabitants: int


def test_structured_output(twice: Twice) -> None:
    config = types.GenerateContentConfig(response_mime_type="application/json", response_schema=City)

    def scenario(url: str) -> Any:
        with client(url) as sdk:
            answer = sdk.models.generate_content(model=MODEL, contents="A city.", config=config)
            assert isinstance(answer.parsed, City)
            return answer.parsed.model_dump()

    assert twice.both(scenario).call["outcome"] == "ok"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "kind", "status"),
    [
        ("429", errors.ClientError, 429),
        ("503", errors.ServerError, 503),
        ("500", errors.ServerError, 500),
        ("auth", errors.ClientError, 400),
        ("model", errors.ClientError, 404),
        ("context", errors.ClientError, 400),
    ],
)
def test_errors_of_the_provider_arrive_unchanged(
    twice: Twice, fault: str, kind: type[errors.APIError], status: int, stream: bool
) -> None:
    def scenario(url: str) -> Any:
        with client(url) as sdk:
            ask = sdk.models.generate_content_stream if stream else sdk.models.generate_content
            with pytest.raises(kind) as caught:
                list(ask(model=MODEL, contents=f"[[fault {fault}]]"))
        return caught.value.code, caught.value.status, caught.value.message, caught.value.details

    played = twice.both(scenario)
    assert {(call["status"], call["outcome"]) for call in played.calls} == {(status, "upstream_error")}


def test_counting_tokens_embeddings_and_models(twice: Twice) -> None:
    config = types.EmbedContentConfig(output_dimensionality=64)

    def scenario(url: str) -> Any:
        with client(url) as sdk:
            counted = sdk.models.count_tokens(model=MODEL, contents=SAY).total_tokens
            embedded = sdk.models.embed_content(model="gemini-embedding-001", contents=["a", "b"], config=config)
            models = [model.name for model in sdk.models.list(config={"query_base": True})]
            return counted, [e.values for e in embedded.embeddings or ()], models

    played = twice.both(scenario)
    assert played.result[0] > 10
    assert len(played.result[1]) == 2
