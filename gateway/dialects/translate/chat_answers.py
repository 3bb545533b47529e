"""Answers of OpenAI chat completions: read from an upstream, written for a client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import msgspec

from gateway.call import Usage
from gateway.dialects import faults, finish
from gateway.dialects.translate.answers import (
    MAX_CALLS,
    MAX_HELD,
    Reader,
    Writer,
    broken,
    dict_of,
    dicts_of,
    int_of,
    sse,
    text_of,
)
from gateway.dialects.translate.chat_reader import REASONING
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
    Reply,
    Said,
    Stopped,
    Text,
    Thought,
)
from gateway.dialects.usage import openai_usage
from gateway.errors import BadAnswer, GatewayError

REASONS = {
    **{"stop": STOP, "eos": STOP, "length": LENGTH, "model_length": LENGTH, "tool_calls": TOOLS},
    **{"function_call": TOOLS, "content_filter": FILTERED},
}
WORDS = {STOP: "stop", LENGTH: "length", TOOLS: "tool_calls", FILTERED: "content_filter"}
_FORMATS = {origin: name for name, origin in REASONING.items()}


# -- reading ----------------------------------------------------------------------------------------------------------


class ChatReader(Reader):
    def __init__(self) -> None:
        super().__init__()
        self._usage: Usage | None = None
        self._keys: dict[tuple[int, Any], tuple[int, str]] = {}  # (choice, index as sent) -> (key, id)
        self._last = -1
        self._plain: dict[int, list[str]] = {}  # of each choice, reasoning without a detail so far
        self._held = 0

    def usage(self) -> Usage | None:
        return self._usage

    def take(self, name: bytes, value: dict[str, Any]) -> Iterable[Event]:
        error = value.get("error")
        if error or value.get("object") == "error" or name == b"error":
            yield failure(
                error if type(error) is dict else {**value, "message": text_of(value, "message") or str(error)}
            )
            return
        usage = value.get("usage") or dict_of(value, "x_groq").get("usage")
        if type(usage) is dict:
            self._usage = openai_usage(msgspec.json.encode(usage)) or self._usage
        choices = dicts_of(value, "choices")
        if choices or text_of(value, "id"):
            yield from self.begin(text_of(value, "id"), text_of(value, "model"))
        for choice in choices:
            index = int_of(choice, "index")
            self._seen.add(index)
            yield from self._message(index, dict_of(choice, "delta") or dict_of(choice, "message"))
            yield from self._reason(index, choice.get("finish_reason"))

    def _reason(self, index: int, reason: Any) -> Iterator[Event]:
        if not reason:
            return
        known = REASONS.get(str(reason))
        if known is None:
            yield broken(f"the upstream ended its answer for a reason unknown here: {str(reason)[:80]}")
        else:
            self.stop(index, known)

    def _message(self, index: int, message: dict[str, Any]) -> Iterator[Event]:
        yield from self._thoughts(index, message)
        if any(message.get(name) for name in ("content", "refusal", "tool_calls")):
            self._plain.pop(index, None)
        content = message.get("content")
        if type(content) is str and content:
            yield Said(index, "text", content)
        elif type(content) is list:
            for part in dicts_of(message, "content"):
                yield from _part(index, part)
        refusal = text_of(message, "refusal")
        if refusal:
            yield Said(index, "refusal", refusal)
        for position, call in enumerate(dicts_of(message, "tool_calls")):
            yield from self._call(index, position, call)
        for name in ("function_call", "audio", "images"):
            if message.get(name):
                yield broken(f"the answer holds a part that cannot be translated: {name}")

    def _thoughts(self, index: int, message: dict[str, Any]) -> Iterator[Event]:
        """`reasoning_details` bring the signatures; the text stands beside them, or came before (see `ChatWriter`)."""
        details = dicts_of(message, "reasoning_details")
        text = text_of(message, "reasoning_content") or text_of(message, "reasoning")
        told = any(text_of(detail, "text") or text_of(detail, "summary") for detail in details)
        if text and not told:
            self._held += len(text)
            if self._held <= MAX_HELD:
                self._plain.setdefault(index, []).append(text)
            yield Said(index, "thought", text)
        for detail in details:
            origin = REASONING.get(text_of(detail, "format"), "anthropic")
            said = text_of(detail, "text") or text_of(detail, "summary")
            before = "".join(self._plain.pop(index, ()))
            if said and said != before:
                yield Said(index, "thought", said)
            if text_of(detail, "signature"):
                kind = "mark" if origin == "gemini" and not said else "signature"
                yield Said(index, kind, detail["signature"], origin=origin)
            if text_of(detail, "data"):
                yield Said(index, "sealed", detail["data"], origin=origin)

    def _call(self, index: int, position: int, call: dict[str, Any]) -> Iterator[Event]:
        """A call goes on under its index; some servers begin another one under the same, with another id."""
        function, id = dict_of(call, "function"), text_of(call, "id")
        at = call.get("index")
        sent = (index, at if type(at) is int else id or position)
        key, known = self._keys.get(sent, (-1, ""))
        name = text_of(function, "name")
        if key < 0 or (id and name and known and id != known):
            if call.get("custom") or not name:
                yield broken("the answer holds a tool call that cannot be translated")
                return
            self._last += 1
            key = self._last
            if key >= MAX_CALLS:
                yield broken("the answer calls too many tools")
                return
            self._keys[sent] = (key, id)
            google = dict_of(dict_of(call, "extra_content"), "google")
            yield Called(index, key, name, id, text_of(google, "thought_signature"))
        arguments = function.get("arguments")
        if type(arguments) is dict:  # Ollama
            arguments = msgspec.json.encode(arguments).decode()
        if type(arguments) is str and arguments:
            yield Said(index, "arguments", arguments, key)


def _part(index: int, part: dict[str, Any]) -> Iterator[Event]:
    """Content in parts: text, and the thinking of Mistral."""
    if part.get("type") == "thinking":
        for thought in dicts_of(part, "thinking"):
            yield Said(index, "thought", text_of(thought, "text"))
    elif type(part.get("text")) is str:
        yield Said(index, "text", part["text"])
    elif part.get("type") != "reference":
        yield broken("the answer holds a part that cannot be translated: " + text_of(part, "type")[:80])


def failure(error: dict[str, Any]) -> Failed:
    kind = text_of(error, "type")
    code = error.get("code")
    return Failed(
        text_of(error, "message") or "the upstream reported an error",
        kind,
        faults.openai_status(error),
        str(code) if type(code) in (str, int) else "",
        text_of(error, "param"),
    )


def document(value: dict[str, Any]) -> list[Event]:
    """A whole answer as events."""
    reader = ChatReader()
    return reader.document(chain(reader.take(b"", value), reader.closing()))


# -- writing ----------------------------------------------------------------------------------------------------------


def usage_of(usage: Usage) -> dict[str, Any]:
    into: dict[str, Any] = {"cached_tokens": usage.cache_read_tokens}
    if usage.cache_write_tokens:
        into["cache_write_tokens"] = usage.cache_write_tokens
    out: dict[str, Any] = {"reasoning_tokens": usage.reasoning_tokens}
    for side, name in ((into, "input_audio_tokens"), (out, "output_audio_tokens")):
        if name in usage.detail:
            side["audio_tokens"] = int(usage.detail[name])
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": into,
        "completion_tokens_details": out,
    }


def _detail(index: int, part: Thought) -> dict[str, Any]:
    """Signed or sealed reasoning, in the form of OpenRouter's `reasoning_details`."""
    named = {"format": _FORMATS.get(part.origin, "unknown"), "index": index}
    if part.data:
        return {"type": "reasoning.encrypted", "data": part.data, **named}
    return {"type": "reasoning.text", "text": part.text, "signature": part.signature, **named}


