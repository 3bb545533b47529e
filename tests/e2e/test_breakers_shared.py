"""Gateways that have a Redis in common know what each other's breakers found, and go on alone without it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway, dead_port
from gateway.testing.raw import RawAnswer, RawClient, post
from tests.redis_server import NEEDS_REDIS, RedisServer

pytestmark = NEEDS_REDIS


@pytest.fixture(scope="module")
def well() -> Iterator[FakeUpstream]:
    with FakeUpstream(5) as running:
        yield running


def config(well: FakeUpstream, redis: RedisServer) -> dict[str, Any]:
    known = {"dialect": "openai", "provider": "openai"}
    return {
        "upstreams": {
            "gone": {**known, "url": f"http://127.0.0.1:{dead_port()}", "key": "sk-of-the-first"},
            "well": {**known, "url": well.url, "key": "sk-of-the-backup"},
        },
        "fallbacks": [{"upstream": "gone", "to": ["well"]}],
        "breakers": {"consecutive": 3, "pause": 60, "longest": 60},
        "spending": {"redis": redis.url},
        "telemetry": {"log": None},
    }


def ask(gate: RunningGateway) -> RawAnswer:
    body: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hello"}]}
    with RawClient(int(gate.url.rpartition(":")[2]), timeout=20) as client:
        client.send(post("/gone/v1/chat/completions", json.dumps(body).encode()))
        return client.answer()


def test_what_one_gateway_found_the_other_knows(well: FakeUpstream) -> None:
    with RedisServer() as redis:
        settings = config(well, redis)
        with RunningGateway(**settings) as one, RunningGateway(**settings) as other:
            assert [ask(one).get("x-tollgate-attempts") for _ in range(4)] == ["2", "2", "2", "1"]
            other.until(lambda: other.text("/metrics"), lambda page: 'breaker_changes_total{breaker="gone"' in page)
            got = ask(other)
            assert (got.status, got.get("x-tollgate-upstream"), got.get("x-tollgate-attempts")) == (200, "well", "1")
            redis.stop()
            for gate in (one, other):
                got = ask(gate)
                assert (got.status, got.get("x-tollgate-attempts")) == (200, "1")
