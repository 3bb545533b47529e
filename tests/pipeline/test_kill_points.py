"""A call is killed at every one of its awaits, in every way; each time it must end exactly as rule 2 says.

The scenarios run on in-memory doubles that stop at each await, so that "every await" is a number and not a hope.
"""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec import structs

from gateway.call import Asked, Request, Route
from gateway.config.schema import Budget, Bulkhead, Cache, Fallback, Limits, Runs, Spending, TaperStep
from gateway.dialects.mcp_outputs import McpOutputs
from gateway.dialects.openai_chat import OpenAIChat
from gateway.dialects.tool_outputs import ToolOutputs
from gateway.dialects.tool_paths import Door
from gateway.errors import BadFraming, ClientGone, Draining, GatewayError, StreamStalled, UpstreamReset
from gateway.journal.convert import outcome_of
from gateway.pipeline import serve
from gateway.policy.breaker import Terms as Terms_
from gateway.policy.bulkhead import Pool, Wish
from gateway.policy.chains import Chains
from gateway.policy.pools import PoolBook
from gateway.policy.priorities import Priorities
from gateway.ports import Downstream, Meter, Outputs
from gateway.spend import Charge, Demand, Rule, Unit
from gateway.stages.breaking import Breakers
from gateway.stages.bulkheads import Bulkheads
from gateway.stages.trials import Manner, RetryingTrials
from gateway.testing.doubles import World, ask, drive
from gateway.testing.memory_budgets import NOW, MemoryBudgets, limit
from gateway.testing.memory_cache import EVERYTHING, MemoryCache, MemoryFlight, MemoryFlights, cached, outputs_cached
from gateway.testing.turns import Stop
from gateway.tool import Caching, Price, Terms

JSON = ((b"Content-Type", b"application/json"),)
SSE = ((b"Content-Type", b"text/event-stream"),)
ANSWER = (
    b'{"id":"c","object":"chat.completion","model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}'
)
CHUNK = b'data: {"id":"c","model":"gpt-4o","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
USAGE = b'data: {"id":"c","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}\n\n'
DONE = b"data: [DONE]\n\n"
QUESTION = b'{"model":"gpt-4o","messages":[]}'
CEILING = b'{"model":"gpt-4o","max_tokens":50,"messages":[]}'
STREAMED = b'{"model":"gpt-4o","stream":true,"messages":[]}'
COUNTED = b'{"model":"gpt-4o","stream":true,"stream_options":{"include_usage":true},"messages":[]}'
REJECTION = b'{"error":{"message":"Unknown parameter: stream_options","type":"invalid_request_error"}}'
CHAT = "/v1/chat/completions"


@dataclass(slots=True)
class Scenario:
    name: str
    world: Callable[[], World]
    request: Request
    fault: GatewayError | None = None


def json_answer() -> World:
    world = World()
    world.answer(200, JSON, [ANSWER[:50], ANSWER[50:]])
    return world


def large_answer() -> World:
    """More than is read before it is committed; to a client that is slow."""
    world = World(slow=True)
    world.answer(200, JSON, [ANSWER[:-1], b" " * 1_100_000, b" ", b"}"])
    return world


def stream() -> World:
    world = World(slow=True)
    world.answer(200, SSE, [b": ping\n\n", CHUNK, CHUNK, USAGE, DONE])
    return world


def drained_stream() -> World:
    world = World(slow=True, drain=True)
    world.answer(200, SSE, [CHUNK, CHUNK, USAGE, DONE])
    return world


def rejected_injection() -> World:
    world = World()
    world.answer(400, JSON, [REJECTION])
    world.answer(200, SSE, [CHUNK, DONE])
    return world


def alias() -> World:
    world = json_answer()
    world.settings["aliases"] = {"house": ("gpt-4o", "")}
    return world


