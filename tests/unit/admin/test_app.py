from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from gateway.admin import handlers
from gateway.admin.openapi import ROUTES
from gateway.admin.views import Readiness, WorkersView
from gateway.recorder.ledger_read import LedgerReader
from gateway.testing.records import call_record

Gate = Any  # of conftest.py
PATHS = [
    route.path.replace("{id}", "run-1").replace("{model}", "gpt-4o-mini").replace("{scope}/{value}", "team/a")
    for route in ROUTES
]

SUBJECT = {"scope": "agent", "value": "bot"}
BODIES: dict[str, tuple[int, Any]] = {
    "report_outcome": (201, {"outcome": "success"}),
    "kill_run": (200, {}),
    "resume_run": (200, {}),
    "raise_run": (200, {"budget_usd": 1}),
    "limit_run": (200, {"max_calls": 1}),
    "kill": (200, SUBJECT),
    "resume": (200, SUBJECT),
    "create_key": (201, {"name": "run-1"}),
    "rotate_key": (200, {}),
    "disable_key": (200, {}),
    "set_limit": (200, {"rpm": 5}),
    "force_breaker": (200, {"name": "openai", "state": "open"}),
    "cache_feedback": (404, {"verdict": "wrong", "request_id": "c"}),  # no hit of this call is known
    "adjust_budget": (404, {"account": "global|usd|life", "delta_usd": -1}),  # that no call has met
}


async def test_every_route_answers_as_documented(gate: Gate) -> None:
    gate.fill([call_record("run-1")])
    for route, path in zip(ROUTES, PATHS, strict=True):
        if route.method in ("POST", "PUT"):
            status, body = BODIES[route.name]
            await gate.send(route.method, path, status, json=body)
        elif route.method == "DELETE":
            await gate.send("DELETE", path, 200)
        else:
            if route.events:  # never ends
                async with gate.client.get(path) as response:
                    assert (response.status, response.content_type) == (200, "text/event-stream")
            else:
                await gate.get(path)
            async with gate.client.head(path) as response:
                assert response.status == 200


async def test_readiness_is_503_while_draining(gate: Gate) -> None:
    assert (await gate.get("/readyz"))["ready"] is True
    workers = WorkersView(ready=1, total=1)
    gate.readiness = Readiness(ready=False, draining=True, workers=workers, ledger="ok", lag_seconds=0.5)
    body = await gate.get("/readyz", 503)
    assert body["draining"] is True
    await gate.get("/healthz")


async def test_metrics_in_both_formats(gate: Gate) -> None:
    assert "tollgate_requests_total" in await gate.get("/metrics")
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    assert await gate.get("/metrics", headers=accept) == "# EOF\n"


@pytest.mark.parametrize(
    ("offered", "encoding"),
    [("gzip", "gzip"), ("br, GZIP;q=0.5", "gzip"), ("gzip;q=0", None), ("gzip; q=0.0", None), ("identity", None)],
)
async def test_metrics_are_compressed_for_who_takes_it(gate: Gate, offered: str, encoding: str | None) -> None:
    async with gate.client.get("/metrics", headers={"Accept-Encoding": offered}) as answer:
        assert answer.headers.get("Content-Encoding") == encoding
        assert answer.headers["Vary"] == "Accept, Accept-Encoding"
        assert "tollgate_requests_total" in await answer.text()


@pytest.mark.parametrize(("method", "path", "status", "code"), [
    ("GET", "/nope", 404, "unknown_route"),
    ("GET", "/api/calls/", 404, "unknown_route"),
    ("POST", "/api/calls", 405, "method_not_allowed"),
    ("DELETE", "/api/runs/x", 405, "method_not_allowed"),
    ("GET", "/api/prices/unheard-of", 404, "price_not_found"),
])  # fmt: skip
async def test_errors_are_problems(gate: Gate, method: str, path: str, status: int, code: str) -> None:
    problem = await gate.send(method, path, status)
    assert problem["code"] == code
    assert problem["status"] == status
    assert problem["title"]
    assert problem["type"].endswith(code)


async def test_a_fault_of_our_own_is_a_problem_too_and_logged(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(LedgerReader, "call", lambda *_: 1 / 0)
    problem = await gate.get("/api/calls/c1", 500)
    assert problem["code"] == "internal_error"
    assert "division" not in problem["detail"]
    assert [r.message for r in caplog.records if r.name == "tollgate.admin"] == ["admin: GET /api/calls/c1 failed"]


async def test_prices(gate: Gate) -> None:
    gate.fill([call_record("a"), call_record("b", model_requested="house-model", provider="")])
    listed = (await gate.get("/api/prices"))["models"]
    assert [(m["model"], m["known"]) for m in listed] == [("gpt-4o-mini", True), ("house-model", False)]
    assert (await gate.get("/api/prices/gpt-4o?provider=azure"))["provider"] == "azure"
    assert (await gate.get("/api/prices/gpt/with/slashes"))["model"] == "gpt/with/slashes"


async def test_no_ledger_is_a_passing_trouble(gate: Gate) -> None:
    gate.ledger.path.unlink()
    async with gate.client.get("/api/calls") as response:
        assert response.status == 503
        assert response.headers["Retry-After"] == "1"
    await gate.get("/healthz")


async def test_a_query_that_takes_too_long_is_cut(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    gate.fill([call_record(f"c{n}", run_id=f"r{n}") for n in range(3000)])
    monkeypatch.setattr(gate.client.app[handlers.STATE].ledger, "_seconds", -1.0)
    problem = await gate.get("/api/runs?outcome=success", 503)
    assert problem["code"] == "query_timeout"


async def test_a_busy_writer_does_not_hold_readers_up(gate: Gate) -> None:
    gate.fill([call_record("c1")])
    writer = sqlite3.connect(gate.ledger.path, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    assert len((await gate.get("/api/calls"))["calls"]) == 1
    writer.execute("ROLLBACK")
    writer.close()


async def test_answers_are_not_cached_or_sniffed(gate: Gate) -> None:
    async with gate.client.get("/api/calls") as response:
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
