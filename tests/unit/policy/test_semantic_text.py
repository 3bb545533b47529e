import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.semantic_text import MOST_WORDS, Said
from gateway.policy.semantic_words import stem, undoes


def test_numbers_are_read_in_words_and_digits():
    assert Said("book twelve tickets for 1,200 dollars").numbers == ("12", "1200")


def test_codes_are_what_is_no_plain_word():
    said = Said("Why does os.path.join fail on C:\\temp with E1234 in foo_bar, at https://a.example/x?")
    assert said.codes == {"os.path.join", "c:\\temp", "e1234", "foo_bar", "https://a.example/x"}


@pytest.mark.parametrize(
    ("text", "signs"),
    [("what is 3 + 4", {"+"}), ("what is 3 - 4", set()), ("is a <= b", {"<", "="}), ("3 × 4 ÷ 5", {"×", "÷"}),
     ("hi \U0001f608 there\U0001f608", {"\U0001f608"}), ("“café” – naïve … 20 °C, 5 €!! ;-)", set())],
)  # fmt: skip
def test_signs_that_ask_for_something_are_codes(text, signs):
    assert Said(text).codes == signs


def test_sentences_abbreviations_and_counted_things_are_no_codes():
    assert not Said("This is bad.This too. Leave at 5pm, 2nd door, in the U.S. or a 9-credit class, and/or so").codes


def test_names_are_capitals_within_a_sentence():
    assert Said("Did Prof. Kubena teach in Boston? He may.").names == {"prof", "kubena", "boston"}
    assert not Said("WHO TEACHES THE CLASS IN BOSTON").names


def test_text_split_into_tokens_reads_like_plain_text():
    assert Said("I do n't know Bob 's plan").negations == Said("I don't know Bob's plan").negations == 1


def test_a_preposition_gives_the_next_word_its_role():
    said = Said("flights from Boston to Denver before 9")
    assert (said.roles["boston"], said.roles["denver"], said.roles["9"]) == ("source", "goal", "less")


def test_inflections_share_a_stem():
    assert len({stem(word) for word in ("depart", "departs", "departed", "departing")}) == 1
    assert stem("stopping") == stem("stop")
    assert stem("E1234") == "E1234"


def test_prefixes_that_undo():
    assert undoes("lock", "unlock")
    assert not undoes("port", "import") or undoes("import", "port")
    assert not undoes("in", "unin")


@given(st.text(max_size=300))
def test_any_text_can_be_read(text):
    said = Said(text)
    assert said.content <= set(said.tokens)
    assert said.roles.keys() == said.content == said.places.keys()


def test_long_texts_are_read_up_to_a_bound():
    assert len(Said("word " * 100_000).words) <= 2 * MOST_WORDS
