"""The cache on the path of a call: what is kept of what passes, what is given for it, and who shares with whom."""

from __future__ import annotations

import gzip
import json
from asyncio import CancelledError
from typing import Any

import pytest

from gateway.call import Who
from gateway.config.schema import Budget, Cache, CacheRule, ExactCache, Limits, Rates, Runs, Spending
from gateway.errors import ClientGone, LimitReached, NotCached, StreamTruncated
from gateway.journal.convert import Converter, outcome_of
from gateway.key import Key
from gateway.pipeline import serve
from gateway.testing.doubles import MemoryDown, World, ask, drive
from gateway.testing.memory_budgets import limit
from gateway.testing.memory_cache import EVERYTHING, MemoryFlight, cached

CHAT = "/v1/chat/completions"
JSON = ((b"Content-Type", b"application/json"), (b"X-Request-Id", b"req-1"), (b"X-RateLimit-Remaining", b"3"))
SSE = ((b"Content-Type", b"text/event-stream"),)
QUESTION = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Why?"}]}
CHUNK = b'data: {"id":"c","model":"gpt-4o","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
STOP = b'data: {"id":"c","model":"gpt-4o","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}\n\n'
DONE = b"data: [DONE]\n\n"
STREAM = [CHUNK, STOP, USAGE, DONE]


def answer(text: str = "Hello", reason: str = "stop", **message: Any) -> bytes:
    said = {"role": "assistant", "content": text, **message}
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    choice = {"index": 0, "message": said, "finish_reason": reason}
    return json.dumps({"id": "c", "model": "gpt-4o", "choices": [choice], "usage": usage}).encode()


class Gate:
    """A world with a cache; each `ask` is one call with a client of its own."""

    def __init__(self, settings: Cache = EVERYTHING, **spec: Any) -> None:
        self.world = World(**{"auth": ((b"authorization", b"paid"),), **spec})
        self.store, self.flights = cached(self.world, settings)
        self.down = self.world.down
        self.settings = dict(self.world.settings)

    def prepare(self, body: bytes | list[bytes] | None = None, status: int = 200, headers: Any = None) -> None:
        pieces = body if isinstance(body, list) else [answer() if body is None else body]
        self.world.answer(status, headers or (SSE if isinstance(body, list) else JSON), pieces)

    def ask(self, *headers: tuple[bytes, bytes], path: str = CHAT, slow: bool = False, **body: Any) -> str:
        """The result as the client sees it, or "" for none."""
        self.down = MemoryDown(self.world.log, slow=slow)
        self.world.settings = dict(self.settings)
        request = ask(path, json.dumps({**QUESTION, **body}).encode(), *headers)
        self.stops = drive(serve(request, self.down, self.world.gateway()))
        assert self.down.head is not None
        self.head = self.down.head[2].decode()
        lines = [line.partition(": ") for line in self.head.split("\r\n")]
        return next((value for name, _, value in lines if name == "x-tollgate-cache"), "")

    @property
    def call(self) -> Any:
        return self.world.journal.records[-1]

    @property
    def record(self) -> Any:
        return Converter(0).record_of(self.call)

    @property
    def sent(self) -> int:
        return len(self.world.upstreams.sent)


# -- hits -------------------------------------------------------------------------------------------------------------


def test_a_hit_is_a_call_of_its_own_that_costs_nothing_and_says_what_it_saved() -> None:
    gate = Gate()
    gate.prepare()
    assert gate.ask() == "miss"
    paid = gate.record
    assert gate.ask() == "exact"
    record = gate.record
    assert (record.cache, record.outcome, record.status, record.attempts) == ("exact", "ok", 200, ())
    assert (record.cost, record.cost_status, record.saved, record.usage_source) == (0, "free", paid.cost, "cached")
    assert (record.usage, record.model_used, record.finish_reasons) == (paid.usage, "gpt-4o", ("stop",))
    assert record.response_bytes == len(gate.down.sent) == len(answer())
    assert record.cache_age_ns == 0
    assert record.cache_entry in gate.head
    assert "x-request-id: req-1" in gate.head
    assert "atelimit" not in gate.head, "limits are those of another moment"
    names = gate.world.names()
    assert names[-2:] == ["record", "finish"]
    assert gate.sent == 1
    assert gate.stops == []


