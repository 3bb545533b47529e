"""The section of the cache of similar questions; imported from gateway.config.schema."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from gateway.config.schema_base import Config_, Count, Name, Share

Mode = Literal["off", "shadow", "serve"]
Target = Annotated[float, Meta(ge=0.001, le=0.2)]
Sample = Annotated[float, Meta(ge=0.005, le=0.5)]
SimilarSeconds = Annotated[float, Meta(gt=0, le=604_800, title="number of seconds")]


class SemanticRule(Config_, frozen=True):
    """What is different for the calls that match all of its patterns; the first rule that matches counts."""

    route: str = "*"
    upstream: str = "*"
    model: str = "*"
    agent: str = "*"
    tenant: str = "*"
    mode: Mode | None = None
    target: Target | None = None
    sample: Sample | None = None
    ttl: SimilarSeconds | None = None
    time_words: bool | None = None


class ModelAt(Config_, frozen=True):
    """A model of a configured upstream that speaks the API of OpenAI, called with that upstream's key."""

    upstream: Name
    model: str


class SemanticCache(Config_, frozen=True):
    """Answers to similar questions, where `exact` keeps the answer; see docs/cache-semantic.md."""

    mode: Mode = "off"  # of calls that no rule matches: shadow learns and serves nothing
    target: Target = 0.01  # tolerated share of wrong answers among those served by similarity
    sample: Sample = 0.04  # share of them that is checked upstream in the background, once enough were
    ttl: SimilarSeconds = 900  # oldest answer that is given to a similar question
    time_words: bool = False  # also questions that name a time that moves: today, latest
    embedder: Literal["local"] | ModelAt = "local"  # local: the extra `tollgate[semantic]`
    compare: Literal["text", "sense"] = "text"  # when two answers are the same: by what is written, also by embeddings
    judge: ModelAt | None = None  # decides whether two answers mean the same, where comparing them does not
    patience: Annotated[float, Meta(gt=0, le=5)] = 0.05  # seconds that a call waits for the matcher at most
    entries: Count = 50_000  # questions that are remembered on this machine
    shadow_share: Share = 0.5  # of what was saved, that checking may cost
    rules: tuple[SemanticRule, ...] = ()
