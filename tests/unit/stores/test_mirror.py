"""The mirror: totals only grow, first times only shrink, the lives of workers show, and damage is set aside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.stores.mirror import Mirror
from gateway.stores.spent_parts import FIRST

DAY = 86_400 * 10**9
NOW = 1_795_384_800 * 10**9


def test_the_larger_total_and_the_earlier_first_time_stand(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path, "w")
    for amount in (5, 9, 7):
        mirror.write([("a", "w", 0, amount, 0, 0), ("a", FIRST, 0, amount, 0, 0)], NOW)
    mirror.write([("a", "other", 0, 3, 0, 0)], NOW + 1)
    assert sorted(mirror.rows()) == [("a", FIRST, 0, 5, 0, 0), ("a", "other", 0, 3, 0, 0), ("a", "w", 0, 9, 0, 0)]
    assert mirror.rows(NOW + 1) == [("a", "other", 0, 3, 0, 0)]
    mirror.close()
    mirror.close()
    again = Mirror(tmp_path, "w2")
    assert len(again.rows()) == 3
    again.close()


def test_what_is_over_is_forgotten(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path, "w")
    minute = 60 * 10**9
    rows = [
        ("window", "w", 0, 1, NOW - 2 * DAY, 0),
        ("open", "w", 0, 1, NOW + DAY, 0),
        ("life", "w", 0, 1, 0, 0),
        ("run:old", "w", 0, 1, 0, 0),
        ("rolling", "w", (NOW - 3 * DAY) // 10**9, 1, 0, minute),
        ("rolling", "w", NOW // 10**9, 1, 0, minute),
    ]
    mirror.write(rows, NOW - 50 * DAY)
    mirror.write([("run:new", "w", 0, 1, 0, 0)], NOW)
    mirror.prune(NOW)
    assert sorted(row[0] for row in mirror.rows()) == ["life", "open", "rolling", "run:new"]
    mirror.close()


def test_members_are_those_of_the_last_look(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path, "w")
    mirror.set_members(["b", "a"])
    mirror.set_members(["a", "c"])
    assert sorted(mirror.members()) == ["a", "c"]
    mirror.close()


def test_the_dead_of_this_machine_are_told_from_the_living_and_from_others(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path, "here")
    code = (
        "import sys; from pathlib import Path; from gateway.stores.mirror import Mirror;"
        "m = Mirror(Path(sys.argv[1]), 'there'); print('up', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    assert mirror.dead(["here", "there", "elsewhere"]) == []
    child.kill()
    child.communicate()
    assert mirror.dead(["here", "there", "elsewhere"]) == ["there"]
    mirror.set_members(["there"])
    mirror.prune(NOW)
    assert mirror.dead(["there"]) == ["there"]  # somebody may still ask for it
    mirror.set_members(["here"])
    mirror.prune(NOW)
    assert mirror.dead(["there"]) == []
    mirror.close()


def test_a_damaged_file_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "budgets_mirror.sqlite").write_bytes(b"not a database" * 1000)
    mirror = Mirror(tmp_path, "w")
    mirror.write([("a", "w", 0, 1, 0, 0)], NOW)
    assert len(mirror.rows()) == 1
    assert (tmp_path / "budgets_mirror.damaged").exists()
    assert "set aside" in caplog.text
    mirror.close()
