"""Recorded requests and answers of every provider, translated into each of the other dialects.

TOLLGATE_CASSETTES may name a larger collection. What is expected follows from the recordings: their texts are found
again in the translation, the official SDKs' types take it, and read back it says the same.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.message_create_params import MessageCreateParams
from google.genai import types as genai
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import CompletionCreateParams
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from gateway.call import Request, Route
from gateway.dialects.registry import DIALECTS
from gateway.dialects.sse import Splitter
from gateway.dialects.translate.answers import gather, object_of
from gateway.dialects.translate.common import decode, effort_of
from gateway.dialects.translate.hub import SIDES, Asked, Translation
from gateway.dialects.translate.losses import Losses
from gateway.errors import BadAnswer, BadBody, Untranslatable
from gateway.testing import cassettes

ROOT = Path(os.environ.get("TOLLGATE_CASSETTES") or Path(__file__).parents[3] / "golden" / "cassettes")
KINDS = {
    "messages": "anthropic",
    "generateContent": "gemini",
    "chat": "openai_chat",
    "responses": "openai_responses",
}
UPSTREAMS = ("openai_chat", "anthropic", "gemini")
CLIENTS = (*UPSTREAMS, "openai_responses")
PLAIN = {
    "openai_chat": {"model": "m", "messages": [{"role": "user", "content": "x"}]},
    "anthropic": {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}]},
    "gemini": {"contents": [{"parts": [{"text": "x"}]}]},
    "openai_responses": {"model": "m", "input": "x"},
}
# What only the provider that is asked can do, by the name under which it is refused.
ONLY_THERE = re.compile(
    r"tools\[\]\.(\w+_20\d{6}|web_search\w*|code_interpreter|mcp|custom|tool_search|defer_loading|openrouter:\w+"
    r"|fileSearch|codeExecution|googleSearch|google_search|urlContext|code_execution|enterprise_web_search)"
    r"|(messages|contents|input)\[\](\.\w+(\[\])?)*|container|mcp_servers|cachedContent|batch|modelArmorConfig|prompt"
    r"|background|include|previous_response_id|provider|reasoning\.context|service_tier|parallel_tool_calls|n|store"
    r"|options|reasoning_format|thinking|safe_prompt|usage|models|transforms|search_settings|response_format|keep_alive"
    r"|format|content|role|attachments|min_p|repetition_penalty|echo|safety_model|logprobs|top_logprobs|logit_bias"
    r"|generationConfig\.\w+|reasoning_effort"
)


def recorded():
    for path in sorted(ROOT.glob("*/*.json")):
        dialect = KINDS.get(path.name.partition("-")[0])
        if dialect is not None and path.parent.name not in ("bedrock", "cohere"):
            yield pytest.param(dialect, path, id=f"{path.parent.name}-{path.stem}")


RECORDED = list(recorded())
ANSWERED = [found for found in RECORDED if found.values[0] in UPSTREAMS]


def said_beside(exchange):
    """What a Gemini path says."""
    found = re.search(r"models/([^:]+):(\w+)", exchange.target)
    stream = found is not None and found[2].startswith("stream")
    return Asked(model=found[1] if found else "", stream=stream, request_id="r", now=1)


def texts(value, found=None):
    """Every string of a JSON value that is long enough to be nobody's keyword, and every number with a fraction."""
    found = Counter() if found is None else found
    if isinstance(value, dict) and value.get("type") not in ("thinking", "reasoning"):
        for name, member in value.items():
            if name not in KEYWORDS:
                texts(member, found)
    elif isinstance(value, list):
        for member in value:
            texts(member, found)
    elif isinstance(value, str) and len(value) > 3:
        found[value] += 1
    elif isinstance(value, float) and not value.is_integer():
        found[str(value)] += 1
    return found


