"""Learned choice between models: features, fit, measures, goals, and how little is claimed of what is not known."""

from __future__ import annotations

import math
import random

import msgspec
import pytest

from gateway.policy.selection import ENOUGH, EXPLORED, Choice, Goal, Model, solve
from gateway.policy.selection_cascade import rises_of, with_next
from gateway.policy.selection_curve import Point, best, curve, gap, means, single
from gateway.policy.selection_features import HEAD, TAIL, Features, Situation, features
from gateway.policy.selection_fit import Label, Line, Weights, fit, line
from gateway.policy.selection_labels import QUIET, REPORTED, Signs, verdict
from gateway.policy.selection_learner import REFIT, Example, Learner
from gateway.policy.selection_trust import LEAST, Expected, familiar, teach

EASY = ("name the capital of {}", "what is the colour of {}", "who wrote the book {}")
HARD = ("prove that the integral of {} exists", "derive the equation of {} step by step", "compute the matrix {}")
NOUNS = [f"thing{chr(97 + n % 26)}{chr(97 + n // 26)}" for n in range(40)]


def prompts(count: int, seed: int = 1) -> list[tuple[str, bool]]:
    draw = random.Random(seed)
    found = []
    for _ in range(count):
        hard = draw.random() < 0.4
        found.append((draw.choice(HARD if hard else EASY).format(draw.choice(NOUNS)), hard))
    return found


def examples(count: int, seed: int = 1) -> list[Example]:
    """The small model is right on what is easy, the large one nearly always."""
    draw = random.Random(seed + 100)
    return [
        Example(
            features(text),
            {"small": float(draw.random() < (0.1 if hard else 0.95)), "large": float(draw.random() < 0.95)},
        )
        for text, hard in prompts(count, seed)
    ]


# -- features


def test_features_are_the_same_each_time_and_show_what_differs() -> None:
    one = features("Prove that 2 + 2 = 4.")
    assert one == features("Prove that 2 + 2 = 4.")
    assert one.words != features("Name the capital of France.").words
    assert features("a", Situation(tools=3)).words != features("a").words
    assert features("a", Situation(step=4)).words != features("a").words
    assert features("a", Situation(request_class="main")).words != features("a").words


def test_an_embedding_comes_behind_the_measures() -> None:
    plain, more = features("hello"), features("hello", embedding=(0.5, -0.5))
    assert more.measures == (*plain.measures, 0.5, -0.5)
    assert len(plain.measures) == 20


@pytest.mark.parametrize("text", ["", " ", "\n", "é" * 5000, "\ud800", "x" * 200_000, "a b " * 50_000, "0" * 99])
def test_any_text_has_finite_features(text: str) -> None:
    found = features(text)
    assert all(math.isfinite(value) and abs(value) < 60 for value in found.measures)
    assert 0 < found.weight <= 1


def test_of_a_long_prompt_both_ends_are_read() -> None:
    middle = "q" * HEAD
    long = f"start {middle} {middle} {middle} end"
    assert len(long) > HEAD + TAIL
    assert features(long).words != features(long.replace("end", "fin")).words
    assert features(long).words != features(long.replace("start", "begin")).words
    assert len(features("word%d " * 100_000).words) < 20
    assert len(features(" ".join(f"w{chr(97 + n % 26)}{chr(97 + n // 26 % 26)}" for n in range(9999))).words) < HEAD


# -- fit


def test_the_fit_is_that_of_the_normal_equations() -> None:
    """Two labels, one measure, no words: w = sum(x y) / (sum(x x) + penalty)."""
    rows = [Features((2.0,), (), 1.0, (), 1.0), Features((1.0,), (), 1.0, (), 1.0)]
    found = fit([Label(rows[0], 1.0), Label(rows[1], 0.25, weight=2.0)], of_measures=3.0)
    assert found.measures[0] == pytest.approx((2 * 1 + 2 * 1 * 0.25) / (4 + 2 * 1 + 3))
    shared = Features((0.0,), (7,), 0.5, (), 1.0)
    assert fit([Label(shared, 1.0)], penalty=1.0).words[7] == pytest.approx(0.5 / (0.25 + 1))


