from __future__ import annotations

import functools
from typing import Any

import pytest

from gateway.call import Asked, Call, Request, Route, Target, Trace, Who
from gateway.key import Key
from gateway.policy.forward import listed, other_head, rendered, request_head, response_block, without_key
from gateway.ports import Spec
from gateway.testing.doubles import MemoryExchange
from gateway.tool import Price, Terms

Pairs = list[tuple[bytes, bytes]]


@functools.cache
def upstream(base: bytes, **more: Any) -> Spec:
    """The same one for the same terms, as in a gateway."""
    return Spec("up", "openai", Target("up", "", "up.example", 80, False, base), b"up.example", **more)


def asked(pairs: Pairs, path: bytes, facts: dict[str, Any] | None = None, **more: Any) -> Call:
    names: dict[bytes, bytes] = {}
    for name, value in pairs:
        names.setdefault(name.lower(), value)
    request = Request(b"POST", b"/in" + path, pairs, b"abc", names=names, facts={} if facts is None else facts)
    route = Route("/v1/x", "opaque", "", "up", path)
    trace = Trace("a" * 32, "b" * 16, state="v=1")
    return Call("id", request, route, more.pop("asked", Asked()), Who(), trace, 0, 0, via=b"gate-1", **more)


def head(
    pairs: Pairs,
    *,
    path: bytes = b"/v1/x",
    length: int = 3,
    base: bytes = b"",
    upgrade: bool = False,
    injected: bool = False,
    facts: dict[str, Any] | None = None,
    key: Key | None = None,
    away: bool = False,
    **spec: Any,
) -> list[bytes]:
    """The lines of the head sent upstream."""
    call = asked(pairs, path, facts, asked=Asked(injected=injected), key=key, away=away)
    made = request_head(call, upstream(base, **spec), length, upgrade=upgrade)
    assert made.endswith(b"\r\n\r\n")
    return made[:-4].split(b"\r\n")


HOST = (b"HOST", b"gate")


def test_case_order_and_duplicates_stay_and_host_and_length_keep_their_place() -> None:
    lines = head([(b"X-b", b"1"), HOST, (b"x-A", b"2"), (b"CONTENT-length", b"9"), (b"x-B", b"3")])
    assert lines == [
        b"POST /v1/x HTTP/1.1",
        b"X-b: 1",
        b"HOST: up.example",
        b"x-A: 2",
        b"CONTENT-length: 3",
        b"x-B: 3",
        b"via: 1.1 gate-1",
    ]


def test_a_length_is_added_where_there_is_a_body_and_a_host_always() -> None:
    assert head([]) == [b"POST /v1/x HTTP/1.1", b"host: up.example", b"content-length: 3", b"via: 1.1 gate-1"]
    assert b"content-length: 0" not in head([HOST], length=0)


@pytest.mark.parametrize(
    "name",
    [
        *(b"Connection", b"Keep-Alive", b"Proxy-Connection", b"Proxy-Authorization", b"TE", b"Trailer", b"Upgrade"),
        *(b"Proxy-Authenticate", b"Transfer-Encoding", b"Expect", b"X-Tollgate-Run-Id", b"x-tollgate-anything"),
        b"baggage",
    ],
)
def test_what_stays_behind(name: bytes) -> None:
    assert head([HOST, (name, b"x")])[1:] == [b"HOST: up.example", b"content-length: 3", b"via: 1.1 gate-1"]


def test_what_connection_lists_stays_behind_but_for_what_frames_the_message() -> None:
    pairs = [HOST, (b"Connection", b"X-A, host"), (b"connection", b"Content-Length"), (b"x-a", b"1"), (b"X-B", b"2")]
    assert head(pairs)[1:-1] == [b"HOST: up.example", b"X-B: 2", b"content-length: 3"]
    assert listed({}, pairs) == frozenset()


