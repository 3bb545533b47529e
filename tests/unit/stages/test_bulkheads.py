"""Places for attempts: the whole pipeline in virtual time, with upstreams that take as long as they are told."""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
from msgspec import structs

from gateway.call import Attempt, Call, Request, ToolCall, Who
from gateway.config.schema import Budget, Bulkhead, Fallback, PriorityRule
from gateway.dialects.tool_paths import Door
from gateway.errors import ClientGone, ConnectFailed, Draining, GatewayError, NoPlace, UpstreamTimeout
from gateway.journal.convert import outcome_of
from gateway.pipeline import serve
from gateway.policy.bulkhead import NANO, Pool
from gateway.policy.chains import Chains
from gateway.policy.overload import Marks, Overload
from gateway.policy.pools import PoolBook
from gateway.policy.priorities import Priorities
from gateway.ports import Downstream, Gateway
from gateway.stages.arrive import arrive, new_call
from gateway.stages.bulkheads import Bulkheads
from gateway.stages.shed import Shedder
from gateway.stages.trials import Manner, RetryingTrials
from gateway.stores.flights import Parking, paused
from gateway.testing import clock, memory_budgets
from gateway.testing.doubles import MemoryDown, MemoryExchange, World, ask
from gateway.testing.memory_budgets import limit
from gateway.tool import Terms

CHAT = "/v1/chat/completions"
QUESTION = b'{"model":"gpt-4o","max_tokens":%d,"messages":[]}'
ANSWER = (
    b'{"id":"c","model":"gpt-4o","choices":[{"index":0,"message":{"content":"Hi"}}],'
    b'"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7}}'
)
JSON = ((b"Content-Type", b"application/json"),)


class Answer(MemoryExchange):
    """All at once."""

    async def read(self) -> bytes:
        piece = self.pieces.pop(0) if self.pieces else b""
        assert isinstance(piece, bytes)
        return piece


class Upstreams:
    """`took`: seconds that an answer of an upstream takes; an error in place of them is raised at once."""

    def __init__(self, took: Mapping[str, float | GatewayError]) -> None:
        self.took = dict(took)
        self.busy: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.begun: list[tuple[str, float]] = []  # upstream, when
        self.status = 200

    async def open(self, attempt: Attempt, head: bytes, body: bytes, owner: Downstream, **_: Any) -> Answer:
        name = attempt.target.upstream
        self.begun.append((name, asyncio.get_running_loop().time()))
        self.busy[name] += 1
        self.most[name] = max(self.most[name], self.busy[name])
        try:
            took = self.took[name]
            if isinstance(took, GatewayError):
                raise took
            attempt.sent = True
            await paused(owner, took)
        finally:
            self.busy[name] -= 1
        return Answer([], self.status, JSON, [ANSWER])


class ByHeader:
    """`ports.Identity`: everybody is who the headers say."""

    def identify(self, call: Call) -> tuple[Who, list[ToolCall]]:
        names = call.request.names
        tenant, agent = (names.get(name, b"").decode() for name in (b"x-tenant", b"x-agent"))
        return Who(tenant=tenant, agent=agent, request_class=names.get(b"x-class", b"").decode()), []

    def learn(self, call: Call) -> None: ...


class Down(MemoryDown):
    """A client that may leave, or be told that its call ends."""

    def interrupt(self, fault: GatewayError) -> None:
        if self.on_gone is not None:
            self.on_gone(fault)

    def leave(self) -> None:
        self.gone = True
        self.interrupt(ClientGone())


