"""Real calls through a real gateway: metrics, traces and log lines tell what the ledger tells, and no secret."""

from __future__ import annotations

import gzip
import json
import urllib.error
import urllib.request
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from gateway.policy.trace_ids import run_trace_id
from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway
from gateway.testing.otlp_collector import OtlpCollector

CANARY = "canary4711"
KEYS = {
    "authorization": f"Bearer sk-{CANARY}aaaaaaaaaaaa",
    "x-api-key": f"{CANARY}bbbbbbbb",
    "cookie": f"s={CANARY}cccc",
}
HELLO = [{"role": "user", "content": f"[[say {CANARY}]] please"}]
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
CALLS = 7


class Told:
    """Everything that one gateway told about seven calls."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.page = ""
        self.spans: list[Span] = []
        self.exported = b""
        self.log = ""


def post(url: str, body: dict[str, Any], **headers: str) -> int:
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json", **KEYS, **headers})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        refused.close()
        return refused.code


def play(url: str) -> None:
    chat = {"model": "gpt-4o-mini", "messages": HELLO, "user": "u-1"}
    run = f"{url}/run/r1/agent/alpha/v1"
    assert post(f"{run}/chat/completions?api_key={CANARY}", chat) == 200
    assert post(f"{run}/chat/completions", {**chat, "stream": True}) == 200
    claude = {"model": "claude-sonnet-4-5", "max_tokens": 50, "messages": HELLO}
    assert post(f"{run}/messages", claude, **{"anthropic-version": "2023-06-01"}) == 200
    assert post(f"{url}/v1/chat/completions", {**chat, "model": "unheard-of"}, traceparent=PARENT) == 200
    assert post(f"{url}/v1/embeddings", {"model": "text-embedding-3-small", "input": CANARY}) == 200
    assert post(f"{url}/openai/v1/nowhere?key={CANARY}", {}) == 404
    assert post(f"{url}/v1/chat/completions", {**chat, "messages": CANARY}) == 400


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, fake: FakeUpstream) -> Told:
    log = tmp_path_factory.mktemp("log") / "calls.log"
    found = Told()
    upstreams = {
        "openai": {"dialect": "openai", "url": fake.url, "provider": "openai", "key": "$UPSTREAM_KEY"},
        "anthropic": {"dialect": "anthropic", "url": fake.url, "provider": "anthropic"},
    }
    with OtlpCollector() as collector:
        telemetry = {"otlp": {"endpoint": collector.url, "headers": {"api-key": "$COLLECTOR_KEY"}}, "log": str(log)}
        env = {"UPSTREAM_KEY": f"sk-{CANARY}eeeeeeee", "COLLECTOR_KEY": f"{CANARY}ffff"}
        with RunningGateway(upstreams, env=env, telemetry=telemetry) as gate:
            play(gate.url)
            found.calls = gate.calls(CALLS)
            found.page = gate.until(lambda: openmetrics(gate), lambda page: requests_in(page) == CALLS)
        found.spans = collector.spans
        found.exported = b"".join(
            group.SerializeToString() for group in (*collector.resource_spans, *collector.resource_metrics)
        )
        assert {headers["api-key"] for headers in collector.headers} == {f"{CANARY}ffff"}
    found.log = log.read_text()
    return found


def openmetrics(gate: RunningGateway) -> str:
    request = urllib.request.Request(f"{gate.admin_url}/metrics", headers={
        "accept": "application/openmetrics-text; version=1.0.0", "accept-encoding": "gzip"})  # fmt: skip
    with urllib.request.urlopen(request, timeout=10) as answer:
        body = answer.read()
        return (gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body).decode()


def total(page: str, name: str, **labels: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def requests_in(page: str) -> float:
    return total(page, "tollgate_requests_total")


def test_sums_equal_the_ledger(told: Told) -> None:
    assert len(told.calls) == CALLS
    costs = [call["cost_usd"] for call in told.calls if call["cost_usd"] is not None]
    assert len(costs) >= 4
    assert total(told.page, "tollgate_cost_usd_total") == pytest.approx(sum(costs), rel=1e-9)
    lines = [json.loads(line) for line in told.log.splitlines()]
    calls = [line for line in lines if line["event"] in ("llm.call", "http.call")]
    assert sum(line.get("cost_usd", 0) for line in calls) == pytest.approx(sum(costs), rel=1e-9)
    for kind in ("input", "output"):
        used = sum(call["usage"][f"{kind}_tokens"] for call in told.calls if call["usage"])
        assert total(told.page, "tollgate_tokens_total", type=kind) == used > 0
        assert total(told.page, f"gen_ai_client_inference_usage_{kind}_tokens_total") == used
    assert {line["request_id"] for line in calls} == {call["id"] for call in told.calls}


def test_ledger_log_and_spans_name_the_same_traces(told: Told) -> None:
    ledger = {call["id"]: call["trace_id"] for call in told.calls}
    lines = {line["request_id"]: line["trace_id"] for line in map(json.loads, told.log.splitlines()) if "route" in line}
    spans = {
        attribute.value.string_value: span.trace_id.hex()
        for span in told.spans
        for attribute in span.attributes
        if attribute.key == "tollgate.request.id"
    }
    assert ledger == lines == spans


def test_the_spans_of_a_run_hang_together_and_its_root_comes_with_the_end(told: Told) -> None:
    spans = [span for span in told.spans if span.trace_id.hex() == run_trace_id("r1")]
    (root,) = [span for span in spans if not span.parent_span_id]
    assert root.name == "invoke_agent alpha"
    ids = {span.span_id for span in spans}
    assert all(span.parent_span_id in ids for span in spans if span is not root)
    assert sorted(span.name for span in spans) == sorted(
        ["invoke_agent alpha", *["POST /v1/chat/completions", "chat gpt-4o-mini", "POST"] * 2,
         "POST /v1/messages", "chat claude-sonnet-4-5", "POST"])  # fmt: skip


def test_a_callers_trace_goes_on(told: Told) -> None:
    spans = [span for span in told.spans if span.trace_id.hex() == PARENT[3:35]]
    assert [span.name.split()[0] for span in spans if span.parent_span_id.hex() == PARENT[36:52]] == ["POST"]
    assert len(spans) == 3


def test_exemplars_lead_to_exported_traces(told: Told) -> None:
    seen = {
        sample.exemplar.labels["trace_id"]
        for family in text_string_to_metric_families(told.page)
        for sample in family.samples
        if sample.exemplar is not None
    }
    assert seen
    assert seen <= {span.trace_id.hex() for span in told.spans}


def test_no_secret_is_told(told: Told) -> None:
    """Keys stood in headers, queries and the configuration, others in message content, which is not captured."""
    for name, data in {"metrics": told.page.encode(), "spans": told.exported, "log": told.log.encode()}.items():
        assert CANARY.encode() not in data, (name, data[max(0, data.find(CANARY.encode()) - 200) :][:400])
    assert CANARY not in json.dumps(told.calls)
