"""Running totals: whatever is sent how often and in which order, what stands in the end is what was spent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.spend import Demand, Rule, Unit
from gateway.stores.spent_parts import FIRST, MOST, Row, SpentParts, slot_at

MINUTE = 60 * 10**9
NOW = 1_795_384_800 * 10**6


def total(account: str, until: int = 0) -> Demand:
    return Demand(account, Rule.TOTAL, Unit.USD, 0, 0, until=until)


def standing(rows: list[Row]) -> dict[str, int]:
    """What a store makes of rows: of each part the largest total."""
    parts: dict[tuple[str, str, int], int] = {}
    for account, part, slot, amount, _, _ in rows:
        parts[account, part, slot] = max(amount, parts.get((account, part, slot), 0))
    sums: dict[str, int] = {}
    for (account, _, _), amount in parts.items():
        sums[account] = sums.get(account, 0) + amount
    return sums


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 10**15)), max_size=60),
    st.randoms(use_true_random=False),
    st.integers(2, 8),
)
def test_the_sum_of_the_largest_is_what_was_spent(spent, random, limit) -> None:
    parts = SpentParts("w", limit)
    rows = [parts.add(total(account), amount, NOW) for account, amount in spent]
    expected: dict[str, int] = {}
    for account, amount in spent:
        expected[account] = expected.get(account, 0) + amount
    sent = rows + random.choices(rows, k=20) if rows else []
    random.shuffle(sent)
    assert standing(sent) == expected
    assert standing(list(parts.unsent.values())) == expected
    assert standing([*parts.unwritten.values(), *parts.all()]) == expected


def test_only_what_is_confirmed_as_it_is_now_is_not_sent_again() -> None:
    parts = SpentParts("w")
    old = parts.add(total("a"), 5, NOW)
    new = parts.add(total("a"), 6, NOW)
    parts.confirm([old])
    assert list(parts.unsent.values()) == [new]
    parts.confirm([new])
    assert not parts.unsent
    assert parts.all() == [new]


def test_windows_that_are_over_go_first_and_only_then_a_new_name_begins() -> None:
    parts = SpentParts("w", 10)
    for n in range(10):
        parts.add(total(f"old{n}", until=NOW * 1000 - 1), 1, NOW)
    parts.add(total("new"), 1, NOW)
    assert parts.part == "w"
    assert [row[0] for row in parts.all() if row[0] == "new"] == ["new"]
    for n in range(12):
        parts.add(total(f"run:{n}"), 1, NOW)
    assert parts.part == "w.1"
    assert len(parts.unwritten) == 23  # nothing is lost for those who still have to write it


def test_rolling_accounts_are_kept_by_slot() -> None:
    parts = SpentParts("w")
    demand = Demand("r", Rule.ROLLING, Unit.USD, 0, 0, period=MINUTE)
    first, second = parts.add(demand, 5, NOW), parts.add(demand, 6, NOW + 1_000_000)
    assert (first[3], second[3]) == (5, 6)
    assert second[2] == first[2] + 1 == slot_at(NOW, MINUTE) + 1


def test_the_first_time_of_an_account_stays() -> None:
    parts = SpentParts("w")
    age = Demand("run:1|age", Rule.AGE, Unit.SECONDS, 0, 10)
    parts.first(age, NOW)
    parts.first(age, NOW + 5)
    assert parts.all() == [("run:1|age", FIRST, 0, NOW, 0, 0)]
    assert len(parts.unwritten) == 1
    assert not parts.unsent


def test_totals_stay_within_what_redis_can_add_up() -> None:
    parts = SpentParts("w")
    for _ in range(40):
        row = parts.add(total("a"), 2**53, NOW)
    assert row[3] <= MOST
    assert parts.add(total("a"), 2**60, NOW)[3] == MOST
