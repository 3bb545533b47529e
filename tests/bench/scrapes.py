"""What scrapes of 20,000 series cost calls: `python -m tests.bench.scrapes [CYCLES, 7] [CALLS, 400]`.

A gateway that has that many series serves the same calls, four at a time, in slices: one in which it is scraped again
and again, one in which it is not. Printed are the ratios of their 99th percentiles, one of each cycle.
"""

from __future__ import annotations

import http.client
import json
import statistics
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from gateway.config.schema import Journal
from gateway.journal.append import JournalWriter
from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway
from gateway.testing.records import call_record

CLIENTS, TENANTS, NAMES = 4, 60, 80
CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]})
HEADERS = {"content-type": "application/json", "authorization": "Bearer k"}


def fill(gate: RunningGateway) -> None:
    """A journal of calls by every pair of tenants and agents, before the gateway starts."""
    journal = gate.state / "journal"
    journal.mkdir(parents=True)
    writer, now = JournalWriter(journal, "w0", Journal()), time.time_ns() - 60 * 10**9
    for n in range(TENANTS * NAMES):
        model = f"model-{n % NAMES}"
        names = {"tenant": f"tenant-{n // NAMES}", "agent": f"agent-{n % NAMES}", "run_id": f"run-{n % 500}"}
        writer.append_record(call_record(f"c{n:05d}", now + n, model_requested=model, model_used=model, **names))
    writer.close()


def timed(address: str, calls: int) -> list[float]:
    """Seconds of each call, one after the other on one connection."""
    connection, found = http.client.HTTPConnection(address, timeout=30), []
    for _ in range(calls):
        began = time.perf_counter()
        connection.request("POST", CHAT, BODY, HEADERS)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        found.append(time.perf_counter() - began)
    connection.close()
    return found


def p99(gate: RunningGateway, calls: int) -> float:
    address = gate.url.removeprefix("http://")
    with ThreadPoolExecutor(CLIENTS) as clients:
        seconds = [one for part in clients.map(lambda _: timed(address, calls), range(CLIENTS)) for one in part]
    return statistics.quantiles(seconds, n=100)[98]


def scraped(gate: RunningGateway, calls: int) -> tuple[float, int, int]:
    """(p99 while scrapes go on, how many they were, lines of one)."""
    over, lines = threading.Event(), list[int]()

    def scrape() -> None:
        while not over.is_set():
            with urllib.request.urlopen(gate.admin_url + "/metrics", timeout=60) as answer:
                lines.append(answer.read().count(b"\n"))

    thread = threading.Thread(target=scrape)
    thread.start()
    found = p99(gate, calls)
    over.set()
    thread.join()
    return found, len(lines), lines[-1]


def main(words: list[str]) -> None:
    cycles, calls = int(words[0]) if words else 7, int(words[1]) if words[1:] else 400
    with FakeUpstream(3) as fake:
        openai = {"dialect": "openai", "url": fake.url, "provider": "openai"}
        gate = RunningGateway({"openai": openai}, telemetry={"log": None})
        fill(gate)
        with gate:
            gate.until(lambda: gate.text("/metrics").count("\n"), lambda seen: seen > 20_000, seconds=120)
            p99(gate, 50)
            ratios = []
            for cycle in range(cycles):
                alone = p99(gate, calls)
                beside, scrapes, lines = scraped(gate, calls)
                ratios.append(beside / alone)
                seen = f"{scrapes} scrapes of {lines} lines"
                told = f"{cycle}: p99 {alone * 1e3:.1f} ms, beside {seen} {beside * 1e3:.1f} ms"
                print(told, file=sys.stderr, flush=True)
    print(json.dumps({"lines": lines, "ratios": ratios}))


if __name__ == "__main__":
    main(sys.argv[1:])
