"""`tollgate demo`: the gateway, a fake upstream and a cast of scripted agents, without any key.

Starts all as processes of their own, as in production, plays agents of two teams against them for a while, shows what
happens, then holds what the agents saw against what the gateway recorded. Gateway and agents go on until Ctrl-C, so
that there is something to look at. One agent goes round in a circle until its budget tapers, then stops it; one asks
for the same again and again until the breaker for runaways stops it; one provider fails now and then, and its calls go
to another; one model is on trial; one agent asks what was asked before, and has its answers from the cache; one pays
for a tool, and has forms filled by a cheap model, or by a dear one where that fails. One provider's calls share a pool
of places.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import random
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console

from gateway.config.address import parse_address
from gateway.process.sockets import CannotListen, bind, close_all
from gateway.testing import child
from gateway.testing.agent_wire import Log, Seen
from gateway.testing.agents import CAST, CATALOGUE, FORMS, TEAM, Stage
from gateway.testing.demo_view import Progress, by_run, gather, money, summary
from gateway.testing.gateway import GatewayDied, RunningGateway, free_port, is_free
from gateway.testing.scratch import scratch

_REST = {
    "embedder": 6,
    "clerk": 3,
    "helpdesk": 2,
    "leaver": 5,
    "lost": 12,
    "runaway": 60,
    "stuck": 30,
}  # longest pause between two runs, in seconds; 1 for all others
RUN_USD = 0.5
MINI = "gpt-4o-mini"
BACKUP = "gemini-backup"
SETTINGS: Mapping[str, Any] = {
    "identity": {"tenant_header": TEAM, "run_idle_seconds": 120},
    "runs": {"budget_usd": RUN_USD, "taper": [{"at": 0.5, "max_tokens": 128}]},
    "loops": {"cycle": "warn", "repeated_call": "stop"},
    "spending": {"unknown_price": "allow"},  # of a model that does not exist
    "budgets": [{"scope": "team", "usd": 100, "per": "hour"}],  # about 1 a minute is spent: never out for long
    "cache": {"exact": {"rules": [{"agent": "helpdesk", "ttl": 60}]}},
    "fallbacks": [{"upstream": "gemini", "to": [BACKUP]}],
    "routes": [
        {"model": MINI, "to": [MINI], "canary": {"id": "newer", "to": "gpt-4.1", "share": 0.3}},
        {"model": FORMS, "to": ["gpt-4.1-nano", "gpt-4.1"], "by": "priority", "cascade": {}},
    ],
    "bulkheads": {"openai": {"upstream": "openai", "max": 6, "wait": 60}},  # full now and then, and nobody is refused
}
OUTAGES = ", ".join(["1 ok", *["6 503, 12 ok"] * 50])  # of one provider, over and over
_CHANCES = {"429": 0.03, "503": 0.02, "500": 0.01, "cut": 0.01, "first_frame": 0.01}


def fake_upstream(seed: int) -> contextlib.AbstractContextManager[str]:
    """The URL of a fake upstream in a process of its own."""
    chances = [part for kind, chance in _CHANCES.items() for part in ("--chance", f"{kind}={chance}")]
    return listening("fake_upstream", "--latency", "realistic", "--seed", str(seed), *chances, "--keep", "10")


def failing_upstream(seed: int, directory: Path) -> contextlib.AbstractContextManager[str]:
    """The URL of one that fails now and then."""
    scenario = directory / "outages.txt"
    scenario.write_text(f"{OUTAGES}, ok")
    return listening("fault_upstream", "--scenario", str(scenario), "--seed", str(seed))


@contextlib.contextmanager
def listening(module: str, *options: str) -> Iterator[str]:
    """The URL that a server of `gateway.testing` says it listens on."""
    process = child.start(
        [sys.executable, "-m", f"gateway.testing.{module}", *options],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is ours to handle: the gateway stops first
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the fake upstream did not start")
        yield line.split()[-1]
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """SIGTERM ends the demo as Ctrl-C does, and both work where they came ignored, as in the background of a shell; so
    does a terminal that is closed, but under nohup. Only the first counts: a group is often told twice, and a second
    would interrupt what puts things away."""
    told = False

    def end(number: int, frame: object) -> None:
        nonlocal told
        if not told:
            told = True
            raise KeyboardInterrupt

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def gateway(
    fake_url: str,
    failing_url: str,
    console: Console,
    overrides: Mapping[str, Any],
    directory: Path | None = None,
) -> RunningGateway:
    """Not started yet; on the standard ports, or on free ones where those are taken."""
    addresses = {"listen": "127.0.0.1:8787", "admin": "127.0.0.1:8788"}
    for name, address in addresses.items():
        if name not in overrides and not is_free(int(address.rpartition(":")[2])):
            addresses[name] = f"127.0.0.1:{free_port()}"
            console.print(f"{address} is taken: {name} is {addresses[name]}")
    providers = {"openai": "openai", "anthropic": "anthropic", "gemini": "google"}
    upstreams = {name: {"dialect": name, "url": fake_url, "provider": id_} for name, id_ in providers.items()}
    upstreams[BACKUP] = {**upstreams["gemini"], "key": "demo"}
    upstreams["gemini"] = {**upstreams["gemini"], "url": failing_url}
    catalogue = {"url": f"{fake_url}/v1", "paths": ["/models", "/models/*"], "read_only": True, "allow_private": True}
    tools = {CATALOGUE: {**catalogue, "price": {"usd": 0.001}}}
    config: dict[str, Any] = {"tools": tools, "telemetry": {"log": None}, **SETTINGS, **addresses, **overrides}
    return RunningGateway(upstreams, directory=directory, **config)


def taken(overrides: Mapping[str, Any]) -> str:
    """Why an address that was asked for cannot be had; "" where it can. What answers there is not to be played with."""
    try:
        with contextlib.suppress(ValueError):  # what is no address the gateway itself refuses, and says where
            for name in overrides.keys() & {"listen", "admin"}:
                close_all(bind(parse_address(overrides[name])))
    except CannotListen as fault:
        return str(fault)
    return ""


async def play(stage: Stage, seconds: float, runs: int | None) -> None:
    """Every agent of the cast plays run after run, all at once, until time or the number of runs is up."""
    end = time.monotonic() + seconds

    async def act(name: str) -> None:
        done = 0
        while done < runs if runs is not None else time.monotonic() < end:
            await CAST[name](stage)
            done += 1
            pause = stage.rng.random() * _REST.get(name, 1)
            await asyncio.sleep(pause if runs is not None else max(0, min(pause, end - time.monotonic())))

    await asyncio.gather(*(act(name) for name in (*CAST, "coder", "support bot")))


@contextlib.asynccontextmanager
async def staged(gate: RunningGateway, log: Log, seed: int) -> AsyncIterator[Stage]:
    timeout = aiohttp.ClientTimeout(total=120)
    async with aiohttp.ClientSession(timeout=timeout, read_bufsize=2**20) as session:
        yield Stage(session, gate.url, log, random.Random(seed), admin=gate.admin_url)


@contextlib.contextmanager
def going_on(gate: RunningGateway, seed: int) -> Iterator[None]:
    """The agents go on, in a thread of their own, until the block ends. What they see is not kept."""
    loop, over = asyncio.new_event_loop(), asyncio.Event()

    async def act() -> None:
        async with staged(gate, deque(maxlen=1), seed) as stage:
            playing = asyncio.create_task(play(stage, math.inf, None))
            await over.wait()
            while not playing.done():  # one that is connecting may not hear it the first time
                playing.cancel()
                await asyncio.wait([playing], timeout=0.5)

    acting = threading.Thread(target=lambda: loop.run_until_complete(act()), daemon=True)
    acting.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(over.set)
        acting.join(5)


async def perform(gate: RunningGateway, console: Console, *, seconds: float, runs: int | None, seed: int) -> list[Seen]:
    """Play the cast against the gateway with live progress; returns what the agents saw."""
    log: list[Seen] = []
    async with staged(gate, log, seed) as stage:
        with Progress(console, log) as progress:
            watcher = asyncio.create_task(_watch(gate, progress))
            try:
                await play(stage, seconds, runs)
            finally:
                watcher.cancel()
                await asyncio.gather(watcher, return_exceptions=True)
    return log


async def _watch(gate: RunningGateway, progress: Progress) -> None:
    """Feed the display from the admin API; it may lag, the agents do not wait for it."""
    while True:
        with contextlib.suppress(OSError, ValueError):
            progress.update(await asyncio.to_thread(gate.get, "/api/runs", limit=500))
        await asyncio.sleep(0.5)


def from_cache(call: Mapping[str, Any]) -> bool:
    """Such a call used no tokens, whatever its answer says."""
    return bool(call["cache"]) and call["cache"]["result"] in {"exact", "joined"}


def compare(log: Sequence[Seen], calls: Sequence[dict[str, Any]]) -> list[str]:
    """Every difference between what the agents saw and what the gateway recorded, in words."""
    recorded = {call["id"]: call for call in calls}
    faults = []
    if len(log) != len(calls):
        faults.append(f"the agents made {len(log)} calls, the gateway recorded {len(calls)}")
    for seen in log:
        call = recorded.get(seen.call_id)
        if call is None:
            faults.append(f"no record of call {seen.call_id or '(without an id)'} of {seen.agent}")
            continue
        usage = call["usage"]
        told = (seen.input_tokens, seen.output_tokens)
        kept = (usage["input_tokens"], usage["output_tokens"])
        if seen.input_tokens is not None and not from_cache(call) and told != kept:
            faults.append(f"call {seen.call_id}: the agent saw {told} tokens, recorded are {kept}")
        if call["status"] != seen.status:
            faults.append(f"call {seen.call_id}: the agent saw status {seen.status}, recorded is {call['status']}")
        if (call["outcome"] == "ok") != (seen.ended == "ok"):
            faults.append(f"call {seen.call_id}: ended {seen.ended} for the agent, recorded as {call['outcome']}")
    return faults + _grouping((seen.run, recorded[seen.call_id]["run_id"]) for seen in log if seen.call_id in recorded)


def overspent(calls: Sequence[dict[str, Any]]) -> list[str]:
    """The runs that cost more than a run may, in words."""
    spent = gather(calls, by_run)
    return [f"run {run} cost {money(row.cost)}" for run, row in spent.items() if row.cost > RUN_USD]


def _grouping(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Runs that were recorded as several, or several as one; `pairs` are (run of the agent, run recorded)."""
    recorded: dict[str, set[str]] = defaultdict(set)
    played: dict[str, set[str]] = defaultdict(set)
    for run, found in pairs:
        recorded[run].add(found)
        played[found].add(run)
    split = [f"run {run} is recorded as {len(found)} runs" for run, found in recorded.items() if len(found) > 1]
    return split + [f"run {found} is recorded for {len(runs)} runs" for found, runs in played.items() if len(runs) > 1]


