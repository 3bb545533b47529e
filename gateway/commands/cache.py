"""`tollgate cache`: see what is stored, and forget it. Through the running gateway, else in its store."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from msgspec import structs

from gateway.commands.client import NoGateway, Refused, admin_of
from gateway.config import check_semantic
from gateway.config.load import load
from gateway.config.schema import Config
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
    if check_semantic.active(config):
        show_semantic(config)
    return 0


def show_semantic(config: Config) -> None:
    """Print what is known of answers to similar questions, as far as the matcher can be asked."""
    try:
        found: dict[str, Any] = admin_of(config).ask("GET", "/api/cache/semantic")
    except (NoGateway, Refused) as error:
        print(f"similar questions: {error}")
        return
    print(f"similar questions: {found['questions']} remembered, {found['embedder'] or found['trouble'] or 'starting'}")
    for scope in found["scopes"]:
        share = "unknown" if scope["wrong_share"] is None else f"{scope['wrong_share']:.2%}"
        cut = "none" if scope["cut"] is None else f"{scope['cut']:.3f}"
        print(f"  {scope['scope']}: {scope['status']}{': ' if scope['why'] else ''}{scope['why']}")
        print(
            f"    wrong {share} ({scope['wrong_lower']:.2%} to {scope['wrong_upper']:.2%} by {scope['verified']} "
            f"verified, {scope['wrong']} wrong), target {scope['target']:.2%}, cut {cut}"
        )
        print(
            f"    {scope['hits']} hits saved ${scope['saved_usd']:.4f}, checking cost ${scope['shadow_cost_usd']:.4f}, "
            f"{scope['reported_wrong']} reported wrong, {scope['trips']} trips"
        )


def feedback(
    path: Path | None, env: Mapping[str, str], overrides: Mapping[str, object], said: Mapping[str, str]
) -> int:
    """Say what an answer to a similar question was worth. Raises ConfigError, NoGateway, Refused."""
    config = load(path, env, overrides)
    given = {name: value for name, value in said.items() if value}
    found = admin_of(config).ask("POST", "/api/cache/feedback", given)
    print(f"noted of {found['hits']} hits; {found['cleared']} stored answers forgotten")
    return 0
