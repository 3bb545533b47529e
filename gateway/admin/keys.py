"""The routes of virtual keys. Who holds the admin token may make any key; one made under a parent stays within it.

A change is on disk when it is answered, and workers take it in within a second. A secret is in one answer and nowhere
else: neither in the journal nor in a log.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from aiohttp import web

from gateway.admin import params, present
from gateway.admin.key_views import DisableIn, KeyBudgetView, KeyIn, KeyList, KeySecretView, KeyView, RotateIn
from gateway.admin.problems import ApiError, not_found
from gateway.admin.state import STATE, KeyStore, answer
from gateway.key import Key, KeyBudget
from gateway.policy.key_rules import KeyRefused
from gateway.spend import NANO_USD

T = TypeVar("T")
SECOND = 10**9
_OPERATIONS = Key(id="").operations


async def keys(request: web.Request) -> web.Response:
    params.given(request, ())
    listed = await _asked(request, lambda store: store.listed())
    now = request.app[STATE].now()
    return answer(KeyList(keys=[KeyView(**_fields(key, now)) for key in listed]))


async def key(request: web.Request) -> web.Response:
    params.given(request, ())
    id = request.match_info["id"]
    found = await _asked(request, lambda store: store.get(id))
    return answer(KeyView(**_fields(found, request.app[STATE].now())))


async def create_key(request: web.Request) -> web.Response:
    given = await params.body_of(request, KeyIn)
    now = request.app[STATE].now()
    wanted = _wanted(given, now)
    made, secret = await _asked(request, lambda store: store.create(wanted, given.by.strip()))
    return answer(KeySecretView(**_fields(made, now), secret=secret), 201, {"Location": f"/api/keys/{made.id}"})


async def rotate_key(request: web.Request) -> web.Response:
    given, id = await params.body_of(request, RotateIn), request.match_info["id"]
    overlap = given.overlap_seconds * SECOND
    rotated, secret = await _asked(request, lambda store: store.rotate(id, overlap, given.by.strip()))
    return answer(KeySecretView(**_fields(rotated, request.app[STATE].now()), secret=secret))


async def disable_key(request: web.Request) -> web.Response:
    given, id = await params.body_of(request, DisableIn), request.match_info["id"]
    disabled = await _asked(request, lambda store: store.disable(id, given.by.strip(), given.reason.strip()))
    return answer(KeyView(**_fields(disabled, request.app[STATE].now())))


async def _asked(request: web.Request, what: Callable[[KeyStore], T]) -> T:
    """What the store says, or why it does not. A secret in `what` is never part of an error."""
    state = request.app[STATE]
    try:
        return await state.ask(lambda: what(state.keys))
    except KeyError:
        raise not_found("key_not_found", f"there is no key {request.match_info['id'][:100]!r}") from None
    except KeyRefused as refusal:
        raise ApiError(409, "key_refused", str(refusal), parameter=refusal.field or None) from None
    except OSError as error:
        raise ApiError(503, "keys_unavailable", str(error), headers={"Retry-After": "1"}) from None


def _wanted(given: KeyIn, now: int) -> Key:
    budgets = [
        KeyBudget(
            usd=None if budget.usd is None else params.nano(budget.usd),
            tokens=budget.tokens,
            per=budget.per,
            rolling=budget.rolling,
        )
        for budget in given.budgets
    ]
    return Key(
        id="",
        name=given.name,
        team=given.team,
        models=tuple(given.models),
        upstreams=tuple(given.upstreams),
        tools=tuple(given.tools),
        operations=_OPERATIONS if given.operations is None else tuple(given.operations),
        expires_at=0 if given.expires_in_seconds is None else now + given.expires_in_seconds * SECOND,
        budgets=tuple(budgets),
        rpm=given.rpm,
        tpm=given.tpm,
        concurrency=given.concurrency,
        burst=given.burst,
        may_limit_runs=given.may_limit_runs,
        parent=given.parent,
        metadata=given.metadata,
    )


def _fields(key: Key, now: int) -> dict[str, Any]:
    """The fields of KeyView."""
    expired = 0 < key.expires_at <= now
    return {
        "id": key.id,
        "name": key.name,
        "team": key.team or None,
        "prefix": key.prefix,
        "state": "disabled" if key.disabled_at else "expired" if expired else "active",
        "created_at": present.moment(key.created_at),
        "expires_at": present.moment(key.expires_at) if key.expires_at else None,
        "disabled_at": present.moment(key.disabled_at) if key.disabled_at else None,
        **{name: list(getattr(key, name)) for name in ("models", "upstreams", "tools", "operations")},
        "budgets": [
            KeyBudgetView(
                usd=None if budget.usd is None else budget.usd / NANO_USD,
                tokens=budget.tokens,
                per=budget.per,
                rolling=budget.rolling,
            )
            for budget in key.budgets
        ],
        **{name: getattr(key, name) for name in ("rpm", "tpm", "concurrency", "burst", "may_limit_runs", "metadata")},
        "parent": key.parent or None,
    }
