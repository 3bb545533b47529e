"""What was learned of models, in one SQLite file of the machine: written by the recorder, watched by workers.

`examples` holds the calls that are, or may become, labels: features of their prompts, no text. They are written with
how far the journal was read, so that a restart neither loses nor repeats one. `scopes` holds what was made of them.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec
from msgspec import Struct

from gateway.policy.selection import Model
from gateway.policy.selection_standing import ScopeStanding
from gateway.policy.selection_watch import Entry, Outcome
from gateway.stores.sqlite_file import Watched, open_durable, writing

_TABLES = (
    """
    CREATE TABLE IF NOT EXISTS scopes (
        scope    TEXT PRIMARY KEY,
        at       INTEGER NOT NULL, -- ns since the epoch
        standing TEXT NOT NULL,    -- JSON
        made     INTEGER NOT NULL, -- ns since the epoch: of the model
        model    BLOB              -- msgpack; NULL: nothing was learned yet
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE IF NOT EXISTS examples (
        id     TEXT PRIMARY KEY,  -- of the call
        scope  TEXT NOT NULL,
        at     INTEGER NOT NULL,  -- ns since the epoch, of its end
        score  REAL NOT NULL,     -- -1: no label yet
        entry  BLOB NOT NULL      -- msgpack
    ) WITHOUT ROWID
    """,
    "CREATE INDEX IF NOT EXISTS examples_by_age ON examples (scope, at)",
    "CREATE TABLE IF NOT EXISTS learned_reach (segment TEXT PRIMARY KEY, offset INTEGER NOT NULL) WITHOUT ROWID",
)
_KEEP = "INSERT INTO examples VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET score = excluded.score, " \
        "entry = excluded.entry"  # fmt: skip
_FORGET = """
DELETE FROM examples WHERE scope = ?1 AND at < (
    SELECT at FROM examples WHERE scope = ?1 ORDER BY at DESC LIMIT 1 OFFSET ?2
)
"""
_PUT = """
INSERT INTO scopes VALUES (?1, ?2, ?3, ?2, ?4) ON CONFLICT DO UPDATE SET
    at = excluded.at, standing = excluded.standing,
    made = CASE WHEN excluded.model IS NULL THEN made ELSE excluded.made END,
    model = coalesce(excluded.model, model)
"""
_AGES = "SELECT scope, made FROM scopes WHERE model IS NOT NULL"
_ONE = "SELECT model FROM scopes WHERE scope = ?"
_STANDINGS = "SELECT standing, at FROM scopes ORDER BY scope"
_EXAMPLES = "SELECT entry FROM examples ORDER BY at"
MOST_EXAMPLES = 30_000  # of a scope

_log = logging.getLogger("tollgate.learned")


class LearnedUnusable(OSError):
    """The file of what was learned cannot be used; the message says which and why."""


class _Row(Struct, array_like=True):
    call: Outcome
    retried: bool
    tools: int
    tool_errors: int
    reported: float | None
    score: float
    weight: float


class SqliteLearned:
    """The writing side. Any thread; each use has a connection of its own. Methods raise LearnedUnusable."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> tuple[list[Entry], dict[str, int]]:
        """Examples in order, and how far the journal was read for them; nothing where there is no file."""
        if not self.path.exists():
            return [], {}
        with self._open() as db:
            entries = [_entry(blob) for (blob,) in db.execute(_EXAMPLES)]
            return entries, dict(db.execute("SELECT segment, offset FROM learned_reach"))

    def save(self, changed: Iterable[Entry], reached: Mapping[str, int] | None) -> None:
        """`reached`: None leaves that as it is."""
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            entries = list(changed)
            db.executemany(_KEEP, [(e.call.id, e.call.scope, e.call.at, e.score, _blob(e)) for e in entries])
            for scope in {entry.call.scope for entry in entries}:
                db.execute(_FORGET, (scope, MOST_EXAMPLES))
            if reached is not None:
                db.execute("DELETE FROM learned_reach")
                db.executemany("INSERT INTO learned_reach VALUES (?, ?)", list(reached.items()))
            db.execute("COMMIT")

    def put(self, standings: Sequence[ScopeStanding], models: Mapping[str, Model], at: int) -> None:
        """How scopes stand; `models`: those that are new."""
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            for one in standings:
                model = models.get(one.scope)
                blob = msgspec.msgpack.encode(model) if model is not None else None
                db.execute(_PUT, (one.scope, at, msgspec.json.encode(one).decode(), blob))
            db.execute("COMMIT")

    def standings(self) -> list[tuple[ScopeStanding, int]]:
        """(how each scope stands, since when); none where there never was one."""
        if not self.path.exists():
            return []
        with self._open() as db:
            return [(msgspec.json.decode(text, type=ScopeStanding), at) for text, at in db.execute(_STANDINGS)]

    def _open(self) -> AbstractContextManager[sqlite3.Connection]:
        return writing(self.path, _connect, LearnedUnusable)


class WatchedLearned(Watched):
    """The worker's side: the model of each scope, from memory."""

    def __init__(self, path: Path) -> None:
        self.models: dict[str, Model] = {}
        self._ages: dict[str, int] = {}
        super().__init__(path, _connect, "choices stay as they were learned", _log)

    def _take(self, db: sqlite3.Connection) -> bool:
        ages: dict[str, int] = dict(db.execute(_AGES))
        new = [scope for scope, at in ages.items() if self._ages.get(scope) != at]
        for scope in new:
            for (blob,) in db.execute(_ONE, (scope,)):
                self.models[scope] = msgspec.msgpack.decode(blob, type=Model)
        gone = self.models.keys() - ages.keys()
        for scope in gone:
            del self.models[scope]
        self._ages = ages
        return bool(new or gone)


def _blob(entry: Entry) -> bytes:
    row = (entry.call, entry.retried, entry.tools, entry.tool_errors, entry.reported, entry.score, entry.weight)
    return msgspec.msgpack.encode(_Row(*row))


def _entry(blob: bytes) -> Entry:
    row = msgspec.msgpack.decode(blob, type=_Row)
    return Entry(row.call, row.retried, row.tools, row.tool_errors, row.reported, row.score, row.weight)


def _connect(path: Path, patience: float) -> sqlite3.Connection:
    return open_durable(path, patience, _TABLES, "learned_reach")
