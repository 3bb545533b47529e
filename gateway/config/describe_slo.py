"""What the fields about goals of service mean; part of gateway.config.describe."""

from __future__ import annotations

from gateway.config import schema_slo as schema
from gateway.config.schema_base import Config_

FIELDS: dict[type[Config_], dict[str, str]] = {
    schema.Slo: {
        "name": "Name of the goal: `sloth_slo` in the rules.",
        "sli": "What is counted: availability, overhead, first_token, duration, tools, cache or telemetry.",
        "objective": "Percent of it that shall be good, over 30 days.",
        "seconds": "Up to which a time is good; a bound of the histogram that counts it.",
        "match": "Only what has these labels, as {provider: openai}.",
        "least": "Events in the longer window of an alert, below which it says nothing.",
        "page": "Whether what burns fast is to wake somebody.",
    },
}
