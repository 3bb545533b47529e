"""Virtual keys in one SQLite file of the machine: written by the command line and the recorder, read by workers.

Rules
1. A change is durable when its method returns, and stands in the audit beside it. There is no way to delete a key: what
   was once configured stays closed, and the audit stays whole.
2. Only keyed digests of secrets are stored; the pepper that keys them lies beside the file. The two belong together: a
   file whose pepper is gone is refused, for none of its keys could ever be recognised.
3. Workers answer from memory (WatchedFile); where something was changed, they read all keys.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from gateway.key import Key
from gateway.policy.key_rules import KeyRefused, faults
from gateway.policy.keys import ID_BYTES, SECRET_BYTES, Ring, digest_of, exceeds, new_id, new_secret
from gateway.stores.secret_file import shared_secret
from gateway.stores.sqlite_file import READ_SECONDS, WRITE_SECONDS, WatchedFile, open_durable

_TRIES = 8  # for an id that is new: 2**40 of them

_TABLES = (
    """
    CREATE TABLE IF NOT EXISTS keys (
        id       TEXT PRIMARY KEY,
        name     TEXT NOT NULL UNIQUE,
        team     TEXT NOT NULL,
        revision INTEGER NOT NULL,
        key      TEXT NOT NULL      -- JSON
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE IF NOT EXISTS changes (
        revision INTEGER PRIMARY KEY AUTOINCREMENT,
        at       INTEGER NOT NULL, -- ns since the epoch
        kind     TEXT NOT NULL,    -- create, rotate, disable
        id       TEXT NOT NULL,
        who      TEXT NOT NULL,
        reason   TEXT NOT NULL
    )
    """,
    "CREATE TABLE IF NOT EXISTS pepper (digest BLOB NOT NULL)",
)
_ALL = "SELECT key FROM keys ORDER BY revision"
_ONE = "SELECT key FROM keys WHERE id = ?1 OR name = ?1 ORDER BY id <> ?1 LIMIT 1"
_PUT = "INSERT OR REPLACE INTO keys (id, name, team, revision, key) VALUES (?, ?, ?, ?, ?)"
_TAKEN = "SELECT count(*) FROM keys WHERE id IN (?1, ?2) OR name IN (?1, ?2)"
_NOTE = "INSERT INTO changes (at, kind, id, who, reason) VALUES (?, ?, ?, ?, ?)"
_AUDIT = "SELECT revision, at, kind, id, who, reason FROM changes ORDER BY revision DESC LIMIT ?"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Key).decode
_log = logging.getLogger("tollgate.keys")


class KeysUnusable(OSError):
    """The file of keys cannot be used; the message says which and why."""


class Change(Struct, frozen=True):
    """One line of the audit."""

    revision: int
    at: int
    kind: str
    id: str
    who: str
    reason: str


class SqliteKeyStore:
    """The writing side, and what is asked by people. Any thread; each use has a connection of its own.

    `directory` is the state directory, `now` gives ns since the epoch, `random` bytes of the system's generator.
    Methods raise KeysUnusable; those that change a key also KeyRefused, or KeyError for a key that is not there.
    A secret is returned once and kept nowhere.
    """

    def __init__(
        self, path: Path, pepper: Path, now: Callable[[], int], random: Callable[[int], bytes] = os.urandom
    ) -> None:
        self.path = path
        self._pepper = pepper
        self._now = now
        self._random = random

    def create(self, wanted: Key, who: str = "") -> tuple[Key, str]:
        """A new key as `wanted`, but for id, digest and dates of its own; and its secret."""
        for field, reason in faults(wanted, self._now()):
            raise KeyRefused(f"{field}: {reason}", field)
        with self._open() as db:
            pepper = _checked_pepper(db, self._pepper)
            key, secret = self._fresh(db, wanted, pepper)
            if key.parent:
                key = _under_parent(db, key)
            return self._put(db, key, "create", who, ""), secret

    def rotate(self, name: str, overlap: int = 0, who: str = "") -> tuple[Key, str]:
        """Another secret for the same key; the one before stays good for `overlap` nanoseconds."""
        with self._open() as db:
            pepper = _checked_pepper(db, self._pepper)
            key = _found(db, name)
            if key.disabled_at:
                raise KeyRefused(f"the key {key.name} is disabled; make another")
            secret = new_secret(key.id, self._random(SECRET_BYTES))
            kept = (key.digest, self._now() + overlap) if overlap > 0 else (b"", 0)
            key = structs.replace(key, digest=digest_of(secret.encode(), pepper), old_digest=kept[0], old_until=kept[1])
            return self._put(db, key, "rotate", who, ""), secret

    def disable(self, name: str, who: str = "", reason: str = "") -> Key:
        """Refuse the key, and those made under it, from now on. Idempotent."""
        with self._open() as db:
            key = _found(db, name)
            if key.disabled_at:
                return key
            return self._put(db, structs.replace(key, disabled_at=self._now()), "disable", who, reason)

    def get(self, name: str) -> Key:
        """By id or name."""
        with self._open() as db:
            return _found(db, name)

    def listed(self) -> list[Key]:
        """The one changed last comes last."""
        with self._open() as db:
            return [_decode(row[0]) for row in db.execute(_ALL)]

    def changes(self, limit: int = 100) -> list[Change]:
        """The audit, the latest first."""
        with self._open() as db:
            return [Change(*row) for row in db.execute(_AUDIT, (limit,))]

    def _fresh(self, db: sqlite3.Connection, wanted: Key, pepper: bytes) -> tuple[Key, str]:
        for _ in range(_TRIES):
            id = new_id(self._random(ID_BYTES))
            if not db.execute(_TAKEN, (id, id)).fetchone()[0]:
                break
        else:
            raise KeyRefused("no new id was found")
        name = wanted.name or id
        if db.execute(_TAKEN, (name, name)).fetchone()[0]:
            raise KeyRefused(f"there is a key {name} already", "name")
        secret = new_secret(id, self._random(SECRET_BYTES))
        key = structs.replace(
            wanted,
            id=id,
            name=name,
            digest=digest_of(secret.encode(), pepper),
            created_at=self._now(),
            disabled_at=0,
            old_digest=b"",
            old_until=0,
        )
        return key, secret

    def _put(self, db: sqlite3.Connection, key: Key, kind: str, who: str, reason: str) -> Key:
        revision = db.execute(_NOTE, (self._now(), kind, key.id, who, reason)).lastrowid or 0
        key = structs.replace(key, revision=revision)
        db.execute(_PUT, (key.id, key.name, key.team, revision, _encode(key).decode()))
        return key

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection in one transaction, which is undone by an exception."""
        with _faults(self.path), contextlib.closing(_connect(self.path, WRITE_SECONDS)) as db:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")


class SqliteKeys(Ring):
    """The worker's side: implements ports.Keys. `required`: refuse calls without a key even while there is none.

    Raises KeysUnusable from the constructor alone.
    """

    def __init__(self, path: Path, pepper: Path, *, required: bool = False) -> None:
        self.path = path
        self._watched = WatchedFile(
            path, lambda: _connect(path, READ_SECONDS), self._read, "the keys known before stay in force", _log
        )
        with _faults(path):
            super().__init__(_checked_pepper(self._watched.connect(), pepper), required=required)
            self._watched.begin()

    def refresh(self) -> bool:
        """See what was changed since; true where something was. To be called a few times per second."""
        return self._watched.refresh()

    def close(self) -> None:
        """Idempotent; what is known stays in force."""
        self._watched.close()

    def _read(self, db: sqlite3.Connection, news: bool) -> bool:
        if news:
            self.take([_decode(row[0]) for row in db.execute(_ALL)])
        return news


def _connect(path: Path, patience: float) -> sqlite3.Connection:
    return open_durable(path, patience, _TABLES, "pepper")


def _checked_pepper(db: sqlite3.Connection, path: Path) -> bytes:
    """The pepper beside the file, made with it. Raises KeysUnusable where it is another one than the keys are of."""
    pepper = shared_secret(path)
    mark = digest_of(b"pepper", pepper)
    found = db.execute("SELECT digest FROM pepper").fetchone()
    if found is None:
        db.execute("INSERT INTO pepper (digest) SELECT ? WHERE NOT EXISTS (SELECT 1 FROM pepper)", (mark,))
        found = db.execute("SELECT digest FROM pepper").fetchone()
    if found[0] != mark:
        raise KeysUnusable(f"{path} is not the file that the keys were made with; bring it back")
    return pepper


def _found(db: sqlite3.Connection, name: str) -> Key:
    """By id or name. Raises KeyError."""
    row = db.execute(_ONE, (name,)).fetchone()
    if row is None:
        raise KeyError(name)
    return _decode(row[0])


def _under_parent(db: sqlite3.Connection, key: Key) -> Key:
    """`key` with the id of its parent and, where it states none, the team. Raises KeyRefused where it exceeds it."""
    try:
        parent = _found(db, key.parent)
    except KeyError:
        raise KeyRefused(f"there is no key {key.parent}", "parent") from None
    if parent.disabled_at:
        raise KeyRefused(f"the key {parent.name} is disabled", "parent")
    key = structs.replace(key, parent=parent.id, team=key.team or parent.team)
    if more := exceeds(parent, key):
        raise KeyRefused(f"more than {parent.name} may: {', '.join(more)}", more[0])
    return key


@contextlib.contextmanager
def _faults(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, msgspec.MsgspecError) as error:
        raise KeysUnusable(f"{path}: {error}") from error
