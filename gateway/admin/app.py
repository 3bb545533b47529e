"""The admin application: `build(state)` is all that the recorder needs to know of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from gateway.admin import breakers, budgets, bulkheads, cache, decide, handlers, keys, limits, routes
from gateway.admin.guard import guard
from gateway.admin.openapi import ROUTES
from gateway.admin.problems import problems
from gateway.admin.state import STATE, AdminState

BODY_BYTES = 64 * 1024
HANDLERS = (handlers, decide, keys, budgets, limits, cache, breakers, bulkheads, routes)


def handler_of(name: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The handler of a route, from whichever module has it."""
    found: Callable[[web.Request], Awaitable[web.StreamResponse]] = next(
        getattr(module, name) for module in HANDLERS if hasattr(module, name)
    )
    return found


def build(state: AdminState) -> web.Application:
    """Every route of `openapi.ROUTES`, behind the guard; errors are problems."""
    app = web.Application(middlewares=[problems, guard(state.token)], client_max_size=BODY_BYTES)
    app[STATE] = state
    for route in ROUTES:
        handler = handler_of(route.name)
        app.router.add_route(route.method, route.pattern, handler)
        if route.method == "GET":
            app.router.add_route("HEAD", route.pattern, handler)
    app.on_response_prepare.append(_harden)
    app.on_cleanup.append(_close)
    return app


async def _harden(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"


async def _close(app: web.Application) -> None:
    app[STATE].pool.shutdown(wait=False, cancel_futures=True)
