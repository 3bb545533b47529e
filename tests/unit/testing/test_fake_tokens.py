"""Tokens are lossless, and the caches count what a provider's prompt cache would."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.testing.fake_tokens import BreakpointCache, PrefixCache, count, tokens


@given(st.text())
def test_the_pieces_join_to_the_text(text: str) -> None:
    assert "".join(tokens(text)) == text
    assert count(text) == len(tokens(text))


def test_english_takes_about_four_characters_a_token() -> None:
    text = "The quick brown fox jumps over the lazy dog, 1234 times, and then it rests. " * 20
    assert 3 < len(text) / count(text) < 5.5


def test_automatic_caching_needs_the_minimum_and_steps_in_whole_blocks() -> None:
    cache = PrefixCache(minimum=256, step=128)
    prompt = "word " * 400
    assert cache.match("m", prompt) == 0
    assert cache.match("m", prompt) == count(prompt) // 128 * 128
    assert cache.match("m", prompt + "and more") == count(prompt) // 128 * 128
    assert cache.match("other model", prompt) == 0
    assert cache.match("m", "short") == 0
    assert cache.match("m", "short") == 0


def test_a_changed_beginning_loses_the_prefix() -> None:
    cache = PrefixCache(minimum=128, step=128)
    cache.match("m", "word " * 400)
    assert cache.match("m", "changed " + "word " * 400) == 0


def test_marked_prefixes_are_written_once_and_read_after() -> None:
    cache = BreakpointCache(minimum=10)
    system, question = ("rule " * 50, "1h"), ("why? " * 10, "5m")
    read, written = cache.match("m", [system, question])
    assert read == 0
    assert written == {"1h": count(system[0]), "5m": count(question[0])}
    assert cache.match("m", [system, question]) == (count(system[0]) + count(question[0]), {})
    read, written = cache.match("m", [system, ("another question", "")])
    assert (read, written) == (count(system[0]), {})


def test_a_prefix_below_the_minimum_is_not_cached() -> None:
    cache = BreakpointCache(minimum=1000)
    assert cache.match("m", [("short", "5m")]) == (0, {})
    assert cache.match("m", [("short", "5m")]) == (0, {})