def _tool_call(call: Called | Invocation, arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = {"id": call.id, "type": "function"}
    found["function"] = {"name": call.name, "arguments": arguments}
    if call.signature:
        found["extra_content"] = {"google": {"thought_signature": call.signature}}
    return found


class ChatWriter(Writer):
    """`usage`: the client asked for it. `created`: seconds since the epoch.

    A signature is worth nothing without the text that it signs, and clients put pieces of one index together, names and
    all. So each detail of reasoning is said once, whole, under an index of its own.
    """

    def __init__(self, *, usage: bool, created: int) -> None:
        super().__init__()
        self.asked = usage
        self.created = created
        self._begun: set[int] = set()
        self._numbers: dict[tuple[int, int], int] = {}
        self._bare: set[tuple[int, int]] = set()  # calls without arguments so far
        self._thoughts: dict[int, list[str]] = {}  # of each choice, what a signature would sign
        self._details: dict[int, int] = {}  # how many each choice has
        self._held = 0

    def head(self) -> dict[str, Any]:
        return {"id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model}

    def chunk(self, choice: int, delta: dict[str, Any], reason: str | None = None) -> bytes:
        if choice not in self._begun:
            self._begun.add(choice)
            delta = {"role": "assistant", "content": "", **delta}
        said = {"index": choice, "delta": delta, "logprobs": None, "finish_reason": reason}
        more: dict[str, Any] = {"usage": None} if self.asked else {}
        return sse({**self.head(), "choices": [said], **more})

    def say(self, event: Said) -> bytes:
        if event.kind == "arguments":
            at = (event.choice, event.key)
            self._bare.discard(at)
            call = {"index": self._numbers.get(at, 0), "function": {"arguments": event.text}}
            return self.chunk(event.choice, {"tool_calls": [call]})
        if event.kind in ("signature", "sealed", "mark"):
            return self._proof(event)
        if event.kind == "thought":
            self._held += len(event.text)
            if self._held > MAX_HELD:
                raise BadAnswer("the reasoning is too long to be put together")
            self._thoughts.setdefault(event.choice, []).append(event.text)
        else:
            self._thoughts.pop(event.choice, None)
        name = {"text": "content", "refusal": "refusal", "thought": "reasoning_content"}[event.kind]
        return self.chunk(event.choice, {name: event.text})

    def _proof(self, event: Said) -> bytes:
        text = "" if event.kind == "mark" else "".join(self._thoughts.pop(event.choice, ()))
        sealed = event.kind == "sealed"
        part = Thought("", "", event.text, event.origin) if sealed else Thought(text, event.text, "", event.origin)
        number = self._details.get(event.choice, 0)
        self._details[event.choice] = number + 1
        return self.chunk(event.choice, {"reasoning_details": [_detail(number, part)]})

    def call(self, event: Called) -> bytes:
        self._thoughts.pop(event.choice, None)
        number = sum(choice == event.choice for choice, _ in self._numbers)
        self._numbers[event.choice, event.key] = number
        self._bare.add((event.choice, event.key))
        return self.chunk(event.choice, {"tool_calls": [{"index": number, **_tool_call(event, "")}]})

    def stop(self, event: Stopped) -> bytes:
        out = [self.say(Said(choice, "arguments", "{}", key)) for choice, key in sorted(self._bare)]
        self._bare.clear()
        return b"".join([*out, self.chunk(event.choice, {}, WORDS[event.reason])])

    def finish(self) -> bytes:
        last = b""
        if self.asked and self.usage is not None:
            last = sse({**self.head(), "choices": [], "usage": usage_of(self.usage)})
        return last + finish.chat(self.head(), (), None, legacy=False)

    def fail(self, event: Failed) -> bytes:
        return sse(error_body(event))

    def interrupt(self, fault: GatewayError, request_id: str) -> bytes:
        return sse({"error": faults.openai_error(fault)})


def write(reply: Reply, *, created: int) -> dict[str, Any]:
    found: dict[str, Any] = {"id": reply.id, "object": "chat.completion", "created": created, "model": reply.model}
    found["choices"] = [_choice(choice) for choice in reply.choices]
    if reply.usage is not None:
        found["usage"] = usage_of(reply.usage)
    return found


def _choice(choice: Choice) -> dict[str, Any]:
    parts = choice.parts
    texts = [part.text for part in parts if isinstance(part, Text) and not part.refusal]
    refusals = [part.text for part in parts if isinstance(part, Text) and part.refusal]
    message: dict[str, Any] = {"role": "assistant", "content": "".join(texts) if texts else None}
    message["refusal"] = "".join(refusals) if refusals else None
    thoughts = [part for part in parts if isinstance(part, Thought)]
    marks = [Thought("", part.signature, "", "gemini") for part in parts if isinstance(part, Text) and part.signature]
    if any(part.text for part in thoughts):
        message["reasoning_content"] = "".join([part.text for part in thoughts])
    proofs = [part for part in (*thoughts, *marks) if part.signature or part.data]
    details = [_detail(at, part) for at, part in enumerate(proofs)]
    if details:
        message["reasoning_details"] = details
    calls = [_tool_call(part, part.arguments) for part in parts if isinstance(part, Invocation)]
    if calls:
        message["tool_calls"] = calls
    return {"index": choice.index, "message": message, "logprobs": None, "finish_reason": WORDS[choice.reason]}


def error_body(event: Failed) -> dict[str, Any]:
    kind = _KINDS.get(event.status) or ("server_error" if event.status >= 500 else "invalid_request_error")
    error = {"message": event.message, "type": kind, "param": event.param or None, "code": event.code or None}
    return {"error": error}


_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