@pytest.mark.parametrize("name", [b"Authorization", b"X-Api-Key", b"api-key", b"X-Goog-Api-Key"])
def test_credentials_pass_unless_the_upstream_has_its_own(name: bytes) -> None:
    assert name + b": client" in head([HOST, (name, b"client")])
    lines = head([HOST, (name, b"client")], auth=((b"authorization", b"Bearer ours"),))
    assert not any(b"client" in line for line in lines)
    assert b"authorization: Bearer ours" in lines


@pytest.mark.parametrize("why", [{"key": Key("k")}, {"away": True}])
def test_nor_do_they_pass_with_a_key_of_the_gateway_or_to_another_upstream(why: dict[str, Any]) -> None:
    pairs = [HOST, (b"Authorization", b"client"), (b"x-api-key", b"client"), (b"x-goog-api-key", b"client")]
    pairs.append((b"X-Amz-Security-Token", b"client"))
    for length in (0, 3):
        lines = head(pairs, path=b"/x?key=client&a=1", length=length, **why)
        assert lines[0] == b"POST /x?a=1 HTTP/1.1"
        assert not any(b"client" in line for line in lines)


def test_a_tool_with_headers_of_its_own_gets_no_credentials_of_the_client() -> None:
    pairs, terms = [HOST, (b"Authorization", b"client")], Terms("t", Price(1))
    assert b"Authorization: client" in head(pairs, tool=terms)
    lines = head(pairs, tool=terms, headers=((b"x-key", b"ours"),))
    assert b"x-key: ours" in lines
    assert not any(b"client" in line for line in lines)


def test_what_was_translated_takes_along_nothing_of_the_api_that_its_client_speaks() -> None:
    theirs = [
        *(b"Authorization", b"X-Api-Key", b"Api-Key", b"Cookie", b"Content-Type", b"Content-Encoding", b"Accept"),
        *(b"Accept-Encoding", b"Anthropic-Version", b"OpenAI-Beta", b"X-Goog-Api-Client", b"X-Stainless-Lang"),
        *(b"X-Codex-Id", b"X-Claude-Id", b"X-OpenAI-Id", b"Originator", b"Idempotency-Key"),
    ]
    pairs = [HOST, *((name, b"theirs") for name in theirs), (b"Accept-Language", b"de"), (b"X-Mine", b"1")]
    made = other_head(asked(pairs, b"/v1/x"), upstream(b""), b"/v1/y", ((b"anthropic-version", b"1"),), 7)
    assert made.split(b"\r\n") == [
        *(b"POST /v1/y HTTP/1.1", b"HOST: up.example", b"Accept-Language: de", b"X-Mine: 1"),
        *(b"content-type: application/json", b"accept-encoding: identity", b"anthropic-version: 1"),
        *(b"content-length: 7", b"via: 1.1 gate-1", b"", b""),
    ]


def test_configured_headers_replace_those_of_the_client() -> None:
    lines = head([HOST, (b"x-org", b"theirs")], headers=((b"X-Org", b"ours"),))
    assert [line for line in lines if line.lower().startswith(b"x-org")] == [b"X-Org: ours"]


def test_the_trace_goes_on_only_where_that_is_wanted() -> None:
    pairs = [HOST, (b"traceparent", b"00-x"), (b"baggage", b"b=1")]
    assert b"traceparent: 00-x" in head(pairs), "a client may trace its provider"
    lines = head(pairs, propagate_trace=True)
    assert b"traceparent: 00-%b-%b-01" % (b"a" * 32, b"b" * 16) in lines
    assert b"tracestate: v=1" in lines
    assert b"traceparent: 00-x" not in lines
    assert b"baggage: b=1" in lines


def test_a_body_that_was_edited_is_answered_plainly() -> None:
    lines = head([HOST, (b"Accept-Encoding", b"gzip, br")], injected=True)
    assert [line for line in lines if b"ncoding" in line] == [b"accept-encoding: identity"]


