"""The routes of routes: the rules in force, how canaries stand, and what was learned of targets."""

from __future__ import annotations

from collections.abc import Collection

from aiohttp import web

from gateway.admin import params, present
from gateway.admin.problems import ApiError
from gateway.admin.route_views import (
    ArmsView,
    CanaryView,
    LearnedArmView,
    LearnedList,
    LearnedView,
    RouteList,
    RouteView,
)
from gateway.admin.state import STATE, answer
from gateway.config.check_routing import where, whose
from gateway.policy.canary import Decision
from gateway.policy.selection_standing import ScopeStanding


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


async def learned(request: web.Request) -> web.Response:
    state = request.app[STATE]
    params.given(request, ())
    try:
        standings = await state.ask(state.learned)
    except OSError as error:
        raise ApiError(503, "learned_unavailable", str(error), headers={"Retry-After": "1"}) from None
    ids = {rule.learn.id for rule in state.config().routes if rule.learn is not None}
    return answer(LearnedList(scopes=[_scope(standing, at, ids) for standing, at in standings]))


def _scope(standing: ScopeStanding, at: int, ids: Collection[str]) -> LearnedView:
    return LearnedView(
        scope=standing.scope,
        configured=standing.scope.partition("|")[0] in ids,
        at=present.moment(at),
        labels=standing.labels,
        enough=standing.enough,
        ready=standing.ready,
        goal=standing.goal,
        targets=[
            LearnedArmView(
                target=arm.target,
                labels=arm.labels,
                score=arm.score,
                cost_usd=arm.cost,
                calls=arm.calls,
                withheld=arm.withheld,
            )
            for arm in standing.arms
        ],
        why=standing.why,
        weight=standing.weight,
        best=standing.best,
        quality=standing.quality,
        cost=standing.cost,
        fault=standing.fault or None,
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
