"""What the small SQLite files share, beyond what the tests of keys and of decisions show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from gateway.stores.sqlite_file import create_private, open_durable

WRITES = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('INSERT INTO t VALUES (1)')"


def test_making_sure_of_a_file_leaves_the_locks_of_this_process_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.sqlite"
    db = open_durable(path, 1.0, ["CREATE TABLE t (x)"], "t")
    db.execute("BEGIN IMMEDIATE")
    create_private(path)
    other = subprocess.run([sys.executable, "-c", WRITES, str(path)], capture_output=True, text=True, check=False)
    db.execute("COMMIT")
    db.close()
    assert "database is locked" in other.stderr
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_file_that_is_there_is_opened_with_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "file.sqlite"
    for number in (1, 2):
        db = open_durable(path, 1.0, ["CREATE TABLE t (x)"], "t")
        db.execute("INSERT INTO t VALUES (?)", (number,))
        assert db.execute("SELECT count(*) FROM t").fetchone()[0] == number
        assert db.execute("PRAGMA synchronous").fetchone()[0] == 2
        db.close()
