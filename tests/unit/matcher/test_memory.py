"""What the matcher knows, on disk."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.matcher.memory import Hit, Memory
from gateway.matcher.shelf import Question


def question(key: int, **more: Any) -> Question:
    return Question(**{
        "id": 0, "partition": b"p", "scope": "s", "tenant": "t", "text": f"q{key}", "key": bytes([key]) * 32,
        "group": 0, "created": key, "cost": 2**50, **more,
    })  # fmt: skip


VECTOR = np.linspace(-1, 1, 8, dtype=np.float32)


def test_questions_come_back_as_they_were(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "m", "e")
    ids = [memory.add(question(key), VECTOR, f"answer {key} \udcff" * 100) for key in (1, 2, 3)]
    memory.group(ids[1], ids[0])
    memory.remove([ids[2]])
    memory.close()
    memory = Memory(tmp_path / "m", "e")
    found = list(memory.questions(0))
    assert [(one.id, one.text, one.group, one.cost) for one, _ in found] == [
        (ids[0], "q1", 0, 2**50),
        (ids[1], "q2", ids[0], 2**50),
    ]
    assert np.allclose(found[0][1], VECTOR, atol=1e-3)
    assert memory.answer(ids[0]) == "answer 1 \udcff" * 100
    assert memory.answer(ids[2]) is None
    assert [one.text for one, _ in memory.questions(2)] == ["q2"]
    assert memory.add(question(9), VECTOR, "x") > ids[2], "an id is never used again"
    memory.close()


def test_only_its_user_may_read_it(tmp_path: Path) -> None:
    Memory(tmp_path / "m", "e").close()
    assert os.stat(tmp_path / "m").st_mode & 0o777 == 0o600


def test_another_embedder_forgets_questions_and_keeps_evidence(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "m", "e")
    memory.add(question(1), VECTOR, "x")
    memory.keep("s", "t", 5, b"state", b"counts")
    memory.close()
    memory = Memory(tmp_path / "m", "")
    assert len(list(memory.questions(0))) == 1, "not known yet which one it is"
    memory.use("f")
    assert list(memory.questions(0)) == []
    assert memory.scope("s") == (b"state", b"counts")
    assert memory.scopes() == [("s", "t")]
    assert memory.scope("nobody") is None
    memory.close()


def test_hits_are_found_by_call_and_by_entry_and_grow_no_older_than_allowed(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("gateway.matcher.memory.MOST_HITS", 5)
    memory = Memory(tmp_path / "m", "e")
    for number in range(10):
        memory.hit(Hit(f"c{number}", number, "s", b"p", 1, f"e{number % 2}", 1, "asked", "cached", 0.9))
    memory.tidy()
    assert [hit.call for hit in memory.hits("c9", "")] == ["c9"]
    assert [hit.call for hit in memory.hits("", "e1")] == ["c9", "c7", "c5"]
    assert memory.hits("c1", "") == memory.hits("", "") == []
    memory.close()


def test_a_damaged_file_or_one_of_another_version_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"no database at all" * 1000)
    memory = Memory(tmp_path / "m", "e")
    memory.keep("s", "t", 5, b"a", b"b")
    memory.close()
    with sqlite3.connect(tmp_path / "m") as db:
        db.execute("UPDATE meta SET value = '0' WHERE name = 'version'")
    db.close()
    memory = Memory(tmp_path / "m", "e")
    assert memory.scopes() == []
    memory.close()


def test_a_write_that_fails_is_counted_and_the_next_one_is_tried(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "m", "e")
    other = sqlite3.connect(tmp_path / "m", isolation_level=None)
    memory._db.execute("PRAGMA busy_timeout = 0")
    other.execute("BEGIN IMMEDIATE")
    assert memory.add(question(1), VECTOR, "x") == 0
    assert memory.lost == 1
    other.execute("ROLLBACK")
    other.close()
    assert memory.add(question(1), VECTOR, "x") > 0
    assert memory.commit()
    memory.close()


KILLED = """
import os, sys
import numpy as np
from pathlib import Path
from gateway.matcher.memory import Memory
from tests.unit.matcher.test_memory import VECTOR, question
memory = Memory(Path(sys.argv[1]), "e")
for key in range(1, 40):
    memory.add(question(key), VECTOR, "x" * 1000)
    memory.keep("s", "t", key, b"state %d" % key, b"%d" % key)
    if key % 7 == 0:
        memory.commit()
    if key == int(sys.argv[2]):
        os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("at", [1, 7, 20])
def test_a_kill_anywhere_leaves_a_whole_older_state(tmp_path: Path, at: int) -> None:
    root = Path(__file__).parents[3]
    result = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "m", str(at)],
        cwd=root,
        check=False,
        timeout=60,
        env=dict(os.environ, PYTHONPATH=str(root)),
    )
    assert result.returncode == -9
    memory = Memory(tmp_path / "m", "e")
    kept = at - at % 7
    assert [one.created for one, _ in memory.questions(0)] == list(range(1, kept + 1))
    assert memory.scope("s") == ((b"state %d" % kept, b"%d" % kept) if kept else None)
    memory.close()
