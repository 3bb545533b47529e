"""Pools of calls: how full each is, now."""

from __future__ import annotations

from aiohttp import web

from gateway.admin import params
from gateway.admin.bulkhead_views import BulkheadList, BulkheadView
from gateway.admin.state import STATE, answer
from gateway.recorder.bulkhead_gauges import LEVEL, pools


async def bulkheads(request: web.Request) -> web.Response:
    state = request.app[STATE]
    params.given(request, ())
    rules, found = state.config().bulkheads, await state.ask(state.workers)
    known = pools(found, rules)
    return answer(
        BulkheadList(
            bulkheads=[
                BulkheadView(
                    name=name,
                    each=rule.each,
                    in_flight=known[name].in_flight,
                    waiting=known[name].waiting,
                    limit=known[name].limit,
                    max=rule.max,
                    queue=rule.queue,
                    wait_seconds=rule.wait,
                    adaptive=rule.adaptive,
                )
                for name, rule in rules.items()
            ],
            overload_level=int(max((one.get(LEVEL, 0.0) for one in found), default=0.0)),
        )
    )
