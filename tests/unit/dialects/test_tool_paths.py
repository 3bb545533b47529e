"""Which paths lead to a tool: matched on the raw path, and what is matched is what is sent."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.routes import Table
from gateway.dialects.tool_paths import Door, allows
from gateway.errors import GatewayError

TABLE = Table(
    {"openai": "openai"},
    {
        ("tools", "search"): Door("/v1", ("GET", "POST"), ("/search", "/items/*", "/open/**", "/img-*.png")),
        ("tools", "all"): Door("", ("GET", "POST", "DELETE")),
        ("tools", "one"): Door("/exact/place", ("GET",), ("/",)),
    },
)


def resolve(path: str, method: str = "GET") -> tuple[str, bytes]:
    route = TABLE.resolve(method.encode(), path.encode(), "")
    return route.upstream, route.path


@pytest.mark.parametrize(
    ("path", "upstream", "sent"),
    [
        ("/tools/search/search?q=a&key=b", "tools/search", b"/v1/search?q=a&key=b"),
        ("/tools/search/items/7", "tools/search", b"/v1/items/7"),
        ("/tools/search/items/a%20b", "tools/search", b"/v1/items/a%20b"),
        ("/tools/search/open/", "tools/search", b"/v1/open/"),
        ("/tools/search/open/a/b/c?x=/../y", "tools/search", b"/v1/open/a/b/c?x=/../y"),
        ("/tools/search/img-7.png", "tools/search", b"/v1/img-7.png"),
        ("/tools/all", "tools/all", b"/"),
        ("/tools/all/", "tools/all", b"/"),
        ("/tools/all?x", "tools/all", b"/?x"),
        ("/tools/all/v1/v1/x", "tools/all", b"/v1/v1/x"),
        ("/tools/one", "tools/one", b"/exact/place"),
        ("/tools/one/", "tools/one", b"/exact/place/"),
        ("/run/r1/agent/bot/tools/one", "tools/one", b"/exact/place"),
    ],
)
def test_what_is_allowed_is_sent_as_it_came(path: str, upstream: str, sent: bytes) -> None:
    assert resolve(path) == (upstream, sent)


def test_a_call_of_a_tool_says_so() -> None:
    route = TABLE.resolve(b"POST", b"/run/r1/agent/bot/version/1.4/budget/2/tools/all/x", "")
    assert (route.template, route.dialect, route.operation) == ("/tools/{tool}", "tool", "execute_tool")
    assert (route.run_id, route.agent, route.agent_version, route.budget) == ("r1", "bot", "1.4", b"2")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/tools/nobody/x", "unknown_route"),
        ("/tools", "unknown_route"),
        ("/tools/", "unknown_route"),
        ("/mcp/search", "unknown_route"),
        ("/tools/Search/search", "unknown_route"),
        ("/tools/search", "tool_path_not_allowed"),
        ("/tools/search/", "tool_path_not_allowed"),
        ("/tools/search/Search", "tool_path_not_allowed"),
        ("/tools/search/%73earch", "bad_path"),
        ("/tools/search/search/", "tool_path_not_allowed"),
        ("/tools/search/search/admin", "tool_path_not_allowed"),
        ("/tools/search/searches", "tool_path_not_allowed"),
        ("/tools/search/search;x=1", "tool_path_not_allowed"),
        ("/tools/search/items/7/delete", "tool_path_not_allowed"),
        ("/tools/search/open", "tool_path_not_allowed"),
        ("/tools/search/img-7/x.png", "tool_path_not_allowed"),
        ("/tools/one/x", "tool_path_not_allowed"),
        ("/tools/all/../openai/v1", "bad_path"),
        ("/tools/all/./x", "bad_path"),
        ("/tools/all/x/..", "bad_path"),
        ("/tools/all//evil.example/x", "bad_path"),
        ("/tools/all/%2e%2e/x", "bad_path"),
        ("/tools/all/.%2E/x", "bad_path"),
        ("/tools/all/a%2fb", "bad_path"),
        ("/tools/all/a%5Cb", "bad_path"),
        ("/tools/all/a\\b", "bad_path"),
        ("/tools/all/..;/x", "bad_path"),
        ("/tools/all/.;a=b/x", "bad_path"),
        ("/tools/all/%252e%252e/x", "bad_path"),
        ("/tools/all/%25252fx", "bad_path"),
        ("/tools/all/%C0%AE%c0%ae/x", "bad_path"),
        ("/tools/all/a%e0%80%afb", "bad_path"),
        ("/tools/all/a%f0%80%80%af", "bad_path"),
        ("/tools/all/%00", "bad_path"),
        ("/tools/all/x%0d%0aHost:%20a", "bad_path"),
        ("/tools/all/%0A", "bad_path"),
        ("/tools/all/%7f", "bad_path"),
        ("/tools/all/%", "bad_path"),
        ("/tools/all/%2", "bad_path"),
        ("/tools/all/%zz", "bad_path"),
        ("/tools/all/%u002e", "bad_path"),
    ],
)
def test_what_is_refused(path: str, code: str) -> None:
    with pytest.raises(GatewayError) as caught:
        resolve(path)
    assert caught.value.code == code


@pytest.mark.parametrize("method", ["HEAD", "PUT", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "PURGE", ""])
def test_only_the_methods_that_are_listed(method: str) -> None:
    with pytest.raises(GatewayError) as caught:
        resolve("/tools/search/search", method)
    assert (caught.value.code, caught.value.status) == ("method_not_allowed", 405)


def test_a_target_that_is_no_path_of_this_gateway() -> None:
    for target in (b"http://127.0.0.1/tools/all/x", b"@127.0.0.1/", b"*", b"all"):
        with pytest.raises(GatewayError):
            TABLE.resolve(b"GET", target, "")


def test_without_tools_there_are_no_such_routes() -> None:
    table = Table({"openai": "openai"})
    with pytest.raises(GatewayError) as caught:
        table.resolve(b"GET", b"/tools/all/x", "")
    assert caught.value.code == "unknown_route"


@given(st.text(st.sampled_from("ab/*."), max_size=12), st.text(st.sampled_from("ab/."), max_size=12))
def test_a_star_never_crosses_a_slash(pattern: str, path: str) -> None:
    pattern, path = "/" + re.sub(r"\*+", "*", pattern), "/" + path
    if allows(pattern, path):
        assert pattern.count("/") == path.count("/")
