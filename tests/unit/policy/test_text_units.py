from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.text_units import SAMPLE, units


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        # as counted by providers for these very texts, or by the letter of the rule
        ("", 0),
        ("The capital of France is Paris.", 7),
        ("hello world", 2),
        ("12345678", 3),
        ("a = b + c", 5),
        ("日本語のテキスト", 6),
        ("Привет, мир", 5),
        ("internationalisation", 3),
    ],
)
def test_units_are_about_tokens(text: str, tokens: int):
    assert units(text) == pytest.approx(tokens, abs=1.1)


def test_long_texts_are_sampled_evenly():
    text = "The quick brown fox jumps over 13 lazy dogs.\n" * 4000
    assert len(text) > 10 * SAMPLE
    per_character = units(text[: 45 * 100]) / (45 * 100)
    assert units(text) == pytest.approx(per_character * len(text), rel=0.02)
    mixed = "word " * 20_000 + "日本語" * 33_000
    whole = units("word " * 1000) * 20 + units("日本語" * 1000) * 33
    assert units(mixed) == pytest.approx(whole, rel=0.15)


@given(st.text(max_size=500), st.text(max_size=500))
def test_more_text_has_more_units_up_to_the_seam(one: str, other: str):
    assert units(one + other) <= units(one) + units(other) + 1e-9 + 0.14 * 7 + 1
    assert units(one) >= 0
