from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from gateway.config.schema import Journal as Settings
from gateway.errors import LedgerUnavailable
from gateway.journal.append import JournalWriter
from gateway.journal.read import JournalReader
from gateway.journal.record import Record
from gateway.recorder import loop as loops
from gateway.recorder.ledger import DELIVERED, LEDGER, Ledger
from gateway.recorder.ledger_rebuild import dump
from gateway.recorder.loop import Counted, Loop
from gateway.recorder.projection import Feed, Positions, behind_all
from gateway.testing.records import call_record, workload


class Sink:
    """A projection that remembers the ids it was given."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def apply(self, batch: Sequence[Record]) -> None:
        self.ids += [record.id for record in batch]

    def close(self, timeout: float) -> None:
        pass


class World:
    """A journal, a ledger and a recorder loop that can be dropped and started again; time stands still."""

    def __init__(self, root: Path) -> None:
        self.journal = root / "journal"
        self.journal.mkdir()
        self.path = root / "ledger.sqlite3"
        self.writer = JournalWriter(self.journal, "w0", Settings(segment_bytes=65_536))
        self.metrics, self.traces = Sink(), Sink()
        self.kept: dict[str, int] = {}
        self.written: list[str] = []
        self.clock = 1_000.0
        self.loop = self.start()

    def start(self) -> Loop:
        self.ledger = Ledger(self.path)
        self.loop = Loop(
            lambda positions: JournalReader(self.journal, positions),
            self.ledger,
            [Counted(self.metrics, self.kept, self.keep)],
            [self.traces],
            monotonic=lambda: self.clock,
        )
        return self.loop

    def keep(self, positions: Positions) -> None:
        self.kept = dict(positions)

    def write(self, records: Sequence[Record]) -> None:
        for record in records:
            assert self.writer.append_record(record)
            self.written.append(record.id)

    def catch_up(self) -> None:
        while self.loop.turn():
            pass

    def stop(self) -> None:
        self.loop.stop()
        self.loop.run()

    def ledger_ids(self) -> set[str]:
        db = sqlite3.connect(self.path)
        try:
            return {row[0] for table in ("calls", "outcomes") for row in db.execute(QUERIES[table])}
        finally:
            db.close()


QUERIES = {"calls": "SELECT id FROM calls", "outcomes": "SELECT id FROM outcomes"}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.stop()
    world.writer.close()


def records(count: int, seed: int = 1) -> list[Record]:
    return workload(random.Random(seed), count)


def test_everything_reaches_every_projection_once(world: World) -> None:
    world.write(records(2_500))
    world.catch_up()
    assert world.ledger_ids() == set(world.written)
    assert sorted(world.metrics.ids) == sorted(world.traces.ids) == sorted(world.written)
    assert world.ledger.positions(LEDGER) == world.ledger.positions(DELIVERED) != {}


def test_a_stop_and_a_start_neither_lose_nor_repeat(world: World) -> None:
    world.write(records(1_200))
    world.stop()
    world.start()
    world.write([call_record("late")])
    world.catch_up()
    assert world.ledger_ids() == set(world.written)
    assert sorted(world.metrics.ids) == sorted(world.traces.ids) == sorted(world.written)


def test_after_a_kill_traces_repeat_at_most_one_batch_and_metrics_go_on_from_what_was_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loops, "BATCH", 100)
    world.write([r for r in records(1_000) if r.id.startswith("call")])
    for _ in range(3):
        world.loop.turn()
    had = len(world.metrics.ids)
    world.loop.turn()
    last_batch = len(world.metrics.ids) - had
    assert 0 < last_batch <= 100
    world.metrics.ids.clear()  # their state dies with the process; nothing was kept yet
    world.start()  # and nothing of the old one is closed or flushed
    world.catch_up()
    assert world.ledger_ids() == set(world.written)
    assert world.metrics.ids == world.written
    assert len(world.traces.ids) == 1_000 + last_batch
    assert set(world.traces.ids) == set(world.written)


def test_a_ledger_that_cannot_be_written_holds_nobody_up_and_catches_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write(records(300))
    world.catch_up()
    blocker = sqlite3.connect(world.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    world.ledger._db.execute("PRAGMA busy_timeout = 0")  # type: ignore[union-attr]
    world.write([call_record("during")])
    world.catch_up()
    assert not world.loop.ledger_attached
    assert "during" in world.metrics.ids
    assert "during" in world.traces.ids
    blocker.execute("ROLLBACK")
    blocker.close()
    world.write([call_record("after")])
    world.catch_up()
    assert "during" not in world.ledger_ids()
    world.clock += 2
    world.catch_up()
    assert world.loop.ledger_attached
    assert world.ledger_ids() == set(world.written)
    assert sorted(world.metrics.ids) == sorted(world.traces.ids) == sorted(world.written)


def test_a_ledger_that_can_be_opened_but_not_written_is_said_once(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write(records(20))
    world.catch_up()
    apply, full = Ledger.apply, LedgerUnavailable("disk is full")
    monkeypatch.setattr(Ledger, "apply", lambda *_: (_ for _ in ()).throw(full))
    world.write([call_record("during")])
    for _ in range(5):
        world.catch_up()
        world.clock += 2
    assert [record.message for record in caplog.records] == [
        "recorder: the ledger cannot be used (disk is full); it will catch up"
    ]
    monkeypatch.setattr(Ledger, "apply", apply)
    world.catch_up()
    assert [record.message for record in caplog.records[1:]] == ["recorder: the ledger is written again"]
    assert world.ledger_ids() == set(world.written)
    monkeypatch.setattr(Ledger, "apply", lambda *_: (_ for _ in ()).throw(full))
    world.write([call_record("again")])
    world.catch_up()
    assert len(caplog.records) == 3
    monkeypatch.undo()


def test_a_full_disk_is_waited_for(world: World) -> None:
    world.write(records(100))
    world.catch_up()
    db = world.ledger._db
    assert db is not None
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages}")  # SQLITE_FULL from here on, for this connection
    world.write([r for r in workload(random.Random(9), 900) if r.id not in set(world.written)])
    world.catch_up()
    assert not world.loop.ledger_attached
    assert sorted(world.metrics.ids) == sorted(world.written)
    world.clock += 2
    world.catch_up()
    assert world.ledger_ids() == set(world.written)
    assert sorted(world.metrics.ids) == sorted(world.traces.ids) == sorted(world.written)


def test_a_journal_that_cannot_be_read_is_read_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.write(records(100))
    world.catch_up()
    with monkeypatch.context() as patch:
        patch.setattr(JournalReader, "read", lambda self, limit: (_ for _ in ()).throw(OSError(5, "I/O error")))
        assert not world.loop.turn()
        assert not world.loop.turn()
    world.write([call_record("later")])
    world.catch_up()
    assert world.ledger_ids() == set(world.written)
    assert sorted(world.metrics.ids) == sorted(world.traces.ids) == sorted(world.written)


def test_projections_change_between_two_batches(world: World) -> None:
    world.write(records(100))
    world.catch_up()
    other = Sink()

    def swap() -> None:
        world.loop.delivered = [other]

    world.loop.between_batches(swap)
    world.write([call_record("later")])
    world.catch_up()
    assert other.ids == ["later"]
    assert "later" not in world.traces.ids


def test_a_damaged_ledger_is_made_again_while_the_others_go_on(world: World) -> None:
    world.write(records(400))
    world.catch_up()
    before = list(dump(world.path))
    with open(world.path, "r+b") as file:
        file.write(b"\xff" * 65_536)
    world.loop.report_damage()
    world.catch_up()
    assert list(dump(world.path)) == before
    assert sorted(world.metrics.ids) == sorted(world.traces.ids) == sorted(world.written)
    assert world.path.with_name("ledger.sqlite3.aside").exists()


def test_a_lost_ledger_repeats_no_traces_where_metrics_were_kept(world: World) -> None:
    world.write(records(50))
    world.stop()
    for file in world.path.parent.glob("ledger.sqlite3*"):
        file.unlink()
    world.start()
    world.catch_up()
    assert world.ledger_ids() == set(world.written)
    assert sorted(world.traces.ids) == sorted(world.written)


def test_what_may_be_forgotten_is_what_all_have_taken(world: World) -> None:
    world.write(records(200))
    world.catch_up()
    assert world.loop.committed() == world.ledger.positions(LEDGER)
    world.loop.counted[0].feed.reached = {}
    assert set(world.loop.committed().values()) <= {0}


def test_caught_up_only_counts_what_the_ledger_has(world: World) -> None:
    world.catch_up()
    assert world.loop.caught_up_at == 1_000.0
    world.clock = 1_005.0
    world.write(records(3))
    assert world.loop.turn()
    assert world.loop.caught_up_at == 1_000.0
    assert world.loop.behind_ns > 0
    assert not world.loop.turn()
    assert world.loop.caught_up_at == 1_005.0
    assert world.loop.behind_ns == 0


@pytest.mark.parametrize("seed", range(30))
def test_feeds_take_each_record_once_whatever_the_restarts(seed: int) -> None:
    rng = random.Random(seed)
    log = {name: [(name, 10 * (n + 1)) for n in range(rng.randrange(1, 40))] for name in "abc"}
    feeds = [Feed({}), Feed({}), Feed({})]
    took: list[list[tuple[str, int]]] = [[], [], []]
    for _ in range(12):
        start = behind_all([feed.reached for feed in feeds])
        for feed in feeds:
            feed.rewind(start)
        positions = dict(start)
        for _ in range(rng.randrange(6)):
            name = rng.choice("abc")
            rest = [p for p in log[name] if p[1] > positions.get(name, 0)][: rng.randrange(1, 9)]
            if not rest:
                continue
            positions[name] = rest[-1][1]
            batch = [(p, p) for p in rest]
            for feed, mine in zip(feeds, took, strict=True):
                if rng.random() < 0.15:
                    break  # killed before it, and those behind it, took the batch
                mine += feed.fresh(batch)  # type: ignore[arg-type]
                feed.reached = feed.advanced(positions)
            else:
                continue
            break
    for mine in took:
        assert len(mine) == len(set(mine))
    start = behind_all([feed.reached for feed in feeds])
    for feed, mine in zip(feeds, took, strict=True):
        feed.rewind(start)
        for name in "abc":
            mine += feed.fresh([(p, p) for p in log[name] if p[1] > start.get(name, 0)])  # type: ignore[misc,arg-type]
        assert sorted(mine) == sorted(p for name in "abc" for p in log[name])
