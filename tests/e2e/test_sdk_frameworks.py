"""Agent frameworks through the gateway: langchain-openai, openai-agents, pydantic-ai."""

from __future__ import annotations

import asyncio
from typing import Any

import agents
import anthropic
import openai
import pytest
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from gateway.testing.twice import Played, Twice

KEY = "sk-e2e-0123456789"
MODEL = "gpt-4o-mini"
ROME, OSLO = '[[tool weather {"city": "Rome"}]]', '[[tool weather {"city": "Oslo"}]]'
LOOP = f"Where is it warm? {ROME} [[then]] {OSLO} [[then]] [[say In Rome.]]"


def weather(city: str) -> str:
    """Weather of a city."""
    return f"21 degrees in {city}"


def assert_loop(played: Played) -> None:
    """Three calls of one run, with the tools of one paired in the next."""
    assert played.result[-1] == "In Rome."
    assert played.run()
    assert [call["step"] for call in played.calls] == [1, 2, 3]
    assert [[tool["name"] for tool in call["tools"]] for call in played.calls] == [[], ["weather"], ["weather"]]
    assert all(call["cost_usd"] > 0 and call["outcome"] == "ok" for call in played.calls)
    assert b"21 degrees in Rome" in played.requests[1].body


def chat_model(url: str, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(model=MODEL, base_url=url + "/v1", api_key=SecretStr(KEY), max_retries=0, **more)


@pytest.mark.parametrize("streaming", [False, True])
def test_langchain_tool_loop(twice: Twice, streaming: bool) -> None:
    def scenario(url: str) -> list[str]:
        model = chat_model(url, streaming=streaming).bind_tools([tool(weather)])
        messages: list[Any] = [HumanMessage(LOOP)]
        texts = []
        while True:
            answer = model.invoke(messages)
            texts.append(str(answer.content))
            messages.append(answer)
            if not answer.tool_calls:
                return texts
            messages += [tool(weather).invoke(call) for call in answer.tool_calls]

    played = twice.both(scenario)
    assert_loop(played)
    # LangChain stops asking for usage as soon as a base URL is set; the gateway asks in its place.
    assert {call["usage_source"] for call in played.calls} == {"injected" if streaming else "provider"}


class City(BaseModel):
    name: str
    inhabitants: int


def test_langchain_structured_output_streams_and_embeddings(twice: Twice) -> None:
    def scenario(url: str) -> Any:
        model = chat_model(url)
        city = model.with_structured_output(City).invoke("A city, please.")
        assert isinstance(city, City)
        pieces = [str(chunk.content) for chunk in model.stream("[[say one two three]]")]
        vectors = OpenAIEmbeddings(
            model="text-embedding-3-small",
            base_url=url + "/v1",
            api_key=SecretStr(KEY),
            dimensions=16,
            check_embedding_ctx_length=False,  # else it fetches a tokeniser
        ).embed_documents(["a", "b"])
        return city.model_dump(), "".join(pieces), vectors

    played = twice.both(scenario)
    assert played.result[1] == "one two three"
    assert len(played.calls) == 3


@pytest.mark.parametrize("api", ["responses", "chat"])
@pytest.mark.parametrize("streaming", [False, True])
def test_openai_agents_tool_loop(twice: Twice, api: str, streaming: bool) -> None:
    agents.set_tracing_disabled(True)

    async def play(url: str) -> list[str]:
        async with openai.AsyncOpenAI(base_url=url + "/v1", api_key=KEY, max_retries=0) as sdk:
            if api == "chat":
                model: Any = agents.OpenAIChatCompletionsModel(MODEL, openai_client=sdk)
            else:
                model = agents.OpenAIResponsesModel(MODEL, openai_client=sdk)
            agent = agents.Agent(name="Guide", instructions="Help.", model=model, tools=[agents.function_tool(weather)])
            if not streaming:
                return [str((await agents.Runner.run(agent, LOOP)).final_output)]
            running = agents.Runner.run_streamed(agent, LOOP)
            async for _ in running.stream_events():
                pass
            return [str(running.final_output)]

    played = twice.both(lambda url: asyncio.run(play(url)))
    assert_loop(played)
    assert str(played.requests[0].header("user-agent")).startswith("Agents/Python")


def test_openai_agents_hand_off_is_one_run(twice: Twice) -> None:
    agents.set_tracing_disabled(True)
    prompt = "My invoice is wrong. [[tool transfer_to_billing {}]] [[then]] [[say Corrected.]]"

    async def play(url: str) -> Any:
        async with openai.AsyncOpenAI(base_url=url + "/v1", api_key=KEY, max_retries=0) as sdk:
            model = agents.OpenAIResponsesModel(MODEL, openai_client=sdk)
            billing = agents.Agent(name="billing", instructions="You correct invoices.", model=model)
            desk = agents.Agent(name="desk", instructions="You pass people on.", model=model, handoffs=[billing])
            result = await agents.Runner.run(desk, prompt)
            return result.final_output, result.last_agent.name

    played = twice.both(lambda url: asyncio.run(play(url)))
    assert played.result == ("Corrected.", "billing")
    assert played.run()
    assert [call["step"] for call in played.calls] == [1, 2]


def openai_provider(url: str) -> OpenAIProvider:
    return OpenAIProvider(openai_client=openai.AsyncOpenAI(base_url=url + "/v1", api_key=KEY, max_retries=0))


def anthropic_provider(url: str) -> AnthropicProvider:
    sdk = anthropic.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=0)
    return AnthropicProvider(anthropic_client=sdk)


MODELS = {
    "chat": lambda url: OpenAIChatModel(MODEL, provider=openai_provider(url)),
    "responses": lambda url: OpenAIResponsesModel(MODEL, provider=openai_provider(url)),
    "anthropic": lambda url: AnthropicModel("claude-sonnet-5", provider=anthropic_provider(url)),
}


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_pydantic_ai_tool_loop(twice: Twice, name: str, streaming: bool) -> None:
    async def play(url: str) -> list[str]:
        model = MODELS[name](url)
        agent = Agent(model, instructions="Help.", tools=[weather])
        try:
            if not streaming:
                return [(await agent.run(LOOP)).output]
            async with agent.run_stream(LOOP) as running:
                return [await running.get_output()]
        finally:
            await model.client.close()

    assert_loop(twice.both(lambda url: asyncio.run(play(url))))


def test_pydantic_ai_output_by_tool(twice: Twice) -> None:
    async def play(url: str) -> Any:
        model = MODELS["chat"](url)
        try:
            result = await Agent(model, output_type=City).run("A city, please.")
            return result.output.model_dump(), result.usage.input_tokens, result.usage.output_tokens
        finally:
            await model.client.close()

    played = twice.both(lambda url: asyncio.run(play(url)))
    used = played.call["usage"]
    assert (used["input_tokens"], used["output_tokens"]) == played.result[1:]
