"""What every store of budgets promises, whichever it is. A store's tests subclass `BudgetsContract` and give a `kit`.

    class TestSqlite(BudgetsContract):
        @pytest.fixture
        async def kit(self, tmp_path): ...        # an object with the methods of `Kit`, over empty state

All is asked through `ports.Budgets` and the kit, so that nothing here knows how a store keeps its accounts.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from gateway.ports import Budgets
from gateway.spend import Charge, Demand, Grant, Level, Refusal, Rule, Unit

SECOND = 10**9
EASE = 5_000_000  # ns that a clock which cannot be stopped may have moved on; a store may count in microseconds


class Kit(Protocol):
    async def worker(self, on_dead: str = "charge") -> Budgets:
        """One more worker on the same state; `on_dead`: "charge" or "free"."""
        ...

    async def applied(self, worker: Budgets) -> None:
        """Wait until all settles given to this worker are in the store."""
        ...

    async def abandon(self, worker: Budgets) -> None:
        """From now on this worker does not renew its lease (it hangs); what it is told later still arrives."""
        ...

    async def expire(self, survivor: Budgets) -> None:
        """Let the leases of abandoned workers pass; `survivor` renews its own and does the upkeep."""
        ...

    async def level(self, account: str) -> Level | None:
        """How an account stands now, asked from outside of the workers; None if it is unknown."""
        ...

    async def adjust(self, worker: Budgets, id: str, account: str, delta: int) -> None:
        """A person books `delta` by hand; the same id again books nothing."""
        ...

    async def advance(self, seconds: float) -> None:
        """Move the store's clock on, or sleep."""
        ...

    def now(self) -> int:
        """The store's clock, ns since the epoch."""
        ...


def total(account: str, amount: int, limit: int, unit: Unit = Unit.USD, **rest: Any) -> Demand:
    return Demand(account, Rule.TOTAL, unit, amount, limit, **rest)


def rate(
    account: str, amount: int, limit: int, unit: Unit = Unit.CALLS, period: int = SECOND, burst: int = 0
) -> Demand:
    return Demand(account, Rule.RATE, unit, amount, limit, period=period, burst=burst)


async def granted(store: Budgets, op: str, *demands: Demand) -> Grant:
    answer = await store.reserve(op, demands)
    assert isinstance(answer, Grant), answer
    assert answer.op == op
    assert [level.account for level in answer.levels] == [demand.account for demand in demands]
    return answer


async def refused(store: Budgets, op: str, *demands: Demand) -> Refusal:
    answer = await store.reserve(op, demands)
    assert isinstance(answer, Refusal), answer
    assert answer.op == op
    assert answer.level.account == demands[answer.index].account
    assert len(answer.available) == len(demands)
    assert min(answer.available) >= 0
    return answer


async def stands(kit: Kit, account: str) -> tuple[int, int]:
    """Spent and reserved; an account nobody has heard of has neither."""
    level = await kit.level(account)
    return (level.spent, level.reserved) if level else (0, 0)


