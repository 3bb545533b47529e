"""Routes in the configuration: what is refused, what is doubtful, what `tollgate check` says."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.check_routing import doubts, routing


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{to: []}", "routes.0.to: names no target"),
        ("{to: ['']}", "routes.0.to.0: names no model"),
        ("{to: [{}]}", "routes.0.to.0: names neither"),
        ("{to: [{model: ' '}]}", "routes.0.to.0.model: names no model"),
        ("{to: [{upstream: opnai}]}", "routes.0.to.0.upstream: no upstream has this name"),
        ("{to: [a, a]}", "routes.0.to.1: stands before it already"),
        ("{to: [{upstream: openai}, {upstream: anthropic}]}", "routes.0.to.1: speaks another API than"),
        ("{to: [{upstream: openai}], canary: {id: c, to: {upstream: gemini}}}", "routes.0.canary.to: speaks another"),
        ("{to: [{upstream: anthropic}], upstream: openai}", "routes.0.to.0: speaks another API than"),
        ("{to: [a], agent: ''}", "routes.0.agent: must be 1 to 200 printable"),
        ("{to: [a], headers: {'x y': a}}", 'routes.0.headers."x y": not a header name'),
        ("{to: [a], headers: {x: '**'}}", "routes.0.headers.x: one * already"),
        ("{to: [a], min_tokens: 9, max_tokens: 8}", "routes.0.min_tokens: is more than"),
        ("{to: [a], hours: '24:00-06:00'}", "routes.0.hours"),
        ("{to: [a], by: random}", "routes.0.by"),
        ("{to: [a], canary: {id: c, to: ''}}", "routes.0.canary.to: names no model"),
        ("{to: [a], canary: {id: c, to: b, share: 0.6}}", "routes.0.canary.share"),
        ("{to: [a], canary: {id: c}}", "routes.0.canary: has nothing on trial"),
        (
            "{to: [a], canary: {id: c, to: b, breakpoints: true}}",
            "routes.0.canary.breakpoints: cannot be on trial beside",
        ),
        ("{to: [a], canary: {id: c, breakpoints: false}}", "routes.0.canary.breakpoints: is what `prompt_cache"),
        ("{to: [a, b], by: learned}", "routes.0.learn: is needed to choose by what was learned"),
        ("{to: [a], learn: {id: s}}", "routes.0.learn: has nothing to choose between"),
        ("{to: [a, b], learn: {id: s}}, {to: [c, d], learn: {id: s}}", "routes.1.learn.id: another rule learns under"),
        ("{to: [a, b], learn: {id: s, labels: nowhere.jsonl}}", "nowhere.jsonl cannot be read"),
        ("{to: [a, b], learn: {id: s, explore: 0.03}}", "routes.0.learn.explore"),
        ("{to: [a, b], learn: {id: s, quality: 2}}", "routes.0.learn.quality"),
        ("{to: [a], cascade: {}}", "routes.0.cascade: has nowhere to go on"),
        (
            "{to: [a, b], by: weight, cascade: {}}",
            "routes.0.cascade: asks the cheap targets first, and `by: weight` has",
        ),
        ("{to: [a, b], cascade: {}, canary: {id: c, to: d}}", "routes.0.cascade: would hide what the canary"),
        ("{to: [a, b], cascade: {hold_bytes: 100}}", "routes.0.cascade.hold_bytes"),
        ("{to: [a, b], cascade: true}", "routes.0.cascade"),
        ("{to: [a], canary: {id: c, to: b}}, {to: [d], canary: {id: c, to: e}}", "routes.1.canary.id: another canary"),
    ],
)
def test_what_is_refused(refused: Any, text: str, problem: str) -> None:
    (line,) = refused(f"routes: [{text}]")
    assert problem in line


def test_what_each_rule_does(loading: Any) -> None:
    text = """
    routes:
      - {to: [a, {model: b, upstream: openai, weight: 3}], by: weight, model: fast, team: red, headers: {x-tier: batch}}
      - {to: [{upstream: openai}, {model: c}], by: cost, min_tokens: 100, tools: true, hours: "22:00-06:00"}
      - {to: [d], agent_version: "1.*", max_tokens: 9, tools: false, canary: {id: next, to: e, share: 0.05}}
      - {to: [f], sticky: false}
      - {to: [g, h], by: learned, learn: {id: s}}
      - {to: [i, j], by: cost, sticky: false, cascade: {hold_bytes: 4096}}
    """
    assert routing(loading(text)) == [
        "routes.0: model fast, team red, x-tier: batch: a 25%, b at openai 75% (by weight), each run with one",
        "routes.1: 100 or more tokens, with tools, 22:00-06:00 UTC: the same model at openai, c (the cheaper), "
        "each run with one while it is warm (300 s)",
        "routes.2: agent_version 1.*, 0 to 9 tokens, without tools: d; canary next: 5% of the runs to e",
        "routes.3: all calls: f",
        "routes.4: all calls: g, h (as learned), each run with one while it is warm (300 s)",
        "routes.5: all calls: i, j (the cheaper); an answer that has not the form demanded is withheld "
        "(up to 4096 bytes), and the next is asked",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{to: [a], upstream: opnai}", "routes.0.upstream"),
        ("{to: [a], route: /v1/chat/completion}", "routes.0.route"),
        ("{to: [a]}, {to: [b], agent: x}", "routes.1"),
        ("{to: [a], model: 'gpt-*'}, {to: [b], model: gpt-4o}", "routes.1"),
    ],
)
def test_what_is_doubtful(loading: Any, text: str, problem: str) -> None:
    (found,) = doubts(loading(f"routes: [{text}]"))
    assert ".".join(found.path) == problem


@pytest.mark.parametrize("narrower", ["headers: {x: a}", "tools: true", "hours: '01:00-02:00'", "min_tokens: 5"])
def test_a_rule_for_some_calls_leaves_the_rest(loading: Any, narrower: str) -> None:
    assert not list(doubts(loading(f"routes: [{{to: [a], {narrower}}}, {{to: [b]}}]")))