def test_the_answer_is_the_same_to_the_byte_and_kept_decoded() -> None:
    gate = Gate()
    gate.prepare(gzip.compress(answer()), headers=(*JSON, (b"Content-Encoding", b"gzip")))
    assert gate.ask() == "miss"
    assert gate.ask() == "exact"
    assert gate.down.sent == answer()
    assert "encoding" not in gate.head.lower()


def test_a_stream_is_given_again_as_it_came_but_for_usage_that_was_added_for_us() -> None:
    gate = Gate()
    gate.prepare(STREAM)
    assert gate.ask(stream=True) == "miss"
    assert gate.call.asked.injected
    plain = b"".join((CHUNK, STOP, DONE))
    assert gate.down.sent == plain
    assert gate.ask(stream=True) == "exact"
    assert gate.down.sent == plain
    assert gate.ask(stream=True, stream_options={"include_usage": True}) == "exact"
    assert gate.down.sent == b"".join(STREAM)
    assert gate.down.head is not None
    assert gate.down.head[3] is None
    assert gate.ask(stream=False) == "exact"
    assert json.loads(gate.down.sent)["choices"][0]["message"]["content"] == "Hi"
    assert json.loads(gate.down.sent)["usage"]["total_tokens"] == 7
    assert gate.down.head[3] == len(gate.down.sent)
    assert gate.sent == 1


def test_json_is_given_as_a_stream() -> None:
    gate = Gate()
    gate.prepare(answer("x" * 150))
    assert gate.ask() == "miss"
    assert gate.ask(stream=True) == "exact"
    assert gate.down.sent.endswith(DONE)
    assert b'"usage"' not in gate.down.sent
    assert "text/event-stream" in gate.head
    assert gate.record.stream
    assert gate.record.outcome == "ok"


def test_a_stream_without_usage_is_none_for_who_wants_to_see_it() -> None:
    gate = Gate(inject_usage=False)
    gate.prepare([CHUNK, STOP, DONE])
    assert gate.ask(stream=True) == "miss"
    gate.prepare(STREAM)
    assert gate.ask(stream=True, stream_options={"include_usage": True}) == "miss"
    assert gate.ask(stream=True, stream_options={"include_usage": True}) == "exact"
    assert gate.ask(stream=True) == "exact"


def test_a_stream_without_usage_is_no_answer_in_json_which_always_states_it() -> None:
    gate = Gate(inject_usage=False)
    gate.prepare([CHUNK, STOP, DONE])
    gate.ask(stream=True)
    gate.prepare()
    assert [gate.ask(), gate.ask()] == ["miss", "exact"]
    assert json.loads(gate.down.sent)["usage"]["total_tokens"] == 7
    assert gate.ask(stream=True) == "exact"


def test_a_paced_stream_comes_in_events() -> None:
    gate = Gate(Cache(exact=EVERYTHING.exact, pace=100))
    gate.prepare(STREAM)
    gate.ask(stream=True)
    gate.ask(stream=True, slow=True)
    assert gate.stops.count("pause") == 2
    assert gate.down.sent == b"".join((CHUNK, STOP, DONE))
    assert gate.record.outcome == "ok"


def test_what_is_captured_of_a_hit_is_what_was_sent() -> None:
    gate = Gate()
    gate.settings["capture_bytes"] = 20
    gate.prepare()
    gate.ask()
    gate.ask()
    assert gate.call.captured == answer()[:20]


# -- what is never kept (LiteLLM's faults, RELIABILITY G11 and G12) ---------------------------------------------------


@pytest.mark.parametrize(
    "poison",
    [
        {"body": answer("cut here", "length")},
        {"body": answer("no", "content_filter")},
        {"body": answer("")},
        {"body": answer()[:-20]},
        {"body": b"{}"},
        {"body": b""},
        {"body": answer("", "tool_calls", tool_calls=[{"id": "1", "function": {"name": "f", "arguments": "{}"}}])},
        {"body": b'{"error":{"message":"busy","type":"overloaded"}}', "status": 503},
        {"body": b'{"error":{"message":"busy","type":"overloaded"}}'},
        {"body": answer(), "status": 201},
        {"body": answer(), "headers": ((b"Content-Type", b"application/json"), (b"Content-Encoding", b"gzip"))},
        {"body": answer(), "headers": ((b"Content-Type", b"application/json"), (b"Content-Encoding", b"odd"))},
    ],
)
def test_no_poison_is_kept(poison: dict[str, Any]) -> None:
    gate = Gate()
    for _ in range(2):
        gate.prepare(**poison)
        assert gate.ask() in ("miss", "")
    assert gate.store.puts == []
    assert gate.sent == 2
    assert all(flight.ended for flight in gate.flights.led)


