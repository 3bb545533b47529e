"""The fake dialects: a stream says the same as the whole answer, usage is counted from the content, ids are stable."""

import base64
import json
import struct
from collections.abc import Callable
from typing import Any

import pytest

from gateway.testing import fake_anthropic, fake_gemini, fake_openai_chat, fake_openai_responses, fake_openai_stored
from gateway.testing.agent_wire import CHAT, GEMINI, MESSAGES, RESPONSES, Answer, Dialect, Event
from gateway.testing.fake_tokens import count
from gateway.testing.fake_world import Incoming, Wire, World

SAY = "[[say one two three]]"
CALL = '[[think hm]] [[tool look {"at": "it"}]]'
SCHEMA = {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}


@pytest.fixture
def now() -> list[float]:
    return [1_790_000_000.0]


@pytest.fixture
def world(now: list[float]) -> World:
    return World(7, clock=lambda: now[0], cache_minimum=128)


def incoming(body: Any, path: str = "/", **headers: str) -> Incoming:
    return Incoming("POST", path, {"alt": "sse"}, {"anthropic-version": "2023-06-01", **headers}, body)


def chat(world: World, prompt: str, **more: Any) -> Wire:
    tool = {"type": "function", "function": {"name": "look", "parameters": SCHEMA}}
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": prompt}], "tools": [tool], **more}
    return fake_openai_chat.chat(world, incoming(body))


def messages(world: World, prompt: str, **more: Any) -> Wire:
    body = {"model": "claude-sonnet-5", "max_tokens": 500, "messages": [{"role": "user", "content": prompt}], **more}
    return fake_anthropic.messages(world, incoming({"tools": [{"name": "look", "input_schema": SCHEMA}], **body}))


def responses(world: World, prompt: str, **more: Any) -> Wire:
    tool = {"type": "function", "name": "look", "parameters": SCHEMA}
    return fake_openai_responses.create(world, incoming({"model": "gpt-5", "input": prompt, "tools": [tool], **more}))


def gemini(world: World, prompt: str, stream: bool = False, **more: Any) -> Wire:
    body = {"contents": [{"role": "user", "parts": [{"text": prompt}]}], **more}
    body["tools"] = [{"functionDeclarations": [{"name": "look", "parameters": SCHEMA}]}]
    return fake_gemini.generate(world, incoming(body), "gemini-2.5-flash", stream=stream)


Ask = Callable[..., Wire]
ALL = [(chat, CHAT), (messages, MESSAGES), (responses, RESPONSES), (gemini, GEMINI)]


def whole(wire: Wire, dialect: Dialect) -> Answer:
    return dialect.read(json.loads(wire.body))


