from __future__ import annotations

from pathlib import Path

from gateway.config.address import parse_address
from gateway.process.banner import banner


def test_what_to_export_and_where_the_rest_is() -> None:
    text = banner(parse_address("127.0.0.1:8787"), parse_address("[::1]:8788"), tls=False, file=None, state=Path("/s"))
    lines = [line.strip() for line in text.splitlines()]
    assert "export OPENAI_BASE_URL=http://127.0.0.1:8787/v1" in lines
    assert "export ANTHROPIC_BASE_URL=http://127.0.0.1:8787" in lines
    assert "export GOOGLE_GEMINI_BASE_URL=http://127.0.0.1:8787" in lines
    assert "admin   http://[::1]:8788" in lines
    assert "config  built-in defaults" in lines
    assert "state   /s" in lines


def test_a_wildcard_is_no_address_to_connect_to() -> None:
    text = banner(
        parse_address("0.0.0.0:443"), parse_address("0.0.0.0:8788"), tls=True, file=Path("/t.yaml"), state=Path("/s")
    )
    assert "export ANTHROPIC_BASE_URL=https://127.0.0.1:443\n" in text
    assert "admin   http://127.0.0.1:8788\n" in text
    assert "config  /t.yaml\n" in text
