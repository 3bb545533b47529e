"""The semantic cache in the configuration: what is refused, what is doubtful, and what `tollgate check` says of it."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.check_semantic import active, doubts, matching

UP = (
    "upstreams: {e: {dialect: openai, url: 'https://e.example', key: k}, a: {dialect: anthropic, url: 'https://a.x'}}\n"
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{semantic: {rules: [{model: ''}]}}", "cache.semantic.rules.0.model: must be 1 to 200 printable"),
        (
            "{semantic: {rules: [{agent: a}, {agent: a, ttl: 5}]}}",
            "cache.semantic.rules.1: a rule before it has the same",
        ),
        ("{semantic: {embedder: {upstream: f, model: m}}}", "cache.semantic.embedder.upstream: is no upstream"),
        ("{semantic: {judge: {upstream: a, model: m}}}", "cache.semantic.judge.upstream: must speak the API of OpenAI"),
        ("{semantic: {judge: {upstream: openai, model: m}}}", "cache.semantic.judge.upstream: has no `key`"),
        ("{semantic: {judge: {upstream: e, model: ''}}}", "cache.semantic.judge.model: must be the name of a model"),
    ],
)
def test_what_is_refused(refused: Any, text: str, problem: str) -> None:
    (line,) = refused(f"{UP}cache: {text}")
    assert problem in line


@pytest.mark.parametrize("field", ["target: 0", "target: 0.5", "sample: 0", "ttl: 0", "mode: maybe", "patience: 10"])
def test_values_out_of_range_are_refused(refused: Any, field: str) -> None:
    assert len(refused(f"cache: {{semantic: {{{field}}}}}")) == 1


def test_it_is_active_only_where_the_exact_cache_keeps_something(loading: Any) -> None:
    assert not active(loading())
    assert not active(loading("cache: {semantic: {mode: serve}}"))
    assert not active(loading("cache: {exact: {enabled: true}}"))
    assert not active(loading("cache: {exact: {enabled: true}, semantic: {rules: [{agent: a}]}}"))
    assert active(loading("cache: {exact: {enabled: true}, semantic: {mode: shadow}}"))
    assert active(loading("cache: {exact: {enabled: true}, semantic: {rules: [{agent: a, mode: serve}]}}"))


def test_each_rule_is_explained(loading: Any) -> None:
    config = loading(
        f"""{UP}
cache:
  exact: {{enabled: true}}
  semantic:
    mode: shadow
    rules:
      - {{agent: bot, mode: serve, target: 0.02, sample: 0.1, ttl: 60}}
      - {{tenant: bank, mode: off}}
"""
    )
    lines = matching(config, "pip install it")
    assert lines == [
        "cache.semantic.rules.0: agent bot: answers to similar questions for 60 s, once evidence says that at most "
        "2.00% of them are wrong; 10.0% of hits are checked upstream",
        "cache.semantic.rules.1: tenant bank: equal questions only",
        "cache.semantic: all other calls: learns which questions share an answer, serves nothing (target 1.00% wrong)",
        "cache.semantic.embedder: missing: pip install it; until then only equal questions are answered",
    ]
    assert matching(config, "")[-1] == "cache.semantic.embedder: on this machine"
    (problem,) = doubts(config, "pip install it")
    assert (problem.path, problem.hint) == (("cache", "semantic", "embedder"), "pip install it")
    assert not list(doubts(config, ""))


def test_an_upstream_embedder_lacks_nothing(loading: Any) -> None:
    text = "cache: {exact: {enabled: true}, semantic: {mode: serve, embedder: {upstream: e, model: m}}}"
    config = loading(UP + text)
    assert matching(config, "x")[-1] == "cache.semantic.embedder: m at e, which costs what it costs there"
    assert not list(doubts(config, "x"))
    assert matching(loading(), "x") == []


@pytest.mark.parametrize(
    ("text", "where", "reason"),
    [
        ("{semantic: {mode: serve}}", "cache.semantic", "has no effect"),
        (
            "{exact: {enabled: true}, semantic: {mode: serve, time_words: true}}",
            "cache.semantic.time_words",
            "about now",
        ),
        (
            "{exact: {enabled: true}, semantic: {time_words: true, ttl: 60, rules: [{ttl: 900, mode: serve}]}}",
            "cache.semantic.rules.0.time_words",
            "about now are given for 900 s",
        ),
        ("{semantic: {rules: [{route: /v2/x}]}}", "cache.semantic.rules.0.route", "matches no route"),
        ("{semantic: {rules: [{agent: 'a*'}, {agent: ab}]}}", "cache.semantic.rules.1", "is never reached"),
    ],
)
def test_what_is_doubtful(loading: Any, text: str, where: str, reason: str) -> None:
    (problem,) = doubts(loading(f"cache: {text}"), "")
    assert ".".join(problem.path) == where
    assert reason in problem.reason
