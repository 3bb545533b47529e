"""The official openai SDK through the gateway: chat completions, embeddings, models."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from typing import Any

import openai
import pydantic
import pytest
from openai.types.chat import ChatCompletion

from gateway.testing.twice import Twice

KEY = "sk-e2e-0123456789"
MODEL = "gpt-4o-mini"
USER = {"role": "user", "content": "Say something. [[say Grüße aus dem Tor, one two three]]"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def client(url: str, **more: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=url + "/v1", api_key=KEY, **{"max_retries": 0, "timeout": 20, **more})


def take(stream: Iterable[Any], into: list[Any]) -> None:
    """Read a stream to its end, keeping what came if it breaks."""
    into.extend(chunk.model_dump(exclude_unset=True, warnings=False) for chunk in stream)


def text_of(chunks: list[Any]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def usage_of(call: dict[str, Any]) -> tuple[int, int]:
    return call["usage"]["input_tokens"], call["usage"]["output_tokens"]


def assert_priced(call: dict[str, Any], model: str = MODEL) -> None:
    assert (call["model_requested"], call["outcome"], call["status"]) == (model, "ok", 200)
    assert call["cost_usd"] > 0
    assert call["price_version"]


def test_an_answer_in_one_piece(twice: Twice) -> None:
    def scenario(url: str) -> dict[str, Any]:
        with client(url) as sdk:
            raw = sdk.chat.completions.with_raw_response.create(model=MODEL, messages=[USER])  # type: ignore[list-item]
            return {**raw.parse().model_dump(warnings=False), "request_id": raw.headers["x-request-id"]}

    played = twice.both(scenario)
    used = played.result["usage"]
    assert_priced(played.call)
    assert usage_of(played.call) == (used["prompt_tokens"], used["completion_tokens"])
    assert (played.call["usage_source"], played.call["stream"]) == ("provider", False)
    assert played.requests[0].header("authorization") == f"Bearer {KEY}"


@pytest.mark.parametrize("asked", [True, False])
def test_a_stream_shows_the_client_what_it_asked_for(twice: Twice, asked: bool) -> None:
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if asked else {}

    def scenario(url: str) -> list[dict[str, Any]]:
        with (
            client(url) as sdk,
            sdk.chat.completions.create(
                model=MODEL,
                messages=[USER],
                stream=True,
                **options,  # type: ignore[list-item]
            ) as stream,
        ):
            return [chunk.model_dump(exclude_unset=True, warnings=False) for chunk in stream]

    played = twice.both(scenario)
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in played.result if c["choices"]) == (
        "Grüße aus dem Tor, one two three"
    )
    assert ("usage" in played.result[0]) == asked
    assert_priced(played.call)
    assert played.call["usage_source"] == ("provider" if asked else "injected")
    assert played.call["usage"]["output_tokens"] > 5
    assert played.call["stream"]
    assert played.call["ttft_ms"] <= played.call["duration_ms"]
    sent = json.loads(played.requests[0].body)
    assert sent["stream_options"] == {"include_usage": True}


def tool_loop(create: Callable[..., ChatCompletion]) -> list[dict[str, Any]]:
    """Ask, run the tools that are asked for, ask again."""
    steps = (
        '[[tool weather {"city": "Rome"}]] [[tool weather {"city": "Oslo"}]] [[then]] [[tool weather {"city": "Bonn"}]]'
    )
    messages: list[Any] = [{"role": "user", "content": f"Where is it warm? {steps} [[then]] [[say In Rome.]]"}]
    answers = []
    while True:
        answer = create(model=MODEL, messages=messages, tools=[WEATHER])
        answers.append(answer.model_dump(warnings=False))
        message = answer.choices[0].message
        if not message.tool_calls:
            return answers
        messages.append(message.model_dump(exclude_none=True))
        messages += [{"role": "tool", "tool_call_id": c.id, "content": "21 degrees"} for c in message.tool_calls]


def test_a_tool_loop_is_one_run_with_steps_and_paired_tools(twice: Twice) -> None:
    def scenario(url: str) -> list[dict[str, Any]]:
        with client(url) as sdk:
            return tool_loop(sdk.chat.completions.create)

    played = twice.both(scenario)
    assert played.result[-1]["choices"][0]["message"]["content"] == "In Rome."
    assert [call["step"] for call in played.calls] == [1, 2, 3]
    assert [[tool["name"] for tool in call["tools"]] for call in played.calls] == [[], ["weather"] * 2, ["weather"]]
    asked = [c["id"] for c in played.result[0]["choices"][0]["message"]["tool_calls"]]
    assert [tool["id"] for tool in played.calls[1]["tools"]] == asked
    run = twice.gate.get(f"/api/runs/{played.run()}")
    assert run["cost_usd"] == pytest.approx(sum(call["cost_usd"] for call in played.calls))


def test_async_clients_in_parallel_are_runs_of_their_own(twice: Twice) -> None:
    async def one(sdk: openai.AsyncOpenAI, n: int) -> list[dict[str, Any]]:
        messages: list[Any] = [{"role": "user", "content": f"Question {n}: why? [[say Because {n}.]]"}]
        answers = []
        for turn in range(3):
            answer = await sdk.chat.completions.create(model=MODEL, messages=messages)
            answers.append(answer.model_dump(warnings=False))
            messages.append({"role": "assistant", "content": answer.choices[0].message.content})
            messages.append({"role": "user", "content": f"And then, {turn}? [[say Then {n}-{turn}.]]"})
        return answers

    def scenario(url: str) -> list[Any]:
        async def main() -> list[Any]:
            async with openai.AsyncOpenAI(base_url=url + "/v1", api_key=KEY, max_retries=0) as sdk:
                return await asyncio.gather(*(one(sdk, n) for n in range(4)))

        return asyncio.run(main())

    # Four at once: the order at the provider may differ between the two ways, so the requests are compared as a set.
    twice.fake.reset(twice.salt)
    direct = scenario(twice.fake.url)
    bodies = sorted(request.body for request in twice.fake.requests)
    played = twice.through(scenario)
    assert played.result == direct
    assert sorted(request.body for request in played.requests) == bodies
    runs: dict[str, list[int]] = {}
    for call in played.calls:
        runs.setdefault(call["run_id"], []).append(call["step"])
    assert sorted(sorted(steps) for steps in runs.values()) == [[1, 2, 3]] * 4


def test_async_streams(twice: Twice) -> None:
    def scenario(url: str) -> list[dict[str, Any]]:
        async def main() -> list[dict[str, Any]]:
            async with openai.AsyncOpenAI(base_url=url + "/v1", api_key=KEY, max_retries=0) as sdk:
                stream = await sdk.chat.completions.create(model=MODEL, messages=[USER], stream=True)  # type: ignore[list-item]
                return [chunk.model_dump(exclude_unset=True, warnings=False) async for chunk in stream]

        return asyncio.run(main())

    assert_priced(twice.both(scenario).call)


class City(pydantic.BaseModel):
    name: str
    inhabitants: int
    districts: list[str]


def test_structured_output(twice: Twice) -> None:
    def scenario(url: str) -> Any:
        with client(url) as sdk:
            answer = sdk.chat.completions.parse(
                model=MODEL, messages=[{"role": "user", "content": "A city, please."}], response_format=City
            )
            parsed = answer.choices[0].message.parsed
            assert isinstance(parsed, City)
            return answer.model_dump(warnings=False)

    assert_priced(twice.both(scenario).call)


def test_the_streaming_helper_and_several_choices(twice: Twice) -> None:
    def scenario(url: str) -> Any:
        with client(url) as sdk:
            with sdk.chat.completions.stream(model=MODEL, messages=[USER], tools=[WEATHER]) as stream:  # type: ignore[list-item]
                kinds = [event.type for event in stream]
                final = stream.get_final_completion().model_dump(warnings=False)
            several = sdk.chat.completions.create(model=MODEL, messages=[USER], n=3)  # type: ignore[list-item]
            return kinds, final, several.model_dump(warnings=False)

    played = twice.both(scenario)
    assert len(played.calls) == 2


ERRORS = [
    ("429 retry_after=1", openai.RateLimitError, 429),
    ("quota", openai.RateLimitError, 429),
    ("auth", openai.AuthenticationError, 401),
    ("context", openai.BadRequestError, 400),
    ("model", openai.NotFoundError, 404),
    ("500", openai.InternalServerError, 500),
    ("503", openai.InternalServerError, 503),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fault", "kind", "status"), ERRORS)
def test_errors_of_the_provider_arrive_unchanged(
    twice: Twice, fault: str, kind: type[openai.APIStatusError], status: int, stream: bool
) -> None:
    message = {"role": "user", "content": f"[[fault {fault}]]"}

    def scenario(url: str) -> Any:
        with client(url) as sdk, pytest.raises(kind) as caught:
            sdk.chat.completions.create(model=MODEL, messages=[message], stream=stream)  # type: ignore[call-overload]
        error = caught.value
        kept = ("retry-after", "retry-after-ms", "x-request-id", "content-type")
        shown = {name: error.response.headers.get(name) for name in kept}
        return error.status_code, error.body, error.code, error.type, error.request_id, str(error), shown

    call = twice.both(scenario).call
    assert (call["status"], call["outcome"], call["cost_usd"] or 0) == (status, "upstream_error", 0)


def test_retries_of_the_client_are_calls_of_their_own(twice: Twice) -> None:
    message = {"role": "user", "content": "[[say made it]] [[fault 429 times=2 retry_after=0.01]]"}

    def scenario(url: str) -> Any:
        with client(url, max_retries=2) as sdk:
            return sdk.chat.completions.create(model=MODEL, messages=[message]).model_dump(warnings=False)  # type: ignore[list-item]

    played = twice.both(scenario)
    assert [request.header("x-stainless-retry-count") for request in played.requests] == ["0", "1", "2"]
    assert [call["status"] for call in played.calls] == [429, 429, 200]
    assert played.run()


def test_a_stream_that_errs_in_the_middle_raises(twice: Twice) -> None:
    message: Any = {"role": "user", "content": "[[say a b c d e]] [[fault mid_frame after=3]]"}

    def scenario(url: str) -> Any:
        seen: list[Any] = []
        with client(url) as sdk:
            stream = sdk.chat.completions.create(model=MODEL, messages=[message], stream=True)
            with pytest.raises(openai.APIError) as caught:
                take(stream, seen)
        return seen, str(caught.value), caught.value.body

    call = twice.both(scenario).call
    assert call["outcome"] == "truncated"
    assert call["usage_source"] == "estimated"
    assert call["usage"]["output_tokens"] > 0


@pytest.mark.parametrize("fault", ["eof", "cut", "reset"])
def test_a_stream_without_its_end_never_looks_complete(twice: Twice, fault: str) -> None:
    """Straight against the provider a clean end without [DONE] passes for a whole answer; not through the gateway."""
    message: Any = {"role": "user", "content": f"[[say a b c d e]] [[fault {fault} after=3]]"}

    def scenario(url: str) -> str:
        seen: list[Any] = []
        with client(url) as sdk:
            stream = sdk.chat.completions.create(model=MODEL, messages=[message], stream=True)
            with pytest.raises(openai.APIError):
                take(stream, seen)
        return text_of(seen)

    played = twice.through(scenario)
    assert "a b c d e".startswith(played.result)
    assert played.call["outcome"] == "truncated"
    assert played.call["cost_usd"] > 0


def test_an_error_in_the_first_frame_is_the_http_error_it_stands_for(twice: Twice) -> None:
    message = {"role": "user", "content": "[[fault first_frame]]"}

    def scenario(url: str) -> Any:
        with client(url) as sdk, pytest.raises(openai.InternalServerError) as caught:
            sdk.chat.completions.create(model=MODEL, messages=[message], stream=True)  # type: ignore[call-overload]
        return caught.value.status_code, caught.value.code

    played = twice.through(scenario)
    assert played.result[0] >= 500
    assert played.result[1] == "server_is_overloaded"
    assert played.call["outcome"] != "ok"


def test_a_client_that_leaves_stops_the_provider_and_is_billed_for_what_it_saw(twice: Twice) -> None:
    message = {"role": "user", "content": "[[tokens 400]] [[fault stall after=20 seconds=60]]"}

    def scenario(url: str) -> str:
        text = ""
        with client(url) as sdk:
            stream = sdk.chat.completions.create(model=MODEL, messages=[message], stream=True)  # type: ignore[call-overload]
            for number, chunk in enumerate(stream):
                text += chunk.choices[0].delta.content or ""
                if number == 15:
                    break
            stream.close()
        return text

    played = twice.through(scenario)
    assert played.call["outcome"] == "cancelled"
    assert played.call["usage_source"] == "estimated"
    assert 0 < played.call["usage"]["output_tokens"] < 60
    assert played.call["cost_usd"] > 0
    ended = twice.gate.until(lambda: played.requests[0].ended, lambda ended: ended != "open")
    assert ended == "client_gone"


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings(twice: Twice, encoding: Any) -> None:
    def scenario(url: str) -> Any:
        with client(url) as sdk:
            answer = sdk.embeddings.create(
                model="text-embedding-3-small", input=["one text", "another"], dimensions=64, encoding_format=encoding
            )
            return answer.model_dump(warnings=False)

    call = twice.both(scenario).call
    assert_priced(call, "text-embedding-3-small")
    assert usage_of(call) == (3, 0)


def test_models(twice: Twice) -> None:
    def scenario(url: str) -> Any:
        with client(url) as sdk:
            return [m.model_dump(warnings=False) for m in sdk.models.list()], sdk.models.retrieve("gpt-4o").model_dump(
                warnings=False
            )

    played = twice.both(scenario)
    assert [call["usage_source"] for call in played.calls] == ["none", "none"]


def test_other_paths_pass_through(twice: Twice) -> None:
    def scenario(url: str) -> Any:
        with client(url) as sdk:
            return sdk.moderations.create(input="be kind", model="omni-moderation-latest").model_dump(warnings=False)

    assert twice.both(scenario).call["status"] == 200


def test_the_url_names_run_and_agent(twice: Twice) -> None:
    def scenario(url: str) -> Any:
        with client(url + "/run/e2e-run-7/agent/planner") as sdk:
            return [
                sdk.chat.completions.create(model=MODEL, messages=[USER]).model_dump(warnings=False)["usage"]
                for _ in range(2)
            ]  # type: ignore[list-item]

    played = twice.through(scenario)
    assert played.run() == "e2e-run-7"
    assert {call["agent"] for call in played.calls} == {"planner"}
    assert [request.target for request in played.requests] == ["/v1/chat/completions"] * 2


def test_the_answer_names_its_record(twice: Twice) -> None:
    def scenario(url: str) -> dict[str, str]:
        with client(url) as sdk:
            raw = sdk.chat.completions.with_raw_response.create(model=MODEL, messages=[USER])  # type: ignore[list-item]
            return {name: value for name, value in raw.headers.items() if name.startswith("x-tollgate-")}

    played = twice.through(scenario)
    assert played.result["x-tollgate-request-id"] == played.call["id"]
    assert played.result["x-tollgate-run-id"] == played.call["run_id"]
    assert played.result["x-tollgate-upstream"] == "openai"
    assert played.result["x-tollgate-usage-source"] == "provider"
    assert float(played.result["x-tollgate-cost-usd"]) == pytest.approx(played.call["cost_usd"])
