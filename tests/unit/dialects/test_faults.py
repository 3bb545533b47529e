"""Errors of the gateway carry the right status, words and advice in every dialect."""

from __future__ import annotations

import json

import pytest

from gateway import errors
from gateway.dialects import faults
from gateway.dialects.registry import DIALECTS
from gateway.errors import GatewayError


def leaves(kind):
    return [kind, *(leaf for child in kind.__subclasses__() for leaf in leaves(child))]


TREE = [kind for kind in leaves(GatewayError) if kind.__module__ == errors.__name__]


class RateLimited(GatewayError):
    code, status, retryable = "rate_limited", 429, True


class BudgetExceeded(GatewayError):
    code, status = "budget_exceeded", 402


@pytest.mark.parametrize("name", sorted(DIALECTS))
@pytest.mark.parametrize("kind", [*TREE, RateLimited, BudgetExceeded], ids=lambda kind: kind.__name__)
def test_every_error_in_every_dialect(kind, name):
    fault = kind("what happened", param="model")
    answer = DIALECTS[name].refusal(fault, "req-1", stream=True)
    headers = dict(answer.headers)
    assert 400 <= answer.status <= 599
    assert answer.status == (529 if name == "anthropic" and fault.status == 503 else fault.status)
    assert headers[b"content-type"] == b"application/json"
    assert headers[b"x-should-retry"] == (b"true" if fault.retryable else b"false")
    assert headers.get(b"retry-after", b"1").isdigit()
    assert "what happened" in json.loads(answer.body)["error"]["message"]


def test_budgets_are_final_for_openai_clients():
    answer = faults.openai_refusal(BudgetExceeded("spent", retry_after=5), "r")
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["type"], error["code"]) == (402, "insufficient_quota", "insufficient_quota")
    assert b"retry-after" not in dict(answer.headers)


def test_limits_say_when_to_come_back():
    answer = faults.openai_refusal(RateLimited("Too many calls.", retry_after=7), "r")
    error = json.loads(answer.body)["error"]
    assert error["code"] == "rate_limit_exceeded"
    assert error["message"] == "Too many calls. Please try again in 7s."
    assert dict(answer.headers)[b"retry-after"] == b"7"


@pytest.mark.parametrize(("asked", "told"), [(None, None), (0, 0), (7, 7), (60, 60), (86_400, 60), (-3, 0)])
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
