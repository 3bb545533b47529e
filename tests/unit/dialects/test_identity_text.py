"""What two copies of one answer may differ in, and still be the same."""

from __future__ import annotations

import pytest

from gateway.dialects.identity_text import digest_text


@pytest.mark.parametrize(
    "text",
    [
        "  The answer\nis   42. ",
        "<think>\nhmm\n</think>\n\nThe answer is 42.",
        "so it is.</think>The answer is 42.",  # of a model whose template opens the thought
    ],
)
def test_the_same_answer(text: str) -> None:
    assert digest_text(text) == digest_text("The answer is 42.")


@pytest.mark.parametrize("text", ["The answer is 43.", "<think>The answer is 42.", "<think>a</think>", ""])
def test_another_answer(text: str) -> None:
    assert digest_text(text) != digest_text("The answer is 42.")


def test_thoughts_alone_are_recognised_too() -> None:
    assert digest_text("<think>a</think>") not in (b"", digest_text("<think>b</think>"))
    assert digest_text(" \n") == b""
