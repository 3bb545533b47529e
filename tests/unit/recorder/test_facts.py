from __future__ import annotations

import pytest

from gateway.journal.record import AttemptRecord
from gateway.policy.trace_ids import run_trace_id
from gateway.recorder.facts import attempt_result, error_type_of, gen_ai_provider, same_model, tidy, trace_id_of
from gateway.testing.telemetry_records import call


def test_the_trace_of_a_call() -> None:
    own, caller = "1" * 32, "2" * 16
    assert trace_id_of(call(trace_id=own, run_id="")) == own
    assert trace_id_of(call(trace_id=own, run_id="r")) == run_trace_id("r")
    assert trace_id_of(call(trace_id=own, run_id="r", parent_span_id=caller)) == own
    assert trace_id_of(call(id="c", trace_id="", run_id="")) == run_trace_id("c")


@pytest.mark.parametrize(
    ("outcome", "changes", "expected"),
    [
        ("ok", {}, ""),
        ("cancelled", {"error_code": "client_gone"}, ""),
        ("upstream_error", {"status": 429, "error_type": "rate_limit", "error_code": "upstream_error"}, "rate_limit"),
        ("upstream_error", {"status": 500, "error_type": ""}, "http_500"),
        ("upstream_error", {"status": 500, "error_type": "x" * 65}, "http_500"),
        ("failed", {"error_code": "upstream_reset", "error_type": "x"}, "upstream_reset"),
        ("abandoned", {}, "abandoned"),
    ],
)  # fmt: skip
def test_error_type(outcome: str, changes: dict[str, object], expected: str) -> None:
    assert error_type_of(call(outcome=outcome, **changes)) == expected


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [(200, "", "ok"), (0, "upstream_reset", "upstream_reset"), (0, "", "no_answer"), (429, "", "rate_limited"),
     (404, "", "client_error"), (503, "", "server_error"), (200, "upstream_truncated", "upstream_truncated")],
)  # fmt: skip
def test_attempt_result(status: int, code: str, expected: str) -> None:
    assert attempt_result(AttemptRecord("u", "p", "a", 1, 0, 0, status, False, code)) == expected


def test_provider_names() -> None:
    assert gen_ai_provider(call(provider="google")) == "gcp.gemini"
    assert gen_ai_provider(call(provider="groq")) == "groq"
    assert gen_ai_provider(call(provider="", upstream="house")) == "house"


@pytest.mark.parametrize(
    ("requested", "used", "same"),
    [
        ("gpt-4o", "gpt-4o", True),
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929", True),
        ("claude-3-5-haiku-latest", "claude-3-5-haiku", True),
        ("gpt-3.5-turbo", "gpt-3.5-turbo-0125", True),
        ("gemini-2.0-flash", "gemini-2.0-flash-001", True),
        ("models/gemini-2.0-flash", "gemini-2.0-flash", True),
        ("anthropic.claude-v2", "anthropic.claude-v2-20240101-v1:0", True),
        ("", "gpt-4o", True),
        ("gpt-4o", "", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o-mini", "gpt-4o", False),
        ("gpt-4o", "gpt-4o-mini-2024-07-18", False),
        ("gpt-4", "gpt-4o", False),
        ("auto", "gpt-4o", False),
    ],
)
def test_same_model(requested: str, used: str, same: bool) -> None:
    assert same_model(requested, used) is same


def test_tidy() -> None:
    assert tidy("plain ünïcödé") == "plain ünïcödé"
    assert tidy("a\r\n\x1b[0m\u2028\ud800b") == "a [0m b"
    assert tidy("x" * 300) == "x" * 256
    assert tidy("abc", 2) == "ab"
