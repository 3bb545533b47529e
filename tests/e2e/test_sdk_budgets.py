"""What the official SDKs make of refusals and of streams ended in the middle, as the dialects write them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from aiohttp import web
from google import genai
from google.genai import errors, types

from gateway.call import Request, Route, Usage
from gateway.dialects.registry import DIALECTS
from gateway.errors import BudgetExceeded, GatewayError, LimitReached, RunStopped
from gateway.testing import cassettes

GOLDEN = Path(__file__).parents[1] / "golden" / "cassettes"
USAGE = Usage(input_tokens=100, output_tokens=40, cache_read_tokens=30)
ASKED = {"role": "user", "content": "Why?"}
WITH_USAGE = b'{"stream":true,"stream_options":{"include_usage":true}}'


@asynccontextmanager
async def serving(status: int, headers: list[tuple[str, str]], body: bytes) -> AsyncIterator[tuple[str, list[str]]]:
    """A server that answers everything so: its URL, and the paths asked for."""
    asked: list[str] = []

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        asked.append(request.path)
        response = web.StreamResponse(status=status)
        response.headers.extend(headers)
        await response.prepare(request)
        for at in range(0, len(body), 1000):
            await response.write(body[at : at + 1000])
        await response.write_eof()
        return response

    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    finally:
        await runner.cleanup()


def refusing(name: str, fault: GatewayError) -> Any:
    answer = DIALECTS[name].refusal(fault, "req-1", stream=True, route=Route("", name, "chat", "", b"/x?alt=sse"))
    return serving(answer.status, [(n.decode(), v.decode()) for n, v in answer.headers], answer.body)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits of an SDK between its tries, without waiting."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr("anyio.sleep", sleep)
    return waits


def openai_client(url: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=url + "/v1", api_key="k", max_retries=2, timeout=20)


async def ask_openai(url: str, what: str) -> Any:
    async with openai_client(url) as sdk:
        if what == "openai_chat":
            return await sdk.chat.completions.create(model="m", messages=[ASKED], stream=True)  # type: ignore[list-item]
        if what == "openai_responses":
            return await sdk.responses.create(model="m", input="Why?", stream=True)
        return await sdk.embeddings.create(model="m", input="Why?")


async def ask_anthropic(url: str) -> Any:
    async with anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=2, timeout=20) as sdk:
        return await sdk.messages.create(model="m", max_tokens=9, messages=[ASKED], stream=True)  # type: ignore[list-item]


def gemini_client(url: str) -> genai.Client:
    retry = types.HttpRetryOptions(attempts=3)
    return genai.Client(api_key="k", http_options=types.HttpOptions(base_url=url, timeout=20_000, retry_options=retry))


def ask_gemini(url: str) -> Any:
    """In a thread: the SDK's own asynchronous transport warns of itself."""
    with gemini_client(url) as sdk:
        return list(sdk.models.generate_content_stream(model="m", contents="Why?"))


@pytest.mark.parametrize("fault", [BudgetExceeded("the run is over budget"), RunStopped("a loop: f called 9 times")])
@pytest.mark.parametrize("name", ["openai_chat", "openai_responses", "openai_embeddings"])
async def test_openai_asks_once_and_reads_both_codes(name: str, fault: GatewayError, slept: list[float]) -> None:
    async with refusing(name, fault) as (url, asked):
        with pytest.raises(openai.APIStatusError) as caught:
            await ask_openai(url, name)
    error = caught.value
    assert (len(asked), slept) == (1, [])
    assert (error.status_code, error.code, error.type) == (402, "insufficient_quota", "insufficient_quota")
    assert isinstance(error.body, dict)
    assert error.body["tollgate_code"] == error.response.headers["x-tollgate-code"] == fault.code
    assert fault.message in str(error)