# Their values are words of the API, or what is known to say nothing to another provider (see docs/translation.md).
KEYWORDS = {
    *("type", "role", "mode", "thinking", "reasoning", "reasoning_content", "reasoning_effort", "thinkingConfig"),
    *("reasoning_details", "encrypted_content", "summary", "signature", "thoughtSignature", "thought_signature"),
    *("cache_control", "service_tier", "prompt_cache_options", "metadata", "user", "effort", "response_format"),
    *("tool_choice", "tool_config", "toolConfig", "media_type", "mimeType", "mime_type", "format", "status", "id"),
    *("call_id", "tool_call_id", "tool_use_id", "model", "safetySettings", "safety_settings", "include", "speed"),
    *("responseMimeType", "responseModalities", "stream_options", "detail", "truncation", "verbosity", "phase"),
    *("annotations", "prompt_cache_breakpoint", "inlineData", "inline_data", "input_audio", "client_metadata"),
    *("image_url", "file_data", "source", "caller", "labels", "modalities", "title", "filename", "displayName"),
    *("prompt_cache_key", "prompt_cache_retention", "safety_identifier", "text_format", "propertyOrdering", "name_"),
}


def inside(translated):
    """All of its text, arguments of tools included."""
    return json.dumps(translated, ensure_ascii=False).replace("\\\\", "\\").replace('\\"', '"')


@pytest.mark.parametrize(("dialect", "path"), RECORDED)
@pytest.mark.parametrize("upstream", UPSTREAMS)
def test_a_request_is_carried_or_refused_by_name(dialect, path, upstream):
    exchange = cassettes.load(path)
    if not exchange.request_body:
        pytest.skip("recorded without its request")
    try:
        sent = Translation(dialect, upstream, exchange.request_body, said_beside(exchange)).sent
    except Untranslatable as fault:
        named = [re.sub(r"\[\d+\]", "[]", name) for name in re.findall(r"'([^']+)'", fault.message)]
        assert named
        assert all(ONLY_THERE.fullmatch(name) for name in named), named
        return
    except BadBody:
        return  # the provider refused it, too, or never saw it
    body = decode(sent.body)
    text = inside(body)
    lost = [said for said in texts(decode(exchange.request_body)) if said.strip() and not present(said, text)]
    assert not lost, lost
    accepted_by_types(upstream, body)


def present(said, text):
    """Arguments and schemas may be encoded anew: then their words are there."""
    if inside(said)[1:-1] in text:
        return True
    words = re.findall(r"\w{4,}", said)
    return said.lstrip()[:1] in "{[" and all(word in text for word in words)


def accepted_by_types(upstream, body):
    if upstream == "gemini":
        for content in body["contents"]:
            genai.Content.model_validate(content)
        for tool in body.get("tools", ()):
            genai.Tool.model_validate(tool)
        genai.GenerateContentConfig.model_validate(
            {**body.get("generationConfig", {}), "systemInstruction": body.get("systemInstruction")}
        )
        genai.ToolConfig.model_validate(body.get("toolConfig", {}))
    else:  # servers that imitate OpenAI have words of their own
        own = ("service_tier", "reasoning_effort") if upstream == "openai_chat" else ()
        REQUESTS[upstream].validate_python({name: value for name, value in body.items() if name not in own})


REQUESTS = {"anthropic": TypeAdapter(MessageCreateParams), "openai_chat": TypeAdapter(CompletionCreateParams)}


def bare(value):
    """Without where it stood."""
    plain = msgspec.to_builtins(value)
    return drop(plain)


def drop(value):
    if isinstance(value, dict):
        return {name: drop(member) for name, member in value.items() if name not in ("at", "field", "cache")}
    if isinstance(value, list | tuple):
        return [drop(member) for member in value]
    return value


@pytest.mark.parametrize(("dialect", "path"), [found for found in RECORDED if found.values[0] in UPSTREAMS])
def test_read_and_written_again_a_request_says_the_same(dialect, path):
    exchange = cassettes.load(path)
    if not exchange.request_body:
        pytest.skip("recorded without its request")
    beside = said_beside(exchange)
    try:
        sent = Translation(dialect, dialect, exchange.request_body, beside).sent
    except (Untranslatable, BadBody):
        return  # see above
    losses = Losses()
    once = SIDES[dialect].read(decode(exchange.request_body), losses, beside)
    again = SIDES[dialect].read(decode(sent.body), losses, beside)
    assert not losses.lost
    assert meaning(once) == meaning(again)


