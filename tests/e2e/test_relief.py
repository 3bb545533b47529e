"""A worker short of memory gives back what its cache holds, and sends no call away for it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.testing.faults import Send, answer
from gateway.testing.gateway import RunningGateway
from gateway.testing.raw import RawClient, post
from gateway.testing.scripted import Background, ScriptedUpstream

CHAT = "/v1/chat/completions"
LARGE = 400_000
ANSWER = {
    "id": "c",
    "object": "chat.completion",
    "model": "gpt-4o",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "x" * LARGE}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
}
DROPPED = 'tollgate_cache_memory_dropped_bytes_total{cache="answers"} '


@pytest.fixture(scope="module")
def up() -> Iterator[ScriptedUpstream]:
    with Background(ScriptedUpstream({"": [Send(answer(json.dumps(ANSWER).encode()))]})) as running:
        yield running


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_the_cache_in_memory_gives_way_before_any_call_does(up: ScriptedUpstream) -> None:
    settings: dict[str, Any] = {
        "upstreams": {"openai": {"dialect": "openai", "provider": "openai", "url": up.url, "key": "k" * 20}},
        "cache": {"exact": {"enabled": True, "ttl": 3600}, "memory_bytes": 67_108_864},
        "telemetry": {"log": "stdout"},
    }
    with RunningGateway(**settings) as gate, RawClient(int(gate.config["listen"].rpartition(":")[2])) as client:

        def ask(number: int, *headers: bytes) -> tuple[int, str]:
            question = {"model": "gpt-4o", "temperature": 0, "messages": [{"role": "user", "content": f"{number}?"}]}
            client.send(post(CHAT, json.dumps(question).encode(), *headers))
            got = client.answer()
            return got.status, got.get("x-tollgate-cache")

        assert {ask(number) for number in range(120)} == {(200, "miss")}
        (worker,) = gate.pids("worker")
        full = resident(worker)
        gate.write_config({**gate.config, "overload": {"memory_bytes": int(full / 1.02)}})
        text = gate.until(lambda: gate.text("/metrics"), lambda text: DROPPED in text, 20)
        assert float(text.partition(DROPPED)[2].split()[0]) > 60 * LARGE
        gate.until(lambda: resident(worker), lambda now: now < full - 60 * LARGE, 20)
        for number in range(120):
            assert ask(number, b"x-tollgate-priority: batch") == (200, "exact")  # from the file
        assert resident(worker) < full - 30 * LARGE
        assert "tollgate_shed_total{" not in gate.text("/metrics")
        assert "gateway.overload" not in gate.log
        assert "gateway.caches_shrunk" in gate.log
