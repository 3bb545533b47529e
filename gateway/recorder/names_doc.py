"""The table of names as a page: `python -m gateway.recorder.names_doc > docs/telemetry.md`."""

from __future__ import annotations

from gateway.recorder.names import AGENTS, BUDGETS, CACHE, CANARIES, GEN_AI, LEARNED, MONEY, SELF, TRAFFIC, Metric
from gateway.recorder.names_span import CONVENTIONS_HELP, SPAN_HELP

_SECTIONS = (
    ("Traffic", TRAFFIC),
    ("Money", MONEY),
    ("Budgets, limits and keys", BUDGETS),
    ("Answers already paid for", CACHE),
    ("Targets on trial", CANARIES),
    ("Learned choices", LEARNED),
    ("Agents, runs and tools", AGENTS),
    ("The gateway itself", SELF),
    ("OpenTelemetry GenAI", GEN_AI),
)
_INTRO = """# Telemetry

Generated from `gateway/recorder/names.py`; a test keeps the two alike.

Metrics are served at `/metrics` of the admin port (text, or OpenMetrics with exemplars where the scraper accepts it)
and pushed over OTLP under the names in the last column. Every label takes at most `telemetry.label_limit` values;
further ones are counted as `__other__`. Models that are neither priced nor configured are `other`.
In traffic families `model` is the one asked for, in money and token families the one that answered (dated versions
count as the model they are of). Sums of money are counted in pico-USD and equal those of the ledger. Counters survive
a restart of the recorder.

Budgets are those that calls have met, in US dollars, of all scopes but runs, in their current windows; they are read
from the store at the scrape. `budget` names scope, value, unit and window (`team:payments|usd|day`), as `/api/budgets`
does. Of more than `telemetry.label_limit` the fullest have series of their own, the others are added up as `__other__`.
Every ratio has one denominator: the limit in force. A call has one decision, the last that was taken about it.

## Traces

    invoke_agent {agent}                  a run; sub-agents below it
    ├─ POST {route}                       SERVER: a call as the client saw it
    │  └─ chat|embeddings|... {model}     CLIENT: the operation, all attempts included
    │     └─ POST                         CLIENT: one attempt
    └─ execute_tool {tool}                a tool, from its call in an answer to its result in a request
    ├─ POST /tools/{tool}                 SERVER: a call of a tool behind this gate
       └─ execute_tool {tool}             its execution; the attempts are below it

An execution of a tool stands in one place: where it passed through the gate, the pair of call and result in LLM traffic
is left out. Such a pair is known by its run and the name of the tool (mcp__{server}__{name} means {name}), and by an
execution that ended between the two; calls of tools that state no run are not known to belong to one.

A call that came with a `traceparent` hangs below its caller instead; all others of a run share a trace whose id
follows from the run id. The span of a run is exported when its outcome is reported, after a minute without a call, or
when the gateway ends.

What is kept is decided when a call has ended, and said in `tollgate.sampling.reason`: `error`, `slow`, `cost`
(expensive), `retry`, `first` (of a model or an agent) and `parent` (sampled by the caller) always, up to ten times
`telemetry.sampling.traces_per_second` (at least 100 a second, with bursts of ten seconds' worth); the rest shares that
budget, as `budget`, with the probability in `tollgate.sampling.probability`. What a caller did not sample is kept only
for the first four reasons. Exemplars lead to traces that were kept. Names are those of the newest conventions;
`telemetry.legacy_attributes` adds `gen_ai.system` and `gen_ai.usage.cache_creation.input_tokens`.

A batch that is exported has at most 512 spans and, of captured content, a megabyte (a call with more goes alone), as
collectors refuse large ones whole. What waits, or is on its way to a collector that is slow or away, is bounded too.
Whatever is given up is counted in `tollgate_telemetry_dropped_total`, by `reason`: `queue_full`, `rate_limited`,
`export_failed` (also of a collector that redirects, which is not followed), `rejected` (by a collector that took the
rest; known over HTTP only) and `shutdown`.

## Seen in Phoenix and MLflow

    telemetry:
      otlp: {endpoint: "http://127.0.0.1:6006", metrics: false}            # Phoenix
      # otlp: {endpoint: "http://127.0.0.1:5000", metrics: false,          # MLflow
      #        headers: {x-mlflow-experiment-id: "0"}}
      conventions: [openinference]                                         # or [mlflow], or both

Neither takes metrics. The project of Phoenix is named in the environment of the gateway, by
`OTEL_RESOURCE_ATTRIBUTES=openinference.project.name=...`. An export that takes longer than ten seconds is given up;
`OTEL_EXPORTER_OTLP_TIMEOUT` (seconds) allows a slow back end more.

`make test-backends` plays agents with tools, a sub-agent, errors, streams and four APIs, reads what Arize Phoenix 20.26
and MLflow 3.17 show, and holds it against the ledger, costs to a billionth of a dollar:

* **Both** show the whole tree with its errors; the run as session, where the client stated it; input, output and cached
  tokens as the ledger has them; AGENT, EMBEDDING and TOOL for what they are, and LLM (chats in MLflow: CHAT_MODEL).
  Calls and attempts are of no known kind; with conventions they are CHAIN.
* **MLflow** works out costs from prices of its own. With `mlflow` it shows those of the ledger, also where a price was
  configured, and counts tools behind the gate: a trace costs what its run cost.
* **Phoenix** reads no cost: it works out its own, from its table of prices, whatever it is told; the cost of tools is
  but an attribute there, and embeddings have neither a cost nor a part in its sums of tokens. Without conventions it
  goes by the model asked for, which has no price or the wrong one behind an alias or a route, and takes tokens written
  to a cache for plain input (it reads the older name alone: `telemetry.legacy_attributes`). With `openinference` it
  prices the model that answered and all of its tokens: equal to the ledger where the prices are equal. Prices of your
  own, as those under `prices`, it must be told as well (a test adds a model to its table).

W3C: a client's `traceparent` is the parent of our SERVER span, and with `propagate_trace` our span is the parent that
the upstream hears of, in the same trace. The client's own spans stand above in both back ends.

## Metrics
"""
_SPANS = """
## Span attributes of our own

Beside the attributes of the OpenTelemetry conventions for GenAI and HTTP.

| attribute | meaning |
|---|---|
"""
_CONVENTIONS = """
## Span attributes of other conventions

Written beside the others where `telemetry.conventions` names the convention, for back ends that do not read those of
OpenTelemetry in full.

| attribute | convention | meaning |
|---|---|---|
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
        page.append(f"\n### {title}\n\n| metric | type | labels | meaning | OTLP |\n|---|---|---|---|---|\n")
        page += [_row(metric) for metric in metrics]
    page.append(_SPANS)
    page += [f"| `{name}` | {meaning} |\n" for name, meaning in SPAN_HELP.items()]
    page.append(_CONVENTIONS)
    page += [f"| `{name}` | {of} | {meaning} |\n" for name, (of, meaning) in CONVENTIONS_HELP.items()]
    return "".join(page)


if __name__ == "__main__":
    print(markdown(), end="")
