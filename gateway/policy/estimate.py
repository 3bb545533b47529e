"""Tokens of a call whose provider did not say, or did not come to say, how many there were.

Rules
1. What the provider said stays: a cut stream of Anthropic's has stated its input at its start, and only its output
   is estimated from what was produced.
2. Input is what the request shows: messages, system prompt, tool definitions and answer schemas, sized by
   `policy.text_units` and weighed by `policy.token_families`; media by published rules, never by their base64 text.
3. Output is what was seen to be produced. Reasoning that was never shown cannot be counted.
4. Nothing is taken off for caches: an estimate is of what a call may cost, not of what luck saved.

Cost: about 3 ms for 100 KB of JSON, 8 ms for 300 KB, and only for the calls that need it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from gateway.call import Answer, Asked, Call, Usage
from gateway.policy.media_tokens import media_kind, media_tokens
from gateway.policy.text_units import SAMPLE, units
from gateway.policy.token_families import Family, family

CONTENT = (
    *("messages", "input", "prompt", "contents", "content", "requests"),
    *("texts", "inputs", "query", "documents"),
)
SYSTEM = ("system", "instructions", "systemInstruction", "system_instruction")
SCHEMAS = ("response_format", "output_format", "text", "generationConfig", "generation_config", "functions")
BARE = frozenset({"embeddings", "text_completion", "rerank", "moderation"})
NO_OUTPUT = frozenset({"embeddings", "rerank", "moderation"})

# Members that are no part of the prompt: labels, links between items, and ciphertext of what was thought before.
UNSEEN = frozenset(
    {
        "annotations", "cache_control", "call_id", "container", "encrypted_content", "id", "mimeType", "mime_type",
        "role", "signature", "status", "thoughtSignature", "thought_signature", "tool_call_id", "tool_use_id", "type",
    }
)  # fmt: skip
DEPTH = 24
THOROUGH, BRIEF = 32_768, 256  # after so many characters of a request, so many are looked at of each further text
GLANCE = 2_048  # characters looked at of a whole request, for a figure that is only shown and soon replaced
CIPHER_BASE, CIPHER_CHARS = 900, 6.2  # of encrypted reasoning: characters of its envelope, and per token

_LEAST_SHARE = 0.5


class TokenEstimator:
    """Implements `ports.Estimator`."""

    def estimate(self, call: Call, answer: Answer) -> Usage:
        """What the call used: from what the provider said, what was asked and what was seen of the answer."""
        asked, operation = call.asked, call.route.operation
        model = answer.model or asked.model
        known = answer.usage
        produced = 0 if operation in NO_OUTPUT else output_tokens(answer, model)
        if known is None or not known.input_tokens:
            taken = input_tokens(asked, model, call.request.body, bare=operation in BARE)
            known = msgspec.structs.replace(known or Usage(), input_tokens=taken)
        if known.output_tokens >= produced * _LEAST_SHARE:
            return known  # said near the end of the answer, and so better than any estimate
        return msgspec.structs.replace(known, output_tokens=produced)


def input_tokens(asked: Asked, model: str, body: bytes = b"", *, bare: bool = False) -> int:
    """Tokens of a request, from its parts; from the whole `body` where a dialect read no parts.

    `bare`: the text goes to the model as it is, without the template of a conversation.
    """
    kind = family(model)
    tally = _Tally(model)
    messages = asked.messages or [asked.fields[key] for key in CONTENT if key in asked.fields]
    system = [asked.system] if asked.system else [asked.fields[key] for key in SYSTEM if key in asked.fields]
    for raw in (*messages, *system):
        tally.message(raw)
    if not tally.messages:
        tally.text(body.decode("utf-8", "replace"))
    if bare:
        return math.ceil(kind.text * tally.units + tally.media)
    schema = sum(_json_units(raw) for raw in _schemas(asked))
    return math.ceil(
        kind.request
        + kind.message * tally.messages
        + kind.text * tally.units
        + (kind.tools if declares(asked.tools) else 0)
        + kind.schema * schema
        + tally.media
        + tally.thought
    )


def expected_input(call: Call) -> int:
    """Input tokens, roughly and at once, before there is an answer; 0 where bytes of media would count as text."""
    body = call.request.body
    if b'"base64"' in body:
        return 0
    return math.ceil(family(call.model_sent or call.asked.model).text * _json_units(body, GLANCE))


def output_tokens(answer: Answer, model: str) -> int:
    """Tokens of what was seen of an answer."""
    if not answer.output_chars and not answer.tool_uses:
        return 0
    kind = family(model)
    return math.ceil(answer.output_chars / density(answer, kind) + kind.call * len(answer.tool_uses))


def density(answer: Answer, kind: Family) -> float:
    """Characters per token of an answer: as in its beginning, where that is known."""
    if len(answer.sample) < 16:
        return kind.density
    return len(answer.sample) / (units(answer.sample) * kind.text)


class _Tally:
    """What a request consists of."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.messages = 0
        self.units = 0.0
        self.seen = 0  # characters
        self.media = 0.0
        self.thought = 0.0  # encrypted reasoning since the last message of the user; what is older is dropped

    def message(self, raw: bytes) -> None:
        """A message, input item or prompt, as JSON; what is no JSON counts as text."""
        self.messages += 1
        try:
            value = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.text(bytes(raw).decode("utf-8", "replace"))
            return
        if isinstance(value, dict):
            if value.get("role") == "user":
                self.thought = 0.0
            elif isinstance(cipher := value.get("encrypted_content"), str):
                self.thought += max(0.0, len(cipher) - CIPHER_BASE) / CIPHER_CHARS
        self.walk(value, DEPTH)

    def text(self, text: str) -> None:
        self.units += units(text, SAMPLE if self.seen < THOROUGH else BRIEF)
        self.seen += len(text)

    def walk(self, value: object, depth: int) -> None:
        if isinstance(value, str):
            self.text(value)
        elif type(value) is int and depth > DEPTH - 2:
            self.units += 1  # the input of an embedding, given as tokens
        elif isinstance(value, list) and depth:
            for item in value:
                self.walk(item, depth - 1)
        elif isinstance(value, dict) and depth:
            if kind := media_kind(value):
                self.media += media_tokens(value, kind, self.model)
            else:
                self.members(value, depth)

    def members(self, value: Mapping[str, Any], depth: int) -> None:
        for key, inner in value.items():
            if key in ("input", "args", "response", "output") and isinstance(inner, dict):
                self.text(msgspec.json.encode(inner).decode())  # a tool's arguments or result, as JSON
            elif key not in UNSEEN:
                self.walk(inner, depth - 1)


def _schemas(asked: Asked) -> Iterable[bytes]:
    """Tool definitions, and the schemas an answer must follow."""
    if declares(asked.tools):
        yield asked.tools
    for key in SCHEMAS:
        raw = asked.fields.get(key)
        if raw is not None and b"chema" in bytes(raw):
            yield raw


def declares(tools: bytes) -> bool:
    """Is any tool among the definitions of a request? Neither null nor [] is."""
    return len(tools) > len(b"null")


def _json_units(raw: bytes, sample: int = SAMPLE) -> float:
    return units(bytes(raw).decode("utf-8", "replace"), sample)