def test_what_a_word_explains_as_well_is_not_laid_to_a_measure() -> None:
    """Measures tell any two subjects apart, and say something else of a third."""
    found = fit([Label(Features((1.0,), (7,), 1.0, (), 1.0), 1.0)] * 100)
    assert found.words[7] > 0.8
    assert 0 < found.measures[0] < 0.05


def test_a_fit_goes_on_from_where_it_was() -> None:
    labels = [Label(one.seen, one.scores["small"]) for one in examples(200)]
    whole = fit(labels, passes=100)
    again = fit(labels, start=whole, passes=1)
    assert max(abs(a - b) for a, b in zip(whole.measures, again.measures, strict=True)) < 5e-3
    rough = fit(labels, passes=2)
    nearer = fit(labels, start=rough, passes=6)

    def far(weights: Weights) -> float:
        return sum((a - b) ** 2 for a, b in zip(whole.words, weights.words, strict=True))

    assert far(nearer) < far(rough)


def test_nothing_is_made_of_no_labels() -> None:
    assert fit([]).predict(features("hello")) == 0
    assert line([]) == Line()
    assert line([Label(features("ab"), 0.5), Label(features("cd"), 1.0)]) == Line(0.75, 0.0)


def test_a_line_over_lengths() -> None:
    short, long = features("a"), features("a" * 1000)
    found = line([Label(short, 0.2), Label(long, 0.8)])
    assert found.predict(short) == pytest.approx(0.2)
    assert found.predict(long) == pytest.approx(0.8)


# -- trust


def test_what_is_unlike_the_labelled_prompts_is_expected_by_its_length_alone() -> None:
    known = [features(text) for text, _ in prompts(300)]
    found = familiar(known)
    assert found.trust(known[0]) == 1
    strange = features("eine ganz andere frage nach etwas anderem, das hier niemand kennt")
    assert found.trust(strange) == 0
    labels = [[Label(one.seen, one.scores[model]) for one in examples(300)] for model in ("small", "large")]
    taught = teach(labels)
    assert taught.of(strange) == tuple([one.predict(strange) for one in taught.lines])
    easy = known[0]
    both = zip(taught.lines, taught.beyond, strict=True)
    assert taught.of(easy) == tuple([by_length.predict(easy) + beyond.predict(easy) for by_length, beyond in both])
    assert familiar([]).trust(easy) == 0


def test_the_stranger_a_prompt_is_the_closer_its_score_keeps_to_its_length() -> None:
    found = familiar([features(text) for text, _ in prompts(300)])
    texts = ("name the capital, oder was hier sonst noch so steht", "name the colour of something", prompts(1)[0][0])
    strange, like, same = [found.trust(features(text)) for text in texts]
    assert LEAST <= strange < like < same == 1


def test_of_few_labels_a_line_leans_on_the_usual_one() -> None:
    short, long = features("a"), features("a" * 1000)
    usual = Line(0.5, 0.01)
    assert line([], usual) == usual
    few = line([Label(short, 0.0), Label(long, 1.0)], usual)
    assert usual.predict(short) > few.predict(short) > 0
    assert usual.predict(long) < few.predict(long) < 1
    many = line([Label(short, 0.0), Label(long, 1.0)] * 500, usual)
    assert many.predict(short) == pytest.approx(0, abs=0.01)
    assert many.predict(long) == pytest.approx(1, abs=0.01)
    same = line([Label(short, 1.0)] * 4, Line(0.5))
    assert same.predict(short) == pytest.approx(0.75)


# -- measures of the RouteLLM paper


