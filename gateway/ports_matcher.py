"""The port of the matcher: the process that knows which questions share an answer. What is said to it, and by it.

Part of `gateway.ports`, from where it is imported. See docs/cache-semantic.md and gateway.matcher.
"""

from __future__ import annotations

from typing import Any, Protocol

from msgspec import Struct


class Topic(Struct, frozen=True, gc=False):
    """Where evidence belongs, and what is wanted there."""

    scope: str  # for people, too: tenant/agent/model
    tenant: str
    target: float  # tolerated share of wrong answers
    sample: float  # share of hits that is checked
    ttl: int  # ns
    serve: bool  # False: learn only


class Inquiry(Struct, frozen=True, gc=False):
    """May a stored answer be given to this question?"""

    call: str  # its id
    partition: bytes  # SHA-256 of all that must be equal, see policy.semantic_rules
    text: str
    topic: Topic


class Match(Struct, frozen=True, gc=False):
    """What the matcher has to say. It is never trusted with who may see what: the caller checks the partition."""

    ticket: int = 0  # by which it knows this question again; 0: it does not
    key: bytes = b""  # of the answer that may be given; b"": none
    score: float = 0.0  # the chance that it is right
    sampled: bool = False  # ask the upstream nevertheless, in the background
    why: str = ""  # nothing may be given: empty, far, veto, unsure, learning, tripped, shadow, busy, late, down, gone


class Lesson(Struct, frozen=True, gc=False):
    """A fresh answer that was kept."""

    inquiry: Inquiry
    ticket: int
    key: bytes  # under which the exact cache has it
    answer: str  # what the model said
    created: int  # ns since the epoch
    cost: int  # pico-USD; 0 where unknown
    checked: bool = False  # it was fetched to check a hit


class Matcher(Protocol):
    """One worker's end. Nothing here raises but what ends the call itself, and nothing waits beyond its bound."""

    async def ask(self, inquiry: Inquiry, down: Any) -> Match:
        """Raises ClientGone, or what else ends the call of `down` while it waits."""
        ...

    def teach(self, lesson: Lesson) -> None:
        """Told, if it can be; never waits."""
        ...


class ScopeState(Struct, frozen=True, gc=False):
    """What a scope knows of itself, for people. Money in pico-USD, shares as 0 to 1."""

    scope: str
    tenant: str
    mode: str  # of the last call: shadow | serve
    target: float
    labels: int  # answers that were compared
    verified: int  # hits of those, and would-be hits while it only learns
    wrong: int
    share: float  # of wrong hits, as estimated from the sample; 0 while nothing is known
    lower: float  # of its interval of 95 %
    upper: float
    cut: float  # chance from which on answers are given; above 1: none are
    hits: int  # given
    would: int  # that would have been given while it only learned
    saved: int
    shadow_cost: int
    tripped: bool  # the breaker: too many were wrong
    trips: int
    entries: int  # questions remembered
    reported: int  # by people as wrong


class MatcherState(Struct, frozen=True):
    embedder: str  # its name, or "" while there is none
    trouble: str  # why there is none
    entries: int
    waiting: int  # lessons
    dropped: int  # lessons and questions that were too many
    scopes: tuple[ScopeState, ...]


class Feedback(Struct, frozen=True, gc=False):
    """What somebody says of a hit: by the id of its call, or of all hits of an entry by its name."""

    right: bool
    call: str = ""
    entry: str = ""


class Noted(Struct, frozen=True, gc=False):
    """How many hits a word of feedback was about, in which scopes."""

    hits: int
    scopes: tuple[str, ...] = ()
