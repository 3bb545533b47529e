"""Every Protocol of the core, and the frozen `Gateway` bundle that `pipeline.serve` receives.

Dialects and meters are sans-io. Stores acquire asynchronously and release synchronously and idempotently.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from gateway.call import Answer, Attempt, Call, Money, Route, Target, ToolCall, Usage, Waits, Who
from gateway.key import Keys
from gateway.ports_cache import CacheHealth, CacheStore, Entry, Flight, Flights
from gateway.ports_dialect import Blame, Dialect, ErrorAnswer, Headers, LastTurn, Meter, Stripper, Tap, Used
from gateway.ports_matcher import Feedback, Inquiry, Lesson, Match, Matcher, MatcherState, Noted, ScopeState, Topic
from gateway.ports_outputs import Outputs, Wanted
from gateway.ports_routing import Checker, Form, Given, Reading, Router
from gateway.ports_translation import OtherAnswer, OtherQuestion, Translator
from gateway.ports_trial import Shedder, Trial, Trials
from gateway.ports_wire import Downstream, Exchange
from gateway.spend import Charge, Demand, Grant, Refusal, RunLimits
from gateway.tool import Terms

__all__ = ["CacheStore", "Dialect", "Entry", "ErrorAnswer", "Flight", "Flights", "Headers", "Meter", "Stripper", "Tap"]
__all__ += ["Blame", "LastTurn", "OtherAnswer", "OtherQuestion", "Outputs", "Router", "Translator", "Trial", "Trials"]
__all__ += ["Feedback", "Inquiry", "Lesson", "Match", "Matcher", "MatcherState", "Noted", "ScopeState", "Topic"]
__all__ += ["Checker", "Downstream", "Exchange", "Form", "Given", "Reading", "Shedder", "Used", "Wanted"]

T = TypeVar("T")


class Prices(Protocol):
    """Prices of models; see policy.pricing."""

    version: str

    def price(
        self, provider: str, model: str, usage: Usage, at: float, context: Mapping[str, str] | None = None
    ) -> Money: ...

    def knows(self, provider: str, model: str) -> bool: ...


class Estimator(Protocol):
    """Counts tokens where the provider does not."""

    def estimate(self, call: Call, answer: Answer) -> Usage: ...


class Identity(Protocol):
    """Who is asking; see policy.identity. Both methods are synchronous and never raise."""

    def identify(self, call: Call) -> tuple[Who, list[ToolCall]]:
        """Resolve the call, and pair the tool results in it with the tool uses answered before."""
        ...

    def learn(self, call: Call) -> None:
        """After the answer: remember response id, tool-call ids and prefix for the next request of this run."""
        ...


class Links(Protocol):
    """A bounded map shared by the workers of one machine; values up to 200 bytes; old entries are overwritten."""

    def get(self, key: bytes) -> bytes | None: ...

    def put(self, key: bytes, value: bytes) -> None: ...

    def update(self, key: bytes, change: Callable[[bytes | None], bytes | None]) -> None:
        """Put what `change` makes of the value; None leaves it. Two workers at once: one of the changes is lost."""
        ...


class Journal(Protocol):
    """Where finished calls are written down; see gateway.journal."""

    def begin(self, call: Call) -> int:
        """Note the call as in flight, in memory that outlives this process; returns its slot.

        Raises JournalUnavailable when records cannot be written and the operator requires them.
        """
        ...

    def append(self, call: Call, slot: int) -> None:
        """Write the one record of a closed call and free its slot. Counts a loss instead of raising."""
        ...


class Budgets(Protocol):
    """Accounts, holds and what is spent; see gateway.spend. The clock is the store's. Shared by all workers.

    A hold belongs to the worker that made it: while that worker renews its lease (by `tick`) the hold stands; what a
    dead worker held is charged or freed, as configured.
    """

    async def reserve(self, op: str, demands: Sequence[Demand]) -> Grant | Refusal:
        """Hold all of it or nothing. The same `op` again replaces its hold. Raises BudgetsUnavailable."""
        ...

    def settle(self, op: str, charge: Charge) -> None:
        """Release the hold and book what was used: once, whatever is called how often. Never waits, never raises."""
        ...

    async def freed(self, seconds: float, rank: tuple[int, int] = (0, 0)) -> None:
        """Wait until some hold was settled here or elsewhere, or so long. Those woken together go on by their rank."""
        ...


class Controls(Protocol):
    """What people decided while calls run: kills, raised budgets, limits of a run. Read from memory; shared by all
    workers. `stops` is empty while nothing is stopped."""

    @property
    def stops(self) -> Mapping[tuple[str, str], str]:
        """(scope, value) -> why."""
        ...

    @property
    def forced(self) -> Mapping[str, str]:
        """Breakers that a person holds open or closed, by name."""
        ...

    def stopped(self, call: Call) -> str | None:
        """Why this call, its run, agent, key or team was stopped; None where it may go on."""
        ...

    def raised(self, run_id: str) -> int | None:
        """The budget a person gave this run, in nano-USD, in place of the configured one."""
        ...

    def limits(self, run_id: str) -> RunLimits | None:
        """What was set for this run before or while it goes on; None: nothing."""
        ...


class Loops(Protocol):
    """The breaker for runaway agents; see policy.loop. Neither method raises."""

    def check(self, call: Call, now: int) -> list[Any]:
        """The verdicts (policy.loop_signals.Verdict) on the run of a call; usually none. `now`: ns since the epoch."""
        ...

    def learn(self, call: Call, now: int) -> None:
        """After the answer, when its cost is known."""
        ...


class Admission(Protocol):
    """Budgets and limits of one configuration; see stages.admit."""

    async def admit(self, call: Call, down: Downstream, gw: Gateway) -> None:
        """Hold the worst case of the call. Raises BudgetExceeded, LimitReached, RunStopped, BudgetsUnavailable."""
        ...

    async def admit_hit(self, call: Call, down: Downstream, gw: Gateway) -> None:
        """Count a call that is answered from the cache among requests per minute. Raises LimitReached,
        BudgetsUnavailable."""
        ...

    def spend(self, call: Call) -> None:
        """An attempt is over, and another may follow: charge what it cost, if it cost anything. Never raises."""
        ...

    async def readmit(self, call: Call, down: Downstream, gw: Gateway, *, moved: bool) -> None:
        """Hold what the next attempt may cost; `moved`: at another upstream, or of another model. Raises as `admit`;
        what was held then stands."""
        ...

    async def beside(self, call: Call, down: Downstream, gw: Gateway) -> bool:
        """Hold what another attempt beside the one under way may cost, at once; `call`: a copy that goes there. False
        where that is not granted. Raises what `admit` raises."""
        ...

    def release(self, call: Call, *, whole: bool) -> None:
        """An attempt beside the one that answers is over: charge it, and let go of its hold. `whole`: that was the hold
        of the call, which counts once. Never raises."""
        ...

    def settle(self, call: Call) -> None:
        """Charge what it really used, once. Never raises."""
        ...


class Cache(Protocol):
    """Answers already paid for; see stages.cache."""

    async def answer(self, call: Call, down: Downstream, gw: Gateway) -> Any:
        """How the call ends (stages.ending.Ending) where it is answered; None where it must go on. Raises NotCached,
        StreamTruncated, ClientGone, and what `Admission.admit_hit` raises."""
        ...

    def settle(self, call: Call) -> None:
        """Keep the answer that passed, if it may be kept. Never raises."""
        ...


class Live(Protocol):
    """The calls under way in this worker, so that a kill reaches them; see stages.live. Nothing here ever raises."""

    def add(self, call: Call, down: Downstream) -> None: ...

    def remove(self, call: Call) -> None: ...


class Upstreams(Protocol):
    async def open(
        self,
        attempt: Attempt,
        head: bytes,
        body: bytes,
        owner: Downstream,
        *,
        patience: Callable[[], float] | None = None,
        fresh: bool = False,
    ) -> Exchange:
        """Send a request and wait for the head of the answer; for `patience()` seconds also when the client has left.
        `fresh`: on a new connection.

        Raises UpstreamFault or ClientGone.
        """
        ...


class Routes(Protocol):
    def resolve(self, method: bytes, target: bytes, family_hint: str) -> Route:
        """What a raw path means. Raises BadPath or UnknownRoute."""
        ...

    def unrouted(self, target: bytes, family_hint: str) -> Route:
        """For a path that was refused: no route, but the dialect that its client probably speaks."""
        ...


class Spec(Struct, frozen=True):
    """One configured upstream, as the stages need it. Its text never shows `auth` or `headers`: they hold secrets."""

    name: str
    family: str
    target: Target
    host: bytes  # value of the Host header
    auth: tuple[tuple[bytes, bytes], ...] = ()  # replaces what the client sent; empty: the client's own key passes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    inject_usage: bool = True
    drain: bool = False  # when the client leaves: read the answer to its end, within bounds
    drain_seconds: float = 30.0
    drain_usd: float = 0.25
    propagate_trace: bool = False
    droppable: tuple[str, ...] = ()  # fields that may be left out where its API cannot say them
    tool: Terms | None = None  # it is no provider of models but a tool, or a server of tools

    def __repr__(self) -> str:
        return f"Spec({self.name!r}, {self.target!r})"


class Learned(Struct):
    """What a worker has found out about an upstream; forgotten at a restart."""

    refuses_injection: set[str] = set()


class Turns(Protocol):
    """How work that takes long leaves time for everything else."""

    async def next(self) -> None:
        """Wait until everything else had its turn, and those who asked before."""

    async def aside(self, work: Callable[[], T]) -> T:
        """What it returns or raises. It must be nothing but calculation: it is done in a thread, and may go on after
        whoever asked for it has left."""
        ...

    def alone(self) -> AbstractAsyncContextManager[object]:
        """Held by one at a time: for work that holds much memory until it is done."""


class Gateway(Struct, frozen=True, eq=False):
    """Built once per configuration by app.py, and equal to none but itself: much is remembered under it."""

    dialects: Mapping[str, Dialect]
    routes: Routes
    specs: Mapping[str, Spec]
    aliases: Mapping[str, tuple[str, str]]  # model asked for -> (model, upstream or "")
    prices: Prices
    estimator: Estimator
    identity: Identity
    links: Links
    journal: Journal
    upstreams: Upstreams
    instance: bytes  # names this gateway in Via
    monotonic: Callable[[], int]
    now: Callable[[], int]
    random: Callable[[int], bytes]
    learned: Learned
    controls: Controls
    live: Live
    trials: Trials
    turns: Turns
    keys: Keys | None = None  # None: there are none, and none are needed
    origins: frozenset[str] = frozenset()  # web pages that may call where no key is asked for
    admission: Admission | None = None  # None: nothing is limited
    cache: Cache | None = None  # None: nothing is cached
    router: Router | None = None  # None: calls go where their path and alias say
    shedder: Shedder | None = None  # None: no call is sent away for lack of time or memory
    loops: Loops | None = None  # None: nobody looks for runaways
    waits: Callable[[Call], Waits] | None = None  # None: those of the upstreams; see policy.waits
    halt: Callable[[str, str], None] | None = None  # stop a run (its id, why) until a person resumes it
    downshift: tuple[str | None, str | None, int | None] | None = None  # model, effort, max_tokens of a runaway's calls
    prompt_cache: CacheHealth | None = None  # None: nobody looks at it
    translator: Translator | None = None  # None: an upstream is only asked in its own API
    mark_prefixes: bool = False  # ask for the caching of prompts in which the client marked nothing
    cost_header: bool = True
    stream_cost_comment: bool = False
    capture_bytes: int = 0  # of each decoded answer, kept on the call for its record
