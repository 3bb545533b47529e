"""The budget book against a slow and obvious one that keeps every event and counts anew each time it is asked."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from gateway.policy.book import MOST_CHARGED, Book
from gateway.policy.book_rules import Account
from gateway.spend import Charge, Demand, Grant, Level, Refusal, Rule, Unit

SECOND = 10**9
MINUTE = 60 * SECOND
T0 = 1_795_384_800 * SECOND
ROLLING_PERIOD = 7 * MINUTE + 13  # not a multiple of sixty
RATE_PERIOD = MINUTE

ACCOUNTS = {
    "day": (Rule.TOTAL, Unit.USD, 0),
    "life": (Rule.TOTAL, Unit.TOKENS, 0),
    "calls": (Rule.TOTAL, Unit.CALLS, 0),
    "rolling": (Rule.ROLLING, Unit.USD, ROLLING_PERIOD),
    "rpm": (Rule.RATE, Unit.CALLS, RATE_PERIOD),
    "tpm": (Rule.RATE, Unit.TOKENS, RATE_PERIOD),
    "busy": (Rule.SLOTS, Unit.CONCURRENCY, 0),
    "age": (Rule.AGE, Unit.SECONDS, 0),
    "depth": (Rule.LEVEL, Unit.DEPTH, 0),
}
START_LIMITS = dict.fromkeys(ACCOUNTS, 100) | {"calls": 12, "rpm": 7, "busy": 3, "age": 1000, "depth": 4}


def demand(name: str, amount: int, limit: int) -> Demand:
    which, unit, period = ACCOUNTS[name]
    return Demand(name, which, unit, amount, limit, period=period)


class Slow:
    """One list of what is held, one of what was booked, and buckets in fractions."""

    def __init__(self) -> None:
        self.now = T0
        self.held: dict[str, tuple[str, str, list[Demand]]] = {}  # op -> owner, state, demands
        self.booked: list[tuple[int, str, int]] = []
        self.buckets: dict[str, Fraction] = {"rpm": Fraction(0), "tpm": Fraction(0)}  # units
        self.limits = dict(START_LIMITS)
        self.first: int | None = None

    def advance(self, ns: int) -> None:
        self.now += ns
        for name in self.buckets:
            self.drain(name, ns)

    def drain(self, name: str, ns: int) -> None:
        self.buckets[name] = max(Fraction(0), self.buckets[name] - Fraction(ns * self.limits[name], RATE_PERIOD))

    def spent(self, name: str) -> int:
        entries = [(at, amount) for at, account, amount in self.booked if account == name]
        if name == "rolling":
            width = -(-ROLLING_PERIOD // 60)
            entries = [(at, amount) for at, amount in entries if at // width >= self.now // width - 60]
        return sum(amount for _, amount in entries)

    def reserved(self, name: str) -> int:
        return sum(
            d.amount
            for _, state, demands in self.held.values()
            for d in demands
            if state == "live" and d.account == name
        )

    def fits(self, d: Demand) -> bool:
        if d.rule is Rule.LEVEL:
            return d.amount <= d.limit
        if d.rule is Rule.AGE:
            return self.first is None or self.now - self.first <= d.limit * SECOND
        if d.rule is Rule.RATE:
            return self.buckets[d.account] + d.amount <= d.limit
        return self.spent(d.account) + self.reserved(d.account) + d.amount <= d.limit

    def reserve(self, op: str, owner: str, demands: list[Demand]) -> int | None:
        """The index of the first demand that does not fit."""
        for d in demands:
            self.limits[d.account] = d.limit
        old = self.held.pop(op, None)
        buckets = dict(self.buckets)
        if old is not None and old[1] == "live":
            for d in old[2]:
                if d.rule is Rule.RATE:
                    self.buckets[d.account] = max(Fraction(0), self.buckets[d.account] - d.amount)
        for n, d in enumerate(demands):
            if not self.fits(d):
                self.buckets = buckets
                if old is not None:
                    self.held[op] = old
                return n
        for d in demands:
            if d.rule is Rule.RATE:
                self.buckets[d.account] += d.amount
            if d.rule is Rule.AGE and self.first is None:
                self.first = self.now
        self.held[op] = (owner, "live", demands)
        return None

    def settle(self, op: str, charge: Charge) -> bool:
        if op not in self.held:
            return False
        _, state, demands = self.held.pop(op)
        for d in demands:
            actual = charge.of(d.unit)
            counted = {"live": d.amount if d.rule is Rule.RATE else 0, "charged": d.amount, "freed": 0}[state]
            more = actual - counted if state != "charged" else max(0, actual - counted)
            self.book(d, more)
        return True

    def book(self, d: Demand, amount: int) -> None:
        if d.rule is Rule.RATE:
            self.buckets[d.account] = max(Fraction(0), self.buckets[d.account] + amount)
        elif d.rule in (Rule.TOTAL, Rule.ROLLING):
            self.booked.append((self.now, d.account, amount))

    def expire(self, owner: str, charge: bool) -> None:
        for op, (whose, state, demands) in list(self.held.items()):
            if whose == owner and state == "live":
                self.held[op] = (whose, "charged" if charge else "freed", demands)
                for d in demands:
                    if charge and d.rule is not Rule.RATE:
                        self.book(d, d.amount)
                    elif not charge and d.rule is Rule.RATE:
                        self.book(d, -d.amount)


class Machine(RuleBasedStateMachine):
    ops = Bundle("ops")
    orderly = False  # limits stay, nobody is charged more than was reserved, nothing is booked by hand

    def __init__(self) -> None:
        super().__init__()
        self.book, self.slow, self.count = Book(), Slow(), 0

    def ask(self, op: str, owner: str, demands: list[Demand]) -> None:
        index = self.slow.reserve(op, owner, demands)
        answer = self.book.reserve(op, demands, owner, self.slow.now)
        if index is None:
            assert isinstance(answer, Grant), answer
            for level, d in zip(answer.levels, demands, strict=True):
                self.check_level(level, d)
            return
        assert isinstance(answer, Refusal), answer
        assert answer.index == index
        failing = []
        for room, d in zip(answer.available, demands, strict=True):
            limits = {Rule.AGE: 0, Rule.LEVEL: 0, Rule.RATE: 0}
            if d.rule not in limits and op not in self.slow.held:
                assert room == max(0, d.limit - self.slow.spent(d.account) - self.slow.reserved(d.account))
            if op not in self.slow.held and not self.slow.fits(d):
                failing.append(d)
        if failing:
            counted = (Rule.TOTAL, Rule.ROLLING, Rule.SLOTS)
            helps = [d.rule in counted and self.slow.spent(d.account) + d.amount <= d.limit for d in failing]
            assert answer.pending == all(helps)

    def check_level(self, level: Level, d: Demand) -> None:
        assert level.limit == d.limit
        if d.rule in (Rule.TOTAL, Rule.ROLLING, Rule.SLOTS):
            assert (level.spent, level.reserved) == (self.slow.spent(d.account), self.slow.reserved(d.account))
        if d.rule is Rule.RATE:
            assert level.spent == -(-self.slow.buckets[d.account] // 1)

    @initialize()
    def begin(self) -> None:
        self.limits = dict(START_LIMITS)

    @rule(
        target=ops,
        names=st.lists(st.sampled_from(sorted(ACCOUNTS)), unique=True, min_size=1, max_size=6),
        amounts=st.lists(st.integers(0, 60), min_size=6, max_size=6),
        owner=st.sampled_from("ab"),
    )
    def reserve(self, names: list[str], amounts: list[int], owner: str) -> str:
        self.count += 1
        op = f"op{self.count}"
        self.ask(op, owner, self.demands(names, amounts))
        return op

    def demands(self, names: list[str], amounts: list[int]) -> list[Demand]:
        small = {"busy": 2, "calls": 3, "rpm": 3, "depth": 6}
        return [demand(n, a % small.get(n, 100), self.limits[n]) for n, a in zip(names, amounts, strict=False)]

    @rule(
        op=ops,
        names=st.lists(st.sampled_from(sorted(ACCOUNTS)), unique=True, min_size=1, max_size=6),
        amounts=st.lists(st.integers(0, 60), min_size=6, max_size=6),
    )
    def replace(self, op: str, names: list[str], amounts: list[int]) -> None:
        self.ask(op, "a", self.demands(names, amounts))

    @rule(op=consumes(ops), share=st.integers(0, 150), again=st.booleans())
    def settle(self, op: str, share: int, again: bool) -> None:
        reserved = {d.unit: d.amount for d in self.slow.held.get(op, ("", "", []))[2]}
        if self.orderly:
            per_account = [d for d in self.slow.held.get(op, ("", "", []))[2]]
            reserved = {d.unit: min(e.amount for e in per_account if e.unit is d.unit) for d in per_account}
            share = min(share, 100)
        charge = Charge(
            usd=reserved.get(Unit.USD, 0) * share // 100,
            tokens=reserved.get(Unit.TOKENS, 0) * share // 100,
            calls=reserved.get(Unit.CALLS, 0) if self.orderly else share % 3,
        )
        for _ in range(1 + again):
            assert self.book.settle(op, charge, self.slow.now) == self.slow.settle(op, charge)

    @rule(owner=st.sampled_from("ab"), charge=st.booleans())
    def expire(self, owner: str, charge: bool) -> None:
        charge = charge or self.orderly  # what was freed and then settled late may be too much: an operator's choice
        self.slow.expire(owner, charge)
        self.book.expire(owner, self.slow.now, charge=charge)

    @rule(micros=st.one_of(st.integers(0, 2_000_000), st.integers(0, 900_000_000)))
    def advance(self, micros: int) -> None:
        self.slow.advance(micros * 1000)

    @invariant()
    def counts_agree(self) -> None:
        for name in ("day", "life", "calls", "rolling", "busy"):
            account = self.book.accounts.get(name, Account(name))
            assert account.reserved == self.slow.reserved(name)
            if name != "rolling":
                assert account.spent == self.slow.spent(name)
        assert set(self.book.holds) == set(self.slow.held)


class Anything(Machine):
    @rule(name=st.sampled_from(["day", "life", "calls", "rolling", "busy", "rpm", "tpm"]), limit=st.integers(1, 200))
    def change_limit(self, name: str, limit: int) -> None:
        self.limits[name] = limit

    @rule(name=st.sampled_from(["day", "life", "rolling"]), delta=st.integers(-50, 50))
    def adjust(self, name: str, delta: int) -> None:
        if name in self.book.accounts:
            self.book.adjust(name, delta, self.slow.now)
            self.slow.booked.append((self.slow.now, name, delta))


class Orderly(Machine):
    orderly = True

    @invariant()
    def never_more_than_the_limit(self) -> None:
        for name in ("day", "life", "calls", "rolling", "busy"):
            account = self.book.accounts.get(name)
            if account is not None:
                assert account.spent + account.reserved <= account.limit

    @invariant()
    def in_no_window_of_the_period_either(self) -> None:
        entries = [(at, amount) for at, name, amount in self.slow.booked if name == "rolling"]
        for end, _ in entries:
            within = sum(amount for at, amount in entries if end - ROLLING_PERIOD < at <= end)
            assert within <= START_LIMITS["rolling"]


TestAnything = Anything.TestCase
TestOrderly = Orderly.TestCase
TestAnything.settings = TestOrderly.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_an_account_named_twice_counts_twice() -> None:
    book = Book()
    twice = [demand("day", 60, 100), demand("day", 60, 100)]
    answer = book.reserve("a", twice, "w", T0)
    assert isinstance(answer, Refusal)
    assert answer.index in (0, 1)
    assert book.accounts["day"].reserved == 0
    assert isinstance(book.reserve("a", [demand("day", 50, 100)] * 2, "w", T0), Grant)
    assert book.accounts["day"].reserved == 100
    assert isinstance(book.reserve("a", twice, "w", T0), Refusal)
    assert book.accounts["day"].reserved == 100


def test_whatever_an_upstream_reports_stays_within_what_a_store_can_keep() -> None:
    book = Book()
    book.reserve("one", [demand("life", 0, 2**62)], "w", T0)
    book.settle("one", Charge(tokens=MOST_CHARGED + 1), T0)
    assert book.accounts["life"].spent == MOST_CHARGED
    for n in range(2000):
        book.reserve(f"op{n}", [demand("day", 0, 2**62)], "w", T0)
        assert book.settle(f"op{n}", Charge(usd=10**40), T0)
    assert MOST_CHARGED < book.accounts["day"].spent <= 2**62
    book.reserve("minus", [demand("life", 1, 2**62)], "w", T0)
    book.settle("minus", Charge(tokens=-5), T0)
    assert book.accounts["life"].spent == MOST_CHARGED


def test_what_has_expired_does_not_do_so_again() -> None:
    book = Book()
    book.reserve("a", [demand("day", 3, 10)], "w", T0)
    assert [book.expire("w", T0, charge=True) for _ in range(2)] == [1, 0]
    assert (book.accounts["day"].spent, book.accounts["day"].reserved) == (3, 0)


def test_a_refusal_leaves_an_old_hold_of_one_bucket_named_twice_as_it_was() -> None:
    book = Book()
    assert isinstance(book.reserve("a", [demand("rpm", 2, 7)] * 2, "w", T0), Grant)
    before = book.accounts["rpm"].level
    assert isinstance(book.reserve("a", [demand("rpm", 4, 7)] * 2, "w", T0), Refusal)
    assert book.accounts["rpm"].level == before > 0


def test_a_hold_that_is_replaced_has_its_row_still() -> None:
    book = Book()
    book.reserve("a", [demand("day", 1, 10)], "w", T0)
    book.holds["a"].stored = True
    book.reserve("a", [demand("day", 2, 10)], "w", T0)
    assert book.holds["a"].stored


def test_an_age_ends_behind_its_last_nanosecond_and_a_full_bucket_can_be_waited_for() -> None:
    book = Book()
    book.reserve("a", [demand("age", 0, 1000)], "w", T0)
    assert isinstance(book.reserve("b", [demand("age", 0, 1000)], "w", T0 + 1000 * SECOND), Grant)
    assert isinstance(book.reserve("c", [demand("age", 0, 1000)], "w", T0 + 1000 * SECOND + 1), Refusal)
    book.reserve("d", [demand("rpm", 1, 7)], "w", T0)
    whole = book.reserve("e", [demand("rpm", 7, 7)], "w", T0)
    assert isinstance(whole, Refusal)
    assert 0 < whole.retry_after <= MINUTE // 7 + 1000


def test_what_is_settled_by_an_earlier_clock_is_booked_no_earlier_than_what_is_known() -> None:
    book = Book()
    for op, at in (("a", T0 + 3 * MINUTE), ("b", T0)):
        book.reserve(op, [demand("rolling", 5, 90)], "w", at)
        book.settle(op, Charge(usd=5), at)
    slots = book.accounts["rolling"].slots
    assert slots is not None
    assert list(slots.values()) == [10]


def test_only_what_changed_is_to_be_written() -> None:
    book = Book()
    book.reserve("a", [demand("day", 1, 10), demand("depth", 1, 4)], "w", T0)
    assert (set(book.touched), set(book.changed)) == ({"day"}, {"a"})
    book.touched.clear()
    book.changed.clear()
    book.reserve("b", [demand("life", 1, 10), demand("day", 11, 10)], "w", T0)
    assert (set(book.touched), set(book.changed)) == (set(), set())
    book.settle("a", Charge(), T0)
    assert (set(book.touched), book.changed) == ({"day"}, {"a": None})


@pytest.mark.parametrize("which", [Rule.SLOTS, Rule.AGE])
def test_what_counts_no_amounts_cannot_be_adjusted(which: Rule) -> None:
    book = Book()
    book.reserve("a", [Demand("x", which, Unit.CONCURRENCY, 1, 5)], "w", T0)
    with pytest.raises(ValueError, match="under way"):
        book.adjust("x", 1, T0)


def test_the_clock_of_an_account_does_not_go_back() -> None:
    book = Book()
    book.reserve("a", [demand("rpm", 3, 3)], "w", T0)
    assert isinstance(book.reserve("b", [demand("rpm", 1, 3)], "w", T0 - MINUTE), Refusal)
    assert isinstance(book.reserve("b", [demand("rpm", 1, 3)], "w", T0 + MINUTE // 3), Grant)


def test_the_wait_of_a_rate_is_exact_to_the_microsecond() -> None:
    book = Book()
    book.reserve("a", [demand("rpm", 7, 7)], "w", T0)
    answer = book.reserve("b", [demand("rpm", 1, 7)], "w", T0)
    assert isinstance(answer, Refusal)
    early = book.reserve("b", [demand("rpm", 1, 7)], "w", T0 + answer.retry_after - 1000)
    assert isinstance(early, Refusal)
    assert isinstance(book.reserve("b", [demand("rpm", 1, 7)], "w", T0 + answer.retry_after), Grant)


def test_the_wait_of_a_rolling_window_is_exact() -> None:
    book = Book()
    for n, at in enumerate((T0, T0 + 2 * MINUTE, T0 + 4 * MINUTE)):
        book.reserve(f"op{n}", [demand("rolling", 30, 90)], "w", at)
        book.settle(f"op{n}", Charge(usd=30), at)
    now = T0 + 5 * MINUTE
    for amount, waited in ((30, T0), (60, T0 + 2 * MINUTE), (90, T0 + 4 * MINUTE)):
        answer = book.reserve("more", [demand("rolling", amount, 90)], "w", now)
        assert isinstance(answer, Refusal)
        end = now + answer.retry_after
        assert waited + ROLLING_PERIOD <= end <= waited + ROLLING_PERIOD * 61 // 60 + 60
    first = book.reserve("more", [demand("rolling", 30, 90)], "w", now)
    assert isinstance(first, Refusal)
    assert isinstance(book.reserve("more", [demand("rolling", 30, 90)], "w", now + first.retry_after - 1), Refusal)
    assert isinstance(book.reserve("more", [demand("rolling", 30, 90)], "w", now + first.retry_after), Grant)


def test_an_account_whose_rule_changes_keeps_what_is_spent() -> None:
    book = Book()
    book.reserve("a", [Demand("x", Rule.TOTAL, Unit.USD, 40, 100)], "w", T0)
    book.settle("a", Charge(usd=40), T0)
    rolling = Demand("x", Rule.ROLLING, Unit.USD, 61, 100, period=MINUTE)
    assert isinstance(book.reserve("b", [rolling], "w", T0 + 1), Refusal)
    assert isinstance(book.reserve("b", [rolling], "w", T0 + 2 * MINUTE), Grant)
