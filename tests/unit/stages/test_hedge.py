"""Hedges in virtual time: when a second attempt is made, which one answers, and that each is settled once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import Struct

from gateway.call import Attempt, Call
from gateway.config.schema import Bulkhead, Fallback, Goal, Limits, Runs
from gateway.errors import ClientGone, ConnectFailed, GatewayError, Overtaken, RunStopped, UpstreamReset
from gateway.journal.convert import outcome_of, overhead_ns
from gateway.pipeline import serve
from gateway.policy.breaker import NANO, Terms
from gateway.policy.chains import Chains
from gateway.policy.pools import PoolBook
from gateway.policy.priorities import Priorities
from gateway.ports import Downstream
from gateway.spend import Demand, Grant, Refusal
from gateway.stages.account import HEDGED
from gateway.stages.breaking import Breakers
from gateway.stages.bulkheads import Bulkheads
from gateway.stages.hedge import Hedges, Manner
from gateway.stages.trials import Manner as Retries
from gateway.stages.trials import RetryingTrials
from gateway.stores.aside import Aside
from gateway.stores.flights import Parking, paused
from gateway.testing.clock import VirtualLoop
from gateway.testing.doubles import MemoryDown, MemoryExchange, World, ask
from gateway.testing.memory_budgets import NOW, MemoryBudgets, limit

CHAT = "/v1/chat/completions"
STREAM = b'{"model":"gpt-4o","stream":true,"max_tokens":50,"messages":[{"role":"user","content":"hi"}]}'
WHOLE = STREAM.replace(b'"stream":true,', b"")
JSON, SSE = (b"Content-Type", b"application/json"), (b"Content-Type", b"text/event-stream")
COUNT = b'"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}'
PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error":{"message":"busy","type":"server_error","code":"server_is_overloaded"}}\n\n'
USAGE = b'data: {"id":"c","model":"gpt-4o","choices":[],' + COUNT + b"}\n\n"


def said(who: str) -> bytes:
    delta = b'{"index":0,"delta":{"content":"' + who.encode() + b'"},"finish_reason":"stop"}'
    return b'data: {"id":"c","model":"gpt-4o","choices":[' + delta + b"]}\n\n"


def claude(*texts: str) -> list[bytes]:
    """The events of an answer of Anthropic's, one piece each."""
    start = {"id": "m", "type": "message", "role": "assistant", "model": "claude", "content": [], "usage": {}}
    start["usage"] = {"input_tokens": 5, "output_tokens": 1}
    block = {"type": "text", "text": ""}
    events: list[dict[str, Any]] = [{"type": "message_start", "message": start}]
    events.append({"type": "content_block_start", "index": 0, "content_block": block})
    events += [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}} for text in texts
    ]
    events.append({"type": "content_block_stop", "index": 0})
    events.append(
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    )
    events.append({"type": "message_stop"})
    return [b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode()) for event in events]


CLAUDE_BUSY = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'


def document(who: str) -> bytes:
    message = b'{"index":0,"message":{"content":"' + who.encode() + b'"}}'
    return b'{"id":"c","model":"gpt-4o","choices":[' + message + b"]," + COUNT + b"}"


class Plan(Struct):
    """What an upstream does: seconds to the head and from there to the content, and how it goes."""

    head: float = 0.0
    content: float = 0.0
    how: str = "well"  # well | whole | refused | reset | busy | error | cut | page
    pings: bool = False


