"""The routes that set limits of a scope while the gateway runs: kept like kills, and in force within a second.

They stand beside what is configured and can only tighten it. Limits of a run are at /api/runs/{id}/limits, those of a
key that come with it are part of the key.
"""

from __future__ import annotations

from typing import Any, get_args

from aiohttp import web

from gateway.admin import params, present
from gateway.admin.decide import in_force, unavailable
from gateway.admin.limit_views import CapsIn, LimitedView, LimitList, ScopeLimitsView, ScopeName
from gateway.admin.problems import ApiError, bad_parameter, not_found
from gateway.admin.state import STATE, answer
from gateway.policy.controls import Cap, Caps, Decision, Kind, Scope, Standing

SCOPES: tuple[str, ...] = get_args(ScopeName)
LONGEST = 200


async def limits(request: web.Request) -> web.Response:
    state = request.app[STATE]
    params.given(request, ())
    try:
        found = await state.ask(state.decisions.capped)
    except OSError as error:
        raise unavailable(error) from None
    return answer(LimitList(limits=[ScopeLimitsView(**fields_of(standing)) for standing in found]))


async def limit(request: web.Request) -> web.Response:
    params.given(request, ())
    return answer(ScopeLimitsView(**fields_of(await _standing(request))))


async def set_limit(request: web.Request) -> web.Response:
    given = await params.body_of(request, CapsIn)
    caps = _caps(given)
    if caps == Caps(burst=caps.burst):
        raise ApiError(400, "bad_body", "nothing is limited by this; DELETE takes limits away", parameter="body")
    return await _decide(request, caps, given.reason.strip(), given.by.strip())


async def remove_limit(request: web.Request) -> web.Response:
    said = params.given(request, ("reason", "by"))
    await _standing(request)
    return await _decide(request, None, said.get("reason", "").strip(), said.get("by", "").strip())


def fields_of(standing: Standing) -> dict[str, Any]:
    """The fields of ScopeLimitsView."""
    told = {"scope": str(standing.scope), "value": standing.value, "at": present.moment(standing.at)}
    return {**told, **present.caps_fields(standing.caps or Caps())}


async def _decide(request: web.Request, caps: Caps | None, reason: str, who: str) -> web.Response:
    state, (scope, value) = request.app[STATE], _subject(request)
    decision = Decision(Kind.CAP, scope, value, reason=reason, who=who, at=state.now(), caps=caps)
    try:
        standing = await state.ask(lambda: state.decisions.record(decision))
    except OSError as error:
        raise unavailable(error) from None
    state.event(f"{scope}_capped", {"value": value, "by": who, "reason": reason, "removed": caps is None})
    taken = await in_force(state, standing.revision)
    return answer(LimitedView(**fields_of(standing), in_force=taken), 200 if taken else 202)


async def _standing(request: web.Request) -> Standing:
    """Raises ApiError where nothing is set."""
    state, (scope, value) = request.app[STATE], _subject(request)
    try:
        standing = await state.ask(lambda: state.decisions.standing(scope, value))
    except OSError as error:
        raise unavailable(error) from None
    if standing is None or standing.caps is None:
        raise not_found("limit_not_found", f"no limit is set here for {scope} {value[:100]!r}")
    return standing


def _subject(request: web.Request) -> tuple[Scope, str]:
    scope, value = request.match_info["scope"], request.match_info["value"]
    if scope == "run":
        raise bad_parameter("scope", "limits of a run are set with PUT /api/runs/{id}/limits")
    if scope not in SCOPES:
        raise bad_parameter("scope", f"expected one of {', '.join(SCOPES)}")
    if scope == "global" and value != "*":
        raise bad_parameter("value", "the global scope has one value: *")
    if len(value) > LONGEST:
        raise bad_parameter("value", f"longer than {LONGEST} characters")
    return Scope(scope), value


def _caps(given: CapsIn) -> Caps:
    budgets = []
    for one in given.budgets:
        if one.usd is None and one.tokens is None:
            raise ApiError(400, "bad_body", "a budget limits usd, tokens or both", parameter="body")
        usd = None if one.usd is None else params.nano(one.usd)
        budgets.append(Cap(usd, one.tokens, one.per, one.rolling and one.per != "life", one.on_exceed))
    return Caps(tuple(budgets), given.rpm, given.tpm, given.concurrency, given.burst)
