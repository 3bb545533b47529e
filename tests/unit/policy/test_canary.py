"""A canary is judged by evidence that may be looked at after every call, and never changes its mind."""

from __future__ import annotations

import math
import random
import statistics

import pytest

from gateway.policy.canary import LEAST, SIGNS, Canary, Plan, Seen, State, Usual, canary_arm
from gateway.policy.canary_evidence import RATIOS, NotWorse, Worse, tilted


def watch(seed: int, canary_rate: float, rest_rate: float, runs: int, **plan: object) -> tuple[Canary, int]:
    """A canary over runs of one call that fail at random; the number of its calls at the decision, or at the end."""
    draw = random.Random(seed)
    canary = Canary(Plan(f"c{seed}", **{"share": 0.1, "least_runs": 10**9, **plan}))
    calls = 0
    for run in range(runs):
        of_canary = canary_arm(canary.plan.id, f"r{run}", canary.plan.share)
        calls += of_canary
        failed = draw.random() < (canary_rate if of_canary else rest_rate)
        if canary.see(Seen(f"r{run}", of_canary, error=failed)):
            break
    return canary, calls


def test_failures_of_five_percent_instead_of_two_are_caught_early() -> None:
    found = [watch(seed, 0.05, 0.02, 30_000) for seed in range(100)]
    assert all(canary.state is State.ROLLED_BACK for canary, _ in found)
    assert statistics.median([calls for _, calls in found]) <= 500


def test_equal_arms_are_rarely_told_apart_however_often_one_looks() -> None:
    """2,000 A/A tests of 3,000 calls, looked at after every one: at most 1 % may ever be rolled back."""
    back = 0
    for seed in range(2000):
        draw, worse = random.Random(seed), Worse()
        for _ in range(60):  # failed runs of 3,000 at 2 %: only those move the evidence
            worse.see(draw.random() < 0.1, 0.1)
            if 0.6 * worse.value + 0.4 >= 100:
                back += 1
                break
    assert back <= 20


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_bet_is_fair_where_the_arms_are_equal_and_a_loss_where_the_canary_is_better(share: float) -> None:
    for ratio, _ in RATIOS:
        for real, fair in ((share, True), (share / 2, False)):
            win, lose = tilted(share, ratio) / share, (1 - tilted(share, ratio)) / (1 - share)
            mean = real * win + (1 - real) * lose
            assert math.isclose(mean, 1) if fair else mean < 1


def test_the_parts_of_the_capital_make_one() -> None:
    assert math.isclose(sum(part for _, part in RATIOS), 1)
    assert math.isclose(Worse().value, 1)
    assert NotWorse(2.0, 0.02).value == 1


def test_a_run_counts_once_for_each_sign() -> None:
    canary = Canary(Plan("c", 0.1))
    for _ in range(50):
        canary.see(Seen("one", True, error=True))
    assert canary.standing().counts["error"] == (1, 0)
    assert canary.state is State.RUNNING
    assert canary.standing().calls == (50, 0)


def test_a_decision_is_for_good_and_carries_its_evidence() -> None:
    canary, _ = watch(1, 0.5, 0.02, 5000)
    decision = canary.decision
    assert decision is not None
    assert decision.state is State.ROLLED_BACK
    assert decision.evidence["all"] >= 100
    assert decision.reason.startswith("error")
    assert decision.counts["error"][0] > 0
    for run in range(2000):
        assert canary.see(Seen(f"later{run}", run % 10 == 0)) is None
    assert canary.decision is decision


def test_a_good_canary_is_promoted_and_a_bad_one_is_not() -> None:
    good = [watch(seed, 0.005, 0.005, 30_000, least_runs=200)[0].state for seed in range(20)]
    assert good.count(State.PROMOTED) >= 18
    bad = [watch(seed, 0.06, 0.02, 30_000, least_runs=200)[0].state for seed in range(20)]
    assert bad.count(State.PROMOTED) <= 1


def test_it_waits_for_enough_runs_before_it_promotes() -> None:
    canary, calls = watch(3, 0.0, 0.0, 30_000, least_runs=700)
    assert canary.state is State.PROMOTED
    assert calls == 700


@pytest.mark.parametrize("sign", SIGNS)
def test_each_sign_alone_can_end_it(sign: str) -> None:
    canary = Canary(Plan("c", 0.1, least_runs=10**9))
    for run in range(20_000):
        of_canary = canary_arm("c", f"r{run}", 0.1)
        bad = of_canary and run % 2 == 0
        seen = Seen(
            f"r{run}",
            of_canary,
            error=bad and sign == "error",
            latency=(9 if bad and sign == "slow" else 1) * 10**9,
            cost=(9 if bad and sign == "dear" else 1) * 10**6,
            tool_error=bad and sign == "tool_error",
        )
        decision = canary.see(seen)
        if sign == "outcome" and bad:
            decision = decision or canary.report(f"r{run}", failed=True)
        if decision:
            break
    assert canary.state is State.ROLLED_BACK
    assert canary.decision is not None
    assert canary.decision.reason.startswith(sign)


def test_what_is_slow_is_what_few_calls_of_both_arms_were() -> None:
    usual = Usual(0.95)
    for value in range(LEAST - 1):
        usual.take(value)
    assert not usual.exceeds(10**9)  # too few to say
    usual.take(50)
    assert usual.exceeds(96)
    assert not usual.exceeds(90)
    for value in range(2000):
        usual.take(1000 + value % 100)
    assert not usual.exceeds(1000)  # what was usual before is forgotten


def test_an_outcome_of_a_run_that_was_not_seen_says_nothing() -> None:
    canary = Canary(Plan("c", 0.1))
    assert canary.report("unknown", failed=True) is None
    canary.see(Seen("known", True))
    canary.report("known", failed=False)
    assert canary.standing().counts["outcome"] == (0, 0)
    canary.report("known", failed=True)
    assert canary.standing().counts["outcome"] == (1, 0)


def test_a_run_keeps_its_arm_and_shares_hold() -> None:
    arms = [canary_arm("c", f"run-{n}", 0.2) for n in range(20_000)]
    assert abs(sum(arms) / 20_000 - 0.2) < 4 * math.sqrt(0.2 * 0.8 / 20_000)
    assert arms == [canary_arm("c", f"run-{n}", 0.2) for n in range(20_000)]
    other = [canary_arm("d", f"run-{n}", 0.2) for n in range(20_000)]
    both = sum(a and b for a, b in zip(arms, other, strict=True)) / 20_000
    assert abs(both - 0.04) < 0.01  # another canary draws anew
