"""The vocabulary of tools that calls pass through to: HTTP tools behind /tools/{name}, MCP servers behind /mcp/{name}.

What the operator says of a tool reaches policy, dialects and stages as `Terms`. Money is pico-USD. Imports nothing.
"""

from __future__ import annotations

from msgspec import Struct

EXECUTE_TOOL = "execute_tool"
"""gen_ai.operation.name of a call that makes a tool do something."""
ANY_TOOL = ("*",)
TOOL_PREFIX, MCP_PREFIX = "tools/", "mcp/"
"""With these the name of a configured tool or server is that of its upstream; no upstream of models has a slash."""


class Price(Struct, frozen=True, gc=False):
    """What a tool costs: a call, or each unit that its answer states in a header or in a place of its JSON."""

    pico: int = 0
    header: bytes = b""  # lower case
    field: tuple[str, ...] = ()  # keys and indices from the outside to the inside
    most: int = 1  # units that are held while the answer is not there

    @property
    def by_unit(self) -> bool:
        return bool(self.header or self.field)


FREE = Price()
OVERRIDES = frozenset(
    (
        b"x-http-method-override",
        b"x-http-method",
        b"x-method-override",
        b"x-original-url",
        b"x-original-uri",
        b"x-rewrite-url",
        b"x-forwarded-host",
        b"x-forwarded-prefix",
        b"forwarded",
    )
)
"""Headers by which some servers take a request for another one than was checked; never sent to a tool."""


class Caching(Struct, frozen=True):
    """Which outputs of a tool or server are given again, and for how long."""

    lifetimes: tuple[tuple[str, int], ...]  # (pattern of paths or tools, ns); the first counts, 0: never
    shared: bool = False  # the sessions of a server share them
    override: bool = False  # also where the tool says that an output is good for less


class Terms(Struct, frozen=True):
    """One configured tool or server."""

    server: str  # as configured, without the prefix of its upstream
    price: Price = FREE
    prices: tuple[tuple[str, Price], ...] = ()  # of single tools of a server: (pattern, price), the first one counts
    allow: tuple[str, ...] = ANY_TOOL  # patterns of the tools of a server that may be called
    deny: tuple[str, ...] = ()  # and of those that may not, in any letter case
    resend: bool = False  # its calls change nothing: one may be sent anew that may have arrived
    caching: Caching | None = None  # None: each call goes to it

    @property
    def restricted(self) -> bool:
        return bool(self.deny) or self.allow != ANY_TOOL
