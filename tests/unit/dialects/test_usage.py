"""Token counts of every provider become one kind of usage; what is no count is never credited."""

from __future__ import annotations

import json

import pytest

from gateway.call import Usage
from gateway.dialects.usage import MAX_COUNT, add, anthropic_usage, gemini_usage, openai_usage


def openai(**fields):
    return openai_usage(json.dumps(fields).encode())


def gemini(**fields):
    return gemini_usage(json.dumps(fields).encode())


@pytest.mark.parametrize(
    ("fields", "usage"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 3}, Usage(5, 3)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(0, 0)),
        ({"prompt_tokens": 5.0, "completion_tokens": 3}, Usage(5, 3)),
        (
            {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2}},
            Usage(9, 0, 4, 2),
        ),
        ({"prompt_tokens": 9, "prompt_tokens_details": None, "prompt_cache_hit_tokens": 4}, Usage(9, 0, 4)),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 0}, "cached_tokens": 4}, Usage(9)),
        ({"prompt_tokens": 9, "cached_tokens": 4}, Usage(9, 0, 4)),
        ({"prompt_tokens": 9, "num_cached_tokens": 4}, Usage(9, 0, 4)),
        ({"prompt_tokens": 9, "prompt_token_details": {"cached_tokens": 4}}, Usage(9, 0, 4)),
        ({"prompt_tokens": 9, "cache_read_input_tokens": 4}, Usage(9, 0, 4)),
        ({"total_tokens": 9}, Usage(9)),
        (
            {"prompt_tokens": 5, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 7}},
            Usage(5, 9, reasoning_tokens=7),
        ),
        (  # reasoning beside the completion, as the total shows
            {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 13,
             "completion_tokens_details": {"reasoning_tokens": 7}},
            Usage(5, 8, reasoning_tokens=7),
        ),
        (
            {"input_tokens": 8, "output_tokens": 2,
             "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 3},
             "output_tokens_details": {"reasoning_tokens": 2}},
            Usage(8, 2, 1, 3, 2),
        ),
        (
            {"prompt_tokens": 50, "completion_tokens": 20, "prompt_tokens_details": {"audio_tokens": 30},
             "completion_tokens_details": {"audio_tokens": 10, "image_tokens": 5}},
            Usage(50, 20, detail={"input_audio_tokens": 30, "output_audio_tokens": 10, "output_image_tokens": 5}),
        ),
        (  # audio beside the prompt, billed by its seconds
            {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 386, "prompt_audio_seconds": 4,
             "prompt_tokens_details": {"audio_tokens": 375}},
            Usage(9, 2, detail={"input_audio_seconds": 4}),
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 10, "citation_tokens": 20, "reasoning_tokens": 30,
             "num_search_queries": 3},
            Usage(5, 60, reasoning_tokens=30, detail={"output_citation_tokens": 20, "web_searches": 3}),
        ),
        (
            {"prompt_tokens": 5, "completion_tokens": 10, "server_tool_use_details": {"web_search_requests": 2}},
            Usage(5, 10, detail={"web_searches": 2}),
        ),
        (  # realtime
            {"input_tokens": 40, "output_tokens": 20,
             "input_token_details": {
                "cached_tokens": 10, "audio_tokens": 30, "cached_tokens_details": {"audio_tokens": 8}},
             "output_token_details": {"audio_tokens": 15}},
            Usage(40, 20, 10, detail={
                "input_audio_tokens": 30, "output_audio_tokens": 15, "cache_audio_read_tokens": 8}),
        ),
        ({"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": []}, Usage(5, 3)),
    ],
)  # fmt: skip
def test_openai(fields, usage):
    assert openai(**fields) == usage


BAD = [-1, 1.5, "7", True, [], {}, MAX_COUNT + 1, 1e300, 10**30]


@pytest.mark.parametrize("value", BAD, ids=repr)
@pytest.mark.parametrize("field", ["prompt_tokens", "completion_tokens"])
def test_what_is_no_count_makes_the_usage_unknown(field, value):
    assert openai(**{"prompt_tokens": 5, "completion_tokens": 3, field: value}) is None