class TimedExchange(MemoryExchange):
    """Pieces that come in their time; `interrupt` ends the wait, or the next one, as that of net.exchange does."""

    def __init__(
        self, world: World, status: int, headers: Any, timed: list[tuple[float, bytes | GatewayError]]
    ) -> None:
        super().__init__(world.log, status, headers, [])
        self._timed = timed
        self.told: GatewayError | None = None
        self.waiter: asyncio.Future[None] | None = None

    def interrupt(self, fault: GatewayError) -> None:
        self.told = fault
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def wait(self, seconds: float) -> None:
        if self.told is None:  # else it came while nothing was waited for
            loop = asyncio.get_running_loop()
            waiter = self.waiter = loop.create_future()
            timer = loop.call_later(seconds, lambda: None if waiter.done() else waiter.set_result(None))
            try:
                await waiter
            finally:
                timer.cancel()
        fault, self.told = self.told, None
        if fault is not None:
            raise fault

    async def read(self) -> bytes:
        if self.pieces:
            piece = self.pieces.pop(0)
            assert isinstance(piece, bytes)
            return piece
        if not self._timed:
            return b""
        seconds, piece = self._timed[0]
        self._timed[0] = (0.0, piece)
        await self.wait(seconds)
        self._timed.pop(0)
        if isinstance(piece, GatewayError):
            raise piece
        return piece

    async def read_within(self, seconds: float) -> bytes | None:
        return await self.read()


class TimedUpstreams:
    """`ports.Upstreams`: does what is planned for each upstream, in virtual time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.plans: dict[str, list[Plan]] = {}
        self.opened: list[TimedExchange] = []
        self.sent: list[str] = []

    async def open(
        self,
        attempt: Attempt,
        head: bytes,
        body: bytes,
        owner: Downstream,
        *,
        patience: object = None,
        fresh: bool = False,
    ) -> TimedExchange:
        name = attempt.target.upstream
        plans = self.plans.get(name, [])
        plan = plans.pop(0) if len(plans) > 1 else plans[0] if plans else Plan()
        exchange = self.made(name, plan)
        owner.on_gone = exchange.interrupt
        try:
            if plan.how == "refused":
                await exchange.wait(plan.head)
                raise ConnectFailed("refused")
            attempt.sent = True
            self.sent.append(name)
            await exchange.wait(plan.head)
            if plan.how == "reset":
                raise UpstreamReset("reset")
        except BaseException:
            exchange.close()
            raise
        return exchange

    def made(self, name: str, plan: Plan) -> TimedExchange:
        pings: list[tuple[float, bytes | GatewayError]] = [(0.0, PING)] if plan.pings else []
        if plan.how == "busy":
            exchange = TimedExchange(self.world, 503, (JSON,), [(0.0, b'{"error":{"message":"busy"}}')])
        elif plan.how == "page":
            exchange = TimedExchange(self.world, 200, ((b"Content-Type", b"text/html"),), [(0.0, b"<html>")])
        elif plan.how == "whole":
            exchange = TimedExchange(self.world, 200, (JSON,), [(plan.content, document(name))])
        elif plan.how == "claude":
            said_so: list[tuple[float, bytes | GatewayError]] = [(0.0, event) for event in claude("the ", "second")]
            exchange = TimedExchange(self.world, 200, (SSE,), [(plan.content, PING), *said_so])
        elif plan.how == "claude busy":
            exchange = TimedExchange(self.world, 200, (SSE,), [(plan.content, CLAUDE_BUSY)])
        elif plan.how == "error":
            exchange = TimedExchange(self.world, 200, (SSE,), [*pings, (plan.content, ERROR)])
        elif plan.how == "cut":
            exchange = TimedExchange(self.world, 200, (SSE,), [*pings, (plan.content, UpstreamReset("cut"))])
        else:
            pieces: list[tuple[float, bytes | GatewayError]] = [(plan.content, said(name)), (0.1, USAGE), (0.0, DONE)]
            exchange = TimedExchange(self.world, 200, (SSE,), [*pings, *pieces])
        self.opened.append(exchange)
        return exchange


class Down(MemoryDown):
    """One that tells who waits, as the server's does."""

    def interrupt(self, fault: GatewayError) -> None:
        super().interrupt(fault)
        if self.on_gone is not None:
            self.on_gone(fault)

    def leave(self) -> None:
        self.gone = True
        self.interrupt(ClientGone())

    async def drained(self) -> None:
        await asyncio.sleep(0)
        self.paused = False


class TimedBudgets(MemoryBudgets):
    """A store that takes a moment."""

    async def reserve(self, op: str, demands: Sequence[Demand]) -> Grant | Refusal:
        await asyncio.sleep(0.1 if ".h" in op else 0.0)
        self.asked.append(demands)
        return self.book.reserve(op, demands, "me", NOW)


