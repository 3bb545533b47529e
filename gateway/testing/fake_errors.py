"""Errors in the exact shapes, headers and words of the providers, and the fault kinds that ask for them.

Kinds answered in place of an answer:  429 quota 500 503 529 context auth model
Kinds that break an answer under way:  first_frame mid_frame cut reset eof stall pings garbage html
(`cut` closes the connection, `reset` sends RST, `eof` ends a stream cleanly without its terminal event, `pings` keeps
a stream alive without content.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from gateway.testing.fake_script import Ask, Fault, Reply
from gateway.testing.fake_tokens import count
from gateway.testing.fake_world import Headers, Ids, Incoming, Wire, World, dump, pretty, sse

BEFORE = frozenset({"429", "quota", "500", "503", "529", "context", "auth", "model", "invalid"})
DURING = frozenset({"first_frame", "mid_frame", "cut", "reset", "eof", "stall", "pings", "garbage", "html"})


@dataclass(slots=True)
class Facts:
    """What the words of an error mention."""

    model: str = ""
    tokens: int = 0
    key: str = ""
    detail: str = ""
    param: str | None = None
    seconds: float = 2


# kind -> (status, type, code, message)
_OPENAI: dict[str, tuple[int, str, str | None, str]] = {
    "429": (429, "requests", "rate_limit_exceeded", "Rate limit reached for {model} in organization org-fake on "
            "requests per min (RPM): Limit 500, Used 500, Requested 1. Please try again in {seconds}s. Visit "
            "https://platform.openai.com/account/rate-limits to learn more."),
    "quota": (429, "insufficient_quota", "insufficient_quota", "You exceeded your current quota, please check your "
              "plan and billing details. For more information on this error, read the docs: "
              "https://platform.openai.com/docs/guides/error-codes/api-errors."),
    "500": (500, "server_error", None, "The server had an error while processing your request. Sorry about that!"),
    "503": (503, "service_unavailable_error", "server_is_overloaded", "Our servers are currently overloaded. "
            "Please try again later."),
    "context": (400, "invalid_request_error", "context_length_exceeded", "This model's maximum context length is "
                "128000 tokens. However, your messages resulted in {tokens} tokens. Please reduce the length of the "
                "messages."),
    "auth": (401, "invalid_request_error", "invalid_api_key", "Incorrect API key provided: {key}. You can find your "
             "API key at https://platform.openai.com/account/api-keys."),
    "model": (404, "invalid_request_error", "model_not_found", "The model `{model}` does not exist or you do not "
              "have access to it."),
    "invalid": (400, "invalid_request_error", None, "{detail}"),
    "missing": (404, "invalid_request_error", None, "{detail}"),
}  # fmt: skip

_ANTHROPIC: dict[str, tuple[int, str, str]] = {
    "429": (429, "rate_limit_error", "This request would exceed your organization's rate limit of 50 requests per "
            "minute. For details, refer to: https://docs.claude.com/en/api/rate-limits."),
    "quota": (400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API. Please go "
              "to Plans & Billing to upgrade or purchase credits."),
    "500": (500, "api_error", "Internal server error"),
    "503": (529, "overloaded_error", "Overloaded"),
    "context": (400, "invalid_request_error", "prompt is too long: {tokens} tokens > 200000 maximum"),
    "auth": (401, "authentication_error", "invalid x-api-key"),
    "model": (404, "not_found_error", "model: {model}"),
    "invalid": (400, "invalid_request_error", "{detail}"),
    "missing": (404, "not_found_error", "{detail}"),
}  # fmt: skip

_GEMINI: dict[str, tuple[int, str, str]] = {
    "429": (429, "RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan and billing details. "
            "For more information on this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits.\n"
            "* Quota exceeded for metric: generativelanguage.googleapis.com/generate_content_paid_tier_requests, "
            "limit: 1000, model: {model}\nPlease retry in {seconds}s."),
    "500": (500, "INTERNAL", "An internal error has occurred. Please retry or report in "
            "https://developers.generativeai.google/guide/troubleshooting"),
    "503": (503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    "context": (400, "INVALID_ARGUMENT", "The input token count ({tokens}) exceeds the maximum number of tokens "
                "allowed (1048576)."),
    "auth": (400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
    "model": (404, "NOT_FOUND", "models/{model} is not found for API version v1beta, or is not supported for "
              "generateContent. Call ListModels to see the list of available models and their supported methods."),
    "invalid": (400, "INVALID_ARGUMENT", "{detail}"),
    "missing": (404, "NOT_FOUND", "{detail}"),
}  # fmt: skip


def _words(template: str, facts: Facts) -> str:
    return template.format(
        model=facts.model, tokens=facts.tokens, key=facts.key, detail=facts.detail, seconds=f"{facts.seconds:g}"
    )


def _kind(kind: str) -> str:
    """Overload is one thing with two numbers: 529 at Anthropic, 503 elsewhere."""
    return {"529": "503", "first_frame": "503", "mid_frame": "503"}.get(kind, kind)


def openai_error(kind: str, facts: Facts) -> tuple[int, dict[str, Any]]:
    status, type_, code, message = _OPENAI[_kind(kind)]
    return status, {
        "error": {"message": _words(message, facts), "type": type_, "param": facts.param, "code": code},
    }


def anthropic_error(kind: str, facts: Facts, request_id: str) -> tuple[int, dict[str, Any]]:
    status, type_, message = _ANTHROPIC[_kind(kind)]
    error = {"type": type_, "message": _words(message, facts)}
    return status, {"type": "error", "error": error, "request_id": request_id}


def gemini_error(kind: str, facts: Facts) -> tuple[int, dict[str, Any]]:
    kind = "429" if kind == "quota" else _kind(kind)
    status, name, message = _GEMINI[kind]
    error: dict[str, Any] = {"code": status, "message": _words(message, facts), "status": name}
    if kind == "429":
        delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{math.ceil(facts.seconds)}s"}
        error["details"] = [delay]
    elif kind == "auth":
        info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
        error["details"] = [{**info, "domain": "googleapis.com"}]
    return status, {"error": error}


def refusal(dialect: str, kind: str, facts: Facts, ids: Ids, retry_after: float | None = None) -> Wire:
    """The whole HTTP answer for an error of `dialect`."""
    headers: Headers
    if dialect == "anthropic":
        request_id = ids.anthropic("req_")
        status, body = anthropic_error(kind, facts, request_id)
        headers = [("request-id", request_id), ("x-should-retry", "true" if status in {429, 500, 529} else "false")]
    elif dialect == "gemini":
        status, body = gemini_error(kind, facts)
        headers = []
    else:
        status, body = openai_error(kind, facts)
        headers = [("x-request-id", "req_" + ids.hex(32)), ("openai-version", "2020-10-01")]
    if retry_after is not None and dialect != "gemini":
        headers.append(("retry-after", str(math.ceil(retry_after))))
        if dialect.startswith("openai"):
            headers.append(("retry-after-ms", str(round(retry_after * 1000))))
    encoded = pretty(body) if dialect == "gemini" else dump(body)
    return Wire(status, [("content-type", "application/json"), *headers], encoded)


def error_event(dialect: str, kind: str, facts: Facts, ids: Ids, sequence: int = 0) -> bytes:
    """The event that reports an error inside a stream of `dialect`."""
    if dialect == "anthropic":
        return sse("error", dump(anthropic_error(kind, facts, ids.anthropic("req_"))[1]))
    if dialect == "gemini":
        return sse(None, dump(gemini_error(kind, facts)[1]), b"\r\n")
    error = openai_error(kind, facts)[1]["error"]
    if dialect == "openai.responses":
        event = {"type": "error", "code": error["code"] or error["type"], "message": error["message"], "param": None}
        return sse("error", dump({**event, "sequence_number": sequence}))
    return sse(None, dump({"error": error}))


def consider(world: World, request: Incoming, ask: Ask) -> tuple[Reply, Ids, Wire | None]:
    """The reply to `ask`, its ids, and the error that stands in place of the answer, if any."""
    reply, ids = world.reply(ask)
    fault = Fault("model") if ask.model.startswith("no-such") else reply.fault
    if fault is None or fault.kind not in BEFORE:
        return reply, ids, None
    tokens = count(ask.prompt) + 200_000 if fault.kind == "context" else 0
    facts = Facts(ask.model, tokens, masked(request), seconds=fault.retry_after or 2)
    return reply, ids, refusal(ask.dialect, fault.kind, facts, ids, fault.retry_after)


def masked(request: Incoming) -> str:
    key = request.headers.get("authorization", "").removeprefix("Bearer ")
    return key[:8] + "*" * 10 + key[-4:] if len(key) > 12 else "*" * len(key)
