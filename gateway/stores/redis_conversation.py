"""The conversation of one worker with Redis: what is on its way, what was answered, and what may not have arrived.

One connection, one batch under way. What is said while a batch is out makes up the next one, so that a round trip is
paid by all of them together, and everything arrives in the order in which it was said. One task (`_run`) does it all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import sqlite3
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from gateway.config.schema import Spending
from gateway.errors import BudgetsUnavailable
from gateway.policy.outage import Outage, State
from gateway.spend import Charge, Demand, Rule
from gateway.stores import redis_wire as wire
from gateway.stores.mirror import Mirror
from gateway.stores.redis_link import Link, RedisAway
from gateway.stores.redis_session import Forgotten, Session
from gateway.stores.spent_parts import Row, SpentParts

MOST, LEAST = 64, 4  # entries in one batch: Redis does nothing else meanwhile; fewer where it is slow to answer
SOME = 100  # rows in one entry
POLL_SECONDS = 0.05  # between looks for what was freed elsewhere, while somebody waits for it
MOST_DESCRIBED = 50_000

_log = logging.getLogger("tollgate.budgets")


class Item(Struct, gc=False):
    """One entry on its way."""

    entry: msgspec.Raw
    op: str
    demands: Sequence[Demand] = ()
    answer: asyncio.Future[Any] | None = None  # of a reserve or an adjustment
    rows: Sequence[Row] = ()  # that it carries


class Conversation:
    """Raises OSError and sqlite3.Error (the mirror), and ValueError for a URL that is none."""

    def __init__(self, settings: Spending, state: Path, learn: float, grace: float) -> None:
        self.settings = settings
        self.worker = secrets.token_hex(6)
        self.parts = SpentParts(self.worker)
        self.link = Link(settings.redis or "", f"{{{settings.prefix}}}", settings.timeout)
        self.mirror = Mirror(state, self.worker)
        self.disk: Executor = ThreadPoolExecutor(1, "budgets-mirror")
        self.holds: dict[str, Sequence[Demand]] = {}
        self.releases: dict[str, Charge] = {}  # operations that Redis may still hold, and must give back
        self.unheld: set[str] = set()  # holds that Redis does not know
        self.outage = Outage()
        self.session = Session(self, learn, grace)
        self.rebuilds = 0
        self.expired = 0  # holds of dead workers that were charged or freed by this one
        self.closing = False
        self._queue: deque[Item] = deque()
        self._wake = asyncio.Event()
        self._ready = asyncio.Event()
        self._started = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._nudge: asyncio.TimerHandle | None = None
        self._waiting: dict[asyncio.Future[None], tuple[int, int]] = {}  # with the rank of each
        self._freed = 0
        self._polled = 0.0
        self._most = MOST
        self._later: list[Item] = []  # goes with a batch that is sent anyway
        self._described: dict[str, int] = {}  # account -> the limit that Redis was told, for people
        self._clock = (time.time_ns() // 1000, self._loop.time())  # the server's, and when it was read
        self._task = self._start()

    # -- what is said --------------------------------------------------------------------------------------------------

    def now(self) -> int:
        """The server's clock, as far as it is known; microseconds since the epoch."""
        at, read = self._clock
        return at + int((self._loop.time() - read) * 1e6)

    async def ready(self, seconds: float) -> bool:
        """Wait until Redis has answered and knows all; False: not within this time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ready.wait()
        return self.outage.here

    async def started(self, seconds: float) -> None:
        """Wait until Redis was first found to be here, or away."""
        if self._started.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._started.wait()

    def release(self, op: str, rows: Sequence[Row], charge: Charge, patience: float) -> None:
        """Settle, within `patience` seconds; where Redis is away, when it is back."""
        self.releases[op] = charge
        if self.outage.here:
            self._queue.append(Item(wire.entry("s", op, rows, charge), op, (), None, rows))
            self._nudge_in(patience)

    def say_reserve(self, op: str, demands: Sequence[Demand]) -> asyncio.Future[Any]:
        """The answer may be RedisAway. Raises OverflowError for numbers of more than 64 bits."""
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._queue.append(Item(wire.entry("r", op, demands), op, demands, answer))
        self._wake.set()
        return answer

    async def ask(self, entry: msgspec.Raw) -> wire.Result:
        """One more entry, after all that was said before; its result. Raises BudgetsUnavailable."""
        if not self.outage.here:
            raise BudgetsUnavailable(f"the store of budgets is {self.outage.state}", retry_after=1)
        answer: asyncio.Future[wire.Result] = self._loop.create_future()
        self._queue.append(Item(entry, "", (), answer))
        self._wake.set()
        try:
            return await answer
        except RedisAway as error:
            raise BudgetsUnavailable(f"the store of budgets is away: {error}") from error

    async def freed(self, seconds: float, rank: tuple[int, int] = (0, 0)) -> None:
        """Wait until some hold was settled here or elsewhere, or so long."""
        waiting: asyncio.Future[None] = self._loop.create_future()
        timer = self._loop.call_later(seconds, _resolve, waiting)
        self._waiting[waiting] = rank
        self._nudge_in(POLL_SECONDS)
        try:
            await waiting
        finally:
            timer.cancel()
            self._waiting.pop(waiting, None)

    def _nudge_in(self, seconds: float) -> None:
        if self._nudge is None:
            self._nudge = self._loop.call_later(seconds, self._nudged)

    def _nudged(self) -> None:
        self._nudge = None
        self._wake.set()
        if self._waiting:
            self._nudge_in(POLL_SECONDS)

    def _start(self) -> asyncio.Task[None]:
        task = self._loop.create_task(self._run(), name="redis-budgets")
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Whoever waits must not wait for a task that a bug has ended."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        _log.error("budgets in Redis: a bug", exc_info=error)
        self._away("a bug", quiet=True)
        if not self.closing:
            self._loop.call_later(1.0, self._restart)

    def _restart(self) -> None:
        self._task = self._start()

    # -- the conversation with Redis --------------------------------------------------------------------------------

    async def _run(self) -> None:
        while not (self.closing and (self.outage.state is not State.HERE or not self._queue)):
            try:
                if not self.outage.here:
                    await self.session.join()
                    self._here()
                await self._wake.wait()
                self._wake.clear()
                while self._queue or self.session.renewal_due or self._poll_due():
                    await self._exchange()
            except Forgotten:
                self._away("it has lost what it knew", forgotten=True)
            except (RedisAway, msgspec.MsgspecError, sqlite3.Error, OSError) as error:
                await self.link.close()
                self._away(str(error))
                await self._pause(self.outage.pause())
        await self._leave()

    async def _leave(self) -> None:
        if self.outage.here:
            with contextlib.suppress(RedisAway, Forgotten):
                await self.session.say(wire.entry("q"))
        self._away("this worker ends", quiet=True)
        await self.link.close()

    async def _pause(self, seconds: float) -> None:
        end = self._loop.time() + seconds
        while not self.closing and (left := end - self._loop.time()) > 0:
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._wake.wait()

    def _poll_due(self) -> bool:
        return bool(self._waiting) and self._loop.time() - self._polled >= POLL_SECONDS * 0.9

    async def _exchange(self) -> None:
        """One batch: at most 64 of what waits. Raises RedisAway; those who wait for an answer are told by `_away`."""
        control, queue = [], self._queue
        if self.session.renewal_due:
            control += self.session.renewal()
        if self._poll_due():
            self._polled = self._loop.time()
            control.append(wire.entry("n"))
        items = [queue.popleft() for _ in range(min(self._most, len(queue)))] + self._later[:LEAST]
        del self._later[:LEAST]
        began = self._loop.time()
        try:
            results = await self.session.say(*control, *[item.entry for item in items])
        except BaseException:  # also of a bug: `_away` tells those who wait
            queue.extendleft(reversed(items))
            raise
        slow = self._loop.time() - began > self.settings.timeout / 4
        self._most = max(LEAST, self._most // 2) if slow else min(MOST, self._most + LEAST)
        for result in results[: len(control)]:
            if isinstance(result, wire.Ticked):
                self.keep(result.rows)
                self.session.members = result.members
                self.expired += result.expired
            elif isinstance(result, wire.Freed):
                self._seen_freed(result.count)
            elif isinstance(result, wire.Held):
                for op in self.session.strangers(result):
                    self.release(op, (), Charge(calls=0), POLL_SECONDS)
        at = self._clock[0]
        for item, result in zip(items, results[len(control) :], strict=True):
            self._answered(item, result, at)

    def _answered(self, item: Item, result: wire.Result, at: int) -> None:
        if isinstance(result, wire.Granted):
            self._granted(item, result, at)
        elif isinstance(result, wire.Settled):
            self.parts.confirm(item.rows)
            self.releases.pop(item.op, None)
            self.keep(result.credits)
            self._wake_waiting()
        elif isinstance(result, wire.Done):
            self.parts.confirm(item.rows)
            self.unheld.discard(item.op)
        elif isinstance(result, wire.Refused):
            self._seen_freed(result.freed)
            _answer(item, wire.refusal_of(item.op, item.demands, result, at))
        else:
            _answer(item, result)

    def _granted(self, item: Item, granted: wire.Granted, at: int) -> None:
        if item.answer is None or item.answer.done():
            return  # given up: its release is on the way
        grant = wire.grant_of(item.op, item.demands, granted, at)
        self.holds[item.op] = item.demands
        self.unheld.discard(item.op)
        self.releases.pop(item.op, None)
        described = self._described
        for demand, level in zip(item.demands, grant.levels, strict=True):
            if described.get(demand.account) != demand.limit:
                self._describe(demand)
            if demand.rule is Rule.AGE:
                self.parts.first(demand, at - level.spent * 10**6)
        item.answer.set_result(grant)

    def _describe(self, demand: Demand) -> None:
        if len(self._described) > MOST_DESCRIBED:
            self._described.clear()
        self._described[demand.account] = demand.limit
        self._later.append(Item(wire.entry("m", wire.described(demand)), ""))

    def _seen_freed(self, count: int) -> None:
        if count != self._freed:
            self._freed = count
            self._wake_waiting()

    def keep(self, rows: Sequence[Row]) -> None:
        """Parts that Redis has raised by itself, or people: for the mirror."""
        for row in rows:
            self.parts.unwritten[row[1], row[0], row[2]] = row

    def clock_read(self, at: int) -> None:
        self._clock = (at, self._loop.time())

    # -- state ------------------------------------------------------------------------------------------------------

    def _here(self) -> None:
        now, state = self._loop.time(), self.outage.state
        seconds = now - self.outage.since
        if self.outage.back(now) and state is not State.STARTING:
            _log.warning("Redis is back after %.1f s: budgets are kept there again", seconds)
        if self.session.eviction:
            _log.warning("Redis may throw budgets away (maxmemory-policy %s): set noeviction", self.session.eviction)
            self.session.eviction = ""
        self._described.clear()
        self._later.clear()
        rows = list(self.parts.unsent.values())
        for some in (rows[start : start + SOME] for start in range(0, len(rows), SOME)):
            self._queue.append(Item(wire.entry("c", some), "", rows=some))
        self._queue.extend(Item(wire.entry("h", op, self.holds[op]), op) for op in self.unheld if op in self.holds)
        self._queue.extend(Item(wire.entry("s", op, (), charge), op) for op, charge in self.releases.items())
        self._wake.set()
        self._ready.set()
        self._started.set()

    def _away(self, why: str, *, forgotten: bool = False, quiet: bool = False) -> None:
        now = self._loop.time()
        changed = self.outage.learning(now) if forgotten else self.outage.fault(now)
        self._ready.clear()
        self._started.set()
        self.rebuilds += forgotten
        if changed and not quiet:
            done = "calls under a budget are refused"
            if self.settings.on_failure == "open":
                done = f"this worker grants {self.settings.local_share:.1%} of each limit by itself"
            _log.warning("Redis %s (%s): %s", "is being rebuilt" if forgotten else "is away", why, done)
        for item in self._queue:
            if item.answer is not None and not item.answer.done():
                if item.op and not forgotten and item.op not in self.holds:
                    self.releases[item.op] = Charge(calls=0)
                item.answer.set_exception(RedisAway(why))
        self._queue.clear()

    def _wake_waiting(self) -> None:
        for waiting in sorted(self._waiting, key=self._waiting.__getitem__):
            _resolve(waiting)


def _answer(item: Item, value: object) -> None:
    if item.answer is not None and not item.answer.done():
        item.answer.set_result(value)


def _resolve(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
