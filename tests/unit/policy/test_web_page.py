"""Which pages a browser may ask us from: those of this machine, and those that were let in."""

from __future__ import annotations

import pytest

from gateway.policy.web_page import is_foreign


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "http://localhost",
        "http://localhost:3000",
        "HTTP://LOCALHOST:3000",
        "https://127.0.0.1:8443",
        "http://127.8.9.10",
        "http://[::1]:5173",
        "http://app.localhost:3000",
        "vscode-webview://0abc",
        "chrome-extension://abcdefgh",
        "tauri://localhost",
        "https://chat.example.com",
        "http://10.0.0.5:3000",
    ],
)
def test_pages_of_this_machine_programs_and_those_let_in_are_at_home(origin: str) -> None:
    assert not is_foreign(origin, {"https://chat.example.com", "http://10.0.0.5:3000"})


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "http://evil.example",
        "https://evil.example:8787",
        "http://localhost.evil.example",
        "http://evil.example@127.0.0.1.evil.example",
        "http://notlocalhost",
        "http://127.0.0.1.evil.example",
        "http://10.0.0.5",
        "http://[::2]",
        "http://[",
        "http://",
        "http://chat.example.com",
        "https://chat.example.com:444",
        "https://chat.example.com.evil.example",
    ],
)
def test_other_pages_are_foreign(origin: str) -> None:
    assert is_foreign(origin, {"https://chat.example.com"})


def test_a_page_without_an_origin_is_let_in_where_that_was_written() -> None:
    assert not is_foreign("null", {"null"})