@pytest.mark.parametrize(
    "pieces",
    [
        [CHUNK, CHUNK],
        [CHUNK, b'data: {"error":{"message":"busy","code":"server_error"}}\n\n'],
        [b'data: {"error":{"message":"busy","code":"server_error"}}\n\n'],
        [CHUNK, STOP.replace(b"stop", b"length"), USAGE, DONE],
        [STOP, USAGE, DONE],
        [CHUNK, ClientGone()],
        [CHUNK, StreamTruncated("cut")],
    ],
)
def test_no_poisoned_stream_is_kept(pieces: list[Any]) -> None:
    gate = Gate()
    for _ in range(2):
        gate.prepare(list(pieces))
        gate.ask(stream=True)
    assert gate.store.puts == []
    assert gate.sent == 2


def test_what_is_too_large_is_not_kept() -> None:
    gate = Gate(Cache(exact=EVERYTHING.exact, entry_bytes=1024))
    gate.prepare(answer("x" * 2000))
    gate.ask()
    assert gate.store.puts == []


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (answer("cut here", "length"), "unfinished"),
        (answer(""), "empty"),
        (answer("x" * 2000), "large"),
        (answer(), ""),
    ],
)
def test_the_record_says_why_an_answer_was_not_kept(body: bytes, why: str) -> None:
    gate = Gate(Cache(exact=EVERYTHING.exact, entry_bytes=1024))
    gate.prepare(body)
    assert gate.ask() == "miss"
    assert gate.record.cache_reason == why


def test_an_answer_to_a_changed_request_is_for_that_call_alone() -> None:
    gate = Gate()
    gate.prepare()
    gate.world.books = limit(
        gate.world,
        budgets=(Budget(scope="global", tokens=200, per="life", on_exceed="clamp"),),
        spending=Spending(clamp_floor=1),
    )
    gate.settings = dict(gate.world.settings)
    assert gate.ask(max_tokens=500) == "miss"
    assert gate.call.notes["budget"] == "clamped"
    assert gate.store.puts == []
    (flight,) = gate.flights.led
    assert (flight.whole, flight.alone) == (False, True)


def test_a_body_with_a_member_twice_is_not_asked_for() -> None:
    gate = Gate()
    for _ in range(2):
        gate.prepare()
        gate.down = MemoryDown(gate.world.log)
        gate.world.settings = dict(gate.settings)
        body = b'{"model":"gpt-4o","messages":[{"role":"user","role":"system","content":"x"}]}'
        drive(serve(ask(CHAT, body), gate.down, gate.world.gateway()))
        assert gate.call.cached.reason == "ambiguous"
    assert gate.store.puts == []


# -- leaks: tenants x routes ------------------------------------------------------------------------------------------

ROUTES: dict[str, tuple[dict[str, Any], bytes]] = {
    CHAT: (QUESTION, answer()),
    "/v1/completions": (
        {"model": "m", "prompt": "Why?"},
        b'{"id":"c","choices":[{"index":0,"text":"Hi","finish_reason":"stop"}]}',
    ),
    "/v1/responses": (
        {"model": "m", "input": "Why?"},
        b'{"id":"r","object":"response","status":"completed","output":[{"type":"message","content":[{"type":'
        b'"output_text","text":"Hi"}]}]}',
    ),
    "/v1/embeddings": ({"model": "m", "input": "Why?"}, b'{"data":[{"embedding":[1.0]}],"usage":{"prompt_tokens":1}}'),
    "/v1/messages": (
        {"model": "m", "max_tokens": 9, "messages": []},
        b'{"id":"m","type":"message","role":"assistant","content":[{"type":"text","text":"Hi"}],"stop_reason":'
        b'"end_turn","usage":{"input_tokens":1,"output_tokens":1}}',
    ),
    "/v1beta/models/m:generateContent": (
        {"contents": [{"parts": [{"text": "Why?"}]}]},
        b'{"candidates":[{"content":{"parts":[{"text":"Hi"}],"role":"model"},"finishReason":"STOP","index":0}]}',
    ),
}
ASKERS: dict[str, tuple[Who, Key | None]] = {
    "default": (Who(), None),
    "tenant a": (Who(tenant="a"), None),
    "tenant b": (Who(tenant="b"), None),
    "user of a": (Who(tenant="a", end_user="u"), None),
    "key of team t": (Who(), Key("k1", team="t")),
    "key of team s": (Who(), Key("k2", team="s")),
    "key x": (Who(), Key("k3")),
    "key y": (Who(), Key("k4")),
}


