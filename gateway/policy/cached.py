"""What people ask and learn of stored answers. Pure vocabulary."""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct, structs


class Chosen(Struct, frozen=True):
    """Which stored answers; "" stands for any."""

    tenant: str = ""
    route: str = ""
    upstream: str = ""
    model: str = ""  # of an output of a tool: the tool
    agent: str = ""
    tag: str = ""
    entry: str = ""  # its name: x-tollgate-cache-entry


def of_tool(chosen: Chosen, tool: str) -> tuple[Chosen, ...]:
    """Those of the chosen answers that are outputs of a tool: an HTTP tool of this name, or one of MCP servers, by its
    name or by server/name."""
    server, slash, name = tool.partition("/")
    ways = [{"upstream": f"tools/{tool}"}, {"route": "/mcp/{server}", "model": tool}]
    if slash:
        ways.append({"upstream": f"mcp/{server}", "model": name})
    fitting = [way for way in ways if all(getattr(chosen, field) in ("", value) for field, value in way.items())]
    return tuple([structs.replace(chosen, **way) for way in fitting])


class Group(Struct, frozen=True):
    """Stored answers of one tenant, route and model together."""

    tenant: str
    route: str
    model: str
    entries: int
    bytes: int  # on disk
    hits: int


class Contents(Struct, frozen=True):
    """All that is still good."""

    entries: int = 0
    bytes: int = 0
    hits: int = 0  # as far as written down: a few seconds late
    groups: tuple[Group, ...] = ()


class Desk(Protocol):
    """The cache as people see it. Methods take their time and raise OSError where the cache cannot be used."""

    place: str  # where it is, in a few words

    def contents(self, now: int) -> Contents:
        """`now`: ns since the epoch. Nothing where nothing was ever cached."""
        ...

    def totals(self, now: int) -> Contents | None:
        """Without groups; None where nothing was ever cached."""
        ...

    def clear(self, chosen: Chosen) -> int:
        """Forget entries; returns how many. They are given to nobody any more when this returns."""
        ...
