"""What one machine tells the others of its decisions, and what it takes in from them; the SQLite side of it.

Theory of operation
* There is one log of decisions that all machines read in the same order (gateway.stores.redis_controls). A machine
  takes a decision at once where it was made, tells the log, and takes it *again* when it comes back in its place of the
  log: so all machines end with the same standing of every subject, whoever decided what at the same time.
* Each entry names its machine and that machine's revision. What is not higher than the last one seen of that machine is
  a repetition and is left out: an entry that is told twice, after a crash or a lost answer, counts once.
* Entries and the place they come from are taken in one transaction: a kill at any point repeats or loses nothing.
* What was told counts as told when it came back. A log that was lost is told everything again: by every machine its own
  decisions of the last month, and its limits of any time. Those who know them leave them out.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence

from msgspec import Struct

from gateway.policy.controls import Decision
from gateway.stores.sqlite_controls import RUN_DAYS, SqliteDecisions, decision_of, put

BEGIN = "0-0"  # before the first entry of the log
_MONTH = RUN_DAYS * 86_400 * 10**9

_GET = "SELECT value FROM exchange WHERE key = ?"
_SET = "INSERT OR REPLACE INTO exchange (key, value) VALUES (?, ?)"
_NAME = "INSERT OR IGNORE INTO exchange (key, value) VALUES ('machine', ?)"
_SEEN = "SELECT revision FROM machines WHERE machine = ?"
_SAW = "INSERT OR REPLACE INTO machines (machine, revision) VALUES (?, ?)"
_OWN = """
SELECT kind, scope, value, amount, reason, who, at, limits, caps, revision FROM decisions
WHERE revision > ? AND origin = '' AND (at > ? OR kind = 'cap') ORDER BY revision LIMIT ?
"""
_FORGET = "DELETE FROM decisions WHERE revision = ?"


class Entry(Struct, frozen=True, array_like=True):
    """A decision as it stands in the log."""

    machine: str
    revision: int  # of that machine
    decision: Decision


class Exchange:
    """Methods raise ControlsUnusable, and take their time."""

    def __init__(self, decisions: SqliteDecisions) -> None:
        self._decisions = decisions

    def machine(self) -> str:
        """Who this is among the machines; chosen once."""
        with self._decisions.open() as db:
            db.execute(_NAME, (secrets.token_hex(8),))
            return _value(db, "machine", "")

    def place(self) -> str:
        """The last entry of the log that was taken in."""
        with self._decisions.open() as db:
            return _value(db, "place", BEGIN)

    def outgoing(self, now: int, sent: int = 0, limit: int = 100) -> list[Entry]:
        """Decisions taken here, behind revision `sent`, that did not come back from the log; the oldest first."""
        with self._decisions.open() as db:
            told = max(sent, int(_value(db, "told", "0")))
            rows = db.execute(_OWN, (told, now - _MONTH, limit)).fetchall()
            machine = _value(db, "machine", "")
        return [Entry(machine, row[-1], decision_of(row)) for row in rows]

    def tell_again(self) -> None:
        """This log is not the one that was read: it may have nothing of what was told."""
        with self._decisions.open() as db:
            db.execute("BEGIN IMMEDIATE")
            db.execute(_SET, ("told", "0"))
            db.execute(_SET, ("place", BEGIN))
            db.execute("COMMIT")

    def take(self, entries: Sequence[Entry], place: str) -> int:
        """Take in what stands in the log up to `place`; returns how many entries were new."""
        new = 0
        with self._decisions.open() as db:
            db.execute("BEGIN IMMEDIATE")
            mine, told = _value(db, "machine", ""), int(_value(db, "told", "0"))
            for entry in entries:
                if entry.machine == mine:
                    told = max(told, entry.revision)
                found = db.execute(_SEEN, (entry.machine,)).fetchone()
                if found is not None and entry.revision <= found[0]:
                    continue
                new += 1
                db.execute(_SAW, (entry.machine, entry.revision))
                standing = put(db, entry.decision, entry.machine)
                if entry.machine == mine:  # it is in the audit already: only its place among the others counted
                    db.execute(_FORGET, (standing.revision,))
            db.execute(_SET, ("told", str(told)))
            db.execute(_SET, ("place", place))
            db.execute("COMMIT")
        return new


def _value(db: sqlite3.Connection, key: str, default: str) -> str:
    found = db.execute(_GET, (key,)).fetchone()
    return str(found[0]) if found is not None else default
