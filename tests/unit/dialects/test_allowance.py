"""What a request may make the provider do, read so that the worst case is never smaller than the truth."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from gateway.call import Bounds, Request, Route
from gateway.dialects import allowance
from gateway.dialects.registry import DIALECTS

FUNCTION = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def bounds(talk, name, body):
    one = talk(name)
    return one.dialect.bounds(one.route, one.read(body))


@pytest.mark.parametrize(
    ("name", "body", "limit", "choices"),
    [
        ("openai_chat", {}, None, 1),
        ("openai_chat", {"max_tokens": 10}, 10, 1),
        ("openai_chat", {"max_completion_tokens": 10, "max_tokens": 90}, 90, 1),
        ("openai_chat", {"max_completion_tokens": None, "n": 3}, None, 3),
        ("openai_chat", {"max_tokens": "many", "n": 0}, None, 1),
        ("openai_chat", {"n": 10**15}, None, allowance.MAX_CHOICES),
        ("openai_completions", {"prompt": "a", "n": 2, "best_of": 5, "max_tokens": 16}, 16, 5),
        ("openai_completions", {"prompt": ["a", "b", "c"], "n": 2}, None, 6),
        ("openai_completions", {"prompt": [[1, 2], [3]]}, None, 2),
        ("openai_completions", {"prompt": [1, 2, 3]}, None, 1),
        ("openai_completions", {"prompt": []}, None, 1),
        ("openai_responses", {"max_output_tokens": 7}, 7, 1),
        ("openai_embeddings", {"input": "x"}, 0, 1),
        ("anthropic", {"max_tokens": 7}, 7, 1),
        ("gemini", {"generationConfig": {"maxOutputTokens": 7, "candidateCount": 2}}, 7, 2),
        ("gemini", {"generation_config": {"max_output_tokens": "7", "candidate_count": 2}}, 7, 2),
        ("gemini", {"generationConfig": None}, None, 1),
        ("opaque", {"max_tokens": 7}, None, 1),
    ],
)
def test_how_much_may_come(talk, name, body, limit, choices):
    found = bounds(talk, name, body)
    assert (found.max_output, found.choices) == (limit, choices)


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("1e3", 1000), ("8.0", 8), ("8.2", 9), ('"8"', 8), ('"x"', None), ('"nan"', None), ("-1", None),
     ("true", None), ("null", None), ("[]", None), ("1e400", None), ('"1e999"', None), ("9" * 40, None)],
)  # fmt: skip
def test_a_number_is_read_as_some_upstream_might(text, value):
    assert allowance.count(Raw(text.encode())) == value


@pytest.mark.parametrize(
    ("name", "body", "history"),
    [
        ("openai_responses", {"previous_response_id": "resp_1"}, "resp_1"),
        ("openai_responses", {"conversation": "conv_1"}, "conv_1"),
        ("openai_responses", {"conversation": {"id": "conv_2"}}, "conv_2"),
        ("openai_responses", {"prompt": {"id": "pmpt_1", "version": "2"}}, "pmpt_1"),
        ("openai_responses", {"previous_response_id": None, "conversation": None}, ""),
        ("gemini", {"cachedContent": "cachedContents/1"}, "cachedContents/1"),
        ("openai_chat", {"previous_response_id": "resp_1"}, ""),
    ],
)
def test_history_that_the_provider_adds(talk, name, body, history):
    assert bounds(talk, name, body).history == history


@pytest.mark.parametrize(
    ("name", "body", "tools", "server"),
    [
        ("openai_chat", {"tools": [FUNCTION, {"type": "custom", "custom": {"name": "sql"}}]}, ("weather", "sql"), ()),
        ("openai_chat", {"functions": [{"name": "old"}]}, ("old",), ()),
        ("openai_chat", {"web_search_options": {}}, (), (("web_search", 0),)),
        (
            "openai_responses",
            {
                "tools": [
                    {"type": "function", "name": "weather"},
                    {"type": "web_search_preview"},
                    {"type": "mcp", "server_label": "x"},
                    {"type": "local_shell"},
                ],
                "max_tool_calls": 4,
            },
            ("weather", "local_shell"),
            (("web_search", 4), ("mcp", 4)),
        ),
        (
            "anthropic",
            {
                "tools": [
                    {"name": "weather", "input_schema": {}},
                    {"type": "bash_20250124", "name": "bash"},
                    {"type": "web_search_20250305", "name": "web_search", "max_uses": 3},
                    {"type": "web_fetch_20250910", "name": "web_fetch"},
                ],
                "mcp_servers": [{"type": "url", "url": "https://example.com"}],
            },
            ("weather", "bash"),
            (("web_search", 3), ("web_fetch", 0), ("mcp", 0)),
        ),
        (
            "gemini",
            {
                "tools": [
                    {"functionDeclarations": [{"name": "weather"}, {"name": "time"}]},
                    {"googleSearch": {}},
                    {"code_execution": {}},
                ]
            },
            ("weather", "time"),
            (("google_search", 0), ("code_execution", 0)),
        ),
    ],
)
def test_tools_of_the_client_and_of_the_provider(talk, name, body, tools, server):
    found = bounds(talk, name, body)
    assert (found.tools, found.server_tools) == (tools, server)


def test_what_changes_the_price(talk):
    body = {"service_tier": "priority", "speed": "fast", "inference_geo": "us"}
    assert bounds(talk, "anthropic", body).pricing == body
    assert bounds(talk, "openai_chat", {"service_tier": None}).pricing == {}


SCALAR = st.sampled_from([None, True, 0, -1, 7, 1.5, 1e300, "", "a", "12"])
PART = SCALAR | st.dictionaries(st.sampled_from(["id", "name", "type", "function", "max_uses"]), SCALAR, max_size=3)
ODD = PART | st.lists(PART, max_size=3)
FIELDS = ("n", "best_of", "max_tokens", "tools", "functions", "conversation", "previous_response_id", "prompt",
          "generationConfig", "cachedContent", "service_tier", "max_tool_calls", "mcp_servers")  # fmt: skip


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # shared machines pause
@given(st.sampled_from(sorted(DIALECTS)), st.dictionaries(st.sampled_from(FIELDS), ODD, max_size=4))
def test_odd_values_are_read_without_a_fault(name, body):
    route = Route("/v1/x", name, "chat", "up", b"/v1beta/models/g:generateContent")
    asked = DIALECTS[name].read(route, Request(b"POST", route.path, (), json.dumps(body).encode()))
    found = DIALECTS[name].bounds(route, asked)
    assert isinstance(found, Bounds)
    assert found.max_output is None or found.max_output >= 0
    assert 1 <= found.choices <= allowance.MAX_CHOICES
