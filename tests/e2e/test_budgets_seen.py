"""Budgets from outside of a real gateway: what records, API and metrics say, and limits that are set while it runs."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway
from tests.soon import soon

WORKERS = 2
SECONDS = 1.0  # for every worker to go by what was decided


@pytest.fixture(scope="module")
def gate(fake: FakeUpstream) -> Iterator[RunningGateway]:
    with RunningGateway(
        {"openai": {"dialect": "openai", "url": fake.url, "provider": "openai"}},
        workers=WORKERS,
        budgets=[
            {"scope": "global", "usd": 1, "per": "day"},
            {"scope": "agent", "match": "clamped", "usd": 0.002, "on_exceed": "clamp"},
        ],
        runs={"budget_usd": 0.01, "max_calls": 3},
        spending={"lease_seconds": 1},
    ) as running:
        yield running


def ask(gate: RunningGateway, agent: str, run: str, max_tokens: int = 50, script: str = "") -> tuple[int, str]:
    body = {"model": "gpt-4o-mini", "max_tokens": max_tokens, "messages": [{"role": "user", "content": "hello"}]}
    named = {"x-tollgate-agent": agent, "x-tollgate-run-id": run, "x-fake": script}
    headers = {"content-type": "application/json", "authorization": "Bearer x", **named}
    request = urllib.request.Request(gate.url + "/v1/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.loads(refused.read())["error"]["message"]
    except OSError:  # its worker was killed
        return 0, ""


def send(gate: RunningGateway, method: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"} if data else {}
    request = urllib.request.Request(gate.admin_url + path, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def metric(gate: RunningGateway, name: str) -> dict[str, float]:
    """Values by the text of their labels."""
    found = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", gate.text("/metrics"), re.M)
    return {labels: float(value) for labels, value in found}


def test_what_budgets_decide_is_seen_everywhere(gate: RunningGateway) -> None:
    statuses = [ask(gate, "plain", "run-1")[0] for _ in range(4)]
    assert statuses == [200, 200, 200, 402]
    assert ask(gate, "clamped", "run-2", 16_000)[0] == 200
    calls = gate.calls(5)
    decided = [(call["budget"]["decision"], call["budget"]["account"]) for call in calls]
    assert decided[:4] == [("granted", None)] * 3 + [("refused", "run:run-1|calls|life")]
    assert decided[4][0] == "clamped"
    assert decided[4][1].startswith("agent:clamped|usd|month|")
    assert calls[0]["budget"]["reserved_usd"] > calls[0]["cost_usd"] > 0
    assert 256 <= calls[4]["budget"]["clamped_to"] < 16_000

    spent = sum(call["cost_usd"] for call in calls if call["status"] == 200)
    (day,) = gate.get("/api/budgets", scope="global")["budgets"]
    assert day["spent"] == pytest.approx(spent, abs=1e-9)
    assert day["reserved"] == 0
    run = gate.get("/api/runs/run-1")["budget"]
    assert (run["calls_left"], run["limit_usd"]) == (0, 0.01)

    decisions = {'decision="granted"': 3, 'decision="refused"': 1, 'decision="clamped"': 1}
    gate.until(lambda: metric(gate, "tollgate_budget_decisions_total"), lambda seen: seen == decisions)
    assert metric(gate, "tollgate_rejected_total") == {'reason="budget_exceeded"': 1}
    series = 'budget="global|usd|day",scope="global"'

    def ratio() -> float:
        return metric(gate, "tollgate_budget_remaining_ratio").get(series, 0.0)

    assert gate.until(ratio, lambda seen: seen > 0) == pytest.approx(1 - spent, abs=1e-6)
    assert metric(gate, "tollgate_budget_store_available") == {"": 1}
    assert "run-1" not in "".join(metric(gate, "tollgate_budget_limit_usd"))

    log = gate.until(lambda: gate.log, lambda log: '"budget":"refused"' in log)
    line = next(line for line in log.splitlines() if '"budget":"refused"' in line)
    assert json.loads(line)["budget_account"] == "run:run-1|calls|life"


def test_an_adjustment_counts_for_every_worker(gate: RunningGateway) -> None:
    ask(gate, "plain", "run-3")
    account = gate.get("/api/budgets", scope="global")["budgets"][0]["account"]
    send(gate, "POST", "/api/budgets/adjust", {"account": account, "delta_usd": 2, "id": "over"})
    messages = {ask(gate, "plain", f"run-3-{n}") for n in range(4 * WORKERS)}
    assert {status for status, _ in messages} == {402}
    assert all("The budget of global, per day is $1.00" in message for _, message in messages)
    send(gate, "POST", "/api/budgets/adjust", {"account": account, "delta_usd": -2, "id": "back"})
    assert ask(gate, "plain", "run-3-x")[0] == 200


def test_a_limit_set_by_api_holds_in_every_worker_within_a_second_and_is_gone_as_fast(gate: RunningGateway) -> None:
    assert ask(gate, "capped", "run-4")[0] == 200
    body = {"budgets": [{"usd": 0.000_001, "per": "day"}], "by": "ann"}

    def take(_: int) -> float:
        began = time.monotonic()
        made = send(gate, "PUT", "/api/limits/agent/capped", body)
        assert made["in_force"]
        return time.monotonic() - began

    soon(take, SECONDS)
    refused = {ask(gate, "capped", f"run-4-{n}") for n in range(4 * WORKERS)}
    assert {status for status, _ in refused} == {402}
    assert all("agent capped, per day" in message for _, message in refused)
    assert ask(gate, "other", "run-5")[0] == 200
    gate.kill_worker()  # one that starts later begins with it
    gate.until(lambda: ask(gate, "capped", f"run-6-{time.monotonic_ns()}")[0], lambda status: status == 402)
    gone = send(gate, "DELETE", "/api/limits/agent/capped")
    assert gone["in_force"]
    assert {ask(gate, "capped", f"run-7-{n}")[0] for n in range(4 * WORKERS)} == {200}


def test_what_a_killed_worker_held_is_charged_and_counted(gate: RunningGateway) -> None:
    asking = threading.Thread(target=ask, args=(gate, "dying", "run-8"), kwargs={"script": "[[wait 8]]"})
    asking.start()
    run = gate.until(lambda: gate.get("/api/budgets", prefix="run:run-8|usd")["budgets"], bool)[0]
    assert (run["spent"], run["reserved"] > 0) == (0, True)
    for pid in gate.pids("worker"):
        os.kill(pid, signal.SIGKILL)
    asking.join()
    after = gate.until(
        lambda: gate.get("/api/budgets", prefix="run:run-8|usd")["budgets"][0], lambda account: account["reserved"] == 0
    )
    assert after["spent"] == run["reserved"]
    gate.until(lambda: metric(gate, "tollgate_budget_holds_expired_total")[""], lambda count: count >= 1)
