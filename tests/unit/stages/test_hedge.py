"""Hedges in virtual time: when a second attempt is made, which one answers, and that each is settled once."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.call import Call
from gateway.config.schema import Bulkhead, Fallback, Goal, Runs
from gateway.errors import Overtaken, RunStopped
from gateway.journal.convert import outcome_of, overhead_ns
from gateway.policy.breaker import NANO
from gateway.policy.pools import PoolBook
from gateway.policy.priorities import Priorities
from gateway.stages.account import HEDGED
from gateway.stages.bulkheads import Bulkheads
from gateway.stages.hedge import Manner
from gateway.stores.flights import Parking
from tests.unit.stages.racing import DONE, PING, WHOLE, Bench, Down, Plan, document, in_virtual_time, said, shape

CHAIN = Fallback(to=("backup",))
LATE = [Plan(head=9.0)]


def test_a_first_attempt_that_is_not_late_goes_alone() -> None:
    bench = Bench(CHAIN)
    bench.upstreams.plans["openai"] = [Plan(head=0.5, content=0.4)]
    call = bench.call()
    assert (shape(call), bench.upstreams.sent, "hedge" in call.notes) == ([("openai", 200, "")], ["openai"], False)
    assert bench.down.sent == said("openai") + DONE
    assert bench.took == pytest.approx(1.0)


@pytest.mark.parametrize("first", [Plan(head=9.0), Plan(head=0.1, content=9.0), Plan(head=0.1, content=9, pings=True)])
def test_the_second_is_passed_on_where_it_is_first_to_say_something(first: Plan) -> None:
    bench = Bench(CHAIN)
    bench.upstreams.plans = {"openai": [first], "backup": [Plan(head=0.2, content=0.3)]}
    call = bench.call()
    assert bench.down.sent == said("backup") + DONE
    assert bench.took == pytest.approx(1.0 + 0.5 + 0.1)
    lost, won = call.attempts
    assert (lost.target.upstream, won.target.upstream, won.status) == ("openai", "backup", 200)
    assert isinstance(lost.fault, Overtaken)
    assert lost.ended - lost.began == pytest.approx(1.5 * NANO)
    assert all(exchange.closed for exchange in bench.upstreams.opened)
    assert bench.down.head is not None
    assert b"x-tollgate-upstream: backup\r\nx-tollgate-attempts: 2\r\n" in bench.down.head[2]
    assert (call.notes["hedge"], call.notes["hedge_from"], call.notes["hedge_to"]) == ("won", "openai", "backup")
    assert outcome_of(call) == "ok"
    assert overhead_ns(call, call.ended - call.began) == pytest.approx(0, abs=1000)


@pytest.mark.parametrize("second", [Plan(head=9.0), Plan(head=0.1, content=9.0)])
def test_the_first_is_passed_on_where_it_says_something_after_all(second: Plan) -> None:
    bench = Bench(CHAIN)
    bench.upstreams.plans = {"openai": [Plan(head=1.4)], "backup": [second]}
    call = bench.call()
    assert bench.down.sent == said("openai") + DONE
    assert [code for _, _, code in shape(call)] == ["overtaken", ""]
    assert [upstream for upstream, _, _ in shape(call)] == ["backup", "openai"], "the one that answers stands last"
    assert call.notes["hedge"] == "lost"
    assert call.route.upstream == "openai"
    assert all(exchange.closed for exchange in bench.upstreams.opened)


def test_without_another_target_the_same_is_asked_once_more() -> None:
    bench = Bench()
    bench.upstreams.plans["openai"] = [Plan(head=9.0), Plan(head=0.2)]
    call = bench.call()
    assert bench.took == pytest.approx(1.3)
    assert shape(call) == [("openai", 0, "overtaken"), ("openai", 200, "")]


def test_answers_in_one_piece_are_hedged_as_well() -> None:
    bench = Bench(CHAIN)
    bench.upstreams.plans = {"openai": [Plan(head=9, how="whole")], "backup": [Plan(head=0.2, how="whole")]}
    call = bench.call(WHOLE)
    assert bench.down.sent == document("backup")
    assert shape(call) == [("openai", 0, "overtaken"), ("backup", 200, "")]
    assert bench.down.head is not None
    assert b"x-tollgate-cost-usd" in bench.down.head[2]


def test_a_target_of_another_api_is_asked_in_its_own_words() -> None:
    bench = Bench(Fallback(to=(Goal(upstream="anthropic", model="claude"),)))
    bench.upstreams.plans = {"openai": LATE, "anthropic": [Plan(head=9)]}
    bench.upstreams.plans["openai"] = [Plan(head=1.5)]
    call = bench.call()
    assert bench.down.sent == said("openai") + DONE
    assert [upstream for upstream, _, _ in shape(call)] == ["anthropic", "openai"]
    assert (call.model_sent, call.translated, "translated" in call.notes) == ("", None, False)
    assert call.answer is not None
    assert call.answer.usage_source in ("provider", "injected")


def test_and_is_passed_on_in_the_words_of_the_client() -> None:
    bench = Bench(Fallback(to=(Goal(upstream="anthropic", model="claude"),)))
    bench.upstreams.plans = {"openai": LATE, "anthropic": [Plan(head=0.2, how="claude")]}
    call = bench.call()
    chunks = [json.loads(line[6:]) for line in bench.down.sent.split(b"\n\n") if line.startswith(b"data: {")]
    text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert text == "the second"
    assert bench.down.sent.endswith(DONE)
    assert (call.model_sent, call.notes["translated"], outcome_of(call)) == ("claude", "anthropic", "ok")
    assert call.answer is not None
    assert call.answer.usage is not None
    assert (call.answer.usage.input_tokens, call.answer.usage.output_tokens) == (5, 2)


def test_where_both_fail_in_their_first_event_the_client_gets_its_status() -> None:
    """Also where that event was read in translation, to see whether it says something."""
    bench = Bench(Fallback(upstream="openai", to=(Goal(upstream="anthropic", model="claude"),)))
    bench.upstreams.plans = {"openai": [Plan(head=1.2, how="error")], "anthropic": [Plan(head=0.5, how="claude busy")]}
    bench.call()
    assert bench.down.head is not None
    assert bench.down.head[0] == 503
    assert b"busy" in bench.down.sent
    bench = Bench(Fallback(upstream="anthropic", to=(Goal(upstream="openai", model="gpt-4o"),)))
    bench.world.settings["aliases"] = {"gpt-4o": ("claude", "anthropic")}
    for _ in range(20):
        bench.hedges.heard(("anthropic", "claude", True), NANO, 0)
        bench.hedges.share("anthropic").earn()
    bench.upstreams.plans = {"anthropic": [Plan(head=1.2, how="claude busy")], "openai": [Plan(head=0.5, how="busy")]}
    call = bench.call()
    assert len(call.attempts) == 2
    alone = Bench(known=None)
    alone.world.settings["aliases"] = {"gpt-4o": ("claude", "anthropic")}
    alone.upstreams.plans = bench.upstreams.plans
    assert len(alone.call().attempts) == 1
    assert bench.down.head is not None
    assert alone.down.head is not None
    assert bench.down.head[0] == alone.down.head[0] == 500
    assert b"Overloaded" in bench.down.sent


# -- when none is made


def test_nothing_is_late_before_enough_answers_are_known() -> None:
    bench = Bench(CHAIN, known=None)
    bench.upstreams.plans = {"openai": [Plan(head=5.0)]}
    for _ in range(10):
        assert len(bench.call().attempts) == 1
    bench.upstreams.plans["openai"] = [Plan(head=4.9)]
    assert len(bench.call().attempts) == 1, "all of them took that long"
    bench.upstreams.plans["openai"] = [Plan(head=9.0)]
    assert len(bench.call().attempts) == 2


def test_hedges_are_a_share_of_the_calls() -> None:
    bench = Bench(CHAIN, share=0.05)
    bench.hedges._shares.clear()
    bench.upstreams.plans = {"openai": [Plan(head=2.0)]}
    hedged = 0
    for _ in range(100):
        bench.hedges.heard(("openai", "gpt-4o", True), NANO, 0)
        for _ in range(20):
            bench.hedges.heard(("openai", "gpt-4o", True), NANO, 0)
        hedged += len(bench.call().attempts) - 1
    assert hedged == 5


@pytest.mark.parametrize(
    "field",
    [
        b'"previous_response_id":"r"',
        b'"background":true',
        b'"tools":[{"type":"web_search"}]',
        b'"conversation":"c"',
    ],
)
def test_what_is_not_done_twice_is_not_hedged(field: bytes) -> None:
    bench = Bench(CHAIN)
    bench.upstreams.plans["openai"] = [Plan(head=3.0)]
    body = b'{"model":"gpt-4o","stream":true,"input":"x",' + field + b"}"

    assert len(bench.call(body, path="/v1/responses").attempts) == 1
    plain = Bench(CHAIN)
    plain.upstreams.plans["openai"] = [Plan(head=3.0)]
    body = body.replace(b"," + field, b"")
    assert len(plain.call(body, path="/v1/responses").attempts) == 2


def test_a_second_attempt_may_be_unwanted() -> None:
    bench = Bench(CHAIN)
    bench.hedges.manner = Manner(share=1.0, concerns=lambda call: call.who.agent != "tester")
    bench.upstreams.plans["openai"] = [Plan(head=3.0)]
    assert len(bench.call().attempts) == 1


# -- what fails


@pytest.mark.parametrize("how", ["refused", "reset", "busy", "error", "cut", "page"])
@pytest.mark.parametrize("back", [2.0, 0.3])
def test_a_second_that_fails_leaves_the_first_alone(how: str, back: float) -> None:
    bench = Bench(CHAIN, breaking=True)
    bench.upstreams.plans = {"openai": [Plan(head=1.0 + back)], "backup": [Plan(head=0.5, how=how)]}
    call = bench.call()
    assert bench.down.sent == (said("openai") + DONE if how != "page" or back < 0.5 else b"") or how == "page"
    if how != "page":
        assert outcome_of(call) == "ok"
        assert call.attempts[-1].target.upstream == "openai"
        assert call.notes["hedge"] == ("failed" if back > 1 else "lost")
    assert all(exchange.closed for exchange in bench.upstreams.opened)


@pytest.mark.parametrize("how", ["refused", "reset", "busy", "error", "cut"])
def test_a_first_that_fails_while_the_second_is_under_way_waits_for_it(how: str) -> None:
    bench = Bench(CHAIN, breaking=True)
    bench.upstreams.plans = {"openai": [Plan(head=1.2, how=how)], "backup": [Plan(head=0.5)]}
    for _ in range(2):
        call = bench.call()
        assert bench.down.sent == said("backup") + DONE
        assert (len(call.attempts), call.attempts[-1].target.upstream) == (2, "backup")
        assert call.attempts[0].fault is None or call.attempts[0].fault.code != "overtaken"
        assert (how == "cut") == (HEDGED in call.money.components), "an error costs nothing, a cut answer may"
    assert bench.changes, "its breaker was told"
    assert {state for _, state in bench.changes} == {"open"}
    assert all(name.startswith("openai") for name, _ in bench.changes)


def test_where_both_fail_the_failure_of_the_first_is_treated_as_ever() -> None:
    bench = Bench(Fallback(to=("backup", "third")))
    bench.upstreams.plans = {
        "openai": [Plan(head=1.2, how="reset")],
        "backup": [Plan(head=0.5, how="busy")],
        "third": [Plan(head=0.1)],
    }
    call = bench.call()
    assert bench.down.sent == said("third") + DONE
    assert [upstream for upstream, _, _ in shape(call)] == ["backup", "openai", "third"]
    assert bench.upstreams.sent == ["openai", "backup", "third"], "none is asked twice"


def test_overtaken_is_no_failure_to_a_breaker() -> None:
    bench = Bench(CHAIN, breaking=True)
    bench.upstreams.plans = {"openai": LATE, "backup": [Plan(head=0.2)]}
    for _ in range(6):
        for _ in range(20):
            bench.hedges.heard(("openai", "gpt-4o", True), NANO, 0)
        assert bench.call().notes["hedge"] == "won"
    assert bench.changes == []


def test_a_probe_that_is_overtaken_goes_on_behind_its_call_and_the_next_call_is_none() -> None:
    """Also where the second attempt is a hedge, since probes are to be waited for."""
    bench = Bench(CHAIN, breaking=True)
    bench.upstreams.plans = {"openai": [Plan(how="refused")], "backup": [Plan(head=0.2)]}
    for _ in range(2):
        bench.call()
    assert bench.changes, "it is left alone"
    assert bench.breakers is not None
    for cell in bench.breakers._named.values():
        cell.until = 0  # its time is over
    bench.changes.clear()
    bench.upstreams.plans["openai"] = [Plan(head=1000.0)]
    bench.upstreams.sent.clear()

    async def script() -> Call:
        assert (await bench.one()).notes["hedge"] == "won"
        assert bench.took < 2, "the probe cost its call a hedge, not the time limit"
        assert [state for _, state in bench.changes] == ["half_open"], "it may only be slower"
        call = await bench.one()
        await asyncio.sleep(900)
        return call

    assert "hedge" not in in_virtual_time(script).notes
    assert bench.upstreams.sent == ["openai", "backup", "backup"]
    assert [state for _, state in bench.changes] == ["half_open", "open"]


def test_a_target_that_is_left_alone_gets_no_second_attempt() -> None:
    bench = Bench(Fallback(to=("backup", "third")))
    bench.world.controls.forced["backup"] = "open"
    bench.upstreams.plans = {"openai": LATE, "third": [Plan(head=0.2)]}
    assert shape(bench.call())[-1] == ("third", 200, "")
    bench.world.controls.forced["third"] = "open"
    bench.world.controls.forced["openai"] = "closed"
    bench.upstreams.plans = {"openai": [Plan(head=9.0), Plan(head=0.1)]}
    assert shape(bench.call())[-1] == ("openai", 200, "")


# -- pings and leaving


def test_a_stream_whose_hedge_is_refused_goes_on_as_ever() -> None:
    """What is no content is passed on again, once there is no other to wait for."""
    bench = Bench(share=0.05)
    bench.hedges._shares.clear()
    for _ in range(20):
        bench.hedges.share("openai").earn()
    bench.upstreams.plans["openai"] = [Plan(head=0.1, content=9.0, pings=True)]
    bench.limited(runs=Runs(budget_usd=0.00025, max_calls=10))
    call = bench.call()
    assert (call.notes["hedge"], len(call.attempts)) == ("refused", 1)
    assert bench.down.sent == PING + said("openai") + DONE
    assert bench.books is not None
    assert not bench.books.held
    assert len(bench.books.charges) == 1


@pytest.mark.parametrize(
    ("first", "status"), [(Plan(head=1.05, how="busy"), 503), (Plan(head=0.6, content=0.5, pings=True), 200)]
)
def test_a_first_that_has_answered_is_not_told_that_its_hedge_is_refused(first: Plan, status: int) -> None:
    """It is passed on whole, also what of it is yet to come."""
    bench = Bench()
    bench.upstreams.plans["openai"] = [first]
    bench.limited(runs=Runs(budget_usd=0.00025, max_calls=10))
    call = bench.call()
    assert (call.notes["hedge"], shape(call)) == ("refused", [("openai", status, "")])
    assert bench.down.head is not None
    assert bench.down.head[0] == status
    assert bench.down.endings == ["finish"]
    assert b"overtaken" not in bench.down.sent


@pytest.mark.parametrize("at", [0.5, 1.0, 1.05, 1.15, 1.6])
def test_a_client_that_leaves_ends_both(at: float) -> None:
    bench = Bench(CHAIN)
    books = bench.limited()
    bench.upstreams.plans = {"openai": [Plan(head=0.1, content=9.0)], "backup": [Plan(head=0.1, content=9.0)]}
    call = bench.call(act=Down.leave, at=at)
    assert outcome_of(call) == "cancelled"
    assert bench.took == pytest.approx(at)
    assert bench.down.endings == ["abort"]
    assert all(exchange.closed for exchange in bench.upstreams.opened)
    assert not books.held
    assert sum(charge.usd > 0 for _, charge in books.charges) == len(bench.upstreams.sent)


def test_a_call_that_is_stopped_ends_both() -> None:
    bench = Bench(CHAIN)
    bench.upstreams.plans = {"openai": LATE, "backup": LATE}
    call = bench.call(act=lambda down: down.interrupt(RunStopped("stopped")), at=1.5)
    assert isinstance(call.fault, RunStopped)
    assert bench.took == pytest.approx(1.5)
    assert all(exchange.closed for exchange in bench.upstreams.opened)


# -- money


def test_both_are_held_and_both_are_charged() -> None:
    bench = Bench(CHAIN)
    books = bench.limited()
    bench.upstreams.plans = {"openai": LATE, "backup": [Plan(head=0.2)]}
    call = bench.call()
    (first, one), (second, two) = books.charges
    assert (first, second) == (call.id, call.id + ".h0")
    assert {demand.unit for demand in books.asked[1]} == {"usd"}, "the call is counted once"
    assert (one.calls, books.spent("run:run-1|calls|life")) == (1, 1)
    held = next(demand.amount for demand in books.asked[0] if demand.unit == "usd")
    assert one.usd == held, "what the first one brought before it was broken off, nobody knows"
    cost = call.attempts[0].cost
    assert cost is not None
    assert cost > 0
    assert call.money.total is not None
    assert call.money.components[HEDGED] == cost
    assert two.usd * 1000 == call.money.total - cost == 5 * 10**6 + 2 * 2 * 10**6
    assert sum(call.money.components.values()) == call.money.total
    assert not books.held


def test_what_was_not_sent_costs_nothing_and_the_call_counts() -> None:
    bench = Bench(CHAIN)
    books = bench.limited()
    bench.upstreams.plans = {"openai": [Plan(head=9.0, how="refused")], "backup": [Plan(head=0.2)]}
    call = bench.call()
    assert bench.upstreams.sent == ["backup"]
    (_, one), (_, two) = books.charges
    assert (one.usd, one.tokens, one.calls) == (0, 0, 1)
    assert two.usd * 1000 == call.money.total == 9 * 10**6
    assert books.spent("run:run-1|calls|life") == 1


# -- the property: one answer, and each attempt settled once

PLANS = st.builds(
    Plan,
    head=st.sampled_from([0.0, 0.5, 0.9, 1.0, 1.1, 2.0, 9.0]),
    content=st.sampled_from([0.0, 0.1, 0.9, 1.0, 3.0]),
    how=st.sampled_from(["well", "well", "well", "whole", "refused", "reset", "busy", "error", "cut", "page"]),
    pings=st.booleans(),
)
LEAVES = st.sampled_from([None, None, None, 0.0, 0.4, 1.0, 1.1, 1.5, 2.0, 4.0])


@settings(max_examples=400, deadline=None)
@given(
    st.lists(PLANS, min_size=1, max_size=3),
    st.lists(PLANS, min_size=1, max_size=2),
    LEAVES,
    st.booleans(),
    st.booleans(),
)
# The second has its head just as it is broken off: told while it waits for nothing, it ends where it would wait next.
@example(
    first=[Plan(head=2.0), Plan(head=0.9, content=0.9, pings=True)],
    second=[Plan()],
    leaves=2.0,
    chained=False,
    breaking=False,
)
@example(
    first=[Plan(head=1.0, content=1.0), Plan(head=0.9, content=0.9, pings=True)],
    second=[Plan()],
    leaves=None,
    chained=False,
    breaking=False,
)
def test_exactly_one_answer_and_each_attempt_is_settled_once(
    first: list[Plan], second: list[Plan], leaves: float | None, chained: bool, breaking: bool
) -> None:
    bench = Bench(*([CHAIN] if chained else []), breaking=breaking, attempts=2, base=0.1)
    books = bench.limited()
    bench.upstreams.plans = {"openai": list(first), "backup": list(second)}
    call = bench.call(act=Down.leave if leaves is not None else None, at=leaves or 0.0)
    down = bench.down
    assert len(down.endings) == 1
    assert down.sent.count(b"data: [DONE]") <= 1
    told = [who for who in ("openai", "backup") if b'"content":"' + who.encode() in down.sent]
    assert len(told) <= 1
    assert down.sent.count(b'"content"') <= 1
    if told and outcome_of(call) == "ok":
        assert call.attempts[-1].target.upstream == told[0] == call.route.upstream
    assert sum(one.sent for one in call.attempts) == len(bench.upstreams.sent), "every attempt is in the record"
    assert all(exchange.closed for exchange in bench.upstreams.opened)
    assert not books.held
    ops = [op for op, _ in books.charges]
    assert len(ops) == len(set(ops))
    assert sum(charge.calls for op, charge in books.charges if ".h" not in op and op == call.id) <= 1
    assert sum(call.money.components.values()) == (call.money.total or 0)
    if bench.breakers is not None:
        assert not any(cell._probe_at for cell in bench.breakers._named.values()), "no permit is kept"
    assert len(bench.world.journal.records) == 1


# -- in pools --------------------------------------------------------------------------------------------------------


def pooled(bench: Bench, *rules: str) -> Bulkheads:
    """Pools of one place each, for these upstreams."""
    book = PoolBook(0)
    book.configure({rule: Bulkhead(upstream=rule, max=1) for rule in rules}, Priorities(()), 1, 0)
    bench.trials.bulkheads = Bulkheads(book, Parking)
    return bench.trials.bulkheads


def in_flight(pools: Bulkheads) -> list[int]:
    return [figures[0] for figures in pools.book.standing().values()]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Plan(head=9.0), Plan(head=0.2)),
        (Plan(head=1.4), Plan(head=9.0)),
        (Plan(head=9.0, how="reset"), Plan(head=0.2, how="busy")),
        (Plan(head=1.2, how="refused"), Plan(head=0.5)),
    ],
)
def test_each_of_the_two_has_a_place_in_the_pool_of_its_own_target(first: Plan, second: Plan) -> None:
    bench = Bench(CHAIN, breaking=True)
    pools = pooled(bench, "openai", "backup")
    bench.upstreams.plans = {"openai": [first], "backup": [second]}
    seen: list[list[int]] = []
    call = bench.call(act=lambda down: seen.append(in_flight(pools)), at=1.1)
    assert seen == [[1, 1]]
    assert {upstream for upstream, _, _ in shape(call)} == {"openai", "backup"}
    assert in_flight(pools) == [0, 0]


def test_where_no_place_is_free_there_is_no_second() -> None:
    bench = Bench(CHAIN, breaking=True)
    pools = pooled(bench, "*")
    bench.upstreams.plans = {"openai": [Plan(head=3.0)], "backup": [Plan(head=0.2)]}
    call = bench.call()
    assert shape(call) == [("openai", 200, "")]
    assert call.notes["hedge"] == "refused"
    assert in_flight(pools) == [0]
