"""Requests that two parsers could read differently never reach an upstream: raw bytes against a real gateway.

Every case is sent once for each API family; then status, words, connection, record and upstream are judged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.testing.fault_proxy import FaultProxy
from gateway.testing.faults import Send, answer
from gateway.testing.gateway import RunningGateway, free_port
from gateway.testing.raw import NoAnswer, RawAnswer, RawClient, chunks
from gateway.testing.scripted import Background, ScriptedUpstream

BODY = b'{"model":"gpt-4o","max_tokens":9,"messages":[],"contents":[]}'
SIZE = b"%x" % len(BODY)
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
HOST = b"Host: gate.example\r\n"
FRAMED = SIZE + b"\r\n" + BODY + b"\r\n0\r\n\r\n"
PATHS = {
    "openai": b"/v1/chat/completions",
    "anthropic": b"/v1/messages",
    "gemini": b"/v1beta/models/gemini-2.5-flash:generateContent",
}
LIMIT = 4096  # of a request head, in this gateway


def with_headers(*lines: bytes, body: bytes = BODY, length: bytes = LENGTH) -> bytes:
    """A request with further header lines, each with its own line end."""
    return b"POST @ HTTP/1.1\r\n" + HOST + b"".join(lines) + length + b"\r\n" + body


def line(text: bytes, *, host: bytes = HOST) -> bytes:
    """A request with this request line."""
    return text + b"\r\n" + host + LENGTH + b"\r\n" + BODY


def encoded(coding: bytes) -> bytes:
    """A chunked request with this Transfer-Encoding."""
    return with_headers(b"Transfer-Encoding: %b\r\n" % coding, body=FRAMED, length=b"")


def chunked_as(body: bytes) -> bytes:
    return b"POST @ HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n" + body


TE = {
    "twice": b"chunked, chunked",
    "gzip first": b"gzip, chunked",
    "chunked first": b"chunked, gzip",
    "identity": b"identity",
    "parameter": b"chunked;q=1",
    "prefix": b"xchunked",
    "trailing comma": b"chunked,",
    "leading comma": b",chunked",
    "quoted": b'"chunked"',
    "vertical tab": b"\x0bchunked",
    "nul": b"chunked\x00",
    "empty": b"",
    "trailing space": b"chunked ",
    "line feed": b"\nchunked",
}
CL = {
    "plus": b"+%d" % len(BODY),
    "minus": b"-1",
    "hex": b"0x%x" % len(BODY),
    "list": b"%d, %d" % (len(BODY), len(BODY)),
    "inner space": b"6 2",
    "trailing space": b"%d " % len(BODY),
    "comma": b"%d," % len(BODY),
    "empty": b"",
    "exponent": b"1e2",
    "nul": b"62\x00",
    "wide digit": "６".encode(),
    "overflow": b"99999999999999999999",
}
CHUNKS = {
    "negative": b"-1\r\n" + BODY,
    "plus": b"+" + FRAMED,
    "0x": b"0x" + FRAMED,
    "space before": b" " + FRAMED,
    "space after": SIZE + b" \r\n" + BODY + b"\r\n0\r\n\r\n",
    "underscore": b"3_0\r\n" + BODY,
    "no size": b"\r\n" + BODY + b"\r\n0\r\n\r\n",
    "bare LF after size": SIZE + b"\n" + BODY + b"\r\n0\r\n\r\n",
    "bare LF after data": SIZE + b"\r\n" + BODY + b"\n0\r\n\r\n",
    "bare CR": SIZE + b"\r" + BODY + b"\r0\r\r",
    "overflow": b"fffffffffffffffff\r\n" + BODY,
    "wrap-around": b"1000000000000003e\r\n" + BODY + b"\r\n0\r\n\r\n",
    "too short": b"%x\r\n" % (len(BODY) - 1) + BODY + b"\r\n0\r\n\r\n",
    "LF in an extension": SIZE + b";a\nb\r\n" + BODY + b"\r\n0\r\n\r\n",
    "CR in an extension": SIZE + b";a\rb\r\n" + BODY + b"\r\n0\r\n\r\n",
    "NUL in an extension": SIZE + b";a\0b\r\n" + BODY + b"\r\n0\r\n\r\n",
    "length in the trailers": SIZE + b"\r\n" + BODY + b"\r\n0\r\nContent-Length: 3\r\n\r\n",
    "encoding in the trailers": SIZE + b"\r\n" + BODY + b"\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "broken trailer": SIZE + b"\r\n" + BODY + b"\r\n0\r\nX T: 1\r\n\r\n",
}
HEADERS = {
    "obs-fold": b"X-A: a\r\n b\r\n",
    "obs-fold with a tab": b"X-A: a\r\n\tb\r\n",
    "bare LF": b"X-A: a\nX-B: b\r\n",
    "bare CR": b"X-A: a\rX-B: b\r\n",
    "NUL": b"X-A: a\0b\r\n",
    "NUL in the name": b"X\0A: a\r\n",
    "space before the colon": b"X-A : a\r\n",
    "tab before the colon": b"X-A\t: a\r\n",
    "space in the name": b"X A: a\r\n",
    "no name": b": a\r\n",
    "no colon": b"XA\r\n",
    "control character": b"X-A: a\x01b\r\n",
    "delete": b"X-A: a\x7fb\r\n",
    "parentheses in the name": b"X(A): a\r\n",
    "not ASCII in the name": "X-é: a\r\n".encode(),
    "length with an underscore": b"Content_Length: 3\r\n",
    "encoding with an underscore": b"transfer_encoding: chunked\r\n",
    "second Host": HOST,
    "second length": LENGTH,
    "another length": b"Content-Length: 3\r\n",
    "encoding beside the length": CHUNKED,
    "unknown expectation": b"Expect: 200-ok\r\n",
}
LINES = {
    "absolute form": b"POST http://gate.example@ HTTP/1.1",
    "two spaces": b"POST  @ HTTP/1.1",
    "tab": b"POST\t@\tHTTP/1.1",
    "trailing space": b"POST @ HTTP/1.1 ",
    "leading space": b" POST @ HTTP/1.1",
    "space in the path": b"POST @ x HTTP/1.1",
    "NUL in the path": b"POST @\0 HTTP/1.1",
    "not ASCII": "POST @é HTTP/1.1".encode(),
    "small method": b"post @ HTTP/1.1",
    "small protocol": b"POST @ http/1.1",
    "unknown method": b"FOO @ HTTP/1.1",
    "RTSP": b"POST @ RTSP/1.1",
    "0.9": b"POST @ HTTP/0.9",
    "no version": b"POST @",
    "1.2": b"POST @ HTTP/1.2",
    "2.0": b"POST @ HTTP/2.0",
    "1.10": b"POST @ HTTP/1.10",
    "fragment": b"POST @#x HTTP/1.1",
    "fragment behind the query": b"POST @?a=b#c HTTP/1.1",
    "no slash": b"POST v1/chat/completions HTTP/1.1",
    "TRACE": b"TRACE @ HTTP/1.1",
    "CONNECT": b"CONNECT gate.example:443 HTTP/1.1",
    "asterisk": b"OPTIONS * HTTP/1.1",
}
HOSTS = {
    "none": b"",
    "empty": b"Host: \r\n",
    "path": b"Host: a/b?c#d\r\n",
    "user": b"Host: user@gate.example\r\n",
    "space": b"Host: a b\r\n",
    "list": b"Host: a,b\r\n",
    "bad port": b"Host: a:b\r\n",
}
UPGRADE = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
CLOSED = {
    **{f"TE {name}": encoded(value) for name, value in TE.items()},
    **{f"CL {name}": with_headers(length=b"Content-Length: " + value + b"\r\n") for name, value in CL.items()},
    **{f"chunk {name}": chunked_as(body) for name, body in CHUNKS.items()},
    **{f"header {name}": with_headers(value) for name, value in HEADERS.items()},
    **{f"line {name}": line(value) for name, value in LINES.items()},
    **{f"host {name}": line(b"POST @ HTTP/1.1", host=value) for name, value in HOSTS.items()},
    "TE and CL": with_headers(CHUNKED, body=FRAMED),
    "CL and TE": b"POST @ HTTP/1.1\r\n" + HOST + LENGTH + CHUNKED + b"\r\n" + FRAMED,
    "TE in 1.0": chunked_as(FRAMED).replace(b"1.1", b"1.0", 1),
    "TE twice": with_headers(CHUNKED, CHUNKED, body=FRAMED, length=b""),
    "TE with a space before the colon": with_headers(b"Transfer-Encoding : chunked\r\n", body=FRAMED, length=b""),
    "TE and an upgrade": with_headers(UPGRADE, CHUNKED, body=FRAMED, length=b""),
    "folded first header": b"POST @ HTTP/1.1\r\n X: y\r\n" + HOST + LENGTH + b"\r\n" + BODY,
    "LF everywhere": with_headers().replace(b"\r\n", b"\n"),
    "LF behind the request line": with_headers().replace(b"\r\n", b"\n", 1),
    "LF behind the last header": b"POST @ HTTP/1.1\r\n" + HOST + LENGTH.replace(b"\r\n", b"\n") + b"\n" + BODY,
    "LF before the request": b"\n" + with_headers(),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03" + b"\n" * 9,
    "noise": bytes(range(256)) * 4,
}  # fmt: skip
OTHERS = {  # status, code
    "one large header": (431, "headers_too_large", with_headers(b"X: " + b"a" * LIMIT + b"\r\n")),
    "many headers": (431, "headers_too_large", with_headers(b"X: a\r\n" * 300)),
    "a head without end": (431, "headers_too_large", b"POST @ HTTP/1.1\r\n" + HOST + b"X: a\r\n" * 2000),
    "extension without end": (431, "headers_too_large", chunked_as(SIZE + b";" + b"a" * 3 * LIMIT)),
    "trailers without end": (431, "headers_too_large", chunked_as(FRAMED[:-2] + b"X: a\r\n" * 2 * LIMIT)),
    "large by length": (413, "request_too_large", with_headers(length=b"Content-Length: 100001\r\n")),
    "large in chunks": (413, "request_too_large", chunked_as(chunks(*[b" " * 30_000] * 5))),
}  # fmt: skip
AMBIGUOUS = {  # refused, and the connection goes on
    "dots": b"@/../x",
    "dot": b"@/./x",
    "dots at the end": b"@/..",
    "%2e": b"@/%2e%2e/x",
    "%2E": b"@/%2E./x",
    "%2f": b"@%2fx",
    "%2F": b"@%2Fx",
    "%5c": b"@%5cx",
    "double slash": b"/@",
    "double slash inside": b"@//x",
    "backslash": b"@\\x",
    "dots with a parameter": b"@/..;/x",
    "encoded letter": b"@%61",
    "encoded capital": b"@%5A",
    "encoded digit": b"@%31",
    "encoded underscore": b"@%5f",
    "encoded hyphen": b"@%2D",
}
ACCEPTED = {  # odd, but with one meaning only
    "plain": with_headers(),
    "chunked": chunked_as(chunks(BODY[:7], BODY[7:])),
    "capital Chunked": with_headers(b"Transfer-Encoding: Chunked\r\n", body=FRAMED, length=b""),
    "space before the value": with_headers(length=b"Content-Length:   %d\r\n" % len(BODY)),
    "no space": with_headers(length=b"Content-Length:%d\r\n" % len(BODY)),
    "extension": chunked_as(SIZE + b';a="b"\r\n' + BODY + b"\r\n0\r\n\r\n"),
    "trailer": chunked_as(FRAMED[:-2] + b"X-Trailer: 1\r\n\r\n"),
    "leading zeros": chunked_as(b"00000" + FRAMED),
    "empty line first": b"\r\n" + with_headers(),
    "obs-text in a value": with_headers(b"X-A: caf\xe9\r\n"),
    "underscore": with_headers(b"session_id: 1\r\n"),
    "query": line(b"POST @?a=../b%2fc HTTP/1.1"),
}


@dataclass(slots=True)
class Played:
    answers: list[RawAnswer] = field(default_factory=list)
    reached: int = 0  # requests that the upstream saw meanwhile
    ended: str = ""
    record: dict[str, Any] | None = None


class Stage:
    """A gateway, an upstream, and what happened to each case."""

    def __init__(self, up: ScriptedUpstream, gate: RunningGateway) -> None:
        self.up, self.gate = up, gate
        self.port = int(gate.config["listen"].rpartition(":")[2])
        self.played: dict[tuple[str, str], Played] = {}

    def play(self, name: str, family: str, raw: bytes, *, ends: float) -> None:
        before = len(self.up.seen)
        with RawClient(self.port) as client:
            done = self.played[name, family] = Played()
            try:
                client.send(raw.replace(b"@", PATHS[family]))
                done.answers.append(client.answer())
                if not ends:
                    client.send(with_headers().replace(b"@", PATHS["openai"]))
                    done.answers.append(client.answer())
                done.ended = client.ends(ends)
            except (NoAnswer, ConnectionError) as fault:
                done.ended = repr(fault)
        done.reached = len(self.up.seen) - before


def everything() -> Iterator[tuple[str, str, bytes, float]]:
    for family in PATHS:
        for name, raw in CLOSED.items():
            yield name, family, raw, 30.0
        for name, (_, _, raw) in OTHERS.items():
            yield name, family, raw, 30.0
        for name, raw in ACCEPTED.items():
            yield name, family, raw, 0.0
        for name, path in AMBIGUOUS.items():
            yield name, family, line(b"POST " + path + b" HTTP/1.1"), 0.0


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    port = free_port()
    script = [Send(answer(b'{"id":"x"}'))]
    with Background(ScriptedUpstream({"": script})) as up, Background(FaultProxy("127.0.0.1", port)) as detour:
        upstreams = {name: {"dialect": name, "url": up.url} for name in PATHS}
        upstreams["self"] = {"dialect": "openai", "url": detour.url}
        limits = {"header_bytes": LIMIT, "headers": 50, "body_bytes": 100_000}
        with RunningGateway(upstreams, listen=f"127.0.0.1:{port}", limits=limits, telemetry={"log": None}) as gate:
            running = Stage(up, gate)
            for name, family, raw, ends in everything():
                running.play(name, family, raw, ends=ends)
            ids = {
                answer.get("x-tollgate-request-id"): key
                for key, done in running.played.items()
                for answer in done.answers[:1]
            }
            for call in gate.calls(sum(len(done.answers) for done in running.played.values()), limit=500):
                if call["id"] in ids:
                    running.played[ids[call["id"]]].record = call
            yield running


@pytest.fixture(params=PATHS)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def code_of(got: RawAnswer, family: str) -> str:
    """Our stable code in an error of this family; checks the family's shape."""
    body = json.loads(got.body)
    assert got.get("content-type") == "application/json"
    if family == "anthropic":
        assert body["type"] == "error"
        assert body["error"]["message"]
        assert body["error"]["type"] == ("request_too_large" if got.status == 413 else "invalid_request_error")
        assert body["request_id"] == got.get("request-id") == got.get("x-tollgate-request-id")
        return str(body["error"]["details"]["error_code"])
    if family == "gemini":
        error = body["error"]
        assert error["code"] == got.status
        assert error["message"]
        assert error["status"] in {"INVALID_ARGUMENT", "FAILED_PRECONDITION"}
        (info,) = error["details"]
        return str(info["reason"]).lower()
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["type"] == "invalid_request_error"
    return str(body["error"]["code"])


