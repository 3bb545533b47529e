"""The world of `pipeline.serve`, in memory: a client, an upstream, a journal, and a driver that decides what happens.

Nothing runs by itself. A coroutine stops at each of its awaits, and the test lets it go on, or raises something there:

    world = World()
    world.answer(200, [(b"content-type", b"application/json")], [b'{"id"', b':"x"}'])
    drive(serve(request, world.down, world.gateway()))                         # to its end
    drive(serve(request, world.down, world.gateway()), at=2, raising=...)      # with a fault at the third await
    world.log                                                                  # what happened, in order
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from gateway.call import Answer, Attempt, Call, Money, Request, Target, ToolCall, Usage, Who
from gateway.dialects.mcp import Mcp
from gateway.dialects.registry import DIALECTS
from gateway.dialects.routes import Table
from gateway.dialects.tool import Tool
from gateway.dialects.tool_paths import Door
from gateway.dialects.translate.port import Translator
from gateway.errors import GatewayError
from gateway.policy.chains import Chains
from gateway.policy.controls import Standings
from gateway.ports import Dialect, Downstream, Gateway, Headers, Learned, Spec
from gateway.stages.live import Live
from gateway.stages.trials import Manner, RetryingTrials
from gateway.stores.flights import paused
from gateway.testing.calls import MemoryLinks
from gateway.testing.turns import MemoryTurns, Stop
from gateway.tool import Terms

Log = list[tuple[str, Any]]
T = TypeVar("T")


class Endless(AssertionError):
    """The coroutine still waits after more steps than any of the scenarios has."""


def drive(work: Coroutine[Any, Any, None], *, at: int = -1, raising: BaseException | None = None) -> list[str]:
    """Run to the end; at the await number `at` raise `raising` there. Returns the names of all awaits.

    Raises what `work` raises.
    """
    stops: list[str] = []
    try:
        stop = work.send(None)
        for number in range(10_000):
            stops.append(stop.name)
            stop = work.throw(raising) if number == at and raising is not None else work.send(None)
    except StopIteration:
        return stops
    work.close()
    raise Endless(f"{len(stops)} awaits, the last {stops[-3:]}")


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of what never suspends."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise Endless("it waits for something")


class MemoryDown:
    """`ports.Downstream`: writes what it is given into the log. `slow`: it is behind after every write."""

    def __init__(self, log: Log, *, slow: bool = False) -> None:
        self.log = log
        self.on_gone: Callable[[GatewayError], None] | None = None
        self.gone = False
        self.paused = False
        self.slow = slow
        self.sink: Callable[[bytes], None] | None = None
        self.head: tuple[int, bytes, bytes, int | None] | None = None
        self.sent = b""
        self.endings: list[str] = []
        self.interrupted: list[GatewayError] = []

    def interrupt(self, fault: GatewayError) -> None:
        self.interrupted.append(fault)

    def start(self, status: int, reason: bytes, block: bytes, length: int | None) -> None:
        self.head = (status, reason, block, length)
        self.log.append(("start", status))

    def write(self, data: bytes) -> None:
        self.sent += data
        self.paused = self.slow
        self.log.append(("write", data))

    async def drained(self) -> None:
        await Stop("drained")
        self.paused = False

    def upgrade(self, sink: Callable[[bytes], None]) -> None:
        self.sink = sink
        self.log.append(("upgrade", None))

    def hold(self, paused: bool) -> None:
        self.log.append(("hold", paused))

    def finish(self, tail: bytes = b"") -> None:
        self.sent += tail
        self.endings.append("finish")
        self.log.append(("finish", tail))

    def abort(self, tail: bytes = b"") -> None:
        self.sent += tail
        self.endings.append("abort")
        self.log.append(("abort", tail))


class MemoryExchange:
    """`ports.Exchange`: an answer in pieces; an exception among them is raised in its place."""

    reused = False

    def __init__(self, log: Log, status: int, headers: Headers, pieces: Sequence[bytes | GatewayError | None]) -> None:
        self.log = log
        self.status = status
        self.reason = b"Reason"
        self.headers = headers
        self.pieces = list(pieces)
        self.closed = 0
        self.has_spoken = False
        self.expires: float | None = None
        self.received = b""  # from the client, after an upgrade

    @property
    def names(self) -> Mapping[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for name, value in self.headers:
            found.setdefault(name.lower(), value)
        return found

    @property
    def block(self) -> bytes:
        return b"".join(b"%b: %b\r\n" % header for header in self.headers)

    @property
    def length(self) -> int | None:
        stated = self.names.get(b"content-length")
        return int(stated) if stated is not None else None

    def upgraded(self, on_pause: Callable[[bool], None]) -> Callable[[bytes], None]:
        def send(data: bytes) -> None:
            self.received += data

        return send

    def expire_in(self, seconds: float) -> None:
        self.expires = seconds

    async def read(self) -> bytes:
        await Stop("read")
        if not self.pieces:
            return b""
        piece = self.pieces.pop(0)
        if isinstance(piece, GatewayError):
            raise piece
        assert piece is not None, "nobody reads with patience"
        return piece

    def heard(self) -> None:
        self.has_spoken = True

    async def read_within(self, seconds: float) -> bytes | None:
        """A `None` among the pieces is a silence of so long."""
        if self.pieces and self.pieces[0] is None:
            await Stop("read")
            self.pieces.pop(0)
            return None
        return await self.read()

    async def relay(self, sink: Callable[[bytes], bool]) -> bool:
        while data := await self.read():
            if not sink(data):
                return False
        return True

    def unread(self, data: bytes) -> None:
        self.pieces.insert(0, data)

    def close(self) -> None:
        self.closed += 1
        self.log.append(("close exchange", None))


class MemoryUpstreams:
    """`ports.Upstreams`: hands out the prepared answers, one after the other; connecting and the head are two waits."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.answers: list[MemoryExchange | GatewayError] = []
        self.unsent = 0  # so many attempts never get to send anything
        self.kept = False  # connections are kept ones, unless a fresh one is asked for
        self.sent: list[bytes] = []
        self.opened: list[MemoryExchange] = []

    async def open(
        self,
        attempt: Attempt,
        head: bytes,
        body: bytes,
        owner: Downstream,
        *,
        patience: Callable[[], float] | None = None,
        fresh: bool = False,
    ) -> MemoryExchange:
        await Stop("connect")
        if self.unsent:
            self.unsent -= 1
            fault = self.answers.pop(0)
            assert isinstance(fault, GatewayError)
            raise fault
        self.sent.append(head + body)
        attempt.sent, attempt.reused = True, self.kept and not fresh
        await Stop("head")
        answer = self.answers.pop(0)
        if isinstance(answer, GatewayError):
            raise answer
        self.opened.append(answer)
        return answer


