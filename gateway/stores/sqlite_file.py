"""Small SQLite files of the machine: made private, made durable, and watched by workers that answer from memory."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

WRITE_SECONDS = 5.0  # to wait for another writer
READ_SECONDS = 2.0  # the same, for the first reading
NEVER_WAIT = "PRAGMA busy_timeout = 0"  # once a worker serves, its event loop waits for nobody


def create_private(path: Path) -> None:
    """Make an empty file that its owner alone may read, whatever the umask, where there is none. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        # Only a new file: closing a descriptor of one in use would drop the locks of this process's other connections.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def open_durable(path: Path, patience: float, tables: Sequence[str], last: str) -> sqlite3.Connection:
    """A connection to the file, which is made where there is none; what it commits survives a power cut.

    `patience`: seconds to wait for another writer. `last`: the name of what the last statement of `tables` makes.
    Raises sqlite3.Error or OSError.
    """
    create_private(path)
    db = sqlite3.connect(path, timeout=patience, isolation_level=None)
    try:
        db.execute("PRAGMA synchronous = FULL")
        if not db.execute("SELECT count(*) FROM sqlite_schema WHERE name = ?", (last,)).fetchone()[0]:
            db.execute("BEGIN IMMEDIATE")
            for table in tables:
                db.execute(table)
            db.execute("COMMIT")
    except sqlite3.Error:
        db.close()
        raise
    return db


@contextlib.contextmanager
def writing(
    path: Path, connect: Callable[[Path, float], sqlite3.Connection], unusable: type[OSError]
) -> Iterator[sqlite3.Connection]:
    """A connection for one use of the file. Raises `unusable`, saying which file and why."""
    try:
        with contextlib.closing(connect(path, WRITE_SECONDS)) as db:
            yield db
    except (sqlite3.Error, msgspec.MsgspecError, ValueError) as error:
        raise unusable(f"{path}: {error}") from error


class WatchedFile:
    """A file that other processes write. `refresh` asks it whether another connection has committed (`PRAGMA
    data_version`: a few system calls) and has it read where so. What cannot be read stays as it was last known, and is
    asked for again at the next refresh, also from a file that has taken its place.

    `read` takes the connection and whether there may be news; it says whether there were any. `known` is what stays in
    force, for the log. To be used from one thread.
    """

    def __init__(
        self,
        path: Path,
        connect: Callable[[], sqlite3.Connection],
        read: Callable[[sqlite3.Connection, bool], bool],
        known: str,
        log: logging.Logger,
    ) -> None:
        self.path = path
        self._new_connection, self._take = connect, read
        self._known, self._log = known, log
        self._db: sqlite3.Connection | None = None
        self._file = (0, 0)
        self._version = -1
        self._failing = False

    def connect(self) -> sqlite3.Connection:
        """Anew. Raises what the file raises."""
        self.close()
        self._db = db = self._new_connection()
        status = os.stat(self.path)
        self._file = (status.st_dev, status.st_ino)
        self._version = -1
        return db

    def begin(self) -> None:
        """The first reading, which may wait for a writer; the later ones do not. Raises what the file raises."""
        db = self._db or self.connect()
        self._read(db)
        db.execute(NEVER_WAIT)

    def refresh(self) -> bool:
        """See what was changed since; true where something was. To be called a few times per second."""
        try:
            db, status = self._db, os.stat(self.path)
            if db is None or (status.st_dev, status.st_ino) != self._file:
                db = self.connect()
                db.execute(NEVER_WAIT)
            changed = self._read(db)
        except (sqlite3.Error, OSError, msgspec.MsgspecError) as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                return False  # somebody is writing: the next refresh sees it
            if not self._failing:
                self._log.error("%s cannot be read, %s: %s", self.path, self._known, error)
            self._failing = True
            self.close()
            return False
        self._failing = False
        return changed

    def close(self) -> None:
        """Idempotent; what is known stays in force."""
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()

    def _read(self, db: sqlite3.Connection) -> bool:
        version: int = db.execute("PRAGMA data_version").fetchone()[0]
        changed = self._take(db, version != self._version)
        self._version = version
        return changed


class Watched:
    """What a worker knows of such a file, where a file that cannot be read is no reason not to start: nothing is known
    then. A subclass says in `_take` what is to be known. `connect` and `known`: see `writing` and WatchedFile.
    """

    def __init__(
        self, path: Path, connect: Callable[[Path, float], sqlite3.Connection], known: str, log: logging.Logger
    ) -> None:
        self._file = WatchedFile(path, lambda: connect(path, READ_SECONDS), self._read, known, log)
        with contextlib.suppress(sqlite3.Error, OSError):
            self._file.begin()

    def refresh(self) -> bool:
        """See what was written since; true where something was. To be called a few times per second."""
        return self._file.refresh()

    def close(self) -> None:
        """Idempotent; what is known stays in force."""
        self._file.close()

    def _read(self, db: sqlite3.Connection, news: bool) -> bool:
        return news and self._take(db)

    def _take(self, db: sqlite3.Connection) -> bool:
        """Read what is new; false where nothing that matters is."""
        raise NotImplementedError
