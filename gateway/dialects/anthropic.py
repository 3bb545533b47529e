"""Anthropic messages, count_tokens and batches.

Streamed usage is cumulative: `message_start` states it, `message_delta` states it again, so each field overwrites
the one before when it is present and not null; nothing is added up. The totals leave out what was sampled apart from
the message: the `iterations` of compaction, of advisors and of fallback models, which become parts of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.call import Answer, Asked, Bounds, Edit, Request, Route, Usage, UsageSource
from gateway.dialects import allowance, cache_marks, faults, finish, last_turn, lowering, replay
from gateway.dialects.asking import asked, elements, flag, limit, model_name, raw_bytes, read_body
from gateway.dialects.base import BaseDialect, closing, inner, path_model
from gateway.dialects.meters import Draft, JsonMeter, decode_error, find_object, first_text
from gateway.dialects.shape import DECODE_FAULTS, NO_RAW, Shape, is_set
from gateway.dialects.sse import parse_frame
from gateway.dialects.streams import Cutter, EventMeter
from gateway.dialects.usage import anthropic_usage, as_dict
from gateway.errors import GatewayError
from gateway.ports import ErrorAnswer, LastTurn, Meter


class _Block(Struct, gc=False):
    """A content block, or the delta of one."""

    type: Any = None
    id: Any = None
    name: Any = None
    text: Any = None
    thinking: Any = None
    partial_json: Any = None
    stop_reason: Any = None
    input: Raw = NO_RAW


class Message(Struct, gc=False):
    type: Any = None
    id: Any = None
    model: Any = None
    content: list[_Block] | None = None
    stop_reason: Any = None
    usage: Raw = NO_RAW
    error: Raw = NO_RAW


class StreamEvent(Struct, gc=False):
    type: Any = None
    index: Any = None
    message: Message | None = None
    content_block: _Block | None = None
    delta: _Block | None = None
    usage: Raw = NO_RAW
    error: Raw = NO_RAW


_message = Shape(Message)
BEGINNING = "message_start"
MAX_BLOCKS = 1024  # that are open at once


class Totals:
    """The usage of one message, field by field as last stated."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}

    def state(self, raw: Raw | bytes) -> None:
        try:
            stated = as_dict(msgspec.json.decode(raw))
        except DECODE_FAULTS:
            return
        for name, value in stated.items():
            if value is not None:
                self.fields[name] = value

    def settle(self, draft: Draft) -> None:
        """Write usage, price context and parts into the draft."""
        fields = self.fields
        for name in ("service_tier", "speed", "inference_geo"):
            value = fields.get(name)
            if type(value) is str and value != "not_available":
                draft.pricing[name] = value
        draft.usage = anthropic_usage(fields)
        iterations = fields.get("iterations")
        if draft.usage is not None and type(iterations) is list:
            draft.usage, draft.parts = _apart(draft.usage, iterations, draft.pricing)


def _apart(
    total: Usage, iterations: list[Any], pricing: dict[str, str]
) -> tuple[Usage, tuple[tuple[Usage, str, dict[str, str]], ...]]:
    """What of the iterations the totals leave out. A part without a model of its own is billed as the message's.

    A `fallback_message` stands in place of a `message`: it is a part unless the totals are exactly its own figures;
    where they include it beside the messages, it is taken out of them.
    """
    parts: list[tuple[Usage, str, dict[str, str]]] = []
    messages, fallbacks = [0, 0], [0, 0]
    swapped: list[tuple[Usage, str, dict[str, str]]] = []
    for entry in map(as_dict, iterations[:1000]):
        usage = anthropic_usage(entry)
        if usage is None:
            continue
        kind = entry.get("type")
        if kind == "message":
            messages = [messages[0] + usage.input_tokens, messages[1] + usage.output_tokens]
            continue
        model = entry.get("model")
        part = (usage, model if type(model) is str else "", pricing)
        if kind == "fallback_message":
            fallbacks = [fallbacks[0] + usage.input_tokens, fallbacks[1] + usage.output_tokens]
            swapped.append(part)
        else:
            parts.append(part)
    stated = [total.input_tokens, total.output_tokens]
    if swapped and stated == fallbacks:
        return total, tuple(parts)
    if swapped and stated == [messages[0] + fallbacks[0], messages[1] + fallbacks[1]]:
        total = _minus(total, [part[0] for part in swapped])
    return total, tuple(parts + swapped)


