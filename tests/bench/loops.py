"""`python -m tests.bench.loops [--runs N] [--cassettes DIR]`: false alarms and detections of the loop breaker.

Honest traffic: scripted runs with tools in every dialect, the clients of the identity corpus (with tools that have
arguments and results), and recorded requests, whose whole history is played step by step. Then runaways: after how
many steps each is noticed. Last, what a call costs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

from msgspec import structs

from gateway.call import Call, Money, Request, Who
from gateway.config.schema import Loops
from gateway.dialects.registry import DIALECTS
from gateway.dialects.steps import newest_step
from gateway.policy.loop import SIGNALS, LoopBreaker
from gateway.stores.shared_table import SharedTable
from gateway.testing import cassettes, wire
from gateway.testing.calls import ROUTES, MemoryLinks
from gateway.testing.tool_runs import FORMS, HONEST, RUNAWAYS, Conversation, Script
from tests.pipeline.test_identity_corpus import SCRIPTS, START, World

SECOND = 10**9
GOLDEN = Path(__file__).parents[1] / "golden" / "cassettes"
ALL_OFF = {name: "off" for name in SIGNALS}


class Tally:
    """Alarms per signal: how many, and in which runs."""

    def __init__(self) -> None:
        self.calls = 0
        self.runs: set[str] = set()
        self.alarms: Counter[str] = Counter()
        self.alarmed: dict[str, set[str]] = {name: set() for name in SIGNALS}

    def note(self, run: str, signals: Iterable[str]) -> None:
        self.calls += 1
        self.runs.add(run)
        for signal in signals:
            self.alarms[signal] += 1
            self.alarmed[signal].add(run)

    def rows(self) -> dict[str, tuple[float, float]]:
        """Per signal: alarms per 1,000 calls, and per 1,000 runs those with any."""
        return {
            name: (
                1000 * self.alarms[name] / max(1, self.calls),
                1000 * len(self.alarmed[name]) / max(1, len(self.runs)),
            )
            for name in SIGNALS
        }


def play(
    script: Script, dialect: str, random: Random, breaker: LoopBreaker, run: str, *, limit: int = 200, window: int = 0
) -> list[list[str]]:
    """The signals at each step of one run, its first request included."""
    talk = Conversation(dialect, run, prompt=f"{run}: do the task.", window=window)
    now = START
    found: list[list[str]] = []
    for move in script(random):
        call = talk.call(now, len(found))
        found.append([verdict.signal for verdict in breaker.check(call, now)])
        now += random.randrange(2 * SECOND, 30 * SECOND)
        call.money = Money(random.randrange(10**8, 10**10))
        breaker.learn(call, now)
        talk.take(move)
        if len(found) >= limit:
            break
    call = talk.call(now, len(found))
    found.append([verdict.signal for verdict in breaker.check(call, now)])
    return found


def scripted(runs: int, config: Loops) -> dict[str, Tally]:
    """Honest runs, `runs` of each script, dialects in turn; every fifth sends a window of its history only."""
    tallies = {}
    breaker = LoopBreaker(config, MemoryLinks(), newest_step)
    for name, script in HONEST.items():
        tally = tallies[name] = Tally()
        for n in range(runs):
            dialect = list(FORMS)[n % len(FORMS)]
            run = f"{name}-{n}"
            for signals in play(script, dialect, Random(run), breaker, run, window=7 if n % 5 == 4 else 0):
                tally.note(run, signals)
    return tallies


class Watched:
    """A resolver of the identity corpus with a breaker behind it."""

    def __init__(self, inner: Any, breaker: LoopBreaker, tally: Tally) -> None:
        self.inner, self.breaker, self.tally = inner, breaker, tally

    def identify(self, call: Call) -> Any:
        call.who, call.tools = self.inner.identify(call)
        self.tally.note(call.who.run_id, [verdict.signal for verdict in self.breaker.check(call, call.started_at)])
        return call.who, call.tools

    def learn(self, call: Call) -> None:
        self.inner.learn(call)
        call.money = Money(3 * 10**9 if call.answer is not None else 0)
        self.breaker.learn(call, call.started_at + call.ended - call.began)


def corpus(rounds: int, config: Loops) -> Tally:
    """The 44 kinds of clients, in parallel, over three workers; what their tools do is drawn."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as directory, lively():
        world = World(Path(directory), seed=7)
        watched: Any = [
            Watched(inner, LoopBreaker(config, table, newest_step), tally)
            for inner, table in zip(world.workers, world.tables, strict=True)
        ]
        world.workers = watched
        for number in range(rounds):
            everybody = [(s, one) for s in SCRIPTS for one in s.make(Random(f"{number}{s.name}"))]
            world.play(everybody, START + number * 600 * SECOND)
    return tally


