"""`tollgate cache`: see what is stored, and forget it. Through the running gateway, else in its store."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from msgspec import structs

from gateway.commands.client import NoGateway, admin_of
from gateway.config.load import load
from gateway.policy.cached import Chosen, of_tool
from gateway.stores.late import cache_desk

_COLUMNS = ("TENANT", "ROUTE", "MODEL", "ANSWERS", "BYTES", "HITS")


def clear(
    path: Path | None, env: Mapping[str, str], overrides: Mapping[str, object], chosen: Chosen, tool: str = ""
) -> int:
    """Forget stored answers and say how many. Raises ConfigError, Refused, CacheUnusable."""
    config = load(path, env, overrides)
    said = {name: value for name, value in {**structs.asdict(chosen), "tool": tool}.items() if value}
    try:
        count = admin_of(config).ask("DELETE", f"/api/cache?{urlencode(said)}")["cleared"]
        where = ""
    except NoGateway as error:
        desk = cache_desk(config)
        count = sum([desk.clear(one) for one in (of_tool(chosen, tool) if tool else (chosen,))])
        where = f"; {error}: removed from {desk.place}"
    print(f"{count} stored answer{'' if count == 1 else 's'} forgotten{where}")
    return 0


def show(path: Path | None, env: Mapping[str, str], overrides: Mapping[str, object]) -> int:
    """Print what is stored. Raises ConfigError, Refused, CacheUnusable."""
    config = load(path, env, overrides)
    try:
        found: dict[str, Any] = admin_of(config).ask("GET", "/api/cache")
    except NoGateway as error:
        desk = cache_desk(config)
        print(f"{error}; from {desk.place}", file=sys.stderr)
        contents = desk.contents(time.time_ns())
        found = {**structs.asdict(contents), "groups": [structs.asdict(group) for group in contents.groups]}
    fields = ("tenant", "route", "model", "entries", "bytes", "hits")
    lines: list[tuple[str, ...]] = [_COLUMNS]
    lines += [tuple([str(group[name]) for name in fields]) for group in found["groups"]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_COLUMNS))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    print(f"{found['entries']} stored answers, {found['bytes']} bytes, given again {found['hits']} times")
    return 0
