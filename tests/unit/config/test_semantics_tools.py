"""Rules of tools: each is broken once, alone."""

from __future__ import annotations

from typing import Any

import pytest

URL = "https://search.example.com/v1"


def tool(more: str = "", url: str = URL, name: str = "search") -> str:
    return f"tools: {{{name}: {{url: '{url}'{more}}}}}"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (tool(url="$URL"), "tools.search.url: a URL begins with http:// or https://; variables are read in secret"),
        (tool(url="http://10.0.0.7"), "tools.search.url: the host is a private or loopback address; `allow_private"),
        (tool(url="http://localhost:9"), "tools.search.url: the host is a private or loopback address"),
        (tool(url="http://0x7f.1"), "tools.search.url: looks like an IP address but is not written as one"),
        (tool(url="http://0.0.0.0", more=", allow_private: true"), "tools.search.url: the host is not the address of"),
        (tool(name="client"), "tools.client: this name stands for tools that agents run themselves"),
        (tool(", methods: []"), "tools.search.methods: allows no method"),
        (tool(", methods: [CONNECT]"), "tools.search.methods.0: expected one of DELETE, GET, HEAD"),
        (tool(", paths: []"), "tools.search.paths: allows no path"),
        (tool(", paths: [search]"), "tools.search.paths.0: a pattern begins with /"),
        (tool(", paths: ['/a', '/a//b']"), "tools.search.paths.1: a pattern begins with /"),
        (tool(", paths: ['/a/../b']"), "tools.search.paths.0: a pattern begins with /"),
        (tool(", paths: ['/a?b']"), "tools.search.paths.0: a pattern begins with /"),
        (tool(", paths: ['/**/b']"), "tools.search.paths.0: a pattern begins with /"),
        (tool(", paths: ['/a**']"), "tools.search.paths.0: a pattern begins with /"),
        (tool(", paths: ['/a%2fb']"), "tools.search.paths.0: a pattern begins with /"),
        (tool(", price: {usd: -1}"), "tools.search.price.usd: expected a number of US dollars"),
        (
            tool(", price: {usd: 1, unit_header: a, unit_field: b}"),
            "tools.search.price: units are stated in a header or",
        ),
        (tool(", price: {usd: 1, unit_header: 'a b'}"), "tools.search.price.unit_header: not a header name"),
        (tool(", price: {usd: 1, unit_field: 'a..b'}"), "tools.search.price.unit_field: names and numbers"),
        (tool(", price: {usd: 1, max_units: 3}"), "tools.search.price.max_units: nothing states units"),
        (tool(", cache: {ttl: 5}"), "tools.search.cache: only outputs of a tool that is `read_only`"),
        (tool(", read_only: true, cache: {ttl: 0}"), "tools.search.cache.ttl: expected a number of seconds"),
        (
            tool(", read_only: true, methods: [PUT], cache: {ttl: 5}"),
            "tools.search.cache: only answers to GET and POST are kept",
        ),
        (
            tool(", read_only: true, cache: {ttl: 5, paths: {a: 1}}"),
            "tools.search.cache.paths.a: a pattern begins with /",
        ),
        ("mcp: {s: {url: 'https://x.example', cache: {tools: {}}}}", "mcp.s.cache.tools: names no tool"),
        ("mcp: {s: {url: 'https://x.example', cache: {tools: {'': 1}}}}", "must be 1 to 256 printable"),
        (tool(", headers: {Host: x}"), "tools.search.headers.Host: this header belongs to the connection"),
        (tool(", key: ''"), "tools.search.key: must be printable"),
        (tool(", ca_file: gone.pem"), "tools.search.ca_file: cannot read"),
        (tool(url="http://127.0.0.1:8787/x", more=", allow_private: true"), "tools.search.url: points at the gateway"),
        ("upstreams: {tools: {dialect: openai, url: 'https://x.example'}}", "upstreams.tools: this name is a route"),
        ("upstreams: {mcp: {dialect: openai, url: 'https://x.example'}}", "upstreams.mcp: this name is a route"),
    ],
)
def test_one_fault_one_problem(refused: Any, text: str, problem: str) -> None:
    (line,) = refused(text)
    assert problem in line


def test_secrets_are_read_from_the_environment_and_never_shown(loading: Any) -> None:
    config = loading(tool(", key: $SEARCH_KEY, headers: {X-Id: '${SEARCH_ID}'}"), SEARCH_KEY="k-123", SEARCH_ID="i-456")
    assert config.tools["search"].key == "k-123"
    assert config.tools["search"].headers == {"X-Id": "i-456"}
    assert "k-123" not in repr(config)
    assert "i-456" not in repr(config)


def test_a_tool_may_be_private_where_that_is_said(loading: Any) -> None:
    for url in ("http://localhost:9", "http://127.0.0.1:9", "http://[::1]:9", "http://10.0.0.7/x"):
        assert loading(tool(url=url, more=", allow_private: true")).tools["search"].allow_private
