"""The fake's model lists, in the shape of whoever asks."""

from __future__ import annotations

import random

from gateway.testing.fake_errors import Facts, refusal
from gateway.testing.fake_openai_chat import headers
from gateway.testing.fake_world import Ids, Incoming, Wire, World, dump, pretty

OPENAI = ("gpt-5.5", "gpt-5", "gpt-5-mini", "gpt-4.1", "gpt-4o", "gpt-4o-mini", "text-embedding-3-small")
ANTHROPIC = {
    "claude-opus-5-5": "Claude Opus 5.5",
    "claude-sonnet-5": "Claude Sonnet 5",
    "claude-haiku-4-5": "Claude Haiku 4.5",
}
GEMINI = ("gemini-2.5-pro", "gemini-2.5-flash", "gemini-2.5-flash-lite", "gemini-embedding-001")
_CREATED = 1_735_689_600


def _openai(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "system"}


def _anthropic(name: str) -> dict[str, object]:
    return {"type": "model", "id": name, "display_name": ANTHROPIC[name], "created_at": "2025-01-01T00:00:00Z"}


def _gemini(name: str) -> dict[str, object]:
    methods = ["embedContent", "countTokens"] if "embedding" in name else ["generateContent", "countTokens"]
    limits = {"inputTokenLimit": 1_048_576, "outputTokenLimit": 65_536}
    return {"name": f"models/{name}", "displayName": name, **limits, "supportedGenerationMethods": methods}


def of_v1(_world: World, request: Incoming) -> Wire:
    """Anthropic's shape for those who send anthropic-version, OpenAI's for all others."""
    if "anthropic-version" not in request.headers:
        body = {"object": "list", "data": [_openai(name) for name in OPENAI]}
        return Wire(200, [("content-type", "application/json"), *headers(Ids(random.Random(0)))], dump(body))
    data = [_anthropic(name) for name in ANTHROPIC]
    listing = {"data": data, "has_more": False, "first_id": data[0]["id"], "last_id": data[-1]["id"]}
    return Wire(200, [("content-type", "application/json")], dump(listing))


def one_of_v1(_world: World, request: Incoming, name: str) -> Wire:
    dialect, known = (
        ("anthropic", name in ANTHROPIC) if "anthropic-version" in request.headers else ("openai", name in OPENAI)
    )
    if not known:
        return refusal(dialect, "model", Facts(name), Ids(random.Random(name)))
    body = _anthropic(name) if dialect == "anthropic" else _openai(name)
    return Wire(200, [("content-type", "application/json")], dump(body))


def of_gemini(_world: World, _request: Incoming) -> Wire:
    body = pretty({"models": [_gemini(name) for name in GEMINI]})
    return Wire(200, [("content-type", "application/json; charset=UTF-8")], body)


def one_of_gemini(_world: World, _request: Incoming, name: str) -> Wire:
    if name not in GEMINI:
        return refusal("gemini", "model", Facts(name), Ids(random.Random(name)))
    return Wire(200, [("content-type", "application/json; charset=UTF-8")], pretty(_gemini(name)))
