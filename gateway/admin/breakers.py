"""The routes of breakers: how they stand, and holding one open or closed by hand.

How they stand is what the workers wrote into the journal at each change of state. What is forced is kept like kills: it
outlives restarts, holds on every worker within a second, and on every machine that shares a Redis.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from sqlite3 import Row
from typing import Any

import msgspec
from aiohttp import web

from gateway.admin import params, present
from gateway.admin.breaker_views import BreakerIn, BreakerList, BreakerView
from gateway.admin.decide import decided, unavailable
from gateway.admin.state import STATE, answer
from gateway.policy.controls import Kind, Scope, Standing

KINDS = {"open": Kind.OPEN, "closed": Kind.CLOSE, "auto": Kind.AUTO}
READ = 2000  # changes of state looked back on
RANK = {"closed": 0, "half_open": 1, "open": 2}


async def breakers(request: web.Request) -> web.Response:
    state = request.app[STATE]
    params.given(request, ())
    try:
        rows = await state.ask(lambda: state.ledger.breakers(READ))
        forced = await state.ask(state.decisions.forced)
    except OSError as error:
        raise unavailable(error) from None
    return answer(BreakerList(breakers=standing(rows, forced)))


async def force_breaker(request: web.Request) -> web.Response:
    given = await params.body_of(request, BreakerIn)
    return await decided(request, KINDS[given.state], given, Scope.UPSTREAM, given.name)


def standing(rows: Sequence[Row], forced: Iterable[Standing]) -> list[BreakerView]:
    """`rows`: changes of state and resets, the latest first."""
    gone: set[int] = set()  # workers that began anew since
    seen: set[tuple[int, str]] = set()
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        worker, detail = row["worker"], msgspec.json.decode(row["detail"])
        if row["kind"] != "breaker":
            gone.add(worker)
            continue
        name = detail["breaker"]
        if worker in gone or (worker, name) in seen:
            continue
        seen.add((worker, name))
        _join(found, name, row["at"], detail)
    for one in forced:
        found.setdefault(one.value, _nothing(one.value))["forced"] = one.forced
    return [BreakerView(**found[name]) for name in sorted(found)]


def _nothing(name: str) -> dict[str, Any]:
    return {
        **{"name": name, "state": "closed", "forced": None, "workers": 0},
        **{"why": None, "since": None, "open_seconds": None},
    }


def _join(found: dict[str, dict[str, Any]], name: str, at: int, detail: dict[str, Any]) -> None:
    state = detail["state"]
    one = found.setdefault(name, _nothing(name))
    one["workers"] += state != "closed"
    if one["since"] is None or RANK[state] > RANK[one["state"]]:
        one |= {"state": state, "why": detail["why"] or None, "since": present.moment(at)}
        one["open_seconds"] = detail["seconds"] if state == "open" else None
