"""How canaries stand, in one SQLite file of the machine: written by the recorder, watched by workers.

What a canary has shown is written with how far the journal was read, so that a restart neither loses nor repeats a
call. A decision is written at once, and stands whatever is read again.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from gateway.policy.canary import Canary, Decision, Memory, State
from gateway.stores.sqlite_file import Watched, open_durable, writing

_TABLES = (
    """
    CREATE TABLE IF NOT EXISTS canaries (
        id       TEXT PRIMARY KEY,
        state    TEXT NOT NULL,
        at       INTEGER NOT NULL, -- ns since the epoch
        standing TEXT NOT NULL,    -- JSON
        memory   BLOB              -- msgpack
    ) WITHOUT ROWID
    """,
    "CREATE TABLE IF NOT EXISTS canary_reach (segment TEXT PRIMARY KEY, offset INTEGER NOT NULL) WITHOUT ROWID",
)
_PUT = """
INSERT INTO canaries VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    state = CASE WHEN state = 'running' THEN excluded.state ELSE state END,
    at = CASE WHEN state = 'running' THEN excluded.at ELSE at END,
    standing = CASE WHEN state = 'running' THEN excluded.standing ELSE standing END,
    memory = excluded.memory
"""
_DECIDE = """
INSERT INTO canaries VALUES (?, ?, ?, ?, NULL) ON CONFLICT DO UPDATE SET
    state = excluded.state, at = excluded.at, standing = excluded.standing WHERE state = 'running'
"""
_ENDED = "SELECT id, state FROM canaries WHERE state <> 'running'"
_ALL = "SELECT standing, at FROM canaries ORDER BY at DESC"
_MEMORIES = "SELECT id, memory FROM canaries WHERE memory IS NOT NULL"

_log = logging.getLogger("tollgate.canaries")


class CanariesUnusable(OSError):
    """The file of canaries cannot be used; the message says which and why."""


class SqliteCanaries:
    """The writing side. Any thread; each use has a connection of its own. Methods raise CanariesUnusable."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reached: dict[str, int] = {}  # how far the journal was read for what `load` found

    def load(self) -> dict[str, Memory]:
        """What each canary has shown; none where there never was one."""
        if not self.path.exists():
            return {}
        with self._open() as db:
            found = {id: msgspec.msgpack.decode(blob, type=Memory) for id, blob in db.execute(_MEMORIES)}
            ended: dict[str, str] = dict(db.execute(_ENDED))
            self.reached = dict(db.execute("SELECT segment, offset FROM canary_reach"))
        for id, state in ended.items():
            if id in found:
                found[id].state = State(state)
        return found

    def save(self, canaries: Mapping[str, Canary], reached: Mapping[str, int], at: int) -> None:
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            for id, canary in canaries.items():
                standing = canary.decision or canary.standing()
                row = (id, canary.state.value, at, msgspec.json.encode(standing).decode())
                db.execute(_PUT, (*row, msgspec.msgpack.encode(canary.memory)))
            db.execute("DELETE FROM canary_reach")
            db.executemany("INSERT INTO canary_reach VALUES (?, ?)", list(reached.items()))
            db.execute("COMMIT")

    def decide(self, decision: Decision, at: int) -> None:
        """For good, from now on."""
        with self._open() as db:
            row = (decision.canary, decision.state.value, at, msgspec.json.encode(decision).decode())
            db.execute(_DECIDE, row)

    def standings(self) -> list[tuple[Decision, int]]:
        """(how each canary stands, since when), the latest first; none where there never was one."""
        if not self.path.exists():
            return []
        with self._open() as db:
            return [(msgspec.json.decode(text, type=Decision), at) for text, at in db.execute(_ALL)]

    def _open(self) -> AbstractContextManager[sqlite3.Connection]:
        return writing(self.path, _connect, CanariesUnusable)


class WatchedCanaries(Watched):
    """The worker's side: how the canaries that have ended did, from memory."""

    def __init__(self, path: Path) -> None:
        self.ended: Mapping[str, State] = {}
        super().__init__(path, _connect, "canaries stay as they were", _log)

    def _take(self, db: sqlite3.Connection) -> bool:
        before = self.ended
        self.ended = {id: State(state) for id, state in db.execute(_ENDED)}
        return self.ended != before


def _connect(path: Path, patience: float) -> sqlite3.Connection:
    return open_durable(path, patience, _TABLES, "canary_reach")
