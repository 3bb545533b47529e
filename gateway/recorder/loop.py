"""The loop of the recorder: journal in, projections out.

Rules
1. The ledger comes first, in one transaction with how far it has read; then metrics, traces and logs. Whoever dies
   when, the ledger has every record exactly once. Traces and logs have it at least once: how far they have come is
   written with the next batch, so that a kill repeats at most one.
2. Nothing is dropped here: a record waits in the journal until every projection has taken it.
3. Where the ledger cannot be written (disk full, locked), metrics, traces and logs go on; it catches up later, from
   its own position. Where it is damaged it is made again from the journal, while the others go on too.
4. Everything here runs in one thread of its own; other threads may only ask, stop and report damage.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence

from gateway.errors import LedgerDamaged, LedgerUnavailable
from gateway.journal.record import CallRecord, Record
from gateway.recorder.ledger import DELIVERED, LEDGER, Ledger
from gateway.recorder.projection import Batch, Feed, Positions, Projection, Source, behind_all, breathe

BATCH = 1_000  # records: some 20 ms of work
IDLE_SECONDS = 0.05
RETRY_SECONDS = 1.0
KEEP_SECONDS = 10.0  # between two calls of `keep`

_log = logging.getLogger("tollgate.recorder")


class Counted:
    """A projection that keeps its own state over restarts: metrics.

    `reached` is what that state contains; `keep` saves the state as of a position, and never raises.
    """

    def __init__(self, projection: Projection, reached: Positions, keep: Callable[[Positions], None]) -> None:
        self.projection = projection
        self.feed = Feed(reached)
        self.keep = keep


class Loop:
    """Follows the journal until stopped.

    `follow(positions)` opens it; `tidy(committed)` is called now and then, between batches, with what may be forgotten.
    """

    def __init__(
        self,
        follow: Callable[[Positions], Source],
        ledger: Ledger,
        counted: Sequence[Counted],
        delivered: Sequence[Projection],
        *,
        tidy: Callable[[Positions], None] = lambda committed: None,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._follow = follow
        self._ledger = ledger
        self.counted = counted
        self.delivered = delivered
        self._tidy = tidy
        self._monotonic = monotonic
        self._now = now
        self._stop = threading.Event()
        self._deadline = float("inf")
        self._actions: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._damaged = threading.Event()
        self._attached = False
        self._failing = False
        self._readable = True
        self._retry_at = float("-inf")
        self._keep_at = monotonic() + KEEP_SECONDS
        self._in_ledger = Feed({})
        # Where the ledger does not say how far traces and logs have come, metrics do, closely enough.
        self._sinks = Feed(counted[0].feed.reached if counted else {})
        self._marked: dict[str, int] = {}
        self._source: Source | None = None
        self.behind_ns = 0  # age of the last record read, while there are more
        self.caught_up_at = float("-inf")  # everything written before this moment (monotonic) has been applied
        self.records = 0
        self.ledger_failures = 0

    # -- from other threads ---------------------------------------------------------------------------------------

    def stop(self, seconds: float = 1.0) -> None:
        """Make `run` return once everything written so far has been read, within `seconds`."""
        self._deadline = self._monotonic() + seconds
        self._stop.set()

    def between_batches(self, action: Callable[[], None]) -> None:
        """Have `action` run in the thread of the loop, where it may change `counted` and `delivered`."""
        self._actions.put(action)

    def report_damage(self) -> None:
        """A reader found the ledger damaged: make it again."""
        self._damaged.set()

    @property
    def ledger_attached(self) -> bool:
        return self._attached

    def lag_bytes(self) -> int:
        """What is in the journal and was not read yet."""
        source = self._source
        return source.lag_bytes() if source is not None else 0

    # -- the thread -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until `stop`, and then until there is nothing left to read or the time is over."""
        while True:
            busy = self.turn()
            if self._stop.is_set() and (not busy or self._monotonic() > self._deadline):
                break
            if not busy:
                self._stop.wait(IDLE_SECONDS)
        self._finish()

    def turn(self) -> bool:
        """One batch. False if there was nothing to do."""
        while not self._actions.empty():
            self._actions.get()()
        if self._damaged.is_set():
            self._damaged.clear()
            self._make_again()
        if not self._attached and self._monotonic() >= self._retry_at:
            self._attach()
        if self._source is None:
            self._source = self._open_source()
        began = self._monotonic()
        try:
            batch = self._source.read(BATCH)
        except OSError as e:
            if self._readable:
                _log.error("recorder: the journal cannot be read: %s", e)
            self._readable = False
            self._close_source()
            return False
        self._readable = True
        if batch:
            self._take(batch, self._source.positions)
        else:
            self.behind_ns = 0
            if self._attached:
                self.caught_up_at = began
        self._housekeeping(idle=not batch)
        return bool(batch)

    def _take(self, batch: Batch, positions: dict[str, int]) -> None:
        self.behind_ns = max(0, self._now() - _written(batch[-1][1]))
        self._write(batch, positions)
        breathe()
        for counted in self.counted:
            counted.projection.apply(counted.feed.fresh(batch))
            counted.feed.reached = counted.feed.advanced(positions)
        sinks = self._sinks
        fresh = sinks.fresh(batch)
        breathe()
        for projection in self.delivered:
            projection.apply(fresh)
            breathe()
        sinks.reached = sinks.advanced(positions)
        self.records += len(batch)

    def _write(self, batch: Batch, positions: dict[str, int]) -> None:
        if not self._attached:
            return
        feed = self._in_ledger
        fresh, reached, delivered = feed.fresh(batch), feed.advanced(positions), self._sinks.reached
        try:
            self._ledger.apply(fresh, _changed(reached, feed.reached), _changed(delivered, self._marked))
        except LedgerUnavailable as e:
            self._detach(e)
        else:
            feed.reached, self._marked = reached, delivered
            if self._failing:
                _log.warning("recorder: the ledger is written again")
                self._failing = False

    # -- ledger and source ----------------------------------------------------------------------------------------

    def _attach(self) -> None:
        """Open the ledger and read on from where the last of all has come."""
        try:
            self._ledger.close()
            self._ledger.open()
            self._in_ledger = Feed(self._ledger.positions(LEDGER))
            delivered = self._ledger.positions(DELIVERED)
        except (LedgerUnavailable, OSError) as e:
            self._detach(e)
            return
        if self._ledger.moved_aside is not None:
            _log.warning(
                "recorder: making the ledger again from the journal; the old one is %s", self._ledger.moved_aside
            )
            self._ledger.moved_aside = None
        if self._retry_at == float("-inf") and delivered:  # a start
            self._sinks = Feed(delivered)
        self._marked = delivered
        self._attached = True
        self._close_source()

    def _detach(self, e: Exception) -> None:
        """The ledger cannot be used for now; said once, until something could be written again."""
        if not self._failing:
            _log.error("recorder: the ledger cannot be used (%s); it will catch up", e)
        if isinstance(e, LedgerDamaged):
            self._damaged.set()
        self._failing = True
        self.ledger_failures += 1
        self._attached = False
        self._retry_at = self._monotonic() + RETRY_SECONDS

    def _make_again(self) -> None:
        try:
            self._ledger.reset()
        except LedgerUnavailable as e:
            self._detach(e)
            return
        self._retry_at = 0.0
        self._attached = False

    def _open_source(self) -> Source:
        feeds = [self._sinks, *(counted.feed for counted in self.counted)]
        if self._attached:
            feeds.append(self._in_ledger)
        start = behind_all([feed.reached for feed in feeds])
        for feed in feeds:
            feed.rewind(start)
        return self._follow(start)

    def _close_source(self) -> None:
        source, self._source = self._source, None
        if source is not None:
            source.close()

    # -- now and then ---------------------------------------------------------------------------------------------

    def _housekeeping(self, idle: bool) -> None:
        if idle:
            self._mark()
        moment = self._monotonic()
        if moment >= self._keep_at:
            self._keep_at = moment + KEEP_SECONDS
            self._keep()
            if self._attached:
                self._tidy(self.committed())

    def committed(self) -> dict[str, int]:
        """What every projection has taken for good, by segment: the journal may forget it."""
        return behind_all([self._in_ledger.reached, self._marked, *(c.feed.reached for c in self.counted)])

    def _mark(self) -> None:
        news = _changed(self._sinks.reached, self._marked)
        if not self._attached or not news:
            return
        try:
            self._ledger.mark(news)
        except LedgerUnavailable as e:
            self._detach(e)
        else:
            self._marked = self._sinks.reached

    def _keep(self) -> None:
        for counted in self.counted:
            counted.keep(counted.feed.reached)

    def _finish(self) -> None:
        self._keep()
        self._mark()
        self._ledger.close()
        self._close_source()


def _changed(now: Positions, before: Positions) -> dict[str, int]:
    return {name: offset for name, offset in now.items() if before.get(name) != offset}


def _written(record: Record) -> int:
    return record.started_at + record.duration_ns if isinstance(record, CallRecord) else record.at