async def test_anthropic_asks_once_and_reads_the_code(slept: list[float]) -> None:
    async with refusing("anthropic", BudgetExceeded("the run is over budget")) as (url, asked):
        with pytest.raises(anthropic.APIStatusError) as caught:
            await ask_anthropic(url)
    error = caught.value
    assert (len(asked), slept) == (1, [])
    assert (error.status_code, error.request_id) == (402, "req-1")
    assert isinstance(error.body, dict)
    assert error.body["error"]["type"] == "billing_error"
    assert error.body["error"]["details"] == {"error_code": "budget_exceeded"}


async def test_gemini_asks_once_even_where_it_may_retry() -> None:
    async with refusing("gemini", BudgetExceeded("the run is over budget")) as (url, asked):
        with pytest.raises(errors.ClientError) as caught:
            await asyncio.to_thread(ask_gemini, url)
    assert len(asked) == 1
    assert (caught.value.code, caught.value.status) == (402, "RESOURCE_EXHAUSTED")
    assert caught.value.details["error"]["details"][0]["metadata"] == {"code": "budget_exceeded"}


async def test_limits_are_waited_for_as_long_as_they_say(slept: list[float]) -> None:
    fault = LimitReached("60 requests a minute are used up", retry_after=7)
    async with refusing("openai_chat", fault) as (url, asked):
        with pytest.raises(openai.RateLimitError) as limited:
            await ask_openai(url, "openai_chat")
    assert (len(asked), slept) == (3, [7.0, 7.0])
    assert limited.value.code == "rate_limit_exceeded"
    slept.clear()
    async with refusing("anthropic", fault) as (url, asked):
        with pytest.raises(anthropic.RateLimitError):
            await ask_anthropic(url)
    assert (len(asked), slept) == (3, [7.0, 7.0])


# -- streams that are ended in the middle ----------------------------------------------------------------------------


