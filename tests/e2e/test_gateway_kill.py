"""kill -9 of workers and of the recorder of a whole gateway while agents call: the books are complete all the same."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from typing import Any

from gateway.journal.read import JournalReader
from gateway.journal.record import CallRecord, EventRecord, Record
from gateway.journal.verify import verify
from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway

SECONDS = 6.0
BODY = json.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]})


class Client(threading.Thread):
    """Calls one after the other until told to stop; remembers the ids of what was answered in full."""

    def __init__(self, gate: RunningGateway, over: threading.Event) -> None:
        super().__init__()
        self.gate, self.over = gate, over
        self.answered: list[str] = []
        self.asked = 0
        self.refused = 0

    def run(self) -> None:
        host = self.gate.url.removeprefix("http://")
        while not self.over.is_set():
            connection = http.client.HTTPConnection(host, timeout=20)
            try:
                while not self.over.is_set():
                    self.asked += 1
                    connection.request("POST", "/v1/chat/completions", BODY, {"content-type": "application/json"})
                    answer = connection.getresponse()
                    answer.read()
                    assert answer.status == 200
                    self.answered.append(answer.headers["x-tollgate-request-id"])
            except ConnectionRefusedError:
                self.refused += 1
            except (ConnectionError, http.client.HTTPException):
                pass  # its worker was killed
            finally:
                connection.close()


def test_kills_under_load(fake: FakeUpstream) -> None:
    rng = random.Random(3)
    upstreams: dict[str, Any] = {"openai": {"dialect": "openai", "url": fake.url, "provider": "openai"}}
    with RunningGateway(upstreams, workers=2) as gate:
        over = threading.Event()
        clients = [Client(gate, over) for _ in range(8)]
        for client in clients:
            client.start()
        kills: Counter[str] = Counter()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            time.sleep(rng.uniform(0.1, 0.6))
            role = rng.choice(["gateway.worker", "gateway.worker", "gateway.recorder"])
            for pid in gate.pids(role)[:1]:
                os.kill(pid, signal.SIGKILL)
                kills[role] += 1
        over.set()
        for client in clients:
            client.join(30)
        answered = [id for client in clients for id in client.answered]
        journal = gate.state / "journal"
        gate.until(lambda: gate.status("/readyz"), lambda status: status == 200, 20)
        written = gate.until(lambda: all_calls(journal), lambda calls: set(answered) <= set(calls), 20)
        ledger = gate.calls(len(written), seconds=20)
        assert gate.stop() == 0
        records = read_all(journal)
        report = verify(journal)

    calls = {record.id: record.outcome for record in records if isinstance(record, CallRecord)}
    outcomes = Counter(calls.values())
    print(dict(kills), len(answered), dict(outcomes))
    assert sum(client.refused for client in clients) == 0
    assert len(answered) > 100
    assert {id for id in answered if calls.get(id) != "ok"} == set()
    assert report.ok
    assert Counter(call["id"] for call in ledger) == Counter(calls.keys())  # the ledger too has each of them once
    assert len(calls) <= sum(client.asked for client in clients)
    assert outcomes["abandoned"] <= len(clients) * kills["gateway.worker"]
    died = Counter(record.kind for record in records if isinstance(record, EventRecord))
    assert died["worker_died"] == kills["gateway.worker"]
    assert died["recorder_died"] == kills["gateway.recorder"]


def read_all(journal: Any) -> list[Record]:
    reader, found = JournalReader(journal), []
    while batch := reader.read():
        found += [record for _, record in batch]
    reader.close()
    return found


def all_calls(journal: Any) -> list[str]:
    return [record.id for record in read_all(journal) if isinstance(record, CallRecord)]
