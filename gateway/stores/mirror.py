"""What this machine knows to be spent, on its own disk: Redis is rebuilt from the mirrors of all machines.

A few tables of SQLite, written in batches by one thread of each worker; all workers of the machine share the file.
Rows are running totals (see spent_parts): the larger stands, so that a batch may be written twice.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from gateway.stores.spent_parts import FIRST, Row

_SCHEMA = """
CREATE TABLE IF NOT EXISTS part (
    account TEXT NOT NULL, part TEXT NOT NULL, slot INTEGER NOT NULL, total INTEGER NOT NULL,
    until INTEGER NOT NULL, period INTEGER NOT NULL, written INTEGER NOT NULL,
    PRIMARY KEY (account, part, slot)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS member (worker TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_PUT = """
INSERT INTO part VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    total = CASE WHEN part = ? THEN min(total, excluded.total) ELSE max(total, excluded.total) END,
    written = excluded.written
"""
_log = logging.getLogger("tollgate.budgets")
_DAY = 86_400 * 10**9
_IDLE = 45 * _DAY  # a run that was not heard of for so long is forgotten, as in Redis


class Mirror:
    """Not for two threads at once. Every method may raise sqlite3.Error; the constructor also OSError."""

    def __init__(self, state: Path, worker: str) -> None:
        state.mkdir(parents=True, exist_ok=True)
        self._lives = state / "budgets_workers"
        self._lives.mkdir(exist_ok=True)
        self._life = os.open(self._lives / worker, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._life, fcntl.LOCK_EX)  # held as long as this process lives
        self._worker = worker
        self._members: list[str] | None = None
        path = state / "budgets_mirror.sqlite"
        try:
            self._db = _open(path)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            _log.error("%s is damaged (%s); it is set aside", path, error)
            path.replace(path.with_suffix(".damaged"))
            self._db = _open(path)

    def write(self, rows: Iterable[Row], now: int) -> None:
        """`now`: ns since the epoch."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany(_PUT, [(*row, now, FIRST) for row in rows])
        except sqlite3.Error:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def rows(self, since: int = 0) -> list[Row]:
        """Those written at this time (ns since the epoch) or later."""
        return self._db.execute(
            "SELECT account, part, slot, total, until, period FROM part WHERE written >= ?", (since,)
        ).fetchall()

    def set_members(self, workers: Sequence[str]) -> None:
        """The workers of all machines that held a lease when Redis was last asked."""
        members = sorted(workers)
        if members == self._members:
            return
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("DELETE FROM member")
        self._db.executemany("INSERT INTO member VALUES (?)", [(worker,) for worker in members])
        self._db.execute("COMMIT")
        self._members = members

    def members(self) -> list[str]:
        return [worker for (worker,) in self._db.execute("SELECT worker FROM member")]

    def dead(self, workers: Iterable[str]) -> list[str]:
        """Those that lived on this machine and do no more: what they knew is in this file."""
        return [worker for worker in workers if worker != self._worker and self._is_dead(worker)]

    def _is_dead(self, worker: str) -> bool:
        try:
            fd = os.open(self._lives / worker, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False  # of another machine
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def prune(self, now: int) -> None:
        """Forget windows that are over, runs that were not heard of, and the lives of the dead that nobody names."""
        self._db.execute(
            "DELETE FROM part WHERE (until > 0 AND until < ?1 - ?2)"
            " OR (period > 0 AND (slot + 60) * (period / 60) < ?1 - ?2)"
            " OR (account GLOB 'run:*' AND written < ?1 - ?3)",
            (now, _DAY, _IDLE),
        )
        named = set(self.members())
        for path in self._lives.iterdir():
            if path.name not in named and path.name != self._worker and self._is_dead(path.name):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Idempotent."""
        life, self._life = self._life, -1
        if life >= 0:
            self._db.close()
            os.close(life)


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.executescript(_SCHEMA)
    except sqlite3.Error:
        db.close()
        raise
    return db