def test_an_upgrade_is_asked_for_again() -> None:
    lines = head([HOST, (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")], upgrade=True, length=0)
    assert lines[2:4] == [b"connection: Upgrade", b"upgrade: websocket"]


@pytest.mark.parametrize(
    ("base", "path", "sent"),
    [
        (b"", b"/v1/x?a=1", b"/v1/x?a=1"),
        (b"/v1", b"/v1/x", b"/v1/x"),
        (b"/api/v1", b"/v1/x", b"/api/v1/x"),
        (b"/api/v1", b"/x", b"/api/v1/x"),
        (b"/proxy", b"/v1/x", b"/proxy/v1/x"),
        (b"/openai", b"/openai/v1/x", b"/openai/v1/x"),
    ],
)
def test_the_path_of_the_url_comes_first_and_no_version_twice(base: bytes, path: bytes, sent: bytes) -> None:
    assert head([HOST], base=base, path=path)[0] == b"POST " + sent + b" HTTP/1.1"


@pytest.mark.parametrize(
    ("path", "left"),
    [
        (b"/x?key=k", b"/x"),
        (b"/x?key=k&alt=sse", b"/x?alt=sse"),
        (b"/x?alt=sse&key=k&b=2", b"/x?alt=sse&b=2"),
        (b"/x?monkey=1", b"/x?monkey=1"),
        (b"/x", b"/x"),
    ],
)
def test_the_key_of_a_query_can_be_taken_out(path: bytes, left: bytes) -> None:
    assert without_key(path) == left


def test_it_is_where_the_upstream_has_its_own() -> None:
    auth = ((b"x-goog-api-key", b"ours"),)
    assert head([HOST], path=b"/x?key=k&a=1", auth=auth)[0] == b"POST /x?a=1 HTTP/1.1"
    assert head([HOST], path=b"/x?key=k&a=1")[0] == b"POST /x?key=k&a=1 HTTP/1.1"


def block(*pairs: tuple[bytes, bytes], dropped: frozenset[bytes] = frozenset()) -> bytes:
    return response_block(MemoryExchange([], 200, pairs, []), dropped=dropped)


def test_an_answer_passes_as_it_came() -> None:
    pairs = ((b"X-a", b"1"), (b"set-cookie", b"1"), (b"SET-Cookie", b"2"), (b"x-A", b""))
    assert block(*pairs) == rendered(pairs) == b"X-a: 1\r\nset-cookie: 1\r\nSET-Cookie: 2\r\nx-A: \r\n"


@pytest.mark.parametrize(
    "pair",
    [
        *((b"Connection", b"close"), (b"transfer-encoding", b"chunked"), (b"Trailer", b"x"), (b"Upgrade", b"h2")),
        *((b"X-Tollgate-Cost", b"1"), (b"X-TOLLGATE-RUN-ID", b"1"), (b"x-tOLLgate-a", b"1"), (b"keep-alive", b"5")),
    ],
)
def test_but_for_what_is_ours_or_of_one_hop(pair: tuple[bytes, bytes]) -> None:
    assert block((b"A", b"1"), pair, (b"B", b"2")) == b"A: 1\r\nB: 2\r\n"


def test_and_what_is_listed_or_dropped() -> None:
    pairs = ((b"Connection", b"X-L"), (b"x-l", b"1"), (b"Content-Length", b"5"), (b"A", b"1"))
    assert block(*pairs, dropped=frozenset((b"content-length",))) == b"A: 1\r\n"


def test_a_head_made_once_is_what_it_would_be_if_it_were_made_again() -> None:
    """Whatever else changes between two requests with equal heads: path, spec, injection, length."""
    facts: dict[str, Any] = {}
    variants: list[dict[str, Any]] = [
        {},
        {"length": 12_345},
        {"length": 0},
        {"path": b"/v1/y?a=1"},
        {"injected": True},
        {"auth": ((b"authorization", b"Bearer up"),)},
        {"headers": ((b"x-100%", b"%d"),)},
        {"propagate_trace": True},
        {"base": b"/base/v1"},
        {"away": True},
        {"key": Key("k")},
    ]
    pairs = [HOST, (b"x-percent", b"%d%b"), (b"Content-Length", b"3"), (b"authorization", b"Bearer mine")]
    for variant in [each for first in variants for second in variants for each in (first, second)]:
        assert head(pairs, facts=facts, **variant) == head(pairs, **variant)
