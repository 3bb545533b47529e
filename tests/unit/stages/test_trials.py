"""Attempt by attempt: what is tried again, where, when, and at whose cost. In doubles: nothing waits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from gateway.call import Call
from gateway.config.schema import Budget, Fallback, Goal, Limits, Runs
from gateway.config.schema_routing import Route, RouteTo
from gateway.dialects.tool_paths import Door
from gateway.errors import (
    BadAnswer,
    ClientGone,
    ConnectFailed,
    GatewayError,
    StreamStalled,
    UpstreamReset,
    UpstreamTimeout,
)
from gateway.journal.convert import outcome_of, overhead_ns
from gateway.pipeline import serve
from gateway.policy.breaker import NANO, Terms
from gateway.policy.chains import Chains
from gateway.policy.pace import Paces
from gateway.policy.routing_rules import Rules
from gateway.ports import Downstream
from gateway.stages.account import FAILED
from gateway.stages.breaking import CELLS, Breakers
from gateway.stages.route import Router
from gateway.stages.trials import Manner, RetryingTrials
from gateway.testing.doubles import MemoryDown, World, ask, drive
from gateway.testing.memory_budgets import limit
from gateway.testing.turns import Stop
from gateway.tool import Price
from gateway.tool import Terms as Terms_

CHAT = "/v1/chat/completions"
QUESTION = b'{"model":"gpt-4o","max_tokens":50,"messages":[]}'
STREAM = b'{"model":"gpt-4o","stream":true,"messages":[]}'
JSON = (b"Content-Type", b"application/json")
SSE = (b"Content-Type", b"text/event-stream")
COUNT = b'"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}'
ANSWER = b'{"id":"c","model":"gpt-4o","choices":[{"index":0,"message":{"content":"Hi"}}],' + COUNT + b"}"
CHUNK = b'data: {"id":"c","model":"gpt-4o","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"id":"c","model":"gpt-4o","choices":[],' + COUNT + b"}\n\n"
DONE = b"data: [DONE]\n\n"
BUSY = b'{"error":{"message":"busy","type":"server_error","code":"server_is_overloaded"}}'
LONG = b'{"error":{"message":"too long","type":"invalid_request_error","code":"context_length_exceeded"}}'
BROKE = b'{"error":{"message":"pay","type":"insufficient_quota","code":"insufficient_quota"}}'
PING = b": ping\n\n"
REFUSED = ConnectFailed("refused")
SDK = (b"x-stainless-retry-count", b"0")
DRAW = int.from_bytes(bytes(range(4)), "little") / 2**32  # of the world, always the same


def breakers(changes: list[tuple[str, str]]) -> Breakers:
    """Open after three failures in a row, for a second of a clock that goes on with every look at it."""
    terms = Terms(consecutive=3, pause=NANO, longest=4 * NANO)
    return Breakers(terms, slow=0, refuse=False, tell=lambda name, change: changes.append((name, str(change.state))))


class Bench:
    """A world whose calls are tried again; `waits` are the pauses that were made."""

    def __init__(
        self,
        *chain: Fallback,
        manner: Manner | None = None,
        others: Sequence[str] = ("backup", "third"),
        breaking: bool = False,
        refuse: bool = False,
    ) -> None:
        self.world = World()
        self.waits: list[float] = []
        openai = self.world.specs["openai"]
        for name in others:
            target = openai.target.__class__(name, name, "192.0.2.9", 9, False, b"")
            auth = ((b"authorization", b"Bearer of-" + name.encode()),)
            self.world.specs[name] = openai.__class__(name=name, family="openai", target=target, host=b"h", auth=auth)
        self.changes: list[tuple[str, str]] = []
        self.breakers = breakers(self.changes) if breaking or refuse else None
        if self.breakers is not None:
            self.breakers.refuse = refuse
        self.trials = RetryingTrials(manner or Manner(), Chains(chain), self.pause, self.breakers)
        self.world.settings["trials"] = self.trials

    async def pause(self, down: Downstream, seconds: float) -> None:
        await Stop("pause")
        self.waits.append(seconds)
        if down.gone:
            raise ClientGone()

    def fails(
        self, *faults: GatewayError | tuple[int, bytes] | tuple[int, bytes, Sequence[tuple[bytes, bytes]]]
    ) -> None:
        for fault in faults:
            if isinstance(fault, GatewayError):
                self.world.upstreams.answers.append(fault)
            else:
                more = fault[2] if len(fault) > 2 else ()  # type: ignore[misc]
                self.world.answer(fault[0], (JSON, *more), [fault[1]] if fault[1] else [])

    def answers(self, *pieces: bytes, stream: bool = False) -> None:
        self.world.answer(200, (SSE if stream else JSON,), pieces or [ANSWER])

    def call(
        self, body: bytes = QUESTION, *headers: tuple[bytes, bytes], path: str = CHAT, method: bytes = b"POST"
    ) -> Call:
        drive(serve(ask(path, body, *headers, method=method), self.world.down, self.world.gateway()))
        return self.world.call


def shape(call: Call) -> list[tuple[str, int]]:
    return [(attempt.target.upstream, attempt.status) for attempt in call.attempts]


def lines(bench: Bench) -> bytes:
    assert bench.world.down.head is not None
    return bench.world.down.head[2]


def test_a_pause_between_two_tries_is_no_time_that_the_gateway_takes() -> None:
    bench = Bench()
    pause = bench.trials.pause

    async def slow(down: Downstream, seconds: float) -> None:
        await pause(down, seconds)
        bench.world.clock += 5 * NANO

    bench.trials.pause = slow
    bench.fails((503, BUSY))
    bench.answers()
    call = bench.call()
    assert call.status == 200
    assert overhead_ns(call, call.ended - call.began) < NANO <= 5 * NANO <= call.waited


@pytest.mark.parametrize(
    "fault",
    [
        REFUSED,
        ConnectFailed("tls", code="upstream_tls_failed"),
        UpstreamTimeout("late", code="upstream_connect_timeout"),
        UpstreamReset("reset"),
        BadAnswer("no http"),
        (408, b""),
        (409, b""),
        (429, BUSY),
        (500, BUSY),
        (502, b"<html>"),
        (503, BUSY),
        (529, BUSY),
        (418, b"", ((b"x-should-retry", b"true"),)),
    ],
)
def test_what_may_go_well_the_next_time_is_tried_again(fault: Any) -> None:
    bench = Bench()
    bench.fails(fault)
    bench.answers()
    call = bench.call()
    assert (call.status, bench.world.down.sent, outcome_of(call)) == (200, ANSWER, "ok")
    assert len(call.attempts) == 2
    assert len(bench.waits) == 1
    assert b"x-tollgate-attempts: 2\r\n" in lines(bench)


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ((400, b""), 400),
        ((401, b""), 401),
        ((403, b""), 403),
        ((404, b""), 404),
        ((422, b""), 422),
        ((400, LONG), 400),
        ((429, BROKE), 429),
        ((501, b""), 501),
        ((500, BUSY, ((b"x-should-retry", b"false"),)), 500),
        ((429, BUSY, ((b"retry-after", b"11"),)), 429),
        (UpstreamTimeout("late", code="upstream_first_byte_timeout"), 504),
        (ConnectFailed("no", code="tool_address_refused"), 502),
    ],
)
def test_what_would_fail_again_is_answered_as_it_came(fault: Any, status: int) -> None:
    bench = Bench()
    bench.fails(fault)
    call = bench.call()
    assert (call.status, len(call.attempts), bench.waits) == (status, 1, [])
    if not isinstance(fault, GatewayError):
        assert bench.world.down.sent == fault[1]


def test_the_last_answer_is_passed_on_and_says_that_it_was_tried() -> None:
    bench = Bench()
    bench.fails((503, BUSY), (503, BUSY), (429, BUSY, ((b"retry-after", b"1"),)))
    call = bench.call()
    assert shape(call) == [("openai", 503), ("openai", 503), ("openai", 429)]
    assert (call.status, bench.world.down.sent) == (429, BUSY)
    assert b"retry-after: 1\r\n" in lines(bench)
    assert b"x-should-retry: false\r\n" in lines(bench)
    assert call.notes["retry_withheld"] == "attempts"
    assert all(exchange.closed for exchange in bench.world.upstreams.opened)


def test_nor_is_a_client_told_to_try_again_what_was_tried_for_it() -> None:
    bench = Bench()
    bench.fails(*[ConnectFailed("refused") for _ in range(3)])
    bench.call()
    assert b"x-should-retry: false\r\n" in lines(bench)


@pytest.mark.parametrize("slow", [UpstreamTimeout("x", code="upstream_first_content_timeout"), StreamStalled("x")])
def test_the_slow_are_asked_again_only_where_that_is_wanted(slow: GatewayError) -> None:
    bench = Bench(manner=Manner(timeouts=True))
    bench.world.answer(200, (SSE,), [PING, slow])
    bench.answers(CHUNK, USAGE, DONE, stream=True)
    call = bench.call(STREAM)
    assert (call.status, shape(call)) == (200, [("openai", 200), ("openai", 200)])
    assert bench.world.down.sent == CHUNK + DONE


def test_a_client_that_retries_by_itself_does_so() -> None:
    bench = Bench()
    bench.fails((503, BUSY))
    call = bench.call(QUESTION, SDK)
    assert (call.status, len(call.attempts), call.notes["retry_withheld"]) == (503, 1, "sdk")
    assert b"x-should-retry" not in lines(bench)


def test_unless_the_operator_wants_it_otherwise() -> None:
    bench = Bench(manner=Manner(with_sdk=True))
    bench.fails((503, BUSY))
    bench.answers()
    assert bench.call(QUESTION, SDK).status == 200


def test_no_attempt_is_made_earlier_than_the_upstream_says() -> None:
    bench = Bench(manner=Manner(base=0.001))
    bench.fails((429, BUSY, ((b"retry-after-ms", b"2500"),)))
    bench.answers()
    bench.call()
    assert 2.5 <= bench.waits[0] <= 2.501


def test_nor_all_at_once_when_it_says_the_same_to_all() -> None:
    bench = Bench(manner=Manner(base=2))
    bench.fails((429, BUSY, ((b"retry-after", b"10"),)))  # as long as the operator waits: no longer
    bench.answers()
    bench.call()
    assert bench.waits == pytest.approx([10 + DRAW * 2])


def test_the_wait_is_drawn_and_grows() -> None:
    bench = Bench(manner=Manner(attempts=4, base=2))
    bench.fails((500, b""), (500, b""), (500, b""))
    bench.answers()
    bench.call()
    assert bench.waits == pytest.approx([DRAW * 2, DRAW * 4, DRAW * 8])


def test_nothing_begins_behind_the_patience_of_the_client_or_the_operator() -> None:
    bench = Bench()
    bench.fails((429, BUSY, ((b"retry-after", b"9"),)))
    call = bench.call(QUESTION, (b"x-stainless-timeout", b"5"))
    assert (len(call.attempts), call.notes["retry_withheld"]) == (1, "deadline")
    bench = Bench(manner=Manner(within=3))
    bench.fails((429, BUSY, ((b"retry-after", b"9"),)))
    assert bench.call().notes["retry_withheld"] == "deadline"


def test_retries_are_a_share_of_the_traffic() -> None:
    bench = Bench(manner=Manner(budget=0.2))
    sent = 0
    for _ in range(200):
        bench.world.journal.records.clear()
        bench.world.upstreams.answers.clear()
        bench.fails((503, BUSY), (503, BUSY), (503, BUSY))
        sent += len(bench.call().attempts)
    assert 200 * 1.2 + 2 <= sent <= 200 * 1.2 + 3


def test_nothing_is_tried_again_once_something_was_said() -> None:
    bench = Bench()
    bench.world.answer(200, (SSE,), [CHUNK, UpstreamReset("cut", code="upstream_cut")])
    call = bench.call(STREAM)
    assert (len(call.attempts), outcome_of(call)) == (1, "truncated")


def test_an_error_inside_a_200_is_one() -> None:
    bench = Bench()
    bench.world.answer(200, (SSE,), [PING + b"data: " + BUSY + b"\n\n"])
    bench.answers(CHUNK, USAGE, DONE, stream=True)
    call = bench.call(STREAM)
    assert shape(call) == [("openai", 503), ("openai", 200)]
    assert bench.world.down.sent == CHUNK + DONE


def test_a_document_that_was_cut_was_paid_for_and_so_is_the_next() -> None:
    bench = Bench()
    bench.world.answer(200, (JSON,), [ANSWER[:80], UpstreamReset("cut", code="upstream_cut")])
    bench.answers()
    call = bench.call()
    assert (bench.world.down.sent, call.response_bytes) == (ANSWER, len(ANSWER))
    first, second = call.attempts
    assert first.cost is not None
    assert first.cost > 0
    assert (first.usage_source, second.cost) == ("estimated", 0)
    assert call.money.components[FAILED] == first.cost
    assert call.money.total == first.cost + 5 * 10**6 + 2 * 2 * 10**6
    assert sum(call.money.components.values()) == call.money.total
    assert call.answer is not None
    assert call.answer.usage_source == "provider"


# -- routes ---------------------------------------------------------------------------------------------------------


def by_rule(bench: Bench, *to: str | RouteTo, **rule: Any) -> Bench:
    router = Router(Rules([Route(to=to, **rule)]), dict, Paces())
    bench.world.settings["router"] = router
    return bench


def test_the_further_targets_of_a_rule_are_asked_in_its_order() -> None:
    bench = by_rule(Bench(), "gpt-4o", RouteTo(upstream="backup"), RouteTo(model="gpt-4o-mini", upstream="third"))
    bench.fails((503, BUSY), UpstreamReset("reset"))
    bench.answers()
    call = bench.call(QUESTION, SDK)
    assert shape(call) == [("openai", 503), ("backup", 0), ("third", 200)]
    assert bench.waits == []
    assert bench.world.upstreams.sent[2].endswith(b'{"model":"gpt-4o-mini","max_tokens":50,"messages":[]}')
    assert b"x-tollgate-upstream: third\r\n" in lines(bench)
    assert call.notes["fallback"] == "third"


def test_behind_those_of_the_rule_come_those_of_the_chain_and_none_twice() -> None:
    bench = by_rule(Bench(CHAIN), "gpt-4o", RouteTo(model="gpt-4o-mini", upstream="third"))
    bench.fails((503, BUSY), (503, BUSY), (503, BUSY))
    call = bench.call(QUESTION, SDK)
    assert shape(call) == [("openai", 503), ("third", 503), ("backup", 503)]


def test_a_rule_is_for_failures_alone() -> None:
    bench = by_rule(Bench(), "gpt-4o", RouteTo(upstream="backup"))
    bench.fails((400, LONG))
    assert shape(bench.call()) == [("openai", 400)]


def test_nothing_of_a_rule_is_asked_once_something_was_said() -> None:
    bench = by_rule(Bench(), "gpt-4o", RouteTo(upstream="backup"))
    bench.world.answer(200, (SSE,), [CHUNK, UpstreamReset("cut", code="upstream_cut")])
    call = bench.call(STREAM)
    assert (shape(call), outcome_of(call)) == ([("openai", 200)], "truncated")


def test_an_open_breaker_is_passed_over_and_probed_when_its_time_is_over() -> None:
    bench = by_rule(Bench(breaking=True), "gpt-4o", RouteTo(upstream="backup"), sticky=False)
    for _ in range(3):
        bench.fails((503, BUSY))
        bench.answers()
        bench.call(QUESTION, SDK)
        bench.world.journal.records.clear()
    assert bench.changes == [("openai/gpt-4o", "open")]
    bench.answers()
    call = bench.call(QUESTION, SDK)
    assert shape(call) == [("backup", 200)], "it is not even entered"
    assert call.notes["route_why"] == "breaker"
    bench.world.journal.records.clear()
    bench.world.clock += 2 * NANO
    bench.answers()
    assert shape(bench.call(QUESTION, SDK)) == [("openai", 200)]
    assert bench.changes == [("openai/gpt-4o", state) for state in ("open", "half_open", "closed")]


def test_what_its_api_cannot_say_is_left_out_of_the_further_targets() -> None:
    claude = RouteTo(model="claude", upstream="anthropic")
    bench = by_rule(Bench(), "gpt-4o", claude, RouteTo(upstream="backup"))
    bench.fails((503, BUSY))
    bench.answers()
    assert shape(bench.call(QUESTION[:-1] + b',"seed":7}', SDK)) == [("openai", 503), ("backup", 200)]
    bench = by_rule(Bench(), "gpt-4o", claude, RouteTo(upstream="backup"))
    bench.fails((503, BUSY), (503, BUSY))
    bench.answers()
    body = QUESTION.replace(b"[]", b'[{"role":"user","content":"hi"}]')
    assert shape(bench.call(body, SDK)) == [("openai", 503), ("anthropic", 503), ("backup", 200)]


# -- chains -----------------------------------------------------------------------------------------------------------


CHAIN = Fallback(to=("backup", Goal(upstream="third", model="gpt-4o-mini")))


def test_a_chain_is_followed_at_once_each_with_its_own_key_and_model() -> None:
    bench = Bench(CHAIN)
    bench.fails((503, BUSY), UpstreamReset("reset"))
    bench.answers()
    call = bench.call(QUESTION, (b"Authorization", b"Bearer of-client"))
    assert shape(call) == [("openai", 503), ("backup", 0), ("third", 200)]
    assert bench.waits == []
    assert b"x-tollgate-upstream: third\r\nx-tollgate-attempts: 3\r\n" in lines(bench)
    first, second, third = bench.world.upstreams.sent
    assert b"Bearer of-client" in first
    assert b"Bearer of-backup" in second
    assert b"of-client" not in second
    assert b'"model":"gpt-4o"' in second
    assert third.endswith(b'{"model":"gpt-4o-mini","max_tokens":50,"messages":[]}')
    assert (call.model_sent, call.asked.model, call.route.upstream) == ("gpt-4o-mini", "gpt-4o", "third")


def test_its_last_target_is_asked_again_after_a_wait() -> None:
    bench = Bench(Fallback(to=("backup",)))
    bench.fails((503, BUSY), (503, BUSY))
    bench.answers()
    call = bench.call()
    assert shape(call) == [("openai", 503), ("backup", 503), ("backup", 200)]
    assert len(bench.waits) == 1


def test_the_slow_have_a_chain_too() -> None:
    bench = Bench(CHAIN)
    bench.fails(UpstreamTimeout("late", code="upstream_first_byte_timeout"))
    bench.answers()
    assert shape(bench.call(QUESTION, SDK)) == [("openai", 0), ("backup", 200)]


def test_silence_is_held_where_another_may_still_answer() -> None:
    bench = Bench(CHAIN)
    bench.world.step = 2_000_000_000
    bench.world.answer(
        200, (SSE,), [PING, PING, PING, PING, UpstreamTimeout("x", code="upstream_first_content_timeout")]
    )
    bench.answers(CHUNK, USAGE, DONE, stream=True)
    call = bench.call(STREAM)
    assert shape(call) == [("openai", 200), ("backup", 200)]
    assert bench.world.down.sent == CHUNK + DONE


def test_what_is_too_long_for_one_model_has_a_chain_of_its_own() -> None:
    bench = Bench(CHAIN, Fallback(to=(Goal(model="gpt-4.1"),), on=("context",)))
    bench.fails((400, LONG))
    bench.answers()
    call = bench.call()
    assert (shape(call), call.model_sent) == ([("openai", 400), ("openai", 200)], "gpt-4.1")
    bench = Bench(CHAIN)
    bench.fails((400, LONG))
    assert shape(bench.call()) == [("openai", 400)]


def test_an_empty_account_is_no_reason_to_ask_again_but_to_ask_another() -> None:
    bench = Bench(CHAIN)
    bench.fails((429, BROKE))
    bench.answers()
    assert shape(bench.call()) == [("openai", 429), ("backup", 200)]


def test_a_target_without_a_key_does_not_get_the_clients() -> None:
    bench = Bench(CHAIN)
    spec = bench.world.specs["backup"]
    bench.world.specs["backup"] = spec.__class__(name="backup", family="openai", target=spec.target, host=b"h")
    bench.fails((503, BUSY))
    bench.answers()
    bench.call(QUESTION, (b"Authorization", b"Bearer of-client"), (b"x-api-key", b"of-client"))
    assert b"of-client" in bench.world.upstreams.sent[0]
    assert b"of-client" not in bench.world.upstreams.sent[1]


@pytest.mark.parametrize("body", [b'{"model":"gpt-4o","input":"x","previous_response_id":"resp_1"}'])
def test_what_one_provider_keeps_no_other_is_asked_for(body: bytes) -> None:
    bench = Bench(CHAIN, manner=Manner(attempts=1))
    bench.fails((503, BUSY))
    assert shape(bench.call(body, path="/v1/responses")) == [("openai", 503)]


ACROSS = Fallback(to=(Goal(upstream="anthropic", model="claude-x"), "backup"))
MESSAGE = (
    b'{"id":"m1","type":"message","model":"claude-x","content":[{"type":"text","text":"Hi"}],'
    b'"stop_reason":"end_turn","usage":{"input_tokens":5,"output_tokens":2}}'
)


def test_one_that_speaks_another_api_is_asked_in_its_own() -> None:
    bench = Bench(ACROSS)
    bench.fails((503, BUSY))
    bench.answers(MESSAGE)
    call = bench.call(QUESTION, (b"authorization", b"Bearer of-client"))
    assert shape(call) == [("openai", 503), ("anthropic", 200)]
    sent = bench.world.upstreams.sent[1]
    assert sent.startswith(b"POST /v1/messages ")
    assert b'"model":"claude-x"' in sent
    assert b"of-client" not in sent
    assert b'"choices"' in bench.world.down.sent
    assert call.answer is not None
    assert call.answer.model == "claude-x"


def test_an_error_of_another_api_is_put_back_and_answered() -> None:
    bench = Bench(Fallback(to=(Goal(upstream="anthropic", model="claude-x"),)), manner=Manner(attempts=1))
    bench.fails((503, BUSY), (529, b'{"type":"error","error":{"type":"overloaded_error","message":"not now"}}'))
    assert shape(bench.call()) == [("openai", 503), ("anthropic", 529)]
    assert b'"message":"not now"' in bench.world.down.sent


def test_what_another_api_cannot_say_leaves_it_out() -> None:
    bench = Bench(ACROSS)
    bench.fails((503, BUSY))
    bench.answers()
    call = bench.call(b'{"model":"gpt-4o","max_tokens":50,"seed":1,"messages":[]}')
    assert shape(call) == [("openai", 503), ("backup", 200)]
    assert call.translated is None


def test_a_path_that_has_no_translation_leaves_other_apis_out() -> None:
    bench = Bench(ACROSS)
    bench.fails((503, BUSY))
    bench.answers()
    assert shape(bench.call(b'{"model":"e","input":"x"}', path="/v1/embeddings")) == [("openai", 503), ("backup", 200)]


def test_usage_is_asked_for_anew_of_each() -> None:
    bench = Bench(CHAIN)
    bench.world.learned.refuses_injection.add("backup")
    bench.fails((503, BUSY))
    bench.answers(CHUNK, DONE, stream=True)
    call = bench.call(STREAM)
    assert b"include_usage" in bench.world.upstreams.sent[0]
    assert b"include_usage" not in bench.world.upstreams.sent[1]
    assert not call.asked.injected


# -- what must not be done twice ---------------------------------------------------------------------------------------


def tool_bench(**terms: Any) -> Bench:
    bench = Bench()
    bench.world.tool(Terms_("t", Price(10**9), **terms), Door("/v1"))
    return bench


def test_a_tool_that_may_have_done_something_is_left_alone() -> None:
    bench = tool_bench()
    bench.fails((503, b""))
    assert len(bench.call(b"{}", path="/tools/t/x").attempts) == 1


def test_one_that_was_not_reached_is_asked_again_and_so_is_one_that_changes_nothing() -> None:
    bench = tool_bench()
    bench.world.upstreams.answers.append(REFUSED)
    bench.world.upstreams.unsent = 1
    bench.answers(b"{}")
    call = bench.call(b"{}", path="/tools/t/x")
    assert (len(call.attempts), call.status) == (2, 200)
    assert call.money.total == 10**9, "it ran once"
    for status, attempts in ((429, 2), (503, 2), (500, 1), (529, 1)):  # other errors are what the tool answers
        bench = tool_bench(resend=True)
        bench.fails((status, b""))
        bench.answers(b"{}")
        assert len(bench.call(b"{}", path="/tools/t/x").attempts) == attempts


def test_neither_is_an_upload() -> None:
    bench = Bench()
    bench.fails((503, b""))
    assert len(bench.call(b"x", path="/v1/files").attempts) == 1
    bench = Bench()
    bench.fails((503, b""))
    bench.answers(b"{}")
    assert len(bench.call(b"", path="/v1/files", method=b"GET").attempts) == 2


# -- money ----------------------------------------------------------------------------------------------------


def limited(bench: Bench, **limits: Any) -> Any:
    limits.setdefault("runs", Runs(budget_usd=1, max_calls=10))
    bench.world.books = limit(bench.world, limits=Limits(rpm=60), **limits)
    return bench.world.books


def test_what_cost_nothing_leaves_its_hold_to_the_next() -> None:
    bench = Bench()
    books = limited(bench)
    bench.fails((503, BUSY))
    bench.answers()
    call = bench.call()
    assert len(books.asked) == 1
    ((op, charge),) = books.charges
    assert (op, charge.calls, charge.usd * 1000) == (call.id, 1, call.money.total)
    assert not books.held


def test_what_may_have_cost_something_is_charged_and_the_next_holds_for_itself() -> None:
    bench = Bench()
    books = limited(bench)
    bench.world.answer(200, (JSON,), [ANSWER[:80], UpstreamReset("cut", code="upstream_cut")])
    bench.answers()
    call = bench.call()
    (first, one), (second, two) = books.charges
    assert (first, second) == (call.id, call.id + ".1")
    assert one.usd > 0
    assert one.calls == 1
    assert {demand.unit for demand in books.asked[1]} == {"usd"}, "the call is counted once"
    assert call.money.total is not None
    assert call.attempts[0].cost is not None
    assert two.usd * 1000 == call.money.total - call.attempts[0].cost, "what the first cost was charged with the first"
    assert books.spent("run:run-1|calls|life") == 1
    assert not books.held


def test_what_the_second_held_and_did_not_use_is_for_the_third() -> None:
    bench = Bench(Fallback(model="gpt-4*", to=("backup", "third")))
    books = limited(bench)
    bench.world.answer(200, (JSON,), [ANSWER[:80], UpstreamReset("cut", code="upstream_cut")])
    bench.fails((503, BUSY))
    bench.answers()
    call = bench.call()
    assert [attempt.target.upstream for attempt in call.attempts] == ["openai", "backup", "third"]
    assert [op for op, _ in books.charges] == [call.id, call.id + ".1"]
    assert [charge.calls for _, charge in books.charges] == [1, 1]
    assert all(demand.unit == "usd" for asked in books.asked[1:] for demand in asked), "the call is counted once"
    assert books.spent("run:run-1|calls|life") == 1
    assert not books.held


def test_no_second_attempt_where_the_first_has_spent_the_budget() -> None:
    bench = Bench()
    limited(bench)
    bench.answers()
    bench.call()
    (held,) = [demand.amount for demand in bench.world.books.asked[0] if demand.unit == "usd"]
    bench = Bench()
    limited(bench, runs=Runs(budget_usd=held * 1.5 / 1e9))  # one worst case, not two
    bench.world.answer(200, (JSON,), [ANSWER[:80], UpstreamReset("cut", code="upstream_cut")])
    bench.answers()
    call = bench.call()
    assert (len(call.attempts), outcome_of(call), call.status) == (1, "failed", 502)
    assert len(bench.world.upstreams.answers) == 1, "the second was not sent"


def test_a_target_is_held_at_its_own_scope() -> None:
    bench = Bench(CHAIN)
    books = limited(bench, budgets=(Budget(scope="upstream", match="backup", usd=1),))
    bench.fails((503, BUSY))
    bench.answers()
    call = bench.call()
    accounts = [[demand.account.split("|")[0] for demand in asked] for asked in books.asked]
    assert "upstream:backup" not in accounts[0]
    assert "upstream:backup" in accounts[1]
    assert not books.held
    assert len(books.charges) == 1
    assert (
        books.spent("upstream:backup|usd|month|" + books.asked[1][-1].account.rpartition("|")[2]) * 1000
        == call.money.total
    )


def test_a_target_whose_budget_is_full_is_not_asked_and_the_first_answer_stands() -> None:
    bench = Bench(CHAIN)
    limited(bench, budgets=(Budget(scope="upstream", match="backup", usd=0.000001),))
    bench.fails((503, BUSY))
    call = bench.call()
    assert (call.status, bench.world.down.sent, len(call.attempts)) == (503, BUSY, 1)
    assert call.route.upstream == "openai"
    assert b"x-tollgate-upstream: openai\r\n" in lines(bench)


# -- the breaker -------------------------------------------------------------------------------------------------------


def again(bench: Bench, *headers: tuple[bytes, bytes], body: bytes = QUESTION, path: str = CHAT) -> Call:
    """The next call."""
    bench.world.journal.records.clear()
    bench.world.down = MemoryDown(bench.world.log)
    return bench.call(body, *headers, path=path)


def opened(bench: Bench, fault: Any = (503, BUSY)) -> None:
    for _ in range(3):
        bench.fails(fault)
        bench.answers()
        assert again(bench).status == 200


def test_what_fails_is_left_alone_and_the_next_target_asked_at_once() -> None:
    bench = Bench(CHAIN, breaking=True)
    opened(bench)
    assert bench.changes == [("openai/gpt-4o", "open")]
    bench.answers()
    call = again(bench)
    assert shape(call) == [("backup", 200)]
    assert b"x-tollgate-attempts: 1\r\n" in lines(bench)


def test_what_cannot_be_reached_is_left_alone_with_all_its_models() -> None:
    bench = Bench(CHAIN, breaking=True)
    opened(bench, UpstreamReset("reset"))
    assert ("openai", "open") in bench.changes
    bench.answers()
    assert shape(again(bench, body=QUESTION.replace(b"gpt-4o", b"o3"))) == [("backup", 200)]


def test_a_model_that_is_overloaded_takes_no_other_with_it() -> None:
    bench = Bench(CHAIN, breaking=True)
    opened(bench)
    bench.answers()
    assert shape(again(bench, body=QUESTION.replace(b"gpt-4o", b"o3"))) == [("openai", 200)]


def test_one_probe_heals_it() -> None:
    bench = Bench(CHAIN, breaking=True)
    opened(bench)
    bench.world.clock += NANO
    bench.answers()
    assert shape(again(bench)) == [("openai", 200)]
    assert bench.changes[-2:] == [("openai/gpt-4o", "half_open"), ("openai/gpt-4o", "closed")]


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_errors_of_the_callers_making_are_neither_good_nor_bad(status: int) -> None:
    bench = Bench(CHAIN, breaking=True)
    for _ in range(50):
        bench.fails((status, b"{}"))
        assert again(bench).status == status
    assert bench.changes == []
    opened(bench)
    bench.world.clock += NANO
    bench.fails((status, b"{}"))
    again(bench)
    assert bench.changes[-1] == ("openai/gpt-4o", "half_open"), "a probe that says nothing gives its place back"
    bench.answers()
    assert shape(again(bench)) == [("openai", 200)]


def test_the_limit_of_a_clients_own_key_is_nobody_elses() -> None:
    bench = Bench(CHAIN, breaking=True)
    opened(bench, (429, BUSY, ((b"retry-after", b"3"),)))
    assert bench.changes == []


def test_that_of_the_gateways_key_is_for_as_long_as_it_says() -> None:
    bench = Bench(CHAIN, breaking=True)
    openai = bench.world.specs["openai"]
    bench.world.specs["openai"] = openai.__class__(
        name="openai", family="openai", target=openai.target, host=b"h", auth=((b"authorization", b"Bearer k"),)
    )
    bench.fails((429, BUSY, ((b"retry-after", b"3"),)))
    bench.answers()
    again(bench)
    assert bench.changes == [("openai/gpt-4o", "open")]
    bench.world.clock += 2 * NANO
    bench.answers()
    assert shape(again(bench)) == [("backup", 200)]
    bench.world.clock += NANO
    bench.answers()
    assert shape(again(bench)) == [("openai", 200)]


def test_a_client_that_leaves_says_nothing_of_the_upstream() -> None:
    bench = Bench(CHAIN, breaking=True)
    for _ in range(10):
        bench.world.answer(200, (SSE,), [CHUNK.replace(b',"finish_reason":"stop"', b""), ClientGone()])
        assert outcome_of(again(bench, body=STREAM)) == "cancelled"
    for _ in range(10):
        bench.world.upstreams.answers.append(ClientGone())
        again(bench)
    assert bench.changes == []


def test_a_stream_that_breaks_off_counts() -> None:
    bench = Bench(CHAIN, breaking=True)
    for _ in range(3):
        bench.world.answer(200, (SSE,), [CHUNK, UpstreamReset("cut", code="upstream_cut")])
        assert outcome_of(again(bench, body=STREAM)) == "truncated"
    assert ("openai/gpt-4o", "open") in bench.changes


def test_without_another_target_it_is_asked_all_the_same() -> None:
    bench = Bench(breaking=True, manner=Manner(attempts=1))
    for _ in range(5):
        bench.fails((503, BUSY))
        assert again(bench).status == 503
    assert bench.changes == [("openai/gpt-4o", "open")]


def test_or_refused_where_that_is_wanted() -> None:
    bench = Bench(refuse=True, manner=Manner(attempts=1))
    for _ in range(3):
        bench.fails((503, BUSY))
        again(bench)
    call = again(bench)
    assert (call.status, call.attempts, outcome_of(call)) == (503, [], "failed")
    assert b"retry-after: 1\r\n" in lines(bench)
    assert b"x-tollgate-code: upstream_breaker_open\r\n" in lines(bench)


def test_where_every_target_is_left_alone_the_last_is_asked() -> None:
    bench = Bench(Fallback(to=("backup",)), breaking=True, manner=Manner(attempts=1))
    for _ in range(3):
        bench.fails((503, BUSY), (503, BUSY))
        again(bench)
    bench.answers()
    assert shape(again(bench)) == [("backup", 200)]


@pytest.mark.parametrize("name", ["openai", "openai/gpt-4o"])
def test_a_person_can_hold_it_open_or_closed(name: str) -> None:
    bench = Bench(CHAIN, breaking=True)
    bench.world.controls.forced[name] = "open"
    bench.answers()
    assert shape(again(bench)) == [("backup", 200)]
    bench.world.controls.forced.clear()
    opened(bench)
    bench.world.controls.forced["openai/gpt-4o"] = "closed"
    bench.answers()
    assert shape(again(bench)) == [("openai", 200)]
    bench = Bench(breaking=True)
    bench.world.controls.forced[name] = "open"
    assert again(bench).status == 503, "also where there is no other target"


def test_an_upstream_that_is_held_closed_is_asked_for_all_its_models() -> None:
    bench = Bench(CHAIN, breaking=True)
    opened(bench)
    assert bench.changes == [("openai/gpt-4o", "open")]
    bench.world.controls.forced["openai"] = "closed"
    assert not bench.trials.shut("openai", "gpt-4o", bench.world.gateway())
    bench.answers()
    assert shape(again(bench)) == [("openai", 200)]
    bench.world.controls.forced["openai/gpt-4o"] = "open"
    assert bench.trials.shut("openai", "gpt-4o", bench.world.gateway())
    bench.answers()
    assert shape(again(bench)) == [("backup", 200)]


def test_also_where_nothing_is_counted() -> None:
    bench = Bench(CHAIN)
    bench.world.controls.forced["openai/gpt-4o"] = "open"
    bench.answers()
    assert shape(again(bench)) == [("backup", 200)]
    bench = Bench(manner=Manner(attempts=1))
    bench.world.controls.forced["openai"] = "open"
    assert (again(bench).status, bench.world.upstreams.sent) == (503, [])


def test_a_tool_has_a_breaker_too() -> None:
    bench = Bench(refuse=True, manner=Manner(attempts=1))
    bench.world.tool(Terms_("t", Price(10**9)), Door("/v1"))
    for _ in range(3):
        bench.fails((500, b""))
        again(bench, body=b"{}", path="/tools/t/x")
    assert bench.changes == [("tools/t", "open")]
    call = again(bench, body=b"{}", path="/tools/t/x")
    assert (call.status, call.money.total) == (503, 0)


def test_names_of_models_do_not_fill_the_memory() -> None:
    bench = Bench(CHAIN, breaking=True)
    assert bench.breakers is not None
    for number in range(CELLS + 50):
        bench.answers()
        again(bench, body=b'{"model":"m%d","max_tokens":5,"messages":[]}' % number)
    assert len(bench.breakers._cells) <= CELLS
    assert len(bench.breakers._named) <= 2 * CELLS
