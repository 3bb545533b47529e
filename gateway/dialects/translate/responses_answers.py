"""Answers of OpenAI Responses, written for a client. The whole answer is what its stream puts together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gateway.call import Usage
from gateway.dialects import faults
from gateway.dialects.openai_responses import bare
from gateway.dialects.translate.answers import MAX_HELD, sse
from gateway.dialects.translate.chat_reader import ORIGIN
from gateway.dialects.translate.common import OF_TEXT, seal
from gateway.dialects.translate.neutral import (
    FILTERED,
    LENGTH,
    Called,
    Event,
    Failed,
    Said,
    Stopped,
    Thought,
)
from gateway.dialects.translate.turns import SerialWriter
from gateway.errors import BadAnswer, GatewayError

# What a response repeats of its request.
ECHOED = (
    *("instructions", "max_output_tokens", "metadata", "parallel_tool_calls", "prompt_cache_key", "reasoning", "store"),
    *("temperature", "text", "tool_choice", "tools", "top_p", "truncation", "user", "safety_identifier"),
)
ENCRYPTED = "reasoning.encrypted_content"
_INCOMPLETE = {LENGTH: "max_output_tokens", FILTERED: "content_filter"}


def usage_of(usage: Usage) -> dict[str, Any]:
    into = {"cached_tokens": usage.cache_read_tokens, "cache_write_tokens": usage.cache_write_tokens}
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": into,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


class ResponsesWriter(SerialWriter):
    """`asked`: the request, of which a response repeats some. One item is open at a time."""

    def __init__(self, *, asked: Mapping[str, Any], created: int) -> None:
        super().__init__()
        self.echo = {name: asked[name] for name in ECHOED if asked.get(name) is not None}
        self.created = created
        include = asked.get("include")
        self._returns = type(include) is list and ENCRYPTED in include
        self.output: list[dict[str, Any]] = []
        self.response: dict[str, Any] = {}  # in the end
        self._sequence = 0
        self._held = 0
        self._item: dict[str, Any] = {}  # the item under way
        self._part: dict[str, Any] = {}  # the part of it under way
        self._pieces: list[str] = []  # its text
        self._key = -1
        self._reason: Stopped | None = None
        self._thought = Thought()  # what the reasoning under way is signed with

    def head(self, status: str) -> dict[str, Any]:
        found = bare(self.id, self.model) | {"created_at": self.created, "metadata": {}, "temperature": None}
        return {**found, "top_p": None, "instructions": None, **self.echo, "status": status, "output": self.output}

    def event(self, kind: str, **fields: Any) -> bytes:
        value = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return sse(value, kind)

    def at(self, *, inner: bool = True) -> dict[str, Any]:
        where = {"item_id": self._item["id"], "output_index": len(self.output)}
        if not inner or self._item["type"] == "function_call":
            return where
        if self._item["type"] == "reasoning":
            return {**where, "summary_index": 0}
        return {**where, "content_index": len(self._item["content"])}

    def begin(self) -> bytes:
        begun = self.head("in_progress")
        return self.event("response.created", response=begun) + self.event("response.in_progress", response=begun)

    def say(self, event: Said) -> bytes:
        if event.choice:
            raise BadAnswer("the upstream gave several answers at once")
        self._held += len(event.text)
        if self._held > MAX_HELD:
            raise BadAnswer("the answer is too long to be put together")
        if event.kind in ("text", "refusal"):
            return self._say_text(event)
        if event.kind == "thought":
            return self._open_reasoning() + self._summarise(event.text)
        if event.kind == "arguments":
            if self._item.get("type") != "function_call" or self._key != event.key:
                raise BadAnswer("the pieces of several tool calls are mixed")
            self._pieces.append(event.text)
            return self.event("response.function_call_arguments.delta", **self.at(), delta=event.text)
        return self._say_proof(event)

    def _say_proof(self, event: Said) -> bytes:
        """What signs a text is behind it, for clients that ask for what they are to return."""
        if event.kind == "mark" and not self._returns:
            return b""
        sealed = event.kind == "sealed"
        out = self._open_reasoning() if event.kind == "signature" else self._close() + self._open_reasoning()
        data = event.text if sealed else OF_TEXT if event.kind == "mark" else ""
        self._thought = Thought("", "" if sealed else event.text, data, event.origin)
        return out + self._close()

    def _say_text(self, event: Said) -> bytes:
        out = b""
        if self._item.get("type") != "message":
            out = self._close()
            said = {"id": self._name("msg"), "type": "message", "status": "in_progress", "role": "assistant"}
            out += self._open({**said, "content": []})
        text = event.kind == "text"
        kind = "output_text" if text else "refusal"
        if self._part.get("type") != kind:
            out += self._close_part()
            self._part = {"type": kind, "text": "", "annotations": [], "logprobs": []} if text else {"type": kind}
            self._part[event.kind] = ""
            out += self.event("response.content_part.added", **self.at(), part=self._part)
        self._pieces.append(event.text)
        more: dict[str, Any] = {"logprobs": []} if text else {}
        return out + self.event(f"response.{kind}.delta", **self.at(), delta=event.text, **more)

    def _open_reasoning(self) -> bytes:
        if self._item.get("type") == "reasoning":
            return b""
        return self._close() + self._open({"id": self._name("rs"), "type": "reasoning", "summary": []})

    def _summarise(self, text: str) -> bytes:
        out = b""
        if not self._part:
            self._part = {"type": "summary_text", "text": ""}
            out = self.event("response.reasoning_summary_part.added", **self.at(), part=self._part)
        self._pieces.append(text)
        return out + self.event("response.reasoning_summary_text.delta", **self.at(), delta=text)

    def call(self, event: Called) -> bytes:
        if event.choice:
            raise BadAnswer("the upstream gave several answers at once")
        out = self._close()
        if event.signature:
            out += self.say(Said(0, "signature", event.signature, origin="gemini"))
        self._key = event.key
        item = {"id": self._name("fc"), "type": "function_call", "status": "in_progress", "call_id": event.id}
        return out + self._open({**item, "name": event.name, "arguments": ""})

    def _name(self, kind: str) -> str:
        return f"{kind}_{self.id}_{len(self.output)}"

    def _open(self, item: dict[str, Any]) -> bytes:
        self._item = item
        return self.event("response.output_item.added", output_index=len(self.output), item=item)

    def _close_part(self) -> bytes:
        """The text under way is whole."""
        if not self._part:
            return b""
        text, part = "".join(self._pieces), self._part
        self._pieces = []
        where, kind = self.at(), part["type"]
        field = "refusal" if kind == "refusal" else "text"
        done = {**part, field: text}
        self._part = {}
        if kind == "summary_text":
            self._item["summary"] = [done]
            names = ("response.reasoning_summary_text.done", "response.reasoning_summary_part.done")
        else:
            self._item["content"] = [*self._item["content"], done]
            names = (f"response.{kind}.done", "response.content_part.done")
        more: dict[str, Any] = {"logprobs": []} if kind == "output_text" else {}
        return self.event(names[0], **where, **{field: text}, **more) + self.event(names[1], **where, part=done)

    def _close(self) -> bytes:
        """The item under way is whole."""
        if not self._item:
            return b""
        item = self._item
        out = self._close_part()
        if item["type"] == "function_call":
            arguments = "".join(self._pieces) or "{}"
            self._pieces = []
            out += self.event(
                "response.function_call_arguments.done", **self.at(), arguments=arguments, name=item["name"]
            )
            item = {**item, "arguments": arguments}
        if "status" in item:
            item = {**item, "status": "completed"}
        if self._thought.signature or self._thought.data:
            item = {**item, "encrypted_content": self._encrypted(item)}
        self._thought = Thought()
        out += self.event("response.output_item.done", output_index=len(self.output), item=item)
        self.output = [*self.output, item]
        self._item = {}
        return out

    def _encrypted(self, item: dict[str, Any]) -> str:
        known = self._thought
        if known.origin == ORIGIN and known.data:
            return known.data
        text = "".join([one["text"] for one in item["summary"]])
        return seal(Thought(text, known.signature, known.data, known.origin))

    def stop(self, event: Stopped) -> bytes:
        self._reason = self._reason or event
        return b""

    def finish(self) -> bytes:
        out = self._close()
        why = _INCOMPLETE.get(self._reason.reason if self._reason is not None else "")
        status = "incomplete" if why else "completed"
        self.response = self.head(status)
        self.response["incomplete_details"] = {"reason": why} if why else None
        self.response["usage"] = usage_of(self.usage) if self.usage is not None else None
        return out + self.event(f"response.{status}", response=self.response)

    def fail(self, event: Failed) -> bytes:
        code = "rate_limit_exceeded" if event.status == 429 else "server_error"
        return self._failed({"code": event.code or code, "message": event.message})

    def interrupt(self, fault: GatewayError, request_id: str) -> bytes:
        error = faults.openai_error(fault)
        self.id = self.id or f"resp_{request_id}"
        return self._failed({name: error[name] for name in ("code", "message", "tollgate_code") if name in error})

    def _failed(self, error: dict[str, Any]) -> bytes:
        begun = b"" if self._sequence else self.begin()  # without it the SDK's helper raises an error of its own
        response = {**self.head("failed"), "error": error}
        return begun + self.event("response.failed", response=response)


def whole(events: Iterable[Event], asked: Mapping[str, Any], created: int) -> dict[str, Any]:
    """Raises BadAnswer."""
    writer = ResponsesWriter(asked=asked, created=created)
    for event in events:
        if isinstance(event, Failed):
            raise BadAnswer(event.message)
        writer.feed((event,))
    if not writer.done or writer.failed:
        raise BadAnswer("the answer cannot be put together")
    return writer.response
