"""Where people look at budgets and adjust them, beside the workers: the file of a machine, or Redis.

Reading takes its time and is for a thread. What is adjusted is noted under its id: the same id again books nothing.
Methods raise BudgetsUnavailable.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from pathlib import Path

from gateway.config.schema import Spending
from gateway.errors import BudgetsUnavailable
from gateway.spend import Adjustment, Level
from gateway.stores.budget_file import BudgetFile, Busy
from gateway.stores.budget_reader import BudgetReader
from gateway.stores.late import redis_budgets
from gateway.stores.redis_reader import RedisReader

PATIENCE = 2.0  # seconds: for the lock of the file, or for Redis
RETRY = 0.002
FILE = "budgets.sqlite"


class FileDesk(BudgetReader):
    """The file that all workers of this machine share."""

    def __init__(self, state: Path) -> None:
        super().__init__(state / FILE)
        self._file = state / FILE

    async def adjust(self, id: str, account: str, delta: int, reason: str, who: str) -> Level:
        """Book `delta` by hand. Raises ValueError for accounts that count no amounts."""
        return await asyncio.to_thread(adjust, self._file, Adjustment(id, 0, account, delta, reason, who))

    def close(self) -> None:
        """Nothing stays open."""


class RedisDesk(RedisReader):
    """The Redis that all machines share. What is adjusted here is known to this machine, should Redis forget it."""

    def __init__(self, spending: Spending, state: Path) -> None:
        super().__init__(spending)
        self._spending, self._state = spending, state

    async def adjust(self, id: str, account: str, delta: int, reason: str, who: str) -> Level:
        """Book `delta` by hand. Raises ValueError for accounts that count no amounts."""
        try:
            store = redis_budgets(self._spending, self._state)
        except (OSError, sqlite3.Error) as error:
            raise BudgetsUnavailable(f"the mirror of budgets: {error}") from error
        try:
            if not await store.ready(PATIENCE):
                raise BudgetsUnavailable("Redis is away, or has not heard of all workers yet", retry_after=1)
            return await store.adjust(id, account, delta, reason, who)
        finally:
            await store.close()


def desk(spending: Spending, state: Path) -> FileDesk | RedisDesk:
    """The desk of what is configured. Raises ValueError for a URL of Redis that is none."""
    return RedisDesk(spending, state) if spending.redis else FileDesk(state)


def adjust(path: Path, made: Adjustment) -> Level:
    """In a transaction of the file, at its time; for a thread, since it waits for other writers."""
    file, deadline = BudgetFile(path, "", 0, time.time_ns, time.monotonic_ns), time.monotonic() + PATIENCE
    try:
        while True:
            try:
                file.begin()
                level = file.adjust(made.id, made.account, made.delta, made.reason, made.who)
                file.commit()
            except Busy:
                file.rollback()
                if time.monotonic() > deadline:
                    raise BudgetsUnavailable("the file of budgets is locked", retry_after=1) from None
                time.sleep(RETRY)
            except ValueError:
                file.rollback()
                raise
            else:
                return level
    finally:
        file.close()