class Keys:
    required = True

    def __init__(self, key: Key) -> None:
        self._key = key

    def find(self, presented: bytes) -> Key | None:
        return self._key


@pytest.mark.parametrize("path", ROUTES)
def test_nobody_gets_what_another_paid_for(path: str) -> None:
    gate = Gate()
    body, text = ROUTES[path]
    results = []
    for _ in range(2):
        for name, (who, key) in ASKERS.items():
            gate.world.identity.identify = lambda call, who=who: (Who(tenant=who.tenant, end_user=who.end_user), [])  # type: ignore[method-assign]
            gate.settings["keys"] = Keys(key) if key is not None else None
            marked = text.replace(b"Hi", name.encode())
            gate.world.upstreams.answers.clear()
            gate.prepare(marked)
            gate.down = MemoryDown(gate.world.log)
            gate.world.settings = dict(gate.settings)
            secret = b"Bearer tg-k-s" if key is not None else b"Bearer x"
            drive(
                serve(ask(path, json.dumps(body).encode(), (b"Authorization", secret)), gate.down, gate.world.gateway())
            )
            assert gate.call.status == 200, gate.down.sent
            results.append(gate.call.cached.result)
            assert gate.down.sent == marked
    assert results == ["miss"] * len(ASKERS) + ["exact"] * len(ASKERS)


# -- rules and wishes -------------------------------------------------------------------------------------------------


def test_nothing_is_said_where_nothing_is_enabled() -> None:
    gate = Gate(Cache(exact=ExactCache(rules=(CacheRule(model="other"),))))
    for _ in range(2):
        gate.prepare()
        assert gate.ask() == ""
    assert gate.record.cache == ""
    assert gate.sent == 2


def test_an_entry_kept_under_one_rule_is_given_by_the_rule_of_each_call() -> None:
    rules = (CacheRule(agent="tooler", tools=True), CacheRule(agent="tester", ttl=1))
    gate = Gate(Cache(exact=ExactCache(enabled=True, rules=rules)))
    gate.world.identity.identify = lambda call: (Who(agent="tooler"), [])  # type: ignore[method-assign]
    gate.prepare(answer("", "tool_calls", tool_calls=[{"id": "1", "function": {"name": "f", "arguments": "{}"}}]))
    assert gate.ask() == "miss"
    assert gate.ask() == "exact"
    gate.world.identity.identify = lambda call: (Who(agent="plain"), [])  # type: ignore[method-assign]
    gate.prepare()
    assert gate.ask() == "miss"


@pytest.mark.parametrize(
    ("headers", "result", "sent", "kept"),
    [
        ([(b"Cache-Control", b"no-cache")], "bypass", 2, 2),
        ([(b"Cache-Control", b"no-store")], "bypass", 2, 1),
        ([(b"X-Tollgate-Cache", b"refresh")], "bypass", 2, 2),
        ([(b"X-Tollgate-Cache", b"bypass")], "bypass", 2, 1),
        ([(b"Cache-Control", b"max-age=0")], "bypass", 2, 2),
        ([(b"Cache-Control", b"max-age=9")], "exact", 1, 1),
        ([(b"Cache-Control", b"only-if-cached")], "exact", 1, 1),
    ],
)
def test_wishes(headers: list[tuple[bytes, bytes]], result: str, sent: int, kept: int) -> None:
    gate = Gate()
    gate.prepare()
    gate.ask()
    gate.prepare()
    assert gate.ask(*headers) == result
    assert (gate.sent, len(gate.store.puts)) == (sent, kept)


@pytest.mark.parametrize("body", [{}, {"web_search_options": {}}])
def test_who_wants_the_cache_only_gets_that_or_nothing(body: dict[str, Any]) -> None:
    gate = Gate(Cache(exact=ExactCache(enabled=True)))
    gate.ask((b"Cache-Control", b"only-if-cached"), **body)
    assert (gate.call.status, gate.sent) == (504, 0)
    assert isinstance(gate.call.fault, NotCached)
    assert "x-should-retry: false" in gate.head
    assert outcome_of(gate.call) == "refused"


