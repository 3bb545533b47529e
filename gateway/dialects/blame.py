"""What the body of an error says of its cause, in the words of each API: too long, refused for its content, or spent.

Sources: the error references of the APIs, and the errors among the recorded exchanges. Servers that speak one of these
APIs have words of their own: vLLM, llama.cpp, Ollama, Bedrock, xAI, DeepSeek, Qwen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.dialects.shape import DECODE_FAULTS
from gateway.dialects.usage import as_dict
from gateway.ports import Blame

LIMIT = 65_536
NOTHING, CONTEXT, POLICY, QUOTA = Blame(), Blame("context"), Blame("policy"), Blame("quota")
_CODES = {
    "context_length_exceeded": CONTEXT,
    "string_above_max_length": CONTEXT,
    "request_too_large": CONTEXT,
    "too_many_tokens": CONTEXT,  # Cohere
    "exceed_context_size_error": CONTEXT,
    "content_filter": POLICY,
    "content_policy_violation": POLICY,
    "invalid_prompt": POLICY,
    "data_inspection_failed": POLICY,
    "moderation_blocked": POLICY,
    "insufficient_quota": QUOTA,
    "billing_hard_limit_reached": QUOTA,
    "billing_error": QUOTA,
}
_WORDS = (
    (
        re.compile(
            r"prompt is too long|maximum context length|input token count .*exceeds|exceed context limit"
            r"|input is too long|exceeded max context length"
            r"|maximum prompt length|exceeds? the (?:available )?context (?:size|length|window)",
            re.IGNORECASE,
        ),
        CONTEXT,
    ),
    (re.compile(r"content (?:filtering|management) policy|Content Exists Risk"), POLICY),
    (re.compile(r"credit balance is too low"), QUOTA),
)
_SECONDS = re.compile(r"(\d{1,7}(?:\.\d{1,9})?)s\Z")


def blame(status: int, body: bytes) -> Blame:
    """Of a whole error body, or of the beginning of one."""
    error = _error(body)
    if not error:
        return CONTEXT if status == 413 else NOTHING
    inner = as_dict(error.get("innererror"))
    for value in (error.get("code"), error.get("type"), error.get("error_type"), inner.get("code")):
        known = _CODES.get(value.lower()) if type(value) is str else None
        if known is not None:
            return known
    message = error.get("message")
    if type(message) is str and status in (400, 413, 422):
        for words, known in _WORDS:
            if words.search(message[:4096]):
                return known
    return _google(error)


def _error(body: bytes) -> Mapping[str, Any]:
    try:
        value = msgspec.json.decode(body[:LIMIT])
    except DECODE_FAULTS:
        return {}
    if type(value) is list and value:
        value = value[0]
    whole = as_dict(value)
    error = whole.get("error")
    if type(error) is str:
        return {**whole, "message": error}
    return whole if error is None else as_dict(error)


def _google(error: Mapping[str, Any]) -> Blame:
    """google.rpc: how long to wait, and whether the quota is one of days."""
    wait: float | None = None
    details = error.get("details")
    for detail in details if type(details) is list else ():
        one = as_dict(detail)
        delay = one.get("retryDelay")
        found = _SECONDS.match(delay) if type(delay) is str else None
        if found is not None:
            wait = float(found[1])
        violations = one.get("violations")
        for violation in violations if type(violations) is list else ():
            if "PerDay" in str(as_dict(violation).get("quotaId", "")):
                return QUOTA
    return Blame("", wait) if wait is not None else NOTHING
