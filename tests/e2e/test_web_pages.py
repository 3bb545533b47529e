"""A page of some site, in the browser of whoever runs a gateway that asks for no key, spends none of their money."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from gateway.testing.faults import Script, Send, answer
from gateway.testing.gateway import RunningGateway
from gateway.testing.raw import RawAnswer, RawClient, request
from gateway.testing.scripted import ScriptedUpstream

BODY = b'{"model":"gpt-4o","messages":[{"role":"user","content":"hi"}]}'
SCRIPTS: dict[str, Script] = {"": [Send(answer(b'{"choices":[]}'))]}
EVIL = b"Origin: https://evil.example"
UPGRADE = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


@pytest.fixture(scope="module")
def gate(up: ScriptedUpstream) -> Iterator[RunningGateway]:
    upstreams = {
        "openai": {"dialect": "openai", "url": up.url, "key": "sk-operator"},
        "anthropic": {"dialect": "anthropic", "url": up.url, "key": "sk-operator"},
        "gemini": {"dialect": "gemini", "url": up.url, "key": "sk-operator"},
    }
    servers = {"notes": {"url": up.url, "allow_private": True}}
    with RunningGateway(upstreams, mcp=servers, allowed_origins=["https://chat.example.com"]) as running:
        yield running


def send(gate: RunningGateway, target: str, *headers: bytes, method: str = "POST") -> RawAnswer:
    with RawClient(int(gate.config["listen"].rpartition(":")[2])) as client:
        client.send(request(method, target, *headers, body=BODY if method == "POST" else b""))
        return client.answer()


@pytest.mark.parametrize(
    ("target", "method", "headers"),
    [
        ("/v1/chat/completions", "POST", (EVIL, b"Content-Type: text/plain")),
        ("/v1/messages", "POST", (EVIL,)),
        ("/v1beta/models/gemini-2.5-pro:generateContent", "POST", (EVIL,)),
        ("/openai/v1/images/generations", "POST", (EVIL,)),
        ("/run/r1/v1/responses", "POST", (b"Origin: null",)),
        ("/v1/responses", "GET", (EVIL, *UPGRADE)),
        ("/mcp/notes", "POST", (EVIL,)),
        ("/v1/chat/completions", "OPTIONS", (EVIL, b"Access-Control-Request-Method: POST")),
    ],
)
def test_a_foreign_page_is_refused_and_the_provider_not_asked(
    gate: RunningGateway, up: ScriptedUpstream, target: str, method: str, headers: tuple[bytes, ...]
) -> None:
    before = len(up.received)
    got = send(gate, target, *headers, method=method)
    assert (got.status, got.get("x-should-retry")) == (403, "false")
    assert b"allowed_origins" in got.body
    assert not got.get("access-control-allow-origin")
    assert len(up.received) == before


@pytest.mark.parametrize(
    "origin", [b"http://localhost:3000", b"http://127.0.0.1", b"https://chat.example.com", b"vscode-webview://x"]
)
def test_pages_at_home_pass_as_they_are(gate: RunningGateway, up: ScriptedUpstream, origin: bytes) -> None:
    assert send(gate, "/v1/chat/completions", b"Origin: " + origin).status == 200
    assert b"\r\nOrigin: " + origin + b"\r\n" in up.received[-1]


def test_the_refusal_is_recorded_with_its_code(gate: RunningGateway) -> None:
    got = send(gate, "/v1/chat/completions", EVIL)
    assert json.loads(got.body)["error"]["code"] == "origin_not_allowed"
    call = gate.until(lambda: gate.get(f"/api/calls/{got.get('x-tollgate-request-id')}"), bool)
    assert (call["status"], call["outcome"], call["attempts"]) == (403, "refused", [])


@pytest.mark.parametrize("path", ["/api/runs/r1/kill", "/api/runs/r1/resume", "/api/keys", "/api/budgets/adjust"])
def test_a_foreign_page_changes_nothing_by_the_admin_port(gate: RunningGateway, path: str) -> None:
    for origin in ("https://evil.example", "null"):
        got = httpx.post(gate.admin_url + path, headers={"Origin": origin})
        assert (got.status_code, got.json()["code"]) == (403, "origin_not_allowed")
