"""The routes of the admin API as a table, and the OpenAPI 3.1 document made from it and from the answer types."""

from __future__ import annotations

import functools
import re
from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.admin import (
    breaker_views,
    budget_views,
    bulkhead_views,
    cache_views,
    decision_views,
    key_views,
    limit_views,
    live_views,
    route_views,
    views,
)
from gateway.admin.cache import CHOICES
from gateway.admin.params import CALL_OUTCOMES, LIMIT_DEFAULT, LIMIT_MAX, RUN_OUTCOMES, TEXT_MAX
from gateway.admin.tally import DIMENSIONS
from gateway.admin.tally_past import RANGES
from gateway.policy.limits import SCOPES


class Price(Struct, kw_only=True):
    """What is known of the price of a model: rates by component in USD per so many units, dated and by context."""

    provider: str
    model: str
    known: bool
    version: str


class PriceList(Struct, kw_only=True):
    """Prices of the models that calls asked for."""

    version: str
    models: list[Price]


class Route(Struct, frozen=True):
    """`name` is the handler; `query` the parameters it knows; `answers` the type by status, None for plain text."""

    method: str
    path: str
    name: str
    summary: str
    answers: dict[int, type | None]
    query: tuple[str, ...] = ()
    body: type | None = None
    open: bool = False  # without a token
    events: bool = False  # a stream of them; the type is that of their data

    @property
    def pattern(self) -> str:
        """The path as the router wants it: names of models, and other values, may have slashes, and ids braces."""
        return self.path.replace("{model}", "{model:.+}").replace("{value}", "{value:.+}").replace("{id}", "{id:[^/]+}")


_DECIDED: Final[dict[int, type | None]] = {200: decision_views.DecidedView, 202: decision_views.DecidedView}
_LIMITED: Final[dict[int, type | None]] = {200: limit_views.LimitedView, 202: limit_views.LimitedView}
_CALL_QUERY = ("run", "agent", "tenant", "model", "outcome", "since", "until", "limit", "cursor")
_OUTCOME_QUERY = ("agent", "tenant", "since", "until")

