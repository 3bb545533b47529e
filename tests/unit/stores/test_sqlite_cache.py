"""The store of answers: a memory over a file that workers share, bounded for each tenant, cleared for all at once."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from gateway.policy.cached import Chosen
from gateway.ports import Entry
from gateway.stores.cache_desk import CacheDesk, CacheUnusable
from gateway.stores.cache_file import OVERHEAD
from gateway.stores.sqlite_cache import SqliteCache
from gateway.testing.doubles import at_once
from tests.unit.stores.cache_entries import NOW, entry

Opening = Callable[..., SqliteCache]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.sqlite"


@pytest.fixture
def opening(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Opening]:
    """Opens workers' stores over one file; they write at once."""
    monkeypatch.setattr("gateway.stores.sqlite_cache.LINGER", 0)
    stores: list[SqliteCache] = []

    def make(memory: int = 1_000_000, tenant: int = 1_000_000) -> SqliteCache:
        stores.append(SqliteCache(path, memory_bytes=memory, tenant_bytes=tenant))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def find(store: SqliteCache, key: bytes, now: int) -> Entry | None:
    return at_once(store.get(key, "t", now))[0]


def keep(store: SqliteCache, *entries: Entry) -> None:
    for one in entries:
        store.put(one, at_once(store.get(one.key, one.tenant, NOW))[1])
    assert store.flush()


@pytest.mark.parametrize(
    "body", [b"small", b"large " * 5000, os.urandom(5000), b""], ids=["small", "large", "odd", "none"]
)
@pytest.mark.parametrize("memory", [1_000_000, 0])
def test_what_is_kept_is_found_whole(opening: Opening, body: bytes, memory: int) -> None:
    store, other = opening(memory), opening(memory)
    wanted = entry(body=body)
    assert find(store, wanted.key, NOW) is None
    keep(store, wanted)
    assert find(store, wanted.key, NOW) == wanted
    assert find(other, wanted.key, NOW) == wanted
    assert find(other, b"b" * 32, NOW) is None


def test_the_file_is_for_the_gateway_alone(opening: Opening, path: Path) -> None:
    os.umask(os.umask(0))
    keep(opening(), entry())
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("memory", [1_000_000, 0])
def test_what_is_over_is_not_found_and_goes(opening: Opening, path: Path, memory: int) -> None:
    store = opening(memory)
    keep(store, entry("a", expires=NOW + 10), entry("b"))
    assert find(store, entry("a").key, NOW + 9) is not None
    assert find(store, entry("a").key, NOW + 10) is None
    assert find(store, entry("b").key, NOW + 10) is not None
    store.tick(NOW + 11 * 10**9)
    assert store.flush()
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM entries").fetchone() == (1,)
        assert db.execute("SELECT bytes FROM tenants").fetchone() == (CacheDesk(path).contents(NOW).bytes,)
    db.close()


def test_the_memory_is_bounded(opening: Opening) -> None:
    store = opening(3 * (1000 + OVERHEAD))
    keep(store, *[entry(f"n{number}", os.urandom(1000)) for number in range(20)])
    assert store._held <= store.memory_bytes
    assert len(store._memory) == 3
    keep(store, entry("n0", b"new"))
    assert find(store, entry("n0").key, NOW) == entry("n0", b"new")


def test_what_was_used_a_moment_ago_does_not_go_for_what_comes_now(opening: Opening) -> None:
    store = opening(tenant=3 * (1000 + OVERHEAD + 650), memory=0)
    keep(store, *[entry(name, os.urandom(1000), created=NOW + at) for at, name in enumerate("abc")])
    assert find(store, entry("a").key, NOW + 10) is not None
    keep(store, entry("d", os.urandom(1000), created=NOW + 20))
    assert [name for name in "abcd" if find(store, entry(name).key, NOW)] == ["a", "c", "d"]


def test_an_answer_kept_again_takes_the_place_of_the_old_one(opening: Opening, path: Path) -> None:
    store, other = opening(), opening(0)
    keep(store, entry(body=b"old" * 100))
    keep(other, entry(body=b"new"))
    assert find(opening(), entry().key, NOW) == entry(body=b"new")
    contents = CacheDesk(path).contents(NOW)
    assert contents.entries == 1
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT bytes FROM tenants").fetchone() == (contents.bytes,)
    db.close()


@pytest.mark.parametrize("lifetime", [5, 50, 500])
def test_an_answer_that_another_worker_kept_anew_is_given_by_all(opening: Opening, lifetime: int) -> None:
    one, two = opening(), opening()
    keep(one, entry(body=b"old", created=NOW, expires=NOW + 50))
    fresh = entry(body=b"fresh", created=NOW + 1, expires=NOW + 1 + lifetime)
    keep(two, fresh)
    assert [find(store, entry().key, NOW + 2) for store in (one, two, one)] == [fresh] * 3
    assert find(one, entry().key, NOW + 1 + lifetime) is None, "nor does the old one come back"