@pytest.mark.parametrize("switched_off", ["by rule", "all of it"])
def test_who_wants_the_cache_only_pays_nothing_where_there_is_none(switched_off: str) -> None:
    gate = Gate(Cache(exact=ExactCache(enabled=False)))
    if switched_off == "all of it":
        gate.settings["cache"] = None
    gate.ask((b"X-Tollgate-Cache", b"only"))
    assert (gate.call.status, gate.sent) == (504, 0)
    gate.prepare()
    gate.ask((b"X-Tollgate-Cache", b"bypass"))
    assert (gate.call.status, gate.sent) == (200, 1)


def test_breakpoints_of_the_gateway_change_no_answer() -> None:
    gate = Gate()
    gate.settings["mark_prefixes"] = True
    said = b'{"content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn","usage":{"input_tokens":1}}'
    gate.prepare(said)
    asked = {"path": "/v1/messages", "system": "Rules. " * 400, "max_tokens": 9}
    assert gate.ask(**asked) == "miss"
    assert gate.call.notes["cache_marks"] == "1"
    assert gate.ask(**asked) == "exact"
    assert gate.down.sent == said


def test_an_alias_is_the_model_it_stands_for() -> None:
    gate = Gate()
    gate.settings["aliases"] = {"house": ("gpt-4o", "")}
    gate.prepare()
    assert gate.ask() == "miss"
    assert gate.ask(model="house") == "exact"
    assert gate.store.puts[0].model == "gpt-4o"


def test_tags_are_kept_with_the_answer() -> None:
    gate = Gate()
    gate.prepare()
    gate.ask((b"x-tollgate-cache-tags", b"a, b"))
    assert gate.store.puts[0].tags == ("a", "b")


def test_an_answer_asked_for_before_a_clearing_is_not_kept() -> None:
    gate = Gate()
    exchange = gate.world.answer(200, JSON, [answer()])
    read = exchange.read

    async def cleared() -> bytes:
        gate.store.clear()
        return await read()

    exchange.read = cleared  # type: ignore[method-assign]
    gate.ask()
    assert gate.store.puts == []


# -- money ------------------------------------------------------------------------------------------------------------


def test_a_hit_asks_for_a_request_and_for_nothing_else() -> None:
    gate = Gate()
    rates = Rates(scope="global", rpm=60, burst=3, tpm=1_000_000, concurrency=5)
    budgets = (Budget(scope="global", usd=1), Budget(scope="model", tokens=10**6, per="day"))
    books = limit(gate.world, budgets=budgets, limits=Limits(rates=(rates,)), runs=Runs(max_calls=1, budget_usd=1))
    gate.settings = dict(gate.world.settings)
    gate.prepare()
    assert gate.ask() == "miss"
    spent = books.charges[-1][1]
    assert gate.ask() == "exact"
    assert gate.ask() == "exact"
    assert [(charge.usd, charge.tokens) for _, charge in books.charges[1:]] == [(0, 0)] * 2
    assert spent.usd > 0
    assert books.held == {} or not books.held
    assert gate.ask() == ""
    assert isinstance(gate.call.fault, LimitReached)
    assert gate.call.status == 429
    assert (gate.record.cache, gate.record.saved) == ("", 0)


# -- together ---------------------------------------------------------------------------------------------------------


def following(gate: Gate, *steps: Any) -> MemoryFlight:
    flight = gate.flights.ahead = MemoryFlight()
    flight.script = list(steps)
    return flight


def begin(flight: MemoryFlight) -> None:
    flight.begin(b"text/event-stream", b"x-request-id: 1\r\n")


def feed(*pieces: bytes) -> Any:
    return lambda flight: [flight.feed(piece) for piece in pieces]


def end(**how: Any) -> Any:
    return lambda flight: flight.end(**how)


def test_a_follower_receives_the_stream_as_it_comes() -> None:
    gate = Gate()
    flight = following(gate, begin, feed(CHUNK), feed(CHUNK), feed(STOP, DONE), end(whole=True, cost=9))
    assert gate.ask(stream=True, slow=True) == "exact"
    writes = [data for name, data in gate.world.log if name == "write"]
    assert writes == [CHUNK, CHUNK, STOP]
    assert gate.down.sent == b"".join((CHUNK, CHUNK, STOP, DONE))
    record = gate.record
    assert (record.cache, record.outcome, record.cost, record.saved, record.attempts) == ("joined", "ok", 0, 9, ())
    assert (gate.sent, flight.followers) == (0, 0)


