"""What a killed process left behind goes; what is in use stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from gateway.process.state import StateDirectory
from gateway.testing.scratch import STATE, scratch, sweep

MAKE = """
import signal
from gateway.testing.scratch import scratch
with scratch("probe-") as path:
    (path / "file").write_text("x")
    print(path, flush=True)
    signal.pause()
"""


@pytest.fixture(autouse=True)
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_a_directory_goes_with_its_block() -> None:
    with scratch("probe-") as path:
        (path / "file").write_text("x")
    assert not path.exists()


def test_what_a_killed_process_left_behind_goes_with_the_next_one() -> None:
    command = [sys.executable, "-c", MAKE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        with scratch("probe-"):
            assert (left / "file").exists()  # it is in use
        process.send_signal(signal.SIGKILL)
    with scratch("other-"):
        assert left.exists()
    with scratch("probe-") as path:
        assert path.exists()
        assert not left.exists()


def test_a_gateway_that_still_ends_keeps_its_directory(temp: Path) -> None:
    left = temp / "probe-1"
    state = StateDirectory(left / STATE, left / STATE / "journal")
    state.describe("127.0.0.1:1")
    sweep("probe-")
    assert left.exists()
    state.close()
    sweep("probe-")
    assert not left.exists()


def test_one_that_is_swept_before_it_is_locked_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    make, made = tempfile.mkdtemp, []

    def mkdtemp(**options: str) -> str:
        made.append(make(**options))
        if len(made) == 1:
            sweep("probe-")  # by another process
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    with scratch("probe-") as path:
        assert [str(path)] == made[1:]
        assert path.exists()


def test_what_is_no_directory_of_ours_stays(temp: Path) -> None:
    (temp / "probe-file").write_text("x")
    (temp / "target").mkdir()
    os.symlink(temp / "target", temp / "probe-link")
    sweep("probe-")
    assert sorted(path.name for path in temp.iterdir()) == ["probe-file", "probe-link", "target"]
