from __future__ import annotations

import os
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
        StateDirectory(tmp_path / "s", tmp_path / "s" / "journal")
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
        StateDirectory(tmp_path / "t", tmp_path / "journal")
    StateDirectory(tmp_path / "t", tmp_path / "journal2").close()  # the failed one let go of its state
    first.close()


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateUnusable, match=r"cannot use .*file/s to keep state"):
        StateDirectory(tmp_path / "file" / "s", tmp_path / "file" / "s" / "journal")