def test_an_answer_that_is_waited_for_is_no_time_that_the_gateway_takes() -> None:
    gate = Gate()

    def late(flight: MemoryFlight) -> None:
        gate.world.clock += 5 * 10**9
        begin(flight)

    following(gate, late, feed(CHUNK, STOP, DONE), end(whole=True, cost=9))
    gate.ask(stream=True)
    record = gate.record
    assert (record.cache, record.outcome) == ("joined", "ok")
    assert record.overhead_ns < 10**9 < 5 * 10**9 <= record.duration_ns


def test_a_follower_receives_a_whole_answer() -> None:
    gate = Gate()

    def whole(flight: MemoryFlight) -> None:
        flight.begin(b"application/json", b"")
        flight.feed(answer())

    following(gate, whole, end(whole=True, cost=None))
    assert gate.ask() == "exact"
    assert gate.down.sent == answer()
    assert (gate.record.usage.input_tokens, gate.record.usage_source, gate.record.saved) == (5, "cached", 0)


def test_a_leader_that_fails_before_its_answer_lets_another_lead() -> None:
    gate = Gate()
    following(gate, end(whole=False))
    gate.prepare()
    assert gate.ask() == "miss"
    (flight,) = gate.flights.led
    assert (flight.whole, len(gate.store.puts)) == (True, 1)


def test_an_answer_for_the_leader_alone_sends_everybody_their_own_way() -> None:
    gate = Gate()
    following(gate, end(whole=False, alone=True))
    gate.prepare()
    assert gate.ask() == "miss"
    assert gate.flights.led == []
    assert len(gate.store.puts) == 1


def test_an_answer_that_another_worker_leads_is_shared_as_one_of_this() -> None:
    gate = Gate()
    gate.flights.elsewhere = [(lambda flight: None, [begin, feed(CHUNK, STOP, DONE), end(whole=True, cost=9)])]
    assert gate.ask(stream=True) == "exact"
    assert gate.down.sent == b"".join((CHUNK, STOP, DONE))
    assert (gate.sent, gate.record.cache, gate.record.saved) == (0, "joined", 9)
    assert gate.stops[0] == "claim"


def test_another_workers_leader_that_fails_lets_this_call_lead() -> None:
    gate = Gate()
    gate.flights.elsewhere = [(lambda flight: None, [end(whole=False)])]
    gate.prepare()
    assert gate.ask() == "miss"
    assert (gate.sent, len(gate.store.puts), len(gate.flights.led)) == (1, 1, 2)
    assert gate.flights.led[-1].kept, "whoever comes late finds it in the store"


def test_another_workers_leader_that_is_slow_is_replaced() -> None:
    gate = Gate()
    gate.flights.elsewhere = [(lambda flight: None, [])]
    gate.prepare()
    assert gate.ask() == "miss"
    assert (gate.sent, len(gate.flights.led)) == (1, 2)


@pytest.mark.parametrize("fits", [True, False])
def test_an_answer_that_was_stored_between_look_up_and_claim_is_looked_for_again(fits: bool) -> None:
    gate = Gate()
    gate.prepare()
    assert gate.ask() == "miss"
    (kept,) = gate.store.entries.values()
    gate.store.entries.clear()

    def stored(flight: MemoryFlight) -> None:
        if fits:
            gate.store.entries[kept.key] = kept
        flight.stored = True
        flight.end(whole=False)

    gate.flights.elsewhere = [(stored, [])]
    gate.prepare()
    assert gate.ask() == ("exact" if fits else "miss")
    assert gate.sent == (1 if fits else 2)


def test_what_is_not_kept_is_not_said_to_be() -> None:
    gate = Gate()
    gate.prepare(answer("", "content_filter"))
    assert gate.ask() == "miss"
    assert not gate.flights.led[-1].kept


def test_who_asks_after_a_clearing_joins_nothing_that_was_asked_for_before() -> None:
    gate = Gate()
    gate.prepare()
    assert gate.ask() == "miss"
    gate.store.clear()
    gate.prepare()
    assert gate.ask() == "miss"
    assert len({flight.key for flight in gate.flights.led}) == 2


def test_a_leader_that_is_slow_is_not_waited_for() -> None:
    gate = Gate()
    slow = following(gate)
    gate.prepare()
    assert gate.ask() == "miss"
    assert not slow.ended
    assert len(gate.flights.led) == 1


