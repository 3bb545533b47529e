"""Probes of a half-open breaker in virtual time: they cost their callers nothing, and find out what they are for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.call import Call
from gateway.config.schema import Bulkhead, Fallback, Goal, Runs
from gateway.errors import Draining, Overtaken, RunStopped
from gateway.journal.convert import outcome_of
from gateway.policy.breaker import NANO, PROBE_SECONDS
from gateway.policy.pools import PoolBook
from gateway.policy.priorities import Priorities
from gateway.stages.account import HEDGED
from gateway.stages.bulkheads import Bulkheads
from gateway.stores.flights import Parking
from tests.unit.stages.racing import DONE, STREAM, WHOLE, Bench, Down, Plan, document, in_virtual_time, said, shape

CHAIN = Fallback(to=("backup",))
STALLS = [Plan(head=0.1, content=9999.0)]
SLOWER = [Plan(head=0.4, content=0.4)]
QUICK = [Plan(head=0.1, content=0.1)]


def probing(
    then: list[Plan],
    script: Callable[[Bench], Awaitable[Call]],
    *chain: Fallback,
    patience: float | None = 0.0,
    body: bytes = STREAM,
    ill: str = "refused",
    **known: Any,
) -> tuple[Bench, Call]:
    """The first upstream answers, then is `ill` until it is left alone; as soon as it is to be probed, it does what is
    planned `then`, and the script begins."""
    bench = Bench(*(chain or (CHAIN,)), breaking=True, known=None, patience=patience, **known)
    bench.upstreams.plans = {"openai": [Plan(head=0.1)], "backup": QUICK}

    async def run() -> Call:
        for _ in range(3):
            await bench.one(body)
        bench.upstreams.plans["openai"] = [Plan(how=ill)]
        for _ in range(2):
            await bench.one(body)
        assert {state for _, state in bench.changes} == {"open"}
        await asyncio.sleep(1)
        bench.upstreams.plans["openai"] = then
        for seen in (bench.changes, bench.upstreams.sent, bench.upstreams.opened):
            seen.clear()
        call = await script(bench)
        await asyncio.sleep(PROBE_SECONDS + 1)
        assert len(asyncio.all_tasks()) == 1, "nothing goes on for ever"
        assert all(exchange.closed for exchange in bench.upstreams.opened)
        assert bench.breakers is not None
        assert not any(cell._probe_at for cell in bench.breakers._named.values()), "no permit is kept"
        return call

    return bench, in_virtual_time(run)


async def one(bench: Bench) -> Call:
    return await bench.one()


@pytest.mark.parametrize("then", [STALLS, [Plan(head=9999.0)], [Plan(head=0.1, content=9999.0, pings=True)]])
def test_an_upstream_that_stalls_costs_its_probe_no_time(then: list[Plan]) -> None:
    async def script(bench: Bench) -> Call:
        call = await bench.one()
        assert bench.took == pytest.approx(0.3), "as long as the other takes"
        assert bench.down.sent == said("backup") + DONE
        assert bench.changes == [("openai", "half_open")], "it may only be slower"
        assert [name for name, _, _ in shape(await bench.one())] == ["backup"], "one probe at a time"
        await asyncio.sleep(1)
        assert bench.changes[1:] == [("openai", "open")]
        return call

    bench, call = probing(then, script)
    lost, won = call.attempts
    assert (lost.target.upstream, won.target.upstream, won.status) == ("openai", "backup", 200)
    assert isinstance(lost.fault, Overtaken)
    assert (call.notes["probe"], call.notes["probe_from"], call.notes["probe_to"]) == ("won", "openai", "backup")
    assert (outcome_of(call), "hedge" in call.notes) == ("ok", False)
    assert bench.upstreams.sent == ["openai", "backup", "backup"]


def test_one_that_is_well_and_only_slower_is_found_well() -> None:
    async def script(bench: Bench) -> Call:
        call = await bench.one()
        assert bench.down.sent == said("backup") + DONE
        assert bench.changes == [("openai", "half_open")]
        await asyncio.sleep(0.6)
        assert bench.changes == [("openai", "half_open"), ("openai", "closed")]
        assert [name for name, _, _ in shape(await bench.one())] == ["openai"]
        return call

    _, call = probing(SLOWER, script)
    assert shape(call) == [("openai", 0, "overtaken"), ("backup", 200, "")], "what came later is not of this call"


def test_answers_in_one_piece_are_spared_as_well() -> None:
    async def script(bench: Bench) -> Call:
        bench.upstreams.plans["backup"] = [Plan(head=0.1, how="whole")]
        call = await bench.one(WHOLE)
        assert bench.down.sent == document("backup")
        return call

    bench, _ = probing([Plan(head=0.9, how="whole")], script, body=WHOLE)
    assert bench.changes[-1] == ("openai", "closed")


def test_one_that_is_quicker_answers_and_the_other_is_broken_off() -> None:
    bench, call = probing([Plan(head=0.1)], one)
    assert bench.down.sent == said("openai") + DONE
    assert shape(call) == [("backup", 200, "overtaken"), ("openai", 200, "")]
    assert call.notes["probe"] == "lost"
    assert bench.changes == [("openai", "half_open"), ("openai", "closed")]


@pytest.mark.parametrize("how", ["refused", "reset", "busy", "error", "cut", "mute"])
@pytest.mark.parametrize("after", [0.0, 0.1, 0.7])
def test_one_that_fails_opens_it_again(how: str, after: float) -> None:
    """Also where that is known only behind its call."""
    bench, call = probing([Plan(head=after / 2, content=after / 2, how=how)], one, ill=how)
    assert bench.down.sent == said("backup") + DONE
    assert outcome_of(call) == "ok"
    assert {state for _, state in bench.changes} == {"half_open", "open"}


@pytest.mark.parametrize("connects", [True, False])
def test_one_that_was_not_even_sent_costs_nothing_and_finds_out_whether_it_can_be_reached(connects: bool) -> None:
    async def script(bench: Bench) -> Call:
        call = await bench.one()
        assert bench.upstreams.sent == ["backup"]
        assert bench.changes == [("openai", "half_open")]
        await asyncio.sleep(8 if not connects else 0.5)
        return await bench.one() if connects else call

    then = [Plan(connect=0.5), Plan()] if connects else [Plan(head=8.0, how="refused")]
    bench, call = probing(then, script)
    if connects:
        assert bench.upstreams.sent[:2] == ["backup", "openai"], "the next call is the probe"
        assert bench.changes == [("openai", "half_open"), ("openai", "closed")]
    else:
        assert bench.upstreams.sent == ["backup"]
        assert HEDGED not in call.money.components
        assert bench.changes == [("openai", "half_open"), ("openai", "open")]


def test_it_may_be_waited_for_a_while() -> None:
    bench, call = probing([Plan(head=0.4)], one, patience=0.5)
    assert shape(call) == [("openai", 200, "")], "there is no second"
    assert "probe" not in call.notes
    bench, call = probing(STALLS, one, patience=0.5)
    assert (bench.took, shape(call)[-1]) == (pytest.approx(0.8), ("backup", 200, ""))


def test_or_for_as_long_as_it_takes() -> None:
    bench, call = probing([Plan(head=20.0)], one, patience=None)
    assert (bench.took, shape(call)) == (pytest.approx(20.1), [("openai", 200, "")])


@pytest.mark.parametrize("how", ["refused", "reset", "busy", "error", "cut", "mute"])
def test_where_the_next_target_fails_the_one_behind_it_is_asked(how: str) -> None:
    async def script(bench: Bench) -> Call:
        bench.upstreams.plans |= {"backup": [Plan(head=0.1, how=how)], "third": QUICK}
        return await bench.one()

    bench, call = probing(STALLS, script, Fallback(to=("backup", "third")))
    assert bench.down.sent == said("third") + DONE
    assert [name for name, _, _ in shape(call)] == ["backup", "openai", "third"]
    assert (call.notes["probe"], call.notes["probe_to"], bench.took < 1) == ("won", "third", True)


def test_where_all_others_fail_it_is_waited_for() -> None:
    async def script(bench: Bench) -> Call:
        bench.upstreams.plans |= {"backup": [Plan(how="busy")], "third": [Plan(how="reset")]}
        return await bench.one()

    bench, call = probing([Plan(head=3.0)], script, Fallback(to=("backup", "third")))
    assert bench.down.sent == said("openai") + DONE
    assert [name for name, _, _ in shape(call)] == ["backup", "third", "openai"]
    assert call.notes["probe"] == "failed"


def test_a_target_that_is_to_be_probed_itself_is_no_help_where_another_is_well() -> None:
    async def script(bench: Bench) -> Call:
        assert bench.breakers is not None
        cell = bench.breakers._cell("backup")
        cell.adopt(opened=True, until=NANO + 1, at=1, now=0)
        bench.breakers.ajar.add("backup")
        bench.upstreams.plans |= {"backup": STALLS, "third": QUICK}
        return await bench.one()

    bench, _ = probing(STALLS, script, Fallback(to=("backup", "third")))
    assert bench.down.sent == said("third") + DONE
    assert bench.upstreams.sent == ["openai", "third"]


@pytest.mark.parametrize(
    "field", [b'"previous_response_id":"r"', b'"background":true', b'"tools":[{"type":"web_search"}]']
)
def test_what_is_not_done_twice_waits(field: bytes) -> None:
    body = b'{"model":"gpt-4o","stream":true,"input":"x",' + field + b"}"

    async def script(bench: Bench) -> Call:
        return await bench.one(body, path="/v1/responses")

    bench, call = probing([Plan(head=3.0)], script)
    assert [name for name, _, _ in shape(call)] == ["openai"]
    assert bench.upstreams.sent == ["openai"]


def test_without_another_target_it_is_waited_for() -> None:
    async def script(bench: Bench) -> Call:
        bench.world.controls.forced["backup"] = "open"
        return await bench.one()

    bench, call = probing([Plan(head=3.0)], script)
    assert shape(call) == [("openai", 200, "")]
    assert (call.notes["probe"], bench.took) == ("refused", pytest.approx(3.1))


# -- clients that leave ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0.0, 0.05, 0.15])
def test_a_client_that_leaves_ends_both_and_the_next_call_is_the_probe(at: float) -> None:
    async def script(bench: Bench) -> Call:
        call = await bench.one(act=Down.leave, at=at)
        assert outcome_of(call) == "cancelled"
        assert bench.took == pytest.approx(at)
        bench.upstreams.plans["openai"] = [Plan(head=0.1)]
        return await bench.one()

    bench, call = probing(STALLS, script)
    assert shape(call)[-1] == ("openai", 200, "")
    assert bench.changes[-1] == ("openai", "closed")


@pytest.mark.parametrize(("then", "state"), [(SLOWER, "closed"), ([Plan(head=0.8, how="reset")], "open")])
def test_a_client_that_leaves_its_answer_does_not_end_the_probe_behind_it(then: list[Plan], state: str) -> None:
    async def script(bench: Bench) -> Call:
        return await bench.one(act=Down.leave, at=0.25)

    bench, call = probing(then, script)
    assert outcome_of(call) == "cancelled"
    assert bench.changes == [("openai", "half_open"), ("openai", state)]


ENDS: dict[str, Callable[[asyncio.Task[Call], Down], object]] = {
    "cancelled": lambda task, down: task.cancel(),
    "left": lambda task, down: down.leave(),
    "draining": lambda task, down: down.interrupt(Draining("shutting down")),
    "stopped": lambda task, down: down.interrupt(RunStopped("stopped")),
}
MOMENTS = [0.0, 0.02, 0.05, 0.1, 0.12, 0.15, 0.2, 0.22, 0.25, 0.3, 0.35, 0.4]


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("at", MOMENTS)
@pytest.mark.parametrize("then", [STALLS, SLOWER, [Plan(connect=0.15, head=0.1)], [Plan(head=0.15, how="cut")]])
def test_killed_at_any_moment_it_ends_once_and_the_breaker_goes_on(then: list[Plan], at: float, how: str) -> None:
    """With a second that fails and a third; each reservation takes a moment, too."""

    async def script(bench: Bench) -> Call:
        bench.limited()
        bench.upstreams.plans |= {"backup": [Plan(head=0.05, how="busy")], "third": QUICK}
        records, loop = bench.world.journal.records, asyncio.get_running_loop()
        known = len(records)
        task = asyncio.create_task(bench.one())
        loop.call_later(at, lambda: ENDS[how](task, bench.down))
        await asyncio.wait([task])
        await asyncio.sleep(0.3)
        (call,) = records[known:]
        assert len(bench.down.endings) == 1
        assert bench.books is not None
        assert not bench.books.held
        ops = [op for op, _ in bench.books.charges]
        assert len(ops) == len(set(ops))
        assert sum(one.sent for one in call.attempts) == len(bench.upstreams.sent)
        bench.upstreams.plans |= {"openai": [Plan()], "backup": QUICK}
        await asyncio.sleep(10)
        for _ in range(2):  # the first of them may find that it is not well, or only a connection
            await bench.one()
            await asyncio.sleep(10)
        return await bench.one()

    bench, call = probing(then, script, Fallback(to=("backup", "third")))
    assert [name for name, _, _ in shape(call)] == ["openai"], "it is found well"
    assert bench.changes[-1] == ("openai", "closed")


# -- money and places --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("then", [STALLS, SLOWER])
def test_both_are_charged_once_whatever_comes_later(then: list[Plan]) -> None:
    async def script(bench: Bench) -> Call:
        books = bench.limited()
        call = await bench.one()
        before = list(books.charges)
        assert not books.held
        await asyncio.sleep(2)
        assert books.charges == before
        return call

    bench, call = probing(then, script)
    assert bench.books is not None
    (first, one), (second, two) = bench.books.charges
    assert (first, second) == (call.id, call.id + ".h0")
    held = next(demand.amount for demand in bench.books.asked[0] if demand.unit == "usd")
    assert (one.usd, one.calls) == (held, 1), "what it brings behind the call nobody counts"
    cost = call.attempts[0].cost
    assert cost
    assert call.money.total is not None
    assert call.money.components[HEDGED] == cost
    assert two.usd * 1000 == call.money.total - cost


def test_where_a_budget_has_no_room_for_both_it_is_waited_for() -> None:
    async def script(bench: Bench) -> Call:
        bench.limited(runs=Runs(budget_usd=0.00025, max_calls=10))
        return await bench.one()

    bench, call = probing([Plan(head=3.0)], script)
    assert (call.notes["probe"], shape(call)) == ("refused", [("openai", 200, "")])
    assert bench.books is not None
    assert len(bench.books.charges) == 1


def test_where_the_second_of_three_fails_each_is_held_and_charged_for_itself() -> None:
    async def script(bench: Bench) -> Call:
        bench.limited()
        bench.upstreams.plans |= {"backup": [Plan(head=0.1, how="cut")], "third": QUICK}
        return await bench.one()

    bench, call = probing(STALLS, script, Fallback(to=("backup", "third")))
    assert bench.books is not None
    assert [op for op, _ in bench.books.charges] == [call.id + ".h0", call.id, call.id + ".h1"]
    assert sum(charge.calls for _, charge in bench.books.charges[1:2]) == 1
    assert sum(call.money.components.values()) == call.money.total
    assert not bench.books.held


def test_it_keeps_its_place_in_a_pool_until_it_ends() -> None:
    book = PoolBook(0)
    book.configure({"openai": Bulkhead(upstream="openai", max=1)}, Priorities(()), 1, 0)

    def in_flight() -> int:
        return book.standing()["openai"][0]

    async def script(bench: Bench) -> Call:
        bench.trials.bulkheads = Bulkheads(book, Parking)
        call = await bench.one()
        assert in_flight() == 1
        await asyncio.sleep(0.6)
        assert in_flight() == 0
        return call

    probing(SLOWER, script)


def test_a_target_of_another_api_answers_in_the_words_of_the_client() -> None:
    async def script(bench: Bench) -> Call:
        bench.upstreams.plans["anthropic"] = [Plan(head=0.1, how="claude")]
        return await bench.one()

    bench, call = probing(SLOWER, script, Fallback(to=(Goal(upstream="anthropic", model="claude"),)))
    assert (call.model_sent, call.notes["translated"], outcome_of(call)) == ("claude", "anthropic", "ok")
    assert bench.down.sent.endswith(DONE)
    assert bench.changes[-1] == ("openai", "closed")


# -- the property: one answer, each attempt settled once, and the breaker knows at last --------------------------------

PLANS = st.builds(
    Plan,
    head=st.sampled_from([0.0, 0.1, 0.2, 0.5, 3.0, 9999.0]),
    content=st.sampled_from([0.0, 0.1, 0.2, 1.0, 9999.0]),
    how=st.sampled_from(["well", "well", "whole", "refused", "reset", "busy", "error", "cut", "page", "mute"]),
    pings=st.booleans(),
    connect=st.sampled_from([0.0, 0.0, 0.3]),
)


@settings(max_examples=200, deadline=None)
@given(PLANS, PLANS, PLANS, st.sampled_from([None, None, 0.0, 0.1, 0.25, 0.6]), st.sampled_from([0.0, 0.15]))
def test_exactly_one_answer_and_each_attempt_is_settled_once(
    first: Plan, second: Plan, third: Plan, leaves: float | None, patience: float
) -> None:
    async def script(bench: Bench) -> Call:
        bench.limited()
        bench.upstreams.plans |= {"backup": [second], "third": [third]}
        call = await bench.one(act=Down.leave, at=leaves if leaves is not None else 9.0)
        assert len(bench.down.endings) == 1
        return call

    bench, call = probing([first], script, Fallback(to=("backup", "third")), patience=patience)
    books, down = bench.books, bench.down
    assert books is not None
    told = [who for who in ("openai", "backup", "third") if b'"content":"' + who.encode() in down.sent]
    assert len(told) <= 1
    if told and outcome_of(call) == "ok":
        assert call.attempts[-1].target.upstream == told[0] == call.route.upstream
    assert sum(one.sent for one in call.attempts) == len(bench.upstreams.sent), "every attempt is in the record"
    assert not books.held
    ops = [op for op, _ in books.charges]
    assert len(ops) == len(set(ops))
    assert sum(charge.calls for op, charge in books.charges if op == call.id) <= 1
    assert sum(call.money.components.values()) == (call.money.total or 0)
