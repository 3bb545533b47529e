"""`tollgate bulkheads list`: how full each pool of places is. Only a running gateway knows; it is asked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from gateway.commands.client import admin_of
from gateway.config.load import load

SHED = ("", "batch calls are refused", "batch and interactive calls are refused", "all calls are refused")


def status(path: Path | None, env: Mapping[str, str], overrides: Mapping[str, object], *, as_json: bool) -> int:
    """Raises ConfigError, NoGateway, Refused."""
    found = admin_of(load(path, env, overrides)).ask("GET", "/api/bulkheads")
    print(msgspec.json.encode(found).decode() if as_json else "\n".join(lines(found)))
    return 0


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """For people."""
    level = found["overload_level"]
    if level:
        yield f"a worker has too much to do: {SHED[level]}"
    for one in found["bulkheads"]:
        yield from _pool(one)
    if not found["bulkheads"]:
        yield "no pools are configured"


def _pool(one: Mapping[str, Any]) -> Iterator[str]:
    kind = f", one for each {one['each']}" if one["each"] else ""
    places = "place" if one["limit"] == 1 else "places"
    adaptive = f" (adaptive, at most {one['max']})" if one["adaptive"] else ""
    yield f"{one['name']}{kind}: {one['in_flight']} of {one['limit']} {places}{adaptive}, {one['waiting']} waiting"
    if one["refused"]:
        yield f"  refused: {', '.join(f'{count} {reason}' for reason, count in one['refused'].items())}"
    if len(one["workers"]) > 1:
        for own in one["workers"]:
            taken = f"{own['in_flight']} of {own['limit']}, {own['waiting']} waiting"
            yield f"  worker {own['worker']}: {taken}"
