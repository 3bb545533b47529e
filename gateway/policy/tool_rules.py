"""Which tools a caller may use, and see: as the operator says of their server, and as its key does. Pure.

Rules
1. Names count as written: `allow`, and the tools of a key, are matched with letter case.
2. `deny` is matched without it, and without what else a server might not mind: space around a name, and letters that
   are others' compatible forms (ｒｍ for rm). A server shall not be led to a denied tool by how its name is written.
3. Of an MCP server a key names a tool by its name, or by server/name.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.config.patterns import any_matches, plainly
from gateway.key import ANY, Key
from gateway.tool import MCP_PREFIX, Terms


def refused(terms: Terms, key: Key | None, upstream: str, name: str) -> str:
    """Why this tool must not be called, "" where it may be."""
    if not any_matches(terms.allow, name) or any_matches(map(plainly, terms.deny), plainly(name)):
        return f"the tool {name[:200]} is not offered here"
    if key is None or ANY in key.tools or any_matches(key.tools, name):
        return ""
    if upstream.startswith(MCP_PREFIX) and any_matches(key.tools, f"{terms.server}/{name}"):
        return ""
    return f"the key {key.prefix} does not allow the tool {name[:200]}"


def sight(terms: Terms, key: Key | None, upstream: str) -> Callable[[str], bool] | None:
    """Whether the caller may see a tool of this name; None where it may see all of them, or nothing lists any."""
    if not upstream.startswith(MCP_PREFIX):
        return None
    if not terms.restricted and (key is None or ANY in key.tools):
        return None
    return lambda name: not refused(terms, key, upstream, name)
