"""/metrics with more than 20,000 series: complete, right, and made by the recorder alone while calls go on."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from gateway.config.schema import Journal
from gateway.journal.append import JournalWriter
from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway
from gateway.testing.records import call_record
from tests.e2e.conftest import upstreams
from tests.e2e.test_page import call

pytestmark = pytest.mark.timeout(300)

LIMIT, TENANTS, AGENTS = 200, 60, 80  # a family has 50 * LIMIT series at most; here two for each pair, of cost
RECORDS = TENANTS * AGENTS
BEYOND = 40  # agents above the limit
ENOUGH = 20_000


@pytest.fixture(scope="module")
def gate() -> Iterator[RunningGateway]:
    """Its journal is there before it is: every tenant has every agent, and then come agents beyond the limit."""
    with FakeUpstream(3) as fake:
        running = RunningGateway(upstreams(fake.url), telemetry={"log": None, "label_limit": LIMIT})
        journal = running.state / "journal"
        journal.mkdir(parents=True)
        writer = JournalWriter(journal, "w0", Journal())
        now = time.time_ns() - 60 * 10**9
        for n in range(RECORDS):
            agent, model = f"agent-{n % AGENTS}", f"model-{n % AGENTS}"
            who = {"tenant": f"tenant-{n // AGENTS}", "agent": agent, "model_requested": model, "model_used": model}
            assert writer.append_record(call_record(f"many-{n:05d}", now + n, run_id=f"run-{n % 500}", **who))
        for n in range(LIMIT - AGENTS + BEYOND):
            assert writer.append_record(call_record(f"more-{n:05d}", now + n, run_id="more", agent=f"more-{n}"))
        writer.close()
        with running:
            running.until(lambda: total(samples(running)), lambda seen: seen >= RECORDS, seconds=120)
            yield running


def samples(gate: RunningGateway) -> list[Sample]:
    """What a scrape returns, read by Prometheus' own client."""
    return [sample for family in text_string_to_metric_families(gate.text("/metrics")) for sample in family.samples]


def total(found: list[Sample], name: str = "tollgate_requests_total") -> float:
    return sum(sample.value for sample in found if sample.name == name)


def test_no_series_is_lost_and_caps_hold(gate: RunningGateway) -> None:
    expected = RECORDS + LIMIT - AGENTS + BEYOND
    gate.until(lambda: total(samples(gate)), lambda seen: seen == expected, seconds=60)
    found = samples(gate)
    assert len(found) > ENOUGH
    assert all(math.isfinite(sample.value) for sample in found)
    keys = Counter((sample.name, tuple(sorted(sample.labels.items()))) for sample in found)
    assert max(keys.values()) == 1, "no series twice"
    cost = [sample for sample in found if sample.name == "tollgate_cost_usd_total"]
    pairs = {(sample.labels["tenant"], sample.labels["agent"]) for sample in cost}
    assert {(f"tenant-{n}", f"agent-{m}") for n in range(TENANTS) for m in range(AGENTS)} <= pairs
    agents = {agent for _, agent in pairs}
    assert len(agents - {"__other__"}) == LIMIT
    assert "__other__" in agents
    one = call_record("one").cost
    assert one is not None
    assert sum(sample.value for sample in cost) == pytest.approx(expected * one / 1e12)
    over = [s.value for s in found if s.name == "tollgate_label_overflow_total" and s.labels["label"] == "agent"]
    assert min(over) >= BEYOND


@contextlib.contextmanager
def halted(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def test_a_scrape_asks_nothing_of_a_worker(gate: RunningGateway) -> None:
    workers = gate.pids("worker")
    assert workers
    assert set(workers).isdisjoint(gate.pids("recorder"))
    with halted(workers):
        assert len(samples(gate)) > ENOUGH
    assert call(gate, "after-halt") == 200


def test_calls_and_scrapes_go_on_beside_each_other(gate: RunningGateway) -> None:
    over = threading.Event()
    scraped: list[list[Sample]] = []

    def scrape() -> None:
        while not over.is_set():
            scraped.append(samples(gate))

    before = total(samples(gate))
    scraping = threading.Thread(target=scrape)
    scraping.start()
    try:
        with ThreadPoolExecutor(8) as clients:
            statuses = list(clients.map(lambda n: call(gate, f"beside-{n}"), range(200)))
        gate.until(lambda: len(scraped), lambda seen: seen >= 3, seconds=60)
    finally:
        over.set()
        scraping.join(60)
    assert statuses == [200] * 200
    sums = [total(found) for found in scraped]
    assert sums == sorted(sums), "a counter never goes back"
    assert all(len(found) > ENOUGH for found in scraped)
    gate.until(lambda: total(samples(gate)), lambda seen: seen >= before + 200, seconds=60)