def test_what_a_slow_leader_left_meanwhile_is_given_to_whoever_waited_for_another() -> None:
    gate = Gate()
    gate.prepare()
    assert gate.ask() == "miss"
    (kept,) = gate.store.entries.values()
    gate.store.entries.clear()
    gate.flights.flights.clear()
    following(gate, lambda flight: gate.store.entries.update({kept.key: kept}))
    assert gate.ask() == "exact"
    assert gate.sent == 1


def test_a_slow_leader_that_begins_after_all_is_followed_by_whoever_waits_for_another() -> None:
    gate = Gate()
    slow = following(gate)

    def late(flight: MemoryFlight) -> None:
        assert (slow.followers, flight.followers) == (1, 1)
        begin(slow)
        slow.feed(CHUNK + STOP + DONE)
        slow.end(whole=True, cost=9)

    gate.flights.elsewhere = [(lambda flight: None, [late])]
    assert gate.ask(stream=True) == "exact"
    assert gate.down.sent == b"".join((CHUNK, STOP, DONE))
    assert (gate.sent, gate.record.cache, gate.record.saved) == (0, "joined", 9)
    assert (slow.followers, gate.flights.led[-1].followers) == (0, 0)


def test_a_slow_leader_that_fails_takes_nobody_from_the_one_after_it() -> None:
    gate = Gate()
    slow = following(gate)
    steps = [lambda flight: slow.end(whole=False), begin, feed(CHUNK, STOP, DONE), end(whole=True, cost=7)]
    gate.flights.elsewhere = [(lambda flight: None, steps)]
    assert gate.ask(stream=True) == "exact"
    assert (gate.sent, gate.record.cache, gate.record.saved) == (0, "joined", 7)
    assert (slow.followers, len(gate.flights.led)) == (0, 1)


def test_a_leader_that_breaks_off_in_mid_stream_ends_its_followers_so() -> None:
    gate = Gate()
    following(gate, begin, feed(CHUNK), end(whole=False))
    assert gate.ask(stream=True) == "exact"
    assert gate.down.endings == ["abort"]
    assert b"[DONE]" not in gate.down.sent
    assert b"error" in gate.down.sent
    assert (gate.record.outcome, gate.record.saved, gate.record.cost) == ("truncated", 0, 0)


def test_nobody_follows_who_may_be_given_tool_calls_that_no_rule_allows() -> None:
    gate = Gate()
    following(gate, begin)
    gate.prepare()
    gate.ask(tools=[{"type": "function", "function": {"name": "f"}}])
    assert gate.flights.ahead is not None
    assert gate.flights.led == []


def test_single_flight_can_be_turned_off() -> None:
    gate = Gate(Cache(exact=EVERYTHING.exact, single_flight=False))
    following(gate, begin)
    gate.prepare()
    assert gate.ask() == "miss"
    assert gate.flights.led == []


def test_the_answer_of_a_client_that_left_is_read_on_for_others() -> None:
    gate = Gate()
    exchange = gate.world.answer(200, SSE, [CHUNK, ClientGone(), ClientGone(), STOP, USAGE, DONE])
    lead = gate.flights.lead

    def followed(key: bytes) -> MemoryFlight:
        flight = lead(key)
        flight.followers = 1
        return flight

    gate.flights.lead = followed  # type: ignore[method-assign]
    gate.down = MemoryDown(gate.world.log)
    drive(serve(ask(CHAT, json.dumps({**QUESTION, "stream": True}).encode()), gate.down, gate.world.gateway()))
    (flight,) = gate.flights.led
    assert (flight.ended, flight.whole) == (True, True)
    assert b"".join(flight.pieces) == b"".join((CHUNK, STOP, DONE)), "without the usage that was added"
    assert outcome_of(gate.call) == "cancelled"
    assert gate.down.endings == ["abort"]
    assert exchange.closed
    assert len(gate.store.puts) == 1


def test_nobody_is_left_waiting_when_a_call_is_cancelled() -> None:
    gate = Gate()
    gate.prepare()
    request = ask(CHAT, json.dumps(QUESTION).encode())
    with pytest.raises(CancelledError):
        drive(serve(request, gate.down, gate.world.gateway()), at=1, raising=CancelledError())
    (flight,) = gate.flights.led
    assert (flight.ended, flight.whole, flight.ends) == (True, False, 1)
