"""Canary secrets, planted wherever one can stand, and a search of everything the gateway writes, shows or says.

Rule: what is secret goes to the upstream it is meant for, and nowhere else.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from gateway.testing.faults import Reset, Script, Send, answer, chunked
from gateway.testing.gateway import RunningGateway, dead_port
from gateway.testing.otlp_collector import OtlpCollector
from gateway.testing.raw import RawClient, post, request
from gateway.testing.scripted import Background, ScriptedUpstream

CHAT = "/v1/chat/completions"
MARK = "visible-marker"  # what may be seen, and must be: else the search proves nothing


class Canaries:
    """One secret for each place; none looks like a key of any provider."""

    def __init__(self) -> None:
        self.planted: dict[str, str] = {}

    def __getitem__(self, place: str) -> str:
        return self.planted.setdefault(place, f"cnry{len(self.planted):02d}{secrets.token_hex(12)}")

    def raw(self, place: str) -> bytes:
        return self[place].encode()

    def found(self, text: bytes | str) -> list[str]:
        """The places whose secret stands in `text`."""
        data = text.encode("utf-8", "replace") if isinstance(text, str) else text
        return [place for place, secret in self.planted.items() if secret.encode() in data]


def echo(raw: bytes) -> Script:
    """An upstream that quotes everything it was sent in its error message."""
    head = raw.partition(b"\r\n\r\n")[0].decode("latin-1")
    error = {"error": {"message": f"You sent: {head}", "type": "invalid_request_error", "code": "bad"}}
    return [Send(answer(json.dumps(error).encode(), status=b"401 Unauthorized"))]


def echo_each(raw: bytes) -> Script:
    """The same, word for word, as providers quote a single key."""
    words = raw.partition(b"\r\n\r\n")[0].decode("latin-1").split()
    quoted = "; ".join(f"Incorrect key provided: {word.strip(',;')}" for word in words if "cnry" in word)
    return [Send(answer(json.dumps({"error": {"message": quoted, "code": 400}}).encode(), status=b"400 Bad Request"))]


def echo_stream(raw: bytes) -> Script:
    head = raw.partition(b"\r\n\r\n")[0].decode("latin-1")
    event = json.dumps({"error": {"message": f"{head}", "code": "server_error"}}).encode()
    chunk = b'data: {"id":"c","model":"gpt-4o","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
    return [Send(chunked(chunk, b"data: " + event + b"\n\n"))]


SCRIPTS: dict[str, Any] = {
    "": [Send(answer(b'{"id":"c","model":"gpt-4o","choices":[{"index":0,"message":{"content":"SECRET"}}]}'))],
    "echo": echo,
    "echo each": echo_each,
    "echo stream": echo_stream,
    "reset": [Reset()],
    "garbage": [Send(b"\x00\x01 no http")],
}


class Stage:
    def __init__(
        self, gate: RunningGateway, up: ScriptedUpstream, canaries: Canaries, collector: OtlpCollector
    ) -> None:
        self.gate, self.up, self.canaries, self.collector = gate, up, canaries, collector
        self.port = int(gate.config["listen"].rpartition(":")[2])
        self.answers: list[tuple[str, bytes]] = []

    def call(self, script: str, target: str, *headers: bytes, body: bytes) -> None:
        with RawClient(self.port) as client:
            client.send(post(target, body, b"x-script: " + script.encode(), *headers))
            got = client.answer()
        self.answers.append((script, got.head + got.body))

    def api(self, path: str) -> str:
        asked = urllib.request.Request(
            self.gate.admin_url + path, headers={"authorization": f"Bearer {self.canaries['admin token']}"}
        )
        with urllib.request.urlopen(asked, timeout=10) as got:
            return str(got.read().decode())


def body(canaries: Canaries, dialect: str, *, stream: bool = False) -> bytes:
    text = f"{canaries['prompt']} {canaries['second prompt']}"
    ask: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "system", "content": canaries["system prompt"]}]}
    ask["messages"] += [
        {"role": "user", "content": text},
        {"role": "tool", "tool_call_id": "t1", "content": canaries["tool result"]},
    ]
    ask["tools"] = [{"type": "function", "function": {"name": "f", "description": canaries["tool description"]}}]
    if dialect == "anthropic":
        ask = {
            "model": "claude-sonnet-4-5",
            "max_tokens": 5,
            "system": canaries["system prompt"],
            "messages": ask["messages"][1:2],
        }
    elif dialect == "gemini":
        ask = {"contents": [{"parts": [{"text": text}]}]}
    return json.dumps({**ask, **({"stream": True} if stream else {})}).encode()


def plant(stage: Stage) -> None:
    """Calls of every kind, each with secrets of its own."""
    c = stage.canaries
    for script in ("", "echo", "echo each", "reset", "garbage", "echo stream"):
        chat = body(c, "openai", stream=script == "echo stream")
        clients = {
            f"/run/{MARK}/openai{CHAT}": (b"Authorization: Bearer " + c.raw("bearer"),),
            f"/run/{MARK}/azure{CHAT}": (b"api-key: " + c.raw("api-key"),),
            f"/run/{MARK}/keyed{CHAT}": (b"Authorization: Bearer " + c.raw("bearer of a client with an operator"),),
            f"/nowhere/{MARK}": (b"Authorization: Basic " + c.raw("basic"),),
            f"/run/{MARK}/down{CHAT}": (b"Authorization: bearer " + c.raw("bearer to nobody"),),
        }
        for target, headers in clients.items():
            extra = (
                b"Cookie: session=" + c.raw("cookie"),
                b"X-Custom-Secret: " + c.raw("custom header") if "echo" not in script else b"X-Nothing: 1",
                b"Proxy-Authorization: Basic " + c.raw("proxy"),
            )
            stage.call(script, target, *headers, *extra, body=chat)
        key = b"x-api-key: " + c.raw("x-api-key")
        stage.call(
            script, f"/run/{MARK}/anthropic/v1/messages", key, b"anthropic-version: x", body=body(c, "anthropic")
        )
        goog = b"x-goog-api-key: " + c.raw("x-goog-api-key")
        target = f"/run/{MARK}/gemini/v1beta/models/gemini-2.5-flash:generateContent"
        stage.call(script, target, goog, body=body(c, "gemini"))
        stage.call(script, f"{target}?key={c['key in the query']}&alt=json", body=body(c, "gemini"))
        stage.call(script, f"/keyed{CHAT}?key={c['key in an odd query']}", body=chat)
        with RawClient(stage.port) as client:  # refused before it is read
            client.send(b"POST /v1/x?key=" + c.raw("key of a refused request") + b" HTTP/1.1\r\nBad : 1\r\n\r\n")
            got = client.answer()
            stage.answers.append(("refused", got.head + got.body))
    for text in (b'{"model":"a","model":"%b"}', b'{"model":"%b","messages":[', b"%b", b'{"model":5,"x":"%b"}'):
        stage.call("", CHAT, body=text % c.raw("broken body"))
    with RawClient(stage.port) as client:
        client.send(
            request("GET", f"/openai/v1/models?token={c['token in the query']}", b"Authorization: " + c.raw("bare"))
        )
        client.answer()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    canaries = Canaries()
    with ExitStack() as stack:
        up = stack.enter_context(Background(ScriptedUpstream(SCRIPTS)))
        collector = stack.enter_context(OtlpCollector())
        plain = {"dialect": "openai", "url": up.url, "provider": "openai", "timeouts": {"first_byte": 2}}
        upstreams = {
            "openai": plain,
            "azure": plain,
            "keyed": {**plain, "key": "$KEYED_KEY", "headers": {"X-Org": canaries["configured header"]}},
            "anthropic": {**plain, "dialect": "anthropic"},
            "gemini": {**plain, "dialect": "gemini", "key": None},
            "down": {**plain, "url": f"http://127.0.0.1:{dead_port()}", "key": canaries["key of a dead upstream"]},
        }
        gate = RunningGateway(
            upstreams,
            env={"KEYED_KEY": canaries["key in the environment"]},
            admin_token=canaries["admin token"],
            telemetry={
                "log": "stdout",
                "otlp": {"endpoint": collector.url, "headers": {"x-otlp-key": canaries["telemetry header"]}},
                "sampling": {"traces_per_second": 1000},
            },
        )
        stack.enter_context(gate)
        running = Stage(gate, up, canaries, collector)
        plant(running)
        until = time.monotonic() + 60
        while gate.log.count('"outcome"') < 40 or len(collector.spans) < 40:
            assert time.monotonic() < until, f"{len(collector.spans)} spans, log: {gate.log[-2000:]}"
            time.sleep(0.1)
        yield running


def test_what_is_planted_reaches_the_upstream(stage: Stage) -> None:
    never = {
        *(
            "proxy",
            "basic",
            "admin token",
            "telemetry header",
            "key of a dead upstream",
            "bearer to nobody",
            "broken body",
        ),
        *("bearer of a client with an operator", "key in an odd query", "key of a refused request"),
    }
    arrived = set(stage.canaries.found(b"".join(stage.up.received)))
    assert arrived == set(stage.canaries.planted) - never
    assert len(arrived) > 15


def test_the_state_directory_holds_none(stage: Stage) -> None:
    seen = b""
    for path in sorted(stage.gate.state.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            seen += data
            assert stage.canaries.found(data) == [], path.name
    assert MARK.encode() in seen


def test_the_logs_hold_none(stage: Stage) -> None:
    assert MARK in stage.gate.log
    assert stage.canaries.found(stage.gate.log) == []


def test_spans_and_metrics_sent_elsewhere_hold_none(stage: Stage) -> None:
    spans = b"".join(group.SerializeToString() for group in stage.collector.resource_spans)
    assert MARK.encode() in spans
    assert stage.canaries.found(spans) == []
    metrics = b"".join(group.SerializeToString() for group in stage.collector.resource_metrics)
    assert stage.canaries.found(metrics) == []
    assert any(stage.canaries["telemetry header"] in headers.values() for headers in stage.collector.headers)


@pytest.mark.parametrize(
    "path",
    [
        *("/metrics", "/readyz", "/healthz", "/api/calls?limit=500", "/api/runs", f"/api/runs/{MARK}", "/openapi.json"),
        *("/api/summary", "/api/spenders", "/api/spenders?by=model"),
    ],
)
def test_the_admin_port_shows_none(stage: Stage, path: str) -> None:
    text = stage.api(path)
    assert len(text) > 10
    assert stage.canaries.found(text) == []


def test_each_call_shows_none(stage: Stage) -> None:
    calls = json.loads(stage.api("/api/calls?limit=500"))["calls"]
    assert len(calls) > 40
    assert sum("[redacted]" in str(call["error"]) for call in calls) > 10, "what was quoted was looked at"
    for call in calls[::5]:
        assert stage.canaries.found(stage.api(f"/api/calls/{call['id']}")) == []


def test_what_the_gateway_itself_answers_holds_none(stage: Stage) -> None:
    quoted = {"echo", "echo each", "echo stream"}
    own = [text for script, text in stage.answers if script not in quoted]
    assert len(own) > 20
    for text in own:
        assert stage.canaries.found(text) == [], text[:500]
    for _, text in stage.answers:  # what an upstream quotes passes; but never what it was not sent
        assert not {"cookie of nobody", "proxy", "admin token", "telemetry header"} & set(stage.canaries.found(text))


def test_no_command_line_holds_one(stage: Stage) -> None:
    lines = stage.gate.processes()
    assert len(lines) >= 3
    assert stage.canaries.found("\n".join(lines.values())) == []


@pytest.mark.parametrize("command", [["check", "--config"], ["journal", "cat"], ["journal", "verify"]])
def test_commands_print_none(stage: Stage, command: list[str]) -> None:
    where = [str(stage.gate.config_file)] if command[0] == "check" else [str(stage.gate.state / "journal")]
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from gateway.cli import main; sys.exit(main())", *command, *where],
        capture_output=True,
        timeout=30,
        check=False,
        cwd=Path(stage.gate.directory),
        env={"PATH": "/usr/bin", "KEYED_KEY": stage.canaries["key in the environment"]},
    )
    assert stage.canaries.found(done.stdout + done.stderr) == []
    assert done.stdout or done.stderr