class Bench:
    """A world in virtual time, with an upstream `backup` beside the first, that knows what is late: a second."""

    def __init__(
        self, *chain: Fallback, breaking: bool = False, share: float = 1.0, known: float | None = 1.0, **retries: Any
    ) -> None:
        self.world = World()
        self.world.step = 0
        openai = self.world.specs["openai"]
        for name in ("backup", "third"):
            target = openai.target.__class__(name, name, "192.0.2.9", 9, False, b"")
            auth = ((b"authorization", b"Bearer of-" + name.encode()),)
            self.world.specs[name] = openai.__class__(name=name, family="openai", target=target, host=b"h", auth=auth)
        self.upstreams = TimedUpstreams(self.world)
        self.changes: list[tuple[str, str]] = []
        terms = Terms(consecutive=2, pause=NANO, longest=4 * NANO)
        tell: Any = lambda name, change: self.changes.append((name, str(change.state)))  # noqa: E731
        self.breakers = Breakers(terms, slow=0, refuse=False, tell=tell) if breaking else None
        self.hedges = Hedges(Manner(share=share, sample=10), Aside())
        retries.setdefault("attempts", 1)
        self.trials = RetryingTrials(Retries(**retries), Chains(chain), paused, self.breakers, hedges=self.hedges)
        self.books: MemoryBudgets | None = None
        for stream in (True, False) if known is not None else ():
            for _ in range(20):
                self.hedges.heard(("openai", "gpt-4o", stream), int((known or 0) * NANO), 0)
        for _ in range(20):
            self.hedges.share("openai").earn()

    def limited(self, **limits: Any) -> MemoryBudgets:
        limit(self.world, limits=Limits(rpm=60), **{"runs": Runs(budget_usd=1, max_calls=10), **limits})
        self.books = self.world.settings["admission"]._budgets = TimedBudgets(self.world.log)
        return self.books

    def call(
        self, body: bytes = STREAM, act: Callable[[Down], None] | None = None, at: float = 0.0, path: str = CHAT
    ) -> Call:
        """One call to its end; `act` is done with its client `at` so many seconds."""

        async def main() -> Call:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            down = self.down = Down(self.world.log)
            self.world.settings["trials"] = self.trials
            settings = dict(self.world.settings)
            gw = self.world.gateway()
            self.world.settings = settings
            gw = gw.__class__(**{name: getattr(gw, name) for name in gw.__struct_fields__} | {
                "upstreams": self.upstreams, "monotonic": lambda: loop.time_ns() + NANO, "trials": self.trials,
            })  # fmt: skip
            if act is not None:
                loop.call_later(at, act, down)
            await serve(ask(path, body), down, gw)
            self.took = loop.time()
            await asyncio.sleep(0.2)  # what was broken off ends, and who still asks for money gives it back
            assert len(asyncio.all_tasks()) == 1, "nothing goes on behind a call"
            return self.world.journal.records[-1]

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(main())


def shape(call: Call) -> list[tuple[str, int, str]]:
    return [(one.target.upstream, one.status, one.fault.code if one.fault else "") for one in call.attempts]


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


def test_a_probe_that_is_overtaken_was_too_slow_and_the_next_call_is_none() -> None:
    bench = Bench(CHAIN, breaking=True)
    bench.upstreams.plans = {"openai": [Plan(how="refused")], "backup": [Plan(head=0.2)]}
    for _ in range(2):
        bench.call()
    assert bench.changes, "it is left alone"
    assert bench.breakers is not None
    for cell in bench.breakers._named.values():
        cell.until = 0  # its time is over
    bench.changes.clear()
    bench.upstreams.plans["openai"] = LATE
    bench.upstreams.sent.clear()
    assert bench.call().notes["hedge"] == "won"
    assert bench.took < 2, "the probe cost its call a hedge, not the time limit"
    assert [state for _, state in bench.changes] == ["half_open", "open"]
    assert "hedge" not in bench.call().notes
    assert bench.upstreams.sent == ["openai", "backup", "backup"]


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
