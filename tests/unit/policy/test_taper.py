from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from gateway.config.schema import TaperStep
from gateway.policy.taper import EFFORTS, Taper, reached, taper
from gateway.spend import NANO_USD, Level

TEN = 10 * NANO_USD
STEPS = (
    TaperStep(at=0.5, effort="medium"),
    TaperStep(at=0.8, effort="low", model="cheap"),
    TaperStep(at=0.95, max_tokens=1024),
    TaperStep(at=1.0, stop=True),
)


def level(spent: int, limit: int = TEN, reserved: int = 0, account: str = "a") -> Level:
    return Level(account, limit, spent, reserved)


def at(spent: int) -> Taper | None:
    return taper([level(spent)], [STEPS])


def test_each_step_applies_from_exactly_its_share_on():
    assert at(5 * NANO_USD - 1) is None
    assert at(5 * NANO_USD) == Taper("medium", share=0.5, account="a")
    assert at(8 * NANO_USD - 1) == at(5 * NANO_USD)
    assert at(8 * NANO_USD) == Taper("low", "cheap", share=0.8, account="a")
    assert at(9_500_000_000 - 1) == at(8 * NANO_USD)
    assert at(9_500_000_000) == Taper("low", "cheap", 1024, share=0.95, account="a")
    assert at(TEN - 1) == at(9_500_000_000)
    assert at(TEN) == Taper("low", "cheap", 1024, stop=True, share=1.0, account="a")


def test_what_is_reserved_tapers_nothing():
    """A rule "budget used > 99 %" that fired after $0.40 of $15."""
    assert taper([level(NANO_USD * 4 // 10, 15 * NANO_USD, reserved=14 * NANO_USD)], [STEPS]) is None


def test_a_share_is_the_number_that_is_written():
    assert reached(level(3, 10), 0.3)
    assert not reached(level(2_999_999_999, TEN), 0.3)
    assert reached(level(7, 10), 0.7)
    assert reached(level(0, 10), 0.0)


def test_over_several_budgets_the_tightest_of_each_holds():
    team = (TaperStep(at=0.5, effort="minimal", model="small", max_tokens=4096),)
    run = (TaperStep(at=0.8, effort="low", model="cheap", max_tokens=8192),)
    levels = [level(9 * NANO_USD, account="team:x"), level(9 * NANO_USD, account="run:y")]
    assert taper(levels, [team, run]) == Taper("minimal", "cheap", 4096, False, 0.8, "run:y")


def test_of_two_models_at_one_share_the_innermost_scope_decides():
    steps = [(TaperStep(at=0.5, model=name),) for name in ("of-team", "of-run")]
    found = taper([level(TEN, account="team:x"), level(TEN, account="run:y")], steps)
    assert found is not None
    assert found.model == "of-run"


def test_without_steps_nothing_applies():
    assert taper([level(TEN)], [()]) is None
    assert taper([], []) is None


steps = st.builds(
    TaperStep,
    at=st.integers(0, 100).map(lambda hundredths: hundredths / 100),
    effort=st.sampled_from([None, *EFFORTS]),
    model=st.sampled_from([None, "a", "b"]),
    max_tokens=st.none() | st.integers(1, 9999),
    stop=st.booleans(),
)


@given(st.lists(steps, max_size=5), st.integers(1, 10**15), st.integers(0, 2 * 10**15))
def test_it_never_loosens_as_more_is_spent(configured: list[TaperStep], limit: int, spent: int):
    now, later = (taper([level(s, limit)], [configured]) for s in (spent, spent + limit // 7 + 1))
    applied = [step for step in configured if Fraction(spent, limit) >= Fraction(repr(step.at))]
    assert (now is None) == (not applied)
    if now is not None:
        assert later is not None
        assert now.stop == any(step.stop for step in applied)
        assert later.stop >= now.stop
        assert (later.max_tokens or 0) <= (now.max_tokens or 10**9)
        assert later.share >= now.share
        if now.effort:
            assert EFFORTS.index(later.effort) <= EFFORTS.index(now.effort)
