"""What the API answers about the cache."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Hits = Annotated[int, Meta(description="Times that they were given again, as far as written down: a few seconds late.")]
Bytes = Annotated[int, Meta(description="On disk.")]


class CacheGroupView(Struct, kw_only=True):
    """Stored answers of one tenant, route and model together."""

    tenant: str
    route: str
    model: Annotated[str, Meta(description="Of outputs of tools: the tool.")]
    entries: int
    bytes: Bytes
    hits: Hits


class CacheView(Struct, kw_only=True):
    """Stored answers that are still good; the largest groups of them."""

    entries: int
    bytes: Bytes
    hits: Hits
    groups: list[CacheGroupView]


class ClearedView(Struct, kw_only=True):
    """How many answers were forgotten."""

    cleared: int
