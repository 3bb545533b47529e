"""Paths of tools: which of them are allowed, decided on the raw path, segment by segment. Pure.

Rules
1. A pattern is a path in which `*` stands for any characters but a slash, and a last segment `**` for whatever follows.
2. What one server may read differently from another is refused before any pattern is asked: dot segments with
   parameters (`..;`), what is encoded twice or in too many bytes, encoded control characters. The route table has
   refused the rest.
3. What was checked is what is sent: the path of the configured URL, and behind it the client's, byte for byte.
"""

from __future__ import annotations

import re

from msgspec import Struct

from gateway.call import Route
from gateway.config.patterns import matches
from gateway.errors import BadPath, Forbidden, MethodNotAllowed, UnknownRoute
from gateway.tool import EXECUTE_TOOL

TOOLS, MCP = "tools", "mcp"
"""First segments of the paths behind which configured tools and MCP servers stand."""
TOOL_TEMPLATE, MCP_TEMPLATE = "/tools/{tool}", "/mcp/{server}"
MCP_METHODS = ("GET", "POST", "DELETE")
"""Of the streamable HTTP transport: messages, a stream of the server's own, the end of a session."""

_AMBIGUOUS = re.compile(
    r"/\.{1,2};|%25(?:25)*(?:2e|2f|5c)|%(?:[01][0-9a-f]|7f)|%(?![0-9a-f]{2})"
    r"|%c[01]%[89ab]|%e0%[89]|%f0%8",  # characters in more bytes than UTF-8 allows: %c0%ae is a dot to some servers
    re.IGNORECASE,
)


class Door(Struct, frozen=True):
    """What leads to one tool or server. `base` is the path of its URL."""

    base: str
    methods: tuple[str, ...] = ("GET", "POST")
    paths: tuple[str, ...] = ("/**",)


def route(doors: dict[tuple[str, str], Door], method: str, text: str, query: bytes) -> Route:
    """What a path below /tools/ or /mcp/ means. Raises UnknownRoute, BadPath, MethodNotAllowed, Forbidden."""
    kind, _, rest = text[1:].partition("/")
    name, slash, rest = rest.partition("/")
    door = doors.get((kind, name))
    if door is None:
        raise UnknownRoute(f"no {'MCP server' if kind == MCP else 'tool'} is named {name[:64]}")
    below = slash + rest
    if _AMBIGUOUS.search(below) is not None:
        raise BadPath(
            "the path is ambiguous: double and overlong encodings, encoded controls and dot segments are refused"
        )
    if method not in door.methods:
        raise MethodNotAllowed(f"{kind}/{name} takes {', '.join(door.methods)} only")
    upstream = f"{kind}/{name}"
    if kind == MCP:
        if below not in ("", "/"):
            raise UnknownRoute(f"an MCP server has one path: /mcp/{name}")
        return Route(MCP_TEMPLATE, "mcp", "", upstream, (door.base or "/").encode() + query)
    if not any(allows(pattern, below or "/") for pattern in door.paths):
        raise Forbidden(f"the tool {name} has no such path", code="tool_path_not_allowed")
    base = door.base.rstrip("/") if below else door.base
    return Route(TOOL_TEMPLATE, "tool", EXECUTE_TOOL, upstream, (base + below or "/").encode() + query)


def allows(pattern: str, path: str) -> bool:
    """Is this path one of the pattern? Both begin with a slash."""
    wanted, given = pattern.split("/"), path.split("/")
    if wanted[-1] == "**":
        wanted.pop()
        given = given[: len(wanted)] if len(given) > len(wanted) else []
    return len(wanted) == len(given) and all(map(matches, wanted, given))
