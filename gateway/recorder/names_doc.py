"""The table of names as a page: `python -m gateway.recorder.names_doc > docs/telemetry.md`."""

from __future__ import annotations

from gateway.recorder.names import AGENTS, GEN_AI, MONEY, SELF, SPAN_HELP, TRAFFIC, Metric

_SECTIONS = (
    ("Traffic", TRAFFIC),
    ("Money", MONEY),
    ("Agents, runs and tools", AGENTS),
    ("The gateway itself", SELF),
    ("OpenTelemetry GenAI", GEN_AI),
)
_INTRO = """# Telemetry

Generated from `gateway/recorder/names.py`; a test keeps the two alike.

Metrics are served at `/metrics` of the admin port (text, or OpenMetrics with exemplars where the scraper accepts it)
and pushed over OTLP under the names in the last column. Every label takes at most `telemetry.label_limit` values;
further ones are counted as `__other__`. Models that are neither priced nor configured are `other`.
"""
_SPANS = """
## Span attributes of our own

Beside the attributes of the OpenTelemetry conventions for GenAI and HTTP.

| attribute | meaning |
|---|---|
"""


def exposed_name(metric: Metric) -> str:
    """As a query spells it."""
    if metric.kind == "counter":
        return f"{metric.name}_total"
    return f"{metric.name}_info" if metric.kind == "info" else metric.name


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{exposed_name(metric)}` | {metric.kind} | {labels} | {metric.help} | `{metric.otel_name}` |\n"


def markdown() -> str:
    """The whole page."""
    page = [_INTRO]
    for title, metrics in _SECTIONS:
        page.append(f"\n## {title}\n\n| metric | type | labels | meaning | OTLP |\n|---|---|---|---|---|\n")
        page += [_row(metric) for metric in metrics]
    page.append(_SPANS)
    page += [f"| `{name}` | {meaning} |\n" for name, meaning in SPAN_HELP.items()]
    return "".join(page)


if __name__ == "__main__":
    print(markdown(), end="")
