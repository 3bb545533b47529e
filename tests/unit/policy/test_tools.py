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


# -- executions that passed through the gate ------------------------------------------------------------------------

GATED = ToolCall("c/0", "search", END + 100, 200, True, False, "search")


def pair(name: str, at: int = END) -> ToolCall:
    return ToolCall("a", name, at, NOW - at)


def test_an_execution_that_passed_through_takes_the_place_of_one_pair() -> None:
    memory = ToolMemory(MemoryLinks())
    memory.passed("t", "r", [GATED])
    pairs = [pair("search"), pair("other"), pair("search")]
    assert memory.not_passed("t", "r", pairs, NOW) == [pair("other"), pair("search")]
    assert memory.not_passed("t", "r", [pair("search")], NOW) == [pair("search")], "it is used up"


def test_another_run_tenant_or_time_takes_no_place() -> None:
    memory = ToolMemory(MemoryLinks())
    memory.passed("t", "r", [GATED])
    for tenant, run in (("t", "q"), ("u", "r"), ("tr", ""), ("", "tr")):
        assert memory.not_passed(tenant, run, [pair("search")], NOW)
    assert memory.not_passed("t", "r", [pair("search")], END + 299), "it ended behind this result"
    late = END + 300 + 2_000_000_001
    assert memory.not_passed("t", "r", [pair("search", late)], late + 5), "it ended long before it was asked for"
    assert not memory.not_passed("t", "r", [pair("search")], NOW)


@pytest.mark.parametrize("shown", ["search", "mcp__web__search", "mcp__a_b__search"])
def test_names_under_which_clients_show_the_tools_of_a_server(shown: str) -> None:
    memory = ToolMemory(MemoryLinks())
    memory.passed("t", "r", [GATED])
    assert memory.not_passed("t", "r", [pair(shown)], NOW) == []


def test_what_waits_for_its_pair_is_bounded() -> None:
    memory = ToolMemory(MemoryLinks())  # refuses values of more than 200 bytes
    memory.passed("t", "r", [GATED] * 100)
    assert len(memory.not_passed("t", "r", [pair("search")] * 100, NOW)) == 100 - 16
