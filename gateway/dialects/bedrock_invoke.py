"""`invoke` and `invoke-with-response-stream` of Amazon Bedrock: each model speaks in its maker's own words.

Anthropic's requests are read as on its own API. Of the others the text, the limit of the output and the usage are read,
by the tables of the user guide ("Inference request parameters and response fields for foundation models"). Every chunk
of a stream holds the maker's event in base64; the last one also `amazon-bedrock-invocationMetrics`, with the usage.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw, Struct

from gateway.call import Asked, Bounds, Edit, Request, Route, Usage
from gateway.dialects import allowance, eventstream, finish, lowering
from gateway.dialects.anthropic import MessageDocument, MessageStream
from gateway.dialects.asking import asked, elements, params, raw_bytes, read_body
from gateway.dialects.base import inner
from gateway.dialects.bedrock import Bedrock, model_in, streams
from gateway.dialects.body import object_at
from gateway.dialects.eventstream import FrameCutter
from gateway.dialects.meters import Draft, JsonMeter, find_object
from gateway.dialects.shape import NO_RAW, Shape, decoded, is_set
from gateway.dialects.sse import Event, Splitter
from gateway.dialects.streams import EventMeter
from gateway.dialects.usage import anthropic_usage, as_dict, bedrock_usage, openai_usage
from gateway.ports import Meter

METRICS = "amazon-bedrock-invocationMetrics"
WITHOUT_OUTPUT = ("embeddings", "rerank")
TEXTS = frozenset({"text", "outputText", "generation", "completion", "content", "reasoning", "reasoning_content"})
REASONS = frozenset({"stop_reason", "stopReason", "finish_reason", "completionReason"})
DEPTH = 8  # of an answer in which text is looked for


class Limit(NamedTuple):
    """Where the models of a maker read the limit of their output: in an object of the body, or at its top."""

    models: str
    place: str
    names: tuple[str, ...]


LIMITS = (
    Limit(r"anthropic\.|claude", "", ("max_tokens", "max_tokens_to_sample")),
    Limit(r"amazon\.nova", "inferenceConfig", ("maxTokens", "max_new_tokens")),
    Limit(r"amazon\.titan", "textGenerationConfig", ("maxTokenCount",)),
    Limit(r"meta\.", "", ("max_gen_len",)),
    Limit(r"ai21\.", "", ("max_tokens", "maxTokens")),
    Limit(r"(?:mistral|cohere|deepseek|openai|qwen|moonshot\w*|minimax|zai|google|nvidia)\.", "",
          ("max_tokens", "max_completion_tokens")),
)  # fmt: skip
CHOICES = ("num_generations", "numResults", "n")


def limit_of(model: str) -> Limit | None:
    return next((one for one in LIMITS if re.search(one.models, model)), None)


class _Answer(Struct, gc=False, rename={"metrics": METRICS}):
    usage: Raw = NO_RAW
    metrics: Raw = NO_RAW
    inputTextTokenCount: Any = None  # Titan
    results: Any = None
    prompt_token_count: Any = None  # Llama
    generation_token_count: Any = None


_answer = Shape(_Answer)


def usage_in(answer: _Answer) -> Usage | None:
    """In whatever words; those of Bedrock itself where several are there."""
    if is_set(answer.metrics):
        return bedrock_usage(answer.metrics)
    if is_set(answer.usage):
        stated = as_dict(decoded(answer.usage))
        if "input_tokens" in stated:
            return anthropic_usage(stated)
        return openai_usage(answer.usage) if "prompt_tokens" in stated else bedrock_usage(answer.usage)
    outputs, inputs = answer.generation_token_count, answer.prompt_token_count
    if answer.inputTextTokenCount is not None:
        results = answer.results if type(answer.results) is list else []
        counts = [as_dict(one).get("tokenCount") for one in results]
        inputs, outputs = answer.inputTextTokenCount, sum([one for one in counts if type(one) is int])
    if inputs is None:
        return None
    return bedrock_usage(msgspec.json.encode({"inputTokens": inputs, "outputTokens": outputs}))


def note(draft: Draft, value: Any, depth: int = DEPTH) -> None:
    """Every text of an answer, which tools it calls, and why it ended."""
    if type(value) is list:
        for one in value:
            note(draft, one, depth - 1)
    elif type(value) is dict and depth > 0:
        use, function = as_dict(value.get("toolUse")), as_dict(value.get("function"))
        if use or function:
            draft.tool(object(), use.get("toolUseId") or value.get("id"), use.get("name") or function.get("name"))
        for name, inside in value.items():
            if type(inside) is not str:
                note(draft, inside, depth - 1)
            elif name in TEXTS:
                draft.text(inside)
            elif name in REASONS:
                draft.finish[0] = inside


class InvokeDocument(JsonMeter):
    def read(self, body: bytes) -> None:
        answer = _answer.salvage(body)
        if answer is None:
            return
        self.draft.usage = usage_in(answer)
        value = as_dict(decoded(body))
        note(self.draft, {name: inside for name, inside in value.items() if name not in _VECTORS})

    def read_tail(self, tail: bytes) -> None:
        self.draft.usage = bedrock_usage(find_object(tail, b"usage"))


_VECTORS = frozenset({"embedding", "embeddings", "embeddingsByType", "texts"})


class ChunkCutter(FrameCutter):
    """The makers' events out of the chunks that hold them."""

    __slots__ = ()

    def feed(self, data: bytes) -> list[Event]:
        return [event if event[0] == b"error" else (b"", _held(event[1])) for event in super().feed(data)]


