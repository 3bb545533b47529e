"""The live page: files that are served as they are, from memory, under a policy that lets nothing else in.

Nothing of it comes from elsewhere, no script stands in the page itself, and text becomes markup nowhere (trusted
types). The files have no data: what the page shows it asks for by the API.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
from pathlib import Path
from typing import Final

from aiohttp import web
from msgspec import Struct

FOLDER: Final = Path(__file__).with_name("page_files")
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
PREFIX: Final = "/page/"
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-cache",  # asked for again, by its tag: a new version is a new page
    "Vary": "Accept, Accept-Encoding",
}


class File(Struct, frozen=True):
    body: bytes
    zipped: bytes
    type: str
    tag: str


@functools.cache
def load(folder: Path = FOLDER) -> dict[str, File]:
    """By name, with the folders below."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in TYPES:
            body = path.read_bytes()
            tag = hashlib.sha256(body).hexdigest()[:16]
            found[path.relative_to(folder).as_posix()] = File(
                body, gzip.compress(body, mtime=0), TYPES[path.suffix], f'"{tag}"'
            )
    return found


FILES = web.AppKey("files", dict[str, File])


def add(app: web.Application) -> None:
    app[FILES] = load()
    app.router.add_get(PREFIX + "{name:.+}", file)


def wanted(request: web.Request) -> bool:
    """Is it a file of the page that is asked for? `/` is one where HTML is accepted by name, as browsers do."""
    if request.match_info.handler is file:
        return True
    asked = request.method in ("GET", "HEAD") and request.path == "/"
    return asked and "text/html" in request.headers.get("Accept", "")


def shell(request: web.Request) -> web.Response:
    """The page at `/`."""
    return _answer(request, request.app[FILES]["index.html"])


async def file(request: web.Request) -> web.Response:
    found = request.app[FILES].get(request.match_info["name"])
    if found is None:
        raise web.HTTPNotFound
    return _answer(request, found)


def _answer(request: web.Request, found: File) -> web.Response:
    headers = {**HEADERS, "ETag": found.tag}
    if request.headers.get("If-None-Match") == found.tag:
        return web.Response(status=304, headers=headers)
    headers["Content-Type"] = found.type
    if "gzip" in request.headers.get("Accept-Encoding", ""):
        return web.Response(body=found.zipped, headers={**headers, "Content-Encoding": "gzip"})
    return web.Response(body=found.body, headers=headers)
