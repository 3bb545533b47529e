"""Upstreams that fail, in the configuration: what is refused, what is doubtful, what `tollgate check` says."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.check_resilience import breaking, doubts, resilience


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("timeouts: [{model: a}]", "timeouts.0: states no timeout"),
        ("timeouts: [{model: '', idle: 1}]", "timeouts.0.model: must be 1 to 200 printable"),
        ("timeouts: [{agent: 'a**', idle: 1}]", "timeouts.0.agent: one * already stands for"),
        ("timeouts: [{idle: 9, total: 5}]", "timeouts.0.idle: is longer than `total`"),
        ("timeouts: [{idle: 0}]", "timeouts.0.idle: expected a number of seconds"),
        ("timeouts: [{ping: 9, first_content: 9}]", None),
        ("timeouts: [{ping: 9, first_content: 9, total: 10}]", "timeouts.0.ping: is not shorter than `first_content`"),
        ("retries: {base: 20}", "retries.base: is longer than `longest`"),
        ("breakers: {pause: 90}", "breakers.pause: is longer than `longest`"),
        ("hedging: {share: 0}", "hedging.share: expected"),
        ("hedging: {quantile: 1}", "hedging.quantile: expected"),
        ("hedging: {sample: 9}", "hedging.sample: expected"),
        ("hedging: {sample: 201}", "hedging.sample: expected"),
        ("hedging: {agent: ''}", "hedging.agent: must be 1 to 200 printable"),
        ("retries: {attempts: 0}", "retries.attempts: expected a whole number"),
        ("fallbacks: [{to: []}]", "fallbacks.0.to: leads nowhere"),
        ("fallbacks: [{to: [openai], on: []}]", "fallbacks.0.on: is for no kind of trouble"),
        ("fallbacks: [{to: [openal]}]", "fallbacks.0.to.0: no upstream has this name"),
        ("fallbacks: [{to: [{weight: 2}]}]", "fallbacks.0.to.0: names neither an upstream nor a model"),
        ("fallbacks: [{to: [openai, openai]}]", "fallbacks.0.to.1: stands twice in its chain"),
        ("fallbacks: [{to: [{model: ' '}]}]", "fallbacks.0.to.0.model: stands for no model"),
        ("fallbacks: [{upstream: openai, to: [anthropic]}]", "fallbacks.0.to.0: speaks another dialect"),
        (
            "upstreams: {raw: {dialect: opaque, url: 'https://x.example'}}\n"
            "fallbacks: [{upstream: openai, to: [{upstream: raw, model: m}]}]",
            "fallbacks.0.to.0: speaks another dialect",
        ),
        (
            "upstreams: {near: {dialect: ollama, url: 'https://x.example'}}\n"
            "fallbacks: [{upstream: openai, to: [{upstream: near, model: m}]}]",
            "speaks another dialect than every upstream that the rule is for; not translated: bedrock, cohere,",
        ),
        (
            "upstreams: {near: {dialect: ollama, url: 'https://x.example'},\n"
            "            far: {dialect: ollama, url: 'https://y.example'}}\n"
            "fallbacks: [{upstream: near, to: [far]}]",
            None,
        ),
        ("fallbacks: [{model: 'a**', to: [openai]}]", "fallbacks.0.model: one * already stands for"),
        (
            "upstreams: {up: {dialect: openai, url: 'https://x.example', timeouts: {total: 9, first_byte: 10}}}",
            "upstreams.up.timeouts.first_byte: is longer than `total`",
        ),
    ],
)
def test_what_is_refused(refused: Any, loading: Any, text: str, problem: str | None) -> None:
    if problem is None:
        loading(text)
        return
    (line,) = refused(text)
    assert problem in line


def test_a_default_that_is_longer_than_the_whole_is_nobodys_fault(loading: Any) -> None:
    loading("upstreams: {up: {dialect: openai, url: 'https://x.example', timeouts: {total: 60}}}")


def test_what_each_rule_does(loading: Any) -> None:
    text = "timeouts: [{model: 'o*', upstream: openai, first_content: 900, idle: 0.5}, {ping: 15}]"
    assert resilience(loading(text)) == [
        "timeouts.0: upstream openai, model o*: first_content 900 s, idle 0.5 s",
        "timeouts.1: all calls: ping 15 s",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[{upstream: opnai, idle: 1}]", "timeouts.0.upstream"),
        ("[{route: /v1/chat/completion, idle: 1}]", "timeouts.0.route"),
        ("[{idle: 1}, {model: a, idle: 2}]", "timeouts.1"),
    ],
)
def test_what_is_doubtful(loading: Any, text: str, problem: str) -> None:
    (found,) = doubts(loading(f"timeouts: {text}"))
    assert ".".join(found.path) == problem


def test_a_rule_that_states_more_than_the_one_before_it_is_none(loading: Any) -> None:
    assert not list(doubts(loading("timeouts: [{idle: 1}, {model: a, idle: 2, total: 9}]")))


BACKUP = "upstreams: {backup: {dialect: openai, url: 'https://b.example', key: sk-backup-0123456789}}\n"


def test_what_each_chain_does(loading: Any) -> None:
    text = """
