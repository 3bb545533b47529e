from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy import trace_ids
from gateway.policy.trace_ids import agent_span_id, child_span_id, run_trace_id, tool_span_id


@given(st.text(alphabet=st.characters(codec=None)), st.text())
def test_ids_are_what_w3c_allows(run: str, agent: str) -> None:
    assert re.fullmatch(r"[0-9a-f]{32}", run_trace_id(run))
    for span in (agent_span_id(run, agent), child_span_id(agent, "attempt", 3), tool_span_id(run, agent)):
        assert re.fullmatch(r"[0-9a-f]{16}", span)
        assert span.strip("0")


def test_ids_stay_the_same_over_time() -> None:
    """They join spans made by different processes and versions: changing them breaks traces."""
    assert run_trace_id("run-1") == "bbacec5fcbbd9bc8f9fec31f8bbfa1d8"
    assert agent_span_id("run-1") == "502a344c64c9d2f9"


def test_a_run_id_that_could_be_a_trace_id_is_one() -> None:
    own = "01a21cffff36277814e6aa74d5099cd9"
    assert run_trace_id(own) == own
    for other in (own.upper(), own[:-1], "0" * 32):
        assert run_trace_id(other) not in (other, "0" * 32)


def test_ids_differ_by_what_they_are_made_of() -> None:
    made = [
        agent_span_id("r"), agent_span_id("r", "a"), agent_span_id("ra"), child_span_id("r", "operation"),
        child_span_id("r", "attempt", 0), child_span_id("r", "attempt", 1), tool_span_id("r", "a"),
    ]  # fmt: skip
    assert len(set(made)) == len(made)
    assert run_trace_id("a") != run_trace_id("b")


def test_an_id_is_never_all_zero(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    class Zero:
        def __init__(self, *_: object, **__: object) -> None: ...

        def hexdigest(self) -> str:
            return "0" * 16

    monkeypatch.setattr(trace_ids, "blake2b", Zero)
    assert child_span_id("x", "y") == "0" * 15 + "1"
