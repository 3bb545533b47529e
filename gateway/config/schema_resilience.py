"""What is done about upstreams that fail; part of gateway.config.schema."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from gateway.config.schema_base import Config_, Name, Seconds, Share


class Timeouts(Config_, frozen=True):
    """The defaults leave a reasoning model its ten minutes of silence."""

    connect: Seconds = 10
    first_byte: Seconds = 600
    first_content: Seconds = 600  # pings and empty events are no content
    idle: Seconds = 300  # between two pieces of an answer
    total: Seconds = 3600
    ping: Seconds | None = None  # silence at the beginning of a stream after which the gateway pings the client


class TimeoutRule(Config_, frozen=True):
    """Other timeouts for the calls that match all of its patterns. The first rule that states a timeout counts."""

    route: str = "*"  # as records have it: /v1/chat/completions
    upstream: str = "*"
    model: str = "*"  # as asked for, or as an alias has it
    agent: str = "*"
    connect: Seconds | None = None
    first_byte: Seconds | None = None
    first_content: Seconds | None = None
    idle: Seconds | None = None
    total: Seconds | None = None
    ping: Seconds | None = None


class Retries(Config_, frozen=True):
    """The same question to the same upstream once more, where nothing of an answer was passed on."""

    attempts: Annotated[int, Meta(ge=1, le=10)] = 3  # at one upstream for one call, the first included; 1: no retries
    budget: Share = 0.2  # of the calls of an upstream, that may be retries
    base: Seconds = 0.5  # the wait before a retry is anything up to this, up to twice this before the next, ...
    longest: Seconds = 10  # and at most this; where the upstream asks for more it is not asked again
    within: Seconds = 60  # from the begin of a call, in which retries begin
    with_sdk: bool = False  # also for clients that say that they retry by themselves
    timeouts: bool = False  # also where an answer did not come in time: the upstream may still work on it, and bill it


class Hedging(Config_, frozen=True):
    """A second attempt beside one whose first content is late; the one that says something first is passed on, and both
    are paid for. For calls that match all of its patterns, and that can be done twice."""

    enabled: bool = False
    share: Annotated[float, Meta(gt=0, le=1)] = 0.05  # of the calls of an upstream, at most
    quantile: Annotated[float, Meta(ge=0.5, lt=1)] = 0.95  # of the times to the first content, from which on it is late
    sample: Annotated[int, Meta(ge=10, le=200)] = 20  # answers of a target, before that is known
    least: Seconds = 0.05  # no sooner
    route: str = "*"  # as records have it: /v1/chat/completions
    upstream: str = "*"  # that is asked first
    model: str = "*"  # as asked for, or as an alias has it
    agent: str = "*"


class Goal(Config_, frozen=True):
    """Where a call goes next. What is not named stays as it is."""

    upstream: Name | None = None
    model: str | None = None
    weight: Annotated[float, Meta(gt=0, le=1_000_000)] = 1


Trouble = Literal["failure", "context", "policy"]


class Fallback(Config_, frozen=True):
    """Where the calls that match all of its patterns go on, in turn, until one of them answers. The first rule that
    matches counts, for each kind of trouble."""

    to: tuple[Goal | Name, ...]
    route: str = "*"
    upstream: str = "*"  # the first one
    model: str = "*"  # as asked for, or as an alias has it
    agent: str = "*"
    on: tuple[Trouble, ...] = ("failure",)
    order: Literal["listed", "weighted"] = "listed"


class Breakers(Config_, frozen=True):
    """Upstreams, their models and tools that fail are left alone for a while; see gateway.policy.breaker."""

    enabled: bool | None = None  # null: where there are other targets, or anything else is said here
    refuse: bool = False  # also calls that have no other target; else those are sent all the same
    window: Seconds = 30
    volume: Annotated[int, Meta(ge=1)] = 20  # calls in the window, before shares count
    failure_rate: Annotated[float, Meta(gt=0, le=1)] = 0.5
    slow_seconds: Seconds | None = None  # a call that takes longer to its first byte is slow; null: none is
    slow_rate: Annotated[float, Meta(gt=0, le=1)] = 0.8
    consecutive: Annotated[int, Meta(ge=0)] = 5  # failures in a row; 0: they do not count
    pause: Seconds = 5  # open for so long, twice as long the next time, ...
    longest: Seconds = 60  # and at most this
    probes: Annotated[int, Meta(ge=1, le=100)] = 1  # that must go well in a row, one at a time
    # Seconds that a call which is one waits before the next target is asked beside it; null: for as long as it takes
    patience: Annotated[float, Meta(ge=0, le=86_400)] | None = 0