ROUTES: Final = (
    Route("GET", "/", "index", "What is here; for a browser, the live page.", {200: views.Index}),
    Route("GET", "/healthz", "healthz", "The recorder is alive.", {200: views.Health}, open=True),
    Route(
        "GET", "/readyz", "readyz", "Whether the gateway takes traffic.",
        {200: views.Readiness, 503: views.Readiness}, open=True,
    ),
    Route("GET", "/metrics", "metrics", "Prometheus metrics; OpenMetrics where accepted.", {200: None}),
    Route("GET", "/openapi.json", "openapi", "This document.", {200: dict}),
    Route("GET", "/api/summary", "live_summary", "Spending, and what is the matter.", {200: live_views.SummaryView}),
    Route(
        "GET", "/api/spenders", "spenders", "Who spent what.", {200: live_views.SpenderList}, ("by", "range", "limit")
    ),
    Route(
        "GET", "/api/events", "live_events", "Server-sent events: `summary`, `runs` (with new calls), `trouble`.",
        {200: live_views.ChangedRuns}, events=True,
    ),
    Route("GET", "/api/calls", "calls", "Calls, newest first.", {200: views.CallPage}, _CALL_QUERY),
    Route("GET", "/api/calls/{id}", "call", "One call.", {200: views.CallView}),
    Route("GET", "/api/runs", "runs", "Runs, the one begun last first.", {200: views.RunPage},
        (*_CALL_QUERY[1:], "search", "order")),
    Route("GET", "/api/runs/{id}", "run", "One run with its tree.", {200: views.RunDetail}),
    Route(
        "POST", "/api/runs/{id}/outcome", "report_outcome", "Report what a run achieved; the last report counts.",
        {201: views.OutcomeView, 202: views.OutcomeView}, body=views.OutcomeIn,
    ),
    Route(
        "GET", "/api/runs/{id}/summary", "run_summary", "A run in a few figures; waits for records on their way.",
        {200: decision_views.RunSummary},
    ),
    Route(
        "POST", "/api/runs/{id}/kill", "kill_run", "Stop a run: its next call, and the calls under way.",
        _DECIDED, body=decision_views.DecisionIn,
    ),
    Route(
        "POST", "/api/runs/{id}/resume", "resume_run", "Let a stopped run go on.",
        _DECIDED, body=decision_views.DecisionIn,
    ),
    Route(
        "POST", "/api/runs/{id}/raise", "raise_run", "Give a run another budget, also while it waits.",
        _DECIDED, body=decision_views.RaiseIn,
    ),
    Route(
        "PUT", "/api/runs/{id}/limits", "limit_run", "Limit a run, also before its first call.",
        _DECIDED, body=decision_views.LimitsIn,
    ),
    Route(
        "POST", "/api/kill", "kill", "Stop a run, an agent, a key or a team.",
        _DECIDED, body=decision_views.SubjectIn,
    ),
    Route("POST", "/api/resume", "resume", "Let it go on.", _DECIDED, body=decision_views.SubjectIn),
    Route("GET", "/api/controls", "controls", "What is stopped, and the latest decisions.",
        {200: decision_views.ControlsView}),
    Route("GET", "/api/breakers", "breakers", "How breakers stand.", {200: breaker_views.BreakerList}),
    Route(
        "POST", "/api/breakers", "force_breaker", "Hold a breaker open or closed, or let it go by what it counts.",
        _DECIDED, body=breaker_views.BreakerIn,
    ),
    Route("GET", "/api/bulkheads", "bulkheads", "How full pools are.", {200: bulkhead_views.BulkheadList}),
    Route("GET", "/api/limits", "limits", "Limits that were set here.", {200: limit_views.LimitList}),
    Route(
        "PUT", "/api/limits/{scope}/{value}", "set_limit", "Limit a scope: a team, a key, an agent, a model, ...",
        _LIMITED, body=limit_views.CapsIn,
    ),
    Route(
        "GET", "/api/limits/{scope}/{value}", "limit", "What was set for one scope and value.",
        {200: limit_views.ScopeLimitsView},
    ),
    Route(
        "DELETE", "/api/limits/{scope}/{value}", "remove_limit", "Take away what was set here.",
        _LIMITED, ("reason", "by"),
    ),
    Route("GET", "/api/keys", "keys", "Virtual keys, without their secrets.", {200: key_views.KeyList}),
    Route(
        "POST", "/api/keys", "create_key", "Make a key; its secret is in this answer alone.",
        {201: key_views.KeySecretView}, body=key_views.KeyIn,
    ),
    Route("GET", "/api/keys/{id}", "key", "One key, by id or name.", {200: key_views.KeyView}),
    Route(
        "POST", "/api/keys/{id}/rotate", "rotate_key", "Give a key another secret, which is in this answer alone.",
        {200: key_views.KeySecretView}, body=key_views.RotateIn,
    ),
    Route(
        "POST", "/api/keys/{id}/disable", "disable_key", "Refuse a key, and those made under it, for good.",
        {200: key_views.KeyView}, body=key_views.DisableIn,
    ),
    Route(
        "GET", "/api/budgets", "budgets", "How budgets and limits stand, by name of account.",
        {200: budget_views.BudgetPage}, ("scope", "prefix", "over", "limit", "cursor"),
    ),
    Route(
        "POST", "/api/budgets/adjust", "adjust_budget", "Book by hand: a credit, or what was spent elsewhere.",
        {200: budget_views.AdjustedView, 201: budget_views.AdjustedView}, body=budget_views.AdjustIn,
    ),
    Route(
        "GET", "/api/budgets/adjustments", "adjustments", "What was booked by hand, the latest first.",
        {200: budget_views.AdjustmentList}, ("limit",),
    ),
    Route("GET", "/api/cache", "cache", "Stored answers that are still good.", {200: cache_views.CacheView}),
    Route(
        "GET", "/api/cache/semantic", "semantic_cache", "Answers to similar questions: evidence, hits, savings.",
        {200: cache_views.SemanticView},
    ),
    Route(
        "POST", "/api/cache/feedback", "cache_feedback", "Say that an answer to a similar question was right or wrong.",
        {200: cache_views.FeedbackView}, body=cache_views.FeedbackIn,
    ),
    Route(
        "DELETE", "/api/cache", "clear_cache", "Forget stored answers: those that match all that is given, or all.",
        {200: cache_views.ClearedView}, CHOICES,
    ),
    Route(
        "GET", "/api/routes", "routes", "Where calls go, and how canaries stand.", {200: route_views.RouteList},
    ),
    Route(
        "GET", "/api/routes/learned", "learned", "What was learned of targets, from how many labels.",
        {200: route_views.LearnedList},
    ),
    Route("GET", "/api/outcomes", "outcomes", "Cost per outcome.", {200: views.OutcomePage}, _OUTCOME_QUERY),
    Route("GET", "/api/prices", "prices", "Prices of the models in use.", {200: PriceList}),
    Route("GET", "/api/prices/{model}", "price", "The price of one model.", {200: Price}, ("provider",)),
)  # fmt: skip

