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
