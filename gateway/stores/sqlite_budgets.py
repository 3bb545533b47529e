"""Budgets in one SQLite file: exact across the workers of one machine, without any server. Implements `ports.Budgets`.

Rules
1. Group commit: what is asked for in one turn of the loop, and what was settled since, is one transaction, in the order
   it came. An answer is given after its transaction is in the file.
2. The loop never waits for a lock or a disk: a file that another worker writes to is tried again at the next turns, up
   to `PATIENCE`; the log is copied back by a thread. Then, and when the file cannot be used, `reserve` raises
   BudgetsUnavailable.
3. Settles are never dropped silently: while the file cannot be used they wait in memory (`waiting`), and `tick` tries
   again. More than `QUEUED` of them are counted in `lost`; their holds stay reserved, and are charged when this worker
   has ended.
4. A reserve whose caller was cancelled holds nothing, even when it was granted in the same instant.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from gateway.config.schema import Spending
from gateway.errors import BudgetsUnavailable
from gateway.spend import Charge, Demand, Grant, Level, Refusal
from gateway.stores.budget_file import BudgetFile, Busy, Collision, checkpoint

LINGER = 0.002  # seconds that a settle waits for a reserve to go with
PATIENCE = 2.0  # seconds that a reserve waits for the lock of the file
LOOK = 0.005  # seconds between two looks whether another worker has given something back
RETRY = 0.0005
SPINS = 8  # turns of the loop, before the lock is waited for with a timer
BATCH = 256
QUEUED = 100_000
PRUNE_EVERY = 16  # ticks
REST = 0.05  # seconds after a fault in which the file is not tried again

RESERVE, SETTLE, LAPSE, TICK, ADJUST, FENCE = range(6)


class Item(NamedTuple):
    """One thing to be done in a transaction."""

    kind: int
    op: str = ""
    payload: Any = None
    future: asyncio.Future[Any] | None = None


class SqliteBudgets:
    """`owner` names this worker; a restarted one has another name. To be used from one loop."""

    def __init__(
        self,
        path: str | Path,
        owner: str,
        *,
        charge_dead: bool = True,
        lease_seconds: float = 15.0,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.lost = 0  # settles that could not be kept
        self.expired = 0  # holds of dead workers that were charged or freed here
        self._owner = owner
        self._charge_dead = charge_dead
        self._path = Path(path)
        self._monotonic = monotonic
        self._file = BudgetFile(self._path, owner, int(lease_seconds * 1e9), clock, monotonic)
        self._queue: deque[Item] = deque()
        self._handle: asyncio.Handle | None = None  # of the next flush
        self._soon = False  # it comes at the next turn
        self._tries = 0  # in vain, for the lock
        self._blocked_at = 0
        self._rest_until = 0
        self._ticks = 0
        self._waiters: dict[asyncio.Future[None], tuple[int, int]] = {}  # with the rank of each
        self._look: asyncio.TimerHandle | None = None
        self._seen = self._mark = -1  # how much was given back when waiters woke; and when one was refused last
        self._thread: ThreadPoolExecutor | None = None
        self._copying: asyncio.Future[None] | None = None

    # -- ports.Budgets --------------------------------------------------------------------------------------------

    async def reserve(self, op: str, demands: Sequence[Demand]) -> Grant | Refusal:
        """Hold all of it or nothing. Raises BudgetsUnavailable."""
        if self._rest_until and self._monotonic() < self._rest_until:
            raise BudgetsUnavailable("the file of budgets cannot be used")
        future: asyncio.Future[Grant | Refusal] = asyncio.get_running_loop().create_future()
        self._queue.append(Item(RESERVE, op, demands, future))
        if not self._soon:
            self._flush_soon()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._queue.append(Item(LAPSE, op))
                self._flush_later()
            raise

    def settle(self, op: str, charge: Charge) -> None:
        self._queue.append(Item(SETTLE, op, charge))
        if self._handle is None:
            self._flush_later()

    async def freed(self, seconds: float, rank: tuple[int, int] = (0, 0)) -> None:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiters[future] = rank
        timer = loop.call_later(seconds, _wake, future)
        if self._queue and not self._soon:
            self._flush_soon()
        if self._look is None:
            self._look = loop.call_later(LOOK, self._look_elsewhere)
        try:
            await future
        finally:
            timer.cancel()
            self._waiters.pop(future, None)

    def configure(self, settings: Spending) -> None:
        """Take over reloaded settings."""
        self._charge_dead = settings.on_dead_worker == "charge"
        self._file.lease = int(settings.lease_seconds * 1e9)

    # -- upkeep ---------------------------------------------------------------------------------------------------

    @property
    def available(self) -> bool:
        """False from a fault of the file until the next tick."""
        return not self._rest_until

    @property
    def waiting(self) -> int:
        """Settles (and other things) that are not in the file yet."""
        return len(self._queue)

    def tick(self) -> None:
        """Once a second: renew the lease, expire what dead workers held, forget what is over. Never waits or raises."""
        self._rest_until = 0
        if not any(item.kind == TICK for item in self._queue):
            self._queue.append(Item(TICK))
        self._flush_soon()
        if self._copying is None or self._copying.done():
            self._thread = self._thread or ThreadPoolExecutor(1, "budgets")
            loop = asyncio.get_running_loop()
            self._copying = loop.run_in_executor(self._thread, checkpoint, self._path)

    async def adjust(self, id: str, account: str, delta: int, reason: str, who: str) -> Level:
        """Book `delta` by hand and note it; the same id again books nothing.

        Raises BudgetsUnavailable, and ValueError for accounts that count no amounts.
        """
        future: asyncio.Future[Level] = asyncio.get_running_loop().create_future()
        self._queue.append(Item(ADJUST, id, (account, delta, reason, who), future))
        self._flush_soon()
        return await future

    async def applied(self) -> None:
        """Wait until all that was settled up to now is in the file. Raises BudgetsUnavailable."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(Item(FENCE, "", None, future))
        self._flush_soon()
        await future

    def close(self) -> None:
        """Write down what waits, for up to two seconds, and leave: what is still held here expires. Idempotent."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle, self._soon = None, False
        if self._look is not None:
            self._look.cancel()
            self._look = None
        deadline = time.monotonic() + PATIENCE
        while self._last_words() and time.monotonic() < deadline:
            time.sleep(RETRY)  # the loop has nothing else to do any more
        self.lost += sum(item.kind == SETTLE for item in self._queue)
        self._fail(BudgetsUnavailable("closed"))
        self._queue.clear()
        self._file.close()
        if self._thread is not None:
            self._thread.shutdown(wait=True)
            self._thread = None

    def _last_words(self) -> bool:
        """Write the settles down and resign. True: the file is locked, try again."""
        try:
            now = self._file.begin()
            for item in self._queue:
                if item.kind in (SETTLE, LAPSE):
                    self._do(item, now)
            self._file.resign()
            self._file.commit()
        except Busy:
            return True
        except (BudgetsUnavailable, Collision):
            return False
        self._queue = deque(item for item in self._queue if item.future is not None)
        return False

    # -- group commit ---------------------------------------------------------------------------------------------

    def _flush_soon(self) -> None:
        if self._soon:
            return
        if self._handle is not None:
            self._handle.cancel()
        self._handle = asyncio.get_running_loop().call_soon(self._flush)
        self._soon = True

    def _flush_later(self, seconds: float = LINGER) -> None:
        if self._handle is None:
            self._handle = asyncio.get_running_loop().call_later(seconds, self._flush)

    def _flush(self) -> None:
        self._handle, self._soon = None, False
        queue = self._queue
        if not queue:
            return
        batch: list[Item] = []
        try:
            now = self._file.begin()
            self._tries = 0
            self._mark = self._file.freed if self._mark < 0 else self._mark
            batch = [queue.popleft() for _ in range(min(len(queue), BATCH))]
            answers = self._transact(batch, now)
        except Busy:
            if batch:
                self._file.rollback()
                queue.extendleft(reversed(batch))
            self._try_again()
        except BudgetsUnavailable as e:
            queue.extendleft(reversed(batch))
            self._give_up(e)
        except BaseException:
            self._file.rollback()
            self.lost += sum(item.kind == SETTLE for item in batch)
            self._fail(BudgetsUnavailable("a fault of the gateway"), batch)
            self._flush_later()
            raise
        else:
            self._deliver(batch, answers)
            if queue:
                self._flush_soon()

    def _transact(self, batch: Sequence[Item], now: int) -> list[Any]:
        try:
            answers = [self._do(item, now) for item in batch]
            self._file.commit()
        except Collision:
            now = self._file.begin()
            for item in batch:
                self._file.load_hold(item.op)
            answers = [self._do(item, now) for item in batch]
            self._file.commit(careful=True)
        return answers

    def _deliver(self, batch: Sequence[Item], answers: Sequence[Any]) -> None:
        refused = False
        for item, answer in zip(batch, answers, strict=True):
            _answer(item.future, answer)
            refused = refused or type(answer) is Refusal
            self.expired += answer if item.kind == TICK else 0
        freed = self._file.freed
        if self._waiters and freed != self._seen:
            self._wake_all(freed)
        if refused:  # what is given back from now on wakes it, even if it does not wait yet: hence one mark behind
            self._seen, self._mark = self._mark, freed

    def _do(self, item: Item, now: int) -> Any:
        file, kind, op = self._file, item.kind, item.op
        if item.future is not None and item.future.cancelled():
            return None
        if kind == RESERVE:
            return self._reserve(op, item.payload, now)
        if kind == SETTLE:
            if file.load_hold(op) is not None:
                file.book.settle(op, item.payload, now)
                file.releases()
        elif kind == LAPSE:
            if file.load_hold(op) is not None:
                file.book.lapse(op, now, charge=False)
                file.releases()
        elif kind == TICK:
            return self._upkeep()
        elif kind == ADJUST:
            try:
                return file.adjust(op, *item.payload)
            except ValueError as e:
                return e
        return None

    def _reserve(self, op: str, demands: Sequence[Demand], now: int) -> Grant | Refusal:
        file = self._file
        file.load(demands)
        answer = file.book.reserve(op, demands, self._owner, now)
        if type(answer) is Refusal and op not in file.book.holds and file.load_hold(op) is not None:
            answer = file.book.reserve(op, demands, self._owner, now)  # in the place of what another worker holds
        return answer

    def _upkeep(self) -> int:
        self._file.renew()
        expired = self._file.expire_dead(charge=self._charge_dead)
        self._ticks += 1
        if self._ticks % PRUNE_EVERY == 1:
            self._file.prune()
        return expired

    def _try_again(self) -> None:
        """The lock is taken: by others, for fractions of a millisecond each."""
        now = self._monotonic()
        if self._tries == 0:
            self._blocked_at = now
        self._tries += 1
        if now - self._blocked_at > PATIENCE * 1e9:
            self._tries = 0
            self._fail(BudgetsUnavailable("the file of budgets is locked"))
        elif self._tries <= SPINS:
            self._flush_soon()
        else:
            self._flush_later(min(RETRY * (self._tries - SPINS), 0.02))

    def _give_up(self, e: BudgetsUnavailable) -> None:
        """The file cannot be used now: who waits is told, what was settled stays for the next tick."""
        self._file.recover()
        self._rest_until = self._monotonic() + int(REST * 1e9)
        self._fail(e)

    def _fail(self, e: BudgetsUnavailable, items: Sequence[Item] | None = None) -> None:
        kept = []
        for item in self._queue if items is None else items:
            if item.future is not None:
                _answer(item.future, BudgetsUnavailable(e.message))
            elif item.kind != TICK:
                kept.append(item)
        if items is None:
            over = max(0, len(kept) - QUEUED)
            self.lost += over
            self._queue = deque(kept[over:])

    # -- who waits ------------------------------------------------------------------------------------------------

    def _look_elsewhere(self) -> None:
        self._look = None
        if not self._waiters:
            return
        try:
            freed = self._file.peek_freed()
        except (BudgetsUnavailable, Busy):
            freed = self._seen  # a reserve will tell
        if freed != self._seen:
            self._wake_all(freed)
        self._look = asyncio.get_running_loop().call_later(LOOK, self._look_elsewhere)

    def _wake_all(self, freed: int) -> None:
        self._seen = self._mark = freed
        for future in sorted(self._waiters, key=self._waiters.__getitem__):
            _wake(future)
        self._waiters.clear()


def _answer(future: asyncio.Future[Any] | None, answer: Any) -> None:
    if future is None or future.done():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
