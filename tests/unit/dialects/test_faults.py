"""Errors of the gateway carry the right status, words and advice in every dialect."""

from __future__ import annotations

import json

import pytest

from gateway import errors
from gateway.dialects import faults
from gateway.dialects.registry import DIALECTS
from gateway.dialects.websocket import ws_error
from gateway.errors import (
    BudgetExceeded,
    BudgetsUnavailable,
    Forbidden,
    GatewayError,
    LimitReached,
    RunStopped,
    Unauthorized,
)


def leaves(kind):
    return [kind, *(leaf for child in kind.__subclasses__() for leaf in leaves(child))]


TREE = [kind for kind in leaves(GatewayError) if kind.__module__ == errors.__name__]


class RateLimited(GatewayError):
    code, status, retryable = "rate_limited", 429, True


@pytest.mark.parametrize("name", sorted(DIALECTS))
@pytest.mark.parametrize("kind", [*TREE, RateLimited], ids=lambda kind: kind.__name__)
def test_every_error_in_every_dialect(kind, name):
    fault = kind("what happened", param="model")
    answer = DIALECTS[name].refusal(fault, "req-1", stream=True)
    headers = dict(answer.headers)
    assert 400 <= answer.status <= 599
    assert answer.status == (529 if name == "anthropic" and fault.status == 503 else fault.status)
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"x-should-retry"] == (b"true" if fault.retryable else b"false")
    assert headers[b"x-tollgate-code"] == fault.code.encode()
    assert headers.get(b"retry-after", b"1").isdigit()
    body = json.loads(answer.body)
    error = body.get("error", body)  # Cohere has no object for it, Ollama nothing but the words
    assert "what happened" in (error if isinstance(error, str) else error["message"])


SAID = "The budget of run r-1 is spent: 2.00 of 2.00 USD."
INSUFFICIENT = {"message": SAID, "type": "insufficient_quota", "param": None, "code": "insufficient_quota"}
LIMITED = {"message": "Slow down. Please try again in 7s.", "type": "rate_limit_exceeded", "param": None,
           "code": "rate_limit_exceeded", "tollgate_code": "limit_reached"}  # fmt: skip


def info(reason, code):
    kind = "type.googleapis.com/google.rpc.ErrorInfo"
    return {"@type": kind, "reason": reason, "domain": "tollgate", "metadata": {"code": code}}


def anthropic(kind, code, message):
    error = {"type": kind, "message": message, "details": {"error_code": code}}
    return {"type": "error", "error": error, "request_id": "req-1"}


@pytest.mark.parametrize(
    ("name", "fault", "status", "body"),
    [
        *(
            (name, kind(SAID), 402, {"error": {**INSUFFICIENT, "tollgate_code": kind.code}})
            for name in ("openai_chat", "openai_completions", "openai_responses", "openai_embeddings", "opaque")
            for kind in (BudgetExceeded, RunStopped)
        ),
        *(
            (name, LimitReached("Slow down.", retry_after=7), 429, {"error": LIMITED})
            for name in ("openai_chat", "openai_responses", "openai_embeddings")
        ),
        ("openai_chat", Forbidden("not this model", param="model"), 403,
         {"error": {"message": "not this model", "type": "permission_error", "param": "model", "code": "forbidden"}}),
        ("openai_chat", Unauthorized("no key"), 401,
         {"error": {"message": "no key", "type": "authentication_error", "param": None, "code": "unauthorized"}}),
        ("openai_chat", BudgetsUnavailable("away"), 503,
         {"error": {"message": "away", "type": "server_error", "param": None, "code": "budgets_unavailable"}}),
        ("anthropic", BudgetExceeded(SAID), 402, anthropic("billing_error", "budget_exceeded", SAID)),
        ("anthropic", RunStopped(SAID), 402, anthropic("billing_error", "run_stopped", SAID)),
        ("anthropic", LimitReached("Slow down.", retry_after=7), 429,
         anthropic("rate_limit_error", "limit_reached", "Slow down.")),
        ("anthropic", Forbidden("no"), 403, anthropic("permission_error", "forbidden", "no")),
        ("anthropic", Unauthorized("no"), 401, anthropic("authentication_error", "unauthorized", "no")),
        ("anthropic", BudgetsUnavailable("away"), 529, anthropic("overloaded_error", "budgets_unavailable", "away")),
        ("gemini", BudgetExceeded(SAID), 402,
         {"error": {"code": 402, "message": SAID, "status": "RESOURCE_EXHAUSTED",
                    "details": [info("BUDGET_EXCEEDED", "budget_exceeded")]}}),
        ("gemini", LimitReached("Slow down.", retry_after=7), 429,
         {"error": {"code": 429, "message": "Slow down.", "status": "RESOURCE_EXHAUSTED",
                    "details": [info("LIMIT_REACHED", "limit_reached"),
                                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}]}}),
        ("bedrock_converse", BudgetExceeded(SAID), 402, {"message": SAID}),
        ("bedrock_invoke", LimitReached("Slow down.", retry_after=7), 429, {"message": "Slow down."}),
        ("cohere", BudgetExceeded(SAID), 402, {"id": "req-1", "message": SAID, "error_type": "budget_exceeded"}),
        ("cohere", LimitReached("Slow down.", retry_after=7), 429,
         {"id": "req-1", "message": "Slow down.", "error_type": "limit_reached"}),
        ("ollama", BudgetExceeded(SAID), 402, {"error": SAID}),
        ("ollama", LimitReached("Slow down.", retry_after=7), 429, {"error": "Slow down."}),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "code", ""),
)  # fmt: skip
def test_what_a_budget_or_a_limit_says(name, fault, status, body):
    answer = DIALECTS[name].refusal(fault, "req-1", stream=True)
    headers = dict(answer.headers)
    assert (answer.status, json.loads(answer.body)) == (status, body)
    assert headers[b"x-tollgate-code"] == fault.code.encode()
    assert headers[b"x-should-retry"] == (b"true" if status in {429, 503, 529} else b"false")
    assert headers.get(b"retry-after") == {402: None, 429: b"7", 503: b"1", 529: b"1"}.get(status)


