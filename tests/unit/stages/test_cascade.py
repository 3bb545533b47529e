"""A cascade in doubles: what is withheld, what is asked instead, what reaches the client, and what all of it costs."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest

from gateway.call import Call, Waits
from gateway.config.schema import Budget, Limits
from gateway.config.schema_routing import Cascade, Learn, Route, RouteTo
from gateway.dialects.checkable import Checkable
from gateway.dialects.items import read_item
from gateway.errors import ClientGone, NoPlace, UpstreamReset
from gateway.journal.convert import outcome_of
from gateway.pipeline import serve
from gateway.policy.breaker import NANO, Terms
from gateway.policy.bulkhead import HELD, WAITING, Place, Wish
from gateway.policy.chains import Chains
from gateway.policy.pace import Paces
from gateway.policy.routing_rules import Rules
from gateway.ports import Downstream
from gateway.stages.account import FAILED
from gateway.stages.breaking import Breakers
from gateway.stages.cascade import VERDICTS, WITHHELD, Cascades
from gateway.stages.learned import LearnedChoice
from gateway.stages.route import Router
from gateway.stages.trials import Manner, RetryingTrials
from gateway.testing.doubles import World, ask, drive
from gateway.testing.memory_budgets import MemoryBudgets, limit

CHAT = "/v1/chat/completions"
JSON, SSE = (b"Content-Type", b"application/json"), (b"Content-Type", b"text/event-stream")
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
FORM = {"type": "json_schema", "json_schema": {"name": "p", "schema": SCHEMA}}
USED = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
COST = 5 * 10**6 + 2 * 2 * 10**6  # pico-USD of that
BUSY = b'{"error":{"message":"busy","type":"server_error","code":"server_is_overloaded"}}'
GOOD, BAD = '{"age": 3}', '{"age": "3"}'
PING = b": ping\n\n"


def question(model: str = "cheap", **more: Any) -> bytes:
    return json.dumps({"model": model, "max_tokens": 50, "messages": [], "response_format": FORM, **more}).encode()


def document(text: str, reason: str = "stop") -> bytes:
    choice = {"index": 0, "message": {"content": text}, "finish_reason": reason}
    return json.dumps({"id": "c", "model": "m", "choices": [choice], "usage": USED}).encode()


def stream(*texts: str, reason: str = "stop") -> list[bytes]:
    def chunk(delta: dict[str, str], ended: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": ended}
        return b"data: %b\n\n" % json.dumps({"id": "c", "model": "m", "choices": [choice], **more}).encode()

    return [*[chunk({"content": text}) for text in texts], chunk({}, reason, usage=USED), b"data: [DONE]\n\n"]


class Bench:
    """A world with a rule of three targets, from cheap to dear."""

    def __init__(self, *to: str | RouteTo, hold_bytes: int = 65_536, breaking: bool = False, **rule: Any) -> None:
        self.world = World()
        rules = Rules([Route(to=to or ("cheap", "middle", "dear"), cascade=Cascade(hold_bytes), **rule)])
        learned = LearnedChoice(rules.terms, dict, read_item) if any(rules.terms) else None
        router = Router(rules, dict, Paces(), learned=learned, cascades=Cascades(rules.cascades, Checkable()))
        self.timers: list[Callable[[], None]] = []
        terms = Terms(consecutive=1, pause=NANO * 10**6)
        self.breakers = Breakers(terms, slow=0, refuse=False, tell=lambda name, change: None) if breaking else None
        self.trials = RetryingTrials(Manner(), Chains(()), self.pause, self.breakers, later=self.later)
        self.world.settings |= {"router": router, "trials": self.trials}
        self.world.settings["waits"] = lambda call: Waits(5, 60, 60, 60, 600, ping=10.0)

    async def pause(self, down: Downstream, seconds: float) -> None:
        raise AssertionError("an escalation waits for nothing")

    def later(self, seconds: float, act: Callable[[], None]) -> Callable[[], None]:
        assert seconds == 10.0
        self.timers.append(act)
        return lambda: self.timers.remove(act) if act in self.timers else None

    def strike(self) -> None:
        """Ten seconds pass."""
        due, self.timers = self.timers, []
        for act in due:
            act()

    def answers(self, *bodies: bytes | list[Any]) -> None:
        """A list is a stream in pieces."""
        for body in bodies:
            pieces = body if isinstance(body, list) else [body]
            self.world.answer(200, (SSE if isinstance(body, list) else JSON,), pieces)

    def call(self, body: bytes | None = None, *headers: tuple[bytes, bytes], path: str = CHAT) -> Call:
        drive(serve(ask(path, body or question(), *headers), self.world.down, self.world.gateway()))
        return self.world.call

    @property
    def head(self) -> bytes:
        assert self.world.down.head is not None
        return self.world.down.head[2]

    @property
    def models(self) -> list[str]:
        return [attempt.model for attempt in self.world.call.attempts]


def codes(call: Call) -> list[str]:
    return [attempt.fault.code if attempt.fault is not None else "" for attempt in call.attempts]


def check_money(call: Call, attempts: int) -> None:
    """All attempts are paid for, each once, and the components say so."""
    assert call.money.total == attempts * COST
    assert sum(call.money.components.values()) == call.money.total
    assert call.money.components.get(FAILED, 0) == (attempts - 1) * COST


# -- what holds is passed on --------------------------------------------------------------------------------------


def test_a_cheap_answer_that_holds_is_passed_on_as_it_came() -> None:
    bench = Bench()
    bench.answers(document(GOOD))
    call = bench.call()
    assert bench.models == ["cheap"]
    assert bench.world.down.sent == document(GOOD)
    assert call.notes[VERDICTS] == "ok"
    assert b"x-tollgate-cascade: ok\r\n" in bench.head
    check_money(call, 1)


def test_so_is_a_stream_and_nothing_of_it_before_it_was_checked() -> None:
    bench = Bench()
    pieces = stream('{"age"', ": 3}")
    bench.answers(pieces)
    call = bench.call(question(stream=True))
    assert bench.world.down.sent == b"".join(pieces)
    assert (call.notes[VERDICTS], outcome_of(call)) == ("ok", "ok")
    assert bench.world.log[-1] == ("finish", b"".join(pieces))
    check_money(call, 1)


@pytest.mark.parametrize(
    "body",
    [{"response_format": None}, {"response_format": {"type": "text"}}, {"n": 1, "response_format": None}],
)
def test_what_cannot_be_checked_goes_as_ever(body: dict[str, Any]) -> None:
    bench = Bench()
    pieces = stream("I think", " so.")
    bench.answers(pieces)
    call = bench.call(question(stream=True, **body))
    assert (call.check, VERDICTS in call.notes, bench.models) == (None, False, ["cheap"])
    assert bench.world.log.index(("write", pieces[0])) < bench.world.names().index("finish")


# -- what does not hold is withheld -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (document(BAD), "schema"),
        (document("Here: {}"), "json"),
        (document(GOOD, "length"), "length"),
        (document("", "content_filter"), "refusal"),
    ],
)
def test_an_answer_that_fails_is_charged_and_the_next_target_is_asked(wrong: bytes, why: str) -> None:
    bench = Bench(breaking=True)
    bench.answers(wrong, document(GOOD))
    call = bench.call()
    assert bench.models == ["cheap", "middle"]
    assert b'"model": "middle"' in bench.world.upstreams.sent[1]
    assert bench.world.down.sent == document(GOOD)
    assert codes(call) == ["unverified", ""]
    assert call.notes[VERDICTS] == f"{why},ok"
    assert f"x-tollgate-cascade: {why}, ok\r\n".encode() in bench.head
    assert b"x-tollgate-attempts: 2\r\n" in bench.head
    assert "fallback" not in call.notes
    check_money(call, 2)
    assert call.attempts[0].cost == COST
    assert bench.breakers is not None
    assert not bench.breakers.ajar  # after one failure it would be open


def test_the_last_answer_is_passed_on_whatever_it_is() -> None:
    bench = Bench()
    bench.answers(document(BAD), document("no"), document(BAD))
    call = bench.call()
    assert bench.models == ["cheap", "middle", "dear"]
    assert bench.world.down.sent == document(BAD)
    assert call.notes[VERDICTS] == "schema,json,schema"
    assert b"x-tollgate-cascade: schema, json, schema\r\n" in bench.head
    assert (call.status, outcome_of(call)) == (200, "ok")
    check_money(call, 3)


def test_a_stream_that_fails_is_never_seen_and_the_last_one_is_not_held_back() -> None:
    bench = Bench("cheap", "dear")
    last = stream('{"ag', 'e": 3}')
    bench.answers(stream("Sure: ", GOOD), last)
    call = bench.call(question(stream=True))
    assert bench.world.down.sent == b"".join(last)
    assert ("write", last[0]) in bench.world.log  # as it came
    assert call.notes[VERDICTS] == "json,ok"
    assert b"x-tollgate-cascade: json\r\n" in bench.head  # all that was known when it began
    check_money(call, 2)


def test_a_call_that_must_be_made_is_checked() -> None:
    def message(arguments: str | None) -> bytes:
        called = {"id": "t", "type": "function", "function": {"name": "note", "arguments": arguments}}
        said: dict[str, Any] = {"content": "Well."} if arguments is None else {"content": None, "tool_calls": [called]}
        choice = {"index": 0, "message": said, "finish_reason": "tool_calls" if arguments else "stop"}
        return json.dumps({"id": "c", "model": "m", "choices": [choice], "usage": USED}).encode()

    tools = [{"type": "function", "function": {"name": "note", "parameters": SCHEMA}}]
    bench = Bench()
    bench.answers(message(None), message(BAD), message(GOOD))
    call = bench.call(question(response_format=None, tools=tools, tool_choice="required"))
    assert call.notes[VERDICTS] == "call,arguments,ok"
    assert bench.world.down.sent == message(GOOD)


def test_what_is_too_large_to_be_held_back_is_passed_on_unchecked() -> None:
    bench = Bench(hold_bytes=1024)
    pieces = stream(*["x" * 100] * 20)
    bench.answers(pieces)
    call = bench.call(question(stream=True))
    assert bench.world.down.sent == b"".join(pieces)
    assert (call.notes[VERDICTS], bench.models) == ("size", ["cheap"])
    assert ("write", pieces[-3]) in bench.world.log  # from there on as it came

    bench = Bench(hold_bytes=1024)
    bench.answers(document("x" * 2000))
    assert bench.call().notes[VERDICTS] == "size"
    assert bench.world.down.sent == document("x" * 2000)


def test_a_compressed_answer_is_checked_and_passed_on_compressed() -> None:
    bench = Bench()
    coded = gzip.compress(document(GOOD))
    for body in (gzip.compress(document(BAD)), coded):
        bench.world.answer(200, (JSON, (b"Content-Encoding", b"gzip")), [body])
    assert bench.call().notes[VERDICTS] == "schema,ok"
    assert bench.world.down.sent == coded
    bench = Bench()
    bench.world.answer(200, (JSON, (b"Content-Encoding", b"odd")), [b"whatever"])
    assert bench.call().notes[VERDICTS] == "unread"
    assert bench.world.down.sent == b"whatever"


def test_usage_that_was_asked_for_by_the_gateway_is_still_taken_out() -> None:
    pieces = stream(GOOD)
    plain = [pieces[0], *stream(reason="stop")[:1], pieces[-1]]
    asked = b'data: {"id":"c","model":"m","choices":[],"usage":%b}\n\n' % json.dumps(USED).encode()
    bench = Bench("cheap", "dear")
    bench.answers([*plain[:-1], asked, plain[-1]])
    call = bench.call(question(stream=True))
    assert b'"include_usage":true' in bench.world.upstreams.sent[0].replace(b" ", b"")
    assert bench.world.down.sent == b"".join(plain)
    assert call.notes[VERDICTS] == "ok"


# -- upstreams that fail -------------------------------------------------------------------------------------------


def test_a_failure_goes_to_the_next_target_as_ever_and_that_is_checked_too() -> None:
    bench = Bench()
    bench.world.answer(503, (JSON,), [BUSY])
    bench.answers(document(BAD), document(GOOD))
    call = bench.call()
    assert bench.models == ["cheap", "middle", "dear"]
    assert (call.notes[VERDICTS], call.notes["fallback"]) == ("schema,ok", "openai")
    check_money(call, 2)


def test_what_breaks_off_while_it_is_held_back_can_still_be_asked_elsewhere() -> None:
    for broken in (
        [*stream("so far")[:1], UpstreamReset("cut")],
        stream("so far")[:1],  # without its end
        [*stream("so far")[:1], b'data: {"error":{"message":"gone","type":"server_error"}}\n\n'],
    ):
        bench = Bench()
        whole = stream(GOOD)
        bench.answers(broken, whole)
        call = bench.call(question(stream=True))
        assert bench.models == ["cheap", "middle"]
        assert bench.world.down.sent == b"".join(whole)
        assert (call.notes[VERDICTS], outcome_of(call)) == ("ok", "ok")
        assert sum(call.money.components.values()) == call.money.total


def test_where_the_next_target_was_asked_and_failed_the_call_has_failed() -> None:
    bench = Bench("cheap", "dear")
    bench.answers(document(BAD))
    bench.world.answer(400, (JSON,), [b'{"error":{"message":"no","type":"invalid_request_error"}}'])
    call = bench.call()
    assert (call.status, outcome_of(call)) == (400, "upstream_error")
    assert call.notes[VERDICTS] == "schema"
    assert call.money.total == COST
    assert call.money.components == {FAILED: COST}


# -- what is learned of it ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bodies", "found", "valid"),
    [
        ((document(GOOD),), "ok", "yes"),
        ((document(BAD), document(GOOD)), "schema,ok", None),  # the record of the attempt says it of the cheap one
        ((document(BAD), document(BAD), document(BAD)), "schema,schema,schema", None),
        ((stream("x" * 2000),), "size", "no"),  # which sees answers of another size
    ],
)
def test_a_verdict_is_noted_for_the_target_that_was_chosen(bodies: Any, found: str, valid: str | None) -> None:
    learn = Learn(id="s", explore=0)
    bench = Bench(hold_bytes=1024, by="learned", learn=learn, sticky=False)
    bench.answers(*bodies)
    call = bench.call(question(stream=isinstance(bodies[0], list)))
    assert (call.notes["learn"], call.notes["learn_arm"], call.notes["route_to"]) == ("s", "cheap", "openai/cheap")
    assert (call.notes[VERDICTS], call.notes.get("learn_valid")) == (found, valid)


# -- where nothing better can be asked ----------------------------------------------------------------------------


def limited(bench: Bench, usd: float = 1) -> MemoryBudgets:
    budget = Budget(scope="global", usd=usd, per="day")
    books: MemoryBudgets = limit(bench.world, budgets=(budget,), limits=Limits(rpm=60))
    bench.world.books = books
    return books


def spent(books: MemoryBudgets) -> int:
    """pico-USD of all calls."""
    (account,) = [name for name in books.book.accounts if "usd" in name]
    return books.spent(account) * 1000


def too_tight(body: bytes) -> float:
    """US dollars that the worst case of one attempt fits, and not another one behind what the first has cost."""
    bench = Bench("cheap", "dear")
    books = limited(bench)
    bench.answers(document(GOOD))
    bench.call(body)
    (worst,) = [demand.amount for demand in books.asked[0] if demand.unit == "usd"]
    return float((worst * 1000 + COST // 2) / 10**12)


@pytest.mark.parametrize("streams", [False, True])
def test_where_the_next_attempt_does_not_fit_its_budget_the_answer_in_hand_is_passed_on(streams: bool) -> None:
    bench = Bench()
    body = question(stream=streams)
    books = limited(bench, too_tight(body))
    wrong: Any = stream(BAD) if streams else document(BAD)
    bench.answers(wrong)
    call = bench.call(body)
    assert [granted for name, granted in bench.world.log if name == "reserve"] == [True, False]
    assert bench.world.down.sent == (b"".join(wrong) if streams else wrong)
    assert (call.status, outcome_of(call), codes(call)) == (200, "ok", [""])
    assert (call.notes[VERDICTS], call.notes[WITHHELD]) == ("schema", "budget")
    assert call.notes.get("budget") != "refused"
    assert b"x-tollgate-cascade: schema\r\n" in bench.head
    check_money(call, 1)
    ((op, charge),) = books.charges
    assert (op, charge.calls, charge.usd * 1000) == (call.id, 1, COST)
    assert books.held == []


def test_each_attempt_holds_its_own_worst_case_and_is_charged_once() -> None:
    bench = Bench()
    books = limited(bench)
    bench.answers(document(BAD), document(GOOD))
    call = bench.call()
    assert [op for op, _ in books.charges] == [call.id, f"{call.id}.1"]
    assert sum(charge.usd for _, charge in books.charges) * 1000 == call.money.total == 2 * COST
    assert [charge.calls for _, charge in books.charges] == [1, 1]
    assert spent(books) == 2 * COST
    assert books.held == []
    assert all(demand.unit != "calls" for demand in books.asked[1])


def test_a_target_that_is_left_alone_is_passed_over() -> None:
    bench = Bench(breaking=True)
    bench.world.controls.forced = {"openai/middle": "open"}
    bench.answers(document(BAD), document(GOOD))
    bench.call()
    assert bench.models == ["cheap", "dear"]

    bench = Bench("cheap", "dear", breaking=True)
    bench.world.controls.forced = {"openai/dear": "open"}
    bench.answers(document(BAD))
    call = bench.call()
    assert (call.notes[VERDICTS], call.notes[WITHHELD]) == ("schema", "target")
    assert bench.world.down.sent == document(BAD)


class FullPools:
    """Only the first attempt of a call finds a place."""

    def __init__(self) -> None:
        self.entered = self.left = 0

    def enter(self, call: Call, gw: Any) -> Place:
        self.entered += 1
        return Place(Wish(), 0, state=HELD if self.entered == 1 else WAITING)

    async def waited(self, place: Place, call: Call, down: Downstream, gw: Any) -> None:
        raise NoPlace("full")

    def leave(self, place: Place, call: Call, gw: Any) -> None:
        self.left += place.state is HELD


def test_where_no_place_is_free_for_the_next_the_answer_in_hand_is_passed_on() -> None:
    bench = Bench("cheap", "dear")
    pools: Any = FullPools()
    bench.trials.bulkheads = pools
    books = limited(bench)
    bench.answers(document(BAD))
    call = bench.call()
    assert (call.notes[VERDICTS], call.notes[WITHHELD]) == ("schema", "place")
    assert bench.world.down.sent == document(BAD)
    assert call.model_sent in ("", "cheap")
    check_money(call, 1)
    assert spent(books) == COST
    assert (books.held, pools.left) == ([], 1)


def test_where_the_client_waits_no_longer_than_the_first_took_nothing_more_is_asked() -> None:
    bench = Bench()
    bench.world.step = 50 * 10**6  # of every look at the clock
    bench.answers(document(BAD))
    call = bench.call(None, (b"x-stainless-timeout", b"0.3"))
    assert (call.notes[VERDICTS], call.notes[WITHHELD], bench.models) == ("schema", "deadline", ["cheap"])
    assert bench.world.down.sent == document(BAD)


# -- who leaves ---------------------------------------------------------------------------------------------------


def escalating(streams: bool) -> tuple[Bench, MemoryBudgets, bytes]:
    bench = Bench("cheap", "dear")
    books = limited(bench)
    first: Any = stream(BAD) if streams else document(BAD)
    last: Any = stream(GOOD) if streams else document(GOOD)
    bench.answers(first, last)
    return bench, books, question(stream=streams)


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("kind", [ClientGone, asyncio.CancelledError])
def test_wherever_the_client_leaves_the_call_ends_once_and_all_of_it_is_charged(
    streams: bool, kind: type[BaseException]
) -> None:
    bench, _, body = escalating(streams)
    stops = drive(serve(ask(CHAT, body), bench.world.down, bench.world.gateway()))
    assert len(stops) > 6
    for at in range(len(stops)):
        bench, books, body = escalating(streams)
        world = bench.world
        if kind is ClientGone:
            fault: BaseException = ClientGone()
            drive(serve(ask(CHAT, body), world.down, world.gateway()), at=at, raising=fault)
        else:
            with pytest.raises(asyncio.CancelledError):
                drive(serve(ask(CHAT, body), world.down, world.gateway()), at=at, raising=kind())
        call = world.call
        assert len(world.down.endings) == 1
        assert world.down.endings == ["abort"] or not world.down.sent
        assert books.held == []
        assert world.journal.slots == set()
        assert all(exchange.closed for exchange in world.upstreams.opened)
        assert len(world.upstreams.sent) == sum(attempt.sent for attempt in call.attempts)
        if call.money.total is not None:
            assert sum(call.money.components.values()) == call.money.total
            assert not books.book.accounts or spent(books) >= call.money.total
        assert bench.timers == []


# -- a client that is kept waiting --------------------------------------------------------------------------------


def started(bench: Bench, body: bytes) -> tuple[Any, Callable[[str, int], None]]:
    """A call under way, and how to drive it to the so-manieth await of a name."""
    work = serve(ask(CHAT, body), bench.world.down, bench.world.gateway())
    now = [work.send(None).name]

    def until(name: str, times: int) -> None:
        for _ in range(times):
            now[0] = work.send(None).name
            while now[0] != name:
                now[0] = work.send(None).name

    return work, until


def finish(work: Any) -> None:
    with contextlib.suppress(StopIteration):
        while True:
            work.send(None)


def test_pings_keep_the_client_of_a_held_stream_waiting_and_the_next_stream_follows_them() -> None:
    bench = Bench("cheap", "dear")
    last = stream(GOOD)
    bench.answers(stream("Well, ", "no."), last)
    work, until = started(bench, question(stream=True))
    until("read", 2)  # the first piece was read, and is held back
    assert bench.world.down.head is None
    bench.strike()
    assert (bench.world.down.sent, bench.head.count(b"x-tollgate-upstream")) == (PING, 1)
    until("head", 1)  # the dear one was asked
    bench.strike()
    assert bench.world.down.sent == PING * 2
    finish(work)
    call = bench.world.call
    assert bench.world.down.sent == PING * 2 + b"".join(last)
    assert bench.world.names().count("start") == 1
    assert (call.notes[VERDICTS], outcome_of(call), bench.world.down.endings) == ("json,ok", "ok", ["finish"])
    assert bench.timers == []
    check_money(call, 2)


@pytest.mark.parametrize(
    "failing",
    [
        lambda world: world.answer(500, (JSON,), [BUSY]),
        lambda world: world.answer(200, (JSON,), [document(GOOD)]),
        lambda world: world.answer(200, (SSE, (b"Content-Encoding", b"gzip")), [gzip.compress(b"".join(stream(GOOD)))]),
        lambda world: world.upstreams.answers.append(UpstreamReset("gone")),
    ],
)
def test_once_it_was_told_to_wait_a_failure_is_an_event(failing: Callable[[World], None]) -> None:
    bench = Bench("cheap", "dear")
    bench.trials.manner = Manner(attempts=1)
    bench.answers(stream("Well, ", "no."))
    failing(bench.world)
    work, until = started(bench, question(stream=True))
    until("read", 2)
    bench.strike()
    finish(work)
    call = bench.world.call
    assert bench.world.down.sent.startswith(PING + b"data: ")
    assert b'"error"' in bench.world.down.sent
    assert b"[DONE]" not in bench.world.down.sent
    assert (bench.world.down.endings, bench.world.names().count("start")) == (["abort"], 1)
    assert outcome_of(call) == "truncated"
    assert sum(call.money.components.values()) == call.money.total


def test_once_it_was_told_to_wait_an_answer_in_hand_still_follows() -> None:
    bench = Bench("cheap", "dear")
    limited(bench, too_tight(question(stream=True)))
    wrong = stream(BAD)
    bench.answers(wrong)
    work, until = started(bench, question(stream=True))
    until("read", 2)
    bench.strike()
    finish(work)
    assert bench.world.down.sent == PING + b"".join(wrong)
    assert bench.world.call.notes[WITHHELD] == "budget"
    assert bench.world.down.endings == ["finish"]


# -- across APIs --------------------------------------------------------------------------------------------------


def message(text: str) -> bytes:
    said = {"id": "m", "type": "message", "role": "assistant", "model": "claude", "stop_reason": "end_turn"}
    used = {"input_tokens": 5, "output_tokens": 2}
    return json.dumps({**said, "content": [{"type": "text", "text": text}], "usage": used}).encode()


def test_the_targets_may_speak_different_apis() -> None:
    bench = Bench(RouteTo(model="claude", upstream="anthropic"), RouteTo(model="dear", upstream="openai"))
    bench.answers(message(BAD), document(GOOD))
    call = bench.call(question(messages=[{"role": "user", "content": "how old?"}]))
    assert [attempt.target.upstream for attempt in call.attempts] == ["anthropic", "openai"]
    assert bench.world.down.sent == document(GOOD)
    assert call.notes[VERDICTS] == "schema,ok"
    check_money(call, 2)

    bench = Bench(RouteTo(model="cheap", upstream="openai"), RouteTo(model="claude", upstream="anthropic"))
    bench.answers(document(BAD), message(GOOD))
    call = bench.call(question(messages=[{"role": "user", "content": "how old?"}]))
    assert json.loads(bench.world.down.sent)["choices"][0]["message"]["content"] == GOOD
    assert call.notes[VERDICTS] == "schema,ok"
    check_money(call, 2)
