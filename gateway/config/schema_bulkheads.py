"""How many calls go at once, which first, and when some are sent away; part of gateway.config.schema."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from gateway.config.schema_base import Config_, Count, Seconds, Share

PriorityName = Literal["urgent", "interactive", "batch"]
Weight = Annotated[float, Meta(ge=0.01, le=100)]


class Matching(Config_, frozen=True):
    """Which calls it is for: those that match all of its patterns."""

    route: str = "*"  # as records have it: /v1/chat/completions
    upstream: str = "*"  # also tools/NAME and mcp/NAME
    model: str = "*"  # as asked for, or as an alias has it
    agent: str = "*"
    request_class: str = "*"
    key: str = "*"  # name or id of a virtual key
    team: str = "*"


class PriorityRule(Matching, frozen=True, kw_only=True):
    """How urgent some calls are. The first rule that matches counts."""

    priority: PriorityName


class Bulkhead(Matching, frozen=True, kw_only=True):
    """A pool of places; see gateway.policy.bulkhead. The first pool that matches a call is its own."""

    max: Count  # calls at once, in all workers of this machine together
    each: Literal["upstream", "model", "agent", "key", "team"] | None = None  # a pool for each of these
    queue: Annotated[int, Meta(ge=0, le=100_000)] = 100  # calls that wait for a place, in each worker
    wait: Seconds = 10  # and for how long at most
    order: Literal["fifo", "lifo", "cost"] = "fifo"  # of the calls of one key that wait
    batch: Annotated[float, Meta(gt=0, le=1)] = 1  # share of the places that batch calls may have
    weights: dict[str, Weight] = {}  # of teams and keys, by name; 1 where nothing is said
    thrift: Share = 0.9  # the share of a budget that is spent or held from which on the cheapest call goes first
    adaptive: bool = False  # the limit is found out, up to `max`
    least: Count = 1  # where it is


class Overload(Config_, frozen=True):
    """When calls are sent away, those that matter least first; see gateway.policy.overload."""

    lag_seconds: Seconds | None = None  # that the event loop of a worker is late
    memory_bytes: Annotated[int, Meta(ge=1_048_576)] | None = None  # resident, of one worker
