"""The route of routes: the rules in force, and how canaries stand."""

from __future__ import annotations

from collections.abc import Collection

from aiohttp import web

from gateway.admin import params, present
from gateway.admin.problems import ApiError
from gateway.admin.route_views import ArmsView, CanaryView, RouteList, RouteView
from gateway.admin.state import STATE, answer
from gateway.config.check_routing import where, whose
from gateway.policy.canary import Decision


async def routes(request: web.Request) -> web.Response:
    state = request.app[STATE]
    params.given(request, ())
    rules = state.config().routes
    try:
        standings = await state.ask(state.canaries)
    except OSError as error:
        raise ApiError(503, "canaries_unavailable", str(error), headers={"Retry-After": "1"}) from None
    ids = [rule.canary.id if rule.canary is not None else None for rule in rules]
    return answer(
        RouteList(
            routes=[
                RouteView(rule=index, calls=whose(rule), to=where(rule), canary=ids[index])
                for index, rule in enumerate(rules)
            ],
            canaries=[_canary(standing, at, ids) for standing, at in standings],
        )
    )


def _canary(standing: Decision, at: int, ids: Collection[str | None]) -> CanaryView:
    return CanaryView(
        id=standing.canary,
        state=standing.state.value,
        reason=standing.reason or None,
        since=present.moment(at),
        configured=standing.canary in ids,
        runs=_arms(standing.runs),
        calls=_arms(standing.calls),
        evidence=standing.evidence,
        not_worse=standing.not_worse,
        counts={sign: _arms(counts) for sign, counts in standing.counts.items()},
    )


def _arms(counts: tuple[int, int]) -> ArmsView:
    return ArmsView(canary=counts[0], rest=counts[1])