def meaning(question):
    """What is left out where it says nothing: hints, reasoning that nobody signed, marks, ids that were made here."""
    found = bare(question)
    found["settings"] = {name: setting["value"] for name, setting in found["settings"].items() if not setting["hint"]}
    budget = found["settings"].pop("budget", -1)
    if budget > 0:  # some APIs have words for it only; -1 is said in the same words as an effort alone
        found["settings"]["effort"] = effort_of(budget)
    found.pop("usage")
    form = found["settings"].get("format")
    if form is not None and form["name"] == "answer":  # the API wants a name
        form["name"] = ""
    turns = []
    for message in found["messages"]:
        parts = [part for part in message["parts"] if keeps(part)]
        if turns and turns[-1][0] == message["role"]:
            turns[-1][1].extend(parts)
        elif parts:
            turns.append((message["role"], parts))
    found["messages"] = turns
    for pick in filter(None, [found["pick"]]):
        if not found["tools"] or (pick["mode"] == "auto" and not pick["names"]):
            found["pick"] = None
    return found


def keeps(part):
    for name in ("id", "name"):
        if "json" in part:  # a result: tied to its call by whatever id
            part.pop(name)
    if "arguments" in part:
        part["arguments"] = json.loads(part["arguments"] or "{}")
        part.pop("id")
        if part["signature"] == "skip_thought_signature_validator":
            part["signature"] = ""
    return not ("origin" in part and "kind" not in part) and part != {
        "text": "",
        "signature": "",
        "refusal": False,
    }


# -- answers ----------------------------------------------------------------------------------------------------------


def asking(client, upstream, *, stream):
    body = dict(PLAIN[client])
    if client != "gemini":
        body["stream"] = stream
    if client == "openai_chat" and stream:
        body["stream_options"] = {"include_usage": True}
    text = json.dumps(body).encode()
    return Translation(client, upstream, text, Asked(model="m", stream=stream, request_id="r", now=1))


def outcome(reply):
    """What a client is told, whatever the words. Several parts of one kind in a row are one."""
    found = []
    for choice in reply.choices:
        parts = []
        for part in bare(choice.parts):
            said = json.loads(part["arguments"]) if "arguments" in part else part["text"]
            kind = "call" if "arguments" in part else "thought" if "data" in part else "text"
            if kind == "call":
                parts.append((kind, part["name"], said))
            elif parts and parts[-1][0] == kind:
                parts[-1] = (kind, parts[-1][1] + said)
            elif said:
                parts.append((kind, said))
        # where a message keeps its texts in one member, they stand together
        order = {"thought": 0, "text": 1, "call": 2}
        grouped = {kind: "".join(p[1] for p in parts if p[0] == kind) for kind in ("thought", "text")}
        calls = sorted((p for p in parts if p[0] == "call"), key=lambda p: order[p[0]])
        found.append((choice.index, grouped, calls, choice.reason))
    usage = reply.usage
    if usage is None:
        return found, None
    read = min(usage.input_tokens, usage.cache_read_tokens)  # a server may state more tokens read than there are
    return found, (usage.input_tokens, usage.output_tokens, read, usage.reasoning_tokens)


def read_back(client, body, *, stream):
    """A client's answer, read by the dialect's own reader."""
    asked = Asked(request_id="r")
    if not stream:
        return gather(SIDES[client].document(object_of(body), asked))
    reader = SIDES[client].reader(asked)
    return gather([*reader.feed(body), *reader.end()])


def checked(client, body, *, stream):
    """The SDK's types take it."""
    if not stream:
        WHOLE[client](json.loads(body))
        return
    splitter = Splitter()
    events = [*splitter.feed(body), *splitter.end()]
    for name, data in events:
        if data == b"[DONE]":
            continue
        value = json.loads(data)
        PIECE[client](value)
        if client in ("anthropic", "openai_responses"):
            assert name.decode() == value["type"]
    assert events


