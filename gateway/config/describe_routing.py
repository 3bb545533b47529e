"""What the fields about routes mean; part of gateway.config.describe."""

from __future__ import annotations

from gateway.config import schema_routing as schema
from gateway.config.schema_base import Config_

_WILD = ", with * as wildcard."

FIELDS: dict[type[Config_], dict[str, str]] = {
    schema.Route: {
        "to": "Targets: models, or a model, an upstream and what is known of it; other APIs are translated.",
        "by": "How one is chosen: weight, priority (as listed), latency, cost, headroom (of rate limits), or "
        "learned (see `learn`).",
        "model": "Model that the rule is for, as asked for or as an alias has it" + _WILD,
        "route": "Route that it is for, as records name it" + _WILD,
        "upstream": "Upstream that it is for: where the call was going" + _WILD,
        "agent": "Agent that it is for" + _WILD,
        "agent_version": "Version that the agent announces" + _WILD,
        "key": "Virtual key that it is for, by name or id" + _WILD,
        "team": "Team of the virtual key" + _WILD,
        "request_class": "Class of requests that it is for, as records have it" + _WILD,
        "min_tokens": "Only requests of at least so many tokens, as estimated from their size.",
        "max_tokens": "Only requests of at most so many tokens, as estimated from their size.",
        "tools": "Only requests that declare tools, or only those that do not.",
        "headers": "Request headers that must be there: name and pattern of the value" + _WILD,
        "hours": "Only between these times of the day in UTC, as 22:00-06:00.",
        "sticky": "Whether a run stays with its target: while the provider's cache is warm, by weight for good.",
        "warm": "Seconds after its last call for which a run stays.",
        "canary": "A target, or a prompt-cache policy, on trial for a share of the runs.",
        "learn": "What is learned of its targets from outcomes, whatever it chooses by; needed for `by: learned`.",
        "cascade": "Whether an answer that has not the form that was demanded (JSON, its schema, a tool call) is "
        "withheld, and the next dearer target asked. For `by: priority` (cheap ones first), cost and learned.",
    },
    schema.Cascade: {
        "hold_bytes": "Bytes of an answer that are held back to be checked; a longer one is passed on unchecked.",
    },
    schema.Learn: {
        "id": "Name of what is learned; another name begins anew.",
        "quality": "Goal: at least this share of the best single target's quality; 0.97 where no goal is stated.",
        "cost": "Goal: at most this share of its cost.",
        "usd_per_day": "Goal: at most so many US dollars per day, at the rate at which calls come in.",
        "per": "Whether each agent, team or key has labels and weights of its own.",
        "labels": "File of labelled prompts to begin with, as `tollgate route eval` reads it; models as the targets "
        "name them.",
        "explore": "Share of the calls, at most 0.02, that take another target by chance, so that it is learned of.",
        "shadow": "Share of the calls answered by the first target, at most 0.05, that another target is asked behind "
        "the client's back, to compare the answers; charged like other calls.",
    },
    schema.RouteTo: {
        "model": "Model that is asked for; null: as it was.",
        "upstream": "Upstream that it is asked at; null: as it was.",
        "weight": "Share of the runs, against those of the other targets.",
        "context": "Tokens that a request and its answer may have; null: what is known of the model.",
        "lacks": "What it cannot do: tools, images, json.",
    },
    schema.CanaryTo: {
        "id": "Name of this trial; another name begins a new one, with new evidence.",
        "to": "The target on trial; null: `breakpoints` are.",
        "breakpoints": "In place of `to`: `prompt_cache.breakpoints` of the runs on trial.",
        "share": "Share of the runs that it gets.",
        "alpha": "Chance, at most, that a target that changes nothing is rolled back.",
        "least_runs": "Runs that it must have had before it is promoted.",
        "ratio": "So many times as many failing runs must be ruled out before it is promoted, unless `rate` is.",
        "rate": "Or this share of its runs that fail must be ruled out.",
    },
}
