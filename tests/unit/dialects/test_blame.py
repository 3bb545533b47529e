"""What errors say of their cause: those of the fake providers, in the words of the real ones, and odd bodies."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.blame import blame
from gateway.dialects.registry import DIALECTS
from gateway.ports import Blame
from gateway.testing.fake_errors import Facts, refusal
from gateway.testing.fake_world import Ids

KINDS = {"context": "context", "quota": "quota", "429": "", "500": "", "503": "", "auth": "", "model": ""}


@pytest.mark.parametrize("dialect", ["openai.chat", "openai.responses", "anthropic"])
@pytest.mark.parametrize("kind", KINDS)
def test_errors_of_the_providers(dialect: str, kind: str) -> None:
    wire = refusal(dialect, kind, Facts("gpt-4o", 200_000, "sk-xx"), Ids(random.Random(1)))
    assert blame(wire.status, wire.body).kind == KINDS[kind]


def test_those_of_gemini_say_how_long_to_wait() -> None:
    ids = Ids(random.Random(1))
    assert blame(400, refusal("gemini", "context", Facts("g", 2_000_000), ids).body).kind == "context"
    assert blame(429, refusal("gemini", "429", Facts("g", seconds=7), ids).body) == Blame("", 7.0)
    daily = {"error": {"code": 429, "details": [{"violations": [{"quotaId": "GenerateRequestsPerDayPerProject"}]}]}}
    assert blame(429, msgspec.json.encode([daily])).kind == "quota"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b'{"error":{"code":"content_filter","message":"x"}}', "policy"),
        (400, b'{"error":{"code":null,"innererror":{"code":"content_filter"}}}', "policy"),
        (
            400,
            b'{"error":{"type":"invalid_request_error","message":"Output blocked by content filtering policy"}}',
            "policy",
        ),
        (400, b'{"error":{"code":"invalid_prompt"}}', "policy"),
        (413, b"", "context"),
        (413, b'{"type":"error","error":{"type":"request_too_large"}}', "context"),
        (500, b'{"error":{"message":"the prompt is too long"}}', ""),
        (400, b'{"error":"prompt is too long"}', "context"),
        (400, b'{"error":["prompt is too long"]}', ""),
        (500, b'{"error":{"code":500,"type":"exceed_context_size_error"}}', "context"),
        (400, b'{"error":{"code":400,"message":"the request exceeds the available context size."}}', "context"),
        (
            400,
            b'{"object":"error","message":"This model\'s maximum context length is 4096 tokens.","code":400}',
            "context",
        ),
        (400, b'{"message":"Input is too long for requested model."}', "context"),
        (
            400,
            b'{"code":"Client specified an invalid argument","error":"This model\'s maximum prompt length is 1"}',
            "context",
        ),
        (400, b'{"error":{"message":"Your input exceeds the context window of this model."}}', "context"),
        (400, b'{"error":{"message":"Content Exists Risk","type":"invalid_request_error"}}', "policy"),
        (400, b'{"error":{"code":"data_inspection_failed"}}', "policy"),
        (400, b'{"message":"the image is too long"}', ""),
        (400, b"", ""),
        (400, b"[]", ""),
        (400, b'{"error":{"code":7,"details":{"a":1}}}', ""),
        (429, b'{"error":{"details":[7,{"retryDelay":5},{"retryDelay":"soon"},{"violations":[null]}]}}', ""),
    ],
)
def test_other_bodies(status: int, body: bytes, kind: str) -> None:
    assert blame(status, body).kind == kind
    assert all(dialect.blame(status, body).kind == kind for dialect in DIALECTS.values())


@given(st.integers(400, 599), st.binary(max_size=300))
def test_no_body_is_too_odd(status: int, body: bytes) -> None:
    assert blame(status, body).kind in {"", "context"}
