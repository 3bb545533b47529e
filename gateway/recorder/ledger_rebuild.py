"""Making the ledger again from the journal, and comparing two of them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from gateway.errors import LedgerUnavailable
from gateway.journal.read import JournalReader
from gateway.recorder.ledger import Ledger, move_aside

BATCH = 2_000

# The content, each table in the order of its key. Positions are no part of it: they say where it came from; nor are
# the numbers of runs, for which their ids stand here.
_TABLES: Final = (
    ("calls", "SELECT r.run_id, c.* FROM calls c LEFT JOIN runs r ON r.n = c.run ORDER BY c.id"),
    ("tools", "SELECT r.run_id, t.* FROM tools t LEFT JOIN runs r ON r.n = t.run ORDER BY t.call_id, t.n"),
    ("runs", "SELECT * FROM runs ORDER BY run_id"),
    ("outcomes", "SELECT * FROM outcomes ORDER BY id"),
    ("verdicts", "SELECT * FROM verdicts ORDER BY run_id"),
    ("events", "SELECT * FROM events ORDER BY id"),
)
_NUMBERS: Final = frozenset({("calls", "run"), ("tools", "run"), ("runs", "n")})


class Rebuilt(Struct, frozen=True):
    """What a rebuild found."""

    records: int
    torn: int
    corrupt: int
    undecodable: int
    unreadable: int = 0  # segments
    fewer: int = 0  # calls than the old ledger had: retention has removed them from the journal alone
    kept: Path | None = None  # where the old ledger is then

    @property
    def damaged(self) -> int:
        """Places and whole segments that were left out; a torn end was no record yet."""
        return self.corrupt + self.undecodable + self.unreadable


@contextlib.contextmanager
def exclusive(ledger: Path) -> Iterator[None]:
    """Keep every other process from writing this ledger; raises LedgerUnavailable where one does.

    The lock goes with the process, however it ends.
    """
    ledger.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(ledger.with_name(f"{ledger.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as e:
        os.close(fd)
        raise LedgerUnavailable(f"{ledger} is in use by a running recorder; stop the gateway first") from e
    try:
        yield
    finally:
        os.close(fd)


def rebuild(journal: Path, ledger: Path) -> Rebuilt:
    """Fill a new ledger from all of the journal and put it in the place of the old one, at once.

    An old one with more calls is moved aside, not removed. Raises LedgerUnavailable (also while a recorder runs on this
    ledger) and OSError; the old ledger is untouched then.
    """
    with exclusive(ledger):
        draft = ledger.with_name(f"{ledger.name}.rebuild")
        _remove(draft)
        reader = JournalReader(journal)
        try:
            count = _fill(draft, reader)
            fewer = max(0, _calls(ledger) - _calls(draft))
            kept = move_aside(ledger) if fewer else None
            _remove(ledger)
            draft.rename(ledger)
        finally:
            reader.close()
            _remove(draft)  # of a rebuild that failed: it may be what fills the disk
        damage = reader.damage
        return Rebuilt(count, damage.torn, damage.corrupt, damage.undecodable, damage.unreadable, fewer, kept)


def _fill(draft: Path, reader: JournalReader) -> int:
    """Returns how many records went in."""
    fresh, count = Ledger(draft), 0
    try:
        fresh.open()
        while batch := reader.read(BATCH):
            fresh.apply([record for _, record in batch], reader.positions, reader.positions)
            count += len(batch)
        fresh.compact()
    finally:
        fresh.close()
    return count


def _calls(ledger: Path) -> int:
    """How many are in it; 0 where it cannot be read."""
    if not ledger.exists():
        return 0
    with contextlib.closing(sqlite3.connect(ledger)) as db, contextlib.suppress(sqlite3.Error):
        return int(db.execute("SELECT count(*) FROM calls").fetchone()[0])
    return 0


def dump(ledger: Path) -> Iterator[str]:
    """The content as lines of JSON, equal for equal content. Raises sqlite3.Error."""
    db = sqlite3.connect(ledger)
    try:
        for table, query in _TABLES:
            rows = db.execute(query)
            names = [column[0] for column in rows.description]
            kept = [at for at, name in enumerate(names) if (table, name) not in _NUMBERS]
            for row in rows:
                yield msgspec.json.encode((table, *(row[at] for at in kept))).decode()
    finally:
        db.close()


def _remove(path: Path) -> None:
    for suffix in ("-wal", "-shm", ""):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
