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
    schema.Retries: {
        "attempts": "Requests of one call to one upstream at most, the first included; 1: no retries.",
        "budget": "Share of the calls of an upstream that may be retries.",
        "base": "Longest wait before the first retry, in seconds, doubled before each further one; the wait is drawn.",
        "longest": "Longest wait at all, in seconds; an upstream that asks for more is not asked again.",
        "within": "Seconds from the begin of a call in which retries begin.",
        "with_sdk": "Also for clients that say that they retry by themselves (`x-stainless-retry-count`).",
        "timeouts": "Also where no answer came in time: the upstream may still work on it, and both are paid for.",
    },
    schema.Breakers: {
        "enabled": "Leave alone what fails too often; null: where there are other targets, or more is said here.",
        "refuse": "Refuse (503) calls that have no other target, in place of sending them all the same.",
        "window": "Seconds looked back on.",
        "volume": "Calls in the window before shares count.",
        "failure_rate": "Share of calls that failed from which on it opens.",
        "slow_seconds": "Seconds to the first byte from which on a call is slow; null: none is.",
        "slow_rate": "Share of calls that were slow or failed from which on it opens.",
        "consecutive": "Failures in a row after which it opens; 0: they do not count.",
        "pause": "Seconds that it stays open before it is probed, doubled each time the probe fails.",
        "longest": "The longest that it stays open, in seconds, also where the upstream asks for more.",
        "probes": "Probes that must go well in a row, one at a time, before it closes.",
        "patience": "Seconds that a call which is a probe waits before the next target is asked beside it; null: as "
        "long as the probe takes.",
    },
    schema.Hedging: {
        "enabled": "Make such attempts at all: the one that says something first is passed on, and both are paid for.",
        "share": "Share of the calls of an upstream for which one is made at most.",
        "quantile": "Share of the latest answers of a target whose first content came sooner; later than that is late.",
        "sample": "Answers of a target before that is known.",
        "least": "Seconds before which nothing is late.",
        **_MATCH,
    },
    schema.Goal: {
        "upstream": "Upstream that is asked; default: the one that was asked first.",
        "model": "Model that is asked for; default: the same.",
        "weight": "How often it comes before others, where the order is weighted.",
    },
    schema.Fallback: {
        "to": "Upstreams in turn, by name or as {upstream, model, weight}; they speak the dialect of the call.",
        **_MATCH,
        "on": "Kinds of trouble: failure, context (the prompt is too long for the model), policy (content refused).",
        "order": "In turn as listed, or drawn by weight for each call.",
    },
    schema.TimeoutRule: {**_MATCH, **_TIMEOUTS},
}
