"""kill -9 at random instants: nothing acknowledged is lost, nothing is there twice, what was in flight is abandoned.

Acknowledged means: `append` returned, and the process could say so through a pipe.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.call import Asked, Call, Request, Route, Trace, Who
from gateway.config.schema import Journal
from gateway.journal.append import BACKLOG, JournalWriter
from gateway.journal.read import JournalReader
from gateway.journal.record import CallRecord, EventRecord, Record
from gateway.journal.recover import Recovery
from gateway.journal.segment import listing
from gateway.journal.verify import verify

HERE = Path(__file__).parent / "supervised"
KILLS = 40  # in each of the loops, however fast the machine is


def read_all(reader: JournalReader) -> list[Record]:
    found: list[Record] = []
    while batch := reader.read():
        found += [record for _, record in batch]
    return found


def start(script: str, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def kill(process: subprocess.Popen[bytes], rng: random.Random, after: bytes) -> list[bytes]:
    """Wait for its first word, then kill it at a random instant; returns the whole lines it said."""
    assert process.stdout is not None
    said = os.read(process.stdout.fileno(), 65_536)
    assert said.startswith(after), said
    deadline = time.monotonic() + rng.random() * 0.05
    while time.monotonic() < deadline:
        said += os.read(process.stdout.fileno(), 65_536)
    process.send_signal(signal.SIGKILL)
    with process.stdout:
        said += process.stdout.read()
    process.wait(10)
    return said[: said.rfind(b"\n") + 1].splitlines()


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    journal, tables = tmp_path / "journal", tmp_path / "inflight"
    journal.mkdir()
    tables.mkdir()
    return journal, tables


def test_killed_writers_lose_nothing_they_acknowledged(places: tuple[Path, Path]) -> None:
    journal, tables = places
    rng = random.Random(1)
    begun: set[str] = set()
    acknowledged: set[str] = set()
    reader, seen = JournalReader(journal), Counter[str]()
    supervisor = JournalWriter(journal, "sup", Journal(), inflight=tables, slots=0)
    recovery = Recovery(tables, journal, supervisor, "sup")
    kills = 0
    while kills < KILLS:
        for line in kill(start("appender.py", journal, tables, f"k{kills}"), rng, b"+"):
            (begun if line[:1] == b"+" else acknowledged).add(line[1:].decode())
        kills += 1
        seen.update(record.id for record in read_all(reader))  # the recorder reads along
        recovery.run(time.time_ns())
    supervisor.close()
    seen.update(record.id for record in read_all(reader))
    records = [record for record in read_all(JournalReader(journal)) if isinstance(record, CallRecord)]
    outcomes = {record.id: record.outcome for record in records}

    assert len(acknowledged) > 1_000
    assert {id for id in acknowledged if outcomes.get(id) != "ok"} == set()
    assert begun - outcomes.keys() == set()
    assert len(records) == len(outcomes)
    assert verify(journal).ok
    assert seen == Counter(outcomes.keys())
    assert "abandoned" in outcomes.values()
    assert len(begun - acknowledged) >= list(outcomes.values()).count("abandoned") - kills  # one may be unsaid per kill
    assert list(tables.iterdir()) == []
    print(f"{kills} kills, {len(acknowledged)} acknowledged, {list(outcomes.values()).count('abandoned')} abandoned")


def test_killed_recoveries_abandon_each_call_once(places: tuple[Path, Path]) -> None:
    journal, tables = places
    rng = random.Random(2)
    expected: set[str] = set()
    kills = 0
    while kills < KILLS:
        table_of_the_dead(journal, tables, [f"r{kills}-{n}" for n in range(400)])
        expected |= {f"r{kills}-{n}" for n in range(400)}
        for _ in range(3):
            process = start("recoverer.py", journal, tables)
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(rng.random() * 0.012)
            process.kill()
            process.communicate(timeout=10)
            kills += 1
    supervisor = JournalWriter(journal, "sup", Journal(), inflight=tables, slots=0)
    Recovery(tables, journal, supervisor, "sup").run(time.time_ns())
    supervisor.close()
    found = Counter(record.id for record in read_all(JournalReader(journal)) if isinstance(record, CallRecord))
    assert found == Counter(expected)
    assert list(tables.iterdir()) == []
    partly = sum(1 for segment in verify(journal).segments if segment.records % 400)
    print(f"{kills} killed recoveries, {len(expected)} calls, {partly} segments of unfinished ones")


def table_of_the_dead(journal: Path, tables: Path, ids: list[str]) -> None:
    writer = JournalWriter(journal, "w0", Journal(), worker=0, inflight=tables)
    for id in ids:
        writer.begin(call(id))
    writer.close()


def call(id: str) -> Call:
    route = Route("/v1/x", "openai_chat", "chat", "openai", b"/v1/x")
    now = time.monotonic_ns()
    request = Request(b"POST", b"/v1/x", [], b"x" * 500)
    return Call(id, request, route, Asked(), Who(), Trace(), time.time_ns(), now, ended=now, status=200)


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """A file system of 1 MB; skips where none can be mounted."""
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"A FULL DISK WAS NOT TESTED: no tmpfs can be mounted here ({mounted.stderr.strip()})")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_a_full_disk(tmp_path: Path) -> None:
    """Every record is in the file or counted as lost; nothing after the disk has room again is missing."""
    tables = tmp_path / "inflight"
    tables.mkdir()
    clock = [0.0]
    with small_disk(tmp_path / "disk") as disk:
        small = Journal(segment_bytes=65_536)
        writer = JournalWriter(disk, "w0", small, worker=0, inflight=tables, capture="full", monotonic=lambda: clock[0])
        total = 6_000
        for n in range(total):
            one = call(f"c{n}")
            writer.append(one, writer.begin(one))
            clock[0] += 0.001
        assert writer.lost > 1_000, listing(disk)
        assert writer.gauges.get("journal_failing") == 1
        reader = JournalReader(disk)
        before = [record.id for record in read_all(reader)]
        for segment in listing(disk)[:-1]:  # retention makes room
            segment.path.unlink()
        clock[0] += 1
        writer.tick()
        assert writer.gauges.get("journal_failing") == 0
        one = call("after")
        writer.append(one, writer.begin(one))
        after = read_all(reader)
        reader.close()
        calls = before + [record.id for record in after if isinstance(record, CallRecord)]
        lost = [record.detail["count"] for record in after if isinstance(record, EventRecord)]
        writer.close()
    assert len(calls) == len(set(calls))
    assert calls[-1] == "after"
    assert len(calls) - 1 + writer.lost == total
    assert lost == [writer.lost]
    assert writer.lost >= total - len(before) - BACKLOG


def test_a_file_size_limit_tears_no_frame(places: tuple[Path, Path]) -> None:
    """RLIMIT_FSIZE gives real short writes: the frame is cut off, and the record goes to a new segment."""
    journal, tables = places
    script = (
        "import resource, signal, sys, pathlib; sys.path.insert(0, sys.argv[3])\n"
        "from test_journal_kill import call, JournalWriter, Journal\n"
        "writer = JournalWriter(pathlib.Path(sys.argv[1]), 'w0', Journal(), worker=0)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "for n in range(500): writer.append(call(f'c{n}'), -1)\n"
        "assert writer.lost == 0\n"
    )
    arguments = [sys.executable, "-c", script, str(journal), str(tables), str(Path(__file__).parent)]
    subprocess.run(arguments, check=True, timeout=60)
    assert [record.id for record in read_all(JournalReader(journal))] == [f"c{n}" for n in range(500)]
    report = verify(journal)
    assert report.ok
    assert len(report.segments) > 5
    assert all(segment.torn_bytes == 0 for segment in report.segments)