def test_an_answer_that_is_not_written_yet_stands_before_the_one_that_is(opening: Opening, path: Path) -> None:
    store = opening()
    keep(store, entry(body=b"old", created=NOW, expires=NOW + 50))
    fresh = entry(body=b"fresh", created=NOW + 1, expires=NOW + 51)
    with sqlite3.connect(path) as db:
        db.execute("BEGIN IMMEDIATE")
        store.put(fresh, at_once(store.get(fresh.key, "t", NOW + 1))[1])
        assert find(store, fresh.key, NOW + 2) == fresh
        db.execute("ROLLBACK")
    db.close()
    assert store.flush()
    assert find(opening(0), fresh.key, NOW + 2) == fresh


# -- clearing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        (Chosen(), set()),
        (Chosen(tenant="t"), {"b"}),
        (Chosen(route="/r"), {"b"}),
        (Chosen(model="m", tenant="t"), {"b"}),
        (Chosen(agent="z"), {"a"}),
        (Chosen(upstream="v"), {"a"}),
        (Chosen(tag="red"), {"b"}),
        (Chosen(tag="re"), {"a", "b"}),
        (Chosen(tag="%"), {"a", "b"}),
        (Chosen(entry=entry("a").key[:8].hex()), {"b"}),
        (Chosen(tenant="t", tag="green"), {"a", "b"}),
        (Chosen(tenant="' OR 1=1 --"), {"a", "b"}),
    ],
)
def test_what_is_cleared_is_gone_from_every_worker_at_once(
    opening: Opening, path: Path, chosen: Chosen, left: set[str]
) -> None:
    one, two = opening(), opening()
    other = {"tenant": "o", "route": "/s", "upstream": "v", "model": "n", "agent": "z", "tags": ("green",)}
    keep(one, entry("a"), entry("b", **other))
    for store in (one, two):
        assert all(find(store, entry(name).key, NOW) for name in "ab")
    assert CacheDesk(path).clear(chosen) == 2 - len(left)
    for store in (one, two):
        assert {name for name in "ab" if find(store, entry(name).key, NOW) is not None} == left


def test_an_answer_asked_for_before_a_clearing_is_not_kept_behind_it(opening: Opening, path: Path) -> None:
    store, other = opening(), opening()
    assert find(store, entry().key, NOW) is None
    before = store.generation
    CacheDesk(path).clear(Chosen(tag="unrelated"))
    store.put(entry(), before)  # this worker does not know of it yet
    assert store.flush()
    assert find(other, entry().key, NOW) is None
    assert find(store, entry().key, NOW) is None
    store.put(entry(), before)
    assert find(store, entry().key, NOW) is None
    keep(store, entry())
    assert find(other, entry().key, NOW) == entry()


# -- what breaks ------------------------------------------------------------------------------------------------------


def test_a_damaged_file_is_made_anew(opening: Opening, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(b"SQLite format 3\0" + os.urandom(5000))
    store = opening()
    keep(store, entry())
    assert find(opening(), entry().key, NOW) == entry()
    assert "damaged" in caplog.text


def test_damage_while_it_runs_is_a_miss_and_then_made_anew(opening: Opening, path: Path) -> None:
    store = opening(0)
    keep(store, *[entry(f"n{number}", os.urandom(1500)) for number in range(50)])
    store.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(60_000))
    other = opening(0)
    assert [find(other, entry(f"n{number}").key, NOW) for number in range(50)].count(None) >= 1
    other.tick(NOW)
    keep(other, entry("fresh"))
    other.tick(NOW)
    keep(other, entry("fresh"))
    assert find(other, entry("fresh").key, NOW) == entry("fresh")


def test_a_file_taken_away_is_noticed(opening: Opening, path: Path) -> None:
    store = opening()
    keep(store, entry())
    for file in path.parent.glob("cache.sqlite*"):
        file.unlink()
    store.tick(NOW)
    assert find(store, entry().key, NOW) is None


def test_a_body_that_is_none_is_a_miss(opening: Opening, path: Path) -> None:
    keep(opening(), entry(body=b"x" * 5000))
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("UPDATE entries SET body = X'00'")
    assert find(opening(0), entry().key, NOW) is None
    db.execute("UPDATE entries SET facts = X'C1'")
    assert find(opening(0), entry().key, NOW) is None
    db.close()


def test_an_entry_is_never_taken_by_the_word_of_an_index_alone(opening: Opening, path: Path) -> None:
    keep(opening(), entry("a"))
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("UPDATE entries SET key = ?", (entry("b").key,))
    db.close()
    assert find(opening(), entry("b").key, NOW) is None


def test_a_locked_file_neither_stops_reading_nor_waiting_calls(opening: Opening, path: Path) -> None:
    store = opening(0)
    keep(store, entry("a"))
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    assert find(store, entry("a").key, NOW) is not None
    store.put(entry("b"), store.generation)
    assert time.monotonic() - began < 0.5
    db.execute("ROLLBACK")
    db.close()
    assert store.flush()
    assert find(store, entry("b").key, NOW) is not None