@pytest.mark.parametrize("name", sorted(DIALECTS))
@pytest.mark.parametrize("kind", [BudgetExceeded, RunStopped])
def test_a_hard_stop_never_asks_to_come_back(name, kind):
    fault = kind("spent", retry_after=5)
    fault.retryable = True
    headers = dict(DIALECTS[name].refusal(fault, "r", stream=False).headers)
    assert headers[b"x-should-retry"] == b"false"
    assert b"retry-after" not in headers


@pytest.mark.parametrize("name", sorted(DIALECTS))
@pytest.mark.parametrize("kind", [BudgetExceeded, RunStopped, LimitReached])
def test_in_mid_stream_the_stable_code_is_told_too(talk, name, kind):
    one = talk(name)
    event = one.dialect.interruption(kind(SAID), one.meter(b"", kind=b"text/event-stream"), "r")
    assert kind.code.encode() in event
    assert b"[DONE]" not in event
    if name.startswith("openai"):
        assert (b"rate_limit_exceeded" if kind is LimitReached else b"insufficient_quota") in event


def test_a_websocket_gets_the_same_error():
    message = json.loads(ws_error(BudgetExceeded(SAID), "req-1"))
    error = {**INSUFFICIENT, "tollgate_code": "budget_exceeded"}
    assert message == {"type": "error", "status": 402, "request_id": "req-1", "error": error}


def test_limits_say_when_to_come_back():
    answer = faults.openai_refusal(RateLimited("Too many calls.", retry_after=7), "r")
    error = json.loads(answer.body)["error"]
    assert error["code"] == "rate_limit_exceeded"
    assert error["message"] == "Too many calls. Please try again in 7s."
    assert dict(answer.headers)[b"retry-after"] == b"7"


@pytest.mark.parametrize(("asked", "told"), [(None, 1), (0, 0), (7, 7), (60, 60), (86_400, 60), (-3, 0)])
def test_no_wait_is_longer_than_a_minute(asked, told):
    assert faults.retry_after(RateLimited(retry_after=asked), 429) == told


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": 418}, 418),
        ({"code": "503"}, 503),
        ({"status_code": 400}, 400),
        ({"code": 200}, 500),
        ({"code": "model_not_found"}, 404),
        ({"type": "overloaded_error"}, 503),
        ({"type": "never heard of"}, 500),
        ("text", 500),
        (None, 500),
    ],
)
def test_status_of_an_error_in_a_stream(error, status):
    assert faults.openai_status(error) == status


def test_anthropic_types_are_those_of_its_statuses():
    for kind, status in faults.ANTHROPIC_STATUS.items():
        fault = GatewayError("m")
        fault.status = status
        assert faults.anthropic_error(fault, "r")[1]["error"]["type"] == kind
