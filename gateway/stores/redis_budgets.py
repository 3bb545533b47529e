"""Budgets kept in Redis or Valkey, for many machines. Implements `ports.Budgets`.

Rules
1. Redis is a cache of what the gateways know. What a worker has spent it keeps itself as running totals (spent_parts),
   and on the disk of its machine (mirror); what it holds it keeps in memory. Redis has the sums, and says yes or no.
2. Nothing counts twice: a total that is sent again is the same total, and an operation has one hold. So whatever is not
   known to have arrived is simply sent again; there are no retries beside that.
3. A server that forgot (flushed, restarted, or another one took over) has no epoch, or one of another run. Nothing is
   granted there until every worker that is known has told what it spent and holds, or `learn` seconds have passed.
4. Redis that hangs costs those who wait one timeout, and those who come after nothing: they are refused at once, or
   (`on_failure: open`) get a share of each limit from a book in this worker's memory.

Bound: nothing is spent beyond a limit while the workers that spent it live, however often Redis forgets. Beyond it may
go, after a flush or failover: of a worker that was killed shortly before, what it held, and what it settled in the last
quarter second (its mirror was not written); all of a machine that is gone with its disk or does not come within `learn`
seconds. In a partition: what the cut-off side of Redis goes on granting (set min-replicas-to-write). While `open`:
`local_share` of each limit per worker, once in a window.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from gateway.config.schema import Spending
from gateway.errors import BudgetsUnavailable
from gateway.policy.outage import State
from gateway.spend import Charge, Demand, Grant, Level, Refusal, Rule
from gateway.stores import redis_wire as wire
from gateway.stores.local_share import LocalShare
from gateway.stores.redis_conversation import Conversation
from gateway.stores.redis_link import RedisAway
from gateway.stores.spent_parts import Row

SETTLE_SECONDS = 0.002  # a settle waits so long for company
START_SECONDS = 3.0  # that the first calls of a worker wait until it has joined
WRITE_SECONDS = 0.25  # between writes of the mirror
PRUNE_SECONDS = 3600.0
MOST_USED = 2**53  # by one operation, of one unit; what an upstream reports may be anything
MOST_UNSENT = 200_000  # totals and operations kept while Redis is away; then nothing more is granted

_log = logging.getLogger("tollgate.budgets")


class RedisBudgets(Conversation):
    """To be ticked several times a second; `run` in a task, until `close`. Of one event loop.

    `available`, `outages`, `queued` and `rebuilds` are for metrics. Raises OSError and sqlite3.Error (the mirror), and
    ValueError for a URL that is none.
    """

    def __init__(self, settings: Spending, state: Path, *, learn: float = 0.0, grace: float = 2.0) -> None:
        super().__init__(settings, state, learn or settings.lease_seconds, grace)
        self.local = LocalShare(settings.local_share, self.worker)
        self._writing = False
        self._renewed = self._pruned = self._written = 0.0
        self._named: set[str] = set()  # the members that the mirror has

    # -- ports.Budgets --------------------------------------------------------------------------------------------

    async def reserve(self, op: str, demands: Sequence[Demand]) -> Grant | Refusal:
        """Raises BudgetsUnavailable, and ValueError for numbers of more than 64 bits."""
        if not self.outage.here:
            await self.started(START_SECONDS)
            if not self.outage.here:
                return self._reserve_here(op, demands)
        replaces = op in self.holds
        try:
            answer: Grant | Refusal = await self.say_reserve(op, demands)
            return answer
        except OverflowError as error:
            raise ValueError(f"a demand of {op} has a number of more than 64 bits") from error
        except asyncio.CancelledError:
            if not replaces:
                self._give_up(op)
            raise
        except RedisAway:
            return self._reserve_here(op, demands)

    def settle(self, op: str, charge: Charge) -> None:
        demands = self.holds.pop(op, None)
        if demands is None:
            return
        charge = _bounded(charge)
        self.unheld.discard(op)
        self.local.settle(op, charge, self.now() * 1000)
        rows = self._book(demands, charge)
        self.release(op, rows, charge, SETTLE_SECONDS)

    # -- beside it ------------------------------------------------------------------------------------------------

    @property
    def available(self) -> bool:
        return self.outage.here

    @property
    def outages(self) -> int:
        return self.outage.outages

    @property
    def queued(self) -> int:
        """Totals and operations that Redis has not confirmed."""
        return len(self.parts.unsent) + len(self.releases)

    @property
    def waiting(self) -> int:
        return self.queued

    @property
    def lost(self) -> int:
        """None: what Redis does not have yet is on the disk of this machine, and refused beyond a bound."""
        return 0

    async def adjust(self, id: str, account: str, delta: int, reason: str, who: str) -> Level:
        """Book `delta` by hand and note it; the same id again books nothing.

        Raises BudgetsUnavailable, and ValueError for accounts that count no amounts.
        """
        part = f"by.{id}" if delta >= 0 else f"-by.{id}"
        result = await self.ask(wire.entry("a", account, part, abs(delta), [id, account, delta, reason, who]))
        if not isinstance(result, wire.Adjusted) or not result.counts:
            raise ValueError(f"{account}: counts what is under way, which cannot be adjusted")
        self.keep([result.row])
        return Level(account, result.limit, result.spent, result.reserved)

    def tick(self) -> None:
        """Renew the lease, write the mirror."""
        now = self._loop.time()
        if now - self._renewed >= min(1.0, self.settings.lease_seconds / 5):
            self.renew()
        if now - self._written >= WRITE_SECONDS and not self._writing and not self.closing:
            self._written = now
            if self.parts.unwritten or set(self.session.members) != self._named or now - self._pruned >= PRUNE_SECONDS:
                self._writing = True
                self._loop.run_in_executor(self.disk, self._write, self.now() * 1000, now)

    def configure(self, settings: Spending) -> None:
        """Take over reloaded settings; another URL or prefix needs a restart."""
        self.settings = settings
        self.link.timeout = settings.timeout
        self.local.share(settings.local_share)

    def renew(self) -> None:
        """Renew the lease, and see to what dead workers held."""
        self._renewed = self._loop.time()
        self.session.renewal_due = True
        self._wake.set()

    async def applied(self) -> None:
        """Wait until all that was settled up to now is in Redis. Raises BudgetsUnavailable."""
        await self.ask(wire.entry("n"))

    async def close(self) -> None:
        """Send what can be sent within a second or so, and leave. Idempotent."""
        if self.closing:
            return
        self.closing = True
        self._wake.set()
        await asyncio.wait([self._task])
        await self._loop.run_in_executor(self.disk, self._write, self.now() * 1000, self._loop.time())
        self.disk.shutdown()
        self.mirror.close()

    # -- what is done without Redis ---------------------------------------------------------------------------------

    def _reserve_here(self, op: str, demands: Sequence[Demand]) -> Grant | Refusal:
        if self.settings.on_failure == "closed" or self.outage.state is State.STARTING:
            raise BudgetsUnavailable(f"the store of budgets is {self.outage.state}", retry_after=1)
        if self.queued > MOST_UNSENT:
            raise BudgetsUnavailable("the store of budgets is away, and too much waits for it", retry_after=1)
        answer = self.local.reserve(op, demands, self.now() * 1000)
        if isinstance(answer, Grant):
            self.holds[op] = demands
            self.unheld.add(op)
            self.releases.pop(op, None)  # what may have arrived in Redis is this hold
        return answer

    def _book(self, demands: Sequence[Demand], charge: Charge) -> list[Row]:
        rows, now = [], self.now()
        for demand in demands:
            if demand.rule is Rule.TOTAL or demand.rule is Rule.ROLLING:
                used = charge.of(demand.unit)
                if used:
                    rows.append(self.parts.add(demand, used, now))
        return rows

    def _give_up(self, op: str) -> None:
        """Nobody waits any more for this reserve, whether it was granted, will be, or is still to be sent."""
        self.holds.pop(op, None)
        self.release(op, (), Charge(calls=0), SETTLE_SECONDS)

    def _write(self, now: int, at: float) -> None:
        """In the thread of the mirror."""
        rows = [self.parts.unwritten.pop(key) for key in list(self.parts.unwritten)]
        members = self.session.members
        try:
            if rows:
                self.mirror.write(rows, now)
            if members:
                self.mirror.set_members(members)
            self._named = set(members)
            if at - self._pruned >= PRUNE_SECONDS:
                self._pruned = at
                self.mirror.prune(now)
        except sqlite3.Error as error:
            for row in rows:
                self.parts.unwritten.setdefault((row[1], row[0], row[2]), row)
            _log.warning("the mirror of budgets cannot be written: %s", error)
        finally:
            self._writing = False


def _bounded(charge: Charge) -> Charge:
    """What an upstream reports may be anything."""
    counts = (charge.usd, charge.tokens, charge.calls, charge.tools, charge.steps)
    if min(counts) >= 0 and max(counts) <= MOST_USED:
        return charge
    return Charge(*(min(max(count, 0), MOST_USED) for count in counts))
