"""A gateway that gives answers to similar questions, an upstream that knows every answer, and what came of asking."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import shutil
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from gateway.policy.semantic_evidence import Interval, wilson
from gateway.testing.fake_script import Ask, Reply
from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway

CHAT = "/v1/chat/completions"
AGENT, MODEL = "bot", "gpt-4o-mini"
GOLDEN = Path(__file__).parents[1] / "golden" / "semcache" / "advising.jsonl.gz"


def advising() -> list[tuple[str, str]]:
    """Text and class, in the order of the stream: equal class, equal answer."""
    rows = [json.loads(line) for line in gzip.decompress(GOLDEN.read_bytes()).splitlines()]
    return [(row["text"], row["class"]) for row in rows]


class Oracle:
    """The upstream's answers by text: of a class, of a text alone, or what it was talked into."""

    def __init__(self) -> None:
        self.classes: dict[str, str] = {}
        self.lies: dict[str, str] = {}

    def teach(self, rows: Iterable[tuple[str, str]]) -> None:
        self.classes |= dict(rows)

    def truth(self, text: str) -> str:
        """Letters only: numbers in answers would let a comparison of answers see more than it may."""
        named = self.classes.get(text, text)
        digest = hashlib.sha256(named.encode()).hexdigest()[:20]
        return "The answer is " + digest.translate(str.maketrans("0123456789", "ghijklmnop"))

    def script(self, ask: Ask) -> Reply:
        text = ask.turns[-1].text
        return Reply(text=self.lies.get(text) or self.truth(text))


@dataclass
class Outcome:
    """What came of questions. `said` and `results` by their order."""

    results: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    wrong: int = 0  # of similar hits

    @property
    def asked(self) -> int:
        return len(self.results)

    @property
    def similar(self) -> int:
        return self.results.count("semantic")

    @property
    def hits(self) -> int:
        return self.similar + self.results.count("exact")

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(self.results + other.results, self.said + other.said, self.wrong + other.wrong)

    def __str__(self) -> str:
        return f"{self.hits} hits of {self.asked}, {self.similar} by similarity, {self.wrong} of them wrong"


class Asker:
    """Asks one question after the other, as one client does."""

    def __init__(self, gate: RunningGateway, oracle: Oracle, session: aiohttp.ClientSession) -> None:
        self.gate, self.oracle, self.session = gate, oracle, session

    async def ask(self, text: str, tenant: str = "t", **body: Any) -> tuple[str, str]:
        """How it was answered, and what was said."""
        given = {"model": MODEL, "messages": [{"role": "user", "content": text}], **body}
        headers = {"authorization": "Bearer k", "x-tenant": tenant, "x-tollgate-agent": AGENT}
        async with self.session.post(self.gate.url + CHAT, json=given, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            said = (await answer.json())["choices"][0]["message"]["content"]
            return answer.headers.get("x-tollgate-cache", ""), said

    async def all(self, texts: Iterable[str], tenant: str = "t", **body: Any) -> Outcome:
        found = Outcome()
        for text in texts:
            result, said = await self.ask(text, tenant, **body)
            found.results.append(result)
            found.said.append(said)
            found.wrong += result == "semantic" and said != self.oracle.truth(text)
        return found


def gateway(upstream: FakeUpstream, target: float, **settings: Any) -> RunningGateway:
    """`patience` is long: the machine that runs tests may be busy."""
    upstreams = {"openai": {"dialect": "openai", "provider": "openai", "key": "sk-upstream", "url": upstream.url}}
    semantic = {"mode": "serve", "target": target, "patience": 5, **settings}
    cache = {"exact": {"enabled": True}, "semantic": semantic}
    return RunningGateway(upstreams, cache=cache, identity={"tenant_header": "x-tenant"})


class Learned:
    """A gateway that has learned, as it left its state: others begin from a copy, so that no test teaches another."""

    def __init__(self, upstream: FakeUpstream, target: float, directory: Path) -> None:
        self._upstream, self._target, self._directory = upstream, target, directory

    async def study(self, oracle: Oracle, texts: Iterable[str], tenant: str = "t") -> Outcome:
        async with self._started(None) as gate, aiohttp.ClientSession() as session:
            found = await Asker(gate, oracle, session).all(texts, tenant)
            gate.stop()
            sockets = shutil.ignore_patterns("*.sock")
            shutil.copytree(gate.state, self._directory, ignore=sockets, dirs_exist_ok=True)
            return found

    @asynccontextmanager
    async def begin(self, oracle: Oracle) -> AsyncIterator[Asker]:
        async with self._started(self._directory) as gate, aiohttp.ClientSession() as session:
            yield Asker(gate, oracle, session)

    @asynccontextmanager
    async def _started(self, state: Path | None) -> AsyncIterator[RunningGateway]:
        gate = gateway(self._upstream, self._target)
        if state is not None:
            shutil.copytree(state, gate.state)
        async with gate:
            await asyncio.to_thread(ready, gate)
            yield gate


def ready(gate: RunningGateway) -> None:
    def embedder() -> Any:
        return gate.get("/api/cache/semantic").get("embedder")

    gate.until(embedder, bool, 30)


def scope(gate: RunningGateway, tenant: str = "t") -> Mapping[str, Any]:
    """What the gateway itself says of a tenant's scope."""
    found = gate.get("/api/cache/semantic")["scopes"]
    (one,) = [one for one in found if one["scope"] == f"{tenant}/{AGENT}/{MODEL}"]
    return dict(one)


def interval(scope: Mapping[str, Any]) -> Interval:
    return Interval(scope["wrong_lower"], scope["wrong_upper"])


def between(wrong: int, count: int) -> str:
    """A share and its interval of 95 %, for people."""
    found = wilson(wrong, count)
    return f"{wrong} of {count} ({found.lower:.1%} to {found.upper:.1%})"
