import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.semantic_learner import MOST_WORDS, Guess, Learner, sigmoid


def test_it_finds_the_weights_that_made_the_labels():
    draw = random.Random(1)
    truth = [-1.0, 2.0, 0.0]
    learner = Learner([0.0] * 3, [1.5] * 3)
    for _ in range(3000):
        dense = [1.0, draw.gauss(0, 1), draw.gauss(0, 1)]
        logit = sum(a * b for a, b in zip(truth, dense, strict=True))
        learner.learn(dense, (), draw.random() < sigmoid(logit))
    assert learner.mean == pytest.approx(truth, abs=0.25)
    assert learner.labels == 3000


def test_labels_make_it_surer():
    learner = Learner([0.0], [1.0])
    before = learner.guess([1.0], ())
    learner.learn([1.0], (), True)
    after = learner.guess([1.0], ())
    assert after.variance < before.variance
    assert after.mean > before.mean


def test_doubt_pulls_the_chance_to_one_half():
    assert 0.5 < Guess(2.0, 10.0).chance < Guess(2.0, 0.0).chance


def test_a_word_is_learned_where_it_occurs():
    learner = Learner([0.0], [0.1])
    for _ in range(30):
        learner.learn([1.0], ("please",), True)
        learner.learn([1.0], ("boston",), False)
    assert learner.guess([1.0], ("please",)).chance > 0.8
    assert learner.guess([1.0], ("boston",)).chance < 0.2
    assert learner.knows("boston")
    assert not learner.knows("denver")


def test_words_are_bounded():
    learner = Learner([0.0], [1.0])
    for number in range(MOST_WORDS + 5):
        learner.learn([0.1], (str(number),), True)
    assert not learner.knows("0")
    assert learner.knows(str(MOST_WORDS + 4))


def test_it_follows_a_scope_that_changes():
    learner = Learner([0.0], [1.0])
    for _ in range(2000):
        learner.learn([1.0], (), True)
    for _ in range(2000):
        learner.learn([1.0], (), False)
    assert learner.guess([1.0], ()).chance < 0.5


@given(st.lists(st.tuples(st.lists(st.floats(-8, 8), min_size=3, max_size=3), st.booleans()), max_size=60))
def test_whatever_it_is_taught_stays_finite(labels):
    learner = Learner([0.0] * 3, [1.0] * 3)
    for dense, right in labels:
        learner.learn(dense, ("a", "b"), right, 20.0)
    guess = learner.guess([1.0, 1.0, 1.0], ("a",))
    assert math.isfinite(guess.logit)
    assert guess.variance >= 0
    assert 0 < guess.chance < 1
