"""Errors made by the gateway, in the words of each API family.

Sources of the shapes: the error references of the OpenAI, Anthropic and Gemini APIs, and the retry rules of their
SDKs: `x-should-retry` is obeyed by the OpenAI and Anthropic SDKs; `retry-after` must be whole seconds and at most 60,
since some clients give up above 120 and others sleep for hours.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.errors import GatewayError
from gateway.ports import ErrorAnswer

MAX_RETRY_AFTER = 60
_encode = msgspec.json.Encoder().encode
JSON_TYPE = (b"content-type", b"application/json")


def retry_after(fault: GatewayError, status: int) -> int | None:
    """Whole seconds to wait; overload and limits without a stated wait say one. Hard stops (402) never say any."""
    if status == 402:
        return None
    if fault.retry_after is not None:
        return max(0, min(int(fault.retry_after), MAX_RETRY_AFTER))
    return 1 if status in {429, 503, 529} and fault.retryable else None


def headers(fault: GatewayError, status: int, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """Also our own stable code, since the bodies speak in the words of the providers."""
    retry = b"true" if fault.retryable and status != 402 else b"false"
    found = [JSON_TYPE, (b"x-should-retry", retry), (b"x-tollgate-code", fault.code.encode("ascii", "replace")), *more]
    wait = retry_after(fault, status)
    if wait is not None:
        found.append((b"retry-after", b"%d" % wait))
    return found


# --- OpenAI ---------------------------------------------------------------------------------------------------------

_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error"}


def openai_error(fault: GatewayError) -> dict[str, Any]:
    """The `error` object. Codex takes `insufficient_quota` as final and `rate_limit_exceeded` as a wait.

    Where those words stand in place of our stable code, it follows as `tollgate_code`: clients ignore what they do not
    know, and an event in mid-stream has no header that could tell it.
    """
    kind = _OPENAI_TYPES.get(fault.status) or ("server_error" if fault.status >= 500 else "invalid_request_error")
    code, message = fault.code, fault.message
    if fault.status == 402:
        kind = code = "insufficient_quota"
    elif fault.status == 429:
        kind = code = "rate_limit_exceeded"
        wait = retry_after(fault, 429)
        if wait is not None and "try again in" not in message:
            message = f"{message.rstrip('.')}. Please try again in {wait}s."
    error = {"message": message, "type": kind, "param": fault.param, "code": code}
    if code != fault.code:
        error["tollgate_code"] = fault.code
    return error


def openai_refusal(fault: GatewayError, request_id: str) -> ErrorAnswer:
    more = headers(fault, fault.status, (b"x-request-id", request_id.encode()))
    return ErrorAnswer(fault.status, more, _encode({"error": openai_error(fault)}))


def openai_status(error: Any, default: int = 500) -> int:
    """The HTTP status that an OpenAI-shaped error object inside a stream stands for."""
    if type(error) is not dict:
        return default
    for key in ("code", "status", "status_code"):
        value = error.get(key)
        number = int(value) if type(value) is str and value.isdigit() and len(value) == 3 else value
        if type(number) is int and 400 <= number <= 599:
            return number
    for key in ("code", "type"):
        known = _OPENAI_STATUS.get(str(error.get(key)))
        if known:
            return known
    return default


_OPENAI_STATUS = {
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "invalid_prompt": 400,
    "content_filter": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "insufficient_quota": 429,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "requests": 429,
    "tokens": 429,
    "server_error": 500,
    "api_error": 500,
    "internal_server_error": 500,
    "server_is_overloaded": 503,
    "service_unavailable": 503,
    "overloaded_error": 503,
}

# --- Anthropic ------------------------------------------------------------------------------------------------------

ANTHROPIC_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
ANTHROPIC_TYPES = {status: kind for kind, status in ANTHROPIC_STATUS.items()}


def anthropic_error(fault: GatewayError, request_id: str) -> tuple[int, dict[str, Any]]:
    """(HTTP status, body). Overload is 529 in this dialect."""
    status = 529 if fault.status == 503 else fault.status
    kind = ANTHROPIC_TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
    if fault.code == "loop_detected":
        kind = "invalid_request_error"
    error = {"type": kind, "message": fault.message, "details": {"error_code": fault.code}}
    return status, {"type": "error", "error": error, "request_id": request_id}


def anthropic_refusal(fault: GatewayError, request_id: str) -> ErrorAnswer:
    status, body = anthropic_error(fault, request_id)
    return ErrorAnswer(status, headers(fault, status, (b"request-id", request_id.encode())), _encode(body))


# --- Gemini ---------------------------------------------------------------------------------------------------------

GEMINI_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    529: "UNAVAILABLE",
}


def gemini_error(fault: GatewayError) -> dict[str, Any]:
    """A google.rpc.Status as JSON, with our stable code as the reason of its ErrorInfo."""
    status = GEMINI_STATUS.get(fault.status) or ("INTERNAL" if fault.status >= 500 else "FAILED_PRECONDITION")
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": fault.code.upper(),
        "domain": "tollgate",
        "metadata": {"code": fault.code},
    }
    details: list[dict[str, Any]] = [info]
    wait = retry_after(fault, fault.status)
    if wait is not None:
        details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{wait}s"})
    return {"error": {"code": fault.status, "message": fault.message, "status": status, "details": details}}


def gemini_refusal(fault: GatewayError, *, array: bool) -> ErrorAnswer:
    """`array`: streams without `alt=sse` are JSON arrays, and so are their errors."""
    body = gemini_error(fault)
    return ErrorAnswer(fault.status, headers(fault, fault.status), _encode([body] if array else body))


# --- AWS ------------------------------------------------------------------------------------------------------------

AWS_STATUS = {  # of the exceptions of Bedrock Runtime; the first of a status is what we say of it
    "ValidationException": 400,
    "UnrecognizedClientException": 401,
    "ServiceQuotaExceededException": 402,
    "AccessDeniedException": 403,
    "ResourceNotFoundException": 404,
    "ModelTimeoutException": 408,
    "ModelErrorException": 424,
    "ModelStreamErrorException": 424,
    "ThrottlingException": 429,
    "ModelNotReadyException": 429,
    "InternalServerException": 500,
    "ServiceUnavailableException": 503,
}
_AWS_TYPES = {status: kind for kind, status in reversed(AWS_STATUS.items())}


def aws_type(fault: GatewayError) -> str:
    """The SDKs of AWS try again by the exception's type before they look at the status."""
    known = _AWS_TYPES.get(fault.status)
    return known or ("InternalServerException" if fault.status >= 500 else "ValidationException")


def aws_refusal(fault: GatewayError, request_id: str) -> ErrorAnswer:
    """The exception's type stands in a header (https://smithy.io/2.0/aws/protocols/aws-restjson1-protocol.html)."""
    more = ((b"x-amzn-errortype", aws_type(fault).encode()), (b"x-amzn-requestid", request_id.encode()))
    return ErrorAnswer(fault.status, headers(fault, fault.status, *more), _encode({"message": fault.message}))
