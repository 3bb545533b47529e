"""Decisions on disk, and workers that read them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.policy.controls import Cap, Caps, Decision, Kind, Scope
from gateway.spend import RunLimits
from gateway.stores.sqlite_controls import RELOAD_SECONDS, RUN_DAYS, ControlsUnusable, SqliteControls, SqliteDecisions

DAY = 86_400 * 10**9
NOW = 1_790_000_000 * 10**9
RUN = ("run", "r1")


def kill(value: str = "r1", scope: Scope = Scope.RUN, at: int = NOW) -> Decision:
    return Decision(Kind.KILL, scope, value, reason="it loops", who="ops", at=at)


def resume(value: str = "r1", at: int = NOW) -> Decision:
    return Decision(Kind.RESUME, Scope.RUN, value, at=at)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "controls.sqlite"


def test_a_decision_reaches_every_reader_at_its_next_look(path: Path) -> None:
    readers = [SqliteControls(path), SqliteControls(path)]
    assert not any(reader.refresh() for reader in readers)
    standing = SqliteDecisions(path).record(kill())
    assert (standing.revision, standing.reason, standing.who) == (1, "it loops", "ops")
    for reader in readers:
        assert not reader.stops
        assert reader.refresh()
        assert RUN in reader.stops
        assert reader.revision == 1
        assert not reader.refresh()
    SqliteDecisions(path).record(resume())
    assert readers[0].refresh()
    assert not readers[0].stops


def test_a_reader_that_starts_later_knows_what_holds(path: Path) -> None:
    decisions = SqliteDecisions(path)
    decisions.record(kill("gone"))
    decisions.record(resume("gone"))
    decisions.record(kill("bot", Scope.AGENT))
    decisions.record(Decision(Kind.LIMIT, Scope.RUN, "r2", at=NOW, limits=RunLimits(usd=2 * 10**9, calls=200)))
    decisions.record(Decision(Kind.RAISE, Scope.RUN, "r2", 5 * 10**9, at=NOW))
    reader = SqliteControls(path)
    assert set(reader.stops) == {("agent", "bot")}
    assert reader.limits("r2") == RunLimits(usd=2 * 10**9, calls=200)
    assert reader.raised("r2") == 5 * 10**9
    assert reader.revision == 5
    assert [standing.value for standing in decisions.stopped()] == ["bot"]


def test_every_decision_stays_in_the_audit(path: Path) -> None:
    decisions = SqliteDecisions(path)
    made = [kill(), resume(), Decision(Kind.LIMIT, Scope.RUN, "r1", 0, "", "me", NOW, RunLimits(tools=3))]
    for decision in made:
        decisions.record(decision)
    assert decisions.decisions() == made[::-1]
    assert decisions.decisions(1) == made[2:]


def test_runs_that_stop_nothing_are_forgotten_after_a_month(path: Path) -> None:
    clock = [0.0]
    decisions = SqliteDecisions(path)
    decisions.record(Decision(Kind.LIMIT, Scope.RUN, "old", at=NOW - (RUN_DAYS + 1) * DAY, limits=RunLimits(calls=1)))
    decisions.record(kill("killed", at=NOW - (RUN_DAYS + 1) * DAY))
    reader = SqliteControls(path, monotonic=lambda: clock[0])
    assert reader.limits("old") is not None
    decisions.record(kill())
    reader.refresh()
    assert reader.limits("old") is not None  # not yet read anew
    clock[0] = RELOAD_SECONDS
    assert not reader.refresh()
    assert reader.limits("old") is None
    assert set(reader.stops) == {RUN, ("run", "killed")}
    assert len(decisions.decisions()) == 3


def test_what_cannot_be_read_stays_in_force(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    SqliteDecisions(path).record(kill())
    reader = SqliteControls(path)
    path.unlink()
    path.mkdir()
    assert not reader.refresh()
    assert not reader.refresh()
    assert RUN in reader.stops
    assert caplog.text.count("stays in force") == 1
    path.rmdir()
    SqliteDecisions(path).record(kill("r2"))
    assert reader.refresh()
    assert set(reader.stops) == {("run", "r2")}
    reader.close()
    reader.close()


def test_a_file_that_is_no_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"x" * 4096)
    with pytest.raises(ControlsUnusable, match="not a database"):
        SqliteControls(path)
    with pytest.raises(ControlsUnusable):
        SqliteDecisions(path).record(kill())


def test_a_reader_never_waits_for_a_writer(path: Path) -> None:
    reader = SqliteControls(path)
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    assert not reader.refresh()
    assert time.monotonic() - began < 1
    writer.execute("ROLLBACK")
    writer.close()
    SqliteDecisions(path).record(kill())
    assert reader.refresh()


def test_the_file_is_private(path: Path) -> None:
    SqliteDecisions(path).record(kill())
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_a_writer_that_is_killed_leaves_all_or_nothing(path: Path) -> None:
    reader = SqliteControls(path)
    code = (
        "import sys, itertools; from pathlib import Path\n"
        "from gateway.policy.controls import Cap, Caps, Decision, Kind, Scope\n"
        "from gateway.stores.sqlite_controls import SqliteDecisions\n"
        "d = SqliteDecisions(Path(sys.argv[1]))\n"
        "for n in itertools.count(): d.record(Decision(Kind.KILL, Scope.RUN, f'r{n}', at=1)); print(n, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(20)]
        process.kill()
        told += [int(line) for line in process.stdout]
    last = SqliteDecisions(path).record(kill("end"))
    assert reader.refresh()
    kept = {value for _, value in reader.stops}
    assert {f"r{n}" for n in told} <= kept
    assert reader.revision == last.revision == len(kept) == len(SqliteDecisions(path).decisions(10**6))


def test_limits_of_scopes_reach_readers_and_are_listed(path: Path) -> None:
    reader, decisions = SqliteControls(path), SqliteDecisions(path)
    caps = Caps((Cap(usd=5, per="day"),), rpm=3)
    decisions.record(Decision(Kind.CAP, Scope.TEAM, "a", at=NOW, caps=caps))
    decisions.record(Decision(Kind.CAP, Scope.GLOBAL, "*", at=NOW, caps=Caps(concurrency=2)))
    decisions.record(kill())
    decisions.record(kill("b", Scope.TEAM))
    assert reader.refresh()
    known = reader.caps
    assert known == {("team", "a"): caps, ("global", "*"): Caps(concurrency=2)}
    decisions.record(resume())
    assert reader.refresh()
    assert reader.caps is known
    assert [(standing.scope, standing.value) for standing in decisions.capped()] == [("global", "*"), ("team", "a")]
    assert SqliteControls(path).caps == known
    decisions.record(Decision(Kind.CAP, Scope.TEAM, "a", at=NOW))
    assert reader.refresh()
    assert set(reader.caps) == {("global", "*")}
    assert [made.caps for made in decisions.decisions()][-1] == caps


def test_a_file_of_the_version_before_is_gone_on_with(path: Path) -> None:
    decisions = SqliteDecisions(path)
    decisions.record(kill())
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE decisions DROP COLUMN caps")
        db.commit()
    reader = SqliteControls(path)
    assert RUN in reader.stops
    decisions.record(Decision(Kind.CAP, Scope.MODEL, "m", at=NOW, caps=Caps(tpm=9)))
    assert reader.refresh()
    assert reader.caps == {("model", "m"): Caps(tpm=9)}
    assert [made.kind for made in decisions.decisions()] == [Kind.CAP, Kind.KILL]
