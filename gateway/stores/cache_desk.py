"""The cache as people see it: how much there is, and how it is forgotten. Beside the workers, any thread."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from gateway.policy.cached import Chosen, Contents, Group
from gateway.stores.cache_file import opened, transaction
from gateway.stores.sqlite_cache import WRITE_SECONDS

_ALL = "SELECT count(*), ifnull(sum(size), 0), ifnull(sum(hits), 0) FROM entries WHERE expires > ?"
_GROUPS = """
SELECT tenant, route, model, count(*), sum(size), sum(hits) FROM entries WHERE expires > ?
GROUP BY tenant, route, model ORDER BY sum(size) DESC LIMIT ?
"""
# An empty value stands for any; an entry is named by the first 16 digits of its key.
_CHOSEN = """
SELECT id, size, tenant FROM entries
WHERE (?1 = '' OR tenant = ?1) AND (?2 = '' OR route = ?2) AND (?3 = '' OR upstream = ?3) AND (?4 = '' OR model = ?4)
  AND (?5 = '' OR agent = ?5) AND (?6 = '' OR instr(tags, char(10) || ?6 || char(10)) > 0)
  AND (?7 = '' OR lower(hex(substr(key, 1, 8))) = ?7)
"""
_DROP = "DELETE FROM entries WHERE id = ?"
_ADD = "UPDATE tenants SET bytes = max(0, bytes - ?) WHERE tenant = ?"
_NEXT = "UPDATE meta SET value = value + 1 WHERE name = 'generation'"
GROUPS = 100


class CacheUnusable(OSError):
    """The file of the cache cannot be used; the message says which and why."""


class CacheDesk:
    """Implements policy.cached.Desk; methods raise CacheUnusable."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = str(path)

    def contents(self, now: int, groups: int = GROUPS) -> Contents:
        """`now`: ns since the epoch. Nothing where nothing was ever cached."""
        if not self.path.exists():
            return Contents()
        with self._open() as db:
            found = db.execute(_GROUPS, (now, groups)).fetchall() if groups else []
            entries, size, hits = db.execute(_ALL, (now,)).fetchone()
        return Contents(entries, size, hits, tuple([Group(*row) for row in found]))

    def totals(self, now: int) -> Contents | None:
        """Without groups; None where nothing was ever cached."""
        return self.contents(now, 0) if self.path.exists() else None

    def clear(self, chosen: Chosen) -> int:
        """Forget entries; returns how many. No worker answers from them any more when this returns."""
        if not self.path.exists():
            return 0
        with self._open() as db, transaction(db):
            rows = db.execute(_CHOSEN, tuple(getattr(chosen, name) for name in chosen.__struct_fields__)).fetchall()
            db.executemany(_DROP, [(id,) for id, _, _ in rows])
            db.executemany(_ADD, [(size, tenant) for _, size, tenant in rows])
            db.execute(_NEXT)
        return len(rows)

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(opened(self.path, WRITE_SECONDS)) as db:
                yield db
        except sqlite3.Error as error:
            raise CacheUnusable(f"{self.path}: {error}") from error