def limited(make: Callable[[], World], **limits: Any) -> Callable[[], World]:
    """The same under budgets: what was held must be settled, whatever happens."""

    def made() -> World:
        world = make()
        limits.setdefault("runs", Runs(budget_usd=1, max_calls=10))
        limits.setdefault("budgets", (Budget(scope="global", usd=10), Budget(scope="model", tokens=10**6, per="day")))
        world.books = limit(world, limits=Limits(concurrency=5, rpm=60), **limits)
        return world

    return made


def waiting() -> World:
    """The budget is full until somebody else settles."""
    world = limited(json_answer, runs=Runs(budget_usd=0.001, on_exceed="queue"))()
    books = world.books
    other = [Demand("run:run-1|usd|life", Rule.TOTAL, Unit.USD, 900_000, 1_000_000)]
    books.book.reserve("other", other, "me", NOW)
    books.on_wait = lambda: books.settle("other", Charge(usd=1)) if world.names().count("reserve") > 1 else None
    return world


def tapered() -> World:
    world = limited(stream, runs=Runs(budget_usd=1, taper=(TaperStep(at=0.5, max_tokens=20),)))()
    world.books.spend(Demand("run:run-1|usd|life", Rule.TOTAL, Unit.USD, 0, 10**9), 600_000_000)
    return world


def overrun() -> World:
    """The stream reaches what was held for it before it is over."""
    world = World(slow=True)
    world.answer(200, SSE, [CHUNK.replace(b"Hi", b"Hello there " * 10), CHUNK, CHUNK, USAGE, DONE])
    return limited(lambda: world, spending=Spending(output_ceiling=20))()


ENDED = CHUNK.replace(b'"delta":{"content":"Hi"}', b'"delta":{},"finish_reason":"stop"')


def remembering(make: Callable[[], World], settings: Cache = EVERYTHING) -> Callable[[], World]:
    """The same with a cache: whatever happens, nobody is left waiting, and nothing is kept but whole answers."""

    def made() -> World:
        world = make()
        world.cache = cached(world, settings, far=True)
        return world

    return made


def whole_stream() -> World:
    world = World(slow=True)
    world.answer(200, SSE, [CHUNK, ENDED, USAGE, DONE])
    return world


def hit(stream: bool = False, pace: float = 0) -> Callable[[], World]:
    """The answer is there already; the call is under limits."""

    def made() -> World:
        first = remembering(whole_stream if stream else json_answer)()
        store = first.cache[0]
        drive(serve(ask(CHAT, COUNTED if stream else CEILING), first.down, first.gateway()))
        assert len(store.puts) == 1
        world = limited(lambda: World(slow=True))()
        world.cache = cached(world, Cache(exact=EVERYTHING.exact, pace=pace), far=True)
        world.cache[0].entries = store.entries
        return world

    return made


def joined() -> World:
    """An equal call is under way, and this one receives its answer as it comes."""
    world = limited(lambda: World(slow=True))()
    world.cache = cached(world)
    flight = world.cache[1].ahead = MemoryFlight()
    flight.script = [
        lambda flight: flight.begin(b"text/event-stream", b""),
        lambda flight: flight.feed(CHUNK),
        lambda flight: [flight.feed(piece) for piece in (CHUNK, ENDED, USAGE, DONE)],
        lambda flight: flight.end(whole=True, cost=5),
    ]
    return world


def led_elsewhere() -> World:
    """Another worker leads an equal call, and fails; this one leads."""
    world = remembering(limited(whole_stream))()
    world.cache[1].elsewhere = [(lambda flight: None, [lambda flight: flight.end(whole=False)])]
    return world


def abandoned() -> World:
    """An equal call was under way, but failed: this one leads."""
    world = remembering(limited(whole_stream))()
    flight = world.cache[1].ahead = MemoryFlight()
    flight.script = [lambda flight: flight.end(whole=False)]
    return world


def upstream_error() -> World:
    world = World()
    world.answer(529, JSON, [b'{"error":{"message":"busy","type":"overloaded"}}'])
    return world


