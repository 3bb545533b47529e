"""Pools of calls: how full each is, now."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from gateway.admin import params
from gateway.admin.bulkhead_views import BulkheadList, BulkheadView, WorkerShare
from gateway.admin.state import STATE, answer
from gateway.config.schema_bulkheads import Bulkhead
from gateway.recorder.bulkhead_gauges import LEVEL, PoolFigures, pools


async def bulkheads(request: web.Request) -> web.Response:
    state = request.app[STATE]
    params.given(request, ())
    rules, gauges = state.config().bulkheads, await state.ask(state.gauges)
    found = {int(name[1:]): one for name, one in gauges.items() if name[0] == "w" and name[1:].isdecimal()}
    known = pools(list(found.values()), rules)
    shares = {number: pools([found[number]], rules) for number in sorted(found)}
    refused = state.refused()
    return answer(
        BulkheadList(
            bulkheads=[
                _view(
                    name,
                    rule,
                    known[name],
                    {why: count for (pool, why), count in sorted(refused.items()) if pool == name},
                    {number: own[name] for number, own in shares.items()},
                )
                for name, rule in rules.items()
            ],
            overload_level=int(max((one.get(LEVEL, 0.0) for one in found.values()), default=0.0)),
        )
    )


def _view(
    name: str, rule: Bulkhead, all_: PoolFigures, refused: dict[str, int], workers: Mapping[int, PoolFigures]
) -> BulkheadView:
    return BulkheadView(
        name=name,
        each=rule.each,
        in_flight=all_.in_flight,
        waiting=all_.waiting,
        limit=all_.limit,
        max=rule.max,
        queue=rule.queue,
        wait_seconds=rule.wait,
        adaptive=rule.adaptive,
        refused=refused,
        workers=[
            WorkerShare(worker=number, in_flight=own.in_flight, waiting=own.waiting, limit=own.limit)
            for number, own in workers.items()
        ],
    )