def test_an_oracle_random_and_reverse() -> None:
    weak, strong = [1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]
    oracle = gap([0, 1, 0, 1], weak, strong)
    assert (oracle.apgr, oracle.cpt50, oracle.cpt80) == (pytest.approx(0.75), 0.25, 0.5)
    worst = gap([1, 0, 1, 0], weak, strong)
    assert (worst.apgr, worst.cpt50, worst.cpt80) == (pytest.approx(0.25), 0.75, 1.0)
    draw = random.Random(3)
    rows = 4000
    flat = gap([draw.random() for _ in range(rows)], weak * 1000, strong * 1000)
    assert flat.apgr == pytest.approx(0.5, abs=0.02)
    assert gap([1, 2], [0.5, 0.5], [0.5, 0.5]).apgr == 0  # no gap to recover


def test_the_curve_goes_from_quality_to_cost() -> None:
    expected = [[0.9, 0.5], [0.6, 0.5], [0.9, 0.1]]
    points = curve(expected, expected, [[1.0, 0.1]] * 3)
    assert points[0].cost == 1.0
    assert points[-1].cost == pytest.approx(0.1)
    assert [one.cost for one in points] == sorted([one.cost for one in points], reverse=True)
    assert best([0.5, 0.5], [1.0, 0.5], 0.0) == 1  # of equal ones the cheaper
    assert single([[0.1, 0.9], [0.2, 0.1]]) == 1
    assert means([[1, 2], [3, 4]]) == [2, 3]


# -- goals


POINTS = [Point(0.0, 0.8, 1.0), Point(0.1, 0.79, 0.6), Point(0.2, 0.75, 0.3), Point(0.3, 0.5, 0.1)]
TOP = Point(0.0, 0.8, 1.0)


@pytest.mark.parametrize(
    ("goal", "weight"),
    [
        (Goal(quality=0.97), 0.1),
        (Goal(quality=0.9), 0.2),
        (Goal(quality=1.0), 0.0),
        (Goal(quality=1.2), 0.0),  # out of reach: the best there is
        (Goal(cost=0.35), 0.2),
        (Goal(cost=0.05), 0.3),  # out of reach: the cheapest there is
        (Goal(quality=0.97, cost=0.7), 0.1),
        (Goal(quality=0.97, cost=0.4), 0.2),  # not both: as good as can be within the cost
        (Goal(), 0.0),
    ],
)
def test_the_weight_of_cost_is_solved_from_the_goal(goal: Goal, weight: float) -> None:
    assert solve(POINTS, TOP, goal) == weight


# -- the learner


def test_it_learns_who_needs_the_large_model() -> None:
    learner = Learner(["large", "small"], [1.0, 0.1], Goal(quality=0.97))
    learner.warm(examples(ENOUGH + 100))
    assert learner.model.ready
    right = 0
    for text, hard in prompts(300, seed=9):
        choice = learner.model.choose(features(text), {"large", "small"}, draw=0.5)
        assert choice.why == "learned"
        right += (choice.arm == "large") == hard
    assert right >= 285


def test_nothing_is_chosen_by_few_labels() -> None:
    learner = Learner(["large", "small"], [1.0, 0.1], Goal(cost=0.2))
    for example in examples(ENOUGH - 1):
        learner.learn(example)
    assert learner.model.labels < ENOUGH
    assert learner.model.choose(features("name it"), {"large", "small"}, 0.5).arm == "large"
    assert learner.model.choose(features("name it"), {"small"}, 0.5).arm == "small"  # all that is allowed
    for example in examples(REFIT, seed=4):
        learner.learn(example)
    assert learner.model.choose(features("name the capital of thingaa"), {"large", "small"}, 0.5).why == "learned"


def test_what_was_learned_of_other_weights_is_not_chosen_by() -> None:
    """As it was written before there were lines below them: it would count the mean twice."""
    taught = teach([[Label(one.seen, one.scores[model]) for one in examples(50)] for model in ("large", "small")])
    expected = {"weights": taught.beyond, "lines": taught.lines, "known": taught.known}
    old = {"arms": ("large", "small"), "costs": (1, 0.1), "expected": expected, "labels": 600, "counts": (300, 300)}
    model = msgspec.msgpack.decode(msgspec.msgpack.encode(old), type=Model)
    assert model.choose(features("name it"), {"large", "small"}, 0.5) == Choice("large", "first")
    now = Model(("large", "small"), (1.0, 0.1), taught, labels=600, counts=(300, 300))
    assert now.choose(features("name it"), {"large", "small"}, 0.5).why == "learned"


