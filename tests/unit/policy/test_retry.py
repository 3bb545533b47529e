from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    BadAnswer,
    ConnectFailed,
    GatewayError,
    StreamStalled,
    StreamTruncated,
    UpstreamReset,
    UpstreamTimeout,
)
from gateway.policy.retry import MOST, NANO, RESERVE, Cause, RetryBudget, backoff, duration, of_answer, of_fault, told
from gateway.ports import Blame

NOW = 1_795_000_000 * NANO


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (ConnectFailed("x"), Cause.REFUSED),
        (ConnectFailed("x", code="upstream_tls_failed"), Cause.REFUSED),
        (ConnectFailed("x", code="tool_address_refused"), Cause.FINAL),
        (UpstreamTimeout("x", code="upstream_connect_timeout"), Cause.REFUSED),
        (UpstreamTimeout("x", code="upstream_first_byte_timeout"), Cause.SLOW),
        (UpstreamTimeout("x", code="upstream_first_content_timeout"), Cause.SLOW),
        (StreamStalled("x"), Cause.SLOW),
        (UpstreamReset("x"), Cause.BROKEN),
        (UpstreamReset("x", code="upstream_cut"), Cause.BROKEN),
        (StreamTruncated("x"), Cause.BROKEN),
        (BadAnswer("x"), Cause.BROKEN),
    ],
)
def test_faults(fault: GatewayError, cause: Cause) -> None:
    assert of_fault(fault).cause is cause


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 507, 529, 599])
def test_answers_that_may_be_others_the_next_time(status: int) -> None:
    verdict = of_answer(status, {}, Blame(), NOW)
    assert (verdict.cause, verdict.wait, verdict.here) == (Cause.REFUSED, None, True)


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 413, 422, 451, 501, 505])
def test_answers_that_would_not(status: int) -> None:
    assert of_answer(status, {}, Blame(), NOW).cause is Cause.FINAL


@pytest.mark.parametrize(("status", "wait"), [(429, 4), (503, 4), (529, 4), (500, None)])
def test_the_reset_of_a_limit_is_for_answers_that_speak_of_load(status: int, wait: float | None) -> None:
    reset = {b"x-ratelimit-remaining-requests": b"0", b"x-ratelimit-reset-requests": b"4s"}
    assert of_answer(status, reset, Blame(), NOW).wait == wait


def test_what_the_upstream_advises_is_done() -> None:
    assert of_answer(404, {b"x-should-retry": b"true"}, Blame(), NOW).cause is Cause.REFUSED
    verdict = of_answer(500, {b"x-should-retry": b"False"}, Blame(), NOW)
    assert (verdict.cause, verdict.here) == (Cause.REFUSED, False), "another upstream may be asked"


def test_what_the_body_says() -> None:
    assert of_answer(400, {}, Blame("context"), NOW).cause is Cause.CONTEXT
    assert of_answer(400, {}, Blame("policy"), NOW).cause is Cause.POLICY
    verdict = of_answer(429, {b"retry-after": b"1"}, Blame("quota"), NOW)
    assert (verdict.cause, verdict.here) == (Cause.REFUSED, False)
    assert of_answer(429, {}, Blame("", 7.0), NOW).wait == 7
    assert of_answer(429, {b"retry-after": b"3"}, Blame("", 7.0), NOW).wait == 3


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({b"retry-after": b"2"}, 2),
        ({b"retry-after": b"0"}, 0),
        ({b"retry-after-ms": b"1500", b"retry-after": b"2"}, 1.5),
        ({b"retry-after-ms": b"soon", b"retry-after": b"2"}, 2),
        ({b"retry-after": b"Wed, 18 Nov 2026 11:07:10 GMT"}, 30),
        ({b"retry-after": b"Wed, 18 Nov 2026 10:00:00 GMT"}, 0),
        ({b"x-ratelimit-remaining-requests": b"0", b"x-ratelimit-reset-requests": b"120ms"}, 0.12),
        ({b"x-ratelimit-remaining-tokens": b"0", b"x-ratelimit-reset-tokens": b"6m0s"}, 360),
        ({b"x-ratelimit-remaining-tokens": b"9", b"x-ratelimit-reset-tokens": b"6m0s"}, None),
        (
            {b"x-ratelimit-remaining-requests": b"0", b"x-ratelimit-reset-requests": b"1s"}
            | {b"x-ratelimit-remaining-tokens": b"0", b"x-ratelimit-reset-tokens": b"1m30.5s"},
            90.5,
        ),
        (
            {
                b"anthropic-ratelimit-tokens-remaining": b"0",
                b"anthropic-ratelimit-tokens-reset": b"2026-11-18T11:06:45Z",
            },
            5,
        ),
        (
            {b"anthropic-ratelimit-input-tokens-remaining": b"0"}
            | {b"anthropic-ratelimit-input-tokens-reset": b"2026-11-18T12:06:45+01:00"},
            5,
        ),
        ({b"x-ratelimit-remaining-requests": b"0", b"x-ratelimit-reset-requests": b"1795000004"}, 4),
        ({b"retry-after": b"1795000004000"}, 4),  # milliseconds since the epoch
        ({b"retry-after-ms": b"1795000004000"}, 4),
        ({b"x-ratelimit-remaining": b"0", b"x-ratelimit-reset": b"1795000004000"}, 4),  # OpenRouter
        ({b"x-ratelimit-remaining": b"1", b"x-ratelimit-reset": b"1795000004000"}, None),
        ({b"retry-after": b"99999999999"}, 99_999_999_999 - 1_795_000_000),  # longer than anybody waits
        ({b"retry-after": b"999999999999999"}, 999_999_999_999.999 - 1_795_000_000),
        ({b"retry-after": b""}, None),
        ({b"retry-after": b"-3"}, None),
        ({b"retry-after": b"9" * 500}, None),
        ({b"x-ratelimit-remaining-requests": b"0", b"x-ratelimit-reset-requests": b"1s" * 32}, 32),
        ({b"x-ratelimit-remaining-requests": b"0", b"x-ratelimit-reset-requests": b"1s" * 33}, None),
        ({b"retry-after": b"\xff"}, None),
        ({}, None),
    ],
)
def test_how_long_to_wait(headers: dict[bytes, bytes], seconds: float | None) -> None:
    found = told(headers, NOW)
    assert found == (None if seconds is None else pytest.approx(seconds))


@given(st.binary(max_size=80))
def test_any_bytes_are_a_wait_or_none(raw: bytes) -> None:
    found = duration(raw, NOW)
    assert found is None or found >= 0


@given(st.integers(0, 100), st.floats(0, 1, exclude_max=True))
def test_the_wait_has_full_jitter_and_an_end(tries: int, chance: float) -> None:
    wait = backoff(tries, 0.5, 8, chance)
    assert 0 <= wait <= min(8, 0.5 * 2**tries)
    assert backoff(tries, 0.5, 8, 0) == 0


@given(st.lists(st.booleans(), max_size=500), st.sampled_from([0.0, 0.05, 0.2, 1.0]))
def test_the_budget_is_a_share_and_a_reserve(steps: list[bool], share: float) -> None:
    """Whatever the order of calls (True) and failures (False)."""
    budget = RetryBudget(share)
    calls = retries = 0
    for is_call in steps:
        if is_call:
            calls += 1
            budget.earn()
        elif budget.spend():
            retries += 1
        assert retries <= calls * share + (RESERVE if share else 0) + 1e-9


def test_it_saves_up_only_so_much() -> None:
    budget = RetryBudget(0.2)
    for _ in range(10_000):
        budget.earn()
    assert sum(budget.spend() for _ in range(100)) == MOST
