"""Shared by the proxies: where to listen, where to forward, what to leave out."""

from __future__ import annotations

import os

PORT = int(os.environ["PORT"])
UPSTREAM_PORT = int(os.environ["UPSTREAM_PORT"])
UPSTREAM = f"http://127.0.0.1:{UPSTREAM_PORT}"

# RFC 9110 7.6.1 hop-by-hop fields, and those each hop writes for itself.
HOP = frozenset(
    (
        *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer"),
        *("transfer-encoding", "upgrade", "host", "content-length"),
    )
)
HOP_BYTES = frozenset(name.encode() for name in HOP)
