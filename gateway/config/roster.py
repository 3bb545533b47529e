"""Which virtual keys and teams there are, as the key store in the state directory says; only their names are read.

The store itself is gateway.stores.sqlite_keys; a test holds the two to the same table.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from msgspec import Struct

from gateway.config.schema import Config

FILE = "keys.sqlite"


class Roster(Struct, frozen=True):
    """Ids and names of all keys, and their teams."""

    keys: frozenset[str] = frozenset()
    teams: frozenset[str] = frozenset()
    count: int = 0


def roster(config: Config) -> Roster:
    """What the key store holds; empty where there is none, or where it cannot be read."""
    if config.state is None:
        return Roster()
    file = Path(config.state) / FILE
    try:
        if not file.is_file():
            return Roster()
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=1.0)) as database:
            rows = database.execute("SELECT id, name, team FROM keys").fetchall()
    except (OSError, ValueError, sqlite3.Error):
        return Roster()
    names = {name for key, title, _ in rows for name in (key, title) if name}
    return Roster(frozenset(names), frozenset(team for _, _, team in rows if team), len(rows))
