"""Which pool a call goes through, and what it asks for there."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.call import Call
from gateway.config.schema import Bulkhead
from gateway.key import Key
from gateway.policy import pools
from gateway.policy.bulkhead import INTERACTIVE, NANO
from gateway.policy.pools import PoolBook, strain
from gateway.policy.priorities import Priorities
from gateway.spend import Demand, Hold, Level, Rule, Unit
from gateway.stages.arrive import arrive, new_call
from gateway.testing.doubles import World, ask


def call_of(model: str = "gpt-4o", *headers: tuple[bytes, bytes], **facts: Any) -> Call:
    gw = World().gateway()
    call = new_call(ask("/v1/chat/completions", b'{"model":"%s","messages":[]}' % model.encode(), *headers), gw)
    arrive(call, gw)
    for name, value in facts.items():
        setattr(call if hasattr(call, name) else call.who, name, value)
    return call


def book_of(**rules: Bulkhead) -> PoolBook:
    book = PoolBook(0)
    book.configure(rules, Priorities(()), 1, 0)
    return book


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        (Bulkhead(max=1), True),
        (Bulkhead(max=1, route="/v1/chat/*"), True),
        (Bulkhead(max=1, route="/v1/messages"), False),
        (Bulkhead(max=1, upstream="open*"), True),
        (Bulkhead(max=1, upstream="anthropic"), False),
        (Bulkhead(max=1, model="gpt-4*"), True),
        (Bulkhead(max=1, model="house"), False),
        (Bulkhead(max=1, agent="tester"), True),
        (Bulkhead(max=1, agent="x"), False),
        (Bulkhead(max=1, request_class="title"), True),
        (Bulkhead(max=1, request_class="sub*"), False),
        (Bulkhead(max=1, key="web"), True),
        (Bulkhead(max=1, key="k1"), True),
        (Bulkhead(max=1, key="k2"), False),
        (Bulkhead(max=1, team="red"), True),
        (Bulkhead(max=1, team="blue", agent="tester"), False),
    ],
)
def test_a_pool_is_for_the_calls_that_match_all_of_its_patterns(rule: Bulkhead, matches: bool) -> None:
    call = call_of(request_class="title", key=Key("k1", name="web", team="red"))
    book = book_of(one=rule)
    assert (book.ticket(call) is not None) is matches
    assert (book.ticket(call) is not None) is matches


def test_an_alias_is_matched_by_its_name_and_by_what_it_stands_for() -> None:
    call = call_of("house", model_sent="gpt-4o")
    assert book_of(one=Bulkhead(max=1, model="house")).ticket(call) is not None
    assert book_of(one=Bulkhead(max=1, model="gpt-*")).ticket(call) is not None
    assert book_of(one=Bulkhead(max=1, model="claude-*")).ticket(call) is None


def test_each_of_something_has_a_pool_of_its_own() -> None:
    book = book_of(one=Bulkhead(max=3, each="model"))
    first, again, other = (book.ticket(call_of(model)) for model in ("a", "a", "b"))
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.pool is again.pool
    assert first.pool is not other.pool
    assert book.standing() == {"one": (0, 0, 6)}


def test_pools_that_nobody_uses_are_forgotten_when_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "POOLS", 3)
    book = book_of(one=Bulkhead(max=3, each="model"))
    kept = book.ticket(call_of("kept"))
    assert kept is not None
    kept.pool.enter(book.wish(call_of("kept"), kept, lambda: 0), 1)
    for at in range(20):
        book.ticket(call_of(f"m{at}"))
    assert len(book._pools) <= 3
    again = book.ticket(call_of("kept"))
    assert again is not None
    assert again.pool is kept.pool
    assert book.standing()["one"][0] == 1


def test_what_a_call_asks_for() -> None:
    book = book_of(one=Bulkhead(max=1, order="cost"))
    call = call_of("m", (b"x-stainless-timeout", b"30"), key=Key("k1", name="web", team="red"), team="red")
    ticket = book.ticket(call)
    assert ticket is not None
    pool = ticket.pool
    wish = book.wish(call, ticket, lambda: 7)
    assert (wish.priority, wish.tenant, wish.key, wish.kind) == (INTERACTIVE, "red", "web", "m")
    assert wish.deadline == call.began + 30 * NANO
    assert wish.cost == 0  # there is a place: nobody asks what it costs
    pool.enter(wish, 1)
    assert book.wish(call, ticket, lambda: 7).cost == 7
    other = book.ticket(call_of("m"))
    assert other is not None
    nameless = book.wish(call_of("m"), other, lambda: 7)
    assert (nameless.tenant, nameless.key, nameless.deadline) == ("default", "", 0)


def demand(unit: Unit, *, until: int = 0, period: int = 0, rule: Rule = Rule.TOTAL) -> Demand:
    return Demand("a", rule, unit, 1, 100, until=until, period=period)


@pytest.mark.parametrize(
    ("one", "share"),
    [
        (demand(Unit.USD, until=9), 0.75),
        (demand(Unit.TOKENS, period=9, rule=Rule.RATE), 0.75),
        (demand(Unit.USD), 0.0),  # for life: waiting does not help
        (demand(Unit.CALLS, period=9, rule=Rule.RATE), 0.0),  # not of money or tokens
        (demand(Unit.CONCURRENCY, period=9, rule=Rule.SLOTS), 0.0),
    ],
)
def test_how_much_of_a_budget_is_used(one: Demand, share: float) -> None:
    other = demand(Unit.USD, until=9)
    hold = Hold("x", demands=(other, one), levels=(Level("b", 100, 0, 0), Level("a", 100, 50, 25)))
    assert strain(hold) == share
    assert strain(Hold("x")) == 0.0


def test_a_call_whose_budget_is_nearly_used_says_so_where_it_must_wait() -> None:
    book = book_of(one=Bulkhead(max=1, thrift=0.7))
    hold = Hold("x", demands=(demand(Unit.USD, until=9),), levels=(Level("a", 100, 50, 25),))
    call = call_of(hold=hold)
    ticket = book.ticket(call)
    assert ticket is not None
    pool = ticket.pool
    assert not book.wish(call, ticket, lambda: 7).thrifty
    pool.enter(book.wish(call, ticket, lambda: 7), 1)
    wish = book.wish(call, ticket, lambda: 7)
    assert (wish.thrifty, wish.cost) == (True, 7)
