from __future__ import annotations

import pytest

from gateway.call import Request
from gateway.journal.redact import MESSAGE_LIMIT, REDACTED, Redactor, header_text, one_line


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-AbCdEf0123456789",
        "sk-ant-api03-AbCdEf0123-456789",
        "sk-1234********************cdef",
        "AIzaSyA-1234567890abcdefghijklmn",
        "gsk_abcdefghijklmnop",
        "tg-0123abcd-AbCdEfGh0123456789AbCdEfGh0123456789AbCdEfG",
        "Bearer abc.def-ghi",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTYifQ.c2lnbmF0dXJl",
    ],
)
def test_what_looks_like_a_key_goes(secret: str) -> None:
    cleaned = Redactor().clean(f"Incorrect API key provided: {secret}. You can find yours at the site.")
    assert secret not in cleaned
    assert secret[-6:] not in cleaned
    assert REDACTED in cleaned
    assert cleaned.startswith("Incorrect API key provided: ")
    assert cleaned.endswith("at the site.")


def test_ordinary_words_stay() -> None:
    for message in (
        "The model `gpt-4o-mini` does not exist",
        "max_tokens: 4096 > 2048, the risk-free limit of task-oriented-models",
        "key error in 'messages[0].content'",
        "the key tg-0123abcd- is disabled",
    ):
        assert Redactor().clean(message) == message


def test_known_secrets_go_whatever_they_look_like() -> None:
    request = Request(b"POST", b"/", [(b"X-Api-Key", b"plain-words-of-client"), (b"Cookie", b"id=0123456789")], b"")
    message = "operator and operator-longer and plain-words-of-client and id=0123456789"
    cleaned = Redactor(["operator", "operator-longer", ""]).clean(message, request)
    assert cleaned == " and ".join([REDACTED] * 4)


def test_a_secret_across_the_limit_leaves_no_half() -> None:
    cleaned = Redactor(["topsecretvalue"]).clean("x" * (MESSAGE_LIMIT - 5) + "topsecretvalue")
    assert len(cleaned) == MESSAGE_LIMIT
    assert "tops" not in cleaned


def test_one_line() -> None:
    assert one_line("a\r\nb\x00\x1b[31mc\u2028d\ud800", 100) == "a b [31mc d "
    assert one_line("é" * 10, 3) == "ééé"
    assert header_text(b"  curl/8\t\x00 ") == "curl/8"
    assert header_text(b"x" * 5000) == "x" * 256
    assert Redactor().clean("") == ""