class lively:
    """While this lasts, the tools of scripted clients get arguments and results."""

    def __enter__(self) -> None:
        self._answer: Any = wire.Model.answer
        answer = wire.Model.answer

        def drawn(model: wire.Model) -> wire.Reply:
            reply = answer(model)
            random = Random(f"{reply.id}{reply.text}")
            for use in reply.uses:
                n = random.randrange(8 if use.name == "read_file" else 10**6)
                use.arguments = {"read_file": {"path": f"{n}.py"}, "bash": {"command": "pytest -q"}}.get(
                    use.name, {"query": f"topic {n}"}
                )
                use.result = f"{use.name} gave {n}"
            return reply

        wire.Model.answer = drawn  # type: ignore[method-assign, assignment]

    def __exit__(self, *_: object) -> None:
        wire.Model.answer = self._answer  # type: ignore[method-assign]


def recorded(directory: Path, config: Loops) -> Tally:
    """Recorded requests: each is a run, played as its client must have sent it, one answer after the other."""
    tally = Tally()
    breaker = LoopBreaker(config, MemoryLinks(), newest_step)
    for path in sorted(directory.glob("*/*.json")):
        exchange = cassettes.load(path)
        call = read(exchange, path.parent.name)
        if call is None:
            continue
        run = call.who.run_id
        messages = call.asked.messages
        for end in range(1, len(messages) + 1):
            # A request ends where an answer follows: what stands behind is the assistant's.
            asked = structs.replace(call.asked, messages=messages[:end])
            step = newest_step(call.route.dialect, asked)
            following = newest_step(call.route.dialect, structs.replace(asked, messages=messages[: end + 1]))
            grows = (
                end < len(messages)
                and following is not None
                and step is not None
                and (len(following.tools) > len(step.tools) > 0)
            )
            if end < len(messages) and (grows or not is_ours(call.route.dialect, bytes(messages[end - 1]))):
                continue
            call.asked = asked
            tally.note(run, [verdict.signal for verdict in breaker.check(call, START)])
    return tally


def is_ours(dialect: str, item: bytes) -> bool:
    """Is the last item something that the client added?"""
    assistant = (b'"assistant"', b'"model"', b'_call"', b'"reasoning"')
    return not any(mark in item[:80].replace(b" ", b"") for mark in assistant)


def read(exchange: cassettes.Exchange, provider: str) -> Call | None:
    family = {"anthropic": "anthropic", "gemini": "gemini", "vertex": "gemini"}.get(provider, "openai")
    target = "/" + exchange.target.lstrip("/").encode("ascii", "replace").decode()
    try:
        sent = wire.Sent(f"/{family}{target}", [], exchange.request_body, "", wire.Truth("", "", False), [])
        route = ROUTES.resolve(exchange.method.encode(), sent.path.encode(), "")
        from_request = DIALECTS[route.dialect].read(route, _request(sent))
    except Exception:  # other APIs, form data, truncated bodies: nothing of ours
        return None
    call = Call(exchange.name, _request(sent), route, from_request, Who(run_id=exchange.name), None, START, 0)  # type: ignore[arg-type]
    return call if from_request.messages else None


def _request(sent: wire.Sent) -> Any:
    return Request(b"POST", sent.path.encode(), sent.headers, sent.body)