@pytest.mark.parametrize("value", [-1, "7", 1.5])
def test_details_that_are_no_counts_make_the_usage_unknown(value):
    assert openai(prompt_tokens=5, completion_tokens=3, prompt_tokens_details={"cached_tokens": value}) is None
    assert openai(prompt_tokens=5, completion_tokens=3, completion_tokens_details={"reasoning_tokens": value}) is None
    assert openai(total_tokens=2, completion_tokens=3) is None


@pytest.mark.parametrize("raw", [b"null", b"{}", b"[]", b"3", b'"x"', b"{", b"", b'{"prompt_tokens":NaN}', b"\xff"])
def test_no_usage(raw):
    assert openai_usage(raw) is None
    assert gemini_usage(raw)[0] is None


def test_anthropic_input_includes_the_cache():
    usage = anthropic_usage(
        {
            "input_tokens": 10,
            "output_tokens": 5,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 50,
            "cache_creation": {"ephemeral_1h_input_tokens": 20, "ephemeral_5m_input_tokens": 25},
            "output_tokens_details": {"thinking_tokens": 3},
            "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1},
        }
    )
    detail = {"cache_write_1h_tokens": 20, "cache_write_5m_tokens": 25, "web_searches": 2}
    assert usage == Usage(160, 5, 100, 50, 3, detail)


def test_anthropic_without_totals_of_the_cache():
    usage = anthropic_usage({"input_tokens": 1, "cache_creation": {"ephemeral_1h_input_tokens": 20}})
    assert usage == Usage(21, 0, 0, 20, 0, {"cache_write_1h_tokens": 20})


@pytest.mark.parametrize("value", BAD, ids=repr)
def test_anthropic_bad_counts(value):
    assert anthropic_usage({"input_tokens": 1, "output_tokens": value}) is None
    assert anthropic_usage({"input_tokens": 1, "cache_read_input_tokens": value}) is None
    assert anthropic_usage({}) is None


def test_gemini():
    usage, pricing = gemini(
        promptTokenCount=100,
        cachedContentTokenCount=40,
        candidatesTokenCount=20,
        thoughtsTokenCount=30,
        toolUsePromptTokenCount=7,
        totalTokenCount=157,
        promptTokensDetails=[{"modality": "TEXT", "tokenCount": 60}, {"modality": "AUDIO", "tokenCount": 40}],
        toolUsePromptTokensDetails=[{"modality": "IMAGE", "tokenCount": 7}],
        candidatesTokensDetails=[{"modality": "IMAGE", "tokenCount": 15}, {"modality": 2, "tokenCount": 1}],
        cacheTokensDetails=[{"modality": "AUDIO", "tokenCount": 12}],
        serviceTier="FLEX",
    )
    assert usage == Usage(
        107, 50, 40, 0, 30,
        {"input_audio_tokens": 40, "input_image_tokens": 7, "output_image_tokens": 15, "cache_audio_read_tokens": 12,
         "input_tool_tokens": 7},
    )  # fmt: skip
    assert pricing == {"service_tier": "flex"}


@pytest.mark.parametrize(
    ("traffic", "pricing"),
    [
        ("ON_DEMAND", {}),
        ("ON_DEMAND_FLEX", {"service_tier": "flex"}),
        ("ON_DEMAND_PRIORITY", {"service_tier": "priority"}),
        ("PROVISIONED_THROUGHPUT", {"service_tier": "provisioned_throughput"}),
        (1, {}),
    ],
)
def test_vertex_traffic(traffic, pricing):
    assert gemini(promptTokenCount=1, trafficType=traffic) == (Usage(1), pricing)


@pytest.mark.parametrize("value", BAD, ids=repr)
def test_gemini_bad_counts(value):
    assert gemini(promptTokenCount=1, thoughtsTokenCount=value)[0] is None


def test_add():
    one = Usage(1, 2, 3, 4, 5, {"web_searches": 1})
    assert add(one, Usage(10, 20, 30, 40, 50, {"web_searches": 2, "input_audio_tokens": 3})) == Usage(
        11, 22, 33, 44, 55, {"web_searches": 3, "input_audio_tokens": 3}
    )
