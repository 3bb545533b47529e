"""Upstreams that fail, in the configuration: what is refused, what is doubtful, what `tollgate check` says."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.check_resilience import doubts, resilience


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
