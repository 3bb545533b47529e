"""The budget book in one SQLite file, shared by the processes of a machine: transactions, rows and their cache.

Rules
1. All changes happen between `begin` and `commit`, under the write lock of the file. Whatever is killed at whatever
   instant, the file holds a prefix of the committed transactions (WAL); without fsync only a power cut takes the last
   of them away.
2. Rows stay in memory for as long as `PRAGMA data_version` says that nobody else has written. Holds are changed by
   others only when they expire or are replaced elsewhere; that raises `epoch`, and only then are they read again.
3. The clock never goes back: it is the latest time that any worker has seen. While the machine's clock is behind that
   (it was set back) it goes on at half speed, so that rates still drain and the two meet again.
4. Liveness is told by the monotonic clock, which all processes share and nobody sets.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec import msgpack

from gateway.errors import BudgetsUnavailable
from gateway.policy.book import Book, Hold, State
from gateway.policy.book_rules import Account
from gateway.spend import Demand, Level, Rule, Unit
from gateway.stores import budget_sql as sql
from gateway.stores.sqlite_file import NEVER_WAIT, create_private

CACHED = 4096  # accounts kept in memory
LOG_BYTES, LOG_LIMIT = (
    4 << 20,
    32 << 20,
)  # of the write-ahead log: copied back above the first, by force above the other
IDLE = 30 * 86_400 * 10**9  # ns after which a run is forgotten
KEPT = 86_400 * 10**9  # ns that an expired hold waits for a late settle
PRUNED_AT_ONCE = 200
END = "\U0010ffff"

Row = tuple[Any, ...]
_pack = msgpack.Encoder().encode
_unpack_parts = msgpack.Decoder(list[tuple[str, int]]).decode
_unpack_slots = msgpack.Decoder(list[tuple[int, int]]).decode


class Busy(Exception):
    """Another process holds the write lock."""


class Collision(Exception):
    """A hold of this name exists that was not known here: do it again, with `careful`."""


class BudgetFile:
    """To be used from one thread. All methods raise BudgetsUnavailable where the file cannot be used, or Busy."""

    def __init__(
        self, path: Path, owner: str, lease: int, clock: Callable[[], int], monotonic: Callable[[], int]
    ) -> None:
        self.path, self.owner, self.lease = path, owner, lease
        self.book = Book()
        self.freed = 0
        self._clock, self._monotonic = clock, monotonic
        self._db: sqlite3.Connection | None = None
        self._version = self._epoch = -1
        self._now = self._mono = 0
        self._alive_until = 0
        self._pruned_to = ""
        self._freed_now = self._epoch_now = False
        self._full = False  # what failed last, failed for want of space

    def connect(self) -> sqlite3.Connection:
        if self._db is None:
            try:
                self._db = connect(self.path)
            except sqlite3.Error as e:
                raise self._fault(e) from e
            except OSError as e:
                raise BudgetsUnavailable(f"{self.path.name}: {e}") from e
        return self._db

    def close(self) -> None:
        """Idempotent; the next `begin` opens the file again."""
        db, self._db = self._db, None
        self._forget()
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()

    # -- transactions ---------------------------------------------------------------------------------------------

    def begin(self) -> int:
        """Take the write lock; returns the time of this transaction. Raises Busy."""
        db = self.connect()
        try:
            db.execute("BEGIN IMMEDIATE")
            version = db.execute("PRAGMA data_version").fetchone()[0]
            if version != self._version:
                self._refresh(db, version)
        except sqlite3.Error as e:
            if db.in_transaction:
                self.rollback()
            raise self._fault(e) from e
        wall, mono = self._clock(), self._monotonic()
        now = wall if wall > self._now else self._now + max(0, mono - self._mono) // 2
        self._now, self._mono = now, mono
        if len(self.book.accounts) > CACHED:
            self.book.accounts.clear()
        return now

    def commit(self, *, careful: bool = False) -> None:
        """Write what has changed. Raises Collision."""
        db, book = self.connect(), self.book
        try:
            if book.changed:
                if self._mono > self._alive_until - self.lease // 2:
                    self.renew()
                self._write_holds(db, careful)
            if book.touched:
                _write_accounts(db, book.touched)
            if book.changed or book.touched or self._freed_now or self._epoch_now:
                self.freed += self._freed_now
                self._epoch += self._epoch_now
                db.execute(sql.SET_CLOCK, (self._now, self._mono, self._epoch, self.freed))
            db.execute("COMMIT")
        except sqlite3.IntegrityError as e:
            self.rollback()
            raise Collision from e
        except sqlite3.Error as e:
            self.rollback()
            raise self._fault(e) from e
        book.changed.clear()
        book.touched.clear()
        self._freed_now = self._epoch_now = False

    def rollback(self) -> None:
        """Forget everything that was not committed, and what is cached."""
        self._forget()
        db = self._db
        if db is not None and db.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")

    def recover(self) -> None:
        """After a fault: begin from the rows again; from a new connection, unless it was only the disk that is full."""
        if self._full:
            self.rollback()
        else:
            self.close()

    def releases(self) -> None:
        """Something is given back in this transaction: whoever waits elsewhere shall see it."""
        self._freed_now = True

    def peek_freed(self) -> int:
        """A number that rises whenever any worker has given something back."""
        try:
            return int(self.connect().execute(sql.GET_FREED).fetchone()[0])
        except sqlite3.Error as e:
            raise self._fault(e) from e

    # -- inside of a transaction ----------------------------------------------------------------------------------

    def load(self, demands: Sequence[Demand]) -> None:
        accounts = self.book.accounts
        for demand in demands:
            if demand.account not in accounts:
                self.load_account(demand.account)

    def load_account(self, name: str) -> None:
        try:
            row = self.connect().execute(sql.GET_ACCOUNT, (name,)).fetchone()
        except sqlite3.Error as e:
            raise self._fault(e) from e
        if row is not None:
            self.book.accounts[name] = account_of(row)

    def load_hold(self, op: str) -> Hold | None:
        """The hold and its accounts, in the book."""
        hold = self.book.holds.get(op)
        if hold is None and op not in self.book.changed:  # what was settled in this transaction is still in its row
            try:
                row = self.connect().execute(sql.GET_HOLD, (op,)).fetchone()
            except sqlite3.Error as e:
                raise self._fault(e) from e
            if row is None:
                return None
            hold = self.book.holds[op] = hold_of(row)
            if hold.owner != self.owner:
                self._epoch_now = True
        if hold is not None:
            for name, _ in hold.parts:
                if name not in self.book.accounts:
                    self.load_account(name)
        return hold

    def renew(self) -> None:
        """This worker lives. In the transaction of every hold it makes, if not long before."""
        alive_until = self._mono + self.lease
        self._run(sql.RENEW, (self.owner, alive_until, self.lease))
        self._alive_until = alive_until

    def resign(self) -> None:
        """This worker ends: what it still holds expires at the next look of another."""
        self._run(sql.RENEW, (self.owner, 0, self.lease))
        self._alive_until = self._mono + self.lease  # what it settles now shall not renew it

    def expire_dead(self, *, charge: bool) -> int:
        """Expire the holds of all workers that did not renew; returns how many."""
        expired = 0
        for (owner,) in self._run(sql.DEAD, (self.owner, self._mono)):
            for row in self._run(sql.HOLDS_OF, (owner,)):
                self.load_hold(row[0])
                expired += self.book.lapse(row[0], self._now, charge=charge)
            self._run(sql.DELETE_OWNER, (owner,))
            self._epoch_now = self._freed_now = True
        return expired

    def prune(self) -> int:
        """Forget some of what nobody will ask for; goes through the accounts a few at a time."""
        self._run(sql.FORGET_HOLDS, (self._now - KEPT,))
        start = self._pruned_to
        row = self._run(sql.NTH_ACCOUNT, (start, PRUNED_AT_ONCE - 1))
        end = row[0][0] if row else END
        db = self.connect()
        before = db.total_changes
        self._run(sql.FORGET_ACCOUNTS, (start, end, self._now, self._now - IDLE))
        gone = db.total_changes - before
        if gone:
            self.book.accounts = dict(self.book.touched)
        self._pruned_to = end if row else ""
        return gone

    def adjust(self, id: str, name: str, delta: int, reason: str, who: str) -> Level:
        """Book by hand, and note it; an id that was noted before books nothing. Raises ValueError."""
        if name not in self.book.accounts:
            self.load_account(name)
        db = self.connect()
        before = db.total_changes
        self._run(sql.ADD_ADJUSTMENT, (id, self._now, name, delta, reason, who))
        fresh = db.total_changes > before
        self._freed_now = self._freed_now or (fresh and delta < 0)
        return self.book.adjust(name, delta if fresh else 0, self._now)

    # -- rows -----------------------------------------------------------------------------------------------------

    def _refresh(self, db: sqlite3.Connection, version: int) -> None:
        """Somebody else has written."""
        now, mono, epoch, self.freed = db.execute(sql.GET_CLOCK).fetchone()
        if now >= self._now:
            self._now, self._mono = now, mono
        self.book.accounts.clear()
        if epoch != self._epoch:
            self.book.holds.clear()
            self._alive_until = 0  # perhaps it was this worker that was held dead
        self._version, self._epoch = version, epoch

    def _write_holds(self, db: sqlite3.Connection, careful: bool) -> None:
        made: list[Row] = []
        replaced: list[Row] = []
        gone: list[Row] = []
        for op, hold in self.book.changed.items():
            if hold is None:
                gone.append((op,))
                continue
            row = (op, hold.owner, hold.at, hold.state.value, _pack(hold.parts))
            (replaced if hold.stored or careful else made).append(row)
            hold.stored = True
            if hold.state is not State.LIVE:
                self.book.holds.pop(op, None)
        if gone:
            db.executemany(sql.DELETE_HOLD, gone)
        if made:
            db.executemany(sql.INSERT_HOLD, made)
        if replaced:
            db.executemany(sql.REPLACE_HOLD, replaced)

    def _run(self, statement: str, values: Sequence[object]) -> list[Row]:
        try:
            return self.connect().execute(statement, values).fetchall()
        except sqlite3.Error as e:
            raise self._fault(e) from e

    def _forget(self) -> None:
        book = self.book
        book.accounts.clear()
        book.holds.clear()
        book.changed.clear()
        book.touched.clear()
        self._version = self._epoch = -1
        self._alive_until = 0
        self._freed_now = self._epoch_now = False

    def _fault(self, e: sqlite3.Error) -> BudgetsUnavailable | Busy:
        code = getattr(e, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        self._full = code == sqlite3.SQLITE_FULL
        return Busy() if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) else BudgetsUnavailable(f"{e}")


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, or begin one. Raises sqlite3.Error, OSError."""
    create_private(path)
    db = sqlite3.connect(path, isolation_level=None, cached_statements=64, timeout=2.0)
    try:
        db.execute("PRAGMA page_size = 2048")  # of a new file: each page a call changes is summed and written whole
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA wal_autocheckpoint = 0")  # `checkpoint` does it, in a thread
        db.execute("PRAGMA cache_size = -8192")
        if db.execute("PRAGMA user_version").fetchone()[0] == 0:
            _create(db)
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version != sql.VERSION:
            raise sqlite3.DatabaseError(f"made by another version of this program ({version})")
        db.execute(NEVER_WAIT)
    except BaseException:
        db.close()
        raise
    return db


