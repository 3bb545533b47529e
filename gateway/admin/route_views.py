"""What the admin API says of routes and canaries; the fields are its contract."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from gateway.admin.views import Time


class ArmsView(Struct, kw_only=True):
    """The canary, and what it would replace."""

    canary: int
    rest: int


class CanaryView(Struct, kw_only=True):
    """One canary. Evidence is capital won by bets that begin with 1: 100 that it is worse takes it back."""

    id: str
    state: Literal["running", "promoted", "rolled_back"]
    reason: Annotated[str | None, Meta(description="Of a decision.")]
    since: Annotated[Time, Meta(description="Of the decision; of one that runs, when it was last written down.")]
    configured: bool
    runs: ArmsView
    calls: ArmsView
    evidence: Annotated[dict[str, float], Meta(description="That it is worse, by sign; `all`: of all together.")]
    not_worse: Annotated[float, Meta(description="Evidence that it does not fail more often.")]
    counts: Annotated[dict[str, ArmsView], Meta(description="Runs that showed a sign.")]


class RouteView(Struct, kw_only=True):
    """One rule."""

    rule: Annotated[int, Meta(description="Its place in the configuration, as records have it in `notes.route`.")]
    calls: Annotated[str, Meta(description="For whom it is.")]
    to: Annotated[str, Meta(description="Where they go.")]
    canary: Annotated[str | None, Meta(description="Id of its canary.")]


class RouteList(Struct, kw_only=True):
    """The rules in force, and every canary that was ever seen."""

    routes: list[RouteView]
    canaries: list[CanaryView]


class LearnedArmView(Struct, kw_only=True):
    """One target of a scope."""

    target: str
    labels: Annotated[float, Meta(description="Their weight: a report on a run is one, a sign less.")]
    score: Annotated[float | None, Meta(description="Mean of its labels, 0 to 1.")]
    cost_usd: Annotated[float | None, Meta(description="Of a usual call; null: it has no price.")]
    calls: Annotated[int, Meta(description="Sent to it since the recorder began.")]
    withheld: Annotated[float, Meta(description="Share of its answers for which a cascade asked the next target.")]


class LearnedView(Struct, kw_only=True):
    """One scope. What is expected is null before there are `enough` labels: until then no saving is claimed."""

    scope: str
    configured: bool
    at: Annotated[Time, Meta(description="When this was written down.")]
    labels: float
    enough: int
    ready: bool
    goal: dict[str, float]
    targets: list[LearnedArmView]
    why: Annotated[dict[str, int], Meta(description="Calls by how they were decided, since the recorder began.")]
    weight: Annotated[float | None, Meta(description="Of cost, in the choice of the highest score less that.")]
    best: Annotated[str | None, Meta(description="The single target that is best.")]
    quality: Annotated[float | None, Meta(description="Expected, as a share of that target's.")]
    cost: Annotated[float | None, Meta(description="Expected, as a share of that target's.")]
    fault: Annotated[str | None, Meta(description="Of the labelled file.")]


class LearnedList(Struct, kw_only=True):
    """Every scope that was ever learned in."""

    scopes: list[LearnedView]
