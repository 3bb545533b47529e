"""Looks at the budgets' file from any process, without writing to it: for the API, metrics and the command line."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.errors import BudgetsUnavailable
from gateway.policy.book_rules import Account, freshen, level_of
from gateway.spend import Adjustment, Standing
from gateway.stores import budget_sql as sql
from gateway.stores.budget_file import END, Row, account_of

FIRST = "\0"  # behind a name: what follows it


class BudgetReader:
    """Opens the file for every question; a file that is not there yet has no accounts. Raises BudgetsUnavailable."""

    def __init__(self, path: str | Path, clock: Callable[[], int] = time.time_ns) -> None:
        self._path = Path(path)
        self._clock = clock

    def levels(self, accounts: Sequence[str]) -> list[Standing]:
        """How these accounts stand now; those that nobody has asked for yet are left out."""
        return self._read(sql.GET_ACCOUNT, [(name,) for name in accounts])

    def under(self, prefix: str = "", limit: int = 1000, *, after: str = "", over: bool = True) -> list[Standing]:
        """The first accounts, by name, whose names begin so; behind `after`; `over`: also of windows that are over."""
        start = max(prefix, after + FIRST) if after else prefix
        return self._read(sql.ACCOUNTS_UNDER, [(start, prefix + END, -1 if over else self._clock(), limit)])

    def in_money(self, limit: int = 1000) -> list[Standing]:
        """The first accounts in USD, by name: of windows that are not over, and of all scopes but runs."""
        return self._read(sql.ACCOUNTS_IN_MONEY, [(self._clock(), limit)])

    def adjustments(self, limit: int = 100) -> list[Adjustment]:
        """The latest first."""
        return [Adjustment(*row) for row in self._rows(sql.ADJUSTMENTS, [(limit,)])[1]]

    def _read(self, statement: str, values: Sequence[tuple[object, ...]]) -> list[Standing]:
        now, rows = self._rows(statement, values)
        return [_standing(account_of(row), now) for row in rows]

    def _rows(self, statement: str, values: Sequence[tuple[object, ...]]) -> tuple[int, list[Row]]:
        if not self._path.exists():
            return 0, []
        try:
            db = sqlite3.connect(
                self._path.resolve().as_uri() + "?mode=ro", uri=True, isolation_level=None, timeout=2.0
            )
            try:
                db.execute("BEGIN")  # one state of the file for all
                if db.execute("PRAGMA user_version").fetchone()[0] != sql.VERSION:
                    return 0, []
                now = db.execute(sql.GET_CLOCK).fetchone()[0]
                return max(now, self._clock()), [row for value in values for row in db.execute(statement, value)]
            finally:
                db.close()
        except sqlite3.Error as e:
            raise BudgetsUnavailable(f"{self._path.name}: {e}") from e


def _standing(account: Account, now: int) -> Standing:
    at = account.at
    freshen(account, now)
    level = level_of(account, now)
    counts = (level.limit, level.spent, level.reserved, level.resets_at, account.since, account.until)
    return Standing(account.name, account.rule, account.unit, *counts, at, account.label)
