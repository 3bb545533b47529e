"""Tool executions: each result pairs once, with the call it answers."""

from __future__ import annotations

import pytest

from gateway.call import ToolCall, ToolResult, ToolUse
from gateway.policy.tools import ToolMemory
from gateway.testing.calls import MemoryLinks

SCOPE, REF = b"s" * 16, b"r" * 8
END, NOW = 1_000_000_000, 1_750_000_000


@pytest.fixture
def memory() -> ToolMemory:
    memory = ToolMemory(MemoryLinks())
    memory.asked(SCOPE, REF, [ToolUse("a", "Bash"), ToolUse("b", "Read"), ToolUse("c", "Bash")], END)
    return memory


def test_a_result_is_paired_once(memory: ToolMemory) -> None:
    results = [ToolResult("b", is_error=True), ToolResult("a")]
    found = memory.answered(SCOPE, REF, results, NOW, {})
    assert found == [
        ToolCall("b", "Read", END, NOW - END, False, True),
        ToolCall("a", "Bash", END, NOW - END),
    ]
    assert memory.answered(SCOPE, REF, results, NOW, {}) == []
    assert [call.id for call in memory.answered(SCOPE, REF, [*results, ToolResult("c")], NOW, {})] == ["c"]


def test_another_agent_or_tenant_pairs_nothing(memory: ToolMemory) -> None:
    assert memory.answered(SCOPE, b"x" * 8, [ToolResult("a")], NOW, {}) == []
    assert memory.answered(b"t" * 16, REF, [ToolResult("a")], NOW, {}) == []
    assert memory.answered(SCOPE, REF, [ToolResult("unknown")], NOW, {}) == []


def test_reported_durations_are_exact_and_taken_in_order(memory: ToolMemory) -> None:
    results = [ToolResult("a"), ToolResult("b"), ToolResult("c")]
    found = memory.answered(SCOPE, REF, results, NOW, {"Bash": [742, 3]})
    assert [(call.id, call.duration_ns, call.exact) for call in found] == [
        ("a", 742_000_000, True),
        ("b", NOW - END, False),
        ("c", 3_000_000, True),
    ]


def test_results_without_ids_pair_by_name_and_order() -> None:
    memory = ToolMemory(MemoryLinks())
    memory.asked(SCOPE, REF, [ToolUse("", "search"), ToolUse("", "search"), ToolUse("", "read")], END)
    results = [ToolResult("", name="read"), ToolResult("", name="search", is_error=True), ToolResult("", name="search")]
    found = memory.answered(SCOPE, REF, results, NOW, {})
    assert [(call.name, call.is_error) for call in found] == [("read", False), ("search", True), ("search", False)]
    assert all(call.id for call in found)
    assert len({call.id for call in found}) == 3
    assert memory.answered(SCOPE, REF, results, NOW, {}) == []
    memory.asked(SCOPE, REF, [ToolUse("", "search")], NOW)
    assert len(memory.answered(SCOPE, REF, results, NOW + 5, {})) == 1, "asked for again, answered again"


def test_a_clock_behind_gives_no_negative_duration(memory: ToolMemory) -> None:
    assert memory.answered(SCOPE, REF, [ToolResult("a")], END - 5, {})[0].duration_ns == 0


def test_long_names_are_cut_to_fit() -> None:
    memory = ToolMemory(MemoryLinks())  # refuses values of more than 200 bytes
    memory.asked(SCOPE, REF, [ToolUse("i" * 1000, "ü" * 1000)], END)
    found = memory.answered(SCOPE, REF, [ToolResult("i" * 1000)], NOW, {})
    assert found[0].name == "ü" * 64
