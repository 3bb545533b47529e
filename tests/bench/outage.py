"""`python -m tests.bench.outage [--peer litellm] [--quick]`: calls through a provider's outage, and a healthy fallback.

The first upstream fails in one of six ways; calls go on at a constant rate, JSON or streams; then it is well again.
Counted is what their clients got. Meanwhile there is a control to every second call, which goes through the same
gateway to the healthy upstream at once: what the others take longer is what the outage adds. All is on loopback, in one
process but for the gateway. Ours alone, unless a peer is asked for, which is then installed in a virtualenv of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from gateway.testing.gateway import GatewayDied
from tests.bench import machine
from tests.bench.outage_report import document
from tests.bench.outage_subjects import PEERS, Subject, install, running
from tests.bench.outage_world import FIRST, SCENARIOS, WELL, Got, Provider, Scenario, Verdict, prompt

GIVE_UP = 15.0  # seconds after which a client does
WARM = 40  # calls before anything counts
HEAL_SECONDS = 30.0  # for which an upstream that is well again is waited for
AFTER = 10  # calls after it was used again
QUICK_CALLS = 200


@dataclass
class Row:
    """One scenario with JSON or with streams. Times in seconds of the loop's clock."""

    subject: str
    scenario: Scenario
    stream: bool
    began: float = 0.0
    healed: float = 0.0  # when the first upstream was well again
    calls: list[Got] = field(default_factory=list)  # from its failing until it was used again
    controls: list[Got] = field(default_factory=list)
    met: int = 0  # requests that it saw while it failed
    recovered: float | None = None  # seconds until it was used again; None: not in time

    def count(self, verdict: Verdict) -> int:
        return sum(got.verdict is verdict for got in self.calls)

    def added(self, share: float) -> float | None:
        """Milliseconds that a whole call took longer than a control, both of the outage's second half: the difference
        of their quantiles."""
        since = (self.began + self.healed) / 2
        calls, controls = (
            [one.seconds for one in many if since <= one.began < self.healed and one.verdict is Verdict.WHOLE]
            for many in (self.calls, self.controls)
        )
        return 1000 * (quantile(calls, share) - quantile(controls, share)) if calls and controls else None

    @property
    def slowest(self) -> float:
        return max(got.seconds for got in self.calls)


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Clients:
    """Calls at a constant rate, each on a connection of its own; nobody waits for those before."""

    def __init__(self, subject: Subject, session: aiohttp.ClientSession, rate: float) -> None:
        self.subject, self.session, self.rate = subject, session, rate
        self._numbers = itertools.count()
        self._under_way: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    async def send(self, count: int, *, stream: bool) -> tuple[list[Got], list[Got]]:
        """So many calls, and half as many controls between them, all begun. See `over`."""
        calls, controls = [], []
        began = self._loop.time()
        for number in range(count):
            await self._until(began + number / self.rate)
            calls.append(self._start(stream=stream))
            if number % 2:
                await self._until(began + (number + 0.5) / self.rate)
                controls.append(self._start(stream=stream, control=True))
        await self._until(began + count / self.rate)
        return calls, controls

    async def over(self) -> None:
        """All that were begun have an end."""
        await asyncio.gather(*self._under_way)

    async def _until(self, when: float) -> None:
        await asyncio.sleep(max(0.0, when - self._loop.time()))

    def _start(self, *, stream: bool, control: bool = False) -> Got:
        got = Got(next(self._numbers), stream)
        task = asyncio.create_task(self._ask(got, control=control))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return got

    async def _ask(self, got: Got, *, control: bool) -> None:
        path, model = self.subject.control if control else self.subject.normal
        body = {"model": model, "messages": [{"role": "user", "content": prompt(got.number)}]}
        data = json.dumps({**body, "stream": True} if got.stream else body)
        headers = {"content-type": "application/json", **self.subject.headers}
        got.began = self._loop.time()
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):  # what it has by then is judged
            async with self.session.post(self.subject.url + path, data=data, headers=headers) as answer:
                got.status = answer.status
                async for piece in answer.content.iter_any():
                    got.body += piece
                got.ended = True
        got.seconds = self._loop.time() - got.began


