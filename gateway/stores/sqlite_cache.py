"""Stored answers: a memory of each worker over one SQLite file that the workers of a machine share.

Rules
1. A cache is never the reason that a call fails: what cannot be read is not there, what cannot be written is dropped
   and counted. A file that is damaged is made anew.
2. The loop reads, a thread writes. Reads are single statements that wait for nobody (WAL); writes are whole entries in
   one transaction, so that a process killed anywhere leaves an entry complete or not at all.
3. Each tenant has its own bound in bytes; what was not used for longest goes first. One tenant never displaces another.
4. Clearing counts `generation` up in the same transaction. What a worker holds in memory counts only while the
   generation stands, and an answer asked for before a clearing is not kept behind it.
5. Answers stand in the file as they came, readable for the user of the gateway alone (mode 600).
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import msgspec
import zstandard

from gateway.ports import Entry

LARGE = 2048  # bytes of a body from which on it is compressed
BATCH = 64  # writes of one transaction
QUEUE = 2048  # writes that wait; more are dropped
WRITE_SECONDS = 5.0  # to wait for another writer
TOUCH_NS = 10_000_000_000  # a use is written down once in so long
PURGE = 256  # expired entries that are removed at a time
OVERHEAD = 512  # bytes that an entry takes beside its body
MOST_BODY = 256 * 1024 * 1024

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
_GENERATION = "SELECT value FROM meta WHERE name = 'generation'"
_GET = """
SELECT m.value, e.coded, e.facts, e.body, e.used FROM meta m
LEFT JOIN entries e ON e.key = ? AND e.expires > ? WHERE m.name = 'generation'
"""
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
_TOUCH = "UPDATE entries SET used = max(used, ?), hits = hits + ? WHERE key = ?"
_EXPIRED = "SELECT id, size, tenant FROM entries WHERE expires <= ? LIMIT ?"

_facts = msgspec.msgpack.Encoder().encode
_entry = msgspec.msgpack.Decoder(Entry).decode
_BAD = (sqlite3.Error, OSError, TypeError, msgspec.MsgspecError, zstandard.ZstdError)
_DAMAGED = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))
_log = logging.getLogger("tollgate.cache")


class SqliteCache:
    """Implements ports.CacheStore. Raises OSError from the constructor alone."""

    def __init__(self, path: Path, *, memory_bytes: int, tenant_bytes: int) -> None:
        self.path = path
        self.memory_bytes = memory_bytes
        self.tenant_bytes = tenant_bytes
        self.dropped = 0  # writes that came to nothing
        self.generation = -1  # unknown
        self._memory: OrderedDict[bytes, Entry] = OrderedDict()
        self._held = 0  # bytes in memory
        self._uses: dict[bytes, tuple[int, int]] = {}  # key -> (last use, how many), not written yet
        self._touched = 0
        self._failing = False
        self._inode = (0, 0)
        try:
            self._db: sqlite3.Connection | None = self._connected()
        except sqlite3.Error as error:
            raise OSError(f"{path}: {error}") from error
        self._queue: queue.Queue[tuple[Entry, int] | dict[bytes, tuple[int, int]] | int | None] = queue.Queue(QUEUE)
        self._thread = threading.Thread(target=self._write, name="cache", daemon=True)
        self._thread.start()

    # -- the loop -------------------------------------------------------------------------------------------------

    def get(self, key: bytes, now: int) -> Entry | None:
        try:
            entry = self._read(key, now)
        except _BAD as error:
            self._failed(error)
            return None
        self._failing = False
        if entry is not None:
            used = self._uses.get(key)
            self._uses[key] = (now, 1 if used is None else used[1] + 1)
        return entry

    def _read(self, key: bytes, now: int) -> Entry | None:
        if self._db is None:
            self._db = self._connected()
        known = self._memory.get(key)
        if known is not None and self._stands():
            if known.expires > now:
                self._memory.move_to_end(key)
                return known
            self._forget(key)
            return None
        generation, coded, facts, body, _ = self._db.execute(_GET, (key, now)).fetchone()
        self._see(generation)
        if facts is None:
            return None
        if coded:
            body = zstandard.ZstdDecompressor().decompress(body, max_output_size=MOST_BODY)
        entry = msgspec.structs.replace(_entry(facts), body=body)
        if entry.key != key:  # never by the word of an index alone
            return None
        self._remember(entry)
        return entry

    def _stands(self) -> bool:
        assert self._db is not None
        self._see(self._db.execute(_GENERATION).fetchone()[0])
        return bool(self._memory)

    def _see(self, generation: int) -> None:
        if generation != self.generation:
            self.generation = generation
            self._memory.clear()
            self._held = 0

    def put(self, entry: Entry, generation: int) -> None:
        if generation != self.generation or generation < 0:
            return
        self._remember(entry)
        self._send((entry, generation))

    def tick(self, now: int) -> None:
        """To be called now and then: write uses down, remove what is over, see whether the file is another one."""
        if self._db is not None and self._is_replaced():
            self._see(-1)
            self._disconnect()
        if self._uses and now - self._touched > TOUCH_NS:
            self._touched = now
            uses, self._uses = self._uses, {}
            self._send(uses)
            self._send(now)

    def close(self) -> None:
        """What was put is written. Idempotent."""
        if self._thread.is_alive():
            if self._uses:
                self._send(self._uses)
            with contextlib.suppress(queue.Full):
                self._queue.put(None, timeout=1.0)
            self._thread.join(WRITE_SECONDS)
        self._disconnect()

    def flush(self, seconds: float = WRITE_SECONDS) -> bool:
        """Wait until all that was put is written; for tests and measurements."""
        done = threading.Event()

        def wait() -> None:
            self._queue.join()
            done.set()

        threading.Thread(target=wait, daemon=True).start()
        return done.wait(seconds)

    def _send(self, what: tuple[Entry, int] | dict[bytes, tuple[int, int]] | int) -> None:
        try:
            self._queue.put_nowait(what)
        except queue.Full:
            self.dropped += 1

    def _remember(self, entry: Entry) -> None:
        size = len(entry.body) + OVERHEAD
        if size > self.memory_bytes:
            return
        self._forget(entry.key)
        self._memory[entry.key] = entry
        self._held += size
        while self._held > self.memory_bytes:
            self._forget(next(iter(self._memory)))

    def _forget(self, key: bytes) -> None:
        old = self._memory.pop(key, None)
        if old is not None:
            self._held -= len(old.body) + OVERHEAD

    def _failed(self, error: Exception) -> None:
        if not self._failing:
            _log.error("%s cannot be read, calls go upstream: %s", self.path, error)
        self._failing = True
        self._see(-1)
        if is_damage(error):
            discard(self.path)
        if not is_busy(error):
            self._disconnect()

    def _connected(self) -> sqlite3.Connection:
        db = opened(self.path, 0.0)
        status = os.stat(self.path)
        self._inode = (status.st_dev, status.st_ino)
        return db

    def _is_replaced(self) -> bool:
        try:
            status = os.stat(self.path)
        except OSError:
            return True
        return (status.st_dev, status.st_ino) != self._inode

    def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()

    # -- the thread -----------------------------------------------------------------------------------------------

    def _write(self) -> None:
        db: sqlite3.Connection | None = None
        while True:
            batch = [self._queue.get()]
            with contextlib.suppress(queue.Empty):
                while len(batch) < BATCH and batch[-1] is not None:
                    batch.append(self._queue.get_nowait())
            try:
                if db is None:
                    db = opened(self.path, WRITE_SECONDS)
                with transaction(db):
                    for what in batch:
                        self._apply(db, what)
            except _BAD as error:
                self.dropped += len(batch)
                _log.error("%s cannot be written: %s", self.path, error)
                if db is not None:
                    db.close()
                db = None
            for _ in batch:
                self._queue.task_done()
            if batch[-1] is None:
                break
        if db is not None:
            db.close()

    def _apply(
        self, db: sqlite3.Connection, what: tuple[Entry, int] | dict[bytes, tuple[int, int]] | int | None
    ) -> None:
        if isinstance(what, tuple):
            if db.execute(_GENERATION).fetchone()[0] == what[1]:
                insert(db, what[0], self.tenant_bytes)
        elif isinstance(what, dict):
            db.executemany(_TOUCH, [(at, times, key) for key, (at, times) in what.items()])
        elif what is not None:
            purge(db, what)


def insert(db: sqlite3.Connection, entry: Entry, most: int) -> None:
    """Within a transaction; displaces what the same tenant used least lately."""
    body, coded = entry.body, len(entry.body) >= LARGE
    if coded:
        body = zstandard.ZstdCompressor(level=3).compress(body)
    facts = _facts(msgspec.structs.replace(entry, body=b""))
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
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):  # private, whatever the umask
        # Only a new file: closing one that this process has open would drop the locks of its other connections.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    db = sqlite3.connect(path, timeout=patience or 0.5, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        if not db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'entries_expires'").fetchone()[0]:
            with transaction(db):
                for statement in TABLES:
                    db.execute(statement)
        db.execute("SELECT value FROM meta").fetchone()
        if not patience:
            db.execute("PRAGMA busy_timeout = 0")
    except sqlite3.Error:
        db.close()
        raise
    return db
