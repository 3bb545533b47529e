"""Who may use the admin port.

Rules
1. Off loopback every request needs `Authorization: Bearer <admin_token>`, but the two health routes: probes have no
   secrets. On loopback the same holds once a token is configured.
2. A token in a query would end up in logs and histories: it is not looked at there.
3. On loopback without a token only requests that name a loopback host are answered: a web page whose name suddenly
   resolves to 127.0.0.1 (DNS rebinding) is not.
4. Without a token, a browser that states another page than one of this machine as a request's origin is refused: what
   needs no body could be done by any page a browser has open.
5. The live page itself is open: it has no data, and a browser that asks for it can bring no token. What it shows it
   asks for by the API, with the token that is typed into it.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from gateway.admin import page
from gateway.admin.problems import ApiError
from gateway.config.address import is_loopback
from gateway.policy.web_page import is_foreign

OPEN = frozenset({"/healthz", "/readyz"})


class TokenRequired(Exception):
    """The admin port is to be reached from other machines, and nothing protects it."""


def check(host: str, token: str | None) -> None:
    """Raises TokenRequired where this address must not be served without a token."""
    if not token and not is_loopback(host):
        raise TokenRequired(
            f"admin listens on {host}, which is not loopback: set admin_token (or TOLLGATE_ADMIN_TOKEN)"
        )


def guard(token: Callable[[], str | None]) -> Middleware:
    """`token` gives the one in force; it may change with a reload."""

    @web.middleware
    async def allow(request: web.Request, handler: Handler) -> web.StreamResponse:
        wanted = token()
        if wanted is None:
            _loopback_only(request)
        elif request.path not in OPEN and not page.wanted(request):
            _token_needed(request, wanted)
        return await handler(request)

    return allow


def _token_needed(request: web.Request, wanted: str) -> None:
    scheme, _, offered = request.headers.get("Authorization", "").partition(" ")
    same = hmac.compare_digest(offered.strip().encode("utf-8", "surrogateescape"), wanted.encode())
    if scheme.lower() != "bearer" or not same:
        raise ApiError(
            401,
            "unauthorized",
            "send the admin token as `Authorization: Bearer <token>`",
            headers={"WWW-Authenticate": 'Bearer realm="tollgate admin"'},
        )


def _loopback_only(request: web.Request) -> None:
    host = request.headers.get("Host", "")
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    if not is_loopback(name.strip("[]")):
        raise ApiError(421, "not_this_host", "without an admin token only localhost is served")
    if is_foreign(request.headers.get("Origin", "")):
        raise ApiError(403, "origin_not_allowed", "without an admin token only pages of this machine are served")
