import random

import numpy as np
import pytest

from gateway.policy.semantic_scope import Scope
from gateway.semantic.replay import Asked, Ours, fixed

THINGS = [f"{adjective} {noun}" for adjective in ("red", "old", "tall") for noun in ("barn", "tower", "bridge", "mill")]
WAYS = ("who built the {}", "by whom was the {} built", "tell me who built the {}", "the {} was built by whom")


def stream(count, seed=1):
    """Of two kinds of questions about things; equal ones have equal vectors, those about one thing are near."""
    draw = random.Random(seed)
    axes = np.random.default_rng(seed).standard_normal((len(THINGS) + 1, 32))
    asked, rows = [], []
    for _ in range(count):
        number = draw.randrange(len(THINGS))
        other = draw.random() < 0.3
        way = "when was the {} built" if other else draw.choice(WAYS)
        text = way.format(THINGS[number])
        asked.append(Asked(text, f"{other} {number}"))
        row = axes[number] * 4 + np.random.default_rng(len(text)).standard_normal(32) * 0.6
        rows.append(row / np.linalg.norm(row))
    return asked, np.array(rows, np.float32)


def test_exact_alone_serves_what_was_asked_before_and_nothing_else():
    asked, vectors = stream(400)
    played = fixed(asked, vectors, 2.0)
    assert played.hits == played.exact == 400 - len({one.text for one in asked})
    assert played.wrong_hits == played.similar == 0


def test_a_lower_threshold_serves_more_and_more_wrongly():
    asked, vectors = stream(600)
    played = [fixed(asked, vectors, least) for least in (1.01, 0.97, 0.9, 0.5)]
    assert [one.hits for one in played] == sorted(one.hits for one in played)
    assert played[0].wrong == 0 < played[-1].wrong
    assert played[-1].hits > played[0].hits


def test_an_exact_hit_may_be_wrong_where_the_stream_is_of_two_minds():
    asked = [Asked("a", "1"), Asked("a", "2"), Asked("a", "1")]
    played = fixed(asked, np.ones((3, 1), np.float32), 2.0)
    assert (played.exact, played.stale, played.wrong_hits) == (2, 1, 1)


@pytest.mark.parametrize("least", [0.5, 2.0])
def test_parts_share_nothing(least):
    asked = [Asked("a", "1", "one"), Asked("a", "1", "other"), Asked("a", "1", "other")]
    played = fixed(asked, np.ones((3, 1), np.float32), least)
    assert played.hits == 1
    ours = Ours(asked, np.ones((3, 1), np.float32), Scope(0.02)).run()
    assert ours.hits == 1


def test_ours_learns_and_keeps_to_its_target():
    asked, vectors = stream(2500)
    asked = [Asked(one.text + " now" * (number % 40), one.answer) for number, one in enumerate(asked)]
    told = []
    ours = Ours(asked, vectors, Scope(0.02)).run(told.append)
    assert told == list(range(2500))
    assert ours.similar > 100
    assert ours.wrong <= 0.02 * ours.similar
    assert ours.interval.lower <= ours.wrong / ours.similar <= ours.interval.upper
    assert 0 < ours.shadowed < ours.similar


def test_the_same_seed_gives_the_same_outcome():
    asked, vectors = stream(800)
    assert Ours(asked, vectors, Scope(0.02), 3).run() == Ours(asked, vectors, Scope(0.02), 3).run()
