"""The official openai SDK through the gateway: the Responses API over HTTP and WebSocket, and Realtime."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pydantic
import pytest

from gateway.testing.twice import Twice

KEY = "sk-e2e-0123456789"
MODEL = "gpt-5"
TOOL = {
    "type": "function",
    "name": "search",
    "description": "Search.",
    "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
    "strict": False,
}


def client(url: str, **more: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=url + "/v1", api_key=KEY, **{"max_retries": 0, "timeout": 20, **more})


def assert_usage(call: dict[str, Any], usage: dict[str, Any]) -> None:
    assert (call["model_requested"], call["model_used"], call["outcome"]) == (MODEL, MODEL, "ok")
    assert call["usage"]["input_tokens"] == usage["input_tokens"]
    assert call["usage"]["output_tokens"] == usage["output_tokens"]
    assert call["usage"]["reasoning_tokens"] == usage["output_tokens_details"]["reasoning_tokens"]
    assert call["usage_source"] == "provider"
    assert call["cost_usd"] > 0


def test_an_answer_in_one_piece(twice: Twice) -> None:
    def scenario(url: str) -> Any:
        with client(url) as sdk:
            return sdk.responses.create(model=MODEL, input="Why?", reasoning={"effort": "low"}).model_dump(
                warnings=False
            )

    played = twice.both(scenario)
    assert_usage(played.call, played.result["usage"])
    assert played.call["usage"]["reasoning_tokens"] > 0


def test_a_stream(twice: Twice) -> None:
    def scenario(url: str) -> Any:
        with client(url) as sdk, sdk.responses.create(model=MODEL, input="[[say hello you]]", stream=True) as stream:
            return [event.model_dump(warnings=False) for event in stream]

    played = twice.both(scenario)
    assert played.result[-1]["type"] == "response.completed"
    assert_usage(played.call, played.result[-1]["response"]["usage"])


def test_a_tool_loop_by_previous_response_is_one_run(twice: Twice) -> None:
    script = '[[tool search {"query": "x"}]] [[then]] [[tool search {"query": "y"}]] [[then]] [[say Found.]]'

    def scenario(url: str) -> list[dict[str, Any]]:
        answers = []
        with client(url) as sdk:
            answer = sdk.responses.create(model=MODEL, input=f"Find it. {script}", tools=[TOOL])  # type: ignore[list-item]
            while True:
                answers.append(answer.model_dump(warnings=False))
                calls = [item for item in answer.output if item.type == "function_call"]
                if not calls:
                    return answers
                outputs: Any = [
                    {"type": "function_call_output", "call_id": call.call_id, "output": "a page"} for call in calls
                ]
                answer = sdk.responses.create(
                    model=MODEL,
                    input=outputs,
                    previous_response_id=answer.id,
                    tools=[TOOL],  # type: ignore[list-item]
                )

    played = twice.both(scenario)
    assert len(played.result) == 3
    assert played.run()
    assert [call["step"] for call in played.calls] == [1, 2, 3]
    assert [[tool["name"] for tool in call["tools"]] for call in played.calls] == [[], ["search"], ["search"]]


def test_a_stream_that_is_retried_and_the_helper(twice: Twice) -> None:
    prompt = "[[say one two]] [[fault 503 times=1 retry_after=0.01]]"

    def scenario(url: str) -> Any:
        with client(url, max_retries=1) as sdk, sdk.responses.stream(model=MODEL, input=prompt) as stream:
            kinds = [event.type for event in stream]
            return kinds, stream.get_final_response().model_dump(warnings=False)

    played = twice.both(scenario)
    assert [call["status"] for call in played.calls] == [503, 200]


class Plan(pydantic.BaseModel):
    title: str
    steps: list[str]


def test_structured_output(twice: Twice) -> None:
    def scenario(url: str) -> Any:
        with client(url) as sdk:
            answer = sdk.responses.parse(model=MODEL, input="A plan.", text_format=Plan)
            assert isinstance(answer.output_parsed, Plan)
            return answer.output_parsed.model_dump(warnings=False), answer.usage and answer.usage.model_dump(
                warnings=False
            )

    played = twice.both(scenario)
    assert_usage(played.call, played.result[1])


def test_background_is_billed_when_the_answer_is_fetched(twice: Twice) -> None:
    twice.fake.world.background_seconds = 0

    def scenario(url: str) -> Any:
        with client(url) as sdk:
            begun = sdk.responses.create(model=MODEL, input="[[say done at last]]", background=True)
            done = sdk.responses.retrieve(begun.id)
            again = sdk.responses.retrieve(begun.id)
            return begun.status, done.model_dump(warnings=False), again.model_dump(warnings=False)

    played = twice.both(scenario)
    assert (played.result[0], played.result[1]["status"]) == ("queued", "completed")
    begun, done, again = played.calls
    assert begun["usage_source"] == "none"
    assert_usage({**done, "model_requested": MODEL}, played.result[1]["usage"])
    total = twice.gate.get(f"/api/runs/{begun['run_id']}")["cost_usd"]
    assert total == pytest.approx(done["cost_usd"])
    assert (again["cost_usd"] or 0) == 0


def test_stored_responses(twice: Twice) -> None:
    twice.fake.world.background_seconds = 100

    def scenario(url: str) -> Any:
        with client(url) as sdk:
            made = sdk.responses.create(model=MODEL, input="[[say kept]]")
            items = [item.model_dump(warnings=False) for item in sdk.responses.input_items.list(made.id)]
            counted = sdk.responses.input_tokens.count(model=MODEL, input="how many?").input_tokens
            slow = sdk.responses.create(model=MODEL, input="[[say slow]]", background=True)
            cancelled = sdk.responses.cancel(slow.id).status
            compacted = sdk.responses.compact(model=MODEL, input="keep this").model_dump(warnings=False)
            with pytest.raises(openai.NotFoundError) as caught:
                sdk.responses.retrieve("resp_none")
            sdk.responses.delete(made.id)
            return items, counted, cancelled, compacted, caught.value.body

    played = twice.both(scenario)
    assert played.result[2] == "cancelled"
    compact = next(call for call in played.calls if call["usage"]["output_tokens"] > 20)
    assert compact["usage"]["input_tokens"] == played.result[3]["usage"]["input_tokens"]


@pytest.mark.parametrize("fault", ["mid_frame", "eof", "cut"])
def test_a_stream_without_its_end_never_looks_complete(twice: Twice, fault: str) -> None:
    def scenario(url: str) -> list[str]:
        kinds: list[str] = []
        with client(url) as sdk:
            stream = sdk.responses.create(model=MODEL, input=f"[[say a b c]] [[fault {fault} after=6]]", stream=True)
            try:
                kinds.extend(event.type for event in stream)
            except openai.APIError:
                kinds.append("raised")
        return kinds

    played = twice.through(scenario)
    assert "response.completed" not in played.result
    assert {"raised", "response.failed", "error"} & set(played.result)
    assert played.call["outcome"] == "truncated"


def test_websocket(twice: Twice) -> None:
    def scenario(url: str) -> Any:
        with client(url) as sdk, sdk.responses.connect() as connection:
            finals = []
            for text in ("[[say over a socket]]", "[[say once more]]"):
                connection.response.create(model=MODEL, input=text)
                for event in connection:
                    if event.type == "response.completed":
                        finals.append(event.response.model_dump(warnings=False))
                        break
            return finals

    played = twice.both(scenario)
    total = sum(final["usage"]["output_tokens"] for final in played.result)
    assert sum(call["usage"]["output_tokens"] for call in played.calls) == total
    assert played.calls[0]["status"] == 101


def test_realtime(twice: Twice) -> None:
    def scenario(url: str) -> Any:
        async def main() -> Any:
            sdk = openai.AsyncOpenAI(base_url=url + "/v1", api_key=KEY)
            async with sdk, sdk.realtime.connect(model="gpt-realtime") as connection:
                part: Any = {"type": "input_text", "text": "[[say hello there]]"}
                item: Any = {"type": "message", "role": "user", "content": [part]}
                await connection.conversation.item.create(item=item)
                await connection.response.create()
                async for event in connection:
                    if event.type == "response.done":
                        return event.response.model_dump(warnings=False)["usage"]
                raise AssertionError("the socket ended without an answer")

        return asyncio.run(main())

    played = twice.both(scenario)
    assert played.call["usage"]["output_tokens"] == played.result["output_tokens"] == 2
