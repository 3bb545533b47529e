"""The pool of places: held against its promises by random sequences, in a time of its own."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policy.bulkhead import (
    BATCH,
    DEADLINE,
    ENOUGH,
    FRESH,
    FULL,
    GONE,
    HELD,
    INTERACTIVE,
    NANO,
    REFUSED,
    REMEMBERED,
    TIMEOUT,
    URGENT,
    WAITING,
    Place,
    Pool,
    Priority,
    Recent,
    Terms,
    Wish,
)


def wishes(tenant: str, priority: Priority = INTERACTIVE, **more: object) -> Wish:
    return Wish(priority=priority, tenant=tenant, **more)  # type: ignore[arg-type]


def filled(limit: int, *, tenant: str = "x", **terms: object) -> tuple[Pool, list[Place]]:
    """A pool whose places are all held."""
    pool = Pool(Terms(limit=limit, **terms))  # type: ignore[arg-type]
    return pool, [pool.enter(wishes(tenant), 0) for _ in range(limit)]


def served(pool: Pool, places: list[Place], waiting: list[Place]) -> list[Place]:
    """In which order those that wait get a place, each held until the next one is given back."""
    order: list[Place] = []
    held = list(places)
    while held:
        pool.leave(held.pop(0), 1)
        got = [place for place in waiting if place.state is HELD and place not in order]
        order += got
        held += got
    return order


# -- single cases ----------------------------------------------------------------------------------------------------


def test_a_place_is_given_back_once():
    pool, (first,) = filled(1)
    second = pool.enter(wishes("a"), 1)
    third = pool.enter(wishes("a"), 2)
    pool.leave(first, 3)
    pool.leave(first, 3)
    assert (second.state, third.state, pool.in_flight, pool.waiting) == (HELD, WAITING, 1, 1)


def test_who_waits_is_told():
    pool, (first,) = filled(1)
    second = pool.enter(wishes("a"), 1)
    told: list[str] = []
    second.tell = lambda: told.append("second")
    pool.leave(first, 3)
    assert told == ["second"]


def test_the_more_urgent_go_first():
    pool, places = filled(1)
    kinds = [BATCH, INTERACTIVE, BATCH, URGENT, INTERACTIVE]
    waiting = [pool.enter(wishes("a", kind), at) for at, kind in enumerate(kinds)]
    order = served(pool, places, waiting)
    assert [waiting.index(place) for place in order] == [3, 1, 4, 0, 2]


def test_a_tenant_that_floods_takes_turns_with_the_others():
    pool, places = filled(1)
    flood = [pool.enter(wishes("flood"), at) for at in range(50)]
    others = [pool.enter(wishes(name), 60) for name in ("b", "c")]
    order = served(pool, places, [*flood, *others])
    assert max(order.index(place) for place in others) <= 3


def test_who_has_fewer_places_comes_first_however_long_the_others_take():
    pool, held = filled(4, tenant="slow")
    slow = [pool.enter(wishes("slow"), 1) for _ in range(8)]
    quick = [pool.enter(wishes("quick"), 2) for _ in range(2)]
    pool.leave(held[0], 3)
    pool.leave(held[1], 3)
    assert all(place.state is HELD for place in quick)
    assert all(place.state is WAITING for place in slow)


def test_a_heavier_tenant_has_more_turns():
    pool, places = filled(1, weights={"heavy": 3.0})
    waiting = [pool.enter(wishes(name), 1) for _ in range(40) for name in ("heavy", "light")]
    order = served(pool, places, waiting)[:40]
    counts = Counter(place.wish.tenant for place in order)
    assert counts == {"heavy": 30, "light": 10}


def test_a_heavier_tenant_has_more_places():
    pool, held = filled(8, tenant="x", weights={"heavy": 3.0})
    waiting = [pool.enter(wishes(name), 1) for _ in range(20) for name in ("heavy", "light")]
    for place in held:
        pool.leave(place, 2)
    counts = Counter(place.wish.tenant for place in waiting if place.state is HELD)
    assert counts == {"heavy": 6, "light": 2}


def test_the_keys_of_a_tenant_take_turns():
    pool, places = filled(1)
    flood = [pool.enter(wishes("team", key="a"), 1) for _ in range(20)]
    other = pool.enter(wishes("team", key="b"), 2)
    assert served(pool, places, [*flood, other]).index(other) <= 1


def test_new_tenants_do_not_keep_an_old_one_waiting():
    """One that is served, and comes again, has its turn though new ones come all the time."""
    pool, (held,) = filled(1)
    first = pool.enter(wishes("old"), 0)
    again = pool.enter(wishes("old"), 0)
    fresh = [pool.enter(wishes(f"new-{at}"), 0) for at in range(3)]
    for at in range(40):
        pool.leave(held, 1)
        held = next(place for place in (first, again, *fresh) if place.state is HELD)
        if held is again:
            return
        fresh.append(pool.enter(wishes(f"later-{at}"), 1))
    pytest.fail("it never had its turn")


def test_the_queue_is_bounded():
    pool, _ = filled(1, queue=2)
    two = [pool.enter(wishes("a"), 1) for _ in range(2)]
    third = pool.enter(wishes("a"), 1)
    assert [place.state for place in two] == [WAITING, WAITING]
    assert (third.state, third.why) == (REFUSED, FULL)


def test_without_a_queue_nobody_waits():
    pool, _ = filled(1, queue=0)
    assert pool.enter(wishes("a", URGENT), 1).why == FULL


def test_who_is_more_urgent_takes_the_place_of_the_last_of_the_others():
    pool, _ = filled(1, queue=3)
    batch = [pool.enter(wishes("a", BATCH), at) for at in range(3)]
    told: list[int] = []
    for at, place in enumerate(batch):
        place.tell = partial(told.append, at)
    urgent = pool.enter(wishes("a"), 4)
    assert urgent.state is WAITING
    assert [place.state for place in batch] == [WAITING, WAITING, REFUSED]
    assert told == [2]
    assert pool.waiting == 3
    assert pool.enter(wishes("b", BATCH), 5).state is WAITING  # for "a" has two there
    assert [place.state for place in batch] == [WAITING, REFUSED, REFUSED]


def test_who_floods_the_queue_pushes_out_nobody_but_itself():
    pool, _ = filled(1, queue=4)
    other = pool.enter(wishes("other"), 0)
    flood = [pool.enter(wishes("flood"), at) for at in range(20)]
    late = pool.enter(wishes("late"), 30)
    assert (other.state, late.state) == (WAITING, WAITING)
    assert [place.state for place in flood[:3]] == [WAITING, WAITING, REFUSED]
    assert all(place.why == FULL for place in flood[2:])


def test_a_key_that_floods_its_teams_part_pushes_out_no_other_key():
    pool, _ = filled(1, queue=3)
    flood = [pool.enter(wishes("team", key="a"), 0) for _ in range(3)]
    assert pool.enter(wishes("team", key="b"), 1).state is WAITING
    assert flood[-1].why == FULL


def test_batch_is_kept_to_its_share():
    pool = Pool(Terms(limit=10, batch=0.5))
    batch = [pool.enter(wishes("a", BATCH), 0) for _ in range(8)]
    assert Counter(place.state for place in batch) == {HELD: 5, WAITING: 3}
    inter = [pool.enter(wishes("a"), 1) for _ in range(5)]
    assert all(place.state is HELD for place in inter)
    pool.leave(inter[0], 2)
    assert Counter(place.state for place in batch) == {HELD: 5, WAITING: 3}
    pool.leave(batch[0], 3)
    assert batch[5].state is HELD


def test_the_cheapest_first():
    pool, places = filled(1, order="cost")
    waiting = [pool.enter(wishes("a", cost=cost), 0) for cost in (5, 3, 9, 3)]
    assert [place.wish.cost for place in served(pool, places, waiting)] == [3, 3, 5, 9]
    assert waiting[1].entered <= waiting[3].entered


def test_the_cheapest_first_where_a_budget_is_nearly_used():
    pool, places = filled(1)
    waiting = [pool.enter(wishes("a", cost=cost, thrifty=True), 0) for cost in (5, 3, 9)]
    plain = [pool.enter(wishes("b", cost=cost), 0) for cost in (5, 3)]
    order = served(pool, places, [*waiting, *plain])
    assert [place.wish.cost for place in order if place.wish.tenant == "a"] == [3, 5, 9]
    assert [place.wish.cost for place in order if place.wish.tenant == "b"] == [5, 3]


def test_the_newest_first_once_the_queue_is_half_full():
    pool, places = filled(1, order="lifo", queue=8)
    few = [pool.enter(wishes("a"), at) for at in range(3)]
    assert served(pool, places, few) == few
    pool, places = filled(1, order="lifo", queue=4)
    many = [pool.enter(wishes("a"), at) for at in range(4)]
    assert [many.index(place) for place in served(pool, places, many)] == [3, 2, 0, 1]  # then only half full


def test_one_that_waited_too_long_leaves_the_queue():
    pool, _ = filled(1)
    place = pool.enter(wishes("a"), 0)
    assert pool.patience(place.wish, 0) == 10 * NANO
    pool.late(place, 10 * NANO)
    assert (place.state, place.why, pool.waiting) == (REFUSED, TIMEOUT, 0)
    late = pool.enter(wishes("a", deadline=12 * NANO), 11 * NANO)
    assert pool.patience(late.wish, 11 * NANO) == NANO
    pool.late(late, 12 * NANO)
    assert late.why == DEADLINE


def test_one_that_left_the_queue_gives_its_place_there_to_another():
    pool, _ = filled(1, queue=1)
    place = pool.enter(wishes("a"), 0)
    pool.leave(place, 1)
    assert (place.state, pool.waiting) == (GONE, 0)
    assert pool.enter(wishes("a"), 2).state is WAITING


def practised(limit: int, took: int, **terms: object) -> tuple[Pool, int]:
    """A pool whose calls took so long, and the time now."""
    pool = Pool(Terms(limit=limit, **terms))  # type: ignore[arg-type]
    now = 0
    for _ in range(ENOUGH):
        place = pool.enter(wishes("x", kind="m"), now)
        now += took
        pool.leave(place, now, first=took)
    return pool, now


def test_a_call_that_cannot_make_it_is_refused_at_once():
    pool, now = practised(1, 10 * NANO)
    held = pool.enter(wishes("a", kind="m"), now)
    assert pool.enter(wishes("a", kind="m", deadline=now + 19 * NANO), now).why == DEADLINE
    assert pool.enter(wishes("a", kind="m", deadline=now + 21 * NANO), now).state is WAITING
    assert pool.enter(wishes("a", kind="m"), now).state is WAITING  # does not say when it gives up
    assert held.state is HELD


def test_a_call_that_can_no_longer_make_it_is_refused_when_its_turn_comes():
    pool, now = practised(1, 10 * NANO)
    held = pool.enter(wishes("a", kind="m"), now)
    late = pool.enter(wishes("a", kind="m", deadline=now + 25 * NANO), now)
    other = pool.enter(wishes("a", kind="m"), now)
    pool.leave(held, now + 16 * NANO)
    assert (late.why, other.state) == (DEADLINE, HELD)


def test_a_place_that_is_free_is_refused_only_to_the_hopeless():
    pool, now = practised(2, 10 * NANO)
    assert pool.enter(wishes("a", kind="m", deadline=now + 9 * NANO), now).why == DEADLINE
    assert pool.enter(wishes("a", kind="quick", deadline=now + 9 * NANO), now).state is HELD  # another kind
    later = now + FRESH + 1
    assert pool.enter(wishes("a", kind="m", deadline=later + NANO), later).state is HELD  # that may be over by now


def test_what_was_long_ago_foretells_nothing():
    recent = Recent()
    for took in range(ENOUGH - 1):
        recent.add(took, 0)
    assert recent.median(0) == 0
    recent.add(7, 0)
    assert (recent.least(0), recent.median(0)) == (0, 4)
    assert recent.median(FRESH + 1) == 0


def test_a_new_configuration_leaves_everybody_where_they_are():
    pool, held = filled(2)
    waiting = [pool.enter(wishes("a"), 1) for _ in range(3)]
    pool.retune(Terms(limit=4), 2)
    assert Counter(place.state for place in waiting) == {HELD: 2, WAITING: 1}
    pool.retune(Terms(limit=1), 3)
    for place in held:
        pool.leave(place, 4)
    assert waiting[2].state is WAITING
    assert pool.in_flight == 2


def test_an_upstream_that_says_it_has_too_much_to_do_gets_less():
    pool = Pool(Terms(limit=100, least=10))
    for now in range(60):
        pool.leave(pool.enter(wishes("a"), now), now + 1, dropped=True)
    assert pool.limit == 10
    pool.retune(Terms(limit=100), 99)
    assert pool.limit == 100


@given(st.lists(st.integers(0, 9), min_size=1, max_size=120))
def test_what_was_seen_lately_is_reckoned_with(durations: list[int]) -> None:
    recent = Recent()
    for at, took in enumerate(durations, 1):
        recent.add(took, 0)
        last = sorted(durations[:at][-REMEMBERED:])
        expected = (last[0], last[len(last) // 2]) if at >= ENOUGH else (0, 0)
        assert (recent.least(0), recent.median(0)) == expected


# -- random sequences ------------------------------------------------------------------------------------------------

TENANTS = st.sampled_from(["a", "b", "c"])
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("enter"),
            TENANTS,
            st.sampled_from(list(Priority)),
            st.sampled_from(["", "k1", "k2"]),
            st.sampled_from([0, 3, 40]),
            st.integers(0, 9),
        ),
        st.tuples(st.just("leave"), st.integers(0, 40)),
        st.tuples(st.just("late"), st.integers(0, 40)),
        st.tuples(st.just("tick"), st.integers(1, 5)),
    ),
    max_size=120,
)
POOLS = st.builds(
    Terms,
    limit=st.integers(1, 5),
    queue=st.integers(0, 6),
    order=st.sampled_from(["fifo", "lifo", "cost"]),
    batch=st.sampled_from([0.3, 0.5, 1.0]),
    weights=st.sampled_from([{}, {"a": 3.0, "k1": 0.5}]),
)


@settings(max_examples=400, deadline=None)
@given(POOLS, STEPS)
def test_whatever_happens(terms: Terms, steps: list[tuple]) -> None:  # type: ignore[type-arg]
    pool, now = Pool(terms), 0
    places: list[Place] = []
    told: Counter[int] = Counter()
    for step in steps:
        before = {id(place): place.state for place in places}
        match step:
            case ("enter", tenant, priority, key, patience, cost):
                wish = Wish(priority, tenant, key, now + patience if patience else 0, "m", cost, cost > 7)
                place = pool.enter(wish, now)
                if place.state is WAITING:
                    place.tell = partial(told.update, [id(place)])
                before[id(place)] = place.state
                places.append(place)
            case ("leave", at) if places:
                place = places[at % len(places)]
                held = place.state is HELD
                pool.leave(place, now, first=3 if held else 0)
                assert place.state is GONE
            case ("late", at) if places:
                pool.late(places[at % len(places)], now)
            case ("tick", ns):
                now += ns
        states = Counter(place.state for place in places)
        held = [place for place in places if place.state is HELD]
        waiting = [place for place in places if place.state is WAITING]
        # never more than there are places, counted exactly, and bounded queues
        assert pool.in_flight == states[HELD] <= terms.limit
        assert pool.waiting == states[WAITING] <= terms.queue
        batch = sum(place.wish.priority is BATCH for place in held)
        assert pool.batch == batch <= max(1, int(terms.limit * terms.batch))
        # nobody waits for a place that is free
        if states[HELD] < terms.limit:
            assert all(place.wish.priority is BATCH for place in waiting)
            assert not waiting or batch >= max(1, int(terms.limit * terms.batch))
        # who is given a place is the most urgent of those that waited, but for batch calls that may have no more
        given_now = [place for place in held if before.get(id(place)) is WAITING]
        for place in given_now:
            worse = [other for other in waiting if other.wish.priority < place.wish.priority and other.since <= now]
            assert not [other for other in worse if before.get(id(other)) is WAITING]
        # who waited is told of its end by others, and only then
        for place in places:
            ended = place.state in (HELD, REFUSED) and before.get(id(place)) is WAITING
            if ended and step[0] != "late":
                assert told[id(place)] == 1
        assert all(place.why for place in places if place.state is REFUSED)
    for place in places:
        pool.leave(place, now)
    for place in places:
        pool.leave(place, now)
    assert (pool.in_flight, pool.waiting, pool.batch) == (0, 0, 0)


@settings(max_examples=200, deadline=None)
@given(
    limit=st.integers(1, 4),
    flood=st.integers(1, 60),
    others=st.integers(1, 6),
    takes=st.lists(st.integers(0, 30), min_size=80, max_size=80),
)
def test_nobody_starves(limit: int, flood: int, others: int, takes: list[int]) -> None:
    """A tenant keeps the queue full; each other one has its place after as many turns as there are tenants."""
    pool = Pool(Terms(limit=limit, queue=80))
    held = [pool.enter(wishes("flood"), 0) for _ in range(limit)]
    crowd = [pool.enter(wishes("flood"), 0) for _ in range(flood)]
    quiet = [pool.enter(wishes(f"t{at}"), 1) for at in range(others)]
    turns = 0
    for take in takes:
        if all(place.state is HELD or place.state is GONE for place in quiet):
            break
        crowd.append(pool.enter(wishes("flood"), 2))
        place = held.pop(take % len(held))
        pool.leave(place, 3)
        held += [one for one in (*crowd, *quiet) if one.state is HELD and one not in held]
        turns += 1
    assert all(place.state in (HELD, GONE) for place in quiet)
    assert turns <= limit + others + 1
