"""All dashboards, and the metrics that none of them shows."""

from __future__ import annotations

from dashboards.machine import CACHE, GATEWAY, MODELS, TOOLS
from dashboards.money import AGENTS, COSTS, OVERVIEW
from gateway.recorder.names import GEN_AI

BOARDS = (OVERVIEW, COSTS, AGENTS, MODELS, TOOLS, CACHE, GATEWAY)

NOT_SHOWN = {
    metric.name: "for tools that know the conventions of OpenTelemetry; ours say the same" for metric in GEN_AI
}
"""Metric -> why no panel, rule or alert uses it."""
