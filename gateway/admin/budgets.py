"""The routes of budgets: how accounts stand, and what people book by hand.

An adjustment is in the store of budgets when it is answered, and in the journal as an event; workers go by it with
their next reservation. The store is asked, not the ledger: the ledger is what was spent, the store what is granted on.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from aiohttp import web

from gateway.admin import params, present
from gateway.admin.budget_views import AdjustedView, AdjustIn, AdjustmentList, AdjustmentView, BudgetPage
from gateway.admin.problems import ApiError, bad_parameter, not_found
from gateway.admin.state import STATE, AdminState, answer
from gateway.admin.views import AccountView, RunBudgetView
from gateway.errors import BudgetsUnavailable
from gateway.policy.account_names import named, parse
from gateway.policy.limits import SCOPES
from gateway.spend import NANO_USD, Adjustment, Standing, Unit

OF_A_RUN = 100
LOOKED_BACK = 1000  # adjustments among which an id is looked for, to say that it was there before


async def budgets(request: web.Request) -> web.Response:
    state = request.app[STATE]
    values = params.given(request, ("scope", "prefix", "over", *params.PAGE))
    limit, after = params.limit(values), params.cursor(values)
    scope = params.choice(values, "scope", SCOPES) if "scope" in values else ""
    prefix, over = _prefix(scope, values.get("prefix", "")), params.flag(values, "over")
    found = await state.ask(
        lambda: state.budgets.under(prefix, limit + 1, after=after[1] if after is not None else "", over=over)
    )
    following = params.next_cursor(0, found[limit - 1].account) if len(found) > limit else None
    return answer(BudgetPage(budgets=[account_view(standing) for standing in found[:limit]], next=following))


async def adjust_budget(request: web.Request) -> web.Response:
    state, given = request.app[STATE], await _body(request)
    known = await state.ask(lambda: state.budgets.levels([given.account]))
    if not known:
        raise not_found("account_not_found", f"no call has met an account {given.account[:200]!r} yet")
    made = _made(given, known[0], state)
    before = await state.ask(
        lambda: next((one for one in state.budgets.adjustments(LOOKED_BACK) if one.id == made.id), None)
    )
    if before is not None and (before.account, before.delta) != (made.account, made.delta):
        raise ApiError(409, "id_used", f"another adjustment was made under the id {made.id!r}", parameter="id")
    try:
        await state.budgets.adjust(made.id, made.account, made.delta, made.reason, made.who)
    except ValueError as error:
        raise ApiError(409, "not_adjustable", str(error), parameter="account") from None
    if before is None:
        state.event("budget_adjusted", {"id": made.id, "account": made.account, **_delta(made), **_why(made)})
    (standing,) = await state.ask(lambda: state.budgets.levels([made.account]))
    view = AdjustedView(
        adjustment=adjustment_view(before or made), account=account_view(standing), repeated=before is not None
    )
    return answer(view, 200 if before is not None else 201)


async def adjustments(request: web.Request) -> web.Response:
    state = request.app[STATE]
    limit = params.limit(params.given(request, ("limit",)))
    found = await state.ask(lambda: state.budgets.adjustments(limit))
    return answer(AdjustmentList(adjustments=[adjustment_view(one) for one in found]))


async def run_budget(state: AdminState, run_id: str) -> RunBudgetView | None:
    """How a run stands with its own limits; None where it has none, or the store cannot say."""
    try:
        found = await state.ask(lambda: state.budgets.under(f"run:{named(run_id)}|", OF_A_RUN, over=False))
    except BudgetsUnavailable:
        return None
    return _of_run(found) if found else None


def account_view(standing: Standing) -> AccountView:
    name = parse(standing.account)
    return AccountView(
        account=standing.account,
        scope=name.scope,
        value=name.value or None,
        within_key=name.within,
        unit=standing.unit,
        rule=standing.rule,
        per=name.per or None,
        limit=amount(standing.limit, standing.unit),
        spent=amount(standing.spent, standing.unit),
        reserved=amount(standing.reserved, standing.unit),
        remaining=amount(left(standing), standing.unit),
        resets_at=present.moment(standing.resets_at) if standing.resets_at else None,
        label=standing.label or None,
    )


def left(standing: Standing) -> int:
    """Beside what is spent and reserved."""
    return max(0, standing.limit - standing.spent - standing.reserved)


def amount(count: int, unit: Unit) -> float:
    return count / NANO_USD if unit is Unit.USD else count


def adjustment_view(made: Adjustment) -> AdjustmentView:
    in_money = parse(made.account).unit == Unit.USD
    return AdjustmentView(
        id=made.id,
        account=made.account,
        delta_usd=made.delta / NANO_USD if in_money else None,
        delta=None if in_money else made.delta,
        reason=made.reason or None,
        by=made.who or None,
        at=present.moment(made.at),
    )


def _of_run(found: Sequence[Standing]) -> RunBudgetView:
    money = min((one for one in found if one.unit is Unit.USD), key=left, default=None)
    least: dict[Unit, int] = {}
    for one in found:
        least[one.unit] = min(left(one), least.get(one.unit, left(one)))
    return RunBudgetView(
        limit_usd=None if money is None else money.limit / NANO_USD,
        spent_usd=None if money is None else money.spent / NANO_USD,
        reserved_usd=None if money is None else money.reserved / NANO_USD,
        remaining_usd=None if money is None else left(money) / NANO_USD,
        calls_left=least.get(Unit.CALLS),
        steps_left=least.get(Unit.STEPS),
        tools_left=least.get(Unit.TOOLS),
        seconds_left=least.get(Unit.SECONDS),
        accounts=[account_view(one) for one in found],
    )


def _prefix(scope: str, prefix: str) -> str:
    if not scope:
        return prefix
    of_scope = "global|" if scope == "global" else f"{scope}:"
    if prefix and not prefix.startswith(of_scope):
        raise bad_parameter("prefix", f"accounts of this scope begin with {of_scope}")
    return prefix or of_scope


async def _body(request: web.Request) -> AdjustIn:
    params.given(request, ())
    if request.content_type != "application/json":
        raise ApiError(415, "unsupported_media_type", "send application/json")
    try:
        return msgspec.json.decode(await request.read(), type=AdjustIn)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, "bad_body", str(error), parameter="body") from None


def _made(given: AdjustIn, standing: Standing, state: AdminState) -> Adjustment:
    in_money = standing.unit is Unit.USD
    wanted, other = ("delta_usd", given.delta) if in_money else ("delta", given.delta_usd)
    stated = given.delta_usd if in_money else given.delta
    if stated is None or other is not None:
        raise bad_parameter(wanted, f"an account in {standing.unit} is adjusted by {wanted}, and by that alone")
    delta = round(stated * NANO_USD) if in_money else int(stated)
    if not delta:
        raise bad_parameter(wanted, "nothing is booked")
    return Adjustment(
        given.id or state.new_id(), state.now(), given.account, delta, given.reason.strip(), given.by.strip()
    )


def _delta(made: Adjustment) -> dict[str, str | int | float | bool]:
    in_money = parse(made.account).unit == Unit.USD
    return {"delta_usd": made.delta / NANO_USD} if in_money else {"delta": made.delta}


def _why(made: Adjustment) -> dict[str, str | int | float | bool]:
    return {"reason": made.reason, "by": made.who}
