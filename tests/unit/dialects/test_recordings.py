"""Recorded traffic of every provider: read whole, byte by byte, paced and cut at random, it gives the usage it states.

The recordings stand in tests/golden/cassettes; TOLLGATE_CASSETTES may name a larger collection. The usage expected is
read from `expected_usage` (the provider's own objects, verbatim) by the few lines below, not by the code under test.
"""

from __future__ import annotations

import json
import os
import random
import re
from pathlib import Path

import pytest

from gateway.call import Request, UsageSource
from gateway.dialects.registry import DIALECTS
from gateway.dialects.routes import Table
from gateway.testing import cassettes

ROOT = Path(os.environ.get("TOLLGATE_CASSETTES") or Path(__file__).parents[2] / "golden" / "cassettes")
TABLE = Table({name: name for name in cassettes.FAMILIES})
PATHS = sorted(ROOT.glob("*/*.json"))


@pytest.fixture(scope="module", params=PATHS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def played(request):
    exchange = cassettes.load(request.param)
    target = "/" + exchange.target.lstrip("/").encode("ascii", "replace").decode().replace("%2F", "~").replace(
        "%2f", "~"
    )
    route = TABLE.resolve(exchange.method.upper().encode(), f"/{exchange.family}{target}".encode(), "")
    dialect = DIALECTS[route.dialect]
    question = Request(exchange.method.upper().encode(), route.path, (), exchange.request_body)
    multipart = exchange.request_body[:2] == b"--"
    return exchange, dialect, route, DIALECTS["opaque" if multipart else route.dialect].read(route, question)


def meter(played, pieces):
    exchange, dialect, route, asked = played
    kind = next((value for name, value in exchange.headers if name.lower() == "content-type"), "")
    found = dialect.meter(route, asked, exchange.status, kind.encode())
    for piece in pieces:
        found.feed(piece)
    return found.end(), found


def whole(played):
    return meter(played, [played[0].body])


STATED = re.compile(r"(^|\.)(usage|usageMetadata|titan|amazon-bedrock-invocationMetrics)$")


def stated(exchange):
    """The fields of all usage objects of the answer itself; the last value that is not null counts."""
    merged = {}
    for entry in exchange.usage:
        if entry["path"] == "ollama":
            merged |= entry["usage"]
        if entry["path"].endswith(("meta.billed_units", "meta.tokens")):  # Cohere's v1, and what is no chat of v2
            merged[entry["path"].rpartition(".")[2]] = entry["usage"]
        if STATED.search(entry["path"]) and "breakdown" not in entry["path"]:
            merged |= {name: value for name, value in entry["usage"].items() if value is not None}
    if "inputTextTokenCount" in merged and "inputTokenCount" not in merged:  # Titan: each result states its own
        merged["outputTokens"] = sum(map(int, re.findall(rb'"tokenCount": ?(\d+)', exchange.body)))
    return merged or {name: int(count) for name, count in LLAMA.findall(exchange.body.decode("utf-8", "replace"))}


LLAMA = re.compile(r'"(prompt_token_count|generation_token_count)": ?(\d+)')


def expected(usage):
    """(input, output, cache read, cache write, reasoning) in the gateway's sense."""

    def get(*path, of=usage):
        for name in path:
            of = (of or {}).get(name)
        return of or 0

    if "eval_count" in usage:
        return (get("prompt_eval_count"), get("eval_count"), 0, 0, 0)
    if "billed_units" in usage:
        output = get("billed_units", "output_tokens")
        return (get("billed_units", "input_tokens"), output, 0, 0, min(get("tokens", "reasoning_tokens"), output))
    if "promptTokenCount" in usage or "candidatesTokenCount" in usage:
        return (
            get("promptTokenCount") + get("toolUsePromptTokenCount"),
            get("candidatesTokenCount") + get("thoughtsTokenCount"),
            get("cachedContentTokenCount"),
            0,
            get("thoughtsTokenCount"),
        )
    for into, out, more in (
        ("inputTokens", "outputTokens", "Tokens"),
        ("inputTokenCount", "outputTokenCount", "TokenCount"),
        ("inputTextTokenCount", "outputTokens", ""),
        ("prompt_token_count", "generation_token_count", ""),
    ):
        if into in usage and "input_tokens" not in usage:  # Bedrock
            read, written = get(f"cacheReadInput{more}"), get(f"cacheWriteInput{more}")
            return (get(into) + read + written, get(out), read, written, 0)
    if "prompt_tokens" in usage or ("total_tokens" in usage and "input_tokens" not in usage):
        cached = (
            get("prompt_tokens_details", "cached_tokens")
            or get("prompt_cache_hit_tokens")
            or get("cached_tokens")
            or get("num_cached_tokens")
        )
        written = get("prompt_tokens_details", "cache_write_tokens")
        reasoning = get("completion_tokens_details", "reasoning_tokens")
        return (usage.get("prompt_tokens", get("total_tokens")), get("completion_tokens"), cached, written, reasoning)
    if "total_tokens" in usage:  # OpenAI responses
        details = "input_tokens_details"
        reasoning = get("output_tokens_details", "reasoning_tokens")
        cached, written = get(details, "cached_tokens"), get(details, "cache_write_tokens")
        return (get("input_tokens"), get("output_tokens"), cached, written, reasoning)
    if "input_tokens" in usage:  # Anthropic: the cache is not in its input
        read, written = get("cache_read_input_tokens"), get("cache_creation_input_tokens")
        thinking = get("output_tokens_details", "thinking_tokens")
        return (get("input_tokens") + read + written, get("output_tokens"), read, written, thinking)
    return None


def figures(usage):
    if usage is None:
        return None
    return (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.reasoning_tokens,
    )


def cuts(body, count, seed):
    at = sorted(random.Random(seed).randrange(len(body) + 1) for _ in range(count))
    return [body[start:end] for start, end in zip([0, *at], [*at, len(body)], strict=True)]


def test_there_are_recordings():
    assert len(PATHS) > 200


def test_usage_is_what_the_provider_stated(played):
    exchange, _, route, _ = played
    answer, _ = whole(played)
    if not route.operation or exchange.status >= 400:
        assert answer.usage is None
        assert answer.usage_source is UsageSource.NONE
        return
    if answer.usage_source is UsageSource.ESTIMATED:  # Ollama says nothing of a prompt that it had in its cache
        assert not exchange.usage
        last = json.loads(exchange.body.splitlines()[-1])
        assert figures(answer.usage) == (0, last["eval_count"], 0, 0, 0)
        assert "prompt_eval_count" not in last
        return
    assert figures(answer.usage) == expected(stated(exchange))
    if answer.usage is not None:
        assert answer.usage_source is UsageSource.PROVIDER


def test_errors_are_named(played):
    exchange, _, _, _ = played
    answer, found = whole(played)
    if exchange.status >= 400:
        assert answer.error_type
        assert found.failed == answer.error_type
    elif exchange.usage and b"event: error" not in exchange.body:
        assert not answer.error_type


def test_streams_are_complete(played):
    exchange, _, route, _ = played
    answer, _ = whole(played)
    if exchange.stream and route.operation:
        assert answer.complete is (b"event: error" not in exchange.body)


def test_the_split_does_not_matter(played):
    exchange = played[0]
    body = exchange.body
    answer, _ = whole(played)
    assert meter(played, [body[i : i + 1] for i in range(len(body))])[0] == answer
    assert meter(played, re.findall(rb"(?s).*?(?:\r?\n\r?\n|\Z)", body))[0] == answer  # an event at a time
    for seed in range(4):
        assert meter(played, cuts(body, 1 + 9 * seed, seed))[0] == answer


def test_a_stream_cut_anywhere_in_its_first_half_is_incomplete(played):
    exchange, _, route, asked = played
    if not (exchange.stream and asked.stream and route.operation):
        return
    answer, found = meter(played, [exchange.body[: len(exchange.body) // 2]])
    assert not answer.complete
    assert not found.terminal


def test_content_is_seen(played):
    exchange, dialect, route, _ = played
    answer, _ = whole(played)
    if exchange.status == 200 and route.operation in {"chat", "generate_content"} and answer.complete:
        if answer.usage is not None and not dialect.name.startswith(("gemini", "cohere", "bedrock")):
            assert answer.model
        if answer.usage is not None and answer.usage.output_tokens > answer.usage.reasoning_tokens + 20:
            assert answer.output_chars or answer.tool_uses
