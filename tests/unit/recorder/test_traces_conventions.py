"""The same facts in the words of OpenInference and of MLflow: only where they were asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.resources import Resource

from gateway.call import ToolCall, Usage
from gateway.journal.record import CallRecord
from gateway.policy.sampling import Decision
from gateway.recorder.names_span import CONVENTIONS_HELP
from gateway.recorder.traces_conventions import PLAIN, Conventions
from gateway.recorder.traces_runs import RunTraces, run_spans
from gateway.recorder.traces_spans import CallSpans
from gateway.testing.telemetry_records import T0, call

RESOURCE = Resource({})
KEPT = Decision(True, "error", 1.0)
PAID = ToolCall("call_0", "search", T0, 10**9, server="search", cost=2_000_000_000)
SEEN = ToolCall("call_1", "look\nup", T0, 10**9)


def said(record: CallRecord, *named: str) -> dict[str, dict[str, Any]]:
    """Span name -> what it says in the words of other conventions."""
    made = CallSpans(record, KEPT, RESOURCE, legacy=False, also=Conventions(named)).spans()
    return {span.name: others(span.attributes or {}) for span in made}


def others(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if name in CONVENTIONS_HELP}


def test_nothing_is_said_twice_unasked() -> None:
    assert not any(said(call(tools=(SEEN,))).values())
    assert PLAIN.operation(call()) == {}


def test_openinference() -> None:
    found = said(call(tools=(SEEN,), conversation_id="run-1"), "openinference")
    assert found["chat gpt-4o"] == {
        "openinference.span.kind": "LLM",
        "session.id": "run-1",
        "llm.model_name": "gpt-4o-2024-08-06",
        "llm.token_count.prompt": 1000,
        "llm.token_count.completion": 200,
        "llm.token_count.total": 1200,
        "llm.token_count.prompt_details.cache_read": 600,
        "llm.token_count.completion_details.reasoning": 50,
        "llm.cost.prompt": 0.00175,
        "llm.cost.completion": 0.002,
        "llm.cost.total": 0.00375,
    }
    chain = {"openinference.span.kind": "CHAIN"}
    assert found["POST /v1/chat/completions"] == {**chain, "session.id": "run-1"}
    assert found["POST"] == chain
    assert found["execute_tool look up"] == {
        "openinference.span.kind": "TOOL",
        "session.id": "run-1",
        "tool.name": "look up",
    }


def test_a_run_that_was_derived_is_no_session() -> None:
    assert not any("session.id" in span for span in said(call(run_id="r"), "openinference").values())


def test_cache_writes_and_what_is_not_known() -> None:
    written = Usage(input_tokens=10, output_tokens=1, cache_write_tokens=4)
    found = said(call(usage=written, cost=None, cost_components={}, model_used=""), "openinference", "mlflow")
    assert found["chat gpt-4o"] == {
        "openinference.span.kind": "LLM",
        "mlflow.spanType": "CHAT_MODEL",
        "llm.model_name": "gpt-4o",
        "llm.token_count.prompt": 10,
        "llm.token_count.completion": 1,
        "llm.token_count.total": 11,
        "llm.token_count.prompt_details.cache_write": 4,
    }


@pytest.mark.parametrize(("operation", "kind"), [("embeddings", "EMBEDDING"), ("generate_content", "LLM")])
def test_kinds_follow_the_operation(operation: str, kind: str) -> None:
    found = said(call(operation=operation), "openinference", "mlflow")[f"{operation} gpt-4o"]
    assert (found["openinference.span.kind"], found["mlflow.spanType"]) == (kind, kind)
    named = {name: model for name, model in found.items() if name.endswith("model_name")}
    assert named == {f"{kind.lower()}.model_name": "gpt-4o-2024-08-06"}


def test_mlflow_is_told_the_cost_of_models_and_of_tools() -> None:
    found = said(call(), "mlflow")
    assert json.loads(found["chat gpt-4o"].pop("mlflow.llm.cost")) == {
        "input_cost": 0.00175,
        "output_cost": 0.002,
        "total_cost": 0.00375,
    }
    assert found["chat gpt-4o"] == {"mlflow.spanType": "CHAT_MODEL"}
    tool = said(call(operation="execute_tool", tools=(PAID,)), "mlflow")["execute_tool search"]
    assert json.loads(tool["mlflow.llm.cost"])["total_cost"] == 0.002
    assert "mlflow.llm.cost" not in said(call(tools=(SEEN,)), "mlflow")["execute_tool look up"]


def test_agents() -> None:
    runs = RunTraces(60)
    record = call(conversation_id="run-1")
    runs.keep(record)
    runs.observe(record)
    (run,) = runs.rest()
    (plain,), (span,) = run_spans(run, RESOURCE), run_spans(run, RESOURCE, Conventions(("openinference", "mlflow")))
    assert others(plain.attributes or {}) == {}
    assert others(span.attributes or {}) == {
        "openinference.span.kind": "AGENT",
        "session.id": "run-1",
        "mlflow.spanType": "AGENT",
    }


def test_an_attempt_is_not_taken_for_an_operation() -> None:
    """Back ends call whatever has a gen_ai.request.model a call of a model."""
    (last,) = call().attempts
    first = msgspec.structs.replace(last, status=503, model="gpt-4o")
    made = CallSpans(call(attempts=(first, last)), KEPT, RESOURCE, legacy=False).spans()
    attempts = [dict(span.attributes or {}) for span in made if span.name == "POST"]
    assert [attributes.get("tollgate.attempt.model") for attributes in attempts] == ["gpt-4o", None]
    assert not any(name.startswith("gen_ai.") for attributes in attempts for name in attributes)