fallbacks:
  - {model: "gpt-4o*", to: [backup, {upstream: openai, model: gpt-4o-mini}]}
  - {on: [context, policy], order: weighted, to: [{model: gpt-4.1}, {upstream: backup, weight: 2}]}
retries: {attempts: 2, budget: 0.1}
"""
    assert resilience(loading(BACKUP + text)) == [
        "fallbacks.0: model gpt-4o*: on failure: backup then openai as gpt-4o-mini",
        "fallbacks.1: all calls: on context, policy: as gpt-4.1 or backup",
        "retries: of clients that do not retry by themselves: up to 1, 10% of an upstream's calls",
        "breakers: open at 50% of 20 calls in 30 s, 5 in a row, for 5 to 60 s; "
        "calls without another target are sent all the same",
    ]


def test_what_is_hedged(loading: Any) -> None:
    assert resilience(loading("hedging: {share: 0.1}")) == []
    assert resilience(loading("hedging: {enabled: true, agent: 'chat-*'}")) == [
        "hedging: agent chat-*: a second attempt where 95% of the answers came sooner, "
        "for 5% of an upstream's calls at most"
    ]
    (found,) = doubts(loading("hedging: {enabled: true, upstream: opnai}"))
    assert "hedging.upstream: matches no upstream" in str(found)


def test_breakers_work_where_there_are_other_targets_or_where_it_is_said(loading: Any) -> None:
    assert not breaking(loading())
    assert breaking(loading("routes: [{to: [a, b]}]"))
    assert not breaking(loading("routes: [{to: [a], canary: {id: c, to: b}}]"))
    assert breaking(loading(BACKUP + "fallbacks: [{to: [backup]}]"))
    assert not breaking(loading(BACKUP + "fallbacks: [{to: [backup]}]\nbreakers: {enabled: false}"))
    assert breaking(loading("breakers: {refuse: true}"))
    assert breaking(loading("breakers: {consecutive: 3}"))
    assert not breaking(loading("breakers: {enabled: false, refuse: true}"))
    assert resilience(loading("breakers: {enabled: true, refuse: true, consecutive: 0}")) == [
        "breakers: open at 50% of 20 calls in 30 s, for 5 to 60 s; calls without another target are refused"
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[{to: [backup]}, {model: a, to: [backup]}]", "fallbacks.1: is never reached"),
        ("[{upstream: opnai, to: [backup]}]", "fallbacks.0.upstream: matches no upstream"),
        ("[{route: /v1/chat, to: [backup]}]", "fallbacks.0.route: matches no route"),
        ("[{to: [openai]}]", "fallbacks.0.to.0: openai has no key of its own"),
    ],
)
def test_chains_that_are_doubtful(loading: Any, text: str, problem: str) -> None:
    (found,) = doubts(loading(BACKUP + "fallbacks: " + text))
    assert problem in str(found)


def test_chains_for_other_trouble_are_no_doubt(loading: Any) -> None:
    text = "fallbacks: [{to: [backup]}, {model: a, on: [context], to: [backup]}]"
    assert not list(doubts(loading(BACKUP + text)))