def rates(config: Loops, agents: int = 40, runs: int = 25, minutes: int = 40) -> dict[str, str]:
    """Rates per minute of agents, their runs and minutes, log-normal on each level, with bursts (parallel sub-agents);
    then the last run of each agent runs away. False alarms of the others, and how soon the runaway is noticed."""
    honest, noticed, missed = Tally(), [], 0
    for agent in range(agents):
        random = Random(agent)
        breaker = LoopBreaker(config, MemoryLinks(), newest_step)
        usual = random.lognormvariate(1.6, 0.8)  # calls a minute: 5, a tenth of the agents below 2 or above 14
        for number in range(runs):
            wild = number == runs - 1
            own = usual * random.lognormvariate(0, 0.5)
            first = 0
            call = Conversation("openai_chat", f"{agent}-{number}", agent=f"agent {agent}").call(START, number)
            for minute in range(random.randint(3, minutes)):
                burst = 5 if random.random() < 0.03 else 1
                count = round(max(200, 30 * own) if wild else burst * own * random.lognormvariate(0, 0.6))
                price = random.lognormvariate(0, 0.7)
                for n in range(min(count, 1000)):
                    now = START + (number * 100 + minute) * 60 * SECOND + n * 60 * SECOND // count
                    signals = [verdict.signal for verdict in breaker.check(call, now)]
                    call.money = Money(round(price * 10**10))
                    breaker.learn(call, now)
                    if not wild:
                        honest.note(f"{agent}-{number}", signals)
                    elif signals and not first:
                        first = (now - START) // SECOND - number * 6000 + 1
                if wild and (first or minute):
                    break
            if wild:
                noticed += [first] if first else []
                missed += not first
    calls, spent = honest.rows()["call_rate"], honest.rows()["spend_rate"]
    middle = sorted(noticed)[len(noticed) // 2] if noticed else 0
    return {
        "honest": f"{len(honest.runs):,} runs, {honest.calls:,} calls",
        "call_rate: alarms per 1,000 calls / runs": f"{calls[0]:.2f} / {calls[1]:.2f}",
        "spend_rate: alarms per 1,000 calls / runs": f"{spent[0]:.2f} / {spent[1]:.2f}",
        "runaways noticed within two minutes": f"{len(noticed)} of {len(noticed) + missed}; median after {middle} s",
    }


def detections(config: Loops, seeds: int = 20, limit: int = 120) -> dict[str, dict[str, list[int]]]:
    """Runaway -> signal -> after how many steps it was noticed first, for each seed and dialect in which it was."""
    found: dict[str, dict[str, list[int]]] = {}
    for name, script in RUNAWAYS.items():
        found[name] = {}
        for seed in range(seeds):
            for dialect in FORMS:
                breaker = LoopBreaker(config, MemoryLinks(), newest_step)
                steps = play(script, dialect, Random(seed), breaker, f"{name}{seed}", limit=limit)
                first: dict[str, int] = {}
                for number, signals in enumerate(steps):
                    for signal in signals:
                        first.setdefault(signal, number)
                for signal, number in first.items():
                    found[name].setdefault(signal, []).append(number)
    return found


def cost() -> dict[str, float]:
    """Microseconds of CPU per call: an ordinary step of a run that goes on, in memory and in the shared table."""
    script = HONEST["researcher"]
    calls: list[Call] = []
    talk = Conversation("openai_chat", "r")
    for move in [move for seed in range(4) for move in script(Random(seed))][:40]:
        talk.take(type(move)(move.acts[:1], move.text))
        calls.append(talk.call(START, len(calls)))
    steps = [newest_step(call.route.dialect, call.asked) for call in calls]
    figures = {
        "read the newest step": timed(lambda: [newest_step(c.route.dialect, c.asked) for c in calls], len(calls))
    }
    assert all(steps)
    with tempfile.TemporaryDirectory() as directory:
        for place, links in (("memory", MemoryLinks()), ("shared table", SharedTable(Path(directory) / "links", 4096))):
            breaker = LoopBreaker(Loops(), links, newest_step)
            runs = iter(range(10**9))

            def check(breaker: LoopBreaker = breaker, runs: Any = runs) -> None:
                who = Who(run_id=f"run-{next(runs)}", agent="a")
                for call in calls:
                    call.who = who
                    breaker.check(call, START)

            figures[f"check, all signals on, links in {place}"] = timed(check, len(calls))

            def learn(breaker: LoopBreaker = breaker) -> None:
                for call in calls:
                    breaker.learn(call, START)

            figures[f"learn, links in {place}"] = timed(learn, len(calls))
    once = Conversation("openai_chat", "r", prompt="What is a circuit breaker? " * 20).call(START, 1)
    once.who.run_source = "new"
    figures["check, a first request"] = timed(lambda: [breaker.check(once, START) for _ in range(40)], 40)
    off = LoopBreaker(Loops(**ALL_OFF), MemoryLinks(), newest_step)  # type: ignore[arg-type]
    figures["check, all signals off"] = timed(lambda: [off.check(call, START) for call in calls], len(calls))
    return figures


def timed(operation: Callable[[], Any], size: int, rounds: int = 40) -> float:
    best = float("inf")
    for _ in range(rounds):
        began = time.thread_time_ns()
        operation()
        best = min(best, time.thread_time_ns() - began)
    return best / size / 1000


def show(name: str, tally: Tally) -> None:
    rates = [f"{calls:.2f} / {runs:.2f}" if calls else "0" for calls, runs in tally.rows().values()]
    print(f"| {name} | {len(tally.runs):,} | {tally.calls:,} | {' | '.join(rates)} |")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.loops", description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="of each honest script")
    parser.add_argument("--rounds", type=int, default=3, help="of the corpus of clients")
    parser.add_argument("--cassettes", type=Path, default=GOLDEN)
    options = parser.parse_args()
    config = Loops()
    print(f"\n| honest traffic | runs | calls | {' | '.join(SIGNALS)} |\n|---|---|---|{'---|' * len(SIGNALS)}")
    for name, tally in scripted(options.runs, config).items():
        show(name, tally)
    show("44 kinds of clients", corpus(options.rounds, config))
    show("recorded requests", recorded(options.cassettes, config))
    print("\n| runaway | noticed by, after steps (of runs) |\n|---|---|")
    for name, signals in detections(config).items():
        said = [
            f"{signal} {min(n)}–{max(n)} ({len(n)})" for signal, n in sorted(signals.items(), key=lambda i: min(i[1]))
        ]
        print(f"| {name} | {'; '.join(said)} |")
    print("\n| rates | |\n|---|---|")
    for name, found in rates(config).items():
        print(f"| {name} | {found} |")
    print("\n| cost | µs |\n|---|---|")
    for name, figure in cost().items():
        print(f"| {name} | {figure:.1f} |")


if __name__ == "__main__":
    main()
