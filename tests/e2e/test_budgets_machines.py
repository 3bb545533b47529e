"""Two gateways on one Redis, as on two machines: one budget, and decisions that reach the other one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway
from tests.e2e.conftest import upstreams
from tests.e2e.money import Answer, Waiting, ask, prices, until
from tests.redis_server import NEEDS_REDIS, RedisServer
from tests.soon import soon

pytestmark = NEEDS_REDIS
WITHIN = 1.0  # seconds for a decision to reach the other machine


@pytest.fixture(scope="module")
def pair(fake: FakeUpstream) -> Iterator[list[RunningGateway]]:
    with RedisServer() as redis:
        settings = {
            "prices": prices("m"),
            "runs": {"budget_usd": 0.02},
            "spending": {"redis": redis.url, "timeout": 5},
            "loops": {"repeats": 3, "repeated_call": "stop"},
            "telemetry": {"log": None},
        }
        with (
            RunningGateway(upstreams(fake.url), **settings) as one,  # type: ignore[arg-type]
            RunningGateway(upstreams(fake.url), workers=2, **settings) as other,  # type: ignore[arg-type]
        ):
            for gate in (one, other):
                until(lambda gate=gate: of_run(gate, "first").status == 200)  # type: ignore[misc]
            yield [one, other]


def of_run(gate: RunningGateway, run: str, text: str = "[[tokens 5]]", most: int = 50) -> Answer:
    return ask(gate, "chat", "m", text, most, prefix=f"/run/{run}")


def test_one_budget_for_both(pair: list[RunningGateway]) -> None:
    """Calls at both at once: together they stay within, to the micro-dollar of what the upstream says."""
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(of_run, pair[n % 2], "shared", "[[wait 0.1]] [[tokens 60]]", 100) for n in range(24)]
        answers = [one.result() for one in asked]
    good = [answer for answer in answers if answer.status == 200]
    true = sum(a.json["usage"]["prompt_tokens"] + 40 * a.json["usage"]["completion_tokens"] for a in good) * 1e-6
    assert {answer.status for answer in answers} == {200, 402}
    assert true <= 0.02
    for gate in pair:  # the last settles are on their way for a moment
        books = gate.until(
            lambda gate=gate: gate.get("/api/runs/shared")["budget"], lambda books: books["reserved_usd"] == 0
        )
        assert books["spent_usd"] == pytest.approx(true, abs=1e-9)
    left = [of_run(gate, "shared", most=1).remaining for gate in pair]
    assert left[1] < left[0] < 0.02 - true


def test_a_kill_reaches_the_other_machine_and_a_resume_too(pair: list[RunningGateway]) -> None:
    def take(number: int) -> float:
        run = f"both-{number}"
        assert of_run(pair[1], run).status == 200
        pair[0].post(f"/api/runs/{run}/kill", {"reason": "enough"})
        began = time.monotonic()
        until(lambda: all(of_run(pair[1], run).status == 402 for _ in range(4)))
        late = time.monotonic() - began
        pair[0].post(f"/api/runs/{run}/resume", {})
        until(lambda: all(of_run(pair[1], run).status == 200 for _ in range(2)))
        return late

    soon(take, WITHIN)


def test_a_kill_reaches_a_stream_on_the_other_machine(pair: list[RunningGateway]) -> None:
    def take(number: int) -> float:
        run = f"far-{number}"
        stream = Waiting(pair[1], "chat", "m", "[[fault stall after=3]]", 50, stream=True, prefix=f"/run/{run}")
        stream.client.until(b"data: ")
        began = time.monotonic()
        pair[0].post(f"/api/runs/{run}/kill", {"reason": "enough"})
        assert b"run_stopped" in stream.answer_rest()
        return time.monotonic() - began

    soon(take, WITHIN)


def test_a_raise_reaches_the_other_machine(pair: list[RunningGateway]) -> None:
    assert of_run(pair[1], "rich", most=900).status == 402
    pair[0].post("/api/runs/rich/raise", {"budget_usd": 0.1})
    until(lambda: of_run(pair[1], "rich", most=900).status == 200)
