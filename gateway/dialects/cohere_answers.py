"""Cohere's answers, read: documents and streams of v2/chat, v1/chat, v1/generate, embed and rerank.

A v2 stream is one of events named by `type`; its last, `message-end`, brings the usage. A v1 stream names them by
`event_type`, as lines of JSON or, where the client asked for it, as server-sent events; its last is `stream-end`. Both
end so when they fail, too: then the finish reason says it. No answer names its model.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw, Struct

from gateway.call import Asked
from gateway.dialects.json_lines import LineCutter
from gateway.dialects.meters import Draft, JsonMeter, find_object, first_text
from gateway.dialects.native_usage import cohere_usage
from gateway.dialects.shape import NO_RAW, Shape, is_set
from gateway.dialects.streams import EventMeter

FAILURES = frozenset(("ERROR", "TIMEOUT", "USER_CANCEL"))  # finish reasons of what is no whole answer
_ENDS = frozenset(("message-end", "stream-end", "stream-error"))


class _Function(Struct, gc=False):
    name: Any = None
    arguments: Any = None


class _Call(Struct, gc=False):
    """A tool call, or a piece of one; v1 has name and parameters of its own, v2 a function."""

    index: Any = None
    id: Any = None
    name: Any = None
    text: Any = None
    parameters: Raw = NO_RAW
    function: _Function | None = None


class _Content(Struct, gc=False):
    text: Any = None
    thinking: Any = None


class _Message(Struct, gc=False):
    content: list[_Content] | _Content | str | None = None
    tool_plan: Any = None
    tool_calls: list[_Call] | _Call | None = None


class _Delta(Struct, gc=False):
    message: _Message | None = None
    finish_reason: Any = None
    usage: Raw = NO_RAW
    error: Any = None


class _Response(Struct, gc=False):
    generation_id: Any = None
    id: Any = None
    meta: Raw = NO_RAW


class Event(Struct, gc=False):
    """Of a stream of either version."""

    type: Any = None
    id: Any = None
    index: Any = None
    delta: _Delta | None = None
    event_type: Any = None
    generation_id: Any = None
    text: Any = None
    tool_call_delta: _Call | None = None
    tool_calls: list[_Call] | None = None
    response: _Response | None = None
    finish_reason: Any = None
    error: Any = None
    err: Any = None
    message: Any = None  # of errors


class _Generation(Struct, gc=False):
    text: Any = None
    finish_reason: Any = None


class _Document(Struct, gc=False):
    id: Any = None
    response_id: Any = None
    generation_id: Any = None
    message: _Message | None = None
    text: Any = None
    tool_calls: list[_Call] | None = None
    generations: list[_Generation] | None = None
    finish_reason: Any = None
    usage: Raw = NO_RAW
    meta: Raw = NO_RAW


_event = Shape(Event)
_document = Shape(_Document)


def _note_message(draft: Draft, message: _Message, index: object = None) -> None:
    """A message, or a delta of one whose event has this index."""
    content = message.content
    if isinstance(content, str):
        draft.text(content)
    elif content is not None:
        for part in content if isinstance(content, list) else (content,):
            draft.other(part.thinking)
            if type(part.text) is str:
                draft.text(part.text)
    draft.other(message.tool_plan)
    calls = message.tool_calls
    if calls is not None:
        for position, call in enumerate(calls if isinstance(calls, list) else (calls,)):
            _note_call(draft, index if type(index) is int else position, call)


def _note_call(draft: Draft, key: int, call: _Call) -> None:
    function = call.function
    draft.tool(key, call.id, function.name if function is not None else call.name)
    if function is not None:
        draft.other(function.arguments)
    draft.other(call.text)
    if is_set(call.parameters):
        draft.other(bytes(call.parameters).decode("utf-8", "replace"))


def _note_reason(draft: Draft, reason: object, index: int = 0) -> None:
    if reason and type(reason) is str:
        draft.finish[index] = reason


class CohereDocument(JsonMeter):
    def read(self, body: bytes) -> None:
        found, draft = _document.salvage(body), self.draft
        if found is None:
            return
        draft.named(None, first_text(found.response_id, found.generation_id, found.id))
        _note_reason(draft, found.finish_reason)
        if type(found.text) is str:
            draft.text(found.text)
        if found.message is not None:
            _note_message(draft, found.message)
        for position, call in enumerate(found.tool_calls or ()):
            _note_call(draft, position, call)
        for position, one in enumerate(found.generations or ()):
            (draft.other if position else draft.text)(one.text if type(one.text) is str else "")
            _note_reason(draft, one.finish_reason, position)
        stated = found.usage if is_set(found.usage) else found.meta
        if is_set(stated):
            draft.usage = cohere_usage(stated)

    def read_tail(self, tail: bytes) -> None:
        self.draft.usage = cohere_usage(find_object(tail, b"usage") or find_object(tail, b"meta"))


class CohereStream(EventMeter[Event]):
    """`old`: of v1, which `lines` frames by line ends. `open`: blocks and tool calls of v2 under way, by index."""

    shape = _event
    alarms = (b"error", b'-end"')
    early = "MAX_TOKENS"

    def __init__(self, asked: Asked, *, old: bool = False, lines: bool = False) -> None:
        super().__init__(asked, LineCutter() if lines else None)
        self.old, self.lines = old, lines
        self.gap = b"\n" if lines else self.gap
        self.open: dict[int, str] = {}

    def take(self, events: list[Event]) -> bool:
        for event in events:
            if event.delta is not None or type(event.type) is str:
                self._new(event)
            elif type(event.event_type) is str:
                self._old(event)
            elif type(event.message) is str:
                self.fail("error", event.message)
        self.terminal = self.terminal and not self.failed
        return bool(events)

    def _new(self, event: Event) -> None:
        draft, delta = self.draft, event.delta
        kind = event.type if type(event.type) is str else ""
        if delta is not None and delta.message is not None:
            _note_message(draft, delta.message, event.index)
        if kind in ("content-delta", "tool-call-delta"):
            return
        draft.named(None, event.id)
        block, _, what = kind.rpartition("-")
        if block in ("content", "tool-call") and type(event.index) is int:
            if what == "end":
                self.open.pop(event.index, None)
            elif len(self.open) < 64:
                self.open[event.index] = block
        elif kind in _ENDS:
            if delta is not None and is_set(delta.usage):
                draft.usage = cohere_usage(delta.usage)
            self._ended(delta.finish_reason if delta is not None else None, delta.error if delta is not None else None)

    def _old(self, event: Event) -> None:
        draft, kind, response = self.draft, event.event_type, event.response
        draft.named(None, event.generation_id)
        if (kind == "text-generation" or event.tool_call_delta is not None) and type(event.text) is str:
            (draft.other if event.index else draft.text)(event.text)
        if (call := event.tool_call_delta) is not None:
            _note_call(draft, call.index if type(call.index) is int else 0, call)
        elif not draft.has_tools:  # else they came in pieces before
            for position, one in enumerate(event.tool_calls or ()):
                _note_call(draft, position, one)
        if kind in _ENDS:
            if response is not None:
                draft.named(None, first_text(response.generation_id, response.id))
                if is_set(response.meta):
                    draft.usage = cohere_usage(response.meta)
            self._ended(event.finish_reason, first_text(event.err, event.error, event.message))

    def _ended(self, reason: object, error: object) -> None:
        _note_reason(self.draft, reason)
        kind, told = first_text(reason), first_text(error)
        if kind in FAILURES or told:
            self.fail(kind or "error", told)
        else:
            self.terminal = True