def first_event_is_an_error() -> World:
    world = World()
    world.answer(200, SSE, [b'data: {"error":{"message":"busy","code":"server_error"}}\n\n'])
    return world


def socket() -> World:
    world = World(slow=True)
    world.answer(101, ((b"Upgrade", b"websocket"),), [b"\x81\x02{}", b"\x88\x00"])
    return world


def tool() -> World:
    world = World()
    world.tool(Terms("t", Price(10**9)), Door("/v1"))
    world.answer(200, JSON, [b"half", b" and half"])
    return world


def json_tool() -> World:
    world = World()
    world.tool(Terms("t", Price(10**9)), Door("/v1"))
    world.answer(200, SIZED, [b'{"a":', b"[1]}"])
    return world


def mcp_server(kind: tuple[tuple[bytes, bytes], ...], *pieces: bytes, **terms: Any) -> Callable[[], World]:
    def make() -> World:
        world = World(slow=True)
        world.tool(Terms("s", Price(10**9), **terms), Door("/mcp"), mcp=True)
        world.answer(200, kind, list(pieces))
        return world

    return make


def keeping(make: Callable[[], World]) -> Callable[[], World]:
    """The same with a cache of outputs; `add` of the server and all paths of the tool are kept."""

    def made() -> World:
        world = make()
        caching = Caching((("add", 10**9), ("/**", 10**9)))
        outputs: dict[str, Outputs] = {"tools/t": ToolOutputs(caching, "/v1"), "mcp/s": McpOutputs(caching)}
        world.cache = outputs_cached(world, outputs, far=True), MemoryFlights()
        return world

    return made


def known(make: Callable[[], World], request: Request) -> Callable[[], World]:
    """The output is there already; the call is under limits."""

    def made() -> World:
        first = keeping(make)()
        drive(serve(request, first.down, first.gateway()))
        (entry,) = first.cache[0].puts
        world = limited(keeping(make))()
        world.upstreams.answers.clear()
        world.cache[0].entries[entry.key] = entry
        return world

    return made


def retrying(make: Callable[[], World], *failures: GatewayError | int | bytes) -> Callable[[], World]:
    """The same, but attempts before it fail: with a fault, with a status, or cut in the answer; then another upstream
    is asked, and that again."""

    def made() -> World:
        world = make()
        backup = structs.replace(world.specs["openai"], name="backup")
        world.specs["backup"] = structs.replace(backup, target=structs.replace(backup.target, upstream="backup"))

        async def pause(down: Downstream, seconds: float) -> None:
            await Stop("pause")
            if down.gone:
                raise ClientGone()

        manner = Manner(with_sdk=True, timeouts=True)
        breakers = Breakers(Terms_(), slow=0, refuse=False, tell=lambda name, change: None)
        world.settings["trials"] = RetryingTrials(manner, Chains((Fallback(to=("backup",)),)), pause, breakers)
        last, world.upstreams.answers = world.upstreams.answers, []
        for failure in failures:
            if isinstance(failure, GatewayError):
                world.upstreams.answers.append(failure)
            elif isinstance(failure, bytes):
                kind = SSE if failure.startswith((b"data", b":")) else JSON
                world.answer(200, kind, [failure, UpstreamReset("cut", code="upstream_cut")])
            else:
                world.answer(failure, JSON, [b'{"error":{"message":"busy","type":"overloaded"}}'])
        world.upstreams.answers += last
        return world

    return made


