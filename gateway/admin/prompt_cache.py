"""The prompt-cache health of calls and runs, as the API answers it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from sqlite3 import Row
from typing import Any

from gateway.admin.prompt_cache_views import (
    AgentPromptCacheView,
    CallPromptCacheView,
    PromptCacheLossView,
    RunPromptCacheView,
)
from gateway.call import PICO_USD, CacheHealth


def of_call(health: CacheHealth | None) -> CallPromptCacheView | None:
    if health is None:
        return None
    return CallPromptCacheView(
        readable_tokens=health.readable,
        read_tokens=health.read,
        lost_tokens=health.lost_tokens,
        lost_usd=None if health.lost is None else health.lost / PICO_USD,
        cause=health.cause or None,
        part=health.part or None,
        index=health.index if health.index >= 0 else None,
        hint=health.hint or None,
    )


def of_run(rows: Sequence[Row]) -> RunPromptCacheView | None:
    """Of the groups of `LedgerReader.prompt_cache`, in the order of their agents; None where no call could hit."""
    if not rows:
        return None
    agents = [_agent(name, list(group)) for name, group in groupby(rows, lambda row: row["agent"])]
    return RunPromptCacheView(**_totals(rows), agents=agents)


def _agent(name: str, rows: Sequence[Row]) -> AgentPromptCacheView:
    losses = sorted((row for row in rows if row["cause"]), key=lambda row: (row["lost"] or 0, row["lost_tokens"]))
    return AgentPromptCacheView(agent=name or None, **_totals(rows), losses=[_loss(row) for row in reversed(losses)])


def _totals(rows: Sequence[Row]) -> dict[str, Any]:
    def total(column: str) -> int:
        return sum(row[column] for row in rows)

    return {
        "calls": total("calls"),
        "input_tokens": total("input"),
        "readable_tokens": total("readable"),
        "read_tokens": total("read"),
        "hit_ratio": total("read") / max(1, total("input")),
        "lost_tokens": total("lost_tokens"),
        "lost_usd": _usd(rows),
        "ttl_misses": sum(row["calls"] for row in rows if row["cause"] == "ttl"),
    }


def _usd(rows: Sequence[Row]) -> float | None:
    """Null where a part of it is unknown."""
    return None if any(row["unknown"] for row in rows) else sum(row["lost"] or 0 for row in rows) / PICO_USD


def _loss(row: Row) -> PromptCacheLossView:
    return PromptCacheLossView(
        cause=row["cause"],
        part=row["part"] or None,
        index=row["place"] if row["place"] >= 0 else None,
        calls=row["calls"],
        lost_tokens=row["lost_tokens"],
        lost_usd=_usd([row]),
        hint=row["hint"] or None,
    )