def run(
    *,
    seconds: float = 25,
    runs: int | None = None,
    stay: bool = True,
    seed: int = 1,
    overrides: Mapping[str, Any] | None = None,
) -> int:
    """Exit status 0 when the gateway's record agrees with what the agents saw, 1 when not or when it did not start.

    `runs` (per agent) bounds the play in place of `seconds`; `overrides` are fields of the configuration.
    """
    console = Console()
    if fault := taken(overrides or {}):
        console.print(fault, markup=False)
        return 1
    with (
        ended_by_signals(),
        scratch("tollgate-demo-") as directory,
        fake_upstream(seed) as fake_url,
        failing_upstream(seed, directory) as failing_url,
    ):
        gate = gateway(fake_url, failing_url, console, overrides or {}, directory)
        try:
            gate.start()
            console.print(f"gateway ready in {gate.ready_seconds:.1f} s: agents talk to {gate.url}")
            log = asyncio.run(perform(gate, console, seconds=seconds, runs=runs, seed=seed))
            agreed = report(gate, console, log)
            if stay:
                console.print("gateway and agents go on; Ctrl-C stops them")
                with going_on(gate, seed + 1):
                    while True:
                        time.sleep(1)
        except GatewayDied as fault:
            console.print(str(fault), markup=False)
            return 1
        except KeyboardInterrupt:
            with contextlib.suppress(OSError):  # the terminal may be gone
                console.print("stopping")
            return 0
        finally:
            gate.close()
    return 0 if agreed else 1


