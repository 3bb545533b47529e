"""Callers that are web pages nobody let in.

A page on any site can make its visitor's browser send calls to 127.0.0.1: a POST of plain text needs no preflight
(Fetch, "no-CORS-safelisted"), and a page whose name resolves to 127.0.0.1 after a while (DNS rebinding) can even read
what comes back. Where no key is asked for, such a call would be made with the operator's keys and money. A browser
states the page's origin with every POST and every WebSocket (Fetch, "append a request Origin header"; RFC 6455 10.2),
which no page can change; programs state none. MCP asks servers for this check (2025-06-18, Streamable HTTP, Security
Warning).
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from gateway.config.address import is_loopback

OPAQUE = "null"  # a page in a sandbox, from a file or out of a redirect


def is_foreign(origin: str, allowed: Collection[str] = ()) -> bool:
    """Is this `Origin` a page's of neither this machine nor `allowed` (as the header has them, in lower case)?

    Other schemes than HTTP's are of programs with a browser inside, and of its extensions.
    """
    origin = origin.lower()
    if origin in allowed:
        return False
    if not origin.startswith(("http://", "https://")):
        return origin == OPAQUE
    try:
        host = urlsplit(origin).hostname or ""
    except ValueError:
        return True
    return not (is_loopback(host) or host.endswith(".localhost"))  # RFC 6761 6.3
