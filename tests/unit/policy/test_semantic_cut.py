import math
import random

import pytest

from gateway.policy.semantic_cut import ENOUGH, calibrate, choose
from gateway.policy.semantic_evidence import Seen
from gateway.policy.semantic_learner import sigmoid


def drawn(count, seed, scale=1.0, shift=0.0):
    draw = random.Random(seed)
    logits = [draw.gauss(1.0, 2.5) for _ in range(count)]
    return [Seen(logit, draw.random() < sigmoid(scale * logit + shift)) for logit in logits]


MANY = [seen.logit for seen in drawn(20_000, 99)]


def wrong_above(cut, scale=1.0, shift=0.0):
    """The true share of wrong ones among those that are let through."""
    found = [logit for logit in MANY if logit >= cut]
    return sum(1 - sigmoid(scale * logit + shift) for logit in found) / max(1, len(found))


def test_without_enough_evidence_there_is_no_cut():
    seen = [Seen(9.0, True)] * (int(ENOUGH) - 1)
    assert choose(seen, [9.0] * 1000, 0.01) == math.inf


def test_without_right_answers_there_is_no_cut():
    seen = [Seen(9.0, False)] * 1000
    assert choose(seen, [9.0] * 1000, 0.01) == math.inf


@pytest.mark.parametrize("target", [0.01, 0.02, 0.05])
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.6, 0.5), (1.5, -1.0)])
def test_the_cut_keeps_the_target_and_uses_it(target, scale, shift):
    shares = []
    for seed in range(12):
        seen = drawn(2000, seed, scale, shift)
        cut = choose(seen, [one.logit for one in seen], target)
        shares.append(wrong_above(cut, scale, shift))
    assert sum(shares) / len(shares) <= target
    assert max(shares) <= 1.6 * target


def test_the_cut_uses_what_the_target_allows():
    seen = drawn(2000, 3)
    cut = choose(seen, [one.logit for one in seen], 0.05)
    assert wrong_above(cut) > 0.025


def test_a_laxer_target_cuts_no_higher():
    seen = drawn(2000, 5)
    cuts = [choose(seen, [one.logit for one in seen], target) for target in (0.002, 0.005, 0.01, 0.02, 0.05, 0.2)]
    assert cuts == sorted(cuts, reverse=True)


def test_hits_of_which_few_are_labelled_count_in_full():
    """Sure hits that are sampled thinly dilute the doubtful ones at the cut: what counts is who is served."""
    seen = drawn(2000, 6)
    logits = [one.logit for one in seen]
    more = [*logits, *[8.0] * 4000]
    assert choose(seen, more, 0.01) < choose(seen, logits, 0.01)


def test_a_reported_wrong_hit_raises_the_cut():
    seen = drawn(2000, 7)
    logits = [one.logit for one in seen]
    cut = choose(seen, logits, 0.01)
    assert choose([*seen, Seen(cut + 0.2, False, 20.0)], logits, 0.01) > cut


def test_calibration_finds_scale_and_shift():
    scale, shift = calibrate(drawn(8000, 8, 0.5, 1.0))
    assert (scale, shift) == pytest.approx((0.5, 1.0), abs=0.1)
