"""Gauges of budgets and keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.schema import Telemetry
from gateway.errors import BudgetsUnavailable
from gateway.key import Key
from gateway.recorder.budget_gauges import KEPT_SECONDS, BudgetGauges, gauges_of, keys, workers
from gateway.recorder.metrics import MetricsProjection
from gateway.spend import NANO_USD, Rule, Standing, Unit

LIMIT, SPENT, RESERVED, RATIO = (
    f"tollgate_budget_{name}" for name in ("limit_usd", "spent_usd", "reserved_usd", "remaining_ratio")
)


def standing(
    account: str, limit: int = 10, spent: int = 0, reserved: int = 0, since: int = 0, until: int = 0
) -> Standing:
    amounts = (limit * NANO_USD, spent * NANO_USD, reserved * NANO_USD)
    return Standing(account, Rule.TOTAL, Unit.USD, *amounts, 0, since, until)


def test_a_budget_is_one_series_through_all_its_windows() -> None:
    found = gauges_of([
        standing("team:a|usd|day|2026-11-27", 10, 4, 5, since=2),
        standing("team:a|usd|day|2026-11-26", 10, 9, since=1),
        standing("team:a|usd|day|rolling", 20, 5),
        standing("key:k/global|usd|life", 5, 9),
    ], 100)  # fmt: skip
    day, rolling, own = (
        ("team", "team:a|usd|day"),
        ("team", "team:a|usd|day|rolling"),
        ("global", "key:k/global|usd|life"),
    )
    assert found[LIMIT] == {day: 10.0, rolling: 20.0, own: 5.0}
    assert found[SPENT] == {day: 4.0, rolling: 5.0, own: 9.0}
    assert found[RESERVED] == {day: 5.0, rolling: 0.0, own: 0.0}
    assert found[RATIO] == {day: 0.6, rolling: 0.75, own: 0.0}  # of what is spent alone


def test_a_budget_says_when_its_window_began_and_ends_where_it_has_one() -> None:
    found = gauges_of([
        standing("team:a|usd|hour|13", spent=9, since=7_200 * 10**9, until=10_800 * 10**9),
        standing("team:a|usd|hour|12", since=3_600 * 10**9, until=7_200 * 10**9),
        standing("team:a|usd|day|rolling"),
        standing("team:b|usd|hour|13", since=7_200 * 10**9, until=10_800 * 10**9),
    ], 2)  # fmt: skip
    assert found["tollgate_budget_window_start_timestamp_seconds"] == {("team", "team:a|usd|hour"): 7200.0}
    assert found["tollgate_budget_window_end_timestamp_seconds"] == {("team", "team:a|usd|hour"): 10_800.0}


def test_a_budget_of_which_three_percent_are_spent_is_not_nearly_over() -> None:
    """Whatever is reserved: an alert at 99 % that comes at $0.40 of $15 (LiteLLM #5770)."""
    assert gauges_of([standing("global|usd|day|x", 100, 3, 97)], 10)[RATIO] == {("global", "global|usd|day"): 0.97}


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 99), st.integers(0, 99)), max_size=30), st.integers(1, 5))
def test_series_are_bounded_and_sums_stay_right(amounts: list[tuple[int, int, int]], limit: int) -> None:
    standings = [standing(f"agent:{n}|usd|life", *counts) for n, counts in enumerate(amounts)]
    found = gauges_of(standings, limit)
    for name, place in ((LIMIT, 0), (SPENT, 1), (RESERVED, 2)):
        series = found[name]
        assert isinstance(series, dict)
        assert len(series) == min(len(amounts), limit + 1)
        assert sum(series.values()) == sum(counts[place] for counts in amounts)
    ratios = found[RATIO]
    assert isinstance(ratios, dict)
    assert all(0 <= ratio <= 1 for ratio in ratios.values())
    shown = {labels for labels in ratios if labels[0] != "__other__"}
    own = {labels: ratio for labels, ratio in gauges_of(standings, 1000)[RATIO].items()}  # type: ignore[union-attr]
    hidden = [ratio for labels, ratio in own.items() if labels not in shown]
    assert max((own[labels] for labels in shown), default=0) <= min(hidden, default=1)  # the fullest are shown


def test_the_store_is_asked_now_and_then_and_may_be_away() -> None:
    now, asked = [0.0], []
    answers: list[object] = [[standing("global|usd|life", 10, 1)], BudgetsUnavailable("away"), []]

    def in_money(limit: int) -> list[Standing]:
        asked.append(limit)
        answer = answers[len(asked) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[return-value]

    gauges = BudgetGauges(in_money, lambda: now[0])
    assert gauges.read(10)[SPENT] == {("global", "global|usd|life"): 1.0}
    now[0] = KEPT_SECONDS
    assert gauges.read(10)[SPENT] == {("global", "global|usd|life"): 1.0}
    assert len(asked) == 1
    now[0] += 0.1
    assert gauges.read(10)[SPENT] == {}
    assert len(asked) == 2


def test_workers_tell_of_the_store_together() -> None:
    one, other = {"budget_store_available": 1.0, "budget_settles_waiting": 2.0}, {"budget_store_available": 0.0}
    assert workers([one, other, {"inflight_requests": 1.0}]) == {
        "tollgate_budget_store_available": 0.0,
        "tollgate_budget_settles_waiting": 2.0,
    }
    assert workers([{"inflight_requests": 1.0}]) == {}


def test_keys_are_counted_by_state() -> None:
    listed = [Key("a"), Key("b", expires_at=5), Key("c", expires_at=6), Key("d", expires_at=1, disabled_at=1)]
    counts = {("active",): 2.0, ("expired",): 1.0, ("disabled",): 1.0}
    assert keys(lambda: listed, 5) == {"tollgate_keys": counts}

    def broken() -> list[Key]:
        raise OSError("no such file")

    assert keys(broken, 5) == {}


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text; version=1.0.0"])
def test_gauges_with_labels_are_exposed(accept: str) -> None:
    found = gauges_of([standing('team:a"b|usd|day|x', 10, 4, 5)], 10)
    body, _ = MetricsProjection(Telemetry(), lambda: found, lambda: 0.0).render(accept)
    lines = body.decode().splitlines()
    assert 'tollgate_budget_spent_usd{budget="team:a\\"b|usd|day",scope="team"} 4.0' in lines
    assert 'tollgate_budget_remaining_ratio{budget="team:a\\"b|usd|day",scope="team"} 0.6' in lines
