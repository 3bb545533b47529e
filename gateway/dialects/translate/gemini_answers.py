"""Answers of Gemini generateContent: read from an upstream, written for a client."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import msgspec

from gateway.call import Usage
from gateway.dialects import faults
from gateway.dialects.translate.answers import (
    MAX_HELD,
    Reader,
    arguments_of,
    broken,
    dict_of,
    dicts_of,
    int_of,
    sse,
    text_of,
    written,
)
from gateway.dialects.translate.common import fit_id, seal
from gateway.dialects.translate.gemini_reader import ORIGIN
from gateway.dialects.translate.neutral import (
    FILTERED,
    LENGTH,
    STOP,
    TOOLS,
    Called,
    Choice,
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
from gateway.dialects.usage import gemini_usage
from gateway.errors import BadAnswer, GatewayError

REASONS = {
    **{"STOP": STOP, "MAX_TOKENS": LENGTH, "SAFETY": FILTERED, "RECITATION": FILTERED, "LANGUAGE": FILTERED},
    **{"BLOCKLIST": FILTERED, "PROHIBITED_CONTENT": FILTERED, "SPII": FILTERED, "MODEL_ARMOR": FILTERED},
}
WORDS = {STOP: "STOP", LENGTH: "MAX_TOKENS", TOOLS: "STOP", FILTERED: "SAFETY"}
_ASIDE = frozenset(("text", "thought", "thoughtSignature", "functionCall"))


# -- reading ----------------------------------------------------------------------------------------------------------


class GeminiReader(Reader):
    """`request_id` makes ids for calls that come without one."""

    def __init__(self, request_id: str) -> None:
        super().__init__()
        self._usage: Usage | None = None
        self._id = request_id
        self._last = -1

    def usage(self) -> Usage | None:
        return self._usage

    def take(self, name: bytes, value: dict[str, Any]) -> Iterable[Event]:
        error = value.get("error")
        if error:
            yield failure(error if type(error) is dict else {"message": str(error)})
            return
        stated = dict_of(value, "usageMetadata")
        if stated:
            self._usage = gemini_usage(msgspec.json.encode(stated))[0] or self._usage
        self._id = text_of(value, "responseId") or self._id
        yield from self.begin(self._id, text_of(value, "modelVersion"))
        if text_of(dict_of(value, "promptFeedback"), "blockReason"):
            self.stop(0, FILTERED)
        for candidate in dicts_of(value, "candidates"):
            index = int_of(candidate, "index")
            self._seen.add(index)
            for part in dicts_of(dict_of(candidate, "content"), "parts"):
                yield from self._part(index, part)
            yield from self._reason(index, candidate)

    def _part(self, index: int, part: dict[str, Any]) -> Iterator[Event]:
        odd = next((name for name, value in part.items() if name not in _ASIDE and value is not None), "")
        if odd:
            yield broken(f"the answer holds a part that cannot be translated: {odd[:80]}")
            return
        signature, text = text_of(part, "thoughtSignature"), text_of(part, "text")
        call = part.get("functionCall")
        if type(call) is dict:
            self._last += 1
            id = text_of(call, "id") or fit_id(f"call_{self._id[:24]}_{self._last}")
            yield Called(index, self._last, text_of(call, "name"), id, signature)
            yield Said(index, "arguments", written(dict_of(call, "args")).decode(), self._last)
            return
        if part.get("thought") is True:
            if text:
                yield Said(index, "thought", text)
            if signature:
                yield Said(index, "signature", signature, origin=ORIGIN)
            return
        if text:
            yield Said(index, "text", text)
        if signature:
            yield Said(index, "mark", signature, origin=ORIGIN)

    def _reason(self, index: int, candidate: dict[str, Any]) -> Iterator[Event]:
        reason = text_of(candidate, "finishReason")
        if not reason or reason == "FINISH_REASON_UNSPECIFIED":
            return
        known = REASONS.get(reason)
        if known is None:
            more = text_of(candidate, "finishMessage")[:200]
            yield broken(f"the upstream ended its answer without success: {reason[:80]} {more}".rstrip())
        else:
            self.stop(index, known)


def failure(error: dict[str, Any]) -> Failed:
    code = error.get("code")
    status = code if type(code) is int and 400 <= code <= 599 else 500
    kind = text_of(error, "status")
    return Failed(text_of(error, "message") or "the upstream reported an error", kind, status)


def document(value: dict[str, Any], request_id: str) -> list[Event]:
    """A whole answer as events."""
    reader = GeminiReader(request_id)
    return reader.document(chain(reader.take(b"", value), _ended(reader)))


def _ended(reader: GeminiReader) -> Iterator[Event]:
    if not reader.finished():
        yield broken("the answer does not say why it ended")
    yield from reader.closing()


# -- writing ----------------------------------------------------------------------------------------------------------


def usage_of(usage: Usage) -> dict[str, Any]:
    found: dict[str, Any] = {"promptTokenCount": usage.input_tokens}
    if usage.cache_read_tokens:
        found["cachedContentTokenCount"] = usage.cache_read_tokens
    found["candidatesTokenCount"] = max(usage.output_tokens - usage.reasoning_tokens, 0)
    if usage.reasoning_tokens:
        found["thoughtsTokenCount"] = usage.reasoning_tokens
    found["totalTokenCount"] = usage.input_tokens + usage.output_tokens
    return found


def _text(text: str, signature: str) -> dict[str, Any]:
    return {"text": text, **({"thoughtSignature": signature} if signature else {})}


def _foreign(thought: Thought) -> str:
    """What signs a thought of another origin, in the base64 that this API has for signatures."""
    return b64encode(seal(thought).encode()).decode()


def _call_part(name: str, id: str, signature: str, arguments: str) -> dict[str, Any]:
    call: dict[str, Any] = {"id": id} if id else {}
    found: dict[str, Any] = {"functionCall": {**call, "name": name, "args": arguments_of(arguments)}}
    return {**found, "thoughtSignature": signature} if signature else found


class GeminiWriter(SerialWriter):
    """`array`: without `alt=sse` a stream is a JSON array. A call is said once all of its arguments are there."""

    def __init__(self, *, array: bool = False) -> None:
        super().__init__()
        self.array = array
        self._frames = 0
        self._calls: dict[tuple[int, int], tuple[Called, list[str]]] = {}
        self._held = 0
        self._stopped: list[Stopped] = []

    def say(self, event: Said) -> bytes:
        if event.kind == "arguments":
            self._held += len(event.text)
            known = self._calls.get((event.choice, event.key))
            if known is None or self._held > MAX_HELD:
                raise BadAnswer("the arguments of a tool call cannot be put together")
            known[1].append(event.text)
            return b""
        said = self._release()
        if event.kind == "sealed":
            part = self._signed(Thought(data=event.text, origin=event.origin))
        elif event.kind == "signature":
            part = self._signed(Thought(signature=event.text, origin=event.origin))
        elif event.kind == "mark":
            part = _text("", event.text)
        else:
            part = {"text": event.text, **({"thought": True} if event.kind == "thought" else {})}
        return said + self._chunk([(event.choice, [part], "")])

    def _signed(self, thought: Thought) -> dict[str, Any]:
        own = thought.origin == ORIGIN and thought.signature
        return {"text": "", "thought": True, "thoughtSignature": own or _foreign(thought)}

    def call(self, event: Called) -> bytes:
        said = self._release(event.choice)
        self._calls[event.choice, event.key] = (event, [])
        return said

    def stop(self, event: Stopped) -> bytes:
        self._stopped.append(event)
        return b""

    def finish(self) -> bytes:
        out = self._release()
        said: list[tuple[int, list[dict[str, Any]], str]]
        said = [(stopped.choice, [{"text": ""}], WORDS[stopped.reason]) for stopped in self._stopped]
        return out + self._chunk(said, self.usage) + (b"]" if self.array else b"")

    def _release(self, choice: int = -1) -> bytes:
        """The calls of a choice (or of all) that are complete: something else follows them."""
        out = b""
        for at in [at for at in self._calls if choice in (-1, at[0])]:
            called, pieces = self._calls.pop(at)
            part = _call_part(called.name, called.id, called.signature, "".join(pieces))
            out += self._chunk([(at[0], [part], "")])
        return out

    def _chunk(self, said: list[tuple[int, list[dict[str, Any]], str]], usage: Usage | None = None) -> bytes:
        chunk: dict[str, Any] = {"candidates": [_candidate(index, parts, reason) for index, parts, reason in said]}
        if usage is not None:
            chunk["usageMetadata"] = usage_of(usage)
        return self._frame({**chunk, "modelVersion": self.model, "responseId": self.id})

    def _frame(self, value: dict[str, Any]) -> bytes:
        self._frames += 1
        if not self.array:
            return sse(value)
        return (b"[" if self._frames == 1 else b",\n") + written(value)

    def fail(self, event: Failed) -> bytes:
        return self._frame(error_body(event)) + (b"]" if self.array else b"")

    def interrupt(self, fault: GatewayError, request_id: str) -> bytes:
        return self._frame(faults.gemini_error(fault)) + (b"]" if self.array else b"")


def _candidate(index: int, parts: list[dict[str, Any]], reason: str) -> dict[str, Any]:
    found: dict[str, Any] = {"content": {"parts": parts, "role": "model"}}
    if reason:
        found["finishReason"] = reason
    return {**found, "index": index}


def write(reply: Reply) -> dict[str, Any]:
    """Raises BadAnswer."""
    found: dict[str, Any] = {"candidates": [_whole(choice) for choice in reply.choices]}
    if reply.usage is not None:
        found["usageMetadata"] = usage_of(reply.usage)
    return {**found, "modelVersion": reply.model, "responseId": reply.id}


def _whole(choice: Choice) -> dict[str, Any]:
    parts = [said for part in choice.parts if (said := _said(part)) is not None]
    return _candidate(choice.index, parts, WORDS[choice.reason])


def _said(part: Part) -> dict[str, Any] | None:
    if isinstance(part, Text):
        return _text(part.text, part.signature)
    if isinstance(part, Invocation):
        return _call_part(part.name, part.id, part.signature, part.arguments)
    if isinstance(part, Thought):
        found: dict[str, Any] = {"text": part.text, "thought": True}
        if part.signature or part.data:
            own = part.origin == ORIGIN and part.signature
            found["thoughtSignature"] = own or _foreign(Thought("", part.signature, part.data, part.origin))
        return found
    return None


def error_body(event: Failed) -> dict[str, Any]:
    status = faults.GEMINI_STATUS.get(event.status) or ("INTERNAL" if event.status >= 500 else "FAILED_PRECONDITION")
    return {"error": {"code": event.status, "message": event.message, "status": status}}
