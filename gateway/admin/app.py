"""The admin application: `build(state)` is all that the recorder needs to know of it."""

from __future__ import annotations

from aiohttp import web

from gateway.admin import handlers
from gateway.admin.guard import guard
from gateway.admin.openapi import ROUTES
from gateway.admin.problems import problems
from gateway.admin.state import AdminState

BODY_BYTES = 64 * 1024


def build(state: AdminState) -> web.Application:
    """Every route of `openapi.ROUTES`, behind the guard; errors are problems."""
    app = web.Application(middlewares=[problems, guard(state.token)], client_max_size=BODY_BYTES)
    app[handlers.STATE] = state
    for route in ROUTES:
        app.router.add_route(route.method, route.pattern, getattr(handlers, route.name))
        if route.method == "GET":
            app.router.add_route("HEAD", route.pattern, getattr(handlers, route.name))
    app.on_response_prepare.append(_harden)
    app.on_cleanup.append(_close)
    return app


async def _harden(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"


async def _close(app: web.Application) -> None:
    app[handlers.STATE].pool.shutdown(wait=False, cancel_futures=True)
