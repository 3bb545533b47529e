"""The demo's own arithmetic: it must notice every difference between the agents and the record."""

import io
import socket
from typing import Any

import pytest
from rich.console import Console

from gateway.testing import demo
from gateway.testing.agent_wire import Seen
from gateway.testing.demo_view import Progress, by_agent, gather, summary

NONE = {"input_tokens": 0, "output_tokens": 0}


def call(id_: str, **more: Any) -> dict[str, Any]:
    plain = {"id": id_, "agent": "bot", "model_used": "m", "model_requested": "m", "run_id": "r", "status": 200}
    plain |= {"outcome": "ok", "tools": [], "cost_usd": 0.25, "cost_status": "priced", "error": None, "cache": None}
    plain |= {"upstream": "", "usage": {"input_tokens": 10, "output_tokens": 5}}
    return {**plain, **more}


def seen(id_: str, **more: Any) -> Seen:
    plain = {"run": "r", "status": 200, "ended": "ok", "input_tokens": 10, "output_tokens": 5}
    return Seen(agent="bot", model="m", call_id=id_, **{**plain, **more})


def test_agreement() -> None:
    left = seen("b", ended="left", input_tokens=None, output_tokens=None)
    assert demo.compare([seen("a"), left], [call("a"), call("b", outcome="cancelled", usage=NONE)]) == []


@pytest.mark.parametrize(
    ("sightings", "calls", "word"),
    [
        ([seen("a")], [], "recorded 0"),
        ([seen("a"), seen("b")], [call("a"), call("a")], "no record of call b"),
        ([seen("")], [call("a")], "without an id"),
        ([seen("a", input_tokens=11)], [call("a")], "(11, 5) tokens"),
        ([seen("a")], [call("a", usage=NONE)], "(0, 0)"),
        (
            [seen("a", status=429, ended="error", input_tokens=None)],
            [call("a", outcome="upstream_error")],
            "status 429",
        ),
        ([seen("a")], [call("a", outcome="truncated")], "truncated"),
        ([seen("a", ended="left", input_tokens=None)], [call("a")], "left"),
        ([seen("a"), seen("b")], [call("a"), call("b", run_id="other")], "recorded as 2 runs"),
        ([seen("a"), seen("b", run="s")], [call("a"), call("b")], "recorded for 2 runs"),
    ],
)
def test_differences(sightings: list[Seen], calls: list[dict[str, Any]], word: str) -> None:
    faults = demo.compare(sightings, calls)
    assert any(word in fault for fault in faults), faults


def test_sums_keep_unknown_costs_apart() -> None:
    calls = [
        call("a"),
        call("b", cost_usd=None, cost_status="no_price"),
        call("c", outcome="failed", usage=NONE, cost_usd=None),
    ]
    row = gather(calls, by_agent)["bot"]
    assert (row.calls, row.cost, row.unpriced, row.errors, row.input_tokens) == (3, 0.25, 1, 1, 20)


def test_the_summary_names_runs_agents_and_models() -> None:
    out = io.StringIO()
    summary(Console(file=out, width=140), [call("a"), call("b", agent="", run_id="other", cost_usd=1.5)], 2.5)
    text = out.getvalue()
    words = ("by agent", "by model", "bot", "other", "of $2.50", "$1.5000", "2 calls, $1.7500 in all")
    assert all(word in text for word in words)
    assert "told" not in text


def test_the_summary_says_which_run_was_stopped_and_why() -> None:
    out = io.StringIO()
    refused = {"outcome": "rejected", "status": 402, "usage": NONE, "cost_usd": 0}
    error = {"code": "budget_exceeded", "message": "The budget of run r is $0.50."}
    summary(Console(file=out, width=140), [call("a"), call("b", **refused, error=error), call("c", run_id="s")], 0.5)
    text = out.getvalue()
    (row,) = [line.split() for line in text.splitlines() if line.split()[:1] == ["r"]]
    (other,) = [line.split() for line in text.splitlines() if line.split()[:1] == ["s"]]
    assert (row[-2:], other[-1]) == (["$0.2500", "budget"], "$0.2500")
    assert "bot was told: The budget of run r is $0.50." in text


def test_a_run_that_cost_more_than_it_may_is_a_fault() -> None:
    calls = [call("a", cost_usd=0.25), call("b", cost_usd=0.25), call("c", run_id="s", cost_usd=0.51)]
    assert demo.overspent(calls) == ["run s cost $0.5100"]


def test_progress_falls_back_to_plain_lines() -> None:
    out = io.StringIO()
    none = {"input_tokens": None, "output_tokens": None}
    log = [seen("a", tools=2), seen("b", status=429, ended="error", **none), seen("c", ended="open", **none)]
    with Progress(Console(file=out, width=140), log) as progress:
        progress.update({"runs": [{"id": "r", "cost_usd": 0.5}, {"id": "s", "cost_usd": None}]})
    first, last = out.getvalue().splitlines()
    assert first == last == "runs 1  calls 3  tokens 15  tool calls 2  errors 1  $0.5000"


def test_progress_says_who_was_stopped() -> None:
    refused = seen("b", status=402, ended="error", input_tokens=None, output_tokens=None, code="budget_exceeded")
    totals = Progress(Console(file=io.StringIO()), [seen("a"), refused]).totals()
    assert (totals["bot"].stopped, totals["bot"].errors) == ("budget", 1)


def test_a_taken_port_is_said_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(demo, "is_free", lambda port: port != 8787)
    gate = demo.gateway("http://127.0.0.1:1", "http://127.0.0.1:2", Console(file=out, width=140), {"workers": 2})
    try:
        assert "127.0.0.1:8787 is taken" in out.getvalue()
        gate.write_config(gate.settings)
        assert gate.config["admin"] == "127.0.0.1:8788"
        assert gate.config["listen"] != "127.0.0.1:8787"
        assert gate.config["workers"] == 2
        assert set(gate.config["upstreams"]) == {"openai", "anthropic", "gemini", "gemini-backup"}
    finally:
        gate.close()


@pytest.mark.parametrize("name", ["listen", "admin"])
def test_a_gateway_of_somebody_else_is_not_played_with(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert demo.run(overrides={name: address}) == 1
    assert f"cannot listen on {address}: the port is taken" in " ".join(capsys.readouterr().out.split())
    assert demo.taken({name: address}) == ""
