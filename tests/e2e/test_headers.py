"""Headers through a real gateway, both ways: case, order and duplicates stay; what is hop-by-hop or ours does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from gateway.testing.faults import Send, chunked
from gateway.testing.gateway import RunningGateway
from gateway.testing.raw import RawAnswer, RawClient, chunks, request
from gateway.testing.scripted import Background, ScriptedUpstream

BODY = b'{"model":"gpt-4o","messages":[]}'
BACK = [
    b"Content-Type: application/json",
    b"x-Odd-CASE: 1",
    b"Set-Cookie: a=1; Path=/",
    b"X-Odd-Case: 2",
    b"set-cookie: b=2",
    b"X-Empty: ",
    b"Strict-Transport-Security: max-age=1",
    b"Alt-Svc: h3",
    b"Server: up/1.0",
    b"X-RateLimit-Remaining: 7",
    b"retry-after: 3",
    b"Content-Length: 2",
]
HOP = [
    b"Connection: keep-alive, X-Listed",
    b"X-Listed: no",
    b"Keep-Alive: timeout=5",
    b"Proxy-Authenticate: Basic",
    b"Trailer: X-T",
    b"Upgrade: h2c",
    b"X-Tollgate-Cost-USD: 99",
    b"x-tollgate-request-id: forged",
    b"X-TOLLGATE-RUN-ID: forged",
]


def told(*lines: bytes, body: bytes = b"{}", status: bytes = b"200 OK") -> Send:
    return Send(b"HTTP/1.1 " + status + b"\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body)


SCRIPTS = {
    "": [told(*BACK)],
    "hop": [told(*BACK, *HOP)],
    "trailers": [
        Send(chunked(b"{}", end=b"0\r\nX-Trailer: 1\r\n\r\n", content_type=b"application/json\r\nTrailer: X-Trailer"))
    ],
    "head": [told(b"Content-Type: application/json", b"Content-Length: 1234", body=b"")],
    "no content": [told(b"X-A: 1", status=b"204 No Content", body=b"")],
    "not modified": [told(b"ETag: a", b"Content-Length: 77", status=b"304 Not Modified", body=b"")],
    "moved": [
        told(b"Location: http://127.0.0.1:1/x", b"Content-Length: 0", status=b"307 Temporary Redirect", body=b"")
    ],
    "early": [Send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"), told(*BACK)],
    "reason": [told(*BACK, status=b"200 All Is Well")],
}


class Stage:
    def __init__(self, up: ScriptedUpstream, gate: RunningGateway) -> None:
        self.up, self.gate = up, gate
        self.port = int(gate.config["listen"].rpartition(":")[2])

    def send(self, raw: bytes, *, bodiless: bool = False) -> RawAnswer:
        with RawClient(self.port) as client:
            client.send(raw)
            return client.answer(bodiless=bodiless)

    def play(
        self, script: str, *headers: bytes, method: str = "POST", target: str = "/v1/chat/completions"
    ) -> RawAnswer:
        body = BODY if method == "POST" else b""
        return self.send(
            request(method, target, b"x-script: " + script.encode(), *headers, body=body), bodiless=method == "HEAD"
        )

    @property
    def last(self) -> list[bytes]:
        """The lines of the last head that the upstream received."""
        return self.up.received[-1].partition(b"\r\n\r\n")[0].split(b"\r\n")


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Background(ScriptedUpstream(SCRIPTS)) as up:
        keyed = {"dialect": "openai", "url": up.url + "/base/v1", "key": "sk-operator", "headers": {"X-Org": "ours"}}
        upstreams: dict[str, Any] = {
            "openai": {"dialect": "openai", "url": up.url},
            "keyed": keyed,
            "google": {"dialect": "gemini", "url": up.url, "key": "operators-key"},
            "claude": {"dialect": "anthropic", "url": up.url, "key": "sk-ant-operator"},
            "traced": {"dialect": "openai", "url": up.url, "propagate_trace": True},
        }
        with RunningGateway(upstreams, telemetry={"log": None}) as gate:
            yield Stage(up, gate)


def test_a_request_keeps_case_order_and_duplicates(stage: Stage) -> None:
    sent = [
        b"x-LOWER-upper: 1",
        b"Authorization: Bearer clients-key",
        b"anthropic-beta: a",
        b"X-Twice: 1",
        b"Anthropic-Beta: b",
        b"x-twice: 2",
        b"X-Empty: ",
        b"X-Caf\xe9-Not: \xe9",
        b"Cookie: c=1",
        b"User-Agent: test/1",
        b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ]
    sent.remove(b"X-Caf\xe9-Not: \xe9")  # a name must be ASCII
    sent.append(b"X-Value: caf\xe9")
    stage.play("", *sent)
    host = b"Host: " + stage.up.url.removeprefix("http://").encode()
    assert stage.last[0] == b"POST /v1/chat/completions HTTP/1.1"
    via = stage.last[-1]
    assert via.startswith(b"via: 1.1 tollgate-")
    expected = [host, b"x-script: ", *sent, b"Content-Length: %d" % len(BODY)]
    assert [line.rstrip() for line in stage.last[1:-1]] == [line.rstrip() for line in expected]


def test_what_is_hop_by_hop_or_ours_stays_behind(stage: Stage) -> None:
    stage.play(
        "",
        b"Connection: keep-alive, X-Listed , x-other",
        b"X-Listed: 1",
        b"X-Other: 1",
        b"Keep-Alive: 1",
        b"Proxy-Connection: keep-alive",
        b"Proxy-Authorization: Basic x",
        b"TE: trailers",
        b"Trailer: X",
        b"Upgrade: h2c",
        b"Expect: 100-continue",
        b"X-Tollgate-Run-Id: r1",
        b"x-tollgate-agent: me",
        b"X-TOLLGATE-STEP: 1",
        b"baggage: session.id=secret",
        b"X-Kept: 1",
    )
    names = [line.partition(b":")[0].lower() for line in stage.last[1:]]
    assert names == [b"host", b"x-script", b"x-kept", b"content-length", b"via"]


def test_connection_cannot_take_away_what_frames_the_message(stage: Stage) -> None:
    stage.play("", b"Connection: Host, Content-Length, Authorization", b"Authorization: Bearer x")
    names = [line.partition(b":")[0].lower() for line in stage.last[1:]]
    assert names == [b"host", b"x-script", b"content-length", b"via"]


def test_an_http_1_0_request_without_host_is_given_one(stage: Stage) -> None:
    head = b"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    got = stage.send(head + BODY)
    assert (got.status, got.get("connection")) == (200, "close")
    assert stage.last[0].endswith(b"HTTP/1.1")
    assert [line.partition(b":")[0].lower() for line in stage.last[1:]] == [b"host", b"content-length", b"via"]


def test_a_chunked_request_goes_on_with_its_length(stage: Stage) -> None:
    head = request("POST", "/v1/chat/completions", b"Transfer-Encoding: chunked")
    stage.send(head + chunks(BODY[:5], BODY[5:], end=b"0\r\nX-Trailer: 1\r\n\r\n"))
    assert b"content-length: %d" % len(BODY) in stage.last
    assert not any(b"railer" in line or b"ransfer" in line for line in stage.last)
    assert stage.up.received[-1].endswith(b"\r\n\r\n" + BODY)


@pytest.mark.parametrize(
    ("upstream", "target", "sent", "arrives"),
    [
        ("keyed", "/v1/chat/completions", b"Authorization: Bearer sk-client", b"Authorization: Bearer sk-operator"),
        ("keyed", "/v1/chat/completions", b"api-key: sk-client", b"Authorization: Bearer sk-operator"),
        ("claude", "/v1/messages", b"x-api-key: sk-client", b"x-api-key: sk-ant-operator"),
        ("google", "/v1beta/models/g:generateContent", b"x-goog-api-key: sk-client", b"x-goog-api-key: operators-key"),
        (
            "google",
            "/v1beta/models/g:generateContent?key=sk-client&alt=json",
            b"X-A: 1",
            b"x-goog-api-key: operators-key",
        ),
    ],
)
def test_the_operators_key_replaces_every_credential_of_the_client(
    stage: Stage, upstream: str, target: str, sent: bytes, arrives: bytes
) -> None:
    stage.play("", sent, target=f"/{upstream}{target}")
    raw = stage.up.received[-1]
    assert b"sk-client" not in raw
    lines = [line.lower() for line in stage.last]
    assert lines.count(arrives.lower()) == 1


def test_configured_headers_and_the_path_of_the_url_are_used(stage: Stage) -> None:
    stage.play("", b"X-Org: theirs", target="/keyed/v1/chat/completions?a=1")
    assert stage.last[0] == b"POST /base/v1/chat/completions?a=1 HTTP/1.1"
    assert [line for line in stage.last if line.lower().startswith(b"x-org")] == [b"X-Org: ours"]


def test_the_trace_goes_upstream_only_where_that_is_wanted(stage: Stage) -> None:
    trace = b"4bf92f3577b34da6a3ce929d0e0e4736"
    stage.play("", b"traceparent: 00-" + trace + b"-00f067aa0ba902b7-01", target="/traced/v1/chat/completions")
    (line,) = [line for line in stage.last if line.startswith(b"traceparent")]
    assert trace in line
    assert b"00f067aa0ba902b7" not in line, "the span of the gateway is the parent now"


def test_an_answer_keeps_case_order_and_duplicates(stage: Stage) -> None:
    got = stage.play("")
    lines = got.head.split(b"\r\n")[1:-2]
    assert lines[: len(BACK)] == BACK
    assert all(line.startswith(b"x-tollgate-") for line in lines[len(BACK) :])
    assert (got.body, got.complete) == (b"{}", True)


def test_of_an_answer_what_is_hop_by_hop_or_ours_stays_behind(stage: Stage) -> None:
    got = stage.play("hop")
    lines = got.head.split(b"\r\n")[1:-2]
    assert lines[: len(BACK)] == BACK
    rest = b"\r\n".join(lines[len(BACK) :]).lower()
    assert b"forged" not in rest
    assert b": 99" not in rest
    assert not any(name in rest for name in (b"x-listed", b"keep-alive", b"proxy-", b"trailer", b"upgrade"))
    assert len(got.all("x-tollgate-request-id")) == 1


def test_trailers_of_an_answer_are_dropped(stage: Stage) -> None:
    got = stage.play("trailers")
    assert (got.body, got.complete) == (b"{}", True)
    assert got.get("trailer") == ""
    assert b"X-Trailer" not in got.head


@pytest.mark.parametrize("target", ["/v1/chat/completions", "/v1/models"])
def test_head_has_a_length_and_no_body(stage: Stage, target: str) -> None:
    with RawClient(stage.port) as client:
        client.send(request("HEAD", target, b"x-script: head") + request("GET", "/v1/models"))
        first = client.answer(bodiless=True)
        second = client.answer()
    assert (first.status, first.get("content-length")) == (200, "1234")
    assert (second.status, second.body) == (200, b"{}")
    assert stage.up.received[-2].startswith(b"HEAD " + target.encode())


def test_a_refused_head_has_no_body_either(stage: Stage) -> None:
    with RawClient(stage.port) as client:
        client.send(request("HEAD", "/v1/%2e%2e/x") + request("GET", "/v1/models"))
        first = client.answer(bodiless=True)
        second = client.answer()
    assert first.status == 400
    assert int(first.get("content-length")) > 0
    assert (second.status, second.body) == (200, b"{}")


@pytest.mark.parametrize(("script", "status"), [("no content", 204), ("not modified", 304)])
def test_answers_without_a_body_leave_the_connection_in_step(stage: Stage, script: str, status: int) -> None:
    with RawClient(stage.port) as client:
        client.send(request("GET", "/v1/models", b"x-script: " + script.encode()))
        assert client.answer().status == status
        client.send(request("GET", "/v1/models"))
        assert client.answer().body == b"{}"


def test_redirects_are_relayed_not_followed(stage: Stage) -> None:
    before = len(stage.up.seen)
    got = stage.play("moved")
    assert (got.status, got.get("location")) == (307, "http://127.0.0.1:1/x")
    assert len(stage.up.seen) == before + 1


def test_early_hints_are_not_the_answer(stage: Stage) -> None:
    got = stage.play("early")
    assert (got.status, got.interim, got.get("link")) == (200, [], "")


def test_the_reason_is_kept(stage: Stage) -> None:
    assert stage.play("reason").reason == b"All Is Well"


def test_our_own_headers_tell_about_the_call(stage: Stage) -> None:
    got = stage.play("", target="/run/r-1/agent/tester/openai/v1/chat/completions")
    assert got.get("x-tollgate-run-id") == "r-1"
    assert got.get("x-tollgate-upstream") == "openai"
    assert got.get("x-tollgate-attempts") == "1"
    (call,) = stage.gate.calls(1, run="r-1")
    assert call["id"] == got.get("x-tollgate-request-id")
    assert call["agent"] == "tester"
