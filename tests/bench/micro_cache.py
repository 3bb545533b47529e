"""`python -m tests.bench.micro_cache [--rounds N]`: microseconds per exact lookup, key included, on one core.

A lookup is all that a call pays before it goes upstream or is answered: the rule, the key over head and body, and the
question to the store, with 10,000 answers in its file. `memory` finds the answer in the worker, `file` in the file it
shares with others, `miss` in neither; `again` is as `memory`, of bodies that came before byte for byte. Each round has
bodies of its own. CPU time of the loop's thread, the least of the rounds: what others do on the machine only adds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gateway.call import Answer, Call, Request, Trace, Usage, Who
from gateway.config.schema import Cache, ExactCache
from gateway.dialects.registry import DIALECTS
from gateway.dialects.routes import Table
from gateway.policy.cache_key import Basis, Meanings, key_of, place_of
from gateway.policy.cache_rules import CacheRules, unfit, wish_of
from gateway.ports import Entry
from gateway.stages.cache import MEANINGS
from gateway.stores.sqlite_cache import SqliteCache
from gateway.testing.doubles import World, ask, at_once

ENTRIES = 10_000
AGAIN = 60  # questions that come again and again
CALLS = 1000
ROUNDS = 7
BOUND_US = 40.0
HEADERS = (
    (b"Authorization", b"Bearer sk-bench"),
    (b"User-Agent", b"OpenAI/Python 2.9.0"),
    *(
        (b"X-Stainless-" + name, b"value")
        for name in (b"Lang", b"Package-Version", b"OS", b"Arch", b"Runtime", b"Async")
    ),
    (b"Accept", b"application/json"),
    (b"Accept-Encoding", b"gzip, deflate, br, zstd"),
)


def question(number: int, size: int) -> Request:
    words = "Explain in a sentence why the sky is blue. " * (size // 43)
    messages = [{"role": "system", "content": words}, {"role": "user", "content": f"Question {number}?"}]
    body = json.dumps({"model": "gpt-4o-mini", "temperature": 0, "messages": messages})
    return ask("/v1/chat/completions", body.encode(), *HEADERS)


class Lookups:
    """Every answer is stored under the key of its question."""

    def __init__(self, directory: Path, size: int, memory_bytes: int) -> None:
        world = World(auth=((b"authorization", b"paid"),))
        self.spec = world.specs["openai"]
        self.dialect = DIALECTS["openai_chat"]
        self.routes = Table({"openai": "openai"})
        self.rules = CacheRules(Cache(exact=ExactCache(enabled=True)))
        self.basis = Basis(b"1", place_of(self.spec), meanings=Meanings(MEANINGS))
        self.store = SqliteCache(directory / "cache.sqlite", memory_bytes=memory_bytes, tenant_bytes=2**30)
        self.size = size
        self.facts = question(0, size).facts

    def calls(self, first: int, count: int) -> list[Call]:
        made = []
        for number in range(first, first + count):
            request = question(number, self.size)
            request.facts = self.facts  # of one connection
            route = self.routes.resolve(b"POST", b"/v1/chat/completions", "")
            asked = self.dialect.read(route, request)
            made.append(Call(f"{number}", request, route, asked, Who(agent="bench"), Trace(), time.time_ns(), 0))
        return made

    def key(self, call: Call) -> bytes:
        terms = self.rules.terms(call)
        wish_of(call.request)
        assert not unfit(call, terms, self.dialect)
        key = key_of(call, self.spec, call.request.body, self.basis)
        assert key is not None
        return key

    def fill(self, count: int) -> None:
        now = time.time_ns()
        body = json.dumps({"choices": [{"message": {"content": "Because. " * 80}}]}).encode()
        answer = Answer(model="gpt-4o-mini", usage=Usage(100, 50), finish_reasons=("stop",), output_chars=700)
        for at, call in enumerate(self.calls(0, count)):
            key = self.key(call)
            _, generation = at_once(self.store.get(key, "default", now))
            self.store.put(
                Entry(
                    key, "default", now, now + 10**13, False, True, b"application/json", b"", body, answer, 10**9,
                    "/v1/chat/completions", "openai", "gpt-4o-mini", "bench",
                ),
                generation,
            )  # fmt: skip
            if at % 500 == 0:
                self.store.flush()
        self.store.flush()

    def forget(self) -> None:
        self.basis = Basis(b"1", place_of(self.spec), meanings=Meanings(MEANINGS))

    def repeated(self, count: int, times: int) -> float:
        """The same few questions, each time as new bytes."""
        self.timed(self.calls(0, count), found=True)
        return statistics.mean([self.timed(self.calls(0, count), found=True) for _ in range(times)])

    def timed(self, calls: list[Call], *, found: bool) -> float:
        key, get, now = self.key, self.store.get, time.time_ns()
        began = time.thread_time_ns()
        for call in calls:
            assert (at_once(get(key(call), call.who.tenant, now))[0] is not None) == found
        return (time.thread_time_ns() - began) / len(calls) / 1000


def measure(rounds: int, size: int) -> dict[str, float]:
    """Microseconds by what the lookup finds."""
    with tempfile.TemporaryDirectory() as directory:
        plain = Lookups(Path(directory), size, 0)
        plain.fill(ENTRIES)
        quick = Lookups(Path(directory), size, 2**26)
        quick.timed(quick.calls(0, CALLS), found=True)
        unknown = iter(range(ENTRIES, 10**9, CALLS))

        def fresh(lookups: Lookups, calls: list[Call], found: bool) -> float:
            lookups.forget()
            return lookups.timed(calls, found=found)

        ways: dict[str, Callable[[], float]] = {
            "again": lambda: quick.repeated(AGAIN, CALLS // AGAIN),
            "memory": lambda: fresh(quick, quick.calls(0, CALLS), True),
            "file": lambda: fresh(plain, plain.calls(0, CALLS), True),
            "miss": lambda: fresh(plain, plain.calls(next(unknown), CALLS), False),
        }
        found = {name: min([way() for _ in range(rounds)]) for name, way in ways.items()}
        plain.store.close()
        quick.store.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    args = parser.parse_args()
    print(f"body    again  memory    file    miss   (us per lookup; bound {BOUND_US:g} at 1 KB)")
    for size in (1000, 10_000, 100_000):
        found = measure(args.rounds, size)
        print(f"{size / 1000:4.0f} KB", *[f"{found[name]:7.1f}" for name in ("again", "memory", "file", "miss")])


if __name__ == "__main__":
    main()
