"""Ollama's own API: /api/chat, /api/generate, /api/embed and /api/embeddings.

A stream is what one gets unless one declines: lines of JSON, of which the last says `done` and brings the counts. An
error in mid-stream is a line that holds nothing else.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.call import Answer, Asked, Bounds, Edit, Request, Route, Usage, UsageSource
from gateway.dialects import allowance, faults, finish, lowering
from gateway.dialects.asking import asked, elements, model_name, params, raw_bytes, read_folded
from gateway.dialects.base import BaseDialect, closing, inner
from gateway.dialects.body import object_at
from gateway.dialects.json_lines import LineCutter
from gateway.dialects.meters import Draft, JsonMeter, first_text
from gateway.dialects.native_usage import ollama_usage
from gateway.dialects.shape import DECODE_FAULTS, NO_RAW, Shape, is_set
from gateway.dialects.streams import EventMeter
from gateway.dialects.usage import as_dict
from gateway.errors import GatewayError
from gateway.ports import ErrorAnswer, Meter

EMBEDS = "embeddings"  # operation
LINES, JSON = b"application/x-ndjson", b"application/json"
FALSE = Raw(b"false")
_IDLE = frozenset(("load", "unload"))  # reasons of an end without an answer: the model came into memory, or left it
_encode = msgspec.json.Encoder().encode


class _Function(Struct, gc=False):
    name: Any = None
    arguments: Raw = NO_RAW


class _Call(Struct, gc=False):
    id: Any = None
    function: _Function | None = None


class _Message(Struct, gc=False):
    content: Any = None
    thinking: Any = None
    tool_calls: list[_Call] | None = None


class Chunk(Struct, gc=False):
    """A line of a stream, or a whole answer."""

    model: Any = None
    created_at: Any = None
    message: _Message | None = None
    response: Any = None  # of generate, in the place of a message
    thinking: Any = None
    done: Any = None
    done_reason: Any = None
    prompt_eval_count: Any = None
    eval_count: Any = None
    error: Any = None


_chunk = Shape(Chunk)


def note(draft: Draft, chunk: Chunk) -> None:
    draft.named(chunk.model, None)
    message = chunk.message
    if message is not None:
        draft.other(message.thinking)
        if type(message.content) is str:
            draft.text(message.content)
        for call in message.tool_calls or ():
            function = call.function or _Function()
            draft.tool(object(), call.id, function.name)
            if is_set(function.arguments):
                draft.other(bytes(function.arguments).decode("utf-8", "replace"))
    draft.other(chunk.thinking)
    if type(chunk.response) is str:
        draft.text(chunk.response)
    reason = chunk.done_reason
    if reason and type(reason) is str:
        draft.finish[0] = reason
    if chunk.prompt_eval_count is not None or chunk.eval_count is not None:
        draft.usage = ollama_usage(chunk.prompt_eval_count, chunk.eval_count)
    elif chunk.done is True and draft.finish.get(0) in _IDLE:
        draft.usage = Usage()


def judged(answer: Answer) -> Answer:
    """Older servers say nothing of a prompt that they had in their cache: then its size is left to be estimated."""
    usage = answer.usage
    if usage is not None and usage.output_tokens and not usage.input_tokens:
        answer.usage_source = UsageSource.ESTIMATED
    return answer


class OllamaDocument(JsonMeter):
    def read(self, body: bytes) -> None:
        found = _chunk.salvage(body)
        if found is not None:
            note(self.draft, found)
            if found.error:
                self.draft.error("error", first_text(found.error))

    def read_tail(self, tail: bytes) -> None:
        """The counts stand behind the embeddings."""
        self.read(b"{" + tail[tail.rfind(b"]") + 1 :].lstrip(b" ]},\r\n"))

    def end(self) -> Answer:
        return judged(super().end())


class OllamaStream(EventMeter[Chunk]):
    shape = _chunk
    alarms = (b"error", b'"done"')
    early = "length"
    gap = b"\n"

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked, LineCutter())
        self.created = ""

    def take(self, events: list[Chunk]) -> bool:
        for chunk in events:
            note(self.draft, chunk)
            if type(chunk.created_at) is str:
                self.created = chunk.created_at
            if chunk.error:
                self.fail("error", first_text(chunk.error))
            elif chunk.done is True:
                self.terminal = not self.failed
        return bool(events)

    def end(self) -> Answer:
        return judged(super().end())


class Ollama(BaseDialect):
    name = "ollama"

    def question(self, route: Route, request: Request) -> Asked:
        found = read_folded(request.body, ("messages", "input"))
        if found is None:
            return Asked()
        fields, options = found.fields, object_at(request.body, found.spans, "options")[0]
        return asked(
            found,
            params(options),
            model=model_name(fields),
            stream=route.operation != EMBEDS and fields.get("stream") != FALSE,
            max_tokens=allowance.predicted(options),
            messages=next((elements(found, name) for name in ("messages", "prompt", "input") if name in fields), ()),
            system=raw_bytes(fields.get("system")),
            tools=raw_bytes(fields.get("tools")),
        )

    def bounds(self, route: Route, asked: Asked) -> Bounds:
        return Bounds(0) if route.operation == EMBEDS else allowance.ollama(asked)

    def document(self, route: Route, asked: Asked, status: int) -> Meter:
        return OllamaDocument(asked, status)

    def stream(self, route: Route, asked: Asked) -> Meter:
        return OllamaStream(asked)

    def meter(self, route: Route, asked: Asked, status: int, content_type: bytes) -> Meter:
        if route.operation and asked.stream and status < 400 and not content_type.startswith(JSON):
            return OllamaStream(asked)
        return super().meter(route, asked, status, content_type)

    def writes_into(self, route: Route, kind: bytes) -> bool:
        return bool(route.operation) and kind.startswith(LINES)

    def cap_output(
        self, route: Route, asked: Asked, body: bytes, ceiling: int, model: str = ""
    ) -> tuple[Edit, ...] | None:
        return None if route.operation == EMBEDS else lowering.cap_ollama(asked, body, ceiling)

    def lower_effort(self, route: Route, asked: Asked, body: bytes, effort: str, model: str = "") -> tuple[Edit, ...]:
        return lowering.lower_ollama(asked, body, effort)

    def finish_early(
        self, meter: Meter, asked: Asked, request_id: str, usage: Usage, note: str = "budget_exceeded"
    ) -> bytes:
        stream = inner(meter)
        if not isinstance(stream, OllamaStream):
            return b""
        said = {"message": {"role": "assistant", "content": ""}} if "messages" in asked.fields else {"response": ""}
        head = {"model": stream.draft.model or asked.model, "created_at": stream.created, **said}
        return _encode({**head, **finish.ollama(usage, note)}) + b"\n"

    def refusal(
        self,
        fault: GatewayError,
        request_id: str,
        *,
        stream: bool,
        route: Route | None = None,
        asked: Asked | None = None,
    ) -> ErrorAnswer:
        return ErrorAnswer(fault.status, faults.headers(fault, fault.status), _encode({"error": fault.message}))

    def restate(self, route: Route, frame: bytes) -> ErrorAnswer | None:
        line = frame.strip().partition(b"\n")[0]
        try:
            value = as_dict(msgspec.json.decode(line))
        except DECODE_FAULTS:
            return None
        if not value.get("error") or value.get("done"):
            return None
        status = value.get("status_code")
        status = status if type(status) is int and 400 <= status <= 599 else 500
        return ErrorAnswer(status, [faults.JSON_TYPE], line)

    def interruption(self, fault: GatewayError, meter: Meter, request_id: str) -> bytes:
        return closing(meter) + _encode({"error": fault.message, "tollgate_code": fault.code}) + b"\n"
