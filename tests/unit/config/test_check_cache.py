"""The cache in the configuration: what is refused, what is doubtful, and what `tollgate check` says will be cached."""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest

from gateway.config.check_cache import OF_DIALECT, ROUTES, active, caching, doubts, of_tools
from gateway.config.schema import Config
from gateway.dialects.routes import FAMILIES
from gateway.policy.cache_rules import OPERATIONS


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{ignore_headers: ['a b']}", "cache.ignore_headers.0: not a header name"),
        ("{ignore_headers: [X-Ok, Authorization]}", "cache.ignore_headers.1: this header says who asks"),
        ("{ignore_headers: [anthropic-beta]}", "cache.ignore_headers.0: this header says who asks"),
        ("{entry_bytes: 100000, tenant_bytes: 65536}", "cache.entry_bytes: must fit into what one tenant may keep"),
        ("{store: redis}", "cache.store: there is no Redis"),
        ("{store: redis, redis: 'http://h'}", "cache.redis: a URL of Redis begins with"),
        ('{version: "a\\tb"}', "cache.version: must be printable"),
        ("{exact: {rules: [{model: ''}]}}", "cache.exact.rules.0.model: must be 1 to 200 printable"),
        ("{exact: {rules: [{tenant: ' a'}]}}", "cache.exact.rules.0.tenant: must be 1 to 200 printable"),
        ("{exact: {rules: [{agent: 'a**'}]}}", "cache.exact.rules.0.agent: one * already stands for"),
        ("{exact: {rules: [{agent: a}, {agent: a, ttl: 5}]}}", "cache.exact.rules.1: a rule before it has the same"),
    ],
)
def test_what_is_refused(refused: Any, text: str, problem: str) -> None:
    (line,) = refused(f"cache: {text}")
    assert problem in line


def test_nothing_is_cached_unless_it_is_said(loading: Any) -> None:
    assert not active(loading())
    assert caching(loading()) == []
    assert not active(loading("cache: {exact: {rules: [{enabled: false}]}}"))
    assert active(loading("cache: {exact: {enabled: true}}"))
    assert active(loading("cache: {exact: {rules: [{model: a}]}}"))


def test_what_will_be_cached_is_said_for_each_rule(loading: Any) -> None:
    config: Config = loading(
        """
cache:
  exact:
    ttl: 60
    tools: true
    rules:
      - {tenant: bank, enabled: false}
      - {route: /v1/chat/completions, model: "gpt-*", ttl: 5, tools: false, sampled: none}
      - {agent: a, sampled: all}
"""
    )
    assert caching(config) == [
        "cache.exact.rules.0: tenant bank: not cached",
        "cache.exact.rules.1: route /v1/chat/completions, model gpt-*: cached for 5 s, without tool calls, "
        "only where temperature is 0 or there is a seed",
        "cache.exact.rules.2: agent a: cached for 60 s, with tool calls, sampled ones, too",
        "cache.exact: all other calls: not cached",
        "cache: kept in a file of this machine, up to 268435456 bytes for each tenant; "
        "equal calls at once are one, on this machine",
    ]
    assert caching(loading("cache: {exact: {enabled: true}}"))[:-1] == [
        "cache.exact: all calls: cached for 3600 s, without tool calls, "
        "unless a temperature above 0 is stated without a seed"
    ]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("cache: {exact: {enabled: true}, store: redis, redis: 'redis://u:pw@h:1/2'}", "Redis at h:1/2, up to"),
        ("cache: {exact: {enabled: true}, store: redis}\nspending: {redis: 'rediss://h'}", "Redis at h, up to"),
        ("cache: {exact: {enabled: true}, redis: 'redis://h', single_flight: false}", "a file of this machine, up to"),
    ],
)
def test_where_it_is_kept_is_said_without_passwords(loading: Any, text: str, where: str) -> None:
    line = caching(loading(text))[-1]
    assert where in line
    assert "pw" not in line
    assert line.endswith("go upstream one by one") == ("single_flight: false" in text)


def test_a_redis_that_is_not_used_is_doubtful(loading: Any) -> None:
    (problem,) = doubts(loading("cache: {redis: 'redis://h'}"))
    assert problem.reason == "is not used: answers are kept in a file"


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("[{route: /v1/chat/completion}]", "route: matches no route whose answers can be cached; did you mean"),
        ("[{route: /v1/models}]", "route: matches no route whose answers can be cached"),
        ("[{upstream: opnai}]", 'upstream: matches no upstream; did you mean "openai"'),
        ("[{model: 'gpt-*'}, {model: gpt-4, tenant: a}]", "rules.1: is never reached"),
        ("[{}, {model: gpt-4}]", "rules.1: is never reached"),
    ],
)
def test_what_is_doubtful(loading: Any, rules: str, said: str) -> None:
    (problem,) = doubts(loading(f"cache: {{exact: {{rules: {rules}}}}}"))
    assert said in str(problem)


def test_good_rules_raise_no_doubt(loading: Any) -> None:
    rules = "[{model: gpt-4, tenant: a}, {model: 'gpt-*'}, {route: '/v1/*', upstream: anthropic}]"
    assert list(doubts(loading(f"cache: {{exact: {{rules: {rules}}}}}"))) == []


def test_the_routes_are_those_that_can_be_cached() -> None:
    known = {known.template for table in FAMILIES.values() for known in table if known.operation in OPERATIONS}
    assert {*ROUTES, *chain(*OF_DIALECT.values())} == known - {"/v1/responses/compact"}


def test_a_route_of_a_dialect_is_one_where_an_upstream_speaks_it(loading: Any) -> None:
    rule = "cache: {exact: {rules: [{route: /v2/chat, enabled: true}]}}\n"
    assert "matches no route" in str(list(doubts(loading(rule))))
    ours = "upstreams: {cohere: {dialect: cohere, url: 'https://api.cohere.com'}}\n"
    assert "matches no route" not in str(list(doubts(loading(ours + rule))))


def test_what_will_be_cached_of_tools_is_said_and_what_cannot_be_is_doubted(loading: Any) -> None:
    config: Config = loading(
        """
tools:
  search: {url: https://s.example, read_only: true, cache: {ttl: 60, paths: {/items/*: 86400, /live/**: 0}}}
  other: {url: https://o.example, read_only: true, cache: {ttl: 9, override: true}}
mcp:
  files: {url: https://f.example, deny: [RM], cache: {tools: {rm: 5, read_*: 300}}}
  docs: {url: https://d.example, cache: {tools: {"*": 9}, shared: true}}
"""
    )
    assert caching(config) == [
        "tools.search.cache: /items/* for 86400 s, /live/** not, other paths for 60 s",
        "tools.other.cache: other paths for 9 s, whatever the tool says of no-cache and max-age",
        "mcp.files.cache: rm for 5 s, read_* for 300 s, for each session by itself",
        "mcp.docs.cache: * for 9 s, for all sessions of a client",
        "cache: kept in a file of this machine, up to 268435456 bytes for each tenant; "
        "equal calls at once are one, on this machine",
    ]
    assert of_tools(config)
    assert not active(config)
    assert not of_tools(loading("tools: {other: {url: https://o.example}}"))
    (doubt,) = doubts(config)
    assert doubt.path == ("mcp", "files", "cache", "tools", "rm")
