"""Entries for tests of the stores of answers."""

from __future__ import annotations

from typing import Any

from gateway.call import Answer, ToolUse, Usage, UsageSource
from gateway.ports import Entry

NOW = 1_790_000_000_000_000_000
HOUR = 3600 * 10**9
ANSWER = Answer(
    "m", "r", Usage(5, 7, detail={"x": 1.0}), UsageSource.INJECTED, {"service_tier": "default"}, ("stop",),
    (ToolUse("1", "f"),), 20, "Hello", b"\x01", ((Usage(1, 1), "n", {}),),
)  # fmt: skip


def entry(name: str = "a", body: bytes = b"hello", **more: Any) -> Entry:
    known: dict[str, Any] = {
        "key": name.encode().ljust(32, b"."), "tenant": "t", "created": NOW, "expires": NOW + HOUR, "stream": False,
        "counted": True, "kind": b"application/json", "head": b"x-request-id: 1\r\n", "body": body, "answer": ANSWER,
        "cost": 5, "route": "/r", "upstream": "u", "model": "m", "agent": "a", "tags": ("red", "blue"),
    }  # fmt: skip
    return Entry(**{**known, **more})