class Bench:
    """A worker with these pools. `during(work)` runs in virtual time."""

    def __init__(
        self,
        pools: Mapping[str, Bulkhead],
        took: Mapping[str, float | GatewayError],
        *chain: Fallback,
        rules: tuple[PriorityRule, ...] = (),
        manner: Manner | None = None,
        overload: Overload | None = None,
    ) -> None:
        self.world = World()
        self.upstreams = Upstreams(took)
        openai = self.world.specs["openai"]
        for name in took:
            if name not in self.world.specs:
                target = structs.replace(openai.target, upstream=name)
                self.world.specs[name] = structs.replace(openai, name=name, family="openai", target=target)
        self.book = PoolBook(0)
        self.priorities = Priorities(rules)
        self.book.configure(pools, self.priorities, 1, 0)
        self.bulkheads = Bulkheads(self.book, Parking)
        manner = manner or Manner(attempts=1)
        trials = RetryingTrials(manner, Chains(chain), paused, None, bulkheads=self.bulkheads)
        self.world.settings |= {"trials": trials}
        if overload is not None:
            self.world.settings["shedder"] = Shedder(overload, self.priorities)
        self.calls: dict[str, Call] = {}
        self.numbers = itertools.count(1)  # ids of calls differ

    @functools.cache  # noqa: B019 - the bench lives as long as its test
    def gateway(self) -> Gateway:
        now = lambda: round(asyncio.get_running_loop().time() * NANO) + 1  # noqa: E731
        doubles = {
            "upstreams": self.upstreams,
            "identity": ByHeader(),
            "monotonic": now,
            "random": lambda size: next(self.numbers).to_bytes(size),
        }
        return structs.replace(self.world.gateway(), **doubles)

    async def call(
        self,
        name: str = "",
        *headers: tuple[bytes, bytes],
        path: str = CHAT,
        down: Down | None = None,
        tokens: int = 50,
    ) -> Call:
        """One call to its end."""
        gw, down = self.gateway(), down or Down([])
        request: Request = ask(path, QUESTION % tokens, *headers)
        await serve(request, down, gw)
        call = next(one for one in reversed(self.world.journal.records) if one.request is request)
        self.calls[name] = call
        call.notes = {**call.notes, "at": f"{asyncio.get_running_loop().time():g}"}
        assert down.head is None or down.head[0] == call.status
        return call

    def pool(self, name: str) -> Pool:
        (found,) = [pool for (rule, *_), pool in self.book._pools.items() if rule == name]
        return found

    def order(self) -> list[str]:
        """The calls as they ended."""
        return sorted(self.calls, key=lambda name: float(self.calls[name].notes["at"]))

    def during(self, work: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            await work()

        clock.run(run())
        for pool in self.book._pools.values():
            assert (pool.in_flight, pool.waiting) == (0, 0)


def of(tenant: str, *more: tuple[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"x-tenant", tenant.encode()), *more)


async def together(*work: Awaitable[Any]) -> None:
    await asyncio.gather(*work)


async def later(seconds: float, work: Callable[[], Awaitable[Any]]) -> None:
    await asyncio.sleep(seconds)
    await work()


def code(call: Call) -> str:
    assert isinstance(call.fault, GatewayError)
    return call.fault.code


# -- what a pool is for ----------------------------------------------------------------------------------------------


def test_an_upstream_that_hangs_takes_the_places_of_no_other():
    pools = {"each": Bulkhead(max=5, each="upstream", wait=3)}
    bench = Bench(pools, {"openai": 3600.0, "anthropic": 0.1})

    async def work() -> None:
        hanging = [Down([]) for _ in range(20)]
        stuck = [asyncio.ensure_future(bench.call(f"stuck-{n}", down=down)) for n, down in enumerate(hanging)]
        await asyncio.sleep(1)
        await together(*[bench.call(f"well-{n}", path="/v1/messages") for n in range(30)])
        assert asyncio.get_running_loop().time() == pytest.approx(1.6)  # six rounds of five
        await asyncio.sleep(5)
        for down in hanging:
            down.leave()
        await together(*stuck)

    bench.during(work)
    assert all(bench.calls[f"well-{n}"].status == 200 for n in range(30))
    assert bench.upstreams.most == {"openai": 5, "anthropic": 5}
    late = [bench.calls[f"stuck-{n}"] for n in range(5, 20)]
    assert {code(call) for call in late} == {"queue_timeout"}
    assert {(call.status, outcome_of(call).value) for call in late} == {(503, "refused")}
    assert {call.notes["at"] for call in late} == {"3"}


def test_the_first_pool_that_matches_is_that_of_a_call():
    pools = {
        "webhooks": Bulkhead(max=1, upstream="tools/hook-*", wait=5),
        "external": Bulkhead(max=2, upstream="tools/*", wait=10),
        "agents": Bulkhead(max=3, agent="planner", wait=30),
    }
    took: dict[str, float | GatewayError] = {name: 1.0 for name in ("tools/hook-a", "tools/search", "openai")}
    bench = Bench(pools, {"openai": 1.0})
    bench.upstreams.took |= took
    for name in ("hook-a", "search"):
        bench.world.tool(Terms(name), Door(""))

    async def work() -> None:
        calls = [bench.call(f"h{n}", path="/tools/hook-a/x") for n in range(2)]
        calls += [bench.call(f"s{n}", path="/tools/search/x") for n in range(4)]
        calls += [bench.call(f"a{n}", (b"x-agent", b"planner")) for n in range(6)]
        calls += [bench.call(f"o{n}") for n in range(9)]  # in no pool
        await together(*calls)

    bench.during(work)
    assert all(call.status == 200 for call in bench.calls.values())
    assert bench.upstreams.most == {"tools/hook-a": 1, "tools/search": 2, "openai": 12}
    assert [bench.calls[name].notes.get("bulkhead") for name in ("h1", "s3", "a5", "o8")] == [
        "webhooks",
        "external",
        "agents",
        None,
    ]
    waited = {name: call.notes.get("bulkhead_waited_ns") for name, call in bench.calls.items()}
    assert waited["s3"] == waited["a5"] == str(NANO)
    assert waited["s0"] is None


def test_a_tenant_that_floods_does_not_keep_others_waiting():
    bench = Bench({"all": Bulkhead(max=4, queue=50, wait=60)}, {"openai": 1.0})

    async def work() -> None:
        flood = [bench.call(f"flood-{n}", *of("flood")) for n in range(100)]
        quiet = [later(0.5, lambda n=n: bench.call(f"quiet-{n}", *of(f"t{n}"))) for n in range(3)]  # type: ignore[misc]
        await together(*flood, *quiet)

    bench.during(work)
    quiet = [bench.calls[f"quiet-{n}"] for n in range(3)]
    assert [(call.status, call.notes["at"]) for call in quiet] == [(200, "2")] * 3
    flood = Counter(bench.calls[f"flood-{n}"].status for n in range(100))
    assert flood == {200: 51, 503: 49}  # three were pushed out of the queue for the others
    refused = next(call for call in bench.calls.values() if call.status == 503)
    assert code(refused) == "bulkhead_full"


def test_interactive_before_batch_by_header_class_and_rule():
    rules = (PriorityRule(agent="nightly-*", priority="batch"), PriorityRule(request_class="title", priority="urgent"))
    bench = Bench({"all": Bulkhead(max=1, wait=60)}, {"openai": 1.0}, rules=rules)

    async def work() -> None:
        first = bench.call("first")
        batch = bench.call("header", (b"X-Tollgate-Priority", b"Batch"))
        nightly = bench.call("rule", (b"x-agent", b"nightly-7"))
        plain = bench.call("plain")
        title = bench.call("class", (b"x-class", b"title"))
        await together(first, batch, nightly, plain, title)

    bench.during(work)
    assert bench.order() == ["first", "class", "plain", "header", "rule"]


def test_a_client_that_does_not_wait_so_long_is_told_at_once():
    bench = Bench({"all": Bulkhead(max=1, wait=60)}, {"openai": 10.0})

    async def work() -> None:
        for n in range(8):  # what calls take is known then
            await bench.call(f"before-{n}")
        running = asyncio.ensure_future(bench.call("running"))
        await asyncio.sleep(1)
        began = asyncio.get_running_loop().time()
        refused = await bench.call("refused", (b"X-Stainless-Timeout", b"15"))
        assert asyncio.get_running_loop().time() == began
        assert (refused.status, code(refused)) == (503, "deadline_unreachable")
        assert (await bench.call("waits", (b"X-Stainless-Timeout", b"600"))).status == 200
        await running

    bench.during(work)


def test_a_client_that_gives_up_while_it_waits_is_told_that():
    bench = Bench({"all": Bulkhead(max=1, wait=60)}, {"openai": 100.0})

    async def work() -> None:
        await together(bench.call("running"), bench.call("late", (b"X-Stainless-Timeout", b"7")))

    bench.during(work)
    late = bench.calls["late"]
    assert (code(late), late.notes["at"], late.notes["bulkhead_refused"]) == (
        "deadline_unreachable",
        "7",
        "deadline_unreachable",
    )


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        (CHAT, 503, b'"code":"bulkhead_full"'),
        ("/v1/messages", 529, b'"error_code":"bulkhead_full"'),
        ("/v1beta/models/gemini-pro:generateContent", 503, b'"reason":"BULKHEAD_FULL"'),
    ],
)
def test_who_is_refused_is_told_in_its_own_words(path: str, status: int, words: bytes) -> None:
    bench = Bench({"all": Bulkhead(max=1, queue=0)}, {"openai": 5.0, "anthropic": 5.0, "gemini": 5.0})

    async def work() -> None:
        running = asyncio.ensure_future(bench.call("running", path=path))
        await asyncio.sleep(1)
        down = Down([])
        await bench.call("refused", path=path, down=down)
        assert down.head is not None
        assert down.head[0] == status
        assert words in down.sent
        assert b"retry-after: 1\r\n" in down.head[2]
        assert b"x-should-retry: true\r\n" in down.head[2]
        await running

    bench.during(work)


