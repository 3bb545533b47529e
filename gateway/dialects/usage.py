"""Token counts as providers write them -> `Usage`.

Rules
1. A number that is no count (negative, fractional, NaN, a string, absurdly large) makes the whole usage unknown:
   it is never credited and never raises.
2. null and missing are the same; an explicit 0 is a value.
3. `input_tokens` includes cache reads and writes, `output_tokens` includes reasoning, whatever the provider's habit.
4. A detail (audio, image, ...) is kept only where it fits into its total: details price a share of the total.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Raw, Struct

from gateway.call import Usage
from gateway.dialects.shape import Shape

MAX_COUNT = 10**10


class NotACount(ValueError):
    """A usage field that cannot be a number of tokens."""


def count(value: Any) -> int:
    """A token count; None counts as 0. Raises NotACount."""
    if type(value) is int and 0 <= value <= MAX_COUNT:
        return value
    if value is None:
        return 0
    if type(value) is float and value.is_integer() and 0 <= value <= MAX_COUNT:
        return int(value)
    raise NotACount(repr(value)[:40])


def first(*values: Any) -> Any:
    """The first value that is not None."""
    for value in values:
        if value is not None:
            return value
    return None


def as_dict(value: Any) -> Mapping[str, Any]:
    return value if type(value) is dict else {}


def fitting(total: int, **details: Any) -> dict[str, float]:
    """The details that are positive counts and fit into `total`, alone and together."""
    found: dict[str, float] = {}
    left = total
    for name, value in details.items():
        number = count(value)
        if 0 < number <= left:
            found[name] = number
            left -= number
    return found


class _Details(Struct, gc=False):
    """`*_tokens_details` of either side."""

    cached_tokens: Any = None
    cache_write_tokens: Any = None
    cache_read_input_tokens: Any = None  # Perplexity
    reasoning_tokens: Any = None
    audio_tokens: Any = None
    image_tokens: Any = None
    video_tokens: Any = None
    cached_tokens_details: Any = None  # realtime


class OpenAIUsage(Struct, gc=False):
    """`usage` of chat, completions, embeddings, responses and realtime, with the additions of those who imitate it."""

    prompt_tokens: Any = None
    completion_tokens: Any = None
    total_tokens: Any = None
    input_tokens: Any = None
    output_tokens: Any = None
    prompt_tokens_details: _Details | None = None
    prompt_token_details: _Details | None = None  # OpenAI threads, Writer
    input_tokens_details: _Details | None = None
    input_token_details: _Details | None = None  # realtime
    completion_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    output_token_details: _Details | None = None
    prompt_cache_hit_tokens: Any = None  # DeepSeek
    cached_tokens: Any = None  # Together, Moonshot, Hugging Face
    num_cached_tokens: Any = None  # Mistral
    cache_read_input_tokens: Any = None  # Databricks
    reasoning_tokens: Any = None  # Databricks, Perplexity
    citation_tokens: Any = None  # Perplexity
    num_search_queries: Any = None
    search_context_size: Any = None
    prompt_audio_seconds: Any = None  # Mistral
    server_tool_use: Any = None  # OpenRouter
    server_tool_use_details: Any = None


_NO_DETAILS = _Details()
_openai = Shape(OpenAIUsage)


def openai_usage(raw: Raw | bytes) -> Usage | None:
    """Read a `usage` object of the OpenAI family; None where it is null, empty or malformed."""
    u = _openai.salvage(raw)
    if u is None or (u.prompt_tokens is None and u.input_tokens is None and u.total_tokens is None):
        return None
    try:
        return _openai_usage(u)
    except NotACount:
        return None


def _openai_usage(u: OpenAIUsage) -> Usage:
    into = u.prompt_tokens_details or u.input_tokens_details or u.input_token_details or u.prompt_token_details
    into = into or _NO_DETAILS
    out = u.completion_tokens_details or u.output_tokens_details or u.output_token_details or _NO_DETAILS
    outputs = count(u.completion_tokens if u.completion_tokens is not None else u.output_tokens)
    inputs = u.prompt_tokens if u.prompt_tokens is not None else u.input_tokens
    inputs = count(u.total_tokens) - outputs if inputs is None else count(inputs)  # Voyage only says total_tokens
    if inputs < 0:
        raise NotACount("total_tokens < completion_tokens")
    reasoning = count(out.reasoning_tokens if out.reasoning_tokens is not None else u.reasoning_tokens)
    detail: dict[str, float] = {}
    if u.search_context_size is not None or u.num_search_queries is not None:
        outputs += count(u.reasoning_tokens) + count(u.citation_tokens)  # Perplexity counts them apart
        detail = fitting(outputs, output_citation_tokens=u.citation_tokens)
    elif reasoning and count(u.total_tokens) == inputs + outputs + reasoning:
        outputs += reasoning  # xAI's chat counts them apart
    if into.audio_tokens or into.image_tokens or into.video_tokens or out.audio_tokens or out.image_tokens:
        detail |= _modalities(inputs, outputs, into, out)
    if u.num_search_queries is not None or u.server_tool_use_details or u.server_tool_use:
        searches = as_dict(u.server_tool_use_details or u.server_tool_use).get("web_search_requests")
        detail |= fitting(MAX_COUNT, web_searches=first(u.num_search_queries, searches))
    if u.prompt_audio_seconds is not None:
        detail |= fitting(MAX_COUNT, input_audio_seconds=u.prompt_audio_seconds)
    return Usage(
        inputs,
        outputs,
        count(into.cached_tokens if into.cached_tokens is not None else _cached_elsewhere(u, into)),
        count(into.cache_write_tokens),
        reasoning,
        detail,
    )


def _cached_elsewhere(u: OpenAIUsage, into: _Details) -> Any:
    return first(
        u.prompt_cache_hit_tokens,
        u.cached_tokens,
        u.num_cached_tokens,
        u.cache_read_input_tokens,
        into.cache_read_input_tokens,
    )


def _modalities(inputs: int, outputs: int, into: _Details, out: _Details) -> dict[str, float]:
    detail = fitting(
        inputs,
        input_audio_tokens=into.audio_tokens,
        input_image_tokens=into.image_tokens,
        input_video_tokens=into.video_tokens,
    )
    detail |= fitting(outputs, output_audio_tokens=out.audio_tokens, output_image_tokens=out.image_tokens)
    cached = as_dict(into.cached_tokens_details)
    if cached:
        detail |= fitting(
            count(into.cached_tokens),
            cache_audio_read_tokens=cached.get("audio_tokens"),
            cache_image_read_tokens=cached.get("image_tokens"),
        )
    return detail


def anthropic_usage(u: Mapping[str, Any]) -> Usage | None:
    """Read the merged `usage` of a message, whose `input_tokens` exclude the cache; None where malformed or absent."""
    if u.get("input_tokens") is None and u.get("output_tokens") is None:
        return None
    try:
        read = count(u.get("cache_read_input_tokens"))
        written = as_dict(u.get("cache_creation"))
        hour = count(written.get("ephemeral_1h_input_tokens"))
        minutes = count(written.get("ephemeral_5m_input_tokens"))
        write = max(count(u.get("cache_creation_input_tokens")), hour + minutes)
        outputs = count(u.get("output_tokens"))
        tools = as_dict(u.get("server_tool_use"))
        detail = fitting(write, cache_write_1h_tokens=hour, cache_write_5m_tokens=minutes)
        detail |= fitting(MAX_COUNT, web_searches=tools.get("web_search_requests"))
        return Usage(
            input_tokens=count(u.get("input_tokens")) + read + write,
            output_tokens=outputs,
            cache_read_tokens=read,
            cache_write_tokens=write,
            reasoning_tokens=count(as_dict(u.get("output_tokens_details")).get("thinking_tokens")),
            detail=detail,
        )
    except NotACount:
        return None


class _CacheDetail(Struct, gc=False):
    ttl: Any = None
    inputTokens: Any = None


class BedrockUsage(Struct, gc=False):
    """`usage` of Converse and of the Nova models, and the metrics that end the streams of all others."""

    inputTokens: Any = None
    inputTokenCount: Any = None
    outputTokens: Any = None
    outputTokenCount: Any = None
    cacheReadInputTokens: Any = None
    cacheReadInputTokenCount: Any = None
    cacheWriteInputTokens: Any = None
    cacheWriteInputTokenCount: Any = None
    cacheDetails: list[_CacheDetail] | None = None


_bedrock = Shape(BedrockUsage)


def bedrock_usage(raw: Raw | bytes) -> Usage | None:
    """Read a `usage` whose `inputTokens` leave out the cache; None where malformed or absent."""
    u = _bedrock.salvage(raw)
    if u is None or (u.inputTokens is None and u.inputTokenCount is None):
        return None
    try:
        read = count(first(u.cacheReadInputTokens, u.cacheReadInputTokenCount))
        written = {f"cache_write_{one.ttl}_tokens": count(one.inputTokens) for one in u.cacheDetails or ()}
        write = max(count(first(u.cacheWriteInputTokens, u.cacheWriteInputTokenCount)), sum(written.values()))
        return Usage(
            input_tokens=count(first(u.inputTokens, u.inputTokenCount)) + read + write,
            output_tokens=count(first(u.outputTokens, u.outputTokenCount)),
            cache_read_tokens=read,
            cache_write_tokens=write,
            reasoning_tokens=0,
            detail=fitting(write, **{name: written[name] for name in _BEDROCK_WRITES if name in written}),
        )
    except NotACount:
        return None


_BEDROCK_WRITES = ("cache_write_1h_tokens", "cache_write_5m_tokens")


class GeminiUsage(Struct, gc=False):
    """`usageMetadata`. Thoughts stand beside candidates, tool prompts beside the prompt; the cache is in the prompt."""

    promptTokenCount: Any = None
    cachedContentTokenCount: Any = None
    candidatesTokenCount: Any = None
    thoughtsTokenCount: Any = None
    toolUsePromptTokenCount: Any = None
    totalTokenCount: Any = None
    promptTokensDetails: Any = None
    toolUsePromptTokensDetails: Any = None
    candidatesTokensDetails: Any = None
    cacheTokensDetails: Any = None
    serviceTier: Any = None
    trafficType: Any = None


_gemini = Shape(GeminiUsage)


def gemini_usage(raw: Raw | bytes) -> tuple[Usage | None, dict[str, str]]:
    """Read `usageMetadata`: the usage (None where malformed or absent) and the price context it states."""
    u = _gemini.salvage(raw)
    if u is None:
        return None, {}
    if u.promptTokenCount is None and u.candidatesTokenCount is None:
        return None, _tier(u)
    try:
        return _gemini_usage(u), _tier(u)
    except NotACount:
        return None, _tier(u)


def _gemini_usage(u: GeminiUsage) -> Usage:
    thoughts = count(u.thoughtsTokenCount)
    tool = count(u.toolUsePromptTokenCount)
    inputs = count(u.promptTokenCount) + tool
    outputs = count(u.candidatesTokenCount) + thoughts
    cached = count(u.cachedContentTokenCount)
    detail = fitting(inputs, **_by_modality("input_{}_tokens", u.promptTokensDetails, u.toolUsePromptTokensDetails))
    detail |= fitting(outputs, **_by_modality("output_{}_tokens", u.candidatesTokensDetails))
    detail |= fitting(cached, **_by_modality("cache_{}_read_tokens", u.cacheTokensDetails))
    if tool:
        detail["input_tool_tokens"] = tool
    return Usage(inputs, outputs, cached, 0, thoughts, detail)


_MODALITIES = {"AUDIO": "audio", "IMAGE": "image", "DOCUMENT": "image", "VIDEO": "video"}


def _by_modality(template: str, *lists: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for entries in lists:
        for entry in entries if type(entries) is list else ():
            modality = as_dict(entry).get("modality")
            name = _MODALITIES.get(modality) if type(modality) is str else None
            if name:
                key = template.format(name)
                found[key] = found.get(key, 0) + count(entry.get("tokenCount"))
    return found


def _tier(u: GeminiUsage) -> dict[str, str]:
    if type(u.serviceTier) is str:
        return {"service_tier": u.serviceTier.lower()}
    if type(u.trafficType) is str and u.trafficType.startswith("ON_DEMAND_"):  # Vertex: _FLEX, _PRIORITY
        return {"service_tier": u.trafficType.removeprefix("ON_DEMAND_").lower()}
    if u.trafficType == "PROVISIONED_THROUGHPUT":
        return {"service_tier": "provisioned_throughput"}
    return {}


def add(left: Usage, right: Usage) -> Usage:
    """The sum of two usages, for sessions with several answers."""
    detail = dict(left.detail)
    for key, value in right.detail.items():
        detail[key] = detail.get(key, 0) + value
    return Usage(
        left.input_tokens + right.input_tokens,
        left.output_tokens + right.output_tokens,
        left.cache_read_tokens + right.cache_read_tokens,
        left.cache_write_tokens + right.cache_write_tokens,
        left.reasoning_tokens + right.reasoning_tokens,
        detail,
    )