class MemoryJournal:
    """`ports.Journal`: `slots` are the calls in flight, `records` those that were written."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.slots: set[int] = set()
        self.records: list[Call] = []
        self.fault: GatewayError | None = None

    def begin(self, call: Call) -> int:
        if self.fault is not None:
            raise self.fault
        slot = len(self.slots) + 100 * len(self.records)
        self.slots.add(slot)
        return slot

    def append(self, call: Call, slot: int) -> None:
        self.records.append(call)
        self.slots.discard(slot)
        self.log.append(("record", call.id))


class MemoryIdentity:
    """`ports.Identity`: everybody is the same."""

    def __init__(self) -> None:
        self.learned: list[Call] = []

    def identify(self, call: Call) -> tuple[Who, list[ToolCall]]:
        return Who(run_id="run-1", run_source="new", agent="tester"), []

    def learn(self, call: Call) -> None:
        self.learned.append(call)


class FlatPrices:
    """`ports.Prices`: one micro-USD per input token, two per output token, for models of a known name."""

    version = "test"

    def price(
        self, provider: str, model: str, usage: Usage, at: float, context: Mapping[str, str] | None = None
    ) -> Money:
        if not self.knows(provider, model):
            return Money(status="no_price")
        parts = {"input": usage.input_tokens * 10**6, "output": usage.output_tokens * 2 * 10**6}
        return Money(sum(parts.values()), parts, self.version, "priced")

    def knows(self, provider: str, model: str) -> bool:
        return bool(model) and not model.startswith("unknown")


class FlatEstimator:
    """`ports.Estimator`: seven in, and a token for every four characters out."""

    def estimate(self, call: Call, answer: Answer) -> Usage:
        return Usage(7, answer.output_chars // 4)


class World:
    """All doubles of one call, and the log they share."""

    def __init__(self, *, slow: bool = False, **spec: Any) -> None:
        self.log: Log = []
        self.down = MemoryDown(self.log, slow=slow)
        self.upstreams = MemoryUpstreams(self.log)
        self.journal = MemoryJournal(self.log)
        self.identity = MemoryIdentity()
        self.links = MemoryLinks()
        self.learned = Learned()
        self.controls = Standings()
        self.live = Live()
        self.turns = MemoryTurns()
        self.clock = 1_000_000_000
        self.step = 1_000_000  # ns that pass whenever somebody looks at the clock
        self.specs = {name: _spec(name, **spec) for name in ("openai", "anthropic", "gemini")}
        self.dialects: dict[str, Dialect] = dict(DIALECTS)
        self.doors: dict[tuple[str, str], Door] = {}
        self.settings: dict[str, Any] = {}
        self.cache: Any = None  # testing.memory_cache: where answers are kept, and who waits for whom
        self.books: Any = None  # testing.memory_budgets.MemoryBudgets, where the calls are limited

    def answer(
        self, status: int, headers: Headers = (), pieces: Sequence[bytes | GatewayError | None] = ()
    ) -> MemoryExchange:
        """Prepare the next answer of the upstream."""
        exchange = MemoryExchange(self.log, status, headers, pieces)
        self.upstreams.answers.append(exchange)
        return exchange

    def tool(self, terms: Terms, door: Door, *, mcp: bool = False, **spec: Any) -> None:
        """Configure a tool or an MCP server behind this gate."""
        kind = "mcp" if mcp else "tools"
        name = f"{kind}/{terms.server}"
        self.specs[name] = _spec(name, family="mcp" if mcp else "tool", tool=terms, **spec)
        self.doors[kind, terms.server] = door
        known = {name: one.tool for name, one in self.specs.items() if one.tool is not None}
        self.dialects |= {"tool": Tool(known), "mcp": Mcp(known)}

    def tick(self) -> int:
        self.clock += self.step
        return self.clock

    def gateway(self) -> Gateway:
        settings = {"trials": RetryingTrials(Manner(attempts=1), Chains(()), paused), **self.settings}
        return Gateway(
            dialects=self.dialects,
            routes=Table({name: name for name, spec in self.specs.items() if spec.tool is None}, self.doors),
            specs=self.specs,
            aliases=settings.pop("aliases", {}),
            translator=Translator(),
            prices=FlatPrices(),
            estimator=FlatEstimator(),
            identity=self.identity,
            links=self.links,
            journal=self.journal,
            upstreams=self.upstreams,
            instance=b"gate-1",
            monotonic=self.tick,
            now=lambda: 1_790_000_000_000_000_000,
            random=lambda size: bytes(range(size)),
            learned=self.learned,
            controls=self.controls,
            live=self.live,
            turns=self.turns,
            **settings,
        )

    @property
    def call(self) -> Call:
        """The one recorded call."""
        (only,) = self.journal.records
        return only

    def names(self) -> list[str]:
        """What happened, in order, without the details."""
        return [name for name, _ in self.log]


def _spec(name: str, **more: Any) -> Spec:
    target = Target(name, name, "127.0.0.1", 9, False, b"")
    return Spec(**{"name": name, "family": name, "target": target, "host": b"up.example", **more})


def ask(path: str, body: bytes = b"", *headers: tuple[bytes, bytes], method: bytes = b"POST") -> Request:
    """A request as the wire hands it on."""
    pairs = [(b"Host", b"gate.example"), *headers]
    if body:
        pairs.append((b"Content-Length", b"%d" % len(body)))
    names: dict[bytes, bytes] = {}
    for name, value in pairs:
        names.setdefault(name.lower(), value)
    return Request(method, path.encode(), pairs, body, "192.0.2.7", names)
