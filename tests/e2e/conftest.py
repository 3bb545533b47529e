"""A fake provider and a real gateway in front of it, shared by the tests of this directory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway
from gateway.testing.twice import Twice

NOW = 1_790_000_000.0


def upstreams(url: str) -> dict[str, Any]:
    return {
        "openai": {"dialect": "openai", "url": url, "provider": "openai"},
        "anthropic": {"dialect": "anthropic", "url": url, "provider": "anthropic"},
        "gemini": {"dialect": "gemini", "url": url, "provider": "google"},
    }


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key and no base URL of the surroundings gets into a client."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_", "LANGSMITH_", "LANGCHAIN_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def fake() -> Iterator[FakeUpstream]:
    with FakeUpstream(11, clock=lambda: NOW, cache_minimum=256) as running:
        yield running


@pytest.fixture(scope="session")
def gate(fake: FakeUpstream) -> Iterator[RunningGateway]:
    with RunningGateway(upstreams(fake.url)) as running:
        yield running


@pytest.fixture
def twice(fake: FakeUpstream, gate: RunningGateway) -> Twice:
    return Twice(fake, gate)
