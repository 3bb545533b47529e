"""A fake provider and a real gateway in front of it, shared by the tests of this directory."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest

pytest.register_assert_rewrite("gateway.testing.twice")  # before its import: its assertions shall say what differs

from gateway.testing.fake_upstream import FakeUpstream  # noqa: E402
from gateway.testing.gateway import RunningGateway  # noqa: E402
from gateway.testing.scripted import Background, ScriptedUpstream  # noqa: E402
from gateway.testing.twice import Twice  # noqa: E402

NOW = 1_790_000_000.0

# The files that take longest, and those first: so two processes that take a file each end at about the same time.
LONGEST = (
    "test_semantic.py",
    "test_budget_proof.py",
    "test_semantic_attack.py",
    "test_semantic_bars.py",
    "test_ledger_rebuild.py",
    "test_page.py",
    "test_mcp.py",
    "test_prompt_cache.py",
    "test_watching.py",
    "test_metrics_many.py",
    "test_chaos.py",
    "test_demo.py",
    "test_lifecycle.py",
    "test_supervisor.py",
    "test_budgets_crash.py",
    "test_kill.py",
    "test_soak.py",
)
PLACES = {name: place for place, name in enumerate(LONGEST)}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: PLACES.get(item.path.name, len(PLACES)))


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
    """What goes through it is held against what goes without it, request by request: so it retries nothing itself."""
    with RunningGateway(upstreams(fake.url), retries={"attempts": 1}) as running:
        yield running


@pytest.fixture(scope="module")
def up(request: pytest.FixtureRequest) -> Iterator[ScriptedUpstream]:
    """An upstream that plays the `SCRIPTS` of the module."""
    with Background(ScriptedUpstream(request.module.SCRIPTS)) as running:
        yield running


@pytest.fixture(scope="session")
def salts() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture
def twice(fake: FakeUpstream, gate: RunningGateway, salts: Iterator[int]) -> Twice:
    return Twice(fake, gate, next(salts))
