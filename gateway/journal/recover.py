"""What dead processes left in flight becomes `abandoned` records, exactly once.

A call is in doubt when its slot is still taken although its record is written: that is at most the last record of the
process (see `inflight`, rule 2), so the ends of its segments tell. A recovery that is itself killed is repeated by the
next one, which finds what the first wrote in the segments of this writer; the table is removed last.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import DecodeError, Struct

from gateway.call import Outcome
from gateway.journal.append import JournalWriter
from gateway.journal.convert import sparse
from gateway.journal.inflight import SUFFIX, Intent, Leftover, parse
from gateway.journal.record import CallRecord, EventRecord
from gateway.journal.segment import HEADER_BYTES, Segment, decode_head, listing, payloads, read_header

DRAFT_SECONDS = 60
_log = logging.getLogger("tollgate.journal")


class Recovered(Struct):
    tables: int = 0
    calls: int = 0
    lost: int = 0  # records that the dead processes had lost without reporting it


class Recovery:
    """Settles the tables in `inflight` through `writer`, whose segments in `directory` are called `name`."""

    def __init__(self, inflight: Path, directory: Path, writer: JournalWriter, name: str) -> None:
        self._inflight = inflight
        self._directory = directory
        self._writer = writer
        self._name = name
        self._refused: set[Path] = set()

    def run(self, now: int) -> Recovered:
        """Settle every table whose process is gone; `now` is in ns since the epoch.

        Tables of living processes are left alone. Where the journal cannot be written they stay for a later attempt,
        as do those that may not be read.
        """
        done = Recovered()
        for path in sorted(self._inflight.glob(f"*{SUFFIX}")):
            try:
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            except PermissionError as error:
                if path not in self._refused:
                    self._refused.add(path)
                    _log.error("journal: %s: %s; what was in flight there is not known", path, error.strerror)
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._settle(fd, path, now, done)
            except BlockingIOError:  # its process lives
                continue
            finally:
                os.close(fd)
        remove_drafts(self._inflight)
        remove_drafts(self._directory)
        return done

    def _settle(self, fd: int, path: Path, now: int, done: Recovered) -> None:
        with open(fd, "rb", closefd=False) as file:
            left = parse(file.read())
        if left is None:
            _log.error("journal: %s is no table of calls in flight; set aside", path.name)
            path.rename(path.with_suffix(".unreadable"))
            return
        known = _known(left, self._directory, self._name)
        for intent in left.intents:
            if intent.id not in known:
                if not self._writer.append_record(abandoned(intent, left.worker, now), wait=False):
                    return
                done.calls += 1
        lost = left.lost
        event = EventRecord(f"lost-{left.token.hex()}", now, "records_lost", left.worker)
        if lost and event.id not in known:
            event.detail = {"count": lost, "reason": f"{left.writer} died before it could report them"}
            if not self._writer.append_record(event, wait=False):
                return
            done.lost += lost
        path.unlink()
        done.tables += 1


def remove_drafts(directory: Path, seconds: float = DRAFT_SECONDS) -> None:
    """Remove files that a process was killed over before they had their name."""
    limit = time.time() - seconds
    for path in directory.glob(".new-*"):
        try:
            if path.stat().st_mtime < limit:
                path.unlink()
        except FileNotFoundError:
            continue


def abandoned(intent: Intent, worker: int, now: int) -> CallRecord:
    """The record of a call whose worker died: nothing is known of its end, so its cost is unknown, not zero."""
    return sparse(
        intent.id,
        intent.started_at,
        Outcome.ABANDONED,
        duration_ns=max(0, now - intent.started_at),
        method=intent.method,
        route=intent.route,
        dialect=intent.dialect,
        operation=intent.operation,
        upstream=intent.upstream,
        stream=intent.stream,
        model_requested=intent.model,
        tenant=intent.tenant,
        agent=intent.agent,
        run_id=intent.run_id,
        step=intent.step,
        trace_id=intent.trace_id,
        span_id=intent.span_id,
        parent_span_id=intent.parent_span_id,
        error_source="gateway",
        error_code="worker_died",
        worker=worker,
    )


def _known(left: Leftover, directory: Path, name: str) -> set[str]:
    """Ids of records that may stand in for what is left: the last ones of the process, and earlier recoveries."""
    if not left.intents and not left.lost:
        return set()
    segments = listing(directory)
    known = {head for segment in segments if segment.writer == name for head in _ids(segment)}
    for segment in reversed([s for s in segments if s.writer == left.writer]):
        if _token(segment) == left.token:
            last = set(_ids(segment))
            known |= last
            if last:
                break
    return known


def _token(segment: Segment) -> bytes:
    """The token of the process that wrote a segment; b"" where nothing is in it."""
    try:
        with open(segment.path, "rb") as file:
            header = read_header(file.fileno())
            size = os.fstat(file.fileno()).st_size
    except (FileNotFoundError, PermissionError):
        return b""
    return header.token if header is not None and size > HEADER_BYTES else b""


def _ids(segment: Segment) -> Iterator[str]:
    try:
        for payload in payloads(segment.path):
            yield decode_head(payload).id
    except (FileNotFoundError, PermissionError, DecodeError):  # deleted meanwhile; or a payload of an unknown kind
        return