def _minus(total: Usage, others: list[Usage]) -> Usage:
    return Usage(
        input_tokens=total.input_tokens - sum(u.input_tokens for u in others),
        output_tokens=total.output_tokens - sum(u.output_tokens for u in others),
        cache_read_tokens=max(total.cache_read_tokens - sum(u.cache_read_tokens for u in others), 0),
        cache_write_tokens=max(total.cache_write_tokens - sum(u.cache_write_tokens for u in others), 0),
        reasoning_tokens=max(total.reasoning_tokens - sum(u.reasoning_tokens for u in others), 0),
        detail={
            name: left
            for name, value in total.detail.items()
            if (left := value - sum(u.detail.get(name, 0) for u in others)) > 0
        },
    )


def _note_block(draft: Draft, key: object, block: _Block) -> None:
    if block.type == "tool_use":
        draft.tool(key, block.id, block.name)
    if block.text is not None and type(block.text) is str:
        draft.text(block.text)
    if block.thinking is not None:
        draft.other(block.thinking)
    if block.partial_json is not None:
        draft.other(block.partial_json)


class MessageDocument(JsonMeter):
    def read(self, body: bytes) -> None:
        message = _message.salvage(body)
        if message is None:
            return
        draft = self.draft
        if message.type == "error" or is_set(message.error):
            facts = decode_error(body)
            if facts:
                draft.error(*facts)
            return
        draft.named(message.model, message.id)
        for index, block in enumerate(message.content or ()):
            _note_block(draft, index, block)
            if len(block.input) > 2:
                draft.chars += len(bytes(block.input).decode("utf-8", "replace"))
        if type(message.stop_reason) is str:
            draft.finish[0] = message.stop_reason
        if is_set(message.usage):
            totals = Totals()
            totals.state(message.usage)
            totals.settle(draft)

    def read_tail(self, tail: bytes) -> None:
        totals = Totals()
        totals.state(find_object(tail, b"usage"))
        totals.settle(self.draft)


class MessageStream(EventMeter[StreamEvent]):
    shape = Shape(StreamEvent)
    alarms = (b"error", b"message_stop")
    early = "max_tokens"

    def __init__(self, asked: Asked, cutter: Cutter | None = None) -> None:
        super().__init__(asked, cutter)
        self._totals = Totals()
        self.blocks: dict[int, None] = {}  # still open, in order
        self._closed = False  # a message_delta stated the final usage

    def take(self, events: list[StreamEvent]) -> bool:
        alive = False
        for event in events:
            kind = event.type
            if kind == "content_block_delta":
                if event.delta is not None:
                    _note_block(self.draft, event.index, event.delta)
            elif kind == "ping":
                continue
            else:
                self._milestone(kind, event)
            self.begun = True
            alive = alive or kind != BEGINNING  # which says who is going to answer
        return alive

    def _milestone(self, kind: Any, event: StreamEvent) -> None:
        draft = self.draft
        if kind == "content_block_start" and event.content_block is not None:
            _note_block(draft, event.index, event.content_block)
            self._block(event.index, begins=True)
        elif kind == "content_block_stop":
            self._block(event.index, begins=False)
        elif kind == "message_start" and event.message is not None:
            draft.named(event.message.model, event.message.id)
            if is_set(event.message.usage):
                self._totals.state(event.message.usage)
        elif kind == "message_delta":
            if event.delta is not None and type(event.delta.stop_reason) is str:
                draft.finish[0] = event.delta.stop_reason
            if is_set(event.usage):
                self._totals.state(event.usage)
                self._closed = True
        elif kind == "message_stop":
            self.terminal = True
        elif kind == "error":
            self.error_event(b'{"error":%b}' % bytes(event.error) if is_set(event.error) else b"{}")

    def _block(self, index: Any, *, begins: bool) -> None:
        if type(index) is not int:
            return
        if not begins:
            self.blocks.pop(index, None)
        elif len(self.blocks) < MAX_BLOCKS:
            self.blocks[index] = None

    @property
    def stated(self) -> dict[str, Any]:
        """The usage fields as last stated."""
        return self._totals.fields

    def settle(self) -> None:
        self._totals.settle(self.draft)

    def end(self) -> Answer:
        """A stream cut before its final usage knows its input; its output is left to be estimated."""
        answer = super().end()
        if answer.usage is not None and not self._closed:
            answer.usage_source = UsageSource.ESTIMATED
        return answer