def crowded(make: Callable[[], World]) -> Callable[[], World]:
    """The same through a pool whose one place another call has until this one waits for it."""

    class Parking:
        def __init__(self) -> None:
            self.is_woken = False

        def wake(self) -> None:
            self.is_woken = True

        async def until(self, down: Downstream, seconds: float) -> bool:
            await Stop("place")
            if down.gone:
                raise ClientGone()
            self.leave()
            return self.is_woken

        leave: Callable[[], None]

    def made() -> World:
        world = make()
        book = PoolBook(0)
        book.configure({"all": Bulkhead(max=1)}, Priorities(()), 1, 0)
        pool = book._pools["all", "", ""] = Pool(book._terms[0])
        other = pool.enter(Wish(tenant="other"), 0)
        Parking.leave = staticmethod(lambda: pool.leave(other, 1))
        trials = world.settings.setdefault("trials", RetryingTrials(Manner(attempts=1), Chains(()), no_pause))
        trials.bulkheads = Bulkheads(book, Parking)
        return world

    return made


async def no_pause(down: Downstream, seconds: float) -> None:
    raise AssertionError("nothing is tried again")


RPC = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"add"}}'
RPC_STREAM = (b'id: 1\ndata: {"method":"x"}\n\n', b'data: {"id":1,"result":{}}\n\n')
RESULT = b'{"id":1,"result":{"content":[]}}'
RPC_RESULT = (b'data: {"jsonrpc":"2.0","method":"notifications/progress"}\n\n', b"data: " + RESULT + b"\n\n")
SIZED = (*JSON, (b"Content-Length", b"9"))
LISTED = b'{"id":1,"result":{"tools":[{"name":"a"},{"name":"rm"}]}}'
SCENARIOS = [
    Scenario("json", json_answer, ask(CHAT, QUESTION)),
    Scenario("large json", large_answer, ask(CHAT, QUESTION)),
    Scenario("stream", stream, ask(CHAT, COUNTED)),
    Scenario("stream with injection", stream, ask(CHAT, STREAMED)),
    Scenario("stream, drained when left", drained_stream, ask(CHAT, COUNTED)),
    Scenario("injection rejected", rejected_injection, ask(CHAT, STREAMED)),
    Scenario("alias", alias, ask(CHAT, QUESTION.replace(b"gpt-4o", b"house"))),
    Scenario("upstream error", upstream_error, ask(CHAT, QUESTION)),
    Scenario("error in the first event", first_event_is_an_error, ask(CHAT, COUNTED)),
    Scenario("pass-through", json_answer, ask("/v1/files", b"anything")),
    Scenario(
        "socket",
        socket,
        ask("/v1/responses", b"", (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"), method=b"GET"),
    ),
    Scenario("limited json", limited(json_answer), ask(CHAT, CEILING)),
    Scenario("limited stream", limited(stream), ask(CHAT, STREAMED)),
    Scenario("limited, drained when left", limited(drained_stream), ask(CHAT, COUNTED)),
    Scenario("limited, injection rejected", limited(rejected_injection), ask(CHAT, STREAMED)),
    Scenario("limited, upstream error", limited(upstream_error), ask(CHAT, CEILING)),
    Scenario("limited, waiting", waiting, ask(CHAT, CEILING)),
    Scenario("limited, tapered", tapered, ask(CHAT, COUNTED)),
    Scenario("limited, overrun", overrun, ask(CHAT, COUNTED)),
    Scenario("cached, miss", remembering(json_answer), ask(CHAT, QUESTION)),
    Scenario("cached, miss of a stream", remembering(limited(whole_stream)), ask(CHAT, STREAMED)),
    Scenario("cached, hit", hit(), ask(CHAT, CEILING)),
    Scenario("cached, hit of a stream", hit(stream=True), ask(CHAT, STREAMED)),
    Scenario("cached, paced hit", hit(stream=True, pace=50), ask(CHAT, COUNTED)),
    Scenario("cached, joined", joined, ask(CHAT, COUNTED)),
    Scenario("cached, abandoned", abandoned, ask(CHAT, COUNTED)),
    Scenario("cached, led elsewhere", led_elsewhere, ask(CHAT, COUNTED)),
    Scenario("cached, upstream error", remembering(upstream_error), ask(CHAT, QUESTION)),
    Scenario("tool", tool, ask("/tools/t/x")),
    Scenario("limited tool", limited(tool), ask("/tools/t/x")),
    Scenario("mcp json", mcp_server(JSON, b'{"id":1,', b'"result":{}}'), ask("/mcp/s", RPC)),
    Scenario("mcp stream", mcp_server(SSE, *RPC_STREAM), ask("/mcp/s", RPC)),
    Scenario("mcp stream of the server", mcp_server(SSE, *RPC_STREAM), ask("/mcp/s", method=b"GET")),
    Scenario("mcp list", mcp_server(JSON, LISTED[:9], LISTED[9:], deny=("rm",)), ask("/mcp/s", RPC)),
    Scenario("limited mcp stream", limited(mcp_server(SSE, *RPC_STREAM, deny=("rm",))), ask("/mcp/s", RPC)),
    Scenario("kept tool", keeping(json_tool), ask("/tools/t/x", method=b"GET")),
    Scenario("kept tool, retried", retrying(keeping(json_tool), 503), ask("/tools/t/x", method=b"GET")),
    Scenario("kept tool, cut and retried", retrying(keeping(json_tool), ANSWER[:60]), ask("/tools/t/x", method=b"GET")),
    Scenario("kept tool, hit", known(json_tool, ask("/tools/t/x", method=b"GET")), ask("/tools/t/x", method=b"GET")),
    Scenario("kept mcp stream", keeping(limited(mcp_server(SSE, *RPC_RESULT))), ask("/mcp/s", RPC)),
    Scenario("kept mcp, hit", known(mcp_server(SSE, *RPC_RESULT), ask("/mcp/s", RPC)), ask("/mcp/s", RPC)),
    Scenario("retried", retrying(json_answer, 503), ask(CHAT, QUESTION)),
    Scenario("retried twice", retrying(json_answer, UpstreamReset("reset"), 529), ask(CHAT, QUESTION)),
    Scenario("retried stream", retrying(stream, b": ping\n\n", 429), ask(CHAT, STREAMED)),
    Scenario("retried in vain", retrying(upstream_error, 503, 503, 503), ask(CHAT, QUESTION)),
    Scenario("limited, retried", retrying(limited(json_answer), 503, 503), ask(CHAT, CEILING)),
    Scenario("limited, cut and retried", retrying(limited(json_answer), ANSWER[:60], ANSWER[:60]), ask(CHAT, CEILING)),
    Scenario("limited, reset and retried", retrying(limited(stream), UpstreamReset("reset")), ask(CHAT, STREAMED)),
    Scenario("cached, retried", retrying(remembering(limited(whole_stream)), 503, 503), ask(CHAT, STREAMED)),
    Scenario("crowded", crowded(json_answer), ask(CHAT, QUESTION)),
    Scenario("crowded stream", crowded(limited(stream)), ask(CHAT, STREAMED)),
    Scenario("crowded tool", crowded(tool), ask("/tools/t/x")),
    Scenario("crowded, retried", crowded(retrying(limited(stream), b": ping\n\n", 503)), ask(CHAT, STREAMED)),
    Scenario("refused: body", World, ask(CHAT, b'{"model":"a","model":"b"}')),
    Scenario("refused: path", World, ask("/v1/../admin", b"{}")),
    Scenario("refused: route", World, ask("/nowhere", b"{}")),
    Scenario("refused: framing", World, ask(CHAT), BadFraming("both lengths")),
    Scenario("refused: loop", World, ask(CHAT, QUESTION, (b"Via", b"1.1 gate-1"))),
]
HITS = {"cached, hit", "cached, hit of a stream", "cached, paced hit", "cached, joined"} | {
    *("kept tool, hit", "kept mcp, hit"),
}
WAYS: dict[str, Callable[[], BaseException]] = {
    "cancelled": CancelledError,
    "client gone": ClientGone,
    "draining": lambda: Draining("shutting down"),
    "upstream reset": lambda: UpstreamReset("reset", code="upstream_cut"),
    "upstream stalled": lambda: StreamStalled("silence"),
    "bug": lambda: RuntimeError("a bug"),
}


def check(world: World) -> None:
    """What must hold after any end of any call."""
    names = world.names()
    assert names.count("record") == 1
    assert len(world.down.endings) == 1, "the answer ends once"
    assert names[-1] == world.down.endings[0], "nothing happens behind the end of the answer"
    assert names.index("record") == len(names) - 2, "the record is written right before the client may see the end"
    assert not world.journal.slots, "the slot in the in-flight table is free"
    assert all(exchange.closed for exchange in world.upstreams.opened), "every exchange is closed"
    closes = [at for at, name in enumerate(names) if name == "close exchange"]
    assert all(at < names.index("record") for at in closes), "and before the call is"
    assert world.identity.learned == world.journal.records
    call = world.call
    assert call.ended
    assert call.trial is None, "nothing keeps the call alive"
    assert call.answer is not None
    assert call.money.status in {"priced", "no_price", "no_usage", "free"}
    trials = world.settings.get("trials")
    if trials is not None and trials.bulkheads is not None:
        for pool in trials.bulkheads.book._pools.values():
            assert not pool.waiting
            assert {tenant for tenant, _ in pool._held} <= {"other"}, "its place is given back"
    if world.books is not None:
        check_books(world, world.books)
    if world.cache is not None:
        check_cache(world, *world.cache)


def check_cache(world: World, store: MemoryCache, flights: MemoryFlights) -> None:
    call, names = world.call, world.names()
    led = [flight for flight in flights.led if flight.elsewhere is None]
    assert all(flight.ended and flight.ends == 1 for flight in led), "nobody is left waiting"
    assert all(flight.followers == 0 for flight in flights.flights.values())
    assert call.fill is None
    assert all(entry.body for entry in store.puts)
    assert not store.puts or outcome_of(call) == "ok", "only what came whole is kept"
    hit = call.cached is not None and call.cached.result in {"exact", "joined"}
    if hit:
        assert (call.money.total, call.attempts, names.count("close exchange")) == (0, [], 0)


def check_books(world: World, books: MemoryBudgets) -> None:
    """Settled exactly once, before the record is written; never less than what the record says it cost."""
    names, call = world.names(), world.call
    assert set(books.held) <= {"other"}, "what was held is given back"
    ops = [op for op, _ in books.charges if op.startswith(call.id)]
    assert len(ops) == len(set(ops)), "no attempt is settled twice"
    charges = [charge for op, charge in books.charges if op == call.id]
    if call.booked:
        assert sum(charge.usd for op, charge in books.charges if op in ops) * 1000 >= (call.money.total or 0)
        assert len(ops) <= len(call.attempts) + 1
        return
    assert len(charges) == (call.hold is not None), "what was granted is settled, once"
    for charge in charges:
        assert names.index("settle") < names.index("record")
        assert charge.usd * 1000 >= (call.money.total or 0)
        if call.cached is not None and call.cached.result in {"exact", "joined"}:
            assert (charge.usd, charge.tokens, charge.calls) == (0, 0, 1)
            continue
        assert charge.calls == any(attempt.sent for attempt in call.attempts)


def play(scenario: Scenario, at: int = -1, raising: BaseException | None = None) -> tuple[World, list[str]]:
    world = scenario.world()
    stops: list[str] = []
    try:
        stops = drive(
            serve(scenario.request, world.down, world.gateway(), scenario.fault),
            at=at,
            raising=raising,
        )
    except CancelledError:
        assert isinstance(raising, CancelledError)
    return world, stops


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_left_alone_each_ends_well(scenario: Scenario) -> None:
    world, stops = play(scenario)
    check(world)
    refused = scenario.name.startswith("refused")
    free = refused or scenario.name in HITS
    assert bool(stops) != refused
    assert bool(world.upstreams.sent) != free
    outcome = outcome_of(world.call)
    if refused:
        assert (outcome, world.down.endings) == ("refused", ["finish"])
        assert world.call.status in {400, 404, 508}
    elif "error" in scenario.name or "in vain" in scenario.name:
        assert (outcome, world.down.endings) == ("upstream_error", ["finish"])
    elif scenario.name == "socket":
        assert (outcome, world.call.status) == ("ok", 101)
    else:
        assert (outcome, world.call.status, world.down.endings) == ("ok", 200, ["finish"])


def points() -> list[tuple[Scenario, int, str]]:
    return [(scenario, at, stop) for scenario in SCENARIOS for at, stop in enumerate(play(scenario)[1])]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("scenario", "at", "stop"), points(), ids=lambda value: getattr(value, "name", str(value)))
def test_killed_anywhere_it_ends_once_and_is_recorded(scenario: Scenario, at: int, stop: str, way: str) -> None:
    world, _ = play(scenario, at, WAYS[way]())
    check(world)
    call, outcome = world.call, outcome_of(world.call)
    if way in {"cancelled", "client gone"} and scenario.name != "socket":
        assert outcome == "cancelled"
        assert world.down.endings == ["abort"]
    elif way == "bug" and scenario.name != "socket":
        assert outcome == "error"
        assert call.committed or (call.status, world.down.endings) == (500, ["finish"])
    elif world.down.endings == ["finish"] and call.status < 400:
        assert call.meter is None or call.meter.terminal, "no answer that was cut ends as if it were whole"
    if b"[DONE]" in world.down.sent:
        assert b"[DONE]" in world.down.sent[-40:]


def test_there_are_points_of_every_kind() -> None:
    stops = {stop for _, _, stop in points()}
    waits = {"reserve", "freed", "moved", "pause", "look", "claim", "place"}
    assert stops == {"connect", "head", "read", "drained", *waits}
    assert len(points()) > 50


def fails(*args: object, **kwargs: object) -> None:
    raise KeyError("a bug in a dialect")


@pytest.mark.parametrize(
    ("broken", "make"),
    [
        ("read", stream),
        ("meter", stream),
        ("inject_usage", stream),
        ("stripper", stream),
        ("rejects_injection", rejected_injection),
        ("restate", first_event_is_an_error),
    ],
)
def test_a_bug_in_a_dialect_is_answered_and_recorded(broken: str, make: Callable[[], World]) -> None:
    class Broken(OpenAIChat):
        pass

    setattr(Broken, broken, fails)
    world = make()
    world.dialects["openai_chat"] = Broken()
    drive(serve(ask(CHAT, STREAMED), world.down, world.gateway()))
    check(world)
    assert outcome_of(world.call) == "error"
    assert (world.call.status, world.down.endings) == (500, ["finish"])
    assert b"a bug in a dialect" not in world.down.sent


def test_a_meter_that_fails_at_the_end_takes_no_step_of_close_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(OpenAIChat):
        def meter(self, route: Route, asked: Asked, status: int, content_type: bytes) -> Meter:
            meter = super().meter(route, asked, status, content_type)
            monkeypatch.setattr(meter, "end", fails)
            return meter

    world = json_answer()
    world.dialects["openai_chat"] = Broken()
    drive(serve(ask(CHAT, QUESTION), world.down, world.gateway()))
    names = world.names()
    assert names.count("record") == 1
    assert names[-1] in {"finish", "abort"}
    assert not world.journal.slots
    assert outcome_of(world.call) == "error"


def test_a_journal_that_must_write_and_cannot_refuses() -> None:
    world = json_answer()
    world.journal.fault = Draining("no journal")
    drive(serve(ask(CHAT, QUESTION), world.down, world.gateway()))
    assert world.names() == ["start", "record", "finish"]
    assert not world.upstreams.sent
