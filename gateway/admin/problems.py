"""Errors of the API: `application/problem+json` (RFC 9457) with a stable `code`."""

from __future__ import annotations

import logging
import sqlite3
from http import HTTPStatus

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.admin.views import Problem
from gateway.errors import GatewayError

_log = logging.getLogger("tollgate.admin")

CONTENT_TYPE = "application/problem+json"
# What an unforeseen state of files or data, or a bug, raises.
_BUGS = (
    *(ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError),
    *(msgspec.MsgspecError, sqlite3.Error),
)


class ApiError(Exception):
    """An answer other than success. `parameter` names the part of the request that is wrong."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        parameter: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.parameter = parameter
        self.headers = headers or {}


def bad_parameter(name: str, detail: str) -> ApiError:
    return ApiError(400, "bad_parameter", f"{name}: {detail}", parameter=name)


def not_found(code: str, detail: str) -> ApiError:
    return ApiError(404, code, detail)


def answer(error: ApiError) -> web.Response:
    problem = Problem(
        type=f"urn:tollgate:problem:{error.code}",
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        detail=error.detail,
        code=error.code,
        parameter=error.parameter,
    )
    return web.Response(
        status=error.status, body=msgspec.json.encode(problem), content_type=CONTENT_TYPE, headers=error.headers
    )


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Every error that a handler or the router raises, as a problem."""
    try:
        return await handler(request)
    except ApiError as e:
        return answer(e)
    except GatewayError as e:
        headers = {"Retry-After": "1"} if e.status == 503 else {}
        return answer(ApiError(e.status, e.code, e.message, headers=headers))
    except web.HTTPNotFound:
        return answer(not_found("unknown_route", f"nothing is at {request.path}; see / and /openapi.json"))
    except web.HTTPMethodNotAllowed as e:
        allowed = ", ".join(sorted(e.allowed_methods))
        return answer(ApiError(405, "method_not_allowed", f"allowed: {allowed}", headers={"Allow": allowed}))
    except web.HTTPRequestEntityTooLarge:
        return answer(ApiError(413, "request_too_large", "the request body is too large"))
    except web.HTTPException:
        raise
    except _BUGS:
        if request.writer.output_size:  # there is no other answer any more
            raise
        _log.exception("admin: %s %s failed", request.method, request.rel_url.raw_path)
        return answer(ApiError(500, "internal_error", "a fault of the gateway; its log says more"))
