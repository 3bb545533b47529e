"""Thousands of mixed calls through one worker: memory, descriptors and threads stay where they were.

A short run by itself; TOLLGATE_SOAK=<rounds> makes it as long as wanted (one round is some 900 calls).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.testing.faults import Close, Script, Send, answer, chunked
from gateway.testing.gateway import RunningGateway
from gateway.testing.raw import RawClient, chunks, post, request
from gateway.testing.scripted import Background, ScriptedUpstream

CHAT = "/v1/chat/completions"
CHUNK = b'data: {"id":"c%d","model":"gpt-4o","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
COUNT = b'"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}'
USAGE = b'data: {"id":"c","model":"gpt-4o","choices":[],' + COUNT + b"}\n\n"
DONE = b"data: [DONE]\n\n"
ANSWER = b'{"id":"c","model":"gpt-4o","choices":[{"index":0,"message":{"content":"Hi"}}],' + COUNT + b"}"
SCRIPTS: dict[str, Script] = {
    "": [Send(answer(ANSWER))],
    "stream": [Send(chunked(CHUNK % 1 * 20, USAGE, DONE))],
    "cut": [Send(chunked(CHUNK % 1, end=b"")), Close()],
    "error": [Send(answer(b'{"error":{"message":"busy"}}', status=b"529 Overloaded"))],
    "closes": [Send(answer(ANSWER)), Close()],
    "large": [Send(answer(ANSWER[:-1] + b" " * 300_000 + b"}"))],
}
THREADS, CALLS = 3, 300  # per round
SLOPE = 1_500_000  # bytes that the second half of the rounds may add


@dataclass(frozen=True, slots=True)
class Size:
    resident: int  # bytes
    descriptors: int
    threads: int


def size_of(pid: int) -> Size:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    descriptors = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    return Size(pages * os.sysconf("SC_PAGE_SIZE"), descriptors, threads)


@pytest.fixture(scope="module")
def gate() -> Iterator[RunningGateway]:
    with Background(ScriptedUpstream(SCRIPTS)) as up:
        up.received = _Forgetful()
        up.seen = _Forgetful()
        upstreams = {"openai": {"dialect": "openai", "url": up.url, "provider": "openai"}}
        at_once = {"base": 0.001, "longest": 0.001}  # failures are retried, too, but not waited for
        with RunningGateway(upstreams, telemetry={"log": None}, identity={"links": 4096}, retries=at_once) as running:
            yield running


class _Forgetful(list):  # type: ignore[type-arg]
    """An upstream of thousands of calls need not remember them."""

    def append(self, item: object) -> None:
        self[:] = [item]


def raw(n: int, script: str, *, stream: bool = False) -> bytes:
    text = b'{"model":"gpt-4o","messages":[{"role":"user","content":"question %d"}]%b}'
    body = text % (n, b',"stream":true' if stream else b"")
    return post(CHAT, body, b"x-script: " + script.encode())


def kept(client: RawClient, n: int) -> None:
    for script, stream in (("", False), ("stream", True), ("error", False), ("large", False), ("closes", False)):
        client.send(raw(n, script, stream=stream))
        assert client.answer().complete


def in_chunks(client: RawClient, n: int) -> None:
    client.send(request("POST", CHAT, b"Transfer-Encoding: chunked") + chunks(b'{"model":"x",', b'"messages":[]}'))
    assert client.answer().status == 200


def refused(client: RawClient, n: int) -> None:
    client.send(post(CHAT, b'{"model":"a","model":"b"}') + post("/v1/../x", b"{}"))
    assert [client.answer().status for _ in range(2)] == [400, 400]


def malformed(client: RawClient, n: int) -> None:
    client.send(b"GET / HTTP/1.1\r\nBad : 1\r\n\r\n")
    assert client.answer().status == 400


def cut(client: RawClient, n: int) -> None:
    client.send(raw(n, "cut", stream=True))
    assert not client.answer().complete


def left(client: RawClient, n: int) -> None:
    client.send(raw(n, "stream", stream=True))
    client.reset()


KINDS: list[Callable[[RawClient, int], None]] = [kept, in_chunks, refused, malformed, cut, left]


def play(port: int, calls: int) -> None:
    for n in range(calls // (len(KINDS) + 4)):
        for kind in KINDS:
            with RawClient(port) as client:
                kind(client, n)


def test_nothing_grows(gate: RunningGateway) -> None:
    rounds = int(os.environ.get("TOLLGATE_SOAK", "6"))
    port = int(gate.config["listen"].rpartition(":")[2])
    (worker,) = gate.pids("worker")
    sizes: list[Size] = []
    with ThreadPoolExecutor(THREADS) as threads:
        for _ in range(rounds):
            list(threads.map(lambda _: play(port, CALLS), range(THREADS)))
            sizes.append(size_of(worker))
    half = sizes[rounds // 2 - 1]
    assert sizes[-1].resident - half.resident < SLOPE, [size.resident for size in sizes]
    assert sizes[-1].resident < 80_000_000
    assert sizes[-1].threads == half.threads
    gate.until(lambda: size_of(worker).descriptors, lambda count: count <= sizes[0].descriptors + 8)
    assert "Traceback" not in gate.log
    expected = rounds * THREADS * (CALLS // (len(KINDS) + 4)) * (len(KINDS) + 5)
    text = gate.until(lambda: gate.text("/metrics"), lambda text: requests_in(text) >= expected * 0.95, 20)
    assert requests_in(text) <= expected
    gate.until(gate.in_flight, lambda count: count == 0)


def requests_in(text: str) -> float:
    """Calls that the metrics have counted."""
    return sum(
        float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith("tollgate_requests_total{")
    )
