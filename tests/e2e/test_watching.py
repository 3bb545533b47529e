"""Dashboards and alerts with the real Prometheus and Alertmanager: every panel has data, alerts come and go as they
shall, and reach whom they are for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp
import pytest

from gateway.semantic import parts
from gateway.testing.agents import CAST, Stage
from gateway.testing.fake_script import Ask, Reply
from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway, dead_port
from gateway.testing.otlp_collector import OtlpCollector
from tests.e2e.conftest import upstreams
from tests.e2e.test_prompt_cache import Agent
from tests.e2e.test_semantic import learn, ready, truth
from tests.e2e.test_tools import ToolServer
from tests.e2e.watchers import MISSING, Alertmanager, Prometheus, Webhook, until
from tests.test_dashboards import VARIABLES, queries

pytestmark = [
    pytest.mark.skipif(
        bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (no panel query and no alert is proven to work)"
    ),
    pytest.mark.timeout(900),
]

ROOT = Path(__file__).parents[2]
CHAT = "/v1/chat/completions"
QUIET = ("coder", "researcher", "support bot", "embedder", "summariser")
ASLEEP = {"TollgateWatchdog"}
SLOW = {"TollgateDown", "TollgateEventLoopLag", "TollgateJournalLag", "TollgateSloOverhead", "TollgateSloFirstToken"}
"""Alerts that a slow machine raises by itself: the tests share it with others."""

SIMILAR = f"not installed: {', '.join(parts.missing())}"
NOTHING: Mapping[str, Any] = MappingProxyType({})
JSON_MODE = {"response_format": {"type": "json_object"}}
WITHOUT = {
    ("cache", "tollgate_cache_feedback_total"): "nobody said that an answer was right or wrong",
    ("cache", "tollgate_cache_judged_total"): "no judge is configured",
    ("cache", "tollgate_learned_quality_ratio"): "nothing is claimed before there are 500 labels",
    ("cache", "tollgate_learned_cost_ratio"): "nothing is claimed before there are 500 labels",
} | {("cache", f"tollgate_cache_{part}"): SIMILAR for part in (
    "false_hit_", "cut", "breaker_open", "verified_total", "similar_total", "lookup_seconds", "matcher_up",
    "embedder_up", "questions",
) if parts.missing()}  # fmt: skip
"""(dashboard, part of a query) -> why it has no data here."""


def said(ask: Ask) -> Reply | None:
    """To what is asked about buildings the one answer; to all else whatever the fake says."""
    text = ask.turns[-1].text
    return Reply(text=truth(text)) if " built" in text and "[[" not in text else None


class World:
    """Everything that runs, and the calls that are made."""

    def __init__(self, directory: Path) -> None:
        self.stack = contextlib.ExitStack()
        enter = self.stack.enter_context
        self.fake = enter(FakeUpstream(3, cache_minimum=256, script=said))
        self.well = enter(FakeUpstream(5, script=lambda _: Reply(text="From the other one.")))
        self.collector = enter(OtlpCollector())
        self.webhook = enter(Webhook())
        self.alertmanager = enter(Alertmanager(directory / "alertmanager", self.webhook.url))
        self.prometheus = Prometheus(directory / "prometheus", self.alertmanager.url, ROOT / "alerts", backfill())
        self.tool = ""
        self.gate = RunningGateway({})
        self.rng = random.Random(4)
        self.round = 0
        self.settings: dict[str, Any] = {}

    def __enter__(self) -> World:
        ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        server = ToolServer()

        def serve() -> None:
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(server.__aenter__())
            ready.set()
            self._loop.run_forever()
            self._loop.run_until_complete(server.__aexit__())
            self._loop.close()

        self._thread = threading.Thread(target=serve, daemon=True)
        self._thread.start()
        assert ready.wait(10)
        self.settings = settings(self, server.url)
        self.gate = self.stack.enter_context(RunningGateway(**self.settings))
        self.prometheus.scrape(gate=self.gate.config["admin"])
        self.stack.enter_context(self.prometheus)
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def change(self, **settings: Any) -> None:
        """Write the configuration with other settings; the gateway loads it by itself."""
        self.gate.write_config({**self.gate.config, **settings})

    def act(self, *cast: str, times: int = 1) -> None:
        """Each of the cast plays so many runs."""

        async def acting() -> None:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60), read_bufsize=2**20) as session:
                stage = Stage(session, self.gate.url, [], self.rng, tool_seconds=0.01)
                for _ in range(times):
                    await asyncio.gather(*(CAST[name](stage) for name in cast))

        asyncio.run(acting())

    def trouble(self) -> None:
        """A round of all that goes wrong, and of what is seldom."""
        self.round += 1
        self.act("leaver", "lost", "runaway")
        asyncio.run(self._troubled())
        for clock in (False, True):
            Agent(self.gate, f"prefix-{self.round}-{clock}", marks=True, clock=clock).play(2)

    def ask(self, text: str, agent: str) -> None:
        body = {
            "model": "gpt-4o-mini",
            "max_tokens": 9,
            "messages": [{"role": "user", "content": f"{text} {time.time()}"}],
        }
        headers = {"authorization": "Bearer k", "content-type": "application/json", "x-tollgate-agent": agent}
        request = urllib.request.Request(self.gate.url + CHAT, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()

    def lean(self) -> None:
        """Calls that only fallbacks save; no breaker knows better."""

        async def leaning() -> None:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:
                for number in range(30):
                    asked = {"role": "user", "content": f"[[fault 503]] {self.rng.random()} {number}"}
                    url = f"{self.gate.url}/sick{CHAT}"
                    body = {"model": "gpt-4o", "messages": [asked]}
                    async with session.post(url, json=body, headers={"authorization": "Bearer k"}) as answer:
                        assert answer.status == 200, await answer.text()

        asyncio.run(leaning())

    async def _troubled(self) -> None:
        run = f"run-{self.round}"
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:

            async def ask(
                text: str,
                model: str = "gpt-4o",
                where: str = "",
                more: Mapping[str, Any] = MappingProxyType({}),
                **headers: str,
            ) -> None:
                body = {"model": model, "max_tokens": 400, "messages": [{"role": "user", "content": text}], **more}
                names = {name.replace("_", "-"): value for name, value in headers.items()}
                names = {"authorization": "Bearer k", "x-tollgate-run-id": run, "x-tollgate-agent": "odd", **names}
                async with session.post(f"{self.gate.url}{where}{CHAT}", json=body, headers=names) as answer:
                    await answer.read()

            for number in range(6):
                await ask(f"[[fault 503]] {run} {number}", where="/sick")
                await ask(f"[[fault 429]] {run} {number}", where="/limited", x_stainless_retry_count="1")
                await ask("Always the same question?")
                await ask(f"What is this? {run} {number}", model="mystery-9", where="/strange")
                await ask(f"Who goes first? {run} {number}", model="app", x_tollgate_run_id=f"{run}-canary-{number}")
                await ask(f"Which of them? {run} {number}", model="any")
                await ask(f"[[say not JSON]] {run} {number}", model="form", more=JSON_MODE)
            for _ in range(12):
                await ask(f"{self.rng.random()}", where="/late")
            await ask(f"[[wait 1]] {run}", where="/late")
            crowd = (ask(f"[[wait 0.3]] {run} {number}", where="/narrow") for number in range(4))
            await asyncio.gather(*crowd)
            await ask(f"[[tokens 300]] {run}", model="gold", x_tollgate_agent="spender")
            for path, times in (("find/it", 2), ("find/fail", 3), ("find/same", 2)):
                for _ in range(times):
                    headers = {"x-tollgate-run-id": run, "x-tollgate-agent": "odd"}
                    async with session.get(f"{self.gate.url}/tools/search/{path}", headers=headers) as answer:
                        await answer.read()
            for report in ({"outcome": "success"}, {"outcome": "score", "value": 0.5}):
                named = run if report["outcome"] == "success" else f"{run}-canary-0"
                url = f"{self.gate.admin_url}/api/runs/{named}/outcome"
                async with session.post(url, json=report) as answer:
                    assert answer.status < 300, await answer.text()


def backfill() -> str:
    """An hour before: the gateway was there already, and its tenant spent evenly."""
    now = int(time.time())
    moments = range(now - 3600, now - 5, 5)
    build = 'tollgate_build_info{job="tollgate",instance="gate",version="0.1.0"}'
    lines = ["# TYPE tollgate_build info", *(f"{build} 1 {at}" for at in moments)]
    lines += ["# TYPE up gauge", *(f'up{{job="tollgate",instance="gate"}} 1 {at}' for at in moments)]
    hour = 'tenant:tollgate_cost_usd:increase1h{tenant="default"}'
    lines += ["# TYPE tenant:tollgate_cost_usd:increase1h gauge", *(f"{hour} 3 {at}" for at in moments)]
    return "\n".join([*lines, "# EOF", ""])


def settings(world: World, tool: str) -> dict[str, Any]:
    sick = {"dialect": "openai", "url": world.fake.url, "provider": "openai", "key": "sk-of-the-first"}
    well = {"dialect": "openai", "url": world.well.url, "provider": "openai", "key": "sk-of-the-backup"}
    names = {
        **{name: {**one, "key": "sk-upstream"} for name, one in upstreams(world.fake.url).items()},
        "sick": sick, "limited": {**sick, "provider": "mistral"},
        "strange": {**well, "provider": "cohere"}, "well": well, "narrow": {**sick}, "late": {**sick},
    }  # fmt: skip
    search = {
        "url": f"{tool}/v1", "paths": ["/find/*"], "read_only": True, "allow_private": True, "timeout": 5,
        "price": {"usd": 0.001}, "cache": {"ttl": 60, "paths": {"/find/same": 60}},
    }  # fmt: skip
    serve = {"agent": "bot", "mode": "off" if parts.missing() else "serve"}
    similar = {"target": 0.02, "patience": 5, "rules": [serve]}
    return {
        "upstreams": names,
        "fallbacks": [{"upstream": "sick", "to": ["well"]}],
        "retries": {"base": 0.01, "longest": 0.05, "within": 5},
        "routes": [
            {"model": "app", "to": ["gpt-4o-mini"], "canary": {"id": "next", "to": "gpt-4o", "share": 0.5}},
            {"model": "any", "to": ["gpt-4o-mini", "gpt-4o"], "by": "learned", "learn": {"id": "any", "quality": 0.97}},
            {"model": "form", "to": ["gpt-4o-mini", "gpt-4o"], "by": "priority", "cascade": {}},
        ],
        "hedging": {"enabled": True, "upstream": "late", "quantile": 0.5, "sample": 10, "share": 1},
        "prices": {"models": {"gold": {"input": 100_000, "output": 100_000}}},
        "aliases": {"old-name": "gpt-4o"},
        "budgets": [
            {"scope": "global", "usd": 100_000, "per": "month"},
            {"scope": "agent", "match": "spender", "usd": 110, "per": "month"},
        ],
        "bulkheads": {"narrow": {"upstream": "narrow", "max": 1, "queue": 2, "wait": 5}},
        "overload": {"lag_seconds": 30},
        "spending": {"unknown_price": "allow"},
        "loops": {"cycle": "stop", "repeated_call": "warn"},
        "identity": {"run_idle_seconds": 20},
        "cache": {"exact": {"enabled": True, "ttl": 60}, "semantic": similar},
        "tools": {"search": search},
        "telemetry": {"log": None, "otlp": {"endpoint": world.collector.url, "protocol": "http/protobuf"}},
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("watching")) as running:
        yield running


def test_ordinary_traffic_raises_no_alert(world: World) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        world.act(*QUIET)
    until(world.prometheus.firing, lambda firing: firing >= ASLEEP)
    assert world.prometheus.fired() - SLOW == ASLEEP
    until(lambda: list(world.webhook.seen), lambda seen: any(to == "dead-man" for to, _, _ in seen))
    heard = {alert["labels"]["alertname"] for _, _, alert in world.webhook.seen}
    assert heard - SLOW == ASLEEP, "nobody is told of anything else"


TROUBLES = {
    "TollgateProviderRateLimited", "TollgateErrorSpike", "TollgateFallbacks", "TollgateBreakerOpen",
    "TollgateToolFailing", "TollgateTelemetryDropped", "TollgateBudgetHalfSpent", "TollgateRunawayRun",
    "TollgateAgentLooping", "TollgatePriceUnknown", "TollgateSloAvailability", "TollgateSloTools",
    "TollgateConfigReloadFailed", "TollgateWorkerDied", "TollgatePoolRefuses",
}  # fmt: skip
HELD_BACK = {"TollgateErrorSpike", "TollgateFallbacks", "TollgateProviderRateLimited"}
"""While a breaker is open, which explains them."""


def test_trouble_raises_the_alerts_made_for_it_and_they_reach_whom_they_are_for(world: World) -> None:
    world.change(breakers={"enabled": False})
    end = time.monotonic() + 90
    while "TollgateFallbacks" not in world.prometheus.fired() and time.monotonic() < end:
        world.lean()
    world.collector.status = 503
    world.change(breakers={"enabled": True})
    world.gate.kill_worker()
    end = time.monotonic() + 120
    while not world.prometheus.fired() >= TROUBLES - {"TollgateConfigReloadFailed"} and time.monotonic() < end:
        world.trouble()
    world.change(breakers={"enabled": True}, routes=[{"model": "app", "to": []}])
    while not world.prometheus.fired() >= TROUBLES and time.monotonic() < end + 30:
        world.trouble()
    assert sorted(TROUBLES - world.prometheus.fired()) == []
    told = TROUBLES - HELD_BACK
    until(lambda: world.webhook.names("firing"), lambda names: names >= told)
    receivers: dict[str, set[str]] = {}
    for to, _, alert in world.webhook.seen:
        receivers.setdefault(alert["labels"]["alertname"], set()).add(to)
    assert receivers["TollgateRunawayRun"] == {"pager", "finance"}
    assert receivers["TollgateBudgetHalfSpent"] == {"news"}
    assert receivers["TollgateToolFailing"] == {"tickets"}
    assert receivers["TollgatePriceUnknown"] == {"finance"}


def test_what_arrives_leads_to_its_section_of_the_runbook(world: World) -> None:
    with urllib.request.urlopen(world.prometheus.runbook, timeout=10) as answer:
        sections = {
            line[4:].lower().replace(" ", "-") for line in answer.read().decode().splitlines() if "### " in line
        }
    for _, _, alert in world.webhook.seen:
        notes = alert["annotations"]
        page, _, anchor = notes["runbook_url"].partition("#")
        assert page == world.prometheus.runbook
        assert anchor in sections
        assert notes["dashboard_url"]
        assert "<no value>" not in notes["summary"] + notes["description"]
        assert "<error" not in notes["summary"] + notes["description"]


def finite(found: list[dict[str, Any]]) -> bool:
    return any(math.isfinite(float(one["value"][1])) for one in found)


def test_every_query_of_every_panel_has_finite_data(world: World) -> None:
    if not parts.missing():
        ready(world.gate)
        asyncio.run(learn(world.gate, 400))

    def empty() -> list[str]:
        world.act(*QUIET)
        world.trouble()
        if not parts.missing():
            asyncio.run(learn(world.gate, 60, seed=world.round))
        missing = []
        for board, panel, expr in queries():
            excused = any(board == where and part in expr for where, part in WITHOUT)
            if not excused and not finite(world.prometheus.query(expr)):
                missing.append(f"{board}: {panel}: {expr}")
        return missing

    assert VARIABLES["$__rate_interval"] == "1m"
    until(empty, lambda found: not found, seconds=60)
    for where, part in WITHOUT:
        assert any(board == where and part in expr for board, _, expr in queries()), "no longer needed"


def test_points_of_the_latency_panels_lead_to_traces(world: World) -> None:
    now = time.time()
    asked = f"query=tollgate_request_duration_seconds_bucket&start={now - 600}&end={now}"
    found = json.loads(world.prometheus.get(f"/api/v1/query_exemplars?{asked}"))["data"]
    traces = {one["labels"]["trace_id"] for series in found for one in series["exemplars"]}
    assert traces
    assert all(len(trace) == 32 for trace in traces)


def test_alerts_resolve_when_the_trouble_is_over(world: World) -> None:
    world.collector.status = 200
    budgets = [world.settings["budgets"][0], {**world.settings["budgets"][1], "usd": 1_000_000}]
    world.change(routes=world.settings["routes"], budgets=budgets)
    told = TROUBLES - HELD_BACK

    def resolved() -> set[str]:
        world.act("support bot")
        world.ask("Is it cheap?", "spender")  # a call that meets the new limit
        return world.webhook.names("resolved")

    until(resolved, lambda names: names >= told, seconds=240, what=lambda: str(world.prometheus.firing()))


def test_a_gateway_that_is_gone_is_paged_for(world: World) -> None:
    admin = world.gate.config["admin"]

    def gone() -> set[str]:
        return {state for _, state, alert in list(world.webhook.seen) if alert["labels"].get("instance") == "gone"}

    world.prometheus.scrape(gate=admin, gone=f"127.0.0.1:{dead_port()}")
    until(gone, lambda states: "firing" in states)
    summaries = {
        alert["annotations"]["summary"]
        for _, _, alert in world.webhook.seen
        if alert["labels"]["alertname"] == "TollgateDown" and alert["labels"]["instance"] == "gone"
    }
    assert summaries == {"The gateway gone cannot be scraped"}
    world.prometheus.scrape(gate=admin)
    until(gone, lambda states: "resolved" in states)
