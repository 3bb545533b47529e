"""What the matcher knows, on disk: questions with their answers, scopes with their evidence, hits to be judged.

Rules
1. A kill anywhere leaves a whole, older state: writes gather in a transaction that `commit` ends, several times a
   second; what people said is committed before they are answered.
2. Vectors are of one embedder. Where it is another one, the questions are forgotten and the evidence stays.
3. A file that is damaged, or of another version, is made anew: a scope without evidence serves nothing.
4. It holds texts of questions and answers, so only the user of the gateway may read it (mode 600).
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import zstandard
from msgspec import Struct

from gateway.matcher.shelf import Question
from gateway.ports_semantic import Vectors
from gateway.stores.cache_file import discard, is_damage
from gateway.stores.sqlite_file import create_private

VERSION = "1"
MOST_SCOPES = 1024
MOST_HITS = 20_000  # that can still be judged
MOST_ANSWER = 65_536  # characters

_TABLES = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """
    CREATE TABLE questions (
        id      INTEGER PRIMARY KEY AUTOINCREMENT,
        part    BLOB NOT NULL,
        scope   TEXT NOT NULL,
        tenant  TEXT NOT NULL,
        text    TEXT NOT NULL,
        key     BLOB NOT NULL UNIQUE,
        grp     INTEGER NOT NULL,
        created INTEGER NOT NULL, -- ns since the epoch
        cost    INTEGER NOT NULL,
        vector  BLOB NOT NULL,
        answer  BLOB NOT NULL     -- compressed
    )
    """,
    """
    CREATE TABLE scopes (
        name   TEXT PRIMARY KEY,
        tenant TEXT NOT NULL,
        used   INTEGER NOT NULL,
        state  BLOB NOT NULL,
        counts BLOB NOT NULL
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE hits (
        call   TEXT PRIMARY KEY,
        at     INTEGER NOT NULL,
        scope  TEXT NOT NULL,
        part   BLOB NOT NULL,
        id     INTEGER NOT NULL,  -- of the question whose answer was given
        entry  TEXT NOT NULL,     -- name of the answer
        grp    INTEGER NOT NULL,
        asked  TEXT NOT NULL,
        cached TEXT NOT NULL,
        cosine REAL NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX hits_entry ON hits (entry)",
    "CREATE INDEX hits_at ON hits (at)",
    "CREATE TABLE blocked (part BLOB, text BLOB, grp INTEGER, PRIMARY KEY (part, text, grp)) WITHOUT ROWID",
)
_ADD = """
INSERT OR REPLACE INTO questions (part, scope, tenant, text, key, grp, created, cost, vector, answer)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_QUESTIONS = """
SELECT id, part, scope, tenant, text, key, grp, created, cost, vector FROM questions WHERE created >= ? ORDER BY id
"""
_HIT = "INSERT OR REPLACE INTO hits VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_HITS = "SELECT * FROM hits WHERE (?1 != '' AND call = ?1) OR (?2 != '' AND entry = ?2) ORDER BY at DESC LIMIT 64"
_SCOPE = "INSERT OR REPLACE INTO scopes VALUES (?, ?, ?, ?, ?)"
_OLD_HITS = "DELETE FROM hits WHERE at <= (SELECT at FROM hits ORDER BY at DESC LIMIT 1 OFFSET ?)"
_OLD_SCOPES = "DELETE FROM scopes WHERE used <= (SELECT used FROM scopes ORDER BY used DESC LIMIT 1 OFFSET ?)"
_log = logging.getLogger("tollgate.matcher")


class Hit(Struct, frozen=True):
    """An answer that was given to a similar question."""

    call: str
    at: int
    scope: str
    partition: bytes
    id: int
    entry: str
    group: int
    asked: str
    cached: str
    cosine: float


class Memory:
    """One file. Raises OSError and sqlite3.Error only from the constructor; later a write that fails is counted."""

    def __init__(self, path: Path, embedder: str) -> None:
        self.path = path
        self.lost = 0  # writes that came to nothing
        self._open = False
        try:
            self._db = _connected(path)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            discard(path)
            self._db = _connected(path)
        self.use(embedder)

    def use(self, embedder: str) -> None:
        """Vectors are of this one from now on."""
        if embedder and self._meta("embedder") != embedder:
            self._write("DELETE FROM questions")
            self._write("INSERT OR REPLACE INTO meta VALUES ('embedder', ?)", embedder)
            self.commit()

    def _meta(self, name: str) -> str:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return row[0] if row is not None else ""

    # -- questions --------------------------------------------------------------------------------------------------

    def questions(self, since: int) -> Iterator[tuple[Question, Vectors]]:
        for *fields, vector in self._db.execute(_QUESTIONS, (since,)):
            yield Question(*fields), np.frombuffer(vector, np.float16).astype(np.float32)

    def add(self, question: Question, vector: Vectors, answer: str) -> int:
        """Returns its id; 0 where it cannot be kept. `question.id` does not count."""
        fields = (question.partition, question.scope, question.tenant, question.text, question.key)
        data = zstandard.compress(answer[:MOST_ANSWER].encode("utf-8", "surrogatepass"))
        numbers = (question.group, question.created, question.cost, vector.astype(np.float16).tobytes(), data)
        return self._write(_ADD, *fields, *numbers)

    def group(self, id: int, group: int) -> None:
        self._write("UPDATE questions SET grp = ? WHERE id = ?", group, id)

    def answer(self, id: int) -> str | None:
        try:
            row = self._db.execute("SELECT answer FROM questions WHERE id = ?", (id,)).fetchone()
            return None if row is None else zstandard.decompress(row[0]).decode("utf-8", "surrogatepass")
        except (sqlite3.Error, zstandard.ZstdError, UnicodeDecodeError):
            return None

    def remove(self, ids: Sequence[int]) -> None:
        for id in ids:
            self._write("DELETE FROM questions WHERE id = ?", id)

    # -- scopes -----------------------------------------------------------------------------------------------------

    def scope(self, name: str) -> tuple[bytes, bytes] | None:
        try:
            row = self._db.execute("SELECT state, counts FROM scopes WHERE name = ?", (name,)).fetchone()
        except sqlite3.Error:
            return None
        return None if row is None else (row[0], row[1])

    def scopes(self) -> list[tuple[str, str]]:
        """Names, each with its tenant; the latest first."""
        return list(self._db.execute("SELECT name, tenant FROM scopes ORDER BY used DESC"))

    def keep(self, name: str, tenant: str, now: int, state: bytes, counts: bytes) -> None:
        self._write(_SCOPE, name, tenant, now, state, counts)

    # -- hits -------------------------------------------------------------------------------------------------------

    def hit(self, hit: Hit) -> None:
        self._write(_HIT, *[getattr(hit, name) for name in hit.__struct_fields__])

    def hits(self, call: str, entry: str) -> list[Hit]:
        return [Hit(*row) for row in self._db.execute(_HITS, (call, entry))]

    def block(self, partition: bytes, text: bytes, group: int) -> None:
        self._write("INSERT OR IGNORE INTO blocked VALUES (?, ?, ?)", partition, text, group)

    def blocked(self) -> set[tuple[bytes, bytes, int]]:
        return {(part, text, group) for part, text, group in self._db.execute("SELECT part, text, grp FROM blocked")}

    # -- upkeep -----------------------------------------------------------------------------------------------------

    def tidy(self) -> None:
        self._write(_OLD_HITS, MOST_HITS)
        self._write(_OLD_SCOPES, MOST_SCOPES)

    def commit(self) -> bool:
        """What was written so far is on disk."""
        if not self._open:
            return True
        self._open = False
        try:
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._failed(error)
            return False
        return True

    def close(self) -> None:
        self.commit()
        self._db.close()

    def _write(self, statement: str, *values: object) -> int:
        try:
            if not self._open:
                self._db.execute("BEGIN IMMEDIATE")
                self._open = True
            return self._db.execute(statement, values).lastrowid or 0
        except sqlite3.Error as error:
            self._failed(error)
            return 0

    def _failed(self, error: sqlite3.Error) -> None:
        self.lost += 1
        self._open = False
        _log.error("%s cannot be written: %s", self.path, error)
        with contextlib.suppress(sqlite3.Error):
            self._db.execute("ROLLBACK")


def _connected(path: Path) -> sqlite3.Connection:
    create_private(path)
    db = sqlite3.connect(path, timeout=1.0, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        known = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if known and db.execute("SELECT value FROM meta WHERE name = 'version'").fetchone() != (VERSION,):
            raise _Outdated("of another version")
        if not known:
            db.execute("BEGIN IMMEDIATE")
            for statement in _TABLES:
                db.execute(statement)
            db.execute("INSERT INTO meta VALUES ('version', ?)", (VERSION,))
            db.execute("COMMIT")
    except sqlite3.Error:
        db.close()
        raise
    return db


class _Outdated(sqlite3.DatabaseError):
    """Made anew, like a damaged file."""

    sqlite_errorcode = sqlite3.SQLITE_NOTADB