def _create(db: sqlite3.Connection) -> None:
    """The tables, unless another worker that starts too was faster."""
    db.execute("BEGIN IMMEDIATE")
    if db.execute("PRAGMA user_version").fetchone()[0] == 0:
        for statement in sql.SCHEMA:
            db.execute(statement)
        db.execute("PRAGMA user_version = 1")
    db.execute("COMMIT")


def checkpoint(path: Path) -> None:
    """Copy the log back into the file where it has grown; for a thread of its own: nothing else waits for a disk.

    Passively, beside the writers; only a log that never came to its end that way is finished under their lock.
    """
    log = path.with_name(path.name + "-wal")
    with contextlib.suppress(sqlite3.Error, OSError):
        if log.stat().st_size < LOG_BYTES:
            return
        db = sqlite3.connect(path, isolation_level=None, timeout=0.2)
        try:
            db.execute("PRAGMA wal_autocheckpoint = 0")
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if log.stat().st_size >= LOG_LIMIT:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            db.close()


def account_of(row: Row) -> Account:
    name, spent, reserved, level, first, at, slots, rule, unit, limit, since, until, period, burst, label = row
    return Account(
        name,
        *(Rule(rule), Unit(unit), limit, spent, reserved, level, first, at, since, until, period, burst, label),
        dict(_unpack_slots(slots)) if slots else None,
        True,
    )


def hold_of(row: Row) -> Hold:
    op, owner, at, state, parts = row
    return Hold(op, owner, at, State(state), _unpack_parts(parts), True)


def _write_accounts(db: sqlite3.Connection, touched: dict[str, Account]) -> None:
    counts: list[Row] = []
    whole: list[Row] = []
    for a in touched.values():
        slots = _pack(list(a.slots.items())) if a.slots else None
        row = (a.spent, a.reserved, a.level, a.first, a.at, slots)
        if a.described:
            counts.append((*row, a.name))
            continue
        terms = (a.rule.value, a.unit.value, a.limit, a.since, a.until, a.period, a.burst, a.label)
        whole.append((a.name, *row, *terms))
        a.described = True
    if whole:
        db.executemany(sql.REPLACE_ACCOUNT, whole)
    if counts:
        db.executemany(sql.UPDATE_ACCOUNT, counts)