WHOLE = {
    "openai_chat": lambda value: ChatCompletion.model_validate(value, strict=False),
    "anthropic": Message.model_validate,
    "gemini": genai.GenerateContentResponse.model_validate,
    "openai_responses": Response.model_validate,
}
PIECE = {
    "openai_chat": ChatCompletionChunk.model_validate,
    "anthropic": TypeAdapter(RawMessageStreamEvent).validate_python,
    "gemini": genai.GenerateContentResponse.model_validate,
    "openai_responses": TypeAdapter(ResponseStreamEvent).validate_python,
}
# Answers that no other dialect can carry, or that are none.
REFUSED = re.compile(
    r"cannot be translated: (server_tool_use|mcp_tool_use|executableCode|inlineData|audio|images|function_call)"
    r"|several answers at once|does not say why it ended|the answer is empty|cannot be put together|no JSON object"
    r"|filtered due to the prompt|unknown here: \w+|without success|"
)


@pytest.mark.parametrize(("upstream", "path"), ANSWERED)
@pytest.mark.parametrize("client", CLIENTS)
def test_an_answer_says_the_same_in_every_dialect(upstream, path, client):
    exchange = cassettes.load(path)
    if exchange.wire not in ("json", "sse"):
        pytest.skip("of another wire")
    stream = exchange.wire == "sse"
    translation = asking(client, upstream, stream=stream)
    if exchange.status >= 400:
        said = json.loads(translation.error(exchange.status, exchange.body))
        assert said["error"]["message"]
        return
    refused = ""
    try:
        if not stream:
            body = translation.document(exchange.body)
        else:
            translator = translation.stream()
            body = translator.feed(exchange.body) + translator.end()
            if not translator.done:
                assert translator.failed
                assert REFUSED.search(body.decode())
                assert whole_events(client, body)
                return
    except BadAnswer as fault:
        refused = fault.message
    if refused:
        assert REFUSED.search(refused), refused
        return
    checked(client, body, stream=stream)
    if client == "openai_responses":
        return  # has no reader; its types were checked, and see test_translate_answers
    source = read_back(upstream, exchange.body, stream=stream)
    there, here = outcome(source), outcome(read_back(client, body, stream=stream))
    if client == "anthropic" and source.usage is None:
        there = (there[0], (0, 0, 0, 0))
    assert there == here


def whole_events(client, body):
    """Even a stream that failed is made of whole events, the last of which says so."""
    splitter = Splitter()
    events = splitter.feed(body)
    assert not splitter.end()
    last = json.loads(events[-1][1])
    return last.get("error") or last["response"]["error"]


@pytest.mark.parametrize(("upstream", "path"), [found for found in ANSWERED if "-sse-" in found.id])
def test_pieces_of_any_size_and_cuts_anywhere(upstream, path):
    """At each cut the client's stream is complete exactly if the upstream's is; the pieces make no difference."""
    exchange = cassettes.load(path)
    dice = random.Random(len(exchange.body))
    for client in CLIENTS:
        translation = asking(client, upstream, stream=True)
        whole = translation.stream()
        expected = whole.feed(exchange.body) + whole.end()
        pieces = [exchange.body[at : at + 1] for at in range(len(exchange.body))] if len(exchange.body) < 9000 else []
        for split in (pieces, cut(exchange.body, dice)):
            if split:
                translator = translation.stream()
                assert b"".join([*map(translator.feed, split), translator.end()]) == expected
        for _ in range(12):
            end = dice.randrange(len(exchange.body))
            translator = translation.stream()
            out = translator.feed(exchange.body[:end]) + translator.end()
            assert expected.startswith(out) or translator.failed or translator.done
            if not translator.failed:
                assert translator.done == complete(upstream, exchange.body[:end])


def cut(body, dice):
    at = [0, *sorted(dice.randrange(len(body) + 1) for _ in range(20)), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(at)]


def complete(upstream, body):
    dialect = DIALECTS[upstream]
    path = b"/v1beta/models/m:streamGenerateContent?alt=sse"
    route = Route("t", upstream, "chat", "up", path)
    asked = dialect.read(route, Request(b"POST", path, (), b'{"stream":true}'))
    meter = dialect.meter(route, asked, 200, b"text/event-stream")
    meter.feed(body)
    answer = meter.end()
    return answer.complete and not meter.failed


def test_there_are_recordings():
    assert len(ANSWERED) > 100