_TEXT = {"type": "string", "maxLength": TEXT_MAX}
_QUERY: Final[dict[str, dict[str, Any]]] = {
    "run": {"description": "Id of a run.", "schema": _TEXT},
    "agent": {"description": "Name of an agent; of runs, one that took part.", "schema": _TEXT},
    "tenant": {"description": "Name of a tenant.", "schema": _TEXT},
    "model": {"description": "A model, requested or used.", "schema": _TEXT},
    "outcome": {"description": "How it ended.", "schema": {"type": "string", "enum": list(CALL_OUTCOMES)}},
    "since": {"description": "Begun at or after: RFC 3339 or seconds since the epoch.", "schema": _TEXT},
    "until": {"description": "Begun before: RFC 3339 or seconds since the epoch.", "schema": _TEXT},
    "scope": {"description": "Only of this scope.", "schema": {"type": "string", "enum": list(SCOPES)}},
    "prefix": {"description": "Only accounts whose names begin so.", "schema": _TEXT},
    "search": {"description": "Somewhere in the id, the agent or the tenant of a run; either case.", "schema": _TEXT},
    "order": {
        "description": "The latest first, or the dearest, of which there is one page.",
        "schema": {"type": "string", "enum": ["recent", "cost"], "default": "recent"},
    },
    "reason": {"description": "Why.", "schema": _TEXT},
    "by": {"description": "Who decides, for the audit.", "schema": _TEXT},
    "range": {
        "description": "Calls begun today, in the last 24 hours from a full hour on, or today and in the 6 or 29 days "
        "before, days being those of budgets.",
        "schema": {"type": "string", "enum": list(RANGES), "default": "today"},
    },
    "over": {
        "description": "Also of windows that are over.",
        "schema": {"type": "string", "enum": ["true", "false"], "default": "false"},
    },
    "route": {"description": "A route, as calls have it.", "schema": _TEXT},
    "upstream": {"description": "Name of an upstream.", "schema": _TEXT},
    "tag": {"description": "A tag that clients gave, see x-tollgate-cache-tags.", "schema": _TEXT},
    "tool": {"description": "A tool, by name or server/name: of answers that are its outputs.", "schema": _TEXT},
    "entry": {"description": "Name of one stored answer, as x-tollgate-cache-entry.", "schema": _TEXT},
    "limit": {
        "description": "Entries on a page.",
        "schema": {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT},
    },
    "cursor": {"description": "`next` of the page before.", "schema": _TEXT},
    "provider": {
        "description": "Provider id of the price catalogue; default: the one the name implies.",
        "schema": _TEXT,
    },
}
# Parameters that mean something else on some routes, by the route's name.
_ELSEWHERE: Final[dict[tuple[str, str], dict[str, Any]]] = {
    ("runs", "outcome"): {
        "description": "What was reported.",
        "schema": {"type": "string", "enum": list(RUN_OUTCOMES)},
    },
    ("spenders", "by"): {
        "description": "What they are.",
        "schema": {"type": "string", "enum": list(DIMENSIONS), "default": DIMENSIONS[0]},
    },
}
_REF = "#/components/schemas/{name}"


@functools.cache
def document(version: str) -> dict[str, Any]:
    """The OpenAPI document."""
    types = [t for route in ROUTES for t in (*route.answers.values(), route.body) if t not in (None, dict)]
    _, components = msgspec.json.schema_components([*types, views.Problem], ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tollgate admin API",
            "version": version,
            "description": "What every LLM call of your agents did, took and cost.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "admin_token"}},
        },
        "security": [{"token": []}, {}],
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {"operationId": route.name, "summary": route.summary}
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    parameters += [
        {"name": name, "in": "query", **_ELSEWHERE.get((route.name, name), _QUERY[name])} for name in route.query
    ]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": _json(route.body)}
    responses = {str(status): _answer(status, type_, route.events) for status, type_ in route.answers.items()}
    problem = {"schema": {"$ref": _REF.format(name=views.Problem.__name__)}}
    responses["default"] = {"description": "An error.", "content": {"application/problem+json": problem}}
    operation["responses"] = responses
    if route.open:
        operation["security"] = []
    return operation


def _answer(status: int, type_: type | None, events: bool) -> dict[str, Any]:
    description = {200: "OK", 201: "Created", 202: "Written; shown soon", 503: "Not ready"}[status]
    if type_ is None:
        text = {"schema": {"type": "string"}}
        return {"description": description, "content": {"text/plain": text, "application/openmetrics-text": text}}
    content = _json(type_)
    return {
        "description": description,
        "content": {"text/event-stream": {"schema": {"type": "string"}}} if events else content,
    }


def _json(type_: type) -> dict[str, Any]:
    schema = {"type": "object"} if type_ is dict else {"$ref": _REF.format(name=type_.__name__)}
    return {"application/json": {"schema": schema}}
