"""What the API takes and answers about limits that are set while the gateway runs."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from gateway.admin.key_views import Count, Per
from gateway.admin.views import Time, Usd

ScopeName = Literal["global", "team", "key", "agent", "model", "upstream"]
OnExceed = Literal["refuse", "clamp", "queue"]


class CapIn(Struct, kw_only=True, forbid_unknown_fields=True):
    """A budget: USD, tokens or both, per window; as `budgets` of the configuration has it."""

    usd: Annotated[float, Meta(gt=0, le=9_000_000)] | None = None
    tokens: Count | None = None
    per: Per = "month"
    rolling: bool = False
    on_exceed: OnExceed = "refuse"


class CapsIn(Struct, kw_only=True, forbid_unknown_fields=True):
    """All limits of a scope and value that are set here, in place of those before. They tighten what is configured."""

    budgets: Annotated[tuple[CapIn, ...], Meta(max_length=16)] = ()
    rpm: Annotated[Count | None, Meta(description="Requests per minute.")] = None
    tpm: Annotated[Count | None, Meta(description="Tokens per minute.")] = None
    concurrency: Annotated[Count | None, Meta(description="Calls at once.")] = None
    burst: Annotated[Count | None, Meta(description="Requests at once; default: a sixth of a minute's.")] = None
    reason: Annotated[str, Meta(max_length=500)] = ""
    by: Annotated[str, Meta(max_length=100, description="Who decides, for the audit.")] = ""


class CapView(Struct, kw_only=True):
    """A budget of a scope; null where it is not limited."""

    usd: Usd
    tokens: int | None
    per: Per
    rolling: bool
    on_exceed: OnExceed


class CapsView(Struct, kw_only=True):
    """Limits that were set together; null where there is none."""

    budgets: list[CapView]
    rpm: int | None
    tpm: int | None
    concurrency: int | None
    burst: int | None


class ScopeLimitsView(CapsView, kw_only=True):
    """What was set for one scope and value: a name, with * as wildcard; each name that matches counts by itself."""

    scope: ScopeName
    value: str
    at: Annotated[Time, Meta(description="When it was set.")]


class LimitedView(ScopeLimitsView, kw_only=True):
    """The limits after a decision. 200: every worker of this machine goes by it; 202: written, they will."""

    in_force: bool


class LimitList(Struct, kw_only=True):
    """All limits that were set here. Those of the configuration, of keys and of runs are not among them."""

    limits: list[ScopeLimitsView]
