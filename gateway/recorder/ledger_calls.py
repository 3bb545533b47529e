"""Calls into the ledger, with their tools and the totals of their runs.

The common case is a batch of calls never seen before: inserted as they are, totals added up first. Where one is known
already (SQLite says so) the batch is sorted out call by call.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from gateway.call import Outcome
from gateway.journal.record import CallRecord
from gateway.recorder import ledger_sql as sql
from gateway.recorder.ledger_rows import Row, call_row, clamp, tool_rows
from gateway.recorder.runs import Totals, fold

NUMBERS_KEPT = 50_000

_OUTCOME = 12  # column of `calls`


def many(db: sqlite3.Connection, statement: str, rows: Sequence[Row]) -> None:
    """Run `statement` for each row; numbers beyond 64 bits are cut to what a column holds."""
    db.execute("SAVEPOINT many")
    try:
        db.executemany(statement, rows)
    except OverflowError:
        db.execute("ROLLBACK TO many")
        db.executemany(statement, map(clamp, rows))
    db.execute("RELEASE many")


class Calls:
    """Writes calls, their tools and the totals of their runs, inside the caller's transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._numbers: dict[str, int] = {}  # of runs in the ledger, lately used

    def forget(self) -> None:
        """After a transaction that came to nothing, or that removed runs."""
        self._numbers.clear()

    def insert(self, calls: Sequence[CallRecord]) -> None:
        totals = fold(calls)
        numbers, fresh = self._number(totals)
        merged, stale = False, set[int]()
        self._db.execute("SAVEPOINT calls")
        try:
            self._db.executemany(sql.INSERT_CALL, [call_row(r, numbers.get(r.run_id)) for r in calls])
        except (sqlite3.IntegrityError, OverflowError):
            self._db.execute("ROLLBACK TO calls")
            merged = True
            calls, stale = self._merge(calls, numbers)
            totals = fold(calls)
        self._db.execute("RELEASE calls")
        tools = [row for r in calls if r.tools for row in tool_rows(r, numbers.get(r.run_id))]
        many(self._db, sql.INSERT_TOOL, tools)
        self._total(totals, numbers, fresh)
        for number in stale:
            self._db.execute(sql.DELETE_RUN, (number,))
            self._db.execute(sql.TOTAL_RUN, (number,))
        if merged:  # a new run may have come to nothing
            self.forget()

    def _number(self, runs: Iterable[str]) -> tuple[dict[str, int], set[str]]:
        """The numbers of these runs, and which of the runs are new."""
        if len(self._numbers) > NUMBERS_KEPT:
            self._numbers.clear()
        known, fresh = self._numbers, set()
        following = self._db.execute(sql.SELECT_LAST_RUN_NUMBER).fetchone()[0]
        found = {}
        for run in runs:
            number = known.get(run)
            if number is None:
                row = self._db.execute(sql.SELECT_RUN_NUMBER, (run,)).fetchone()
                if row is None:
                    following += 1
                    fresh.add(run)
                number = known[run] = following if row is None else row[0]
            found[run] = number
        return found, fresh

    def _total(self, totals: Mapping[str, Totals], numbers: Mapping[str, int], fresh: set[str]) -> None:
        many(self._db, sql.INSERT_RUN, [t.row(numbers[run], run) for run, t in totals.items() if run in fresh])
        more = [(numbers[run], t) for run, t in totals.items() if run not in fresh]
        many(self._db, sql.ADD_TO_RUN, [(n, t.last_at, *t.sums()) for n, t in more])
        many(self._db, sql.BEGIN_RUN_EARLIER, [(n, *t.first()) for n, t in more])

    def _merge(self, calls: Sequence[CallRecord], numbers: Mapping[str, int]) -> tuple[list[CallRecord], set[int]]:
        """Insert calls some of which are known already. Returns those inserted, and the runs to be totalled anew."""
        best: dict[str, tuple[Row, CallRecord]] = {}
        for r in calls:
            row = clamp(call_row(r, numbers.get(r.run_id)))
            if r.id not in best or _precedence(row) < _precedence(best[r.id][0]):
                best[r.id] = row, r
        stale: set[int] = set()
        for row, r in list(best.values()):
            old = self._db.execute(sql.SELECT_CALL, (r.id,)).fetchone()
            if old is None:
                continue
            if _precedence(row) >= _precedence(old):
                del best[r.id]
                continue
            stale |= {old[-1], row[-1]} - {None}
            self._db.execute(sql.DELETE_CALL, (r.id,))
            self._db.execute(sql.DELETE_CALL_TOOLS, (old[-1] or 0, r.id))
        self._db.executemany(sql.INSERT_CALL, [row for row, _ in best.values()])
        return [r for _, r in best.values()], stale


def _precedence(row: Row) -> tuple[bool, str]:
    """The least of the rows of one call counts: first of all one that is not `abandoned`."""
    return row[_OUTCOME] == Outcome.ABANDONED, repr(row[:-1])
