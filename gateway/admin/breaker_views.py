"""What the admin API says of breakers; the fields are its contract."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from gateway.admin.decision_views import DecisionIn
from gateway.admin.views import Time


class BreakerView(Struct, kw_only=True):
    """One breaker: an upstream, a model at an upstream (`upstream/model`), or a tool."""

    name: str
    state: Annotated[
        Literal["closed", "open", "half_open"], Meta(description="The worst of the workers; what is forced aside.")
    ]
    forced: Annotated[Literal["open", "closed"] | None, Meta(description="Held so by a person.")]
    workers: Annotated[int, Meta(description="Workers in which it is not closed.")]
    why: str | None
    since: Annotated[Time | None, Meta(description="Its last change of state; null: it never had one.")]
    open_seconds: Annotated[float | None, Meta(description="From then on, before it is probed.")]


class BreakerList(Struct, kw_only=True):
    """Breakers that have ever opened, and those held by hand."""

    breakers: list[BreakerView]


class BreakerIn(DecisionIn, kw_only=True):
    """`auto` gives it back to what it counts."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    state: Literal["open", "closed", "auto"]
