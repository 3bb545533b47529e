"""Real back ends read what the gateway exports: Arize Phoenix and MLflow show what the ledger shows.

`make test-backends` installs them; elsewhere these tests are skipped. Each plays the same agents three times: with the
plain attributes of OpenTelemetry, with the older names beside them, and with those of `telemetry.conventions`.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.policy.trace_ids import agent_span_id, child_span_id, run_trace_id, tool_span_id
from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway
from tests.e2e.backends import BACKENDS, START_SECONDS, Backend, Read, Trace, wait
from tests.e2e.conftest import upstreams

pytestmark = pytest.mark.timeout(900)
if all(missing := [made.missing() for made in BACKENDS.values()]):
    pytest.skip("; ".join(missing), allow_module_level=True)

USD = 1e-9  # how close costs must be; single ones are some 1e-5
TOOL_USD = 0.002
CALLS = 14
HOUSE = {"input": 3, "output": 9}  # US dollars per million tokens of a model that no price list has
MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "legacy": {"legacy_attributes": True},
    "said": {"conventions": ["openinference", "mlflow"]},
}
SLOW = {"OTEL_EXPORTER_OTLP_TIMEOUT": "120"}  # seconds: the first spans may find a server that still imports
RULES = "You are a careful reader. Quote what you read, and say where it stands. " * 90
LOOKUP = {"type": "function", "function": {"name": "lookup", "parameters": {"type": "object", "properties": {}}}}


@dataclass(slots=True)
class Told:
    """What one play left in the ledger and in the back end."""

    backend: Backend
    mode: str
    calls: list[dict[str, Any]]
    runs: dict[str, dict[str, Any]]
    spans: dict[str, Read]
    traces: dict[str, Trace]
    client: trace.SpanContext
    heard: str  # the traceparent that reached the upstream

    @property
    def run(self) -> str:
        return f"team-{self.mode}"

    @property
    def said(self) -> bool:
        return self.mode == "said"

    def operations(self) -> Iterator[tuple[dict[str, Any], Read]]:
        """(call, span of its operation) where tokens pass."""
        for call in self.calls:
            if call["operation"] and call["operation"] != "execute_tool":
                yield call, self.spans[child_span_id(call["span_id"], "operation")]


def ask(url: str, body: Any = None, **headers: str) -> Any:
    """The answer as JSON, or as bytes where it is a stream; {} where it is an error."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            got = answer.read()
            return json.loads(got) if "json" in answer.headers["content-type"] else got
    except urllib.error.HTTPError as refused:
        refused.close()
        return {}