def apparent(name: str, family: str) -> str:
    """The family that can be seen in a request whose head cannot be read."""
    unseen = {"HTTP/2", "TLS", "noise", "LF before the request", *(f"line {key}" for key in LINES)}
    seen = {"trailing space", "0.9", "no version", "1.2", "2.0", "1.10", "fragment", "fragment behind the query"}
    seen |= {"small protocol", "RTSP", "space in the path", "NUL in the path", "not ASCII", "unknown method", "TRACE"}
    return "openai" if name in unseen - {f"line {key}" for key in seen} else family


def judge(done: Played, family: str, status: int, code: str, *, closed: bool) -> None:
    assert done.answers, done.ended
    got = done.answers[0]
    assert (got.status, got.complete) == (status, True)
    assert code_of(got, family) == code
    assert got.get("x-should-retry") == "false"
    assert got.get("retry-after") == ""
    assert got.get("connection") == ("close" if closed else "")
    if closed:
        assert (done.ended, done.reached) == ("closed", 0)
    assert done.record is not None
    assert (done.record["outcome"], done.record["status"], done.record["attempts"]) == ("refused", status, [])
    assert (done.record["error"]["code"], done.record["error"]["source"]) == (code, "client")
    assert (done.record["cost_usd"], done.record["usage_source"]) == (0, "none")


