"""Pools, priorities and overload in the configuration: what is refused, and what `tollgate check` says."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.check_bulkheads import bulkheads, doubts, unmatched
from gateway.config.roster import Roster

TOOL = "tools: {search: {url: 'https://search.example'}}\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("bulkheads: {a: {}}", 'bulkheads.a: "max" is missing'),
        ("bulkheads: {a: {max: 0}}", "bulkheads.a.max: expected a whole number"),
        ("bulkheads: {a: {max: 5, wait: 0}}", "bulkheads.a.wait: expected a number of seconds"),
        ("bulkheads: {a: {max: 5, queue: -1}}", "bulkheads.a.queue: expected"),
        ("bulkheads: {a: {max: 5, batch: 0}}", "bulkheads.a.batch: expected"),
        ("bulkheads: {a: {max: 5, order: best}}", "bulkheads.a.order: expected"),
        ("bulkheads: {a: {max: 5, each: run}}", "bulkheads.a.each: expected"),
        ("bulkheads: {a: {max: 5, weights: {x: 0}}}", "bulkheads.a.weights.x: expected"),
        (
            "bulkheads: {a: {max: 5, upstream: 'tools/*'}}",
            "bulkheads.a.upstream: matches no upstream, tool or MCP server",
        ),
        (TOOL + "bulkheads: {a: {max: 5, upstream: tools/serch}}", 'did you mean "tools/search"'),
        ("bulkheads: {a: {max: 5, agent: 'x**'}}", "bulkheads.a.agent: one * already stands for"),
        ("bulkheads: {a: {max: 5}, b: {max: 2, agent: x}}", "bulkheads.b: has no calls: a before it matches all"),
        ("workers: 4\nbulkheads: {a: {max: 3}}", "bulkheads.a.max: is less than `workers`"),
        ("bulkheads: {a: {max: 3, least: 4, adaptive: true}}", "bulkheads.a.least: is more than `max`"),
        ("bulkheads: {a: {max: 3, least: 2}}", "bulkheads.a.least: means nothing without `adaptive`"),
        ("bulkheads: {" + ", ".join(f"p{n}: {{max: 1, agent: a{n}}}" for n in range(17)) + "}", "at most 16 pools"),
        ("priorities: [{agent: x}]", 'priorities.0: "priority" is missing'),
        ("priorities: [{agent: x, priority: high}]", "priorities.0.priority: expected"),
        ("priorities: [{upstream: nope, priority: batch}]", "priorities.0.upstream: matches no upstream"),
        ("priorities: [{priority: batch}, {agent: x, priority: urgent}]", "priorities.1: is never reached"),
        ("overload: {lag_seconds: 0}", "overload.lag_seconds: expected a number of seconds"),
        ("overload: {memory_bytes: 5}", "overload.memory_bytes: expected a whole number"),
    ],
)
def test_what_is_refused(refused: Any, text: str, problem: str) -> None:
    (line,) = refused(text)
    assert problem in line


def test_what_each_pool_is(loading: Any) -> None:
    config = loading(
        TOOL + "workers: 2\n"
        "bulkheads:\n"
        "  external: {upstream: 'tools/*', max: 20, wait: 10, queue: 0}\n"
        "  agents: {max: 50, each: upstream, wait: 30, batch: 0.8, adaptive: true, least: 4}\n"
        "priorities: [{agent: 'nightly-*', priority: batch}]\n"
        "overload: {lag_seconds: 0.2, memory_bytes: 500000000}\n"
    )
    assert bulkheads(config) == [
        "bulkheads.external: upstream tools/*: 20 at once (10 in each worker), none waits",
        "bulkheads.agents: all calls: 4 to 50 at once for each upstream (25 in each worker), 100 wait for up to 30 s, "
        "batch in 80% of the places",
        "priorities.0: agent nightly-*: batch",
        "overload: batch calls are refused from where the loop is 0.2 s late or a worker has 500 MB",
    ]
    assert bulkheads(loading("")) == []


def test_pools_for_keys_and_teams_that_are_not_there(loading: Any) -> None:
    config = loading(
        "bulkheads: {a: {max: 5, key: ci-*}, b: {max: 5, team: blue}, "
        "c: {max: 5, team: default, weights: {red: 2, nobody: 3}}}"
    )
    found = [str(problem) for problem in unmatched(config, Roster(frozenset({"web"}), frozenset({"red"}), 1))]
    assert len(found) == 3
    assert "bulkheads.c.weights.nobody: no key and no team has this name" in found[2]
    assert "bulkheads.a.key: matches no key" in found[0]
    assert "bulkheads.b.team: matches no team" in found[1]
    known = Roster(frozenset({"ci-1", "nobody"}), frozenset({"blue", "red"}), 1)
    assert not list(unmatched(config, known))
    said = loading("identity: {tenant_header: x-team}\nbulkheads: {b: {max: 5, team: blue}}")
    assert not list(unmatched(said, Roster()))


def test_routes_that_are_none(loading: Any) -> None:
    text = "bulkheads: {a: {max: 5, route: /v1/chat/completion}, b: {max: 5, route: '/tools/*'}}"
    (problem,) = doubts(loading(text))
    assert "bulkheads.a.route: matches no route of a model or a tool" in str(problem)
    assert '"/v1/chat/completions"' in str(problem)
