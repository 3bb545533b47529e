"""Token counts as Cohere and Ollama write them -> `Usage`. The rules are those of `gateway.dialects.usage`."""

from __future__ import annotations

from typing import Any

from msgspec import Raw, Struct

from gateway.call import Usage
from gateway.dialects.shape import Shape
from gateway.dialects.usage import MAX_COUNT, NotACount, count, fitting


class _Counts(Struct, gc=False):
    input_tokens: Any = None
    output_tokens: Any = None
    reasoning_tokens: Any = None
    image_tokens: Any = None
    search_units: Any = None


class _Cohere(Struct, gc=False):
    """`usage` of v2, `meta` of v1 and of whatever makes no text."""

    billed_units: _Counts | None = None
    tokens: _Counts | None = None
    cached_tokens: Any = None


_cohere = Shape(_Cohere)
_NOTHING = _Counts()


def cohere_usage(raw: Raw | bytes) -> Usage | None:
    """What is billed, for that is what prices are for: without the provider's own template, and cheaper by nothing that
    it had in its cache. All that the model read and wrote is in the detail, as `processed_*`; where nothing is said to
    be billed, that counts. None where malformed or absent."""
    u = _cohere.salvage(raw)
    if u is None or (u.billed_units is None and u.tokens is None):
        return None
    try:
        return _billed(u.billed_units, u.tokens or _NOTHING, u.cached_tokens) if u.billed_units else _processed(u)
    except NotACount:
        return None


def _billed(billed: _Counts, whole: _Counts, cached: Any) -> Usage | None:
    inputs = count(billed.input_tokens) + count(billed.image_tokens)  # of embeddings they stand apart
    outputs = count(billed.output_tokens)
    detail = fitting(inputs, input_image_tokens=billed.image_tokens or whole.image_tokens)
    detail |= fitting(MAX_COUNT, rerank_searches=billed.search_units)
    for name, value in (
        ("processed_input_tokens", count(whole.input_tokens) + count(whole.image_tokens)),
        ("processed_output_tokens", count(whole.output_tokens)),
        ("processed_cached_tokens", count(cached)),
    ):
        if value:
            detail[name] = value
    return Usage(inputs, outputs, 0, 0, min(count(whole.reasoning_tokens), outputs), detail)


def _processed(u: _Cohere) -> Usage | None:
    whole = u.tokens
    if whole is None or (whole.input_tokens is None and whole.output_tokens is None):
        return None
    inputs, outputs = count(whole.input_tokens) + count(whole.image_tokens), count(whole.output_tokens)
    detail = fitting(inputs, input_image_tokens=whole.image_tokens)
    reasoning = min(count(whole.reasoning_tokens), outputs)
    return Usage(inputs, outputs, min(count(u.cached_tokens), inputs), 0, reasoning, detail)


def ollama_usage(prompt: Any, answer: Any) -> Usage | None:
    """Thinking is in the answer. None where malformed."""
    try:
        return Usage(count(prompt), count(answer))
    except NotACount:
        return None
