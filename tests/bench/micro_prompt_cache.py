"""`python -m tests.bench.micro_prompt_cache [--rounds N]`: microseconds that prompt-cache health costs a call.

An agent with tools sends its conversation with two more messages of 1 KB each time, and its provider reads all that it
can: the ordinary call. `short`: prompts that no provider caches. CPU time of one core, the least of the rounds: what
others do on the machine only adds.
"""

from __future__ import annotations

import argparse
import json
import time
import timeit
from collections.abc import Sequence
from zlib import crc32

from msgspec import Raw

from gateway.call import Answer, Asked, Attempt, Call, Request, Route, Target, Trace, Usage, UsageSource, Who
from gateway.policy.prompt_cache import PromptCacheHealth
from gateway.stores.local_table import LocalTable
from gateway.testing.doubles import FlatPrices

TURNS = 30
RUNS = 200
ROUNDS = 7
NS = 10**9
WORDS = "The agent reads a file, thinks about it and calls another tool. " * 16
TARGET = Target("anthropic", "anthropic", "h", 443, True, b"")
ROUTE = Route("/v1/messages", "anthropic", "chat", "anthropic", b"/v1/messages")


def conversation(number: int) -> list[Raw]:
    texts = [f"run {number}, message {at}: {WORDS}"[:1000] for at in range(2 * TURNS + 1)]
    roles = ("user", "assistant")
    return [Raw(json.dumps({"role": roles[at % 2], "content": text}).encode()) for at, text in enumerate(texts)]


def calls(number: int, tokens: int) -> list[Call]:
    made, messages = [], conversation(number)
    fields = {"model": Raw(b'"m"'), "messages": Raw(b"[]")}
    before = 0
    for turn in range(TURNS):
        total = tokens + turn * 500
        asked = Asked("m", fields=fields, messages=messages[: 2 * turn + 1], system=b'"s"', tools=b'[{"name":"t"}]')
        usage = Usage(total, 50, before, total - before)
        who = Who(run_id=f"run-{number}", agent="bench")
        call = Call(f"{number}-{turn}", Request(b"POST", b"", (), b""), ROUTE, asked, who, Trace(), turn * NS, 0)
        call.attempts = [Attempt(TARGET, 0, status=200, sent=True)]
        call.answer = Answer(usage=usage, usage_source=UsageSource.PROVIDER)
        made.append(call)
        before = total
    return made


def measured(tokens: int) -> tuple[float, int]:
    """Microseconds per call, and how many calls were judged to have lost nothing."""
    links = LocalTable(65_536)
    health = PromptCacheHealth(links, FlatPrices(), ("anthropic",))
    every: Sequence[list[Call]] = [calls(number, tokens) for number in range(RUNS)]
    for run in every:
        health.learn(run[0])  # the first one has nothing to compare with
    began = time.process_time_ns()
    for turn in range(1, TURNS):
        for run in every:
            health.learn(run[turn])
    spent = time.process_time_ns() - began
    sound = sum(call.prompt_cache is not None and not call.prompt_cache.lost_tokens for run in every for call in run)
    return spent / 1000 / (RUNS * (TURNS - 1)), sound


def fingerprints() -> float:
    """Microseconds of the checksums alone."""
    texts = [bytes(raw) for raw in conversation(0)[:3]]
    return min(timeit.repeat(lambda: [crc32(text) for text in texts], number=2000, repeat=9)) / 2000 * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args().rounds
    print(f"of that, fingerprints of what is new and of the first message, 3 KB: {fingerprints():6.2f} us")
    for name, tokens in (("ordinary", 20_000), ("short", -20_000)):
        results = [measured(tokens) for _ in range(rounds)]
        print(f"{name:<10} {min([spent for spent, _ in results]):6.2f} us, {results[0][1]} calls sound")


if __name__ == "__main__":
    main()
