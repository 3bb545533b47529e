"""Talking to an admin API that answers well, badly, or not at all."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gateway.commands.client import Admin, NoGateway, Refused, admin_of, run_path
from gateway.config.address import Address, parse_address
from gateway.config.schema import Config
from gateway.process.state import LOCK, StateDirectory, holder


class Handler(http.server.BaseHTTPRequestHandler):
    answer: tuple[int, bytes] = (200, b"{}")
    asked: ClassVar[list[Any]] = []

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length", 0))
        Handler.asked.append((self.command, self.path, self.headers.get("authorization"), self.rfile.read(length)))
        status, body = Handler.answer
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_GET

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def address() -> Iterator[Address]:
    Handler.asked = []
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Address("127.0.0.1", server.server_port)
        server.shutdown()
        thread.join()


def test_questions_carry_the_token(address: Address, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # never asked
    Handler.answer = (200, b'{"a": 1}')
    assert Admin(Address("0.0.0.0", address.port), "secret").ask("PUT", "/x", {"b": 2}) == {"a": 1}
    Admin(address, None).ask("GET", "/y")
    assert Handler.asked == [("PUT", "/x", "Bearer secret", b'{"b": 2}'), ("GET", "/y", None, b"")]


def test_refusals_are_in_its_own_words(address: Address) -> None:
    Handler.answer = (401, json.dumps({"detail": "send the token"}).encode())
    with pytest.raises(Refused, match="send the token") as refused:
        Admin(address, None).ask("GET", "/x")
    assert refused.value.status == 401
    assert not Admin(address, None).ready()
    Handler.answer = (503, b'{"ready": false}')
    assert not Admin(address, None).ready()
    Handler.answer = (200, b'{"ready": true}')
    assert Admin(address, None).ready()


def test_what_is_no_gateway(address: Address) -> None:
    Handler.answer = (200, b"<html>")
    with pytest.raises(NoGateway, match="is no gateway"):
        Admin(address, None).ask("GET", "/x")


def test_nobody_answers() -> None:
    with pytest.raises(NoGateway, match=r"no gateway answers at 127\.0\.0\.1:1: "):
        Admin(Address("127.0.0.1", 1), None).ask("GET", "/x")


def test_the_running_gateway_is_found_by_its_state(tmp_path: Path) -> None:
    config = Config(state=str(tmp_path / "s"), admin="127.0.0.1:5")
    assert admin_of(config).address == parse_address("127.0.0.1:5")
    state = StateDirectory(tmp_path / "s", tmp_path / "s" / "journal")
    assert holder(tmp_path / "s") is None  # nothing is said yet
    state.describe("127.0.0.1:1", "0.0.0.0:6", tls=True)
    found = holder(tmp_path / "s")
    assert found is not None
    assert (found.pid, found.listen, found.admin, found.tls) == (os.getpid(), "127.0.0.1:1", "0.0.0.0:6", True)
    assert admin_of(config).address == parse_address("127.0.0.1:6")
    state.close()
    assert holder(tmp_path / "s") is None
    (tmp_path / "s" / LOCK).write_text('{"pid": 4194305}')  # beyond the highest there is
    assert holder(tmp_path / "s") is None


def test_ids_are_quoted() -> None:
    assert run_path("a/b ?", "/kill") == "/api/runs/a%2Fb%20%3F/kill"
