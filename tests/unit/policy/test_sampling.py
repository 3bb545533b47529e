from __future__ import annotations

import random
from dataclasses import dataclass

import msgspec
import pytest

from gateway.policy.sampling import Bucket, Decision, Probability, Sampler, Seen

SECOND = 10**9
T0 = 1_790_000_000 * SECOND
PLAIN = Seen("0" * 16 + "7fffffffffffffff", T0, SECOND, 10**9, False, False, "gpt-4o", "a", False, True)


def seen(**changes: object) -> Seen:
    return msgspec.structs.replace(PLAIN, **changes)


def sampler(per_second: float = 10, slow: float = 30, usd: float = 1) -> Sampler:
    """One that has seen the plain model and agent already."""
    made = Sampler(per_second, slow, usd)
    made.decide(PLAIN)
    return made


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"failed": True}, "error"),
        ({"duration_ns": 30 * SECOND}, "slow"),
        ({"cost": 10**12}, "cost"),
        ({"retried": True}, "retry"),
        ({"model": "new"}, "first"),
        ({"agent": "new"}, "first"),
        ({"parent": True}, "parent"),
    ],
)
def test_always_kept(changes: dict[str, object], reason: str) -> None:
    assert sampler(per_second=0).decide(seen(**changes)) == Decision(True, reason, 1.0)


def test_the_first_of_a_model_is_kept_once() -> None:
    made = sampler(per_second=0)
    assert made.decide(seen(model="m")).keep
    assert not made.decide(seen(model="m")).keep


def test_without_a_budget_nothing_plain_is_kept() -> None:
    assert sampler(per_second=0).decide(PLAIN) == Decision(False, "budget", 0.0)


def test_nothing_is_expensive_that_costs_nothing() -> None:
    made = sampler(per_second=0, usd=0)
    assert not made.decide(seen(cost=0)).keep
    assert made.decide(seen(cost=1)).reason == "cost"


@pytest.mark.parametrize(
    ("changes", "keep"), [({}, False), ({"model": "new"}, False), ({"failed": True}, True), ({"retried": True}, True)]
)
def test_what_the_caller_did_not_sample(changes: dict[str, object], keep: bool) -> None:
    assert sampler().decide(seen(parent=True, sampled=False, **changes)).keep is keep


def test_slow_traffic_is_kept_whole() -> None:
    made, chance = sampler(per_second=10), random.Random(1)
    kept = [made.decide(seen(trace_id=f"{chance.getrandbits(128):032x}", now=T0 + n * SECOND // 5)) for n in range(100)]
    assert all(decision == Decision(True, "budget", 1.0) for decision in kept)


@dataclass
class Tally:
    kept: int = 0
    weight: float = 0.0


def test_fast_traffic_is_thinned_to_the_budget_and_the_weights_add_up() -> None:
    made, chance, seconds, rate = sampler(per_second=50), random.Random(2), 40, 2000
    tally = Tally()
    for n in range(seconds * rate):
        decision = made.decide(seen(trace_id=f"{chance.getrandbits(128):032x}", now=T0 + n * SECOND // rate))
        if decision.keep:
            tally.kept += 1
            tally.weight += 1 / decision.probability
    assert 0.7 * 50 * seconds < tally.kept < 1.3 * 50 * seconds
    assert 0.85 < tally.weight / (seconds * rate) < 1.15


def test_a_sudden_storm_stays_within_the_budget() -> None:
    made, chance = sampler(per_second=10), random.Random(3)
    for n in range(30):  # a quiet half minute: everything is kept
        made.decide(seen(trace_id=f"{chance.getrandbits(128):032x}", now=T0 + n * SECOND))
    storm = T0 + 31 * SECOND
    kept = sum(
        made.decide(seen(trace_id=f"{chance.getrandbits(128):032x}", now=storm + n)).keep for n in range(100_000)
    )
    assert kept <= 110


def test_calls_of_one_trace_stand_or_fall_together() -> None:
    made, chance = sampler(per_second=20), random.Random(4)
    rate = 1000
    for n in range(3 * rate):  # until the probability has settled
        made.decide(seen(trace_id=f"{chance.getrandbits(128):032x}", now=T0 + n * SECOND // rate))
    low, high = "f" * 18 + "0" * 14, "0" * 18 + "f" * 14
    now = T0 + 3 * SECOND
    assert all(made.decide(seen(trace_id=low, now=now + n)).keep for n in range(10))
    assert not any(made.decide(seen(trace_id=high, now=now + n)).keep for n in range(10))


def test_an_id_that_is_none_is_kept_only_while_everything_is() -> None:
    made = sampler(per_second=10)
    assert made.decide(seen(trace_id="not hex")).keep
    made._share.value = 0.5
    assert not made.decide(seen(trace_id="")).keep


def test_a_storm_of_errors_meets_a_ceiling_and_says_so() -> None:
    made = sampler(per_second=10)
    decisions = [made.decide(seen(failed=True)) for _ in range(5000)]
    assert sum(decision.keep for decision in decisions) == 999  # 100/s for ten seconds, the first call took one
    assert decisions[-1] == Decision(False, "ceiling", 0.0, dropped=True)
    assert made.decide(seen(failed=True, now=T0 + SECOND)).keep


def test_names_are_remembered_up_to_a_limit() -> None:
    made = Sampler(0, 30, 1)
    for n in range(10_000):
        made.decide(seen(model=f"m{n}", now=T0 + n * SECOND))
    assert len(made._models) == 4096
    assert not made.decide(seen(model="one more", now=T0 + 10**6 * SECOND)).keep


def test_time_that_goes_back_gives_no_tokens() -> None:
    bucket = Bucket(rate=1, burst=1)
    assert bucket.take(T0)
    assert not bucket.take(T0 - 100 * SECOND)
    assert not bucket.take(T0)
    assert bucket.take(T0 + SECOND)


def test_probability_recovers_when_traffic_stops() -> None:
    share = Probability(10)
    for n in range(5000):
        share.next(T0 + n * SECOND // 1000)
    assert share.value == pytest.approx(0.01, rel=0.1)
    share.next(T0 + 3600 * SECOND)
    assert share.value == 1.0
