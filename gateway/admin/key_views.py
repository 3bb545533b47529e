"""What the API takes and answers about virtual keys. No view has a digest, and one alone a secret."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from gateway.admin.views import Time, Usd

By = Annotated[str, Meta(max_length=100, description="Who does it, for the audit.")]
Pattern = Annotated[str, Meta(min_length=1, max_length=200)]
Patterns = Annotated[
    tuple[Pattern, ...], Meta(max_length=100, description="Names; * stands for any characters. []: none.")
]
Count = Annotated[int, Meta(ge=1, le=10**12)]
Per = Literal["minute", "hour", "day", "week", "month", "life"]


class KeyBudgetIn(Struct, kw_only=True, forbid_unknown_fields=True):
    """A budget that comes with a key: USD, tokens or both, per window."""

    usd: Annotated[float, Meta(gt=0, le=9_000_000)] | None = None
    tokens: Count | None = None
    per: Per = "month"
    rolling: bool = False


class KeyIn(Struct, kw_only=True, forbid_unknown_fields=True):
    """A key to be made. What is left out is not limited, but for operations the gateway does not look into."""

    name: Annotated[str, Meta(max_length=64, description="Unique; default: its id.")] = ""
    team: Annotated[str, Meta(max_length=64, description="The tenant of its calls.")] = ""
    models: Patterns = ("*",)
    upstreams: Patterns = ("*",)
    tools: Patterns = ("*",)
    operations: Patterns | None = None
    expires_in_seconds: Annotated[int, Meta(ge=1, le=10**9)] | None = None
    budgets: Annotated[list[KeyBudgetIn], Meta(max_length=16)] = []
    rpm: Count | None = None
    tpm: Count | None = None
    concurrency: Count | None = None
    burst: Count | None = None
    may_limit_runs: bool = True
    parent: Annotated[str, Meta(max_length=64, description="Name or id of a key whose rights this stays within.")] = ""
    metadata: dict[str, str] = {}
    by: By = ""


class RotateIn(Struct, kw_only=True, forbid_unknown_fields=True):
    """How long the secret before stays good."""

    overlap_seconds: Annotated[int, Meta(ge=0, le=31_536_000)] = 0
    by: By = ""


class DisableIn(Struct, kw_only=True, forbid_unknown_fields=True):
    """Why, and who says so."""

    reason: Annotated[str, Meta(max_length=500)] = ""
    by: By = ""


class KeyBudgetView(Struct, kw_only=True):
    """A budget of a key; null where it is not limited."""

    usd: Usd
    tokens: int | None
    per: Per
    rolling: bool


class KeyView(Struct, kw_only=True):
    """A virtual key, without its secret."""

    id: str
    name: str
    team: str | None
    prefix: Annotated[str, Meta(description="How its secret begins.")]
    state: Literal["active", "expired", "disabled"]
    created_at: Time
    expires_at: Time | None
    disabled_at: Time | None
    models: list[str]
    upstreams: list[str]
    tools: list[str]
    operations: list[str]
    budgets: list[KeyBudgetView]
    rpm: int | None
    tpm: int | None
    concurrency: int | None
    burst: int | None
    may_limit_runs: bool
    parent: str | None
    metadata: dict[str, str]


class KeySecretView(KeyView, kw_only=True):
    """A virtual key and its secret, which is shown this once."""

    secret: str


class KeyList(Struct, kw_only=True):
    """All virtual keys; the one changed last comes last."""

    keys: list[KeyView]
