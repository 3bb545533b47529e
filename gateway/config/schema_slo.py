"""Goals of service, from which `tollgate slo generate` makes rules for Prometheus; part of gateway.config.schema."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from gateway.config.schema_base import Config_, Count

SliName = Literal["availability", "overhead", "first_token", "duration", "tools", "cache", "telemetry"]
SloName = Annotated[
    str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$", title="name of at most 63 characters (lower case, digits, _ -)")
]


class Slo(Config_, frozen=True):
    """What share of what happens in 30 days shall be good."""

    name: SloName
    sli: SliName
    objective: Annotated[float, Meta(ge=50, lt=100)]  # percent
    seconds: Annotated[float, Meta(gt=0)] | None = None  # up to which a time is good; a bound of the histogram
    match: dict[str, str] = {}  # label: its value
    least: Count = 20  # events in the longer window of an alert, below which it says nothing
    page: bool = True  # false: what burns fast is a ticket too


DEFAULTS = (
    Slo(name="availability", sli="availability", objective=99.9),
    Slo(name="overhead", sli="overhead", objective=99, seconds=0.01),
    Slo(name="first-token", sli="first_token", objective=95, seconds=5),
    Slo(name="tools", sli="tools", objective=99, page=False),
    Slo(name="cache", sli="cache", objective=99, page=False),
    Slo(name="telemetry", sli="telemetry", objective=99.9, page=False),
)
"""In force for the generator where the configuration names none."""