class BudgetsContract:
    # -- totals ---------------------------------------------------------------------------------------------------

    async def test_a_grant_tells_how_each_account_stands_with_it(self, kit: Kit) -> None:
        store = await kit.worker()
        until = kit.now() + 3600 * SECOND
        grant = await granted(store, "a", total("x", 30, 100, since=1, until=until), total("y", 7, 10, Unit.TOKENS))
        assert grant.levels[0] == Level("x", 100, 0, 30, until)
        assert grant.levels[1] == Level("y", 10, 0, 7, 0)
        assert abs(grant.at - kit.now()) < SECOND
        assert (await granted(store, "b", total("x", 70, 100))).levels[0].reserved == 100

    async def test_a_refusal_reserves_nothing_anywhere(self, kit: Kit) -> None:
        store = await kit.worker()
        await granted(store, "a", total("x", 60, 100), total("y", 60, 100), total("z", 60, 100))
        answer = await refused(store, "b", total("x", 40, 100), total("y", 41, 100), total("z", 99, 100))
        assert answer.index == 1
        assert answer.level == Level("y", 100, 0, 60)
        assert list(answer.available) == [40, 40, 40]
        for account in "xyz":
            assert await stands(kit, account) == (0, 60)

    async def test_a_demand_of_each_kind_is_undone_when_the_last_one_fails(self, kit: Kit) -> None:
        store = await kit.worker()
        demands = [
            total("t", 1, 10),
            Demand("rolling", Rule.ROLLING, Unit.USD, 1, 10, period=60 * SECOND),
            rate("rate", 1, 1, period=3600 * SECOND),
            Demand("slots", Rule.SLOTS, Unit.CONCURRENCY, 1, 1),
            Demand("age", Rule.AGE, Unit.SECONDS, 0, 1),
            Demand("depth", Rule.LEVEL, Unit.DEPTH, 1, 1),
        ]
        for n in range(3):
            assert (await refused(store, f"no{n}", *demands, total("last", 2, 1))).index == 6
        await kit.advance(1.5)  # nothing was granted yet: the age does not count
        await granted(store, "yes", *demands)

    async def test_what_is_settled_is_spent_and_the_rest_is_free_again(self, kit: Kit) -> None:
        store = await kit.worker()
        await granted(store, "a", total("x", 90, 100), total("t", 500, 1000, Unit.TOKENS), total("c", 1, 9, Unit.CALLS))
        await refused(store, "b", total("x", 20, 100))
        store.settle("a", Charge(usd=55, tokens=321))
        await kit.applied(store)
        assert [await stands(kit, name) for name in "xtc"] == [(55, 0), (321, 0), (1, 0)]
        assert (await granted(store, "b", total("x", 45, 100))).levels[0] == Level("x", 100, 55, 45)

    async def test_a_settle_counts_in_the_next_reserve_of_its_worker(self, kit: Kit) -> None:
        store = await kit.worker()
        for n in range(20):
            await granted(store, f"op{n}", total("x", 81, 100))
            store.settle(f"op{n}", Charge(usd=1))
        await refused(store, "more", total("x", 81, 100))

    async def test_settled_once_whatever_is_called_how_often(self, kit: Kit) -> None:
        store = await kit.worker()
        await granted(store, "a", total("x", 50, 100))
        for amount in (10, 10, 40):
            store.settle("a", Charge(usd=amount))
        await kit.applied(store)
        store.settle("a", Charge(usd=40))
        store.settle("never heard of", Charge(usd=40))
        await kit.applied(store)
        assert await stands(kit, "x") == (10, 0)

    async def test_every_unit_has_its_own_charge(self, kit: Kit) -> None:
        store = await kit.worker()
        charge = Charge(usd=1, tokens=2, calls=3, tools=4, steps=5)
        units = [Unit.USD, Unit.TOKENS, Unit.CALLS, Unit.TOOLS, Unit.STEPS]
        await granted(store, "a", *(total(unit.value, 9, 9, unit) for unit in units))
        store.settle("a", charge)
        await kit.applied(store)
        assert [await stands(kit, unit.value) for unit in units] == [(n, 0) for n in (1, 2, 3, 4, 5)]

    async def test_debt_is_carried_and_lets_nothing_through(self, kit: Kit) -> None:
        store = await kit.worker()
        await granted(store, "a", total("x", 90, 100))
        store.settle("a", Charge(usd=150))
        answer = await refused(store, "b", total("x", 0, 100))
        assert (answer.level.spent, answer.level.reserved, list(answer.available)) == (150, 0, [0])
        await refused(store, "c", total("x", 60, 200))
        await granted(store, "d", total("x", 50, 200))

    async def test_a_changed_limit_holds_at_once_and_forgets_nothing(self, kit: Kit) -> None:
        store = await kit.worker()
        await granted(store, "a", total("x", 60, 100))
        store.settle("a", Charge(usd=60))
        answer = await refused(store, "b", total("x", 1, 50))
        assert answer.level == Level("x", 50, 60, 0)
        assert (await granted(store, "b", total("x", 40, 100))).levels[0] == Level("x", 100, 60, 40)

    async def test_large_amounts_are_exact(self, kit: Kit) -> None:
        store = await kit.worker()
        limit = 9_000_000 * 10**9
        await granted(store, "a", total("x", limit - 1, limit))
        assert list((await refused(store, "b", total("x", 2, limit))).available) == [1]
        store.settle("a", Charge(usd=limit - 3))
        await granted(store, "b", total("x", 3, limit))
        await refused(store, "c", total("x", 1, limit))
        assert await stands(kit, "x") == (limit - 3, 3)

    async def test_the_same_operation_again_replaces_its_hold(self, kit: Kit) -> None:
        store = await kit.worker()
        await granted(store, "a", total("x", 60, 100), total("old", 5, 10))
        assert (await granted(store, "a", total("x", 90, 100), total("new", 5, 10))).levels[0] == Level("x", 100, 0, 90)
        assert await stands(kit, "old") == (0, 0)
        answer = await refused(store, "a", total("x", 101, 100))
        assert list(answer.available) == [100]
        assert await stands(kit, "x") == (0, 90)  # a refused replacement changes nothing
        store.settle("a", Charge(usd=7))
        await kit.applied(store)
        assert [await stands(kit, name) for name in ("x", "old", "new")] == [(7, 0), (0, 0), (7, 0)]

    # -- when it may be tried again -------------------------------------------------------------------------------

    async def test_a_window_says_when_it_ends_and_a_life_never_does(self, kit: Kit) -> None:
        store = await kit.worker()
        until = kit.now() + 30 * SECOND
        await granted(store, "a", total("w", 100, 100, until=until), total("life", 100, 200))
        store.settle("a", Charge(usd=100))
        answer = await refused(store, "b", total("w", 1, 100, until=until))
        assert abs(answer.retry_after - (until - answer.at)) <= EASE
        assert abs(answer.retry_after - 30 * SECOND) < SECOND
        assert (await refused(store, "c", total("life", 101, 200))).retry_after == 0
        assert (await refused(store, "d", total("w", 101, 100, until=until))).retry_after == 0  # in no window
        both = await refused(store, "e", total("w", 1, 100, until=until), total("life", 101, 200))
        assert (both.index, both.retry_after) == (0, 0)  # the window alone would not do

    async def test_pending_says_whether_waiting_for_others_may_help(self, kit: Kit) -> None:
        store = await kit.worker()
        await granted(store, "a", total("x", 50, 100), total("y", 10, 100))
        store.settle("a", Charge(usd=30))
        await granted(store, "b", total("x", 70, 100), total("y", 10, 100))
        assert (await refused(store, "c", total("x", 70, 100))).pending
        assert not (await refused(store, "c", total("x", 71, 100))).pending
        assert (await refused(store, "c", total("y", 70, 100), total("x", 70, 100))).pending
        assert not (await refused(store, "c", total("x", 70, 100), total("y", 71, 100))).pending

    # -- the other rules ------------------------------------------------------------------------------------------

    async def test_rolling_counts_what_was_spent_in_the_last_period(self, kit: Kit) -> None:
        store = await kit.worker()
        period = 60 * SECOND

        def ask(amount: int) -> Demand:
            return Demand("r", Rule.ROLLING, Unit.USD, amount, 100, period=period)

        await granted(store, "a", ask(60))
        store.settle("a", Charge(usd=60))
        await kit.applied(store)
        await kit.advance(30)
        await granted(store, "b", ask(40))
        store.settle("b", Charge(usd=40))
        answer = await refused(store, "c", ask(10))
        assert 29 * SECOND <= answer.retry_after <= 32 * SECOND
        assert not answer.pending
        assert (await refused(store, "c", ask(101))).retry_after == 0
        later = await refused(store, "c", ask(61))  # needs both to be over
        assert 59 * SECOND <= later.retry_after <= 62 * SECOND
        await kit.advance(29)
        await refused(store, "c", ask(10))
        await kit.advance(3)
        assert (await granted(store, "c", ask(60))).levels[0].spent == 40

    async def test_rolling_reservations_do_not_age(self, kit: Kit) -> None:
        store = await kit.worker()
        ask = Demand("r", Rule.ROLLING, Unit.TOKENS, 60, 100, period=10 * SECOND)
        await granted(store, "a", ask)
        await kit.advance(12)
        answer = await refused(store, "b", ask)
        assert answer.pending
        assert answer.level.reserved == 60
        store.settle("a", Charge(tokens=60))
        assert not (await refused(store, "b", ask)).pending

    async def test_a_rate_lets_a_burst_through_and_then_one_at_a_time(self, kit: Kit) -> None:
        store = await kit.worker()
        ask = rate("rpm", 1, 60, period=60 * SECOND, burst=3)
        for n in range(3):
            await granted(store, f"op{n}", ask)
            store.settle(f"op{n}", Charge())
        answer = await refused(store, "more", ask)
        assert not answer.pending
        assert list(answer.available) == [0]
        assert 0 < answer.retry_after <= SECOND + EASE
        await kit.advance(answer.retry_after / SECOND + 0.001)
        await granted(store, "more", ask)
        await refused(store, "again", ask)
        assert (await refused(store, "again", rate("rpm", 4, 60, period=60 * SECOND, burst=3))).retry_after == 0

    async def test_a_rate_of_odd_numbers_lets_its_whole_burst_through_at_once(self, kit: Kit) -> None:
        store = await kit.worker()
        asks = [(f"op{n}", [rate("odd", 1, 7, period=3600 * SECOND)]) for n in range(8)]
        answers = await asyncio.gather(*(store.reserve(*ask) for ask in asks))
        assert sum(isinstance(answer, Grant) for answer in answers) == 7

    async def test_a_settled_rate_counts_what_was_really_used(self, kit: Kit) -> None:
        store = await kit.worker()

        def ask(amount: int) -> Demand:
            return rate("tpm", amount, 1000, Unit.TOKENS, 3600 * SECOND)

        await granted(store, "a", ask(1000))
        assert (await refused(store, "b", ask(500))).retry_after > 1700 * SECOND
        store.settle("a", Charge(tokens=400))
        await granted(store, "b", ask(600))
        await refused(store, "c", ask(10))
        store.settle("b", Charge(tokens=1600))  # over: it takes longer
        answer = await refused(store, "c", ask(10))
        assert abs(answer.retry_after - 3636 * SECOND) < 10 * SECOND

    async def test_a_call_that_did_not_happen_gives_its_request_back(self, kit: Kit) -> None:
        store = await kit.worker()
        ask = rate("rpm", 1, 1, period=3600 * SECOND)
        await granted(store, "a", ask)
        await refused(store, "b", ask)
        store.settle("a", Charge(calls=0))
        await granted(store, "b", ask)

    async def test_slots_are_given_back_whatever_the_charge(self, kit: Kit) -> None:
        store = await kit.worker()
        ask = Demand("busy", Rule.SLOTS, Unit.CONCURRENCY, 1, 2)
        await granted(store, "a", ask)
        await granted(store, "b", ask)
        answer = await refused(store, "c", ask)
        assert answer.pending
        assert answer.level.reserved == 2
        store.settle("a", Charge(usd=5, calls=7))
        await granted(store, "c", ask)
        assert await stands(kit, "busy") == (0, 2)

    async def test_an_age_counts_from_the_first_grant(self, kit: Kit) -> None:
        store = await kit.worker()
        ask = Demand("run", Rule.AGE, Unit.SECONDS, 0, 10)
        await granted(store, "a", ask)
        store.settle("a", Charge())
        await kit.advance(9)
        await granted(store, "b", ask)
        await kit.advance(1.5)
        answer = await refused(store, "c", ask)
        assert (answer.retry_after, answer.pending, list(answer.available)) == (0, False, [0])
        await granted(store, "c", Demand("run", Rule.AGE, Unit.SECONDS, 0, 60))  # a raised limit

    async def test_a_level_is_compared_and_not_counted(self, kit: Kit) -> None:
        store = await kit.worker()
        for n in range(3):
            await granted(store, f"op{n}", Demand("depth", Rule.LEVEL, Unit.DEPTH, 4, 4))
        answer = await refused(store, "deep", Demand("depth", Rule.LEVEL, Unit.DEPTH, 5, 4))
        assert (answer.retry_after, answer.pending, list(answer.available)) == (0, False, [4])

    # -- several workers ------------------------------------------------------------------------------------------

    async def test_workers_share_their_accounts(self, kit: Kit) -> None:
        first, second = await kit.worker(), await kit.worker()
        await granted(first, "a", total("x", 60, 100))
        assert list((await refused(second, "b", total("x", 41, 100))).available) == [40]
        await granted(second, "b", total("x", 40, 100))
        first.settle("a", Charge(usd=10))
        await kit.applied(first)
        assert (await granted(second, "c", total("x", 50, 100))).levels[0] == Level("x", 100, 10, 90)

    async def test_never_more_than_fits_however_many_ask_at_once(self, kit: Kit) -> None:
        workers = [await kit.worker() for _ in range(3)]
        asks = [(workers[n % 3], f"op{n}") for n in range(90)]
        demands = (total("x", 10, 100), total("y", 1, 1000))
        answers = await asyncio.gather(*(worker.reserve(op, demands) for worker, op in asks))
        assert sum(isinstance(answer, Grant) for answer in answers) == 10
        assert [await stands(kit, name) for name in "xy"] == [(0, 100), (0, 10)]
        for worker, op in asks:
            worker.settle(op, Charge(usd=3))
        for worker in workers:
            await kit.applied(worker)
        assert [await stands(kit, name) for name in "xy"] == [(30, 0), (30, 0)]

    async def test_whoever_waits_is_woken_by_a_settle_here_or_elsewhere(self, kit: Kit) -> None:
        first, second = await kit.worker(), await kit.worker()
        for settler, waiter in ((first, first), (first, second)):
            await granted(settler, "a", total("x", 100, 100))
            assert (await refused(waiter, "b", total("x", 50, 100))).pending
            waiting = asyncio.ensure_future(waiter.freed(60))
            await asyncio.sleep(0.02)
            assert not waiting.done()
            settler.settle("a", Charge())
            async with asyncio.timeout(10):
                await waiting
            await granted(waiter, "b", total("x", 50, 100))
            waiter.settle("b", Charge())
            await kit.applied(waiter)

    async def test_those_that_wait_ask_again_by_their_rank(self, kit: Kit) -> None:
        store = await kit.worker()
        await granted(store, "a", total("x", 100, 100))
        order: list[str] = []

        async def wait(op: str, rank: tuple[int, int]) -> None:
            assert (await refused(store, op, total("x", 60, 100))).pending
            await store.freed(60, rank)
            order.append(op)
            answer = await store.reserve(op, [total("x", 60, 100)])
            assert isinstance(answer, Grant) == (op == "urgent")

        ranks = {"dear": (1, 900), "cheap": (1, 20), "urgent": (0, 5000), "also dear": (1, 900), "batch": (2, 1)}
        waiting = [asyncio.ensure_future(wait(op, rank)) for op, rank in ranks.items()]
        await asyncio.sleep(0.05)
        store.settle("a", Charge())
        async with asyncio.timeout(10):
            await asyncio.gather(*waiting)
        assert order[:2] == ["urgent", "cheap"]
        assert order[-1] == "batch"
        store.settle("urgent", Charge())
        await kit.applied(store)

    async def test_a_wait_without_a_settle_ends_in_time(self, kit: Kit) -> None:
        store = await kit.worker()
        async with asyncio.timeout(10):
            await store.freed(0.01)

    # -- workers that die -----------------------------------------------------------------------------------------

    async def test_what_a_dead_worker_held_is_charged(self, kit: Kit) -> None:
        dead, alive = await kit.worker(), await kit.worker()
        slot = Demand("busy", Rule.SLOTS, Unit.CONCURRENCY, 1, 1)
        await granted(dead, "a", total("x", 60, 100), slot)
        await granted(alive, "b", total("x", 30, 100))
        await kit.abandon(dead)
        await kit.expire(alive)
        assert [await stands(kit, name) for name in ("x", "busy")] == [(60, 30), (0, 0)]  # the living keep theirs
        await kit.expire(alive)
        assert await stands(kit, "x") == (60, 30)

    async def test_what_a_dead_worker_held_is_freed_where_configured(self, kit: Kit) -> None:
        dead, alive = await kit.worker("free"), await kit.worker("free")
        await granted(dead, "a", total("x", 60, 100), rate("rpm", 1, 1, period=3600 * SECOND))
        await kit.abandon(dead)
        await kit.expire(alive)
        assert await stands(kit, "x") == (0, 0)
        await granted(alive, "b", rate("rpm", 1, 1, period=3600 * SECOND))

    async def test_a_late_settle_of_a_charged_hold_books_only_what_is_more(self, kit: Kit) -> None:
        late, alive = await kit.worker(), await kit.worker()
        await granted(late, "less", total("x", 60, 1000))
        await granted(late, "more", total("y", 60, 1000))
        await kit.abandon(late)
        await kit.expire(alive)
        for _ in range(2):
            late.settle("less", Charge(usd=10))
            late.settle("more", Charge(usd=75))
            await kit.applied(late)
        assert [await stands(kit, name) for name in "xy"] == [(60, 0), (75, 0)]

    async def test_a_late_settle_of_a_freed_hold_books_all_of_it_once(self, kit: Kit) -> None:
        late, alive = await kit.worker("free"), await kit.worker("free")
        await granted(late, "a", total("x", 60, 1000))
        await kit.abandon(late)
        await kit.expire(alive)
        for _ in range(2):
            late.settle("a", Charge(usd=45))
            await kit.applied(late)
        assert await stands(kit, "x") == (45, 0)

    async def test_a_worker_that_was_held_dead_goes_on(self, kit: Kit) -> None:
        late, alive = await kit.worker(), await kit.worker()
        await granted(late, "a", total("x", 10, 100))
        await kit.abandon(late)
        await kit.expire(alive)
        await granted(late, "b", total("x", 20, 100))
        late.settle("b", Charge(usd=5))
        await kit.applied(late)
        assert await stands(kit, "x") == (15, 0)

    # -- by hand --------------------------------------------------------------------------------------------------

    async def test_an_adjustment_is_booked_once_and_may_leave_debt_or_credit(self, kit: Kit) -> None:
        store = await kit.worker()
        await granted(store, "a", total("x", 60, 100))
        store.settle("a", Charge(usd=60))
        await kit.applied(store)
        for _ in range(2):
            await kit.adjust(store, "gift", "x", -30)
        assert await stands(kit, "x") == (30, 0)
        await granted(store, "b", total("x", 70, 100))
        await kit.adjust(store, "fine", "x", 50)
        assert await stands(kit, "x") == (80, 70)
        assert list((await refused(store, "c", total("x", 1, 100))).available) == [0]
        await kit.adjust(store, "unheard", "fresh", 40)
        assert list((await refused(store, "d", total("fresh", 61, 100))).available) == [60]
