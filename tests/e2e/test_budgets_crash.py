"""Budgets when something dies: a worker between its hold and its settling, or the store that many gateways share."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway
from tests.e2e.conftest import upstreams
from tests.e2e.money import Answer, Waiting, ask, asked_of, prices, under_way
from tests.redis_server import NEEDS_REDIS, PROGRAM, RedisServer

MODEL = "m"


def settings(budgets: list[dict[str, Any]], **spending: Any) -> dict[str, Any]:
    return {"prices": prices(MODEL), "budgets": budgets, "spending": spending, "telemetry": {"log": None}}


def of_run(gate: RunningGateway, run: str, text: str = "[[tokens 5]]", most: int = 100) -> Answer:
    return ask(gate, "chat", MODEL, text, most, prefix=f"/run/{run}")


# -- a worker is killed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["charge", "free"])
@pytest.mark.parametrize("store", ["sqlite", pytest.param("redis", marks=NEEDS_REDIS)])
def test_what_a_killed_worker_held_is_charged_or_freed_as_configured(
    fake: FakeUpstream, store: str, how: str, redis: RedisServer
) -> None:
    """kill -9 while the upstream works. The hold stands until the lease is over; then it is spent, or free again."""
    budget = {"scope": "run", "match": "*", "usd": 0.01, "per": "life"}
    more = {"redis": redis.url, "timeout": 1, "prefix": f"t-{how}"} if store == "redis" else {}
    with RunningGateway(upstreams(fake.url), **settings([budget], on_dead_worker=how, lease_seconds=1, **more)) as gate:
        gate.until(lambda: of_run(gate, "first").status, lambda status: status == 200)
        mark = f"killed-{store}-{how}"
        with ThreadPoolExecutor(1) as pool:
            call = Waiting(gate, "chat", MODEL, f"[[wait 30]] {mark}", 200, prefix="/run/k")
            under_way(fake, mark)
            cut = pool.submit(call.answer_rest)
            gate.kill_worker()
            assert cut.result(10) == b""
        gate.until(lambda: gate.status("/readyz"), lambda status: status == 200)

        def stands() -> str:
            return of_run(gate, "k", most=300).message  # which never fits

        message = gate.until(stands, lambda text: "reserved" not in text)
        spent = float(re.search(r"\$(0\.\d+) spent", message)[1])  # type: ignore[index]
        assert 0.008 <= spent <= 0.0086 if how == "charge" else spent == 0
        assert of_run(gate, "k", most=100).status == (402 if how == "charge" else 200)
        (lost,) = gate.until(lambda: [c for c in gate.calls(1, run="k") if c["outcome"] == "abandoned"], bool)
        assert lost["cost_usd"] is None  # what it cost nobody will know: it is not said to be nothing


# -- Redis hangs -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer | None]:
    if PROGRAM is None:
        yield None
        return
    with RedisServer() as running:
        yield running


@pytest.fixture
def hung(redis: RedisServer) -> Iterator[Any]:
    """Stops the server's process when called, and lets it go on at the end."""
    yield redis.hang
    redis.go_on()


BUDGETS = [{"scope": "run", "match": "limited-*", "usd": 1, "per": "life"}]


def timed(gate: RunningGateway, run: str) -> tuple[Answer, float]:
    began = time.monotonic()
    answer = of_run(gate, run, most=50)
    return answer, time.monotonic() - began


@NEEDS_REDIS
def test_while_redis_hangs_limited_calls_are_refused_and_others_go_on(
    fake: FakeUpstream, redis: RedisServer, hung: Any
) -> None:
    with RunningGateway(upstreams(fake.url), **settings(BUDGETS, redis=redis.url, prefix="closed", timeout=2)) as gate:
        gate.until(lambda: of_run(gate, "limited-a").status, lambda status: status == 200)
        hung()
        refused = [timed(gate, "limited-a") for _ in range(10)]
        free = [timed(gate, "free") for _ in range(10)]
        assert {answer.status for answer, _ in refused} == {503}
        assert refused[-1][0].error["code"] == "budgets_unavailable" or b"budgets" in refused[-1][0].raw
        assert refused[-1][0].headers["retry-after"].isdecimal()
        assert len([seconds for _, seconds in refused if seconds >= 2]) <= 1  # the timeout is paid once, not by each
        assert {answer.status for answer, _ in free} == {200}
        assert max(seconds for _, seconds in free) < 2
        assert "tollgate_budget_store_available 0" in gate.until(
            lambda: gate.text("/metrics"), lambda text: "tollgate_budget_store_available 0" in text
        )
        redis.go_on()
        gate.until(lambda: of_run(gate, "limited-a").status, lambda status: status == 200)


@NEEDS_REDIS
def test_while_redis_hangs_a_share_is_granted_where_that_is_configured(
    fake: FakeUpstream, redis: RedisServer, hung: Any
) -> None:
    """`open`, with a local share of 5 % of $1: calls that may need $0.0024 each go on until $0.05 are used."""
    more = {"redis": redis.url, "prefix": "open", "on_failure": "open", "local_share": 0.05}
    with RunningGateway(upstreams(fake.url), **settings(BUDGETS, **more)) as gate:
        gate.until(lambda: of_run(gate, "limited-b").status, lambda status: status == 200)
        hung()
        answers = [of_run(gate, "limited-b", "[[tokens 50]] in-outage", 50) for _ in range(40)]
        statuses = [answer.status for answer in answers]
        granted = statuses.count(200)
        assert 15 <= granted <= 25
        assert set(statuses[granted:]) <= {402, 503}
        spent = sum(float(a.headers["x-tollgate-cost-usd"]) for a in answers if a.status == 200)
        assert spent <= 0.05
        assert len(asked_of(fake, "in-outage")) == granted
        redis.go_on()

        def booked() -> float:
            found = gate.get("/api/budgets", prefix="run:limited-b")["budgets"]
            of_run(gate, "limited-b")
            return float(found[0]["spent"]) if found else 0.0

        gate.until(booked, lambda total: total >= spent)  # what was spent meanwhile is told to Redis


@NEEDS_REDIS
def test_where_nothing_is_limited_redis_is_not_missed(fake: FakeUpstream, redis: RedisServer, hung: Any) -> None:
    with RunningGateway(upstreams(fake.url), **settings([], redis=redis.url, prefix="none", timeout=2)) as gate:
        hung()
        assert {timed(gate, "x")[0].status for _ in range(5)} == {200}
        assert max(timed(gate, "x")[1] for _ in range(5)) < 2
