"""What the API takes and answers about decisions: kills, raised budgets, limits of runs; and the summary of a run."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from gateway.admin.limit_views import CapsView
from gateway.admin.views import Time, UsageView, Usd

Reason = Annotated[str, Meta(max_length=500, description="Told to the agent.")]
By = Annotated[str, Meta(max_length=100, description="Who decides, for the audit.")]
Value = Annotated[str, Meta(min_length=1, max_length=200)]
Amount = Annotated[float, Meta(gt=0, le=9_000_000)]
Count = Annotated[int, Meta(ge=1, le=10**12)]
ScopeName = Literal["run", "agent", "key", "team"]


class DecisionIn(Struct, kw_only=True, forbid_unknown_fields=True):
    """Why, and who says so. Both may be left out: `{}`."""

    reason: Reason = ""
    by: By = ""


class SubjectIn(DecisionIn, kw_only=True, forbid_unknown_fields=True):
    """What is to be stopped, or to go on: a run, an agent with its sub-agents, a key, a team."""

    scope: ScopeName
    value: Value


class RaiseIn(DecisionIn, kw_only=True, forbid_unknown_fields=True):
    """The budget of the run from now on, in place of the one it had: the whole of it, not what is added."""

    budget_usd: Amount


class LimitsIn(DecisionIn, kw_only=True, forbid_unknown_fields=True):
    """Limits of one run, as a whole; what is left out is not limited. They tighten what is configured."""

    budget_usd: Amount | None = None
    max_calls: Count | None = None
    max_steps: Count | None = None
    max_tools: Count | None = None
    max_minutes: Annotated[float, Meta(gt=0, le=10**7)] | None = None
    max_depth: Annotated[int, Meta(ge=0, le=10**6)] | None = None


class LimitsView(Struct, kw_only=True):
    """Limits of one run; null where there is none."""

    budget_usd: Usd
    max_calls: int | None
    max_steps: int | None
    max_tools: int | None
    max_minutes: float | None
    max_depth: int | None


class StandingView(Struct, kw_only=True):
    """What the decisions about one subject add up to."""

    scope: ScopeName | Literal["upstream"]
    value: str
    stopped: bool
    reason: str | None
    by: str | None
    since: Annotated[Time | None, Meta(description="When it was stopped.")]
    budget_usd: Annotated[float | None, Meta(description="The raised budget; null where it was not raised.")]
    limits: LimitsView | None


class DecidedView(StandingView, kw_only=True):
    """The standing after a decision. 200: every worker of this machine goes by it; 202: written, they will."""

    in_force: bool
    known: Annotated[bool | None, Meta(description="Of a run: whether a call of it was ever seen.")]


class DecisionView(Struct, kw_only=True):
    """A decision as it was taken."""

    kind: Annotated[
        str,
        Meta(
            description="kill, resume, raise, limit (of a run), cap (limits of another scope), or open, close and auto "
            "(of a breaker)."
        ),
    ]
    scope: str
    value: str
    amount_usd: Usd
    limits: LimitsView | None
    caps: Annotated[CapsView | None, Meta(description="Of cap; null: taken away.")]
    reason: str | None
    by: str | None
    at: Time


class ControlsView(Struct, kw_only=True):
    """What is stopped now, and the latest decisions; both the latest first."""

    stopped: list[StandingView]
    decisions: list[DecisionView]


class StopView(Struct, kw_only=True):
    """What a run was refused with last."""

    code: str
    message: str | None


class RunSummary(Struct, kw_only=True):
    """A run in a few figures, as `tollgate run` shows them at its end; all zero where no call was seen."""

    id: str
    calls: int
    refused: Annotated[int, Meta(description="Calls that the gateway refused; nothing was sent upstream.")]
    errors: int
    usage: UsageView
    cost_usd: Usd
    unknown_cost_calls: int
    tool_calls: int
    tool_errors: int
    saved_usd: Annotated[float, Meta(description="What prompt caching spared, by list prices; may be negative.")]
    duration_ms: float
    stopped: Annotated[StopView | None, Meta(description="Why its last model call was refused or cut by the gateway.")]
    complete: Annotated[bool, Meta(description="False while records may still be on their way.")]