class Anthropic(BaseDialect):
    name = "anthropic"
    ping = b'event: ping\ndata: {"type": "ping"}\n\n'
    caches_marked = True

    def question(self, route: Route, request: Request) -> Asked:
        found = read_body(request.body, ("messages",))
        if found is None:
            return Asked()
        fields = found.fields
        return asked(
            found,
            model=model_name(fields) or path_model(route)[0],
            stream=flag(fields.get("stream")),
            max_tokens=limit(fields, "max_tokens"),
            messages=elements(found, "messages"),
            system=raw_bytes(fields.get("system")),
            tools=raw_bytes(fields.get("tools")),
        )

    def rename(self, route: Route, asked: Asked, model: str) -> tuple[Route, tuple[Edit, ...]]:
        if "model" in asked.spans:
            return super().rename(route, asked, model)
        return lowering.rename_in_path(route, asked, model)

    def bounds(self, route: Route, asked: Asked) -> Bounds:
        return allowance.messages(asked)

    def document(self, route: Route, asked: Asked, status: int) -> Meter:
        return MessageDocument(asked, status)

    def stream(self, route: Route, asked: Asked) -> Meter:
        return MessageStream(asked)

    def cap_output(
        self, route: Route, asked: Asked, body: bytes, ceiling: int, model: str = ""
    ) -> tuple[Edit, ...] | None:
        return lowering.cap_messages(asked, body, ceiling) if route.operation else None

    def lower_effort(self, route: Route, asked: Asked, body: bytes, effort: str, model: str = "") -> tuple[Edit, ...]:
        return lowering.lower_messages(asked, body, effort)

    def streamed(self, route: Route, asked: Asked, body: bytes) -> bytes | None:
        return replay.attempted(lambda: replay.message_stream(body))

    def gathered(self, route: Route, asked: Asked, body: bytes) -> bytes | None:
        return replay.attempted(lambda: replay.message_document(body))

    def last_turn(self, route: Route, value: Mapping[str, Any]) -> LastTurn:
        return last_turn.messages(value)

    def said(self, document: bytes) -> str | None:
        return last_turn.message_answer(document)

    def mark_prefix(self, route: Route, asked: Asked, body: bytes) -> tuple[Edit, ...]:
        return cache_marks.marks(asked, body) if route.operation else ()

    def finish_early(
        self, meter: Meter, asked: Asked, request_id: str, usage: Usage, note: str = "budget_exceeded"
    ) -> bytes:
        stream = inner(meter)
        if not isinstance(stream, MessageStream):
            return b""
        end = finish.messages(stream.blocks, stream.stated, usage, delta=bool(stream.unfinished))
        return self.remark(note) + end

    def refusal(
        self,
        fault: GatewayError,
        request_id: str,
        *,
        stream: bool,
        route: Route | None = None,
        asked: Asked | None = None,
    ) -> ErrorAnswer:
        return faults.anthropic_refusal(fault, request_id)

    def restate(self, route: Route, frame: bytes) -> ErrorAnswer | None:
        event = parse_frame(frame, beyond=(BEGINNING.encode(),))
        if event is None:
            return None
        name, data = event
        try:
            value = as_dict(msgspec.json.decode(data))
        except DECODE_FAULTS:
            return None
        error = as_dict(value.get("error"))
        if not error or (name != b"error" and value.get("type") != "error"):
            return None
        status = faults.ANTHROPIC_STATUS.get(first_text(error.get("type")), 500)
        return ErrorAnswer(status, [faults.JSON_TYPE], data)

    def interruption(self, fault: GatewayError, meter: Meter, request_id: str) -> bytes:
        """An `error` event with its event line: the SDK ignores frames without one."""
        _, body = faults.anthropic_error(fault, request_id)
        return b"%bevent: error\ndata: %b\n\n" % (closing(meter), msgspec.json.encode(body))
