"""The file of stored answers: its tables, and how entries come and go within a transaction."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from gateway.ports import Entry
from gateway.stores.cache_codec import written
from gateway.stores.sqlite_file import create_private

PURGE = 256  # expired entries that are removed at a time
OVERHEAD = 512  # bytes that an entry takes beside its body

TABLES = (
    "CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS tenants (tenant TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID",
    """
    CREATE TABLE IF NOT EXISTS entries (
        id       INTEGER PRIMARY KEY,
        key      BLOB NOT NULL UNIQUE,
        tenant   TEXT NOT NULL,
        expires  INTEGER NOT NULL, -- ns since the epoch
        used     INTEGER NOT NULL,
        size     INTEGER NOT NULL,
        route    TEXT NOT NULL,
        upstream TEXT NOT NULL,
        model    TEXT NOT NULL,
        agent    TEXT NOT NULL,
        tags     TEXT NOT NULL,    -- one per line, a line end before the first
        hits     INTEGER NOT NULL DEFAULT 0,
        coded    INTEGER NOT NULL, -- is the body compressed?
        facts    BLOB NOT NULL,    -- the entry without its body, msgpack
        body     BLOB NOT NULL
    )
    """,
    "CREATE INDEX IF NOT EXISTS entries_used ON entries (tenant, used)",
    "CREATE INDEX IF NOT EXISTS entries_expires ON entries (expires)",
    "INSERT OR IGNORE INTO meta (name, value) VALUES ('generation', 0)",
)
_OLD = "SELECT size FROM entries WHERE key = ?"
_PUT = """
INSERT OR REPLACE INTO entries
    (key, tenant, expires, used, size, route, upstream, model, agent, tags, coded, facts, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_ADD = """
INSERT INTO tenants (tenant, bytes) VALUES (?, ?)
ON CONFLICT (tenant) DO UPDATE SET bytes = max(0, bytes + excluded.bytes)
"""
_BYTES = "SELECT bytes FROM tenants WHERE tenant = ?"
_OLDEST = "SELECT id, size FROM entries WHERE tenant = ? ORDER BY used LIMIT 32"
_DROP = "DELETE FROM entries WHERE id = ?"
_EXPIRED = "SELECT id, size, tenant FROM entries WHERE expires <= ? LIMIT ?"

_DAMAGED = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))
_log = logging.getLogger("tollgate.cache")


def insert(db: sqlite3.Connection, entry: Entry, most: int, note_uses: Callable[[], None]) -> None:
    """Within a transaction; displaces what the same tenant used least lately, as far as `note_uses` knows."""
    coded, facts, body = written(entry)
    size = len(body) + len(facts) + OVERHEAD
    if size > most:
        return
    old = db.execute(_OLD, (entry.key,)).fetchone()
    tags = "".join([f"\n{tag}" for tag in entry.tags]) + "\n"
    scopes = (entry.route, entry.upstream, entry.model, entry.agent, tags)
    row = (entry.key, entry.tenant, entry.expires, entry.created, size, *scopes, coded, facts, body)
    db.execute(_PUT, row)
    db.execute(_ADD, (entry.tenant, size - (old[0] if old is not None else 0)))
    over = db.execute(_BYTES, (entry.tenant,)).fetchone()[0] - most
    if over > 0:
        note_uses()
    while over > 0:
        rows = db.execute(_OLDEST, (entry.tenant,)).fetchall()
        if not rows:
            break
        for id, freed in rows:
            if over <= 0:
                break
            db.execute(_DROP, (id,))
            db.execute(_ADD, (entry.tenant, -freed))
            over -= freed


def purge(db: sqlite3.Connection, now: int) -> None:
    """Remove some of what is over."""
    for id, size, tenant in db.execute(_EXPIRED, (now, PURGE)).fetchall():
        db.execute(_DROP, (id,))
        db.execute(_ADD, (tenant, -size))


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def is_busy(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def is_damage(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def discard(path: Path) -> None:
    _log.error("%s is damaged and is made anew", path)
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def opened(path: Path, patience: float) -> sqlite3.Connection:
    """A connection; the file is made where there is none, and anew where it is damaged. Raises OSError and
    sqlite3.Error."""
    try:
        return connect(path, patience)
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        discard(path)
        return connect(path, patience)


def connect(path: Path, patience: float) -> sqlite3.Connection:
    create_private(path)
    db = sqlite3.connect(path, timeout=patience or 0.5, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        if not db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'entries_expires'").fetchone()[0]:
            with transaction(db):
                for statement in TABLES:
                    db.execute(statement)
        db.execute("SELECT value FROM meta").fetchone()
    except sqlite3.Error:
        db.close()
        raise
    return db
