"""What is done about upstreams that fail; part of gateway.config.schema."""

from __future__ import annotations

from gateway.config.schema_base import Config_, Seconds


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
