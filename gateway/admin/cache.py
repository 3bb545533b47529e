"""The routes of the cache: what is in it, and how it is forgotten.

What was cleared is given to nobody any more when the answer comes: workers look at the file with every hit.
"""

from __future__ import annotations

from functools import partial

from aiohttp import web
from msgspec import structs

from gateway.admin import params
from gateway.admin.cache_views import CacheGroupView, CacheView, ClearedView
from gateway.admin.problems import ApiError
from gateway.admin.state import STATE, answer
from gateway.policy.cached import Chosen, of_tool

CHOICES = (*Chosen.__struct_fields__, "tool")


async def cache(request: web.Request) -> web.Response:
    state = request.app[STATE]
    params.given(request, ())
    try:
        found = await state.ask(lambda: state.cache.contents(state.now()))
    except OSError as error:
        raise _unavailable(error) from None
    groups = [CacheGroupView(**structs.asdict(group)) for group in found.groups]
    return answer(CacheView(entries=found.entries, bytes=found.bytes, hits=found.hits, groups=groups))


async def clear_cache(request: web.Request) -> web.Response:
    state = request.app[STATE]
    given = params.given(request, CHOICES)
    said = {name: value for name, value in given.items() if value}
    tool = given.pop("tool", "")
    chosen = Chosen(**given)
    every = of_tool(chosen, tool) if tool else (chosen,)
    try:
        count = sum([await state.ask(partial(state.cache.clear, one)) for one in every])
    except OSError as error:
        raise _unavailable(error) from None
    state.event("cache_cleared", {"entries": count, **said})
    return answer(ClearedView(cleared=count))


def _unavailable(error: OSError) -> ApiError:
    return ApiError(503, "cache_unavailable", str(error), headers={"Retry-After": "1"})
