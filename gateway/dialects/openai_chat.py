"""OpenAI chat completions and legacy completions, and the many servers that imitate them.

Usage comes in the last chunk, in some flavours in every chunk (cumulative: the last counts), at Groq also under
`x_groq`. Streams end with `[DONE]`; flavours that do not send it are taken as complete once every choice has its
finish reason (and the usage has come, where the client asked for it).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.call import Answer, Asked, Bounds, Edit, Request, Route, Usage
from gateway.dialects import allowance, faults, finish, last_turn, lowering, replay
from gateway.dialects.asking import asked, elements, flag, limit, model_name, raw_bytes, read_body
from gateway.dialects.base import BaseDialect, closing, inner
from gateway.dialects.body import nested
from gateway.dialects.injection import UsageStripper, asks_usage, is_rejection, usage_edit
from gateway.dialects.meters import Draft, JsonMeter, decode_error, find_object
from gateway.dialects.shape import DECODE_FAULTS, NO_RAW, Shape, is_set
from gateway.dialects.sse import frames, without_done
from gateway.dialects.streams import EventMeter
from gateway.dialects.usage import as_dict, openai_usage
from gateway.errors import GatewayError
from gateway.ports import ErrorAnswer, LastTurn, Meter, Stripper


class _Function(Struct, gc=False):
    name: Any = None
    arguments: Any = None
    input: Any = None


class _ToolCall(Struct, gc=False):
    index: Any = None
    id: Any = None
    function: _Function | None = None
    custom: _Function | None = None


class _Message(Struct, gc=False):
    """A message, or the delta of one."""

    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None


class _Choice(Struct, gc=False):
    index: Any = 0
    delta: _Message | None = None
    message: _Message | None = None
    text: Any = None
    finish_reason: Any = None


class _Groq(Struct, gc=False):
    usage: Raw = NO_RAW


class Chunk(Struct, gc=False):
    """What every chunk of a completion may bring."""

    choices: list[_Choice] | None = None
    usage: Raw = NO_RAW
    error: Raw = NO_RAW
    message: Any = None  # of errors that vLLM words without `error`
    x_groq: _Groq | None = None
    service_tier: Any = None


class Completion(Chunk, gc=False):
    """A completion, or a chunk from which its names are still to be learned."""

    id: Any = None
    model: Any = None
    created: Any = None


def note(draft: Draft, chunk: Chunk, *, whole: bool = False) -> None:
    """Add what a completion (`whole`) or a chunk says; where both kinds of message stand in one, the fitting one."""
    for choice in chunk.choices or ():
        index = choice.index if type(choice.index) is int else 0
        message = (choice.message or choice.delta) if whole else (choice.delta or choice.message)
        if message is not None:
            _note_message(draft, index, message)
        elif type(choice.text) is str:
            _note_text(draft, index, choice.text)
        if choice.finish_reason and type(choice.finish_reason) is str:
            draft.finish[index] = choice.finish_reason
    if type(chunk.service_tier) is str:
        draft.pricing["service_tier"] = chunk.service_tier
    if len(chunk.usage) > 4:  # longer than null
        draft.usage = openai_usage(chunk.usage)
        if "service_tier" not in draft.pricing and bytes(chunk.usage).find(b"service_tier") >= 0:
            _note_tier(draft, chunk.usage)
    elif chunk.x_groq is not None and is_set(chunk.x_groq.usage):
        draft.usage = openai_usage(chunk.x_groq.usage)


def _note_text(draft: Draft, index: int, text: str) -> None:
    if index == 0:
        draft.text(text)
    else:
        draft.other(text)


def _note_message(draft: Draft, index: int, message: _Message) -> None:
    content = message.content
    if content:
        if type(content) is not str:
            _note_parts(draft, index, content)
        elif index == 0:
            draft.text(content)
        else:
            draft.other(content)
    if message.reasoning_content is not None:
        draft.other(message.reasoning_content)
    elif message.reasoning is not None:
        draft.other(message.reasoning)
    if message.refusal is not None:
        draft.refusal(message.refusal)
    for position, call in enumerate(message.tool_calls or ()):
        function = call.function or call.custom or _Function()
        key = call.index if type(call.index) is int else call.id if type(call.id) is str else position
        draft.tool((index, key), call.id, function.name)
        draft.other(function.arguments)
        draft.other(function.input)
    if message.function_call is not None:  # the form before tools; it has no id
        draft.tool((index, "function_call"), "", message.function_call.name)
        draft.other(message.function_call.arguments)


def _note_parts(draft: Draft, index: int, content: Any) -> None:
    """Content in parts: text, and the thinking parts of Mistral, which nest more parts."""
    for part in content if type(content) is list else ():
        if type(part) is dict:
            if type(part.get("text")) is str:
                _note_text(draft, index, part["text"])
            for thought in part["thinking"] if type(part.get("thinking")) is list else ():
                draft.other(thought.get("text") if type(thought) is dict else thought)


def _note_tier(draft: Draft, usage: Raw) -> None:
    """Mistral states the service tier in its usage."""
    try:
        tier = as_dict(msgspec.json.decode(usage)).get("service_tier")
    except DECODE_FAULTS:
        return
    if type(tier) is str:
        draft.pricing["service_tier"] = tier


def _says(chunk: Chunk) -> bool:
    """More than who is going to answer, as the first chunk of most providers, or what a filter thinks of the prompt?"""
    if chunk.choices is None or len(chunk.usage) > 4:
        return True
    for choice in chunk.choices:
        delta = choice.delta
        if choice.finish_reason or choice.text or (delta is None and choice.text is None):
            return True
        if delta is not None and (
            (delta.content or delta.reasoning_content or delta.reasoning or delta.refusal)
            or (delta.tool_calls or delta.function_call)
        ):
            return True
    return False


_completion = Shape(Completion)
_named_chunk = Shape[Chunk](Completion)
_chunk: Shape[Chunk] = Shape(Chunk)


class ChatDocument(JsonMeter):
    def read(self, body: bytes) -> None:
        completion = _completion.salvage(body)
        if completion is None:
            return
        note(self.draft, completion, whole=True)
        self.draft.named(completion.model, completion.id)
        if len(completion.error) and is_set(completion.error):
            facts = decode_error(body)
            if facts:
                self.draft.error(*facts)

    def read_tail(self, tail: bytes) -> None:
        self.draft.usage = openai_usage(find_object(tail, b"usage"))


class ChatStream(EventMeter[Chunk]):
    shape: Shape[Chunk] = _named_chunk
    alarms = (b"error", b"[DONE]")
    early = "length"
    created = 0

    def take(self, events: list[Chunk]) -> bool:
        draft = self.draft
        said: list[str] = []
        for chunk in events:
            choices = chunk.choices
            if choices is not None and len(choices) == 1 and len(chunk.usage) <= 4 and not len(chunk.error):
                choice = choices[0]
                delta = choice.delta
                if (  # a piece of text of the first choice and nothing else: almost every chunk
                    delta is not None
                    and type(delta.content) is str
                    and choice.finish_reason is None
                    and choice.index == 0
                    and chunk.x_groq is None
                    and delta.tool_calls is None
                    and delta.reasoning_content is None
                    and delta.reasoning is None
                    and delta.refusal is None
                    and delta.function_call is None
                ):
                    said.append(delta.content)
                    continue
            if said:
                draft.text("".join(said))
                said.clear()
            note(draft, chunk)
            if is_set(chunk.error):
                self.fail(*(decode_error(b'{"error":%b}' % bytes(chunk.error)) or ("error", "")))
            elif chunk.choices is None and type(chunk.message) is str and not self.failed:
                self.fail("error", chunk.message)
        if said:
            draft.text("".join(said))
        if self.shape is _named_chunk:
            self._learn_names(events)
        if self.started:
            return True
        self.begun = self.begun or bool(events)
        return any([_says(chunk) for chunk in events])

    def _learn_names(self, events: list[Chunk]) -> None:
        """The first model and id count; once both are known, chunks are decoded without them."""
        draft = self.draft
        for chunk in events:
            if draft.model and draft.response_id and self.created:
                break
            assert isinstance(chunk, Completion)
            draft.named(None if draft.model else chunk.model, None if draft.response_id else chunk.id)
            if not self.created and type(chunk.created) is int:
                self.created = chunk.created
        if draft.model and draft.response_id:
            self.shape = _chunk

    def choices(self) -> Iterable[int]:
        return range(allowance.streamed(self.asked.fields))

    def done(self) -> None:
        self.terminal = True

    def end(self) -> Answer:
        answer = super().end()
        self.terminal = answer.complete
        return answer

    def finished(self) -> bool:
        if self.terminal:
            return True
        if self.failed or not self.draft.finish:
            return False
        return self.draft.usage is not None or not asks_usage(self.asked.fields)


class OpenAIFamily(BaseDialect):
    """Error words and mid-stream errors of the OpenAI APIs that stream plain chunks."""

    def refusal(
        self,
        fault: GatewayError,
        request_id: str,
        *,
        stream: bool,
        route: Route | None = None,
        asked: Asked | None = None,
    ) -> ErrorAnswer:
        return faults.openai_refusal(fault, request_id)

    def restate(self, route: Route, frame: bytes) -> ErrorAnswer | None:
        for name, data in frames(frame):
            chunk = _chunk.salvage(data)
            if chunk is None or name == b"error" or _says(chunk) or is_set(chunk.error):
                return _restated(name, data)
        return None

    def interruption(self, fault: GatewayError, meter: Meter, request_id: str) -> bytes:
        error = msgspec.json.encode({"error": faults.openai_error(fault)})
        return b"%bdata: %b\n\n" % (closing(meter), error)

    def unfinished(self, tail: bytes) -> bytes:
        return without_done(tail)


def _restated(name: bytes, data: bytes) -> ErrorAnswer | None:
    try:
        value = msgspec.json.decode(data)
    except DECODE_FAULTS:
        return None
    if type(value) is not dict:
        return None
    error = value.get("error")
    if error is None and (name == b"error" or value.get("object") == "error"):
        error = value
    if not error or value.get("choices"):
        return None
    return ErrorAnswer(faults.openai_status(error), [faults.JSON_TYPE], data)


class OpenAIChat(OpenAIFamily):
    """Chat completions, and legacy completions under the name `openai_completions`."""

    ping = b": ping\n\n"

    def __init__(self, name: str = "openai_chat") -> None:
        self.name = name
        self.legacy = name == "openai_completions"

    def question(self, route: Route, request: Request) -> Asked:
        found = read_body(request.body, ("messages",))
        if found is None:
            return Asked()
        fields = found.fields
        if "stream_options" in fields and request.body[found.spans["stream_options"][0]] == 0x7B:
            nested(request.body, found.spans["stream_options"], "stream_options")
        return asked(
            found,
            model=model_name(fields),
            stream=flag(fields.get("stream")),
            max_tokens=limit(fields, "max_completion_tokens", "max_tokens"),
            messages=elements(found, "messages" if "messages" in fields else "prompt"),
            tools=raw_bytes(fields.get("tools") or fields.get("functions")),
        )

    def bounds(self, route: Route, asked: Asked) -> Bounds:
        return allowance.chat(asked)

    def document(self, route: Route, asked: Asked, status: int) -> Meter:
        return ChatDocument(asked, status)

    def stream(self, route: Route, asked: Asked) -> Meter:
        return ChatStream(asked)

    def inject_usage(self, route: Route, asked: Asked, body: bytes) -> Edit | None:
        return usage_edit(asked, body)

    def cap_output(
        self, route: Route, asked: Asked, body: bytes, ceiling: int, model: str = ""
    ) -> tuple[Edit, ...] | None:
        if self.legacy:
            return lowering.cap_completion(asked, body, ceiling)
        return lowering.cap_chat(asked, body, ceiling, model or asked.model)

    def lower_effort(self, route: Route, asked: Asked, body: bytes, effort: str, model: str = "") -> tuple[Edit, ...]:
        return lowering.lower_openai(asked, body, effort, model or asked.model)

    def finish_early(
        self, meter: Meter, asked: Asked, request_id: str, usage: Usage, note: str = "budget_exceeded"
    ) -> bytes:
        stream = inner(meter)
        if not isinstance(stream, ChatStream):
            return b""
        draft = stream.draft
        head = {
            "id": draft.response_id or f"chatcmpl-{request_id}",
            "object": "text_completion" if self.legacy else "chat.completion.chunk",
            "created": stream.created,
            "model": draft.model or asked.model,
        }
        stated = usage if asks_usage(asked.fields) else None
        return self.remark(note) + finish.chat(head, stream.unfinished, stated, legacy=self.legacy)

    def streamed(self, route: Route, asked: Asked, body: bytes) -> bytes | None:
        usage = asks_usage(asked.fields)
        return replay.attempted(lambda: replay.chat_stream(body, legacy=self.legacy, usage=usage))

    def gathered(self, route: Route, asked: Asked, body: bytes) -> bytes | None:
        return replay.attempted(lambda: replay.chat_document(body, legacy=self.legacy))

    def last_turn(self, route: Route, value: Mapping[str, Any]) -> LastTurn:
        return super().last_turn(route, value) if self.legacy else last_turn.chat(value)

    def said(self, document: bytes) -> str | None:
        return None if self.legacy else last_turn.chat_answer(document)

    def stripper(self) -> Stripper:
        return UsageStripper()

    def rejects_injection(self, status: int, body: bytes) -> bool:
        return is_rejection(status, body)
