"""The official anthropic SDK through the gateway."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anthropic
import pytest

from gateway.testing.twice import Twice

KEY = "sk-ant-e2e-0123456789"
MODEL = "claude-sonnet-5"
USER: Any = {"role": "user", "content": "Say something. [[say Grüße aus dem Tor, one two three]]"}
TOOL: Any = {
    "name": "weather",
    "description": "Weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def client(url: str, **more: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key=KEY, **{"max_retries": 0, "timeout": 20, **more})


def input_of(usage: dict[str, Any]) -> int:
    """Anthropic counts cache reads and writes apart; the record includes them."""
    return int(usage["input_tokens"] + usage["cache_creation_input_tokens"] + usage["cache_read_input_tokens"])


def assert_recorded(call: dict[str, Any], usage: dict[str, Any]) -> None:
    assert (call["model_requested"], call["outcome"], call["status"]) == (MODEL, "ok", 200)
    assert call["usage"]["input_tokens"] == input_of(usage)
    assert call["usage"]["output_tokens"] == usage["output_tokens"]
    assert call["usage"]["cache_read_tokens"] == usage["cache_read_input_tokens"]
    assert call["usage"]["cache_write_tokens"] == usage["cache_creation_input_tokens"]
    assert call["usage_source"] == "provider"
    assert call["cost_usd"] > 0


def test_an_answer_in_one_piece(twice: Twice) -> None:
    def scenario(url: str) -> Any:
        with client(url) as sdk:
            raw = sdk.messages.with_raw_response.create(model=MODEL, max_tokens=200, messages=[USER])
            kept = {n: v for n, v in raw.headers.items() if n.startswith("anthropic-") or n == "request-id"}
            return raw.parse().model_dump(warnings=False), kept

    played = twice.both(scenario)
    assert_recorded(played.call, played.result[0]["usage"])
    assert played.requests[0].header("authorization") == f"Bearer {KEY}"
    assert len(played.result[1]) > 5


def test_a_stream_with_thinking(twice: Twice) -> None:
    def scenario(url: str) -> Any:
        thinking: Any = {"type": "enabled", "budget_tokens": 1024}
        with (
            client(url) as sdk,
            sdk.messages.stream(model=MODEL, max_tokens=2000, messages=[USER], thinking=thinking) as stream,
        ):
            events = [event.model_dump(warnings=False) for event in stream]
            return events, stream.get_final_message().model_dump(warnings=False)

    played = twice.both(scenario)
    assert [block["type"] for block in played.result[1]["content"]] == ["thinking", "text"]
    assert_recorded(played.call, played.result[1]["usage"])
    assert played.call["stream"]


def test_a_raw_stream(twice: Twice) -> None:
    def scenario(url: str) -> Any:
        with (
            client(url) as sdk,
            sdk.messages.create(model=MODEL, max_tokens=200, messages=[USER], stream=True) as stream,
        ):
            return [event.model_dump(warnings=False) for event in stream]

    assert twice.both(scenario).call["outcome"] == "ok"


def test_a_tool_loop_with_a_cached_prompt_is_one_run(twice: Twice) -> None:
    script = '[[tool weather {"city": "Rome"}]] [[tool weather {"city": "Oslo"}]] [[then]] [[say In Rome.]]'
    system: Any = [{"type": "text", "text": "Be exact. " * 400, "cache_control": {"type": "ephemeral"}}]

    def scenario(url: str) -> list[dict[str, Any]]:
        messages: list[Any] = [{"role": "user", "content": f"Where is it warm? {script}"}]
        answers = []
        with client(url) as sdk:
            while True:
                answer = sdk.messages.create(
                    model=MODEL, max_tokens=300, system=system, tools=[TOOL], messages=messages
                )
                answers.append(answer.model_dump(warnings=False))
                uses = [block for block in answer.content if block.type == "tool_use"]
                if not uses:
                    return answers
                messages.append(
                    {"role": "assistant", "content": [b.model_dump(exclude_none=True) for b in answer.content]}
                )
                results = [{"type": "tool_result", "tool_use_id": use.id, "content": "21 degrees"} for use in uses]
                results[-1]["is_error"] = True  # type: ignore[assignment]
                messages.append({"role": "user", "content": results})

    played = twice.both(scenario)
    first, second = played.calls
    assert played.run()
    assert [first["step"], second["step"]] == [1, 2]
    assert first["usage"]["cache_write_tokens"] > 256
    assert second["usage"]["cache_read_tokens"] == first["usage"]["cache_write_tokens"]
    for call, answer in zip(played.calls, played.result, strict=True):
        assert_recorded(call, answer["usage"])
    assert [(tool["name"], tool["is_error"]) for tool in second["tools"]] == [("weather", False), ("weather", True)]


def test_async_clients_in_parallel_are_runs_of_their_own(twice: Twice) -> None:
    async def one(sdk: anthropic.AsyncAnthropic, n: int) -> list[str]:
        messages: list[Any] = [{"role": "user", "content": f"Question {n}? [[say Answer {n}.]]"}]
        texts = []
        for turn in range(3):
            async with sdk.messages.stream(model=MODEL, max_tokens=100, messages=messages) as stream:
                texts.append(await stream.get_final_text())
            messages.append({"role": "assistant", "content": texts[-1]})
            messages.append({"role": "user", "content": f"More, {turn}? [[say More {n}-{turn}.]]"})
        return texts

    def scenario(url: str) -> Any:
        async def main() -> Any:
            async with anthropic.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=0) as sdk:
                return await asyncio.gather(*(one(sdk, n) for n in range(4)))

        return asyncio.run(main())

    played = twice.through(scenario)
    assert played.result == scenario(twice.fake.url)
    runs: dict[str, list[int]] = {}
    for call in played.calls:
        runs.setdefault(call["run_id"], []).append(call["step"])
    assert sorted(sorted(steps) for steps in runs.values()) == [[1, 2, 3]] * 4


def test_structured_output(twice: Twice) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    output: Any = {"format": {"type": "json_schema", "schema": schema}}

    def scenario(url: str) -> Any:
        with client(url) as sdk:
            answer = sdk.messages.create(
                model=MODEL, max_tokens=200, messages=[{"role": "user", "content": "A number."}], output_config=output
            )
            return answer.content[0].text  # type: ignore[union-attr]

    assert isinstance(json.loads(twice.both(scenario).result)["n"], int)


ERRORS = [
    ("429 retry_after=1", anthropic.RateLimitError, 429),
    ("529", anthropic.InternalServerError, 529),
    ("500", anthropic.InternalServerError, 500),
    ("auth", anthropic.AuthenticationError, 401),
    ("model", anthropic.NotFoundError, 404),
    ("context", anthropic.BadRequestError, 400),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("fault", "kind", "status"), ERRORS)
def test_errors_of_the_provider_arrive_unchanged(
    twice: Twice, fault: str, kind: type[anthropic.APIStatusError], status: int, stream: bool
) -> None:
    message: Any = {"role": "user", "content": f"[[fault {fault}]]"}

    def scenario(url: str) -> Any:
        with client(url) as sdk, pytest.raises(kind) as caught:
            sdk.messages.create(model=MODEL, max_tokens=10, messages=[message], stream=stream)
        error = caught.value
        shown = {name: error.response.headers.get(name) for name in ("retry-after", "x-should-retry", "content-type")}
        return error.status_code, error.body, error.request_id, str(error), shown

    call = twice.both(scenario).call
    assert (call["status"], call["outcome"]) == (status, "upstream_error")


def test_retries_of_the_client_are_calls_of_their_own(twice: Twice) -> None:
    message: Any = {"role": "user", "content": "[[say made it]] [[fault 529 times=1 retry_after=0.01]]"}

    def scenario(url: str) -> Any:
        with client(url, max_retries=2) as sdk:
            return sdk.messages.create(model=MODEL, max_tokens=50, messages=[message]).model_dump(warnings=False)

    played = twice.both(scenario)
    assert [request.header("x-stainless-retry-count") for request in played.requests] == ["0", "1"]
    assert [call["status"] for call in played.calls] == [529, 200]


@pytest.mark.parametrize("fault", ["mid_frame", "eof", "cut", "reset"])
def test_a_stream_without_its_end_never_looks_complete(twice: Twice, fault: str) -> None:
    message: Any = {"role": "user", "content": f"[[say a b c d e f]] [[fault {fault} after=6]]"}

    def scenario(url: str) -> str:
        text = ""

        def read() -> None:
            nonlocal text
            with client(url) as sdk, sdk.messages.stream(model=MODEL, max_tokens=50, messages=[message]) as stream:
                for piece in stream.text_stream:
                    text += piece

        with pytest.raises(anthropic.APIError):
            read()
        return text

    played = twice.through(scenario)
    assert "a b c d e f".startswith(played.result)
    assert played.call["outcome"] == "truncated"
    assert played.call["usage"]["input_tokens"] > 0
    assert played.call["cost_usd"] > 0


def test_an_error_in_the_first_frame_is_the_http_error_it_stands_for(twice: Twice) -> None:
    message: Any = {"role": "user", "content": "[[fault first_frame]]"}

    def scenario(url: str) -> Any:
        with client(url) as sdk, pytest.raises(anthropic.APIStatusError) as caught:
            sdk.messages.create(model=MODEL, max_tokens=10, messages=[message], stream=True)
        return caught.value.status_code, caught.value.type

    played = twice.through(scenario)
    assert played.result == (529, "overloaded_error")
    assert played.call["outcome"] != "ok"


def test_counting_tokens_and_models(twice: Twice) -> None:
    def scenario(url: str) -> Any:
        with client(url) as sdk:
            counted = sdk.messages.count_tokens(model=MODEL, messages=[USER], tools=[TOOL]).input_tokens
            models = [model.model_dump(warnings=False) for model in sdk.models.list()]
            return counted, models, sdk.models.retrieve("claude-haiku-4-5").model_dump(warnings=False)

    played = twice.both(scenario)
    assert played.result[0] > 10
    assert len(played.calls) == 3
    assert all((call["cost_usd"] or 0) == 0 for call in played.calls)


def test_sub_agents_of_claude_code_are_told_apart(twice: Twice) -> None:
    session = "5f2d6a1e-3c44-4a53-9a55-0c1f7f0c1e11"

    def scenario(url: str) -> None:
        for agent, kind in (("", ""), ("a1389468c6cfda3b8", "Explore"), ("a7b1c22d4e5f60718", "Explore")):
            headers = {"x-claude-code-session-id": session, "user-agent": "claude-cli/2.1.330 (external, cli)"}
            if agent:
                headers |= {"x-claude-code-agent-id": agent, "x-claude-code-agent-type": kind}
            with client(url, default_headers=headers) as sdk:
                prompt: Any = {"role": "user", "content": f"I am {agent or 'the first'}."}
                sdk.messages.create(model=MODEL, max_tokens=50, messages=[prompt])

    played = twice.both(scenario)
    assert played.run() == session
    first, *others = played.calls
    assert (first["parent_agent"], first["request_class"]) != ("", "subagent")
    assert {(call["parent_agent"], call["request_class"], call["step"]) for call in others} == {
        (first["agent"], "subagent", 1)
    }
    assert {call["agent"] for call in others} == {f"{first['agent']}/Explore"}
    run = twice.gate.get(f"/api/runs/{session}")
    assert [(node["agent"], node["calls"]) for node in run["tree"]] == [(first["agent"], 1), (others[0]["agent"], 2)]
    assert run["cost_usd"] == pytest.approx(sum(call["cost_usd"] for call in played.calls))
