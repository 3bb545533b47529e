import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.semantic import parts
from gateway.semantic.wordpiece import BEGIN, END, MOST_LETTERS, UNKNOWN, WordPiece, words
from tests.unit.semantic.weights import needs_weights

PIECES = WordPiece({"un": 1, "lock": 2, "##lock": 3, "##ed": 4, "card": 5, "?": 6, "##s": 7})

# Of Hugging Face's `tokenizers` 0.22 with the tokenizer.json of the model.
KNOWN = {
    "How do I reset my café's Wi‑Fi?": [2129, 2079, 1045, 25141, 2026, 7668, 1005, 1055, 15536, 1514, 10882, 1029],
    "İstanbul 東京 naïve": [9960, 1879, 1755, 15743],
    "E_ABC-12: 3.5%": [1041, 1035, 5925, 1011, 2260, 1024, 1017, 1012, 1019, 1003],
}


def test_a_word_is_its_longest_pieces():
    assert PIECES.numbers("unlocked cards?", 99) == [BEGIN, 1, 3, 4, 5, 7, 6, END]
    assert PIECES.numbers("lock", 99) == [BEGIN, 2, END]


def test_a_word_that_cannot_be_put_together_is_unknown_whole():
    assert PIECES.numbers("unlocker card", 99) == [BEGIN, UNKNOWN, 5, END]
    assert PIECES.numbers("x" * 101, 99) == [BEGIN, UNKNOWN, END]


def test_what_a_word_is_does_not_hang_on_what_was_read_before():
    pieces = WordPiece({"a": 1, "##b": 2})
    assert pieces.numbers("ab", 9) == pieces.numbers("ab", 9) == [BEGIN, 1, 2, END]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Don't STOP.", ["don", "'", "t", "stop", "."]),
        ("tab\tline\nnul\x00bell\x07", ["tab", "line", "nulbell"]),
        ("naïve Ärger", ["naive", "arger"]),
        ("東京tower", ["東", "京", "tower"]),
        ("a…b—c", ["a", "…", "b", "—", "c"]),
        ("a\u200bb\ufffdc", ["abc"]),
        ("[SEP]", ["[", "sep", "]"]),
        ("$5^2`~", ["$", "5", "^", "2", "`", "~"]),
        ("", []),
    ],
)
def test_words(text, found):
    assert words(text) == found


@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=60))
def test_the_quick_way_for_ascii_is_the_long_one(text):
    ideograph = "\u4e00"  # makes it take the long way
    assert words(text + ideograph) == [*words(text), ideograph]


@given(st.text(max_size=200), st.integers(3, 40))
def test_a_text_has_no_more_pieces_than_are_asked_for(text, most):
    numbers = PIECES.numbers(text, most)
    assert len(numbers) <= most
    assert (numbers[0], numbers[-1]) == (BEGIN, END)


def test_a_long_text_is_read_up_to_a_bound():
    assert PIECES.numbers(" " * MOST_LETTERS + "card", 9) == [BEGIN, END]


@needs_weights
@pytest.mark.parametrize(("text", "numbers"), KNOWN.items())
def test_the_vocabulary_of_the_model(text, numbers):
    pieces = WordPiece.read(parts.require() / "vocab.txt")
    assert pieces.numbers(text, 256) == [BEGIN, *numbers, END]
