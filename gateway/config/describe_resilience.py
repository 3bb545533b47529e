"""What the fields about upstreams that fail mean; part of gateway.config.describe."""

from __future__ import annotations

from gateway.config import schema

_TIMEOUTS = {
    "connect": "Name resolution, TCP and TLS together, in seconds.",
    "first_byte": "From the request sent to the first byte of the answer, in seconds.",
    "first_content": "From the request sent to the first event that says something, in seconds; pings are none.",
    "idle": "Between two pieces of an answer, in seconds.",
    "total": "The whole exchange, in seconds.",
    "ping": "Silence at the beginning of a stream, in seconds, after which the gateway itself pings the client; "
    "null: never.",
}
_MATCH = {
    "route": "Route that it is for, as records name it, with * as wildcard.",
    "upstream": "Upstream that it is for, with * as wildcard.",
    "model": "Model that it is for, as asked for or as an alias has it, with * as wildcard.",
    "agent": "Agent that it is for, with * as wildcard.",
}

FIELDS: dict[type[schema.Config_], dict[str, str]] = {
    schema.Timeouts: _TIMEOUTS,
    schema.TimeoutRule: {**_MATCH, **_TIMEOUTS},
}