def halves(provider: str, endpoint: str) -> list[tuple[str, bytes]]:
    """(name, the first half of its events) of recorded streams of some length."""
    found = []
    for path in sorted(GOLDEN.glob(f"{provider}/{endpoint}-sse-200-*.json")):
        events = re.findall(rb"(?s).*?\r?\n\r?\n", cassettes.load(path).body)
        if len(events) > 3:
            found.append((path.stem, b"".join(events[: len(events) // 2])))
    assert found
    return found


def ended(name: str, half: bytes, body: bytes = b"{}", path: bytes = b"/v1/x?alt=sse") -> bytes:
    """The half, and what the dialect ends it with."""
    route = Route("/v1/x", name, "chat", "up", path)
    asked = DIALECTS[name].read(route, Request(b"POST", path, (), body))
    meter = DIALECTS[name].meter(route, asked, 200, b"text/event-stream")
    meter.feed(half)
    assert (meter.terminal, meter.failed) == (False, "")
    assert meter.stop(half) == len(half)
    return half + DIALECTS[name].finish_early(meter, asked, "req-1", USAGE, "budget_exceeded")


SSE = [("content-type", "text/event-stream")]


@pytest.mark.parametrize("usage", [True, False])
async def test_openai_chat_ends_with_length(usage: bool) -> None:
    body = WITH_USAGE if usage else b'{"stream":true}'
    for name, half in halves("openai", "chat"):
        async with serving(200, SSE, ended("openai_chat", half, body)) as (url, _), openai_client(url) as sdk:
            stream = await sdk.chat.completions.create(model="m", messages=[ASKED], stream=True)  # type: ignore[list-item]
            chunks = [chunk async for chunk in stream]
        reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
        assert reasons == ["length"], name
        assert len({(chunk.id, chunk.model, chunk.created) for chunk in chunks}) == 1, name
        assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage] == ([40] if usage else []), name


async def test_the_chat_helper_of_openai_says_what_it_says_at_max_tokens() -> None:
    for name, half in halves("openai", "chat"):
        async with (
            serving(200, SSE, ended("openai_chat", half, WITH_USAGE)) as (url, _),
            openai_client(url) as sdk,
            sdk.chat.completions.stream(model="m", messages=[ASKED]) as stream,  # type: ignore[list-item]
        ):
            kinds = [event.type async for event in stream]
            with pytest.raises(openai.LengthFinishReasonError) as caught:  # so it does for the provider's own limit
                await stream.get_final_completion()
        assert "chunk" in kinds, name
        assert caught.value.completion.usage is not None
        assert caught.value.completion.usage.total_tokens == 140, name


async def test_legacy_completions_end_with_length() -> None:
    for name, half in halves("openai", "completions"):
        end = ended("openai_completions", half, b'{"stream":true,"prompt":"a"}')
        async with serving(200, SSE, end) as (url, _), openai_client(url) as sdk:
            stream = await sdk.completions.create(model="m", prompt="a", stream=True)
            reasons = [c.finish_reason async for chunk in stream for c in chunk.choices]
        assert [reason for reason in reasons if reason] == ["length"], name


@pytest.mark.parametrize("provider", ["openai", "xai", "deepseek", "openrouter"])
async def test_responses_end_incomplete(provider: str) -> None:
    for name, half in halves(provider, "responses"):
        async with serving(200, SSE, ended("openai_responses", half)) as (url, _), openai_client(url) as sdk:
            events: list[Any] = [event async for event in await sdk.responses.create(model="m", input="a", stream=True)]
            async with sdk.responses.stream(model="m", input="a") as stream:
                kinds = [event.type async for event in stream]
        last = events[-1]
        assert last.type == kinds[-1] == "response.incomplete", name
        assert last.response.incomplete_details.reason == "max_output_tokens", name
        assert (last.response.status, last.response.usage.output_tokens) == ("incomplete", 40), name
        numbers = [event.sequence_number for event in events if event.sequence_number is not None]
        assert numbers == list(range(len(numbers))), name  # an old recording has none of its own
        said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert last.response.output_text == said, name


async def test_anthropic_ends_with_max_tokens() -> None:
    for name, half in halves("anthropic", "messages"):
        async with (
            serving(200, SSE, ended("anthropic", half)) as (url, _),
            anthropic.AsyncAnthropic(base_url=url, api_key="k", timeout=20) as sdk,
            sdk.messages.stream(model="m", max_tokens=9, messages=[ASKED]) as stream,  # type: ignore[list-item]
        ):
            kinds = [event.type async for event in stream]
            message = await stream.get_final_message()
        assert message.stop_reason == "max_tokens", name
        assert message.usage.output_tokens == 40, name
        assert kinds.count("content_block_start") == kinds.count("content_block_stop"), name
        assert kinds[-1] == "message_stop", name


async def test_a_tool_call_of_anthropic_that_is_cut_still_parses() -> None:
    found = 0
    for path in sorted(GOLDEN.glob("anthropic/messages-sse-200-*.json")):
        body = cassettes.load(path).body
        at = body.find(b"input_json_delta", body.find(b"input_json_delta") + 1)
        if at < 0:
            continue
        half = body[: body.index(b"\n\n", at) + 2]
        async with (
            serving(200, SSE, ended("anthropic", half)) as (url, _),
            anthropic.AsyncAnthropic(base_url=url, api_key="k", timeout=20) as sdk,
            sdk.messages.stream(model="m", max_tokens=9, messages=[ASKED]) as stream,  # type: ignore[list-item]
        ):
            message = await stream.get_final_message()
        found += 1
        assert (message.stop_reason, message.content[-1].type) in [
            ("max_tokens", "tool_use"),
            ("max_tokens", "server_tool_use"),
        ]
    assert found


async def test_gemini_ends_with_max_tokens() -> None:
    for name, half in halves("gemini", "generateContent"):
        async with serving(200, SSE, ended("gemini", half)) as (url, _):
            chunks = await asyncio.to_thread(ask_gemini, url)
        last = chunks[-1]
        assert last.candidates is not None
        assert last.candidates[0].finish_reason is types.FinishReason.MAX_TOKENS, name
        assert last.usage_metadata is not None
        assert last.usage_metadata.candidates_token_count == 40, name
        assert len(chunks) == half.count(b"\r\n\r\n") + 1, name
