"""Two upstreams, and what they do in virtual time: the bench of hedges and probes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from msgspec import Struct

from gateway.call import Attempt, Call
from gateway.config.schema import Fallback, Limits, Runs
from gateway.errors import ClientGone, ConnectFailed, GatewayError, UpstreamReset
from gateway.pipeline import serve
from gateway.policy.breaker import NANO, Terms
from gateway.policy.chains import Chains
from gateway.ports import Downstream
from gateway.spend import Demand, Grant, Refusal
from gateway.stages.breaking import Breakers
from gateway.stages.hedge import Hedges, Manner
from gateway.stages.probe import Probes
from gateway.stages.trials import Manner as Retries
from gateway.stages.trials import RetryingTrials
from gateway.stores.aside import Aside
from gateway.stores.flights import paused
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
    how: str = "well"  # well | whole | refused | reset | busy | error | cut | mute | page
    pings: bool = False
    connect: float = 0.0  # seconds before it is sent


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
            if plan.connect:
                await exchange.wait(plan.connect)
                if owner.gone:
                    raise ClientGone()
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
        elif plan.how == "mute":
            exchange = TimedExchange(self.world, 200, (SSE,), [*pings, (plan.content, b"")])
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
    """A world in virtual time, with an upstream `backup` beside the first, that knows what is late: a second. A breaker
    opens at the second failure, for a second. `patience`: of probes; None: they are waited for."""

    def __init__(
        self,
        *chain: Fallback,
        breaking: bool = False,
        share: float = 1.0,
        known: float | None = 1.0,
        patience: float | None = None,
        **retries: Any,
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
        probes = Probes(patience, Aside()) if patience is not None else None
        self.trials = RetryingTrials(
            Retries(**retries), Chains(chain), paused, self.breakers, hedges=self.hedges, probes=probes
        )
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

        async def alone() -> Call:
            call = await self.one(body, act, at, path)
            await asyncio.sleep(0.2)  # what was broken off ends, and who still asks for money gives it back
            assert len(asyncio.all_tasks()) == 1, "nothing goes on behind a call"
            return call

        return in_virtual_time(alone)

    async def one(
        self, body: bytes = STREAM, act: Callable[[Down], None] | None = None, at: float = 0.0, path: str = CHAT
    ) -> Call:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        began = loop.time()
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
        self.took = loop.time() - began
        return self.world.journal.records[-1]


def in_virtual_time(script: Callable[[], Coroutine[Any, Any, Call]]) -> Call:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(script())


def shape(call: Call) -> list[tuple[str, int, str]]:
    return [(one.target.upstream, one.status, one.fault.code if one.fault else "") for one in call.attempts]