def events(wire: Wire) -> list[Event]:
    found = []
    for block in b"".join(frame.data for frame in wire.frames or ()).replace(b"\r\n", b"\n").split(b"\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.decode().split("\n"))
        data = fields["data"]
        found.append((fields.get("event", ""), data if data == "[DONE]" else json.loads(data)))
    return found


@pytest.mark.parametrize("prompt", [SAY, CALL, "tell me something"])
@pytest.mark.parametrize(("ask", "dialect"), ALL)
def test_a_stream_says_what_the_whole_answer_says(ask: Ask, dialect: Dialect, prompt: str, world: World) -> None:
    more = {"stream_options": {"include_usage": True}} if ask is chat else {}
    once = whole(ask(world, prompt), dialect)
    world.reset()
    streamed = dialect.collect(events(ask(world, prompt, stream=True, **more)))
    assert not streamed.failed
    assert (once.text, once.tools, once.id) == (streamed.text, streamed.tools, streamed.id)
    assert dialect.tokens(once.usage) == dialect.tokens(streamed.usage)
    assert once.text or once.tools


@pytest.mark.parametrize(("ask", "dialect"), ALL)
def test_output_tokens_are_those_of_the_text(ask: Ask, dialect: Dialect, world: World) -> None:
    answer = whole(ask(world, SAY), dialect)
    read, written = dialect.tokens(answer.usage)
    assert answer.text == "one two three"
    assert written == count(answer.text)
    assert read > count(SAY)


@pytest.mark.parametrize(("ask", "dialect"), ALL)
def test_equal_questions_get_equal_text_and_new_ids(ask: Ask, dialect: Dialect, world: World) -> None:
    first, second = (whole(ask(world, "hello"), dialect) for _ in range(2))
    assert first.text == second.text
    assert first.id != second.id
    world.reset()
    assert whole(ask(world, "hello"), dialect).id == first.id


@pytest.mark.parametrize(("ask", "dialect"), ALL)
def test_long_prompts_are_read_from_the_cache_the_second_time(ask: Ask, dialect: Dialect, world: World) -> None:
    text: Any = "rules of the house " * 400
    mark = {"cache_control": {"type": "ephemeral"}}
    more = {"system": [{"type": "text", "text": text, **mark}]} if ask is messages else {}
    prompt = "hi" if ask is messages else text
    usages = [whole(ask(world, prompt, **more), dialect).usage for _ in range(2)]
    reads = [
        usage.get("cache_read_input_tokens", 0)
        + usage.get("cachedContentTokenCount", 0)
        + usage.get("prompt_tokens_details", usage.get("input_tokens_details", {})).get("cached_tokens", 0)
        for usage in usages
    ]
    assert reads[0] == 0
    assert reads[1] > 1000
    assert dialect.tokens(usages[0]) == dialect.tokens(usages[1])


@pytest.mark.parametrize(("ask", "status"), [(chat, 429), (messages, 429), (responses, 429), (gemini, 429)])
def test_a_fault_may_hold_for_the_first_requests_only(ask: Ask, status: int, world: World) -> None:
    prompt = "[[fault 429 times=2 retry_after=3]]"
    assert [ask(world, prompt).status for _ in range(3)] == [status, status, 200]


@pytest.mark.parametrize(
    ("ask", "kind", "status", "name"),
    [
        (chat, "context", 400, "context_length_exceeded"),
        (chat, "quota", 429, "insufficient_quota"),
        (responses, "503", 503, "server_is_overloaded"),
        (messages, "529", 529, "overloaded_error"),
        (messages, "context", 400, "prompt is too long"),
        (gemini, "529", 503, "UNAVAILABLE"),
        (gemini, "429", 429, "retryDelay"),
        (gemini, "auth", 400, "API_KEY_INVALID"),
    ],
)
def test_errors_have_the_status_and_words_of_their_provider(
    ask: Ask, kind: str, status: int, name: str, world: World
) -> None:
    wire = ask(world, f"[[fault {kind}]]")
    assert wire.status == status
    assert name in wire.body.decode()


@pytest.mark.parametrize("ask", [chat, responses, messages])
def test_an_unknown_model_is_not_found(ask: Ask, world: World) -> None:
    wire = ask(world, "hi", model="no-such-model")
    assert wire.status == 404
    assert b"no-such-model" in wire.body


def test_chat_usage_comes_in_a_chunk_of_its_own_only_when_asked_for(world: World) -> None:
    plain = events(chat(world, SAY, stream=True))
    asked = events(chat(world, SAY, stream=True, stream_options={"include_usage": True}))
    assert all("usage" not in data for _, data in plain[:-1])
    assert all(data["usage"] is None for _, data in asked[:-2])
    assert asked[-2][1]["choices"] == []
    assert asked[-2][1]["usage"]["completion_tokens"] == 3
    assert len(asked) == len(plain) + 1
    assert plain[-1][1] == asked[-1][1] == "[DONE]"


def test_chat_gives_several_choices(world: World) -> None:
    body = json.loads(chat(world, SAY, n=3).body)
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert body["usage"]["completion_tokens"] == 9


def test_messages_stream_pings_and_pads_like_the_real_one(world: World) -> None:
    wire = messages(world, "hello", stream=True)
    data = b"".join(frame.data for frame in wire.frames or ())
    assert data.count(b"event: ping\n") == 1
    assert b" }\n\n" in data
    last = events(wire)[-2:]
    assert [name for name, _ in last] == ["message_delta", "message_stop"]
    assert last[0][1]["usage"]["output_tokens"] > 1


def test_messages_check_what_the_api_requires(world: World) -> None:
    body = {"model": "claude-sonnet-5", "messages": [{"role": "user", "content": "hi"}]}
    assert b"max_tokens: Field required" in fake_anthropic.messages(world, incoming(body)).body
    nameless = Incoming("POST", "/v1/messages", {}, {}, body)
    assert b"anthropic-version: header is required" in fake_anthropic.messages(world, nameless).body


def test_responses_events_are_numbered_and_end_with_the_whole_response(world: World) -> None:
    stream = events(responses(world, CALL, stream=True))
    assert [data["sequence_number"] for _, data in stream] == list(range(len(stream)))
    assert [name for name, _ in stream[:2]] == ["response.created", "response.in_progress"]
    name, last = stream[-1]
    assert name == "response.completed"
    assert [item["type"] for item in last["response"]["output"]] == ["reasoning", "function_call"]


def test_responses_remember_the_conversation(world: World) -> None:
    first = json.loads(responses(world, CALL).body)
    call = next(item for item in first["output"] if item["type"] == "function_call")
    output = [{"type": "function_call_output", "call_id": call["call_id"], "output": "seen it"}]
    second = responses(world, output, previous_response_id=first["id"])  # type: ignore[arg-type]
    assert whole(second, RESPONSES).text == "The tools answered: seen it"
    listed = fake_openai_stored.input_items(world, incoming(None), json.loads(second.body)["id"])
    assert json.loads(listed.body)["data"][0]["output"] == "seen it"
    lost = responses(world, "hi", previous_response_id="resp_unknown")
    assert (lost.status, json.loads(lost.body)["error"]["param"]) == (400, "previous_response_id")


def test_a_background_response_is_done_when_its_time_has_come(world: World, now: list[float]) -> None:
    begun = json.loads(responses(world, SAY, background=True).body)
    assert (begun["status"], begun["usage"]) == ("queued", None)
    fetch = lambda: json.loads(fake_openai_stored.retrieve(world, Incoming("GET", "/", {}, {}, None), begun["id"]).body)  # noqa: E731
    assert fetch()["status"] == "in_progress"
    now[0] += 1
    done = fetch()
    assert (done["status"], done["usage"]["output_tokens"]) == ("completed", 3)


def test_a_background_response_can_be_cancelled_a_plain_one_cannot(world: World) -> None:
    begun = json.loads(responses(world, SAY, background=True).body)
    cancelled = fake_openai_stored.cancel(world, incoming(None), begun["id"])
    assert json.loads(cancelled.body)["status"] == "cancelled"
    plain = json.loads(responses(world, SAY).body)
    assert fake_openai_stored.cancel(world, incoming(None), plain["id"]).status == 400
    assert fake_openai_stored.cancel(world, incoming(None), "resp_none").status == 404


def test_a_stored_stream_can_be_taken_up_in_the_middle(world: World) -> None:
    made = json.loads(responses(world, SAY).body)
    query = {"stream": "true", "starting_after": "4"}
    again = fake_openai_stored.retrieve(world, Incoming("GET", "/", query, {}, None), made["id"])
    assert events(again)[0][1]["sequence_number"] == 5
    assert fake_openai_stored.delete(world, incoming(None), made["id"]).status == 200
    assert fake_openai_stored.retrieve(world, incoming(None), made["id"]).status == 404


def test_compact_keeps_the_users_words(world: World) -> None:
    body = json.loads(fake_openai_stored.compact(world, incoming({"model": "gpt-5", "input": "keep me"})).body)
    assert body["object"] == "response.compaction"
    assert [item["type"] for item in body["output"]] == ["message", "compaction"]
    assert body["usage"]["total_tokens"] > 0


def test_token_counts_agree_with_the_usage(world: World) -> None:
    body = {"model": "gpt-5", "input": "how many tokens are these?"}
    counted = json.loads(fake_openai_stored.input_tokens(world, incoming(body)).body)
    assert (
        counted["input_tokens"]
        == json.loads(fake_openai_responses.create(world, incoming(body)).body)["usage"]["input_tokens"]
    )


def test_embeddings_are_the_same_as_floats_and_as_base64(world: World) -> None:
    body = {"model": "text-embedding-3-small", "input": ["a", "b"], "dimensions": 8}
    floats = json.loads(fake_openai_chat.embeddings(world, incoming(body)).body)
    packed = json.loads(fake_openai_chat.embeddings(world, incoming({**body, "encoding_format": "base64"})).body)
    for one, other in zip(floats["data"], packed["data"], strict=True):
        assert list(struct.unpack("<8f", base64.b64decode(other["embedding"]))) == pytest.approx(one["embedding"])
    assert floats["usage"] == packed["usage"] == {"prompt_tokens": 2, "total_tokens": 2}


def test_gemini_without_sse_streams_an_array(world: World) -> None:
    body = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
    request = Incoming("POST", "/", {}, {}, body)
    wire = fake_gemini.generate(world, request, "gemini-2.5-flash", stream=True)
    chunks = json.loads(b"".join(frame.data for frame in wire.frames or ()))
    assert len(chunks) > 1
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"
    failing = {"contents": [{"parts": [{"text": "[[fault 429]]"}]}]}
    refused = fake_gemini.generate(world, Incoming("POST", "/", {}, {}, failing), "m", stream=True)
    assert json.loads(refused.body)[0]["error"]["status"] == "RESOURCE_EXHAUSTED"


def test_chances_break_a_known_share_of_the_answers(now: list[float]) -> None:
    world = World(1, clock=lambda: now[0], chances={"429": 0.25})
    statuses = [chat(world, f"question {n}").status for n in range(400)]
    assert 70 < statuses.count(429) < 130
    assert statuses.count(200) == 400 - statuses.count(429)
