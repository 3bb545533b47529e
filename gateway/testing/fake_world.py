"""State and vocabulary shared by the fake dialects. Values in, values out: nothing here sleeps or opens a socket."""

from __future__ import annotations

import hashlib
import random
import string
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from gateway.testing.fake_script import Ask, Fault, Reply, answer
from gateway.testing.fake_tokens import BreakpointCache, PrefixCache

Headers = list[tuple[str, str]]
Script = Callable[[Ask], Reply | None]

_ALPHABET = string.ascii_letters + string.digits


def dump(value: Any) -> bytes:
    return msgspec.json.encode(value)


def pretty(value: Any) -> bytes:
    """JSON as Google's front ends print it."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


@dataclass(slots=True)
class Incoming:
    method: str
    path: str  # raw, without the query
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case, last value wins
    body: Any  # decoded JSON; None without a body


@dataclass(slots=True)
class Frame:
    """A piece of a stream; `tokens` says how long a model would take for it."""

    data: bytes
    tokens: int = 0


@dataclass(slots=True)
class Wire:
    """A whole HTTP answer: either `body` or `frames`."""

    status: int = 200
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    frames: Sequence[Frame] | None = None
    tokens: int = 0  # generated ones, for the pace of an answer in one piece
    wait: float = 0
    fault: Fault | None = None
    broken: Callable[[int], bytes] | None = None  # error event of this dialect, given the frames sent before it


@dataclass(slots=True, frozen=True)
class Latency:
    """Time to the first token (lognormal, seconds) and pace; zero is at once."""

    ttft_median: float = 0
    ttft_sigma: float = 0.4
    tokens_per_second: float = 0  # 0: unlimited

    def first(self, rng: random.Random) -> float:
        return self.ttft_median * rng.lognormvariate(0, self.ttft_sigma) if self.ttft_median else 0.0

    def pace(self, tokens: int, rng: random.Random) -> float:
        return tokens / self.tokens_per_second * rng.uniform(0.5, 1.5) if self.tokens_per_second else 0.0


INSTANT = Latency()
REALISTIC = Latency(ttft_median=0.35, ttft_sigma=0.5, tokens_per_second=90)


@dataclass(slots=True)
class Stored:
    """A stored response of the Responses API."""

    response: dict[str, Any]
    input_items: list[dict[str, Any]]
    history: list[dict[str, Any]]  # input and output items up to and including this response
    events: list[tuple[str, dict[str, Any]]]
    final: dict[str, Any] | None = None  # what a background response will become
    due: float = 0.0


class World:
    """Everything the fake remembers. Same seed, clock and requests: same bytes."""

    def __init__(
        self,
        seed: int = 0,
        *,
        clock: Callable[[], float],
        script: Script | None = None,
        chances: Mapping[str, float] | None = None,
        typical_tokens: float = 60,
        cache_minimum: int = 1024,
        background_seconds: float = 0.2,
    ) -> None:
        self.seed, self.clock, self.script = seed, clock, script
        self.chances = dict(chances or {})
        self.typical_tokens, self.background_seconds = typical_tokens, background_seconds
        self._cache_minimum = cache_minimum
        self.reset()

    def reset(self, salt: int = 0) -> None:
        """Forget all requests: the next ones get the answers the first ones got; with another salt, under other ids."""
        self._salt = salt
        self._seen: dict[str, int] = {}
        self.prefixes = PrefixCache(self._cache_minimum)
        self.breakpoints = BreakpointCache(self._cache_minimum)
        self.stored: OrderedDict[str, Stored] = OrderedDict()

    def reply(self, ask: Ask) -> tuple[Reply, Ids]:
        """The answer to `ask`, and where its ids come from. Equal questions get equal text and different ids."""
        facts = (ask.dialect, ask.model, ask.prompt, sorted(ask.tools), ask.tool_choice, ask.max_tokens, ask.thinking)
        key = hashlib.sha256(repr(facts).encode()).hexdigest()
        nth = self._seen.get(key, 0)
        self._seen[key] = nth + 1
        ids = Ids(random.Random(f"{self.seed}/{self._salt}/{key}/{nth}"))
        reply = self.script(ask) if self.script is not None else None
        if reply is None:
            reply = answer(ask, random.Random(f"{self.seed}/{key}"), self.typical_tokens)
        if reply.fault is not None and nth >= reply.fault.times:
            reply = replace(reply, fault=None)
        return replace(reply, fault=reply.fault or self._chance(ids.rng)), ids

    def _chance(self, rng: random.Random) -> Fault | None:
        draw = rng.random()
        for kind, chance in self.chances.items():
            if draw < chance:
                return Fault(kind, after=rng.randint(2, 12), seconds=5, retry_after=1)
            draw -= chance
        return None

    def store(self, stored: Stored) -> None:
        self.stored[stored.response["id"]] = stored
        while len(self.stored) > 10_000:
            self.stored.popitem(last=False)


class Ids:
    """Ids in the shapes of the providers, from one seeded generator per answer."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def letters(self, size: int, alphabet: str = _ALPHABET) -> str:
        return "".join(self.rng.choices(alphabet, k=size))

    def hex(self, size: int) -> str:
        return self.letters(size, "0123456789abcdef")

    def openai(self, prefix: str) -> str:
        """chatcmpl-…, call_…"""
        return prefix + self.letters(29 if prefix.startswith("chat") else 24)

    def item(self, prefix: str) -> str:
        """resp_…, msg_…, fc_…, rs_… of the Responses API."""
        return prefix + self.hex(50)

    def anthropic(self, prefix: str) -> str:
        """msg_01…, toolu_01…, req_01…"""
        return prefix + "01" + self.letters(22)


def sse(event: str | None, data: bytes, eol: bytes = b"\n") -> bytes:
    head = b"event: " + event.encode() + eol if event else b""
    return head + b"data: " + data + eol + eol


def text_of(content: Any) -> str:
    """Text of a message content: a string, or a list of parts of any dialect."""
    if isinstance(content, str):
        return content
    if not isinstance(content, Iterable) or isinstance(content, Mapping):
        return "" if content is None else str(content)
    parts = []
    for part in content:
        if isinstance(part, str):
            parts.append(part)
        elif isinstance(part, Mapping):
            parts.append(str(part.get("text") or part.get("refusal") or ""))
    return "".join(parts)
