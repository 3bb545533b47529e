"""What the live figures are: spending now, what is the matter, who spends. The page and `tollgate top` show them."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from gateway.admin.views import RunView, Time, Usd


class SpendView(Struct, kw_only=True):
    """A window of the calendar, in the time zone of budgets, so far."""

    cost_usd: Annotated[Usd, Meta(description="So far; null: not known (yet).")]
    projected_usd: Annotated[Usd, Meta(description="By its end, at the pace of late; null: not known.")]
    unknown_cost_calls: int
    calls: int
    since: Time
    until: Time


class SumsView(Struct, kw_only=True):
    """Sums over calls. `faults`: calls that a model or the gateway failed; neither refused, nor the client's own."""

    calls: int
    refused: int
    faults: int
    cost_usd: Usd
    unknown_cost_calls: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    from_cache: Annotated[int, Meta(description="Calls that were answered from the cache.")]
    tool_calls: int


class SpenderView(SumsView, kw_only=True):
    """An agent, a model or a tenant. `name` is null for calls of which it is not known."""

    name: str | None


class SpenderList(Struct, kw_only=True):
    """Who spent what, the dearest first, of calls begun since then."""

    by: Literal["agent", "model", "tenant"]
    range: Literal["today", "24h", "7d", "30d"]
    since: Time
    complete: Annotated[bool, Meta(description="false: earlier calls are still being read; ask again.")]
    spenders: list[SpenderView]


class SeriesView(Struct, kw_only=True):
    """Calls by when they began: `step` seconds each, the first from `start` (seconds since the epoch) on."""

    start: int
    step: int
    cost_usd: list[float]
    calls: list[int]
    faults: list[int]


class DayView(Struct, kw_only=True):
    """What a day came to."""

    day: Annotated[str, Meta(description="Its date in the time zone of budgets.")]
    cost_usd: Usd


class BurnView(Struct, kw_only=True):
    """How fast the allowance of the objective is used up, in two windows at once."""

    severity: Literal["page", "ticket"]
    threshold: float
    rate: Annotated[float | None, Meta(description="Of the window that burns slower; null: too few calls.")]
    firing: bool


class SloView(Struct, kw_only=True):
    """Availability of models: answered calls of those that should have been."""

    objective: float
    availability: Annotated[float | None, Meta(description="Of the last 24 hours; null: too few calls.")]
    burns: list[BurnView]


class ConditionView(Struct, kw_only=True):
    """Something that is the matter now."""

    kind: Annotated[str, Meta(description="Stable.")]
    severity: Literal["critical", "warning", "info"]
    subject: Annotated[str | None, Meta(description="What it is about; null: the gateway itself.")]
    text: str
    since: Time | None
    run: Annotated[str | None, Meta(description="Of a run: its id.")]


class SummaryView(Struct, kw_only=True):
    """How things stand now."""

    at: Time
    version: str
    timezone: str
    listen: Annotated[str, Meta(description="Address of the data port.")]
    hour: SpendView
    day: SpendView
    month: SpendView
    today: SumsView
    last_hour: SumsView
    calls_per_second: Annotated[float, Meta(description="Calls of the last two minutes, by when they began.")]
    inflight: int
    workers_ready: int
    workers: int
    lag_seconds: float
    slo: SloView
    conditions: list[ConditionView]
    minutes: Annotated[SeriesView, Meta(description="The last 60 minutes.")]
    tens: Annotated[SeriesView, Meta(description="The last 24 hours, by ten minutes.")]
    days: Annotated[list[DayView], Meta(description="The days before today, the oldest first.")]
    agents: Annotated[list[SpenderView], Meta(description="The dearest today.")]
    models: Annotated[list[SpenderView], Meta(description="The dearest today.")]


class ChangedRuns(Struct, kw_only=True):
    """Runs with calls that came in since the event before. `more`: not all of them are here; ask again for any."""

    runs: list[RunView]
    more: bool