# -- places are given back -------------------------------------------------------------------------------------------


def test_a_client_that_leaves_while_it_waits_gives_its_place_back_at_once():
    bench = Bench({"all": Bulkhead(max=1, queue=1, wait=60)}, {"openai": 10.0})

    async def work() -> None:
        running = asyncio.ensure_future(bench.call("running"))
        await asyncio.sleep(1)
        down = Down([])
        waiting = asyncio.ensure_future(bench.call("gone", down=down))
        await asyncio.sleep(1)
        assert bench.pool("all").waiting == 1
        down.leave()
        await waiting
        assert bench.pool("all").waiting == 0
        assert outcome_of(bench.calls["gone"]).value == "cancelled"
        assert (await bench.call("next")).status == 200
        await running

    bench.during(work)
    assert len(bench.upstreams.begun) == 2


def test_a_client_that_leaves_while_it_is_served_gives_its_place_to_the_next():
    bench = Bench({"all": Bulkhead(max=1, wait=60)}, {"openai": 10.0})

    async def work() -> None:
        down = Down([])
        running = asyncio.ensure_future(bench.call("gone", down=down))
        waiting = asyncio.ensure_future(bench.call("next"))
        await asyncio.sleep(2)
        down.leave()
        await together(running, waiting)

    bench.during(work)
    assert bench.calls["next"].notes["at"] == "12"