def test_to_ask_the_cheap_one_first_costs_what_the_dear_one_costs_in_its_stead() -> None:
    """In two of five calls; of three models, the middle one's own ascents are in it, too."""
    costs, withheld = (1.0, 0.1, 0.3), (0.5, 0.4, 0.2)
    rises = rises_of(costs, withheld)
    assert with_next(costs, rises) == pytest.approx([1.0, 0.1 + 0.4 * (0.3 + 0.2), 0.3 + 0.2])
    assert with_next((0.9, 0.3, 0.5), rises) == pytest.approx([0.9, 0.3 + 0.4 * (0.5 + 0.18), 0.68])
    assert rises_of(costs, (0.0, 0.0, 0.0)) == ()


def test_a_cheap_model_that_is_withheld_too_often_is_not_asked_first() -> None:
    """Half the price, but both are paid for where its answer is withheld. That the other one mends it is in its score:
    by its own it would be worse at any price."""
    for share, first in ((0.4, "cheap"), (0.6, "dear")):
        rises = rises_of((1.0, 0.5), (0.0, share))
        costs = tuple(with_next((1.0, 0.5), rises))
        expected = Expected((Line(1.0), Line(1.0 - share)), (Weights(), Weights()))
        model = Model(("dear", "cheap"), costs, expected, 0.1, ENOUGH, (ENOUGH, ENOUGH), rises)
        found = model.choose(features("x"), ["dear", "cheap"], 1.0)
        assert (found.arm, found.why) == (first, "learned")


def test_it_learns_from_one_model_at_a_time_and_forgets() -> None:
    """The small model gets good at what is hard: after enough labels it has that, too."""
    learner = Learner(["large", "small"], [1.0, 0.1], Goal(quality=0.97))
    learner.warm(examples(600))
    hard = features(HARD[0].format(NOUNS[0]))
    before = learner.model.expected.of(hard)[1]
    changed = False
    for text, is_hard in prompts(1500, seed=5):
        if is_hard:
            changed = learner.learn(Example(features(text), {"small": 1.0})) or changed
    assert changed
    assert learner.model.expected.of(hard)[1] > before + 0.2
    assert learner.learn(Example(hard, {"other": 1.0})) is False  # a model that is none of the scope's


def test_the_share_explored_is_bounded() -> None:
    model = Model(("a", "b", "c"), (1.0, 0.5, 0.1))
    draw = random.Random(1)
    taken = [model.choose(features("x"), {"a", "b", "c"}, draw.random(), explored=1.0) for _ in range(20_000)]
    explored = [choice.arm for choice in taken if choice.why == "explored"]
    assert len(explored) / 20_000 <= EXPLORED * 1.2
    assert {arm: explored.count(arm) > 60 for arm in "abc"} == {"a": False, "b": True, "c": True}  # `a` serves anyway
    none = [model.choose(features("x"), {"a"}, draw.random(), explored=0.0).why for _ in range(100)]
    assert set(none) == {"first"}


# -- labels


@pytest.mark.parametrize(
    ("signs", "score", "weight"),
    [
        (Signs(outcome=0.7, valid=False, retried=True), 0.7, REPORTED),
        (Signs(outcome=7), 1.0, REPORTED),
        (Signs(agreed=0.25, retried=True), 0.25, REPORTED),
        (Signs(valid=True), 1.0, QUIET),
        (Signs(tools=4), 1.0, QUIET),
        (Signs(tools=4, tool_errors=1), 0.75, 0.3),
        (Signs(valid=False, tools=4), 0.0, 0.8),
        (Signs(retried=True, valid=True), 0.0, 0.4),
    ],
)
def test_what_is_reported_outweighs_every_sign(signs: Signs, score: float, weight: float) -> None:
    found = verdict(signs)
    assert found is not None
    assert (found.score, found.weight) == (score, weight)


def test_no_sign_is_no_label() -> None:
    assert verdict(Signs()) is None