def _held(payload: bytes) -> bytes:
    held = as_dict(decoded(payload)).get("bytes")
    try:
        return base64.b64decode(held, validate=True) if type(held) is str else payload
    except binascii.Error:
        return payload


class InvokeStream(EventMeter[_Answer]):
    shape = _answer
    alarms = (b"", b"")
    early = "max_tokens"

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked, ChunkCutter())

    def _decode(self, data: list[bytes]) -> None:
        for one in data:
            note(self.draft, decoded(one))
        super()._decode(data)

    def take(self, events: list[_Answer]) -> bool:
        for event in events:
            if is_set(event.metrics):
                self.draft.usage = usage_in(event)
                self.terminal = True
        return bool(events)


class BedrockInvoke(Bedrock):
    name = "bedrock_invoke"

    def question(self, route: Route, request: Request) -> Asked:
        model, stream = model_in(route), streams(route)
        found = read_body(request.body, ("messages",))
        if found is None:
            return Asked(model=model, stream=stream)
        known = limit_of(model)
        config = (
            object_at(request.body, found.spans, known.place)[0] if known is not None and known.place else found.fields
        )
        return asked(
            found,
            params(config) if config is not found.fields else None,
            model=model,
            stream=stream,
            max_tokens=allowance.largest(config, known.names) if known is not None else None,
            messages=elements(found, "messages"),
            system=raw_bytes(found.fields.get("system")),
            tools=raw_bytes(found.fields.get("tools")),
        )

    def bounds(self, route: Route, asked: Asked) -> Bounds:
        if _is_anthropic(asked):
            return allowance.messages(asked)
        names, server = allowance.declared(asked.tools)
        return Bounds(asked.max_tokens, allowance.times(asked.fields, *CHOICES), "", server, names)

    def document(self, route: Route, asked: Asked, status: int) -> Meter:
        return MessageDocument(asked, status) if _is_anthropic(asked) else InvokeDocument(asked, status)

    def stream(self, route: Route, asked: Asked) -> Meter:
        return MessageStream(asked, ChunkCutter()) if _is_anthropic(asked) else InvokeStream(asked)

    def cap_output(
        self, route: Route, asked: Asked, body: bytes, ceiling: int, model: str = ""
    ) -> tuple[Edit, ...] | None:
        known = limit_of(model or asked.model)
        if not route.operation or route.operation in WITHOUT_OUTPUT or known is None:
            return None
        if _is_anthropic(asked):
            return lowering.cap_messages(asked, body, ceiling)
        if known.place:
            return lowering.cap_nested(asked, body, ceiling, known.place, known.names)
        return lowering.cap_flat(asked, body, ceiling, known.names, known.names[0])

    def finish_early(
        self, meter: Meter, asked: Asked, request_id: str, usage: Usage, note: str = "budget_exceeded"
    ) -> bytes:
        stream = inner(meter)
        if isinstance(stream, MessageStream):
            text = finish.messages(stream.blocks, stream.stated, usage, delta=bool(stream.unfinished))
            events = [decoded(data) for _, data in Splitter().feed(text)]
        elif isinstance(stream, InvokeStream):
            events = [{"stop_reason": "max_tokens"}]
        else:
            return b""
        figures = {"inputTokenCount": usage.input_tokens, "outputTokenCount": usage.output_tokens}
        events[-1] = {**events[-1], METRICS: figures, "tollgate": finish.one_line(note)}
        return b"".join(map(_chunk, events))


def _is_anthropic(asked: Asked) -> bool:
    return "anthropic_version" in asked.fields and len(asked.messages) > 0


def _chunk(value: Mapping[str, Any]) -> bytes:
    held = base64.b64encode(msgspec.json.encode(value))
    return eventstream.event(b"chunk", b'{"bytes":"%b"}' % held)
