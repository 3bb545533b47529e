"""Builders of routes, calls and streams for the tests of the dialects."""

from __future__ import annotations

import json

import pytest

from gateway.call import Request, Route
from gateway.dialects.registry import DIALECTS

PATHS = {
    "openai_chat": "/v1/chat/completions",
    "openai_completions": "/v1/completions",
    "openai_responses": "/v1/responses",
    "openai_embeddings": "/v1/embeddings",
    "anthropic": "/v1/messages",
    "gemini": "/v1beta/models/gemini-2.5-flash:generateContent",
    "bedrock_converse": "/model/anthropic.claude-sonnet-4-5-20250929-v1:0/converse",
    "bedrock_invoke": "/model/meta.llama3-1-70b-instruct-v1:0/invoke",
    "cohere": "/v2/chat",
    "ollama": "/api/chat",
    "opaque": "/v1/other",
}


class Talk:
    """One dialect, with short words for what the pipeline does with it."""

    def __init__(self, name, path=None, operation=None):
        self.dialect = DIALECTS[name]
        path = path or PATHS[name]
        self.route = Route(path, name, "chat" if operation is None else operation, "up", path.encode())

    def read(self, body):
        data = (
            body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
        )
        return self.dialect.read(self.route, Request(b"POST", self.route.path, (), data))

    def meter(self, body=b"", status=200, kind=b"application/json"):
        return self.dialect.meter(self.route, self.read(body), status, kind)

    def answer(self, document, body=b"", status=200):
        meter = self.meter(body, status)
        meter.feed(document if isinstance(document, bytes) else json.dumps(document).encode())
        return meter.end()

    def stream(self, *events, body=b""):
        """The meter of a stream that has seen these events (a dict, or (name, dict), or bytes as they are)."""
        meter = self.meter(body, kind=b"text/event-stream")
        for event in events:
            meter.feed(sse(event))
        return meter


def sse(event):
    if isinstance(event, bytes):
        return event
    name, data = event if isinstance(event, tuple) else ("", event)
    line = f"event: {name}\n" if name else ""
    return f"{line}data: {json.dumps(data)}\n\n".encode()


@pytest.fixture
def talk():
    return Talk


@pytest.fixture
def frame():
    return sse
