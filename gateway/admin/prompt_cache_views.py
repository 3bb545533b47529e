"""What the API says about the prompt caches of providers; part of `gateway.admin.views`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

LostUsd = Annotated[
    float | None, Meta(description="US dollars above what a stable prefix would have cost; null: unknown.")
]
Index = Annotated[int | None, Meta(description="Of that tool definition, system block or message, from 0.")]


class CallPromptCacheView(Struct, kw_only=True):
    """What its provider's prompt cache did for a call that could have been read from it."""

    readable_tokens: Annotated[int, Meta(description="That a stable prefix would have let the provider read.")]
    read_tokens: int
    lost_tokens: int
    lost_usd: LostUsd
    cause: Annotated[
        str | None,
        Meta(
            description="changed, reordered, inserted, shortened, model, tool_choice, thinking, ttl, unmarked or "
            "provider; null: nothing was lost."
        ),
    ]
    part: Annotated[str | None, Meta(description="What changed first: tool, system, message or a field.")]
    index: Index
    hint: str | None


class PromptCacheLossView(Struct, kw_only=True):
    """Calls that lost for one cause at one place."""

    cause: str
    part: str | None
    index: Index
    calls: int
    lost_tokens: int
    lost_usd: LostUsd
    hint: str | None


class PromptCacheTotals(Struct, kw_only=True):
    """Sums over the calls that could have hit; `hit_ratio` is what they read by all their input."""

    calls: int
    input_tokens: int
    readable_tokens: int
    read_tokens: int
    hit_ratio: float
    lost_tokens: int
    lost_usd: LostUsd
    ttl_misses: int


class AgentPromptCacheView(PromptCacheTotals, kw_only=True):
    """The same of one agent, with what it lost, the dearest first."""

    agent: str | None
    losses: list[PromptCacheLossView]


class RunPromptCacheView(PromptCacheTotals, kw_only=True):
    """What the prompt caches did for a run."""

    agents: list[AgentPromptCacheView]