async def outage(clients: Clients, first: Provider, scenario: Scenario, *, stream: bool, calls: int) -> Row:
    """All of one row. The first upstream is well before and after."""
    loop = asyncio.get_running_loop()
    row = Row(clients.subject.name, scenario, stream)
    await clients.send(max(1, calls // 10), stream=stream)
    await clients.over()
    seen = len(first.asked)
    await first.fail(scenario)
    row.began = loop.time()
    row.calls, row.controls = await clients.send(calls, stream=stream)
    await clients.over()
    row.met = len(first.asked) - seen
    await first.heal()
    row.healed = loop.time()
    while row.recovered is None and loop.time() < row.healed + HEAL_SECONDS:
        row.calls += (await clients.send(2, stream=stream))[0]
        since = (got for got in row.calls if got.began >= row.healed and got.by == FIRST)
        row.recovered = next((got.began - row.healed for got in since), None)
    row.calls += (await clients.send(AFTER, stream=stream))[0]
    await clients.over()
    return row


async def measure(name: str, scenarios: Sequence[Scenario], options: argparse.Namespace) -> list[Row]:
    """All scenarios with one gateway. Raises RuntimeError where it does not start."""
    found = []
    timeout = aiohttp.ClientTimeout(total=GIVE_UP)
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with (
        Provider(FIRST) as first,
        Provider(WELL) as well,
        running(name, first, well, options.peers) as subject,
        aiohttp.ClientSession(timeout=timeout, connector=connector) as session,
    ):
        clients = Clients(subject, session, options.rate)
        for stream in (False, True):
            await clients.send(WARM, stream=stream)
        await clients.over()
        for scenario in scenarios:
            for stream in (False, True):
                row = await outage(clients, first, scenario, stream=stream, calls=options.calls)
                found.append(row)
                show(row)
    return found


def show(row: Row) -> None:
    """Progress, on standard error."""
    counts = "  ".join(f"{verdict.value} {row.count(verdict)}" for verdict in Verdict)
    told = Counter(got.status for got in row.calls if got.verdict is Verdict.TOLD)
    if told:
        counts += "  by status: " + ", ".join(f"{status} {count}" for status, count in told.most_common())
    form = "streams" if row.stream else "JSON"
    print(f"  {row.subject:14} {row.scenario.name:8} {form:8} {counts}", file=sys.stderr, flush=True)


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.outage", description=__doc__)
    parser.add_argument("--peer", action="append", choices=PEERS, default=[], help="beside it; is installed if need be")
    parser.add_argument("--peers", type=Path, default=Path(".peers"), help="where peers are installed")
    parser.add_argument("--only-peers", action="store_true", help="not ours")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[one.name for one in SCENARIOS])
    parser.add_argument("--calls", type=int, default=1000, help="during each outage (1000)")
    parser.add_argument("--rate", type=float, default=20.0, help="calls per second (20); controls come on top")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_CALLS} calls")
    parser.add_argument("--out", type=Path, help="where the table goes, beside standard output")
    options = parser.parse_args(words)
    if options.quick:
        options.calls = min(options.calls, QUICK_CALLS)
    return options


def main() -> int:
    options = arguments()
    scenarios = [one for one in SCENARIOS if not options.only or one.name in options.only]
    if options.peer:
        install(options.peers)
    rows: list[Row] = []
    load_before = machine.load_average()
    for name in [*([] if options.only_peers else ["tollgate"]), *options.peer]:
        try:
            rows += asyncio.run(measure(name, scenarios, options))
        except (RuntimeError, GatewayDied) as fault:
            print(f"left out: {name}: {fault}", file=sys.stderr)
    text = document(rows, options, (load_before, machine.load_average()))
    print(text)
    if options.out:
        options.out.write_text(text)
    return 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
