"""The routes of the cache: what is in it, and how it is forgotten.

What was cleared is given to nobody any more when the answer comes: workers look at the file with every hit.
"""

from __future__ import annotations

import contextlib
from functools import partial

from aiohttp import web
from msgspec import structs

from gateway.admin import params
from gateway.admin.cache_views import (
    CacheGroupView,
    CacheView,
    ClearedView,
    FeedbackIn,
    FeedbackView,
    semantic_view,
)
from gateway.admin.problems import ApiError
from gateway.admin.state import STATE, answer
from gateway.policy.cached import Chosen, of_tool
from gateway.ports import Feedback

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
    if not tool:
        with contextlib.suppress(OSError):  # what leads to an answer that is gone is found out when it is needed
            await state.ask(lambda: state.matcher.forget(chosen))
    return answer(ClearedView(cleared=count))


async def semantic_cache(request: web.Request) -> web.Response:
    state = request.app[STATE]
    params.given(request, ())
    try:
        found = await state.ask(state.matcher.state)
    except OSError as error:
        raise _away(error) from None
    return answer(semantic_view(found))


async def cache_feedback(request: web.Request) -> web.Response:
    """On disk when the answer comes, and in force for all workers."""
    state = request.app[STATE]
    said = await params.body_of(request, FeedbackIn)
    feedback = Feedback(said.verdict == "right", said.request_id, said.entry)
    if bool(said.request_id) == bool(said.entry):
        raise ApiError(422, "invalid_body", "name either the request_id of a hit or an entry")
    try:
        noted = await state.ask(lambda: state.matcher.say(feedback))
        cleared = 0
        if said.entry and not feedback.right:
            cleared = await state.ask(lambda: state.cache.clear(Chosen(entry=said.entry)))
    except OSError as error:
        raise _away(error) from None
    if not noted.hits and not cleared:
        raise ApiError(404, "no_such_hit", "no answer to a similar question is known under this name")
    return answer(FeedbackView(hits=noted.hits, cleared=cleared, scopes=list(noted.scopes)))


def _away(error: OSError) -> ApiError:
    return ApiError(503, "matcher_unavailable", str(error), headers={"Retry-After": "1"})


def _unavailable(error: OSError) -> ApiError:
    return ApiError(503, "cache_unavailable", str(error), headers={"Retry-After": "1"})
