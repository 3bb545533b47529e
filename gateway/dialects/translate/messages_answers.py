"""Answers of Anthropic messages: read from an upstream, written for a client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from gateway.call import Usage
from gateway.dialects import faults
from gateway.dialects.translate.answers import (
    MAX_CALLS,
    Reader,
    arguments_of,
    broken,
    dict_of,
    dicts_of,
    int_of,
    sse,
    text_of,
)
from gateway.dialects.translate.common import seal, seal_text
from gateway.dialects.translate.messages_reader import ORIGIN
from gateway.dialects.translate.neutral import (
    FILTERED,
    LENGTH,
    STOP,
    TOOLS,
    Called,
    Event,
    Failed,
    Invocation,
    Part,
    Reply,
    Said,
    Stopped,
    Text,
    Thought,
)
from gateway.dialects.translate.turns import SerialWriter
from gateway.dialects.usage import anthropic_usage
from gateway.errors import BadAnswer, GatewayError

REASONS = {
    **{"end_turn": STOP, "stop_sequence": STOP, "max_tokens": LENGTH, "tool_use": TOOLS, "refusal": FILTERED},
    "model_context_window_exceeded": LENGTH,
}
COUNTS = (
    *("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),
    *("cache_creation", "output_tokens_details", "server_tool_use"),
)
WORDS = {STOP: "end_turn", LENGTH: "max_tokens", TOOLS: "tool_use", FILTERED: "refusal"}


# -- reading ----------------------------------------------------------------------------------------------------------


class MessagesReader(Reader):
    def __init__(self) -> None:
        super().__init__()
        self._usage: dict[str, Any] = {}
        self._calls: dict[int, dict[str, Any]] = {}  # block -> its input as stated, until arguments come
        self._terminal = False

    def usage(self) -> Usage | None:
        return anthropic_usage(self._usage)

    def finished(self) -> bool:
        return self._terminal

    def take(self, name: bytes, value: dict[str, Any]) -> Iterable[Event]:
        kind = text_of(value, "type") or name.decode("ascii", "replace")
        index = int_of(value, "index")
        if kind == "message_start":
            yield from self._head(dict_of(value, "message"))
        elif kind == "content_block_start":
            yield from self.block(index, dict_of(value, "content_block"))
        elif kind == "content_block_delta":
            yield from self._delta(index, dict_of(value, "delta"))
        elif kind == "content_block_stop":
            yield from self._close(index)
        elif kind == "message_delta":
            self._count(value)
            yield from self._end(dict_of(value, "delta"))
        elif kind == "message_stop":
            self._terminal = True
            yield from self.closing()
        elif kind == "error":
            yield failure(dict_of(value, "error"))

    def _head(self, message: dict[str, Any]) -> Iterator[Event]:
        self._seen.add(0)
        self._count(message)
        yield from self.begin(text_of(message, "id"), text_of(message, "model"))

    def _count(self, value: dict[str, Any]) -> None:
        stated = dict_of(value, "usage")
        self._usage |= {name: stated[name] for name in COUNTS if stated.get(name) is not None}

    def block(self, index: int, block: dict[str, Any]) -> Iterator[Event]:
        kind = text_of(block, "type")
        if kind == "text":
            if text_of(block, "text"):
                yield Said(0, "text", block["text"])
        elif kind == "thinking":
            yield from _thought(text_of(block, "thinking"), text_of(block, "signature"))
        elif kind == "redacted_thinking":
            yield Said(0, "sealed", text_of(block, "data"), origin=ORIGIN)
        elif kind == "tool_use" and len(self._calls) < MAX_CALLS:
            self._calls[index] = dict_of(block, "input")
            yield Called(0, index, text_of(block, "name"), text_of(block, "id"))
        else:
            yield broken(f"the answer holds a part that cannot be translated: {kind[:80]}")

    def _delta(self, index: int, delta: dict[str, Any]) -> Iterator[Event]:
        kind = text_of(delta, "type")
        if kind == "text_delta":
            yield Said(0, "text", text_of(delta, "text"))
        elif kind == "thinking_delta":
            yield from _thought(text_of(delta, "thinking"), "")
        elif kind == "signature_delta":
            yield from _thought("", text_of(delta, "signature"))
        elif kind == "input_json_delta":
            text = text_of(delta, "partial_json")
            if text:
                self._calls.pop(index, None)
                yield Said(0, "arguments", text, index)
        elif kind != "citations_delta":
            yield broken(f"the answer holds a part that cannot be translated: {kind[:80]}")

    def _close(self, index: int) -> Iterator[Event]:
        stated = self._calls.pop(index, None)
        if stated is not None:
            yield Said(0, "arguments", msgspec.json.encode(stated).decode(), index)

    def _end(self, delta: dict[str, Any]) -> Iterator[Event]:
        reason = text_of(delta, "stop_reason")
        if not reason:
            return
        known = REASONS.get(reason)
        if known is None:
            yield broken(f"the upstream ended its answer for a reason unknown here: {reason[:80]}")
        else:
            self.stop(0, known, text_of(delta, "stop_sequence"))

    def whole(self, value: dict[str, Any]) -> Iterator[Event]:
        """A message that is no stream."""
        if value.get("type") == "error":
            yield failure(dict_of(value, "error"))
            return
        yield from self._head(value)
        for index, block in enumerate(dicts_of(value, "content")):
            yield from self.block(index, block)
            yield from self._close(index)
        yield from self._end(value)
        if not self._stopped:
            yield broken("the answer does not say why it ended")
        yield from self.closing()


def _thought(text: str, signature: str) -> Iterator[Event]:
    if text:
        yield Said(0, "thought", text)
    if signature:
        yield Said(0, "signature", signature, origin=ORIGIN)


def failure(error: dict[str, Any]) -> Failed:
    kind = text_of(error, "type")
    message = text_of(error, "message") or "the upstream reported an error"
    return Failed(message, kind, faults.ANTHROPIC_STATUS.get(kind, 500))


def document(value: dict[str, Any]) -> list[Event]:
    """A whole answer as events."""
    reader = MessagesReader()
    return reader.document(reader.whole(value))


# -- writing ----------------------------------------------------------------------------------------------------------


def usage_of(usage: Usage | None) -> dict[str, Any]:
    """The API has no word for unknown usage: where the upstream states none, zeros stand here."""
    u = usage or Usage()
    read = min(u.cache_read_tokens, u.input_tokens)
    write = min(u.cache_write_tokens, u.input_tokens - read)
    found: dict[str, Any] = {
        "input_tokens": u.input_tokens - read - write,
        "cache_creation_input_tokens": write,
        "cache_read_input_tokens": read,
        "output_tokens": u.output_tokens,
    }
    if u.reasoning_tokens:
        found["output_tokens_details"] = {"thinking_tokens": u.reasoning_tokens}
    return found


def _sealed(text: str, origin: str) -> dict[str, Any]:
    """Reasoning that only its origin can read; of another origin, sealed, so that it finds its way back."""
    data = text if origin == ORIGIN else seal(Thought(data=text, origin=origin))
    return {"type": "redacted_thinking", "data": data}


def _signature(signature: str, origin: str) -> str:
    return signature if origin == ORIGIN else seal(Thought(signature=signature, origin=origin))


def _before_call(signature: str) -> dict[str, Any]:
    """What signs a call in another API stands before it as a thought without text."""
    return {"type": "thinking", "thinking": "", "signature": _signature(signature, "gemini")}


def _behind_text(signature: str) -> dict[str, Any]:
    """What signs a text in another API stands behind it, for clients that return their thinking."""
    return {"type": "thinking", "thinking": "", "signature": seal_text(signature, "gemini")}


class MessagesWriter(SerialWriter):
    """`expected`: input tokens, as estimated: a stream begins with its usage, and other APIs end with theirs. Clients
    that read the cost of a call from its first event would show none; the last event has the true figure. `thinks`: the
    client asked for thinking, and so looks at what kind of block each is."""

    def __init__(self, expected: int = 0, *, thinks: bool = True) -> None:
        super().__init__()
        self._thinks = thinks
        self.usage = Usage(input_tokens=expected)
        self._blocks = 0
        self._open = ""  # kind of the block under way
        self._key = -1
        self._bare = False  # a call without arguments so far
        self._reason: Stopped | None = None
        self._refused = False

    def begin(self) -> bytes:
        message: dict[str, Any] = {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [],
        }
        message |= {"stop_reason": None, "stop_sequence": None, "usage": usage_of(self.usage)}
        return _event({"type": "message_start", "message": message})

    def say(self, event: Said) -> bytes:
        if event.choice:
            raise BadAnswer("the upstream gave several answers at once")
        kind = event.kind
        if kind == "arguments":
            if self._open != "call" or self._key != event.key:
                raise BadAnswer("the pieces of several tool calls are mixed")
            self._bare = False
            return self._delta({"type": "input_json_delta", "partial_json": event.text})
        if kind == "sealed":
            return self._whole(_sealed(event.text, event.origin))
        if kind == "mark":
            return self._whole(_behind_text(event.text)) if self._thinks else b""
        if kind == "signature":
            opened = self._start("thought", {"type": "thinking", "thinking": "", "signature": ""})
            signature = _signature(event.text, event.origin)
            return opened + self._delta({"type": "signature_delta", "signature": signature}) + self._close()
        if kind == "thought":
            opened = self._start("thought", {"type": "thinking", "thinking": "", "signature": ""})
            return opened + self._delta({"type": "thinking_delta", "thinking": event.text})
        self._refused = self._refused or kind == "refusal"
        return self._start("text", {"type": "text", "text": ""}) + self._delta(
            {"type": "text_delta", "text": event.text}
        )

    def call(self, event: Called) -> bytes:
        if event.choice:
            raise BadAnswer("the upstream gave several answers at once")
        before = self._close() + (self._whole(_before_call(event.signature)) if event.signature else b"")
        self._key, self._bare = event.key, True
        block = {"type": "tool_use", "id": event.id, "name": event.name, "input": {}}
        return before + self._start("call", block)

    def stop(self, event: Stopped) -> bytes:
        self._reason = self._reason or event
        return b""

    def finish(self) -> bytes:
        out = self._close()
        reason = self._reason or Stopped(0, STOP)
        delta = {"stop_reason": word_of(reason, refused=self._refused), "stop_sequence": reason.sequence or None}
        out += _event({"type": "message_delta", "delta": delta, "usage": usage_of(self.usage)})
        return out + _event({"type": "message_stop"})

    def fail(self, event: Failed) -> bytes:
        return _event(error_body(event))

    def interrupt(self, fault: GatewayError, request_id: str) -> bytes:
        return _event(faults.anthropic_error(fault, request_id)[1])

    def _start(self, kind: str, block: dict[str, Any]) -> bytes:
        """Open a block, unless this kind of block is open already."""
        if self._open == kind and kind != "call":
            return b""
        closed = self._close()
        self._open = kind
        return closed + _event({"type": "content_block_start", "index": self._blocks, "content_block": block})

    def _delta(self, delta: dict[str, Any]) -> bytes:
        return _event({"type": "content_block_delta", "index": self._blocks, "delta": delta})

    def _close(self) -> bytes:
        if not self._open:
            return b""
        bare = b""
        if self._open == "call" and self._bare:
            bare = self._delta({"type": "input_json_delta", "partial_json": "{}"})
        self._open = ""
        closed = _event({"type": "content_block_stop", "index": self._blocks})
        self._blocks += 1
        return bare + closed

    def _whole(self, block: dict[str, Any]) -> bytes:
        return self._start("whole", block) + self._close()


def word_of(stopped: Stopped, *, refused: bool) -> str:
    if stopped.reason == STOP and stopped.sequence:
        return "stop_sequence"
    return "refusal" if refused and stopped.reason == STOP else WORDS[stopped.reason]


def _event(value: dict[str, Any]) -> bytes:
    return sse(value, value["type"])


def write(reply: Reply, *, thinks: bool = True) -> dict[str, Any]:
    """`thinks`: see `MessagesWriter`. Raises BadAnswer."""
    if len(reply.choices) > 1:
        raise BadAnswer("the upstream gave several answers at once")
    parts = reply.choices[0].parts if reply.choices else ()
    choice = reply.choices[0] if reply.choices else None
    stopped = Stopped(0, choice.reason, choice.sequence) if choice is not None else Stopped(0, STOP)
    refused = any(isinstance(part, Text) and part.refusal for part in parts)
    return {
        "id": reply.id,
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": [block for part in parts for block in _blocks(part, thinks=thinks)],
        "stop_reason": word_of(stopped, refused=refused),
        "stop_sequence": stopped.sequence or None,
        "usage": usage_of(reply.usage),
    }


def _blocks(part: Part, *, thinks: bool) -> Iterator[dict[str, Any]]:
    if isinstance(part, Text):
        if part.text:
            yield {"type": "text", "text": part.text}
        if part.signature and thinks:
            yield _behind_text(part.signature)
    elif isinstance(part, Invocation):
        if part.signature:
            yield _before_call(part.signature)
        yield {"type": "tool_use", "id": part.id, "name": part.name, "input": arguments_of(part.arguments)}
    elif isinstance(part, Thought) and part.data:
        yield _sealed(part.data, part.origin)
    elif isinstance(part, Thought):
        signature = _signature(part.signature, part.origin) if part.signature else ""
        yield {"type": "thinking", "thinking": part.text, "signature": signature}


def error_body(event: Failed) -> dict[str, Any]:
    status = 529 if event.status == 503 else event.status
    kind = faults.ANTHROPIC_TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": event.message}}
