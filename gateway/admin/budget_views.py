"""What the API takes and answers about budgets: accounts, and what people adjust by hand."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from gateway.admin.views import AccountView, Next, Time

AccountName = Annotated[str, Meta(min_length=1, max_length=1000, description="As /api/budgets names it.")]
Dollars = Annotated[float, Meta(ge=-9_000_000, le=9_000_000)]


class BudgetPage(Struct, kw_only=True):
    """Accounts that calls have asked for, by name. One that no call has met yet has no account."""

    budgets: list[AccountView]
    next: Next


class AdjustIn(Struct, kw_only=True, forbid_unknown_fields=True):
    """What is to be booked by hand: of an account in USD `delta_usd`, of another `delta`. Negative: credit."""

    account: AccountName
    delta_usd: Dollars | None = None
    delta: Annotated[int, Meta(ge=-(10**15), le=10**15)] | None = None
    reason: Annotated[str, Meta(max_length=500)] = ""
    by: Annotated[str, Meta(max_length=100, description="Who does it, for the audit.")] = ""
    id: Annotated[
        str,
        Meta(
            max_length=64,
            pattern=r"^[A-Za-z0-9_.:-]*$",
            description="Of this adjustment: sent again, it is booked once. Default: a new one.",
        ),
    ] = ""


class AdjustmentView(Struct, kw_only=True):
    """What was booked by hand: in USD or in the unit of its account."""

    id: str
    account: str
    delta_usd: float | None
    delta: int | None
    reason: str | None
    by: str | None
    at: Time


class AdjustedView(Struct, kw_only=True):
    """An adjustment, and how its account stands now. `repeated`: it had been booked before, and was not again."""

    adjustment: AdjustmentView
    account: AccountView
    repeated: bool


class AdjustmentList(Struct, kw_only=True):
    """Adjustments, the latest first."""

    adjustments: list[AdjustmentView]
