"""The proper end of a stream whose allowance is used up: what the provider itself sends at `max_tokens`.

A stream that failed must never end like this (see `interruption`); one that the gateway ends by its own decision must,
so that clients keep the answer and see why it stops. Each function is given what the meter of its dialect knows, and
the usage to state; each writes whole events, to follow the last whole event that the client has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from gateway.call import Usage

_encode = msgspec.json.Encoder().encode
MAX_NOTE = 200


def comment(note: str) -> bytes:
    """An SSE comment of one line."""
    return b": tollgate %b\n\n" % one_line(note).encode()


def one_line(note: str) -> str:
    return " ".join(note[:MAX_NOTE].split())


def event(data: Mapping[str, Any], *, named: bool = True) -> bytes:
    """`named`: by its type, as Anthropic's and the Responses API's clients expect."""
    text = _encode(data)
    return b"event: %b\ndata: %b\n\n" % (data["type"].encode(), text) if named else b"data: %b\n\n" % text


# --- OpenAI chat and legacy completions ------------------------------------------------------------------------------


def chat(head: Mapping[str, Any], unfinished: Iterable[int], usage: Usage | None, *, legacy: bool) -> bytes:
    """`head`: id, object, created and model of the stream; `usage`: only where the client asked for it."""
    asked: dict[str, Any] = {} if usage is None else {"usage": None}
    produced: dict[str, Any] = {"text": "", "logprobs": None} if legacy else {"delta": {}, "logprobs": None}
    events = [
        event({**head, "choices": [{"index": index, **produced, "finish_reason": "length"}], **asked}, named=False)
        for index in unfinished
    ]
    if usage is not None:
        events.append(event({**head, "choices": [], "usage": chat_usage(usage)}, named=False))
    return b"".join(events) + b"data: [DONE]\n\n"


def chat_usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


# --- OpenAI Responses ------------------------------------------------------------------------------------------------


def responses_usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cache_read_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def numbered(events: Iterable[dict[str, Any]], sequence: int) -> bytes:
    """`sequence`: of the first."""
    return b"".join(event({**one, "sequence_number": sequence + at}) for at, one in enumerate(events))


# --- Anthropic -------------------------------------------------------------------------------------------------------


def messages(blocks: Iterable[int], stated: Mapping[str, Any], usage: Usage, *, delta: bool) -> bytes:
    """`blocks`: the content blocks still open; `stated`: the usage fields of message_start; `delta`: no final
    message_delta was sent yet."""
    events = [event({"type": "content_block_stop", "index": index}) for index in blocks]
    if delta:
        reason = {"stop_reason": "max_tokens", "stop_sequence": None}
        events.append(event({"type": "message_delta", "delta": reason, "usage": messages_usage(stated, usage)}))
    return b"".join(events) + event({"type": "message_stop"})


def messages_usage(stated: Mapping[str, Any], usage: Usage) -> dict[str, Any]:
    """What the provider said of the input stays; its totals leave out the cache."""
    cached = usage.cache_read_tokens + usage.cache_write_tokens
    reckoned = {
        "input_tokens": max(usage.input_tokens - cached, 0),
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cache_read_tokens,
    }
    known = {name: stated[name] for name in reckoned if type(stated.get(name)) is int}
    return {**reckoned, **known, "output_tokens": usage.output_tokens}


# --- Bedrock ---------------------------------------------------------------------------------------------------------


def bedrock_usage(usage: Usage) -> dict[str, int]:
    cached = usage.cache_read_tokens + usage.cache_write_tokens
    return {
        "inputTokens": max(usage.input_tokens - cached, 0),
        "outputTokens": usage.output_tokens,
        "totalTokens": usage.input_tokens + usage.output_tokens,
        "cacheReadInputTokens": usage.cache_read_tokens,
        "cacheWriteInputTokens": usage.cache_write_tokens,
    }


# --- Cohere ----------------------------------------------------------------------------------------------------------


def cohere_usage(usage: Usage) -> dict[str, Any]:
    """`usage` of v2, `meta` of v1. What was processed is told where it is known to be something else."""
    billed = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
    whole = {name: int(usage.detail.get(f"processed_{name}", value)) for name, value in billed.items()}
    return {"billed_units": billed, "tokens": whole}


# --- Ollama ----------------------------------------------------------------------------------------------------------


def ollama(usage: Usage, note: str) -> dict[str, Any]:
    """What the last line says beside the model and an empty text."""
    counts = {"prompt_eval_count": usage.input_tokens, "eval_count": usage.output_tokens}
    return {"done": True, "done_reason": "length", **counts, "tollgate": one_line(note)}


# --- Gemini ----------------------------------------------------------------------------------------------------------


def gemini(head: Mapping[str, Any], unfinished: Iterable[int], usage: Usage, note: str) -> bytes:
    """The last chunk, without framing. `head`: modelVersion and responseId."""
    ended = {"finishReason": "MAX_TOKENS", "finishMessage": f"tollgate: {one_line(note)}"}
    content = {"parts": [{"text": ""}], "role": "model"}
    candidates = [{"content": content, **ended, "index": index} for index in unfinished]
    return _encode({"candidates": candidates, "usageMetadata": gemini_usage(usage), **head})


def gemini_usage(usage: Usage) -> dict[str, int]:
    found = {
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": max(usage.output_tokens - usage.reasoning_tokens, 0),
        "totalTokenCount": usage.input_tokens + usage.output_tokens,
    }
    if usage.cache_read_tokens:
        found["cachedContentTokenCount"] = usage.cache_read_tokens
    if usage.reasoning_tokens:
        found["thoughtsTokenCount"] = usage.reasoning_tokens
    return found
