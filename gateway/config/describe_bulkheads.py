"""What the fields about pools, priorities and overload mean; part of gateway.config.describe."""

from __future__ import annotations

from gateway.config import schema

_WILD = ", with * as wildcard."
_MATCH = {
    "route": "Route that it is for, as records name it" + _WILD,
    "upstream": "Upstream that it is for, of tools as tools/NAME or mcp/NAME" + _WILD,
    "model": "Model that it is for, as asked for or as an alias has it" + _WILD,
    "agent": "Agent that it is for" + _WILD,
    "request_class": "Class of requests that it is for, as records have it" + _WILD,
    "key": "Name or id of the virtual key that it is for" + _WILD,
    "team": "Team (without keys: tenant) that it is for" + _WILD,
}

FIELDS: dict[type[schema.Config_], dict[str, str]] = {
    schema.PriorityRule: {
        **_MATCH,
        "priority": "urgent, interactive or batch; a client may say less in `x-tollgate-priority`, never more.",
    },
    schema.Bulkhead: {
        **_MATCH,
        "max": "Calls at once, in all workers of this machine together.",
        "each": "A pool of its own for each upstream, model, agent, key or team; default: one for all.",
        "queue": "Calls that wait for a place, in each worker; 0: none waits.",
        "wait": "Seconds that a call waits for a place at most.",
        "order": "Of the waiting calls of one key: as they came, the newest first once the queue is half full (lifo), "
        "or the cheapest first (cost).",
        "batch": "Share of the places that batch calls may have.",
        "weights": "Of teams and keys by name: one of weight 2 has twice as many places as one of 1 while both wait.",
        "thrift": "Share of a budget or of a rate of tokens, spent or held, from which on the cheapest goes first.",
        "adaptive": "Find out how many calls the upstream takes at once, from its latency, up to `max`.",
        "least": "Calls at once at least, where the limit is found out.",
    },
    schema.Overload: {
        "lag_seconds": "Delay of a worker's event loop from which on batch calls are refused, at twice as much "
        "interactive ones, at four times as much all; null: never.",
        "memory_bytes": "Resident memory of a worker from which on batch calls are refused, at 1.1 times as much "
        "interactive ones, at 1.2 times as much all; null: never.",
    },
}