def test_what_waits_to_be_written_is_bounded(opening: Opening, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.stores.sqlite_cache.QUEUE_BYTES", 3000)
    store = opening(0)
    keep(store, entry("first"))
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    for number in range(10):
        store.put(entry(f"n{number}", b"x" * 1000), store.generation)
    db.execute("ROLLBACK")
    db.close()
    assert store.flush()
    assert [find(store, entry(f"n{number}").key, NOW) is not None for number in range(10)] == [True] * 3 + [False] * 7
    assert store.dropped == 7
    keep(store, entry("later", b"x" * 2500))
    assert find(store, entry("later").key, NOW) is not None


def test_a_worker_waits_at_its_start_for_one_that_makes_the_file(opening: Opening, path: Path) -> None:
    """A second of waiting would be too long for a call under way, but none is at a start."""
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    maker = threading.Timer(0.8, other.execute, ["COMMIT"])
    maker.start()
    store = opening()
    maker.join()
    other.close()
    assert store.available
    assert store._db is not None
    assert store._db.execute("PRAGMA busy_timeout").fetchone() == (0,), "from now on nobody is waited for"


def test_a_directory_that_cannot_be_used_is_said_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        SqliteCache(tmp_path / "file" / "cache.sqlite", memory_bytes=0, tenant_bytes=100)
    (tmp_path / "cache.sqlite").mkdir()
    with pytest.raises(OSError, match=r"cache\.sqlite"):
        SqliteCache(tmp_path / "cache.sqlite", memory_bytes=0, tenant_bytes=100)
    with pytest.raises(CacheUnusable):
        CacheDesk(tmp_path / "cache.sqlite").clear(Chosen())


def test_what_was_put_is_written_at_the_end(opening: Opening) -> None:
    store = opening()
    find(store, entry().key, NOW)
    store.put(entry(), store.generation)
    store.close()
    store.close()
    assert find(opening(), entry().key, NOW) == entry()


WRITER = """
import os, sys
from pathlib import Path
from gateway.stores.sqlite_cache import SqliteCache
sys.path.insert(0, sys.argv[2])
from gateway.testing.doubles import at_once
from cache_entries import NOW, entry
store = SqliteCache(Path(sys.argv[1]), memory_bytes=0, tenant_bytes=3_000_000)
number = 0
while True:
    one = entry(f"{os.getpid()}-{number}", bytes([number % 256]) * 3000 + os.urandom(2000))
    store.put(one, at_once(store.get(one.key, one.tenant, NOW))[1])
    number += 1
    if number % 20 == 0:
        store.flush()
        print(number, flush=True)
"""


def test_workers_killed_while_they_write_leave_whole_entries_and_right_sums(opening: Opening, path: Path) -> None:
    root = Path(__file__).parents[3]
    for _ in range(3):
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(WRITER), str(path), str(Path(__file__).parent)],
                stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(root)},
            )
            for _ in range(2)
        ]  # fmt: skip
        for worker in workers:
            assert worker.stdout is not None
            worker.stdout.readline()
            worker.stdout.readline()
        for worker in workers:
            worker.send_signal(signal.SIGKILL)
            worker.wait()
            assert worker.stdout is not None
            worker.stdout.close()
    store = opening(0)
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    keys = [row[0] for row in db.execute("SELECT key FROM entries")]
    assert len(keys) >= 40
    assert db.execute("SELECT bytes FROM tenants").fetchone() == db.execute("SELECT sum(size) FROM entries").fetchone()
    db.close()
    for key in keys:
        found = find(store, key, NOW)
        assert found is not None
        assert len(found.body) == 5000
        assert len(set(found.body[:3000])) == 1


def test_two_connections_of_one_process_keep_their_locks_against_another_process(opening: Opening, path: Path) -> None:
    """Closing any descriptor of the file would drop them, and the other process would then remove the log."""
    store = opening()
    keep(store, entry("a"))  # now the writer has a connection, too
    look = (
        f"from gateway.stores.cache_desk import *; from pathlib import Path; CacheDesk(Path({str(path)!r})).totals(1)"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", look], check=True, env={**os.environ, "PYTHONPATH": str(root)})
    keep(store, entry("b"))
    assert find(opening(0), entry("b").key, NOW) is not None


def test_entries_survive_their_encoding() -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(entry()), type=Entry) == entry()


def test_what_gives_way_is_still_in_the_file(opening: Opening) -> None:
    store = opening()
    entries = [entry(f"n{number}", os.urandom(1000)) for number in range(10)]
    keep(store, *entries)
    size = store.held // 10
    assert store.give_way(3 * size) == 7 * size
    assert (store.held, store.full) == (3 * size, 1_000_000)
    assert [find(store, one.key, NOW) for one in entries] == entries
    assert store.held == 3 * size  # and what is read does not come back for good
    assert store.give_way(0) == 3 * size
    assert find(store, entries[0].key, NOW) == entries[0]
    assert store.held == 0
    assert store.give_way(None) == 0
    assert [find(store, one.key, NOW) for one in entries] == entries
    assert store.held == 10 * size
