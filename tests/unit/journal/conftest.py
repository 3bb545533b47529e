"""A closed call as the relay leaves it, and places to write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.call import Answer, Asked, Attempt, Call, Money, Request, Route, Target, Trace, Usage, UsageSource, Who

BEGAN = 5_000_000_000
MakeCall = Callable[..., Call]


@pytest.fixture
def make_call() -> MakeCall:
    def make(id: str = "call-1", **changes: Any) -> Call:
        target = Target("openai", "openai", "api.openai.com", 443, True, b"")
        facts: dict[str, Any] = {
            "request": Request(
                b"POST",
                b"/v1/chat/completions?key=hidden",
                [(b"Host", b"x"), (b"User-Agent", b"OpenAI/Python 3.3.1"), (b"X-Stainless-Retry-Count", b"1")],
                b'{"model":"gpt-4o-mini"}',
                "127.0.0.1:50000",
            ),
            "route": Route("/v1/chat/completions", "openai_chat", "chat", "openai", b"/v1/chat/completions"),
            "asked": Asked(model="gpt-4o-mini", params={"temperature": 0.5, "stop": ("a", "b")}),
            "who": Who(tenant="acme", agent="coder", agent_source="url", run_id="run-1", run_confidence=1.0, step=2),
            "trace": Trace("a" * 32, "b" * 16, "c" * 16),
            "started_at": 1_790_000_000_000_000_000,
            "began": BEGAN,
            "received": BEGAN + 1_000_000,
            "attempts": [Attempt(target, BEGAN + 1_200_000, BEGAN + 9_000_000, 200, True)],
            "answer": Answer(
                model="gpt-4o-mini-2024-07-18",
                response_id="chatcmpl-1",
                usage=Usage(100, 20, 10),
                usage_source=UsageSource.PROVIDER,
                finish_reasons=("stop",),
            ),
            "money": Money(1_234, {"input": 1_000, "output": 234}, "2026-11-01", "priced"),
            "status": 200,
            "first_byte": BEGAN + 8_000_000,
            "upstream_first_byte": BEGAN + 7_900_000,
            "upstream_last_byte": BEGAN + 8_900_000,
            "ended": BEGAN + 9_100_000,
            "response_bytes": 700,
        }
        return Call(id, **{**facts, **changes})

    return make


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "journal"
    path.mkdir()
    return path


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    path = tmp_path / "inflight"
    path.mkdir()
    return path
