from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gateway.process.state import StateDirectory, StateUnusable


def test_it_is_private_and_complete(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "a" / "state", tmp_path / "a" / "state" / "journal")
    for path in (state.path, state.journal, state.inflight):
        assert path.stat().st_mode & 0o777 == 0o700
    assert (state.path / "lock").stat().st_mode & 0o777 == 0o600
    state.close()


def test_it_is_of_one_gateway(tmp_path: Path) -> None:
    first = StateDirectory(tmp_path / "s", tmp_path / "s" / "journal")
    with pytest.raises(StateUnusable, match="is in use by another gateway;"):
        StateDirectory(tmp_path / "s", tmp_path / "s" / "journal", patience=0)
    first.describe("127.0.0.1:8787")
    with pytest.raises(StateUnusable, match=rf"\(process {os.getpid()}, listening on 127.0.0.1:8787\); stop that one"):
        StateDirectory(tmp_path / "s", tmp_path / "s" / "journal")
    other = StateDirectory(tmp_path / "t", tmp_path / "t" / "journal")
    other.close()
    first.close()
    StateDirectory(tmp_path / "s", tmp_path / "s" / "journal").close()


def test_a_journal_elsewhere_is_locked_as_well(tmp_path: Path) -> None:
    first = StateDirectory(tmp_path / "s", tmp_path / "journal")
    with pytest.raises(StateUnusable, match="journal is in use"):
        StateDirectory(tmp_path / "t", tmp_path / "journal", patience=0)
    StateDirectory(tmp_path / "t", tmp_path / "journal2").close()  # the failed one let go of its state
    first.close()


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateUnusable, match=r"cannot use .*file/s to keep state"):
        StateDirectory(tmp_path / "file" / "s", tmp_path / "file" / "s" / "journal")


def killed_with_a_child(state: StateDirectory) -> subprocess.Popen[bytes]:
    """What a killed supervisor leaves: its own pid, dead, and a process that still has the lock."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(20)
    (state.path / "lock").write_text(f'{{"pid":{gone.pid},"listen":"127.0.0.1:1"}}')
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=state.locks)
    for fd in state.locks:
        os.close(fd)
    return child


def test_children_of_a_killed_gateway_are_waited_for(tmp_path: Path) -> None:
    state, journal = tmp_path / "s", tmp_path / "s" / "journal"
    child = killed_with_a_child(StateDirectory(state, journal))
    with pytest.raises(StateUnusable, match="in use by another gateway"):
        StateDirectory(state, journal, patience=0)
    assert child.stdin is not None
    timer = threading.Timer(0.2, child.stdin.close)
    timer.start()
    again = StateDirectory(state, journal, patience=20)
    assert child.wait(20) == 0
    timer.join()
    assert again.unclean
    again.close()


def test_a_clean_end_leaves_nothing_to_wait_for(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "s", tmp_path / "s" / "journal")
    assert not state.unclean
    state.describe("127.0.0.1:8787")
    state.close()
    assert not StateDirectory(tmp_path / "s", tmp_path / "s" / "journal").unclean
