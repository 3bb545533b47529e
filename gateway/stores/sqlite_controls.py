"""Decisions of people in one SQLite file of the machine: written by the recorder and the command line, read by workers.

Rules
1. A decision is durable when `record` returns: the kill switch must survive a power cut. Decisions are rare, so a
   rollback journal and a full sync cost nothing that matters, and no WAL file has to be kept alive.
2. Workers answer from memory (WatchedFile); where something was decided, they read only the standings of a higher
   revision.
3. What cannot be read is kept as it was last known, and asked for again at the next refresh: a kill stays a kill.
4. `decisions` only ever grows. Standings of runs that stop nothing are dropped RUN_DAYS after their last decision.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gateway.policy.controls import Decision, Standing, Standings, after
from gateway.stores.sqlite_file import READ_SECONDS, WRITE_SECONDS, WatchedFile, open_durable

RUN_DAYS = 30
RELOAD_SECONDS = 86_400.0  # between two readings of the whole table, which forget what was dropped
_DAY = 86_400 * 10**9

_TABLES = (
    """
    CREATE TABLE IF NOT EXISTS decisions (
        revision INTEGER PRIMARY KEY AUTOINCREMENT,
        at       INTEGER NOT NULL, -- ns since the epoch
        kind     TEXT NOT NULL,
        scope    TEXT NOT NULL,
        value    TEXT NOT NULL,
        amount   INTEGER NOT NULL, -- nano-USD
        reason   TEXT NOT NULL,
        who      TEXT NOT NULL,
        limits   TEXT NOT NULL,    -- JSON
        origin   TEXT NOT NULL,    -- machine it was taken on; "": this one
        caps     TEXT NOT NULL DEFAULT 'null' -- JSON
    )
    """,
    # For many machines (controls_exchange): who this is, how far it has come, and up to which revision of each machine.
    "CREATE TABLE IF NOT EXISTS exchange (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS machines (machine TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID",
    """
    CREATE TABLE IF NOT EXISTS standings (
        scope    TEXT NOT NULL,
        value    TEXT NOT NULL,
        revision INTEGER NOT NULL,
        at       INTEGER NOT NULL,
        matters  INTEGER NOT NULL,
        killed   INTEGER NOT NULL,
        standing TEXT NOT NULL,    -- JSON
        PRIMARY KEY (scope, value)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX IF NOT EXISTS standings_revision ON standings (revision)",
)
_INSERT = """
INSERT INTO decisions (at, kind, scope, value, amount, reason, who, limits, caps, origin)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_IS_CURRENT = "SELECT count(*) FROM pragma_table_info('decisions') WHERE name = 'caps'"
_MAKE_CURRENT = "ALTER TABLE decisions ADD COLUMN caps TEXT NOT NULL DEFAULT 'null'"
_ONE = "SELECT standing FROM standings WHERE scope = ? AND value = ?"
_PUT = "INSERT OR REPLACE INTO standings (scope, value, revision, at, matters, killed, standing) VALUES (?,?,?,?,?,?,?)"
_DROP = "DELETE FROM standings WHERE scope = 'run' AND killed = 0 AND at < ?"
_SINCE = "SELECT standing FROM standings WHERE revision > ? ORDER BY revision"
_MATTERS = "SELECT standing FROM standings WHERE matters ORDER BY revision"
_NOT_OF_RUNS = "SELECT standing FROM standings WHERE matters AND scope <> 'run' ORDER BY scope, value"
_FORCED = "SELECT standing FROM standings WHERE matters AND scope = 'upstream' ORDER BY value"
_KILLED = "SELECT standing FROM standings WHERE killed ORDER BY revision DESC LIMIT ?"
_LAST = "SELECT ifnull(max(revision), 0) FROM decisions"
_AUDIT = (
    "SELECT kind, scope, value, amount, reason, who, at, limits, caps FROM decisions ORDER BY revision DESC LIMIT ?"
)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Standing).decode
_log = logging.getLogger("tollgate.controls")


class ControlsUnusable(OSError):
    """The file of decisions cannot be used; the message says which and why."""


class SqliteDecisions:
    """The writing side, and what is asked by people. Any thread; each use has a connection of its own.

    Methods raise ControlsUnusable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def record(self, decision: Decision) -> Standing:
        """Write a decision down for good; returns how its subject stands now."""
        with self.open() as db:
            db.execute("BEGIN IMMEDIATE")
            standing = put(db, decision)
            db.execute(_DROP, (decision.at - RUN_DAYS * _DAY,))
            db.execute("COMMIT")
        return standing

    def forced(self) -> list[Standing]:
        """Breakers that a person holds open or closed."""
        with self.open() as db:
            found = [_decode(row[0]) for row in db.execute(_FORCED)]
        return [standing for standing in found if standing.forced]

    def stopped(self, limit: int = 1000) -> list[Standing]:
        """What is stopped now, the latest first."""
        with self.open() as db:
            return [_decode(row[0]) for row in db.execute(_KILLED, (limit,))]

    def capped(self) -> list[Standing]:
        """Every subject that limits were set for, but runs."""
        with self.open() as db:
            found = [_decode(row[0]) for row in db.execute(_NOT_OF_RUNS)]
        return [standing for standing in found if standing.caps is not None]

    def standing(self, scope: str, value: str) -> Standing | None:
        with self.open() as db:
            found = db.execute(_ONE, (scope, value)).fetchone()
        return None if found is None else _decode(found[0])

    def decisions(self, limit: int = 100) -> list[Decision]:
        """The audit, the latest first."""
        with self.open() as db:
            rows = db.execute(_AUDIT, (limit,)).fetchall()
        return [decision_of(row) for row in rows]

    @contextlib.contextmanager
    def open(self) -> Iterator[sqlite3.Connection]:
        """A connection for one use."""
        with _faults(self.path), contextlib.closing(connect(self.path, WRITE_SECONDS)) as db:
            yield db


