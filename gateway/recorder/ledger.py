"""The ledger: calls, tools, runs and outcomes in one SQLite file, written by one connection.

Rules
1. Rows, totals and the position they come from are committed in one transaction. Whenever the process dies, every
   record is in the ledger exactly once after the next start. `synchronous=NORMAL` is enough for that: a power cut may
   take the last transactions away, but then their positions too, and the journal still holds the records.
2. The content depends on the set of records alone, not on their order, repetition or batches. Two records of one
   call are possible (its worker died between writing and saying so): the one that is not `abandoned` stays.
3. A file that is damaged or of another version is moved aside, and a new one filled from the journal.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

from gateway.errors import LedgerDamaged, LedgerUnavailable
from gateway.journal.record import CallRecord, EventRecord, OutcomeRecord, Record
from gateway.recorder import ledger_sql as sql
from gateway.recorder.ledger_calls import Calls, many
from gateway.recorder.ledger_rows import event_row, outcome_row, verdict_row
from gateway.recorder.projection import Positions

VERSION = "1"
LEDGER = "ledger"  # reader: rows of this file
DELIVERED = "delivered"  # reader: traces and logs

_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_SCHEMA})
_PRAGMAS = (
    "PRAGMA page_size = 4096",
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA wal_autocheckpoint = 8000",
    "PRAGMA journal_size_limit = 67108864",
    "PRAGMA cache_size = -32768",
    "PRAGMA busy_timeout = 2000",
)


class Ledger:
    """The writing side; to be used from one thread. Methods raise LedgerUnavailable or LedgerDamaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = None
        self._calls: Calls | None = None
        self.moved_aside: Path | None = None  # the file that could not be used, if there was one

    def open(self) -> None:
        """Open the file, or begin a new one where there is none or it cannot be used."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            usable = self._connect()
        except LedgerDamaged:
            usable = False
        if not usable:
            self.reset()

    def reset(self) -> None:
        """Move the file aside (one such file is kept) and begin a new one, with no positions."""
        self.close()
        self.moved_aside = move_aside(self.path) or self.moved_aside
        self._connect()

    def close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()

    def positions(self, reader: str) -> dict[str, int]:
        with self._faults() as db:
            return dict(db.execute(sql.SELECT_POSITIONS, (reader,)))

    def apply(self, records: Sequence[Record], positions: Positions, delivered: Positions | None = None) -> None:
        """Take in records, and what was read (`positions`) and passed on (`delivered`) by now: all or nothing."""
        calls = [r for r in records if isinstance(r, CallRecord)]
        with self._transaction() as db:
            if calls and self._calls is not None:
                self._calls.insert(calls)
            if len(calls) < len(records):
                outcomes = [r for r in records if isinstance(r, OutcomeRecord)]
                many(db, sql.INSERT_OUTCOME, [outcome_row(r) for r in outcomes])
                many(db, sql.INSERT_VERDICT, [verdict_row(r) for r in outcomes])
                many(db, sql.INSERT_EVENT, [event_row(r) for r in records if isinstance(r, EventRecord)])
            _commit_positions(db, LEDGER, positions)
            _commit_positions(db, DELIVERED, delivered or {})

    def mark(self, delivered: Positions) -> None:
        """Note how far traces and logs have come, without new rows."""
        with self._transaction() as db:
            _commit_positions(db, DELIVERED, delivered)

    def forget_segments(self, living: Sequence[str]) -> None:
        """Drop the positions of segments that no longer exist."""
        with self._transaction() as db:
            gone = {row[0] for row in db.execute(sql.SELECT_SEGMENTS)}.difference(living)
            db.executemany(sql.DELETE_POSITIONS, [(segment,) for segment in gone])

    def prune(self, before: int, limit: int, *, whole: bool = True) -> int:
        """Remove up to `limit` runs (and calls without a run) from before `before`, ns since the epoch.

        A run that went on later stays, unless `whole` is False. Returns how many runs went.
        """
        with self._transaction() as db:
            last = before if whole else 2**63 - 1
            old = db.execute(sql.SELECT_OLD_RUNS, (before, last, limit)).fetchall()
            for statement in (sql.DELETE_RUN_CALLS, sql.DELETE_RUN_TOOLS, sql.DELETE_RUN):
                db.executemany(statement, [(n,) for n, _ in old])
            for statement in (sql.DELETE_RUN_OUTCOMES, sql.DELETE_RUN_VERDICT):
                db.executemany(statement, [(run_id,) for _, run_id in old])
            if old and self._calls is not None:
                self._calls.forget()
            db.execute(sql.DELETE_OLD_LONERS, (before, limit * 10))
            db.execute(sql.DELETE_OLD_LONER_TOOLS, (before,))
            db.execute(sql.DELETE_OLD_EVENTS, (before,))
            return len(old)

    def start_of_run(self, n: int) -> int | None:
        """When the n-th oldest run began."""
        with self._faults() as db:
            row = db.execute(sql.SELECT_OLDEST_RUN, (n,)).fetchone()
            return row and int(row[0])

    def used_bytes(self) -> int:
        """Size of the content; the file itself does not shrink, its free pages are used again."""
        with self._faults() as db:
            pages, free, size = (
                db.execute(pragma).fetchone()[0]
                for pragma in ("PRAGMA page_count", "PRAGMA freelist_count", "PRAGMA page_size")
            )
            return int((pages - free) * size)

    def compact(self) -> None:
        """Bring everything into the one file, so that it can be moved."""
        with self._faults() as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _connect(self) -> bool:
        """True if the file is ours and of this version; an empty one becomes so."""
        try:
            self._db = sqlite3.connect(self.path, isolation_level=None, cached_statements=64)
            self._calls = Calls(self._db)
        except sqlite3.Error as e:
            raise translated(e) from e
        with self._faults() as db:
            for pragma in _PRAGMAS:
                db.execute(pragma)
            if db.execute(sql.HAS_TABLES).fetchone()[0] == 0:
                schema = resources.files("gateway.recorder").joinpath("schema.sql").read_text("utf-8")
                with self._transaction():
                    for statement in _statements(schema):
                        db.execute(statement)
                    db.execute(sql.INSERT_META, ("version", VERSION))
                return True
            found = db.execute(sql.SELECT_META, ("version",)).fetchone()
            return found is not None and found[0] == VERSION

    @contextlib.contextmanager
    def _faults(self) -> Iterator[sqlite3.Connection]:
        if self._db is None:
            raise LedgerUnavailable("the ledger is not open")
        try:
            yield self._db
        except sqlite3.Error as e:
            raise translated(e) from e

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._faults() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if self._calls is not None:
                    self._calls.forget()
                if db.in_transaction:  # some faults have rolled back already
                    db.execute("ROLLBACK")
                raise


def move_aside(ledger: Path) -> Path | None:
    """Give a ledger another name, under which one is kept; returns it, or None where there was no ledger."""
    kept, found = ledger.with_name(f"{ledger.name}.aside"), None
    for suffix in ("", "-wal", "-shm"):
        source, target = Path(f"{ledger}{suffix}"), Path(f"{kept}{suffix}")
        try:
            target.unlink(missing_ok=True)
            if source.exists():
                source.rename(target)
                found = kept
        except OSError as e:
            raise LedgerUnavailable(f"cannot move {source} aside: {e}") from e
    return found


def translated(e: sqlite3.Error) -> LedgerUnavailable:
    """Is the file damaged, or only not to be had at the moment?"""
    code = getattr(e, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return LedgerDamaged(str(e)) if code in _DAMAGE else LedgerUnavailable(str(e))


def _statements(script: str) -> Iterator[str]:
    """The statements of a script; `executescript` would commit the transaction it runs in."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


def _commit_positions(db: sqlite3.Connection, reader: str, positions: Positions) -> None:
    db.executemany(sql.UPSERT_POSITION, [(reader, segment, offset) for segment, offset in positions.items()])
