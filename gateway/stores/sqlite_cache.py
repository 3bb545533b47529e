"""Stored answers: a memory of each worker over one SQLite file that the workers of a machine share.

Rules
1. A cache is never the reason that a call fails: what cannot be read is not there, what cannot be written is dropped
   and counted. A file that is damaged is made anew.
2. The loop reads, a thread writes. Reads are single statements that wait for nobody (WAL); writes are whole entries in
   one transaction, so that a process killed anywhere leaves an entry complete or not at all.
3. Each tenant has its own bound in bytes; what was not used for longest goes first. One tenant never displaces another.
4. Clearing counts `generation` up in the same transaction. What a worker holds in memory counts only while the
   generation stands and no other worker has stored that answer anew; an answer asked for before a clearing is not kept
   behind it.
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
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from gateway.config.schema import Cache
from gateway.ports import Entry
from gateway.stores.cache_codec import FAULTS, read
from gateway.stores.cache_file import OVERHEAD, discard, insert, is_busy, is_damage, opened, purge, transaction
from gateway.stores.sqlite_file import NEVER_WAIT, READ_SECONDS

BATCH = 512  # writes of one transaction
LINGER = 0.05  # seconds that a write waits for others to go with
QUEUE = 2048  # writes that wait; more are dropped,
QUEUE_BYTES = 67_108_864  # as is what would make them larger than this
WRITE_SECONDS = 5.0  # to wait for another writer
TOUCH_NS = 10_000_000_000  # a use is written down once in so long

_GENERATION = "SELECT value FROM meta WHERE name = 'generation'"
_GET = """
SELECT m.value, e.coded, e.facts, e.body, e.used FROM meta m
LEFT JOIN entries e ON e.key = ? AND e.expires > ? WHERE m.name = 'generation'
"""
_STANDS = """
SELECT m.value, e.expires FROM meta m LEFT JOIN entries e ON e.key = ? WHERE m.name = 'generation'
"""
_TOUCH = "UPDATE entries SET used = max(used, ?), hits = hits + ? WHERE key = ?"

_BAD = (sqlite3.Error, OSError, *FAULTS)
_log = logging.getLogger("tollgate.cache")


Write: TypeAlias = "tuple[Entry, int] | dict[bytes, tuple[int, int]] | int"
"""An entry with the generation it was asked for in; uses by key: the last, and how many; the time, to purge."""


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
        self._room: int | None = None  # that those may be while memory is short
        self._uses: dict[bytes, tuple[int, int]] = {}  # key -> (last use, how many), not written yet
        self._touched = 0
        self._failing = False
        self._inode = (0, 0)
        try:
            self._db: sqlite3.Connection | None = self._connected(READ_SECONDS)  # others may be making it, too
        except sqlite3.Error as error:
            raise OSError(f"{path}: {error}") from error
        self._sent = self._written = 0  # bytes of bodies that went into the queue, and that came out
        self._queue: queue.Queue[Write | None] = queue.Queue(QUEUE)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._write, name="cache", daemon=True)
        self._thread.start()

    @property
    def available(self) -> bool:
        return not self._failing

    # -- memory ---------------------------------------------------------------------------------------------------

    @property
    def held(self) -> int:
        """Bytes in memory."""
        return self._held

    @property
    def full(self) -> int:
        """Bytes that may be in memory."""
        return self.memory_bytes

    def give_way(self, room: int | None) -> int:
        """Hold no more than so many bytes in memory from now on; None: as many as are configured. What is forgotten is
        still in the file. Returns how many bytes that were."""
        before, self._room = self._held, room
        self._fit()
        return before - self._held

    # -- the loop -------------------------------------------------------------------------------------------------

    async def get(self, key: bytes, tenant: str, now: int) -> tuple[Entry | None, int]:
        """Never suspends. The key tells tenants apart, so that the file needs no other word for it."""
        try:
            entry = self._read(key, now)
        except _BAD as error:
            self._failed(error)
            return None, -1
        self._failing = False
        if entry is not None:
            used = self._uses.get(key)
            self._uses[key] = (now, 1 if used is None else used[1] + 1)
        return entry, self.generation

    def _read(self, key: bytes, now: int) -> Entry | None:
        if self._db is None:
            self._db = self._connected()
        known = self._memory.get(key)
        if known is not None:
            generation, expires = self._db.execute(_STANDS, (key,)).fetchone()
            self._see(generation)
            if key in self._memory and known.expires > now and expires in (None, known.expires):
                self._memory.move_to_end(key)
                return known
        generation, coded, facts, body, _ = self._db.execute(_GET, (key, now)).fetchone()
        self._see(generation)
        entry = None if facts is None else read(coded, facts, body)
        if entry is not None and entry.key != key:  # never by the word of an index alone
            return None
        return self._later(key, entry, now)

    def _later(self, key: bytes, stored: Entry | None, now: int) -> Entry | None:
        """Of what the file has and what is in memory: another worker may have stored the answer anew, or this one may,
        and not have written it down yet."""
        known = self._memory.get(key)
        if known is None or (stored is not None and stored.created > known.created):
            if stored is not None:
                self._remember(stored)
            return stored
        if known.expires > now:
            self._memory.move_to_end(key)
            return known
        self._forget(key)
        return None

    def _see(self, generation: int) -> None:
        if generation != self.generation:
            self.generation = generation
            self._memory.clear()
            self._held = 0

    def put(self, entry: Entry, generation: int) -> None:
        if generation != self.generation or generation < 0:
            return
        self._remember(entry)
        size = len(entry.body)
        if self._sent - self._written + size > QUEUE_BYTES:
            self.dropped += 1
        else:
            self._sent += size
            self._send((entry, generation))

    def configure(self, cache: Cache) -> None:
        self.memory_bytes, self.tenant_bytes = cache.memory_bytes, cache.tenant_bytes

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
        self._closing.set()
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

    def _send(self, what: Write) -> None:
        try:
            self._queue.put_nowait(what)
        except queue.Full:
            self.dropped += 1
            self._sent -= len(what[0].body) if isinstance(what, tuple) else 0

    def _remember(self, entry: Entry) -> None:
        size = len(entry.body) + OVERHEAD
        if size > self._bound():
            return
        self._forget(entry.key)
        self._memory[entry.key] = entry
        self._held += size
        self._fit()

    def _bound(self) -> int:
        return self.memory_bytes if self._room is None else min(self.memory_bytes, self._room)

    def _fit(self) -> None:
        bound = self._bound()
        while self._held > bound:
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

    def _connected(self, patience: float = 0.0) -> sqlite3.Connection:
        db = opened(self.path, patience)
        db.execute(NEVER_WAIT)
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
        batch: list[Write | None] = []
        while not batch or batch[-1] is not None:
            batch = self._batch()
            try:
                if db is None:
                    db = opened(self.path, WRITE_SECONDS)
                with transaction(db):
                    for what in latest(batch):
                        self._apply(db, what)
            except _BAD as error:
                self.dropped += len(batch)
                _log.error("%s cannot be written: %s", self.path, error)
                if db is not None:
                    db.close()
                db = None
            for what in batch:
                self._written += len(what[0].body) if isinstance(what, tuple) else 0
                self._queue.task_done()
        if db is not None:
            db.close()

    def _batch(self) -> list[Write | None]:
        """What is to be written together: all that came within a moment of the first; None is the end."""
        batch = [self._queue.get()]
        if batch[0] is not None:
            self._closing.wait(LINGER)
        with contextlib.suppress(queue.Empty):
            while len(batch) < BATCH and batch[-1] is not None:
                batch.append(self._queue.get_nowait())
        return batch

    def _apply(self, db: sqlite3.Connection, what: Write | None) -> None:
        if isinstance(what, tuple):
            if db.execute(_GENERATION).fetchone()[0] == what[1]:
                insert(db, what[0], self.tenant_bytes, lambda: self._note_uses(db))
        elif isinstance(what, dict):
            touch(db, what)
        elif what is not None:
            purge(db, what)

    def _note_uses(self, db: sqlite3.Connection) -> None:
        """What was used since the last look goes by that, and not first, when room is made."""
        uses, self._uses = self._uses, {}
        touch(db, uses.copy())  # the loop may still be adding one to it


def touch(db: sqlite3.Connection, uses: dict[bytes, tuple[int, int]]) -> None:
    db.executemany(_TOUCH, [(at, times, key) for key, (at, times) in uses.items()])


def latest(batch: Sequence[Write | None]) -> list[Write | None]:
    """The same without entries that a later one of the batch replaces."""
    last = {what[0].key: what for what in batch if isinstance(what, tuple)}
    return [what for what in batch if not isinstance(what, tuple) or last[what[0].key] is what]
