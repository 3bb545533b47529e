import math

from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.semantic_pair import NAMES, Around, Rarity, features, framed
from gateway.policy.semantic_prior import DEVIATION, MEAN
from gateway.policy.semantic_text import Said


def named(one, other, cosine=0.9, around=None):
    found = features(Said(one), Said(other), cosine, Rarity(), around or Around())
    return dict(zip(NAMES, found, strict=True))


def test_every_feature_has_a_name_and_a_prior():
    assert len(NAMES) == len(MEAN) == len(DEVIATION) == len(named("a", "b"))


def test_equal_texts_differ_in_nothing():
    found = named("who built the red barn", "Who built the red barn?")
    assert found["same_content"] == 1
    assert not any(found[name] for name in ("unmatched", "substituted", "question", "negation", "turned", "repeated"))


def test_differences_are_told():
    found = named("who built the red barn", "when was the old barn not built")
    assert found["question"] > 0
    assert found["negation"] == 1
    assert found["substituted"] == 1


def test_a_word_in_anothers_place_is_framed():
    one, other = Said("a table in boston tonight"), Said("a table in denver tonight")
    assert framed(one, other, one.content - other.content, other.content - one.content) == 2


def test_rare_words_count_more():
    rarity = Rarity()
    for _ in range(50):
        rarity.add(Said("the course on barns"))
    assert rarity("cours") < 0.2 < rarity("tower") <= 1


@given(st.text(max_size=80), st.text(max_size=80), st.floats(-1, 1), st.integers(1, 8))
def test_features_are_small_and_finite(one, other, cosine, members):
    found = named(one, other, cosine, Around(0.5, 0.1, members, False, False, 30))
    assert all(math.isfinite(value) and abs(value) <= 16 for value in found.values())
