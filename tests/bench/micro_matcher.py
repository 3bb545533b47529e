"""`python -m tests.bench.micro_matcher [--rounds N]`: milliseconds of a semantic lookup, from the worker and back.

The matcher runs in a process of its own with the built-in embedder, as in the gateway, and knows a few hundred
questions of one partition. `lookup`: from the question to the matcher's word, wall time; `matcher`: CPU of its process
for each; `worker`: CPU of the event loop for each, which is all that a lookup can stall it: cutting the request, key of
the partition, words, message. Wall time is that of a quiet machine or it says nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gateway.call import Call, Route, Trace, Who
from gateway.config.schema import Cache, Config, ExactCache, SemanticCache
from gateway.dialects.registry import DIALECTS
from gateway.matcher.server import Server
from gateway.matcher.sources import Finder
from gateway.matcher.study import Study
from gateway.policy.cache_key import Basis
from gateway.policy.semantic_rules import cut, reworded, unsuited
from gateway.ports import Inquiry, Lesson, Topic
from gateway.semantic import parts
from gateway.stores.matcher_desk import MatcherDesk
from gateway.stores.matcher_link import MatcherLink
from gateway.testing.doubles import World, ask

ROUNDS = 400
BOUND_MS, BOUND_STALL_MS = 8.0, 1.0
TOPIC = Topic("t/a/m", "t", 0.01, 0.04, 3600 * 10**9, True)
WAYS = (
    "Who teaches the course on {} in room {}?",
    "Is there a lab for {}, and is it in room {}?",
    "Can I take {} in room {} without the one before?",
    "How many people have chosen {} in room {} so far?",
)
THINGS = ("databases", "medieval history", "organic chemistry", "jazz", "compilers", "ethics", "botany", "statistics")
CHAT = DIALECTS["openai_chat"]
ROUTE = Route("/v1/chat/completions", "openai_chat", "chat", "openai", b"/v1/chat/completions")


def texts(count: int) -> list[str]:
    return [WAYS[n % 4].format(THINGS[n // 4 % 8], n) for n in range(count)]


async def serve(state: Path) -> None:
    """The matcher's process."""
    config = Config(state=str(state), cache=Cache(exact=ExactCache(enabled=True), semantic=SemanticCache(mode="serve")))
    study = Study(config, Finder(state, lambda kind, **detail: None), lambda kind, **detail: None)
    server = Server(study, lambda: study.state(0, 0), time.monotonic_ns)
    await study.start()
    await server.listen(state / "matcher.sock")
    await server.run()


def cpu(pid: int) -> float:
    """Seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Down:
    gone = False
    on_gone = None


def in_the_loop(rounds: int) -> float:
    """CPU milliseconds of what a worker does before it asks."""
    spec = World(auth=((b"authorization", b"paid"),)).specs["openai"]
    basis = Basis(b"1", b"place")
    calls = []
    for text in texts(rounds):
        body = {
            "model": "m",
            "messages": [{"role": "system", "content": "Be brief. " * 100}, {"role": "user", "content": text}],
        }
        request = ask(ROUTE.template, json.dumps(body).encode())
        asked = CHAT.read(ROUTE, request)
        calls.append(Call("c", request, ROUTE, asked, Who("t"), Trace(), 1, 1))
    began = time.thread_time_ns()
    for call in calls:
        if not unsuited(call, CHAT):
            turn, _ = cut(call, spec, call.request.body, basis, CHAT)
            reworded(turn, time_words=False)
    return (time.thread_time_ns() - began) / 1e6 / rounds


async def measured(rounds: int, state: Path, pid: int) -> tuple[list[float], float, float]:
    link = MatcherLink(asyncio.get_running_loop(), state / "matcher.sock", 5.0)
    while not link.connected:
        link.tick()
        await asyncio.sleep(0.1)
    for number, text in enumerate(texts(400)):
        link.teach(Lesson(Inquiry("c", b"p" * 32, text, TOPIC), 0, number.to_bytes(32, "big"), text, time.time_ns(), 1))
    desk = MatcherDesk(state / "matcher.sock")
    while (await asyncio.to_thread(desk.state)).entries < 400:
        await asyncio.sleep(0.5)
    took = []
    used, mine = cpu(pid), time.thread_time()
    for text in texts(400 + rounds)[400:]:
        began = time.perf_counter()
        match = await link.ask(Inquiry("c", b"p" * 32, text, TOPIC), Down())  # type: ignore[arg-type]
        took.append((time.perf_counter() - began) * 1000)
        assert match.why not in ("late", "down", "empty", "no_embedder"), match
    used, mine = cpu(pid) - used, time.thread_time() - mine
    link.close()
    return took, used * 1000 / rounds, mine * 1000 / rounds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--serve", type=Path)
    options = parser.parse_args()
    if options.serve is not None:
        asyncio.run(serve(options.serve))
        return 0
    if parts.missing():
        print(f"not installed: {', '.join(parts.missing())}")
        return 1
    with tempfile.TemporaryDirectory() as directory:
        child = subprocess.Popen([sys.executable, "-m", "tests.bench.micro_matcher", "--serve", directory])
        try:
            took, matcher, link = asyncio.run(measured(options.rounds, Path(directory), child.pid))
        finally:
            child.kill()
            child.wait()
    worker = in_the_loop(options.rounds) + link
    print(f"lookup   {statistics.median(took):7.2f} {statistics.quantiles(took, n=10)[-1]:7.2f} ms (p50, p90)")
    print(f"matcher  {matcher:7.2f} ms CPU, at most {BOUND_MS}")
    print(f"worker   {worker:7.2f} ms CPU, at most {BOUND_STALL_MS}")
    return int(matcher > BOUND_MS or worker > BOUND_STALL_MS)


if __name__ == "__main__":
    sys.exit(main())
