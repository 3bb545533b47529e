"""What the API answers about the cache."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from gateway.call import PICO_USD
from gateway.ports import MatcherState, ScopeState

Hits = Annotated[int, Meta(description="Times that they were given again, as far as written down: a few seconds late.")]
Bytes = Annotated[int, Meta(description="On disk.")]


class CacheGroupView(Struct, kw_only=True):
    """Stored answers of one tenant, route and model together."""

    tenant: str
    route: str
    model: Annotated[str, Meta(description="Of outputs of tools: the tool.")]
    entries: int
    bytes: Bytes
    hits: Hits


class CacheView(Struct, kw_only=True):
    """Stored answers that are still good; the largest groups of them."""

    entries: int
    bytes: Bytes
    hits: Hits
    groups: list[CacheGroupView]


class ClearedView(Struct, kw_only=True):
    """How many answers were forgotten."""

    cleared: int


class SemanticScopeView(Struct, kw_only=True):
    """What is known of the answers to similar questions of one tenant, agent and model."""

    scope: str
    tenant: str
    mode: Literal["shadow", "serve"]
    target: Annotated[float, Meta(description="Share of wrong answers that is tolerated.")]
    status: Annotated[
        Literal["serving", "shadow", "learning", "tripped"],
        Meta(description="tripped: too many were wrong, so none are given until new evidence; learning: too little."),
    ]
    why: Annotated[str, Meta(description="Why nothing is given; empty where something is.")]
    cut: Annotated[float | None, Meta(description="Chance of being right from which on answers are given.")]
    labels: Annotated[int, Meta(description="Answers that were compared with fresh ones.")]
    verified: Annotated[int, Meta(description="Of those, hits, and would-be hits while it only learns.")]
    wrong: int
    wrong_share: Annotated[float | None, Meta(description="Estimated from the sample; null while nothing is known.")]
    wrong_lower: Annotated[float, Meta(description="Lower end of the interval of 95 %.")]
    wrong_upper: float
    hits: int
    would_be_hits: Annotated[int, Meta(description="While it only learned.")]
    reported_wrong: int
    saved_usd: float
    shadow_cost_usd: Annotated[float, Meta(description="Of the calls that checked hits.")]
    trips: Annotated[int, Meta(description="Times that it fell back to equal questions by itself.")]
    questions: int


class SemanticView(Struct, kw_only=True):
    """The cache of similar questions."""

    embedder: Annotated[str | None, Meta(description="What tells how alike questions are; null while nothing does.")]
    trouble: Annotated[str, Meta(description="Why not.")]
    questions: int
    lessons_waiting: int
    dropped: Annotated[int, Meta(description="Questions and lessons that were too many.")]
    scopes: list[SemanticScopeView]


class FeedbackIn(Struct, kw_only=True, forbid_unknown_fields=True):
    """What somebody says of an answer: by the id of the call that was given it, or by the name of the answer itself."""

    verdict: Literal["right", "wrong"]
    request_id: Annotated[str, Meta(max_length=64)] = ""
    entry: Annotated[str, Meta(max_length=64)] = ""


class FeedbackView(Struct, kw_only=True):
    """What came of it."""

    hits: Annotated[int, Meta(description="Answers to similar questions that it was about.")]
    cleared: Annotated[int, Meta(description="Stored answers that were forgotten.")]
    scopes: list[str]


def semantic_view(state: MatcherState) -> SemanticView:
    return SemanticView(
        embedder=state.embedder or None,
        trouble=state.trouble,
        questions=state.entries,
        lessons_waiting=state.waiting,
        dropped=state.dropped,
        scopes=[scope_view(scope) for scope in sorted(state.scopes, key=_labels, reverse=True)],
    )


def scope_view(scope: ScopeState) -> SemanticScopeView:
    status, why = status_of(scope)
    return SemanticScopeView(
        scope=scope.scope,
        tenant=scope.tenant,
        mode="serve" if scope.mode == "serve" else "shadow",
        target=scope.target,
        status=status,
        why=why,
        cut=scope.cut if scope.cut <= 1 else None,
        labels=scope.labels,
        verified=scope.verified,
        wrong=scope.wrong,
        wrong_share=scope.share if scope.verified else None,
        wrong_lower=scope.lower,
        wrong_upper=scope.upper,
        hits=scope.hits,
        would_be_hits=scope.would,
        reported_wrong=scope.reported,
        saved_usd=scope.saved / PICO_USD,
        shadow_cost_usd=scope.shadow_cost / PICO_USD,
        trips=scope.trips,
        questions=scope.entries,
    )


def status_of(scope: ScopeState) -> tuple[Literal["serving", "shadow", "learning", "tripped"], str]:
    if scope.tripped:
        return "tripped", f"more than {scope.target:.2%} of the answers were wrong beyond doubt; it learns anew"
    if scope.cut > 1:
        return "learning", f"{scope.labels} compared answers do not show yet that at most {scope.target:.2%} are wrong"
    if scope.mode != "serve":
        return "shadow", "the mode is shadow"
    return "serving", ""


def _labels(scope: ScopeState) -> int:
    return scope.labels