@pytest.mark.parametrize("name", CLOSED)
def test_what_has_two_meanings_is_refused_and_the_connection_closed(stage: Stage, name: str, family: str) -> None:
    code = "bad_path" if "fragment" in name else "bad_framing"
    judge(stage.played[name, family], apparent(name, family), 400, code, closed=True)


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_too_large_is_refused_and_the_answer_can_be_read(stage: Stage, name: str, family: str) -> None:
    status, code, _ = OTHERS[name]
    judge(stage.played[name, family], family, status, code, closed=True)


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_an_ambiguous_path_is_refused_and_the_next_request_served(stage: Stage, name: str, family: str) -> None:
    done = stage.played[name, family]
    judge(done, family, 400, "bad_path", closed=False)
    assert [got.status for got in done.answers] == [400, 200]
    assert done.reached == 1


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_has_one_meaning_passes(stage: Stage, name: str, family: str) -> None:
    done = stage.played[name, family]
    assert [got.status for got in done.answers] == [200, 200], done.ended
    assert done.reached == 2


def test_the_upstream_saw_nothing_but_plain_requests(stage: Stage) -> None:
    assert len(stage.up.seen) == len(PATHS) * (2 * len(ACCEPTED) + len(AMBIGUOUS))
    for seen in stage.up.seen:
        head, _, body = seen.raw.partition(b"\r\n\r\n")
        names = [line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:]]
        assert names.count(b"host") == names.count(b"content-length") == 1
        assert b"transfer-encoding" not in names
        assert b"x-trailer" not in names
        assert head.count(b"\n") == head.count(b"\r\n")
        assert body == BODY


def test_a_gateway_whose_upstream_is_itself_is_told(stage: Stage) -> None:
    before = len(stage.up.seen)
    with RawClient(stage.port) as client:
        client.send(line(b"POST /self/v1/chat/completions HTTP/1.1"))
        got = client.answer()
    assert got.status == 508
    assert json.loads(got.body)["error"]["code"] == "loop_detected"
    assert len(stage.up.seen) == before
