from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer

from gateway.admin.app import build
from gateway.admin.openapi import ROUTES, document
from gateway.admin.state import AdminState, Gauges
from gateway.admin.views import Readiness, WorkersView
from gateway.call import Money, Usage
from gateway.config.schema import Config
from gateway.journal.record import OutcomeRecord, Record
from gateway.policy.cached import Chosen
from gateway.ports import Feedback, MatcherState, Noted
from gateway.recorder.ledger import Ledger
from gateway.recorder.ledger_read import LedgerReader
from gateway.stores.budget_desk import FileDesk
from gateway.stores.cache_desk import CacheDesk
from gateway.stores.matcher_desk import MatcherAway
from gateway.stores.sqlite_canaries import SqliteCanaries
from gateway.stores.sqlite_controls import SqliteDecisions
from gateway.stores.sqlite_keys import SqliteKeyStore
from gateway.stores.sqlite_learned import SqliteLearned


class Prices:
    version = "2026-11-01"

    def describe(self, provider: str, model: str) -> Mapping[str, Any]:
        known = model.startswith("gpt")
        return {"provider": provider or "openai", "model": model, "known": known, "version": self.version}

    def price(
        self, provider: str, model: str, usage: Usage, at: float, context: Mapping[str, str] | None = None
    ) -> Money:
        """Ten micro-USD per input token; a tenth of that where it was cached."""
        return Money((usage.input_tokens - usage.cache_read_tokens) * 10**7 + usage.cache_read_tokens * 10**6)


class Metrics:
    def render(self, accept: str) -> tuple[bytes, str]:
        if "openmetrics" in accept:
            return b"# EOF\n", "application/openmetrics-text; version=1.0.0; charset=utf-8"
        return b"tollgate_requests_total 1\n", "text/plain; version=0.0.4; charset=utf-8"


class Matcher:
    """The matcher's desk: `known` is its state, None while it is away."""

    def __init__(self) -> None:
        self.known: MatcherState | None = MatcherState("fake", "", 0, 0, 0, ())
        self.noted = Noted(0)
        self.told: list[Any] = []

    def state(self) -> MatcherState:
        if self.known is None:
            raise MatcherAway("it sleeps")
        return self.known

    def say(self, feedback: Feedback) -> Noted:
        self.state()
        self.told.append(feedback)
        return self.noted

    def forget(self, chosen: Chosen) -> Noted:
        self.state()
        self.told.append(chosen)
        return self.noted


@dataclass
class Gate:
    """The admin API over a real ledger that tests fill; every answer is held against the OpenAPI document."""

    ledger: Ledger
    client: TestClient[Any, Any] = None  # type: ignore[assignment]
    journal: list[OutcomeRecord] = field(default_factory=list)
    readiness: Readiness = field(
        default_factory=lambda: Readiness(
            ready=True, draining=False, workers=WorkersView(ready=1, total=1), ledger="ok", lag_seconds=0.0
        )
    )
    token: str | None = None
    lags: bool = False
    refuses: bool = False
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    decisions: SqliteDecisions = None  # type: ignore[assignment]
    keys: SqliteKeyStore = None  # type: ignore[assignment]
    matcher: Matcher = field(default_factory=Matcher)
    config: Config = field(default_factory=Config)
    workers: list[dict[str, float]] = field(default_factory=list)
    refused: dict[tuple[str, ...], int] = field(default_factory=dict)  # by pool and reason
    gauges: Gauges = field(default_factory=Gauges)
    at: int = 1_790_000_005_000_000_000
    seen: int = 10**9  # the revision that the workers have taken in

    def fill(self, records: Sequence[Record]) -> None:
        self.ledger.apply(records, {})

    def append(self, record: OutcomeRecord) -> bool:
        if self.refuses:
            return False
        self.journal.append(record)
        if not self.lags:
            self.fill([record])
        return True

    async def get(self, path: str, status: int = 200, **kwargs: Any) -> Any:
        return await self.send("GET", path, status, **kwargs)

    async def post(self, path: str, body: object, status: int = 201, **kwargs: Any) -> Any:
        return await self.send("POST", path, status, json=body, **kwargs)

    async def send(self, method: str, path: str, status: int, **kwargs: Any) -> Any:
        async with self.client.request(method, path, **kwargs) as response:
            text = await response.text()
            assert response.status == status, text
            return await conforming(method, response)


async def conforming(method: str, response: ClientResponse) -> Any:
    """The body, which must be as the OpenAPI document has it."""
    described = document_for(method, response.url.raw_path)
    statuses = described["responses"] if described else {}
    content = statuses.get(str(response.status), statuses.get("default", PROBLEM))["content"]
    assert response.content_type in content, (response.status, response.content_type)
    if response.content_type == "text/event-stream":
        return None
    if not response.content_type.endswith("json"):
        return await response.text()
    body = await response.json(content_type=None)
    schema = {**content[response.content_type]["schema"], "components": document("test")["components"]}
    jsonschema.Draft202012Validator(schema).validate(body)
    return body


PROBLEM = {"content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}


def document_for(method: str, path: str) -> dict[str, Any] | None:
    for route in ROUTES:
        wanted = re.sub(r"{(id|scope)}", "[^/]+", re.sub(r"{(model|value)}", ".+", route.path))
        if route.method == method and re.fullmatch(wanted, path):
            operation: dict[str, Any] = document("test")["paths"][route.path][method.lower()]
            return operation
    return None


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gate]:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.open()
    keys = SqliteKeyStore(tmp_path / "keys.sqlite", tmp_path / "keys.pepper", lambda: 1_790_000_005_000_000_000)
    gate = Gate(ledger, decisions=SqliteDecisions(tmp_path / "controls.sqlite"), keys=keys)
    numbers = itertools.count(1)
    state = AdminState(
        ledger=LedgerReader(ledger.path),
        metrics=Metrics(),
        prices=Prices,
        readiness=lambda: gate.readiness,
        append=gate.append,
        event=lambda kind, detail: gate.events.append((kind, detail)),
        decisions=gate.decisions,
        keys=gate.keys,
        budgets=FileDesk(tmp_path),
        cache=CacheDesk(tmp_path / "cache.sqlite"),
        matcher=gate.matcher,
        config=lambda: gate.config,
        gauges=lambda: {"rec": {}, **{f"w{number}": one for number, one in enumerate(gate.workers)}},
        refused=lambda: gate.refused,
        canaries=SqliteCanaries(tmp_path / "canaries.sqlite").standings,
        condition=lambda: gate.gauges,
        learned=SqliteLearned(tmp_path / "learned.sqlite").standings,
        in_force=lambda revision: revision <= gate.seen,
        caught_up_at=lambda: float("-inf") if gate.lags else float("inf"),
        token=lambda: gate.token,
        now=lambda: gate.at,
        new_id=lambda: f"outcome-{next(numbers)}",
        patience=0.0,
        pulse=0.01,
    )
    async with TestClient(TestServer(build(state))) as client:
        gate.client = client
        yield gate
    ledger.close()
    await asyncio.sleep(0)