def report(gate: RunningGateway, console: Console, log: Sequence[Seen]) -> bool:
    """Print what the gateway recorded; true when the agents saw the same."""
    with contextlib.suppress(TimeoutError):  # compare() says what is missing
        gate.calls(len(log), seconds=15, limit=500)
    calls = gate.calls(0, limit=500)
    summary(console, calls, RUN_USD)
    if saved := sum(call["upstream"] == BACKUP and call["outcome"] == "ok" for call in calls):
        console.print(f"{saved} calls were answered by {BACKUP} while gemini failed")
    if saved := [call["cache"]["saved_usd"] for call in calls if from_cache(call)]:
        console.print(f"{len(saved)} answers came from the cache, which saved {money(sum(saved))}")
    if tried := sum((call["notes"] or {}).get("canary_arm") == "canary" for call in calls):
        console.print(f"{tried} calls went to a model on trial: tollgate canary status")
    if dearer := sum("," in ((call["notes"] or {}).get("cascade") or "") for call in calls):
        console.print(f"{dearer} forms that a cheap model filled wrongly went to a dear one")
    faults = compare(log, calls) + overspent(calls)
    for fault in faults[:20]:
        console.print(f"differs: {fault}", markup=False, style="red")
    if not faults:
        console.print(f"what the agents saw and what the gateway recorded agree: {len(log)} calls")
        console.print(f"no run cost more than its budget of ${RUN_USD:.2f}")
    for path in ("/", "/metrics", "/api/runs", "/api/calls"):
        console.print(f"look at  {gate.admin_url}{path}")
    return not faults


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m gateway.testing.demo", description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=25, help="how long agents start new runs before all is summed up (%(default)s)"
    )
    parser.add_argument("--runs", type=int, help="runs per agent, instead of --seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--exit", action="store_true", help="stop at the end instead of staying up")
    options = parser.parse_args(argv)
    return run(seconds=options.seconds, runs=options.runs, stay=not options.exit, seed=options.seed)


if __name__ == "__main__":
    sys.exit(main())