def chat(text: str, model: str = "gpt-4o", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def play(url: str, run: str) -> None:
    """A planner with tools, a sub-agent that reads, errors, streams and every API; and a call that states no run."""
    bearer = {"authorization": "Bearer any"}
    planner = {**bearer, "x-tollgate-run-id": run, "x-tollgate-agent": "planner"}
    work = chat('[[tool lookup {"q": "1"}]] [[then]] [[say done]]', tools=[LOOKUP])
    message = ask(f"{url}/v1/chat/completions", work, **planner)["choices"][0]["message"]
    (asked,) = message["tool_calls"]
    work["messages"] += [message, {"role": "tool", "tool_call_id": asked["id"], "content": "42"}]
    ask(f"{url}/v1/chat/completions", work, **planner)
    ask(f"{url}/tools/search/models", **planner)
    reader = {"x-api-key": "any", "anthropic-version": "2023-06-01", "x-tollgate-run-id": run}
    reader |= {"x-tollgate-agent": "reader", "x-tollgate-parent-agent": "planner"}
    system = [{"type": "text", "text": RULES, "cache_control": {"type": "ephemeral"}}]
    for page in ("[[tokens 30]] page 1", "[[tokens 20]] page 2"):
        body = chat(page, "claude-sonnet-4-5", max_tokens=100, system=system, stream=True)
        ask(f"{url}/v1/messages", body, **reader)
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    ask(f"{url}/v1/chat/completions", chat("[[tokens 50]] aloud", **usage), **planner)
    ask(f"{url}/v1/chat/completions", chat("[[tokens 40]] quick", "fast"), **planner)
    question = {"model": "gpt-5-mini", "input": "[[think well]] [[tokens 60]]", "stream": True}
    ask(f"{url}/v1/responses", question, **planner)
    ask(f"{url}/v1/embeddings", {"model": "text-embedding-3-small", "input": "some words to embed"}, **planner)
    gemini = {"contents": [{"role": "user", "parts": [{"text": "[[tokens 35]]"}]}]}
    ask(f"{url}/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", gemini, **planner)
    ask(f"{url}/v1/chat/completions", chat("[[fault context]] too long"), **planner)
    ask(f"{url}/v1/chat/completions", chat("[[fault 503 times=1]] again"), **planner)
    ask(f"{url}/v1/chat/completions", chat("[[tokens 70]] at home", "house-1"), **planner)
    ask(f"{url}/v1/chat/completions", chat("who am I?", "gpt-4o-mini"), **bearer)


def instrumented(url: str, backend: Backend, place: str) -> trace.SpanContext:
    """A client with a tracer of its own that asks within a span; it exports to the same back end."""
    provider = backend.provider(place)
    with provider.get_tracer("client").start_as_current_span("job") as span:
        headers = {"authorization": "Bearer any", "x-tollgate-run-id": f"job-{place}"}
        TraceContextTextMapPropagator().inject(headers)
        ask(f"{url}/v1/chat/completions", chat("within a trace"), **headers)
    provider.shutdown()
    return span.get_span_context()


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    made = BACKENDS[request.param]
    if reason := made.missing():
        pytest.skip(reason)
    with made(tmp_path_factory.mktemp(made.name)) as running:
        wait(running.ready, bool, START_SECONDS)
        running.teach("house-1", HOUSE["input"], HOUSE["output"])
        yield running


@pytest.fixture(scope="module", params=MODES)
def told(request: pytest.FixtureRequest, backend: Backend) -> Told:
    mode: str = request.param
    run, place = f"team-{mode}", backend.make(mode)
    otlp, environ = backend.otlp(place)
    with FakeUpstream(11, cache_minimum=256) as fake:
        settings: dict[str, Any] = {
            "telemetry": {"otlp": otlp, "sampling": {"traces_per_second": 1000}, **MODES[mode]},
            "tools": {"search": {"url": f"{fake.url}/v1", "allow_private": True, "price": {"usd": TOOL_USD}}},
            "prices": {"models": {"house-1": HOUSE}},
            "aliases": {"fast": "gpt-4o-mini"},
        }
        known = {name: {**upstream, "propagate_trace": True} for name, upstream in upstreams(fake.url).items()}
        with RunningGateway(known, env=environ | SLOW, start_seconds=60, stop_seconds=60, **settings) as gate:
            play(gate.url, run)
            client = instrumented(gate.url, backend, place)
            calls = gate.calls(CALLS + 1, seconds=60)
            found = sorted({call["run_id"] for call in calls})
            runs = {name: gate.get(f"/api/runs/{name}") for name in found}
            for name in found:  # so that the spans of the runs need not wait for a minute without a call
                gate.post(f"/api/runs/{name}/outcome", {"outcome": "success"})
            heard = fake.requests[-1].header("traceparent") or ""
            told = Told(backend, mode, calls, runs, {}, {}, client, heard)
            wanted = expected(told).keys()
            told.spans = wait(lambda: backend.spans(place), lambda spans: wanted <= spans.keys())
            told.traces = backend.traces(place)
            return told


def expected(told: Told) -> dict[str, tuple[str, str]]:
    """Span id -> (id of the span above, what it is), from the ledger alone."""
    client = f"{told.client.span_id:016x}"
    found = {client: ("", "client")}
    for call in told.calls:
        run, server = call["run_id"], call["span_id"]
        if run.startswith("job-"):
            above = client
        else:
            found[agent_span_id(run)] = ("", "agent")
            above = agent_span_id(run, call["agent"] if call["parent_agent"] else "")
            if call["parent_agent"]:
                found[above] = (agent_span_id(run), "agent")
        found[server] = (above, "call")
        tools = [tool_span_id(call["trace_id"], tool["id"]) for tool in call["tools"]]
        if call["operation"] == "execute_tool":
            (inner,) = tools
            found[inner] = (server, "tool")
        else:
            inner = child_span_id(server, "operation")
            found[inner] = (server, call["operation"])
            found |= {tool: (above, "tool") for tool in tools}
        for number in range(len(call["attempts"])):
            found[child_span_id(server, "attempt", number)] = (inner, "attempt")
    return found


KINDS = {
    "phoenix": {
        **{"client": "UNKNOWN", "agent": "AGENT", "call": "UNKNOWN", "attempt": "UNKNOWN", "tool": "TOOL"},
        **{"chat": "LLM", "generate_content": "LLM", "embeddings": "EMBEDDING"},
    },
    "mlflow": {
        **{"client": "", "agent": "AGENT", "call": "", "attempt": "", "tool": "TOOL"},
        **{"chat": "CHAT_MODEL", "generate_content": "LLM", "embeddings": "EMBEDDING"},
    },
}


def test_every_span_stands_where_it_belongs(told: Told) -> None:
    wanted = {span_id: above for span_id, (above, _) in expected(told).items()}
    assert {span.span_id: span.parent_id for span in told.spans.values()} == wanted
    assert len(wanted) > 4 * CALLS / 2


def test_kinds(told: Told) -> None:
    kinds = KINDS[told.backend.name] | ({"call": "CHAIN", "attempt": "CHAIN"} if told.said else {})
    wanted = {span_id: kinds[what] for span_id, (_, what) in expected(told).items()}
    assert {span.span_id: span.kind for span in told.spans.values()} == wanted


def test_tools_are_named(told: Told) -> None:
    names = {span.name for span in told.spans.values() if span.kind == "TOOL"}
    assert names == {f"execute_tool {tool['name']}" for call in told.calls for tool in call["tools"]}
    assert names == {"execute_tool lookup", "execute_tool search"}


def test_errors(told: Told) -> None:
    wanted = set()
    for call in told.calls:
        if call["outcome"] != "ok":
            wanted.add(child_span_id(call["span_id"], "operation"))
        failed = [number for number, attempt in enumerate(call["attempts"]) if attempt["status"] >= 400]
        wanted |= {child_span_id(call["span_id"], "attempt", number) for number in failed}
    assert {span.span_id for span in told.spans.values() if span.failed} == wanted
    assert len(wanted) == 3


def test_runs_that_were_stated_are_sessions(told: Told) -> None:
    sessions = {trace_id: trace.session for trace_id, trace in told.traces.items()}
    wanted = {call["trace_id"]: call["conversation_id"] or "" for call in told.calls}
    assert sessions == wanted
    assert wanted[run_trace_id(told.run)] == told.run
    assert sorted(map(bool, wanted.values())) == [False, True, True]


def test_tokens_are_those_of_the_ledger(told: Told) -> None:
    seen = set()
    for call, span in told.operations():
        usage = {kind: call["usage"][f"{kind}_tokens"] for kind in ("input", "output", "cache_read", "cache_write")}
        wanted = {kind: count for kind, count in usage.items() if count or kind in ("input", "output")}
        if call["usage_source"] == "none":
            wanted = {}
        if told.backend.name == "phoenix" and told.mode == "plain":
            wanted.pop("cache_write", None)  # it reads the older name alone
        assert span.tokens == wanted, call
        seen |= wanted.keys()
    assert {"input", "output", "cache_read"} <= seen


def own_price(told: Told, call: dict[str, Any]) -> bool:
    """Whether the back end, left to itself, prices such a call otherwise. MLflow does not know a price that we were
    told; Phoenix goes by the name asked for, without cache writes. Embeddings it never prices."""
    if told.backend.name == "mlflow":
        return bool(call["model_requested"] == "house-1") and not told.said
    renamed = call["model_requested"] != call["model_used"]
    if call["usage"]["cache_write_tokens"] and told.mode == "plain":
        return True
    return call["operation"] == "embeddings" or (renamed and not told.said)


def test_costs_are_those_of_the_ledger(told: Told) -> None:
    compared = 0
    for call, span in told.operations():
        if own_price(told, call) or not call["cost_usd"]:
            continue
        assert span.cost == pytest.approx(call["cost_usd"], abs=USD, rel=0), call
        compared += 1
    assert compared >= (10 if told.mode == "plain" else 11)


def test_traces_cost_what_their_runs_cost(told: Told) -> None:
    """Phoenix has no cost of tools, and MLflow has it only as it is told."""
    if told.backend.name == "phoenix" and not told.said:
        return
    for call in told.calls:
        run, seen = told.runs[call["run_id"]], told.traces[call["trace_id"]]
        tools = TOOL_USD if call["run_id"] == told.run else 0
        counted = tools if told.backend.name == "mlflow" and told.said else 0
        calls = [call for call, _ in told.operations() if call["run_id"] == run["id"] and own_price(told, call)]
        missed = tools - counted + sum(call["cost_usd"] for call in calls)
        assert seen.cost == pytest.approx(run["cost_usd"] - missed, abs=USD, rel=0)


def test_traces_count_the_tokens_of_their_runs(told: Told) -> None:
    """Phoenix adds up those of models that answer, not those of embeddings."""
    for trace_id, seen in told.traces.items():
        calls = [call for call, _ in told.operations() if call["trace_id"] == trace_id]
        if told.backend.name == "phoenix":
            calls = [call for call in calls if call["operation"] != "embeddings"]
        assert seen.input_tokens == sum(call["usage"]["input_tokens"] for call in calls)
        assert seen.output_tokens == sum(call["usage"]["output_tokens"] for call in calls)


def test_the_model_that_answered_is_shown(told: Told) -> None:
    """Of an alias, too; left to itself, Phoenix shows the name asked for."""
    (alias,) = [(call, span) for call, span in told.operations() if call["model_requested"] == "fast"]
    call, span = alias
    assert call["model_used"] == "gpt-4o-mini"
    assert span.model == ("fast" if told.backend.name == "phoenix" and not told.said else "gpt-4o-mini")


def test_one_trace_from_an_instrumented_client_to_the_upstream(told: Told) -> None:
    trace_id, client = f"{told.client.trace_id:032x}", f"{told.client.span_id:016x}"
    spans = {span.span_id: span for span in told.spans.values() if span.trace_id == trace_id}
    assert sorted(span.name for span in spans.values()) == ["POST", "POST /v1/chat/completions", "chat gpt-4o", "job"]
    (server,) = [span for span in spans.values() if span.parent_id == client]
    version, heard_trace, heard_parent, flags = told.heard.split("-")
    assert (version, heard_trace, heard_parent) == ("00", trace_id, server.span_id)
    assert int(flags, 16) & 1
    assert server.name == "POST /v1/chat/completions"
