"""Requests that ask no model: which of them cost nothing, by the price lists of the providers."""

from __future__ import annotations

import pytest

from gateway.call import Asked, Call, Request, Trace, Who
from gateway.dialects.routes import Table
from gateway.policy.free_requests import is_free

TABLE = Table({"openai": "openai", "anthropic": "anthropic", "gemini": "gemini"})


def free(method: str, path: str, provider: str = "openai", *headers: bytes) -> bool:
    route = TABLE.resolve(method.encode(), path.encode(), "anthropic" if provider == "anthropic" else "openai")
    request = Request(method.encode(), path.encode(), (), b"", names=dict.fromkeys(headers, b"x"))
    return is_free(Call("c", request, route, Asked(), Who(), Trace(), 0, 0), provider)


@pytest.mark.parametrize(
    ("method", "path", "provider"),
    [
        ("GET", "/v1/files/f/content", "openai"),
        ("DELETE", "/v1/responses/r", "openai"),
        ("POST", "/v1/responses/r/cancel", "openai"),
        ("POST", "/v1/batches/b/cancel", "openai"),
        ("POST", "/v1/fine_tuning/jobs/j/cancel", "openai"),
        ("POST", "/v1/messages/batches/b/cancel", "anthropic"),
        ("POST", "/v1beta/batches/b:cancel", "google"),
        ("POST", "/v1/batches/b/cancel", "whoever"),
        ("POST", "/v1/moderations", "openai"),
        ("POST", "/v1/files", "openai"),
        ("POST", "/v1/files/", "anthropic"),
        ("POST", "/v1/uploads/u/parts", "openai"),
        ("POST", "/v1/conversations", "openai"),
        ("POST", "/v1/conversations/c?include=x", "openai"),
        ("POST", "/v1/chat/completions/c", "openai"),
        ("POST", "/upload/v1beta/files?uploadType=resumable", "google"),
    ],
)
def test_what_costs_nothing(method: str, path: str, provider: str) -> None:
    assert free(method, path, provider)
    assert not free(method, path, provider, b"x-http-method-override")
    assert not free(method, path + ("&" if "?" in path else "?") + "_method=put", provider)


@pytest.mark.parametrize(
    ("method", "path", "provider"),
    [
        ("POST", "/v1/batches", "openai"),
        ("POST", "/v1/messages/batches", "anthropic"),
        ("POST", "/v1/moderations", "mistral"),  # charges for them
        ("POST", "/v1/files", "whoever"),
        ("POST", "/v1/files/f/process", "openai"),
        ("POST", "/v1/moderations/x", "openai"),
        ("POST", "/v1/vector_stores", "openai"),
        ("POST", "/v1/conversations/c/items", "openai"),  # would be read by calls that are not held for it
        ("POST", "/v1/realtime/client_secrets", "openai"),  # a key that passes this gateway by
        ("POST", "/v1/threads/t/runs/cancel", "openai"),
        ("POST", "/v1beta/cachedContents", "google"),
        ("PATCH", "/v1beta/cachedContents/c", "google"),
        ("PUT", "/v1/files", "openai"),
        ("POST", "/v1/images/generations?x=/v1/files", "openai"),
    ],
)
def test_what_may_cost_something(method: str, path: str, provider: str) -> None:
    assert not free(method, path, provider)