def test_a_gateway_that_is_told_to_end_answers_those_that_wait():
    bench = Bench({"all": Bulkhead(max=1, wait=60)}, {"openai": 10.0})

    async def work() -> None:
        running = asyncio.ensure_future(bench.call("running"))
        down = Down([])
        waiting = asyncio.ensure_future(bench.call("waits", down=down))
        await asyncio.sleep(1)
        down.interrupt(Draining())
        await together(running, waiting)

    bench.during(work)
    assert bench.calls["running"].status == 200
    assert (bench.calls["waits"].status, code(bench.calls["waits"])) == (503, "draining")


def test_a_call_that_is_cancelled_holds_nothing():
    bench = Bench({"all": Bulkhead(max=1, wait=60)}, {"openai": 10.0})

    async def work() -> None:
        tasks = [asyncio.ensure_future(bench.call(str(n))) for n in range(2)]
        await asyncio.sleep(1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (bench.pool("all").in_flight, bench.pool("all").waiting) == (0, 0)

    bench.during(work)


def test_a_retry_waits_without_a_place():
    bench = Bench(
        {"all": Bulkhead(max=1, wait=60)},
        {"openai": ConnectFailed("down"), "anthropic": 1.0},
        manner=Manner(attempts=2, base=8.0, longest=8.0),
    )

    async def work() -> None:
        failing = asyncio.ensure_future(bench.call("failing"))
        await asyncio.sleep(0)
        await bench.call("other", path="/v1/messages")
        assert not failing.done()
        await failing

    bench.during(work)
    assert bench.calls["other"].notes["at"] == "1"
    assert len(bench.calls["failing"].attempts) == 2


def test_a_fallback_goes_through_the_pool_of_its_own_target():
    pools = {"each": Bulkhead(max=1, each="upstream", queue=0)}
    bench = Bench(pools, {"openai": UpstreamTimeout("dead"), "backup": 5.0}, Fallback(to=("backup",)))

    async def work() -> None:
        first = asyncio.ensure_future(bench.call("first"))
        await asyncio.sleep(1)
        second = await bench.call("second")  # the backup is full
        assert (code(second), second.status) == ("bulkhead_full", 503)
        await first

    bench.during(work)
    assert bench.calls["first"].status == 200
    assert [attempt.target.upstream for attempt in bench.calls["first"].attempts] == ["openai", "backup"]


def test_where_a_pool_is_full_a_fallback_is_asked():
    pools = {"each": Bulkhead(max=1, each="upstream", queue=0)}
    bench = Bench(pools, {"openai": 5.0, "backup": 5.0}, Fallback(to=("backup",)))

    async def work() -> None:
        await together(bench.call("first"), bench.call("second"))

    bench.during(work)
    assert bench.upstreams.most == {"openai": 1, "backup": 1}
    assert [call.status for call in bench.calls.values()] == [200, 200]
    assert bench.calls["second"].notes["fallback"] == "backup"


# -- what goes first by cost, and what is found out -------------------------------------------------------------------


def test_the_cheap_go_first_where_the_pool_says_so():
    bench = Bench({"all": Bulkhead(max=1, wait=60, order="cost")}, {"openai": 1.0})

    async def work() -> None:
        await together(*[bench.call(str(tokens), tokens=tokens) for tokens in (10, 900, 30, 600, 20)])

    bench.during(work)
    assert bench.order() == [
        "10",
        "20",
        "30",
        "600",
        "900",
    ]


@pytest.mark.parametrize(("usd", "order"), [(0.004, ["10", "20", "30", "600"]), (4.0, ["10", "600", "30", "20"])])
def test_the_cheap_go_first_where_a_budget_is_nearly_used(
    monkeypatch: pytest.MonkeyPatch, usd: float, order: list[str]
) -> None:
    """600 tokens are held to cost 1.2 thousandths of a dollar; the prompt counts as some more."""
    bench = Bench({"all": Bulkhead(max=1, wait=60, thrift=0.3)}, {"openai": 1.0})
    monkeypatch.setattr(memory_budgets, "Stop", lambda name: asyncio.sleep(0))
    limit(bench.world, budgets=(Budget(scope="global", usd=usd, per="day"),))

    async def work() -> None:
        await together(*[bench.call(str(tokens), tokens=tokens) for tokens in (10, 600, 30, 20)])

    bench.during(work)
    assert {call.status for call in bench.calls.values()} == {200}
    assert bench.order() == order


def test_an_upstream_that_is_busy_gets_less_where_the_limit_is_found_out():
    bench = Bench({"all": Bulkhead(max=40, wait=60, adaptive=True, least=2)}, {"openai": 1.0})
    bench.upstreams.status = 529

    async def work() -> None:
        await together(*[bench.call(str(n)) for n in range(40)])
        assert bench.pool("all").limit == 2
        bench.upstreams.status = 200
        await together(*[bench.call(f"well {n}") for n in range(400)])
        assert bench.pool("all").limit > 5

    bench.book.configure(
        {"all": Bulkhead(max=40, queue=1000, wait=600, adaptive=True, least=2)}, bench.priorities, 1, 0
    )
    bench.during(work)


# -- more than there is room for --------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [2, 10])
def test_far_too_many_calls_cost_those_that_are_served_little(times: int) -> None:
    """Calls at a constant rate, as many times as an upstream can serve that takes 20 at once for a second each; then
    half of what it can. Clients give up after four seconds."""
    bench = Bench({"all": Bulkhead(max=20, queue=20, wait=3)}, {"openai": 1.0})
    patience = (b"x-stainless-timeout", b"4")
    load, calm = 15.0, 5.0
    ended: list[tuple[float, float, Call]] = []  # began, took

    async def one(header: tuple[bytes, bytes]) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        call = await bench.call("", patience, header)
        ended.append((began, loop.time() - began, call))

    async def work() -> None:
        loop, tasks = asyncio.get_running_loop(), []
        while loop.time() < load + calm:
            rate = 20 * times if loop.time() < load else 10
            kind = b"batch" if len(tasks) % 2 else b"interactive"
            tasks.append(asyncio.ensure_future(one((b"x-tollgate-priority", kind))))
            await asyncio.sleep(1 / rate)
        await asyncio.gather(*tasks)

    bench.during(work)
    good = [(began, took, call) for began, took, call in ended if call.status == 200 and took <= 4]
    under_load = [(took, call) for began, took, call in good if 2 <= began + took < load]
    assert len(under_load) >= 0.9 * 20 * (load - 2), "what it could do it did"
    served = sorted(took for took, _ in under_load)
    assert served[len(served) * 99 // 100] <= 2.05, "and those that were served waited for one other at most"
    kinds = Counter(call.request.names[b"x-tollgate-priority"] for _, call in under_load)
    assert kinds[b"interactive"] > 0.9 * len(under_load), "the more urgent half takes all of it"
    refused = [(took, call) for _, took, call in ended if call.status == 503]
    full = [took for took, call in refused if code(call) == "bulkhead_full"]
    assert min(full) == 0, "who is refused for want of room knows at once"
    assert bench.upstreams.most["openai"] == 20
    after = [(took, call.status) for began, took, call in ended if began >= load + 2]
    assert {(round(took, 6), status) for took, status in after} == {(1.0, 200)}, "two seconds later all is well"


@pytest.mark.parametrize("flooded", [False, True])
def test_a_flood_makes_the_calls_of_others_a_fifth_longer_at_most(flooded: bool) -> None:
    """One tenant asks for eight times what there is, the others for a tenth of it. All of one pool."""
    bench = Bench({"all": Bulkhead(max=20, queue=100, wait=30)}, {"openai": 1.0, "anthropic": 1.0})
    chance = random.Random(5)
    took: list[float] = []

    async def quiet(name: str) -> None:
        began = asyncio.get_running_loop().time()
        call = await bench.call("", *of(name), path="/v1/messages")
        took.append(asyncio.get_running_loop().time() - began)
        assert call.status == 200

    async def work() -> None:
        loop, tasks, at = asyncio.get_running_loop(), [], 0
        while loop.time() < 20:
            bench.upstreams.took["openai"] = 0.5 + chance.random()
            if flooded:
                tasks.append(asyncio.ensure_future(bench.call("", *of("flood"))))
            if at % 80 == 0:
                tasks.append(asyncio.ensure_future(quiet(f"t{at % 3}")))
            at += 1
            await asyncio.sleep(1 / 160)
        await asyncio.gather(*tasks)

    bench.during(work)
    took.sort()
    assert len(took) >= 40
    assert took[len(took) * 99 // 100] <= (1.2 if flooded else 1.0 + 1e-9)


# -- many workers, reloads, overload ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("total", "workers"), [(50, 1), (50, 3), (7, 4), (4, 4)])
def test_the_places_of_all_workers_are_those_that_were_configured(total: int, workers: int) -> None:
    limits = []
    for index in range(workers):
        book = PoolBook(index)
        book.configure({"all": Bulkhead(max=total)}, Priorities(()), workers, 0)
        limits.append(book.standing()["all"][2])
    assert sum(limits) == total
    assert max(limits) - min(limits) <= 1


def test_a_reload_lets_those_in_that_wait():
    bench = Bench({"all": Bulkhead(max=1, wait=60)}, {"openai": 10.0})

    async def work() -> None:
        calls = [asyncio.ensure_future(bench.call(str(n))) for n in range(3)]
        await asyncio.sleep(1)
        bench.book.configure({"all": Bulkhead(max=3, wait=60)}, bench.priorities, 1, NANO)
        await together(*calls)

    bench.during(work)
    assert [bench.calls[str(n)].notes["at"] for n in range(3)] == ["10", "11", "11"]


def test_a_reload_without_the_pool_leaves_nobody_behind():
    bench = Bench({"all": Bulkhead(max=1, wait=60)}, {"openai": 10.0})

    async def work() -> None:
        calls = [asyncio.ensure_future(bench.call(str(n))) for n in range(2)]
        await asyncio.sleep(1)
        bench.book.configure({}, bench.priorities, 1, NANO)
        await together(*calls, bench.call("free"))

    bench.during(work)
    assert [bench.calls[name].notes["at"] for name in ("0", "1", "free")] == ["10", "20", "11"]


@pytest.mark.parametrize("each", ["key", "model", None])
def test_a_reload_keeps_the_pools_that_stay_what_they_are(each: Any) -> None:
    bench = Bench({"all": Bulkhead(max=1, each=each)}, {"openai": 10.0})

    async def work() -> None:
        running = asyncio.ensure_future(bench.call("running"))
        await asyncio.sleep(1)
        bench.book.configure({"all": Bulkhead(max=1, queue=0, each=each)}, bench.priorities, 1, NANO)
        assert code(await bench.call("refused")) == "bulkhead_full"
        bench.book.configure({"all": Bulkhead(max=1, queue=0, each="team")}, bench.priorities, 1, NANO)
        assert (await bench.call("other")).status == 200  # other pools than before
        await running

    bench.during(work)


@pytest.mark.parametrize(
    ("level", "passes"),
    [(0, "batch plain again urgent"), (1, "plain urgent"), (2, "urgent"), (3, "")],
)
def test_under_overload_those_that_matter_least_are_sent_away(level: int, passes: str) -> None:
    overload = Overload(Marks(lag=1))
    overload.level, overload.cause = level, "lag"
    bench = Bench({}, {"openai": 1.0}, overload=overload)
    header = b"x-tollgate-priority"

    async def work() -> None:
        await bench.call("batch", (header, b"batch"))
        await bench.call("plain")
        await bench.call("again", (b"x-stainless-retry-count", b"1"))
        await bench.call("urgent", (header, b"urgent"))

    bench.during(work)
    passed = [name for name, call in bench.calls.items() if call.status == 200]
    assert passed == passes.split()
    for name, call in bench.calls.items():
        if name not in passed:
            assert (code(call), call.status, outcome_of(call).value) == ("overloaded", 503, "refused")
            assert call.notes["shed"] == "lag"
            assert call.fault.retry_after == 2 ** (level - 1)  # type: ignore[union-attr]


def test_a_second_attempt_beside_the_first_never_waits():
    bench = Bench(
        {
            "all": Bulkhead(max=2, wait=60),
        },
        {"openai": 5.0},
    )

    async def work() -> None:
        gw = bench.gateway()
        call = new_call(ask(CHAT, QUESTION % 5), gw)
        arrive(call, gw)
        first, second = bench.bulkheads.enter(call, gw), bench.bulkheads.beside(call, gw)
        assert first is not None
        assert second is not None
        with pytest.raises(NoPlace):
            bench.bulkheads.beside(call, gw)
        assert (bench.pool("all").in_flight, bench.pool("all").waiting) == (2, 0)
        bench.bulkheads.leave(first, call, gw)
        bench.bulkheads.leave(second, call, gw)

    bench.during(work)


def test_nobody_who_needs_no_place_takes_one():
    bench = Bench({"all": Bulkhead(max=1, queue=0)}, {"openai": 5.0})

    async def work() -> None:
        call = new_call(ask(CHAT, QUESTION % 5), bench.gateway())
        arrive(call, bench.gateway())
        call.asked.aside = True
        assert bench.bulkheads.enter(call, bench.gateway()) is None
        call.asked.aside = False
        seat = bench.bulkheads.enter(call, bench.gateway())
        assert seat is not None
        bench.bulkheads.leave(seat, call, bench.gateway())

    bench.during(work)