class SqliteControls(Standings):
    """The worker's side: implements ports.Controls. Raises ControlsUnusable from the constructor alone."""

    def __init__(self, path: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.path = path
        self._monotonic = monotonic
        self._reload_at = 0.0
        self._watched = WatchedFile(path, self._connect, self._read, "what was decided before stays in force", _log)
        with _faults(path):
            self._watched.begin()

    def refresh(self) -> bool:
        """See what was decided since; true where something was. To be called a few times per second."""
        return self._watched.refresh()

    def close(self) -> None:
        """Idempotent; what is known stays in force."""
        self._watched.close()

    def _connect(self) -> sqlite3.Connection:
        self._reload_at = 0.0  # revisions of another file say nothing about what is known
        return connect(self.path, READ_SECONDS)

    def _read(self, db: sqlite3.Connection, news: bool) -> bool:
        now = self._monotonic()
        if not news and now < self._reload_at:
            return False
        before, stops = self.revision, None
        if now >= self._reload_at:
            stops = self.stops.copy()
            revision: int = db.execute(_LAST).fetchone()[0]
            self.replace([_decode(row[0]) for row in db.execute(_MATTERS)])
            self.revision = revision
            self._reload_at = now + RELOAD_SECONDS
        else:
            self.take([_decode(row[0]) for row in db.execute(_SINCE, (self.revision,))])
        return self.revision != before or (stops is not None and stops != self.stops)


def put(db: sqlite3.Connection, decision: Decision, origin: str = "") -> Standing:
    """Take a decision within a transaction; returns how its subject stands now."""
    limits, caps = _encode(decision.limits).decode(), _encode(decision.caps).decode()
    row = (decision.at, decision.kind, decision.scope, decision.value, decision.amount, decision.reason, decision.who)
    revision = db.execute(_INSERT, (*row, limits, caps, origin)).lastrowid or 0
    found = db.execute(_ONE, (decision.scope, decision.value)).fetchone()
    standing = after(None if found is None else _decode(found[0]), decision, revision)
    state = (revision, standing.at, standing.matters, bool(standing.killed_at))
    db.execute(_PUT, (standing.scope, standing.value, *state, _encode(standing).decode()))
    return standing


def decision_of(row: Sequence[Any]) -> Decision:
    """`row`: the fields of a Decision in their order, limits and caps as JSON; whatever else follows."""
    names = Decision.__struct_fields__
    fields = dict(zip(names, row, strict=False))
    fields |= {name: msgspec.json.decode(fields[name]) for name in ("limits", "caps")}
    return msgspec.convert(fields, Decision)


def connect(path: Path, patience: float) -> sqlite3.Connection:
    """A connection to the file, which is made where there is none. Raises sqlite3.Error or OSError."""
    db = open_durable(path, patience, _TABLES, "standings_revision")
    try:
        if not db.execute(_IS_CURRENT).fetchone()[0]:  # of an earlier version
            db.execute("BEGIN IMMEDIATE")
            if not db.execute(_IS_CURRENT).fetchone()[0]:
                db.execute(_MAKE_CURRENT)
            db.execute("COMMIT")
    except sqlite3.Error:
        db.close()
        raise
    return db


@contextlib.contextmanager
def _faults(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, msgspec.MsgspecError) as error:
        raise ControlsUnusable(f"{path}: {error}") from error
