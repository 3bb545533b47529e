"""Clean text for a record: one line, bounded, and never a secret."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gateway.call import Request

MESSAGE_LIMIT = 500
HEADER_LIMIT = 256

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
# Keys as providers shape them, also where they are quoted back partly masked; bearer tokens; key parameters of a URL.
_KEYS = re.compile(
    r"(?i)\b(?:bearer|basic)\s+[^\s\"',;]+"
    r"|\b(?:sk|pk|rk|gsk|xai|key|tok|org|sess|whsec)[-_][A-Za-z0-9*_\-.]{8,}"
    r"|\btg-[0-9a-z]{8}-[A-Za-z0-9*]{8,}"  # ours; without its last part it is only a name
    r"|\bAIza[A-Za-z0-9_\-*]{10,}"
    r"|\beyJ[A-Za-z0-9_\-]{10,}\.[A-Za-z0-9_\-]{10,}(?:\.[A-Za-z0-9_\-]*)?"
    r"|(?<=[?&])(?:key|api[_-]?key|access_token|token)=[^&\s\"']+"
)
_CREDENTIALS = frozenset(
    {b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key", b"proxy-authorization", b"cookie"}
    | {b"x-amz-security-token"}
)
REDACTED = "[redacted]"


def one_line(text: str, limit: int) -> str:
    """`text` without control characters or lone surrogates, at most `limit` characters."""
    if len(text) > 4 * limit:
        text = text[: 4 * limit]
    if not text.isprintable():
        text = _CONTROL.sub(" ", text)
    return text[:limit]


def header_text(value: bytes, limit: int = HEADER_LIMIT) -> str:
    return one_line(value[: 4 * limit].decode("latin-1"), limit).strip()


def credentials(request: Request) -> list[str]:
    """The secrets that this client sent, as they could be quoted back in an error message."""
    found: list[str] = []
    for name, value in request.headers:
        if name.lower() in _CREDENTIALS:
            found.extend(part for part in value.decode("latin-1").split() if len(part) >= 8)
    return found


class Redactor:
    """Removes known secrets, and whatever looks like a key, from messages."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = sorted((s for s in secrets if s), key=len, reverse=True)

    def clean(self, message: str, request: Request | None = None) -> str:
        """One line of at most `MESSAGE_LIMIT` characters. Cut last, so that no half of a secret survives."""
        if not message:
            return ""
        message = message[: 64 * 1024]
        known = [*self._secrets, *(credentials(request) if request is not None else ())]
        for secret in known:
            message = message.replace(secret, REDACTED)
        return one_line(_KEYS.sub(REDACTED, one_line(message, 16 * MESSAGE_LIMIT)), MESSAGE_LIMIT)
