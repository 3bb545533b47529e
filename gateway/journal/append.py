"""Writing records: one `write` per record, in the file before `append` returns.

What happens when the disk refuses
1. A failed or short write: the frame is cut off again, the segment is given up, and the same record goes to a new one.
2. If that fails as well the journal is in trouble: calls go on, up to `BACKLOG` records wait in memory (their calls
   stay marked as in flight, so a kill turns them into abandoned ones; those that never were, as refused ones, are
   counted, so that a kill makes them lost ones), what is more is lost and counted. Every
   `PROBE_SECONDS` a new segment is tried. Back to normal, the waiting records are written, and one `records_lost`
   event with count and time span for those that are gone.
3. A failed fsync says nothing about what reached the disk: the segment is given up, never synced again, and nothing is
   written twice. It is reported as an `fsync_failed` event.
4. With `journal.required`, `begin` raises JournalUnavailable while the journal is in trouble.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from gateway.call import Call
from gateway.config.schema import Journal as Settings
from gateway.errors import JournalUnavailable
from gateway.journal.convert import MALFORMED, Capture, Converter
from gateway.journal.inflight import SLOTS, UNMARKED, Gauges, InFlight
from gateway.journal.record import EventRecord, Record, encode
from gateway.journal.segment import HEADER_BYTES, Disk, Segment, create, frame, seed_of

BACKLOG = 1024
BACKLOG_BYTES = 16 * 1024 * 1024
PROBE_SECONDS = 0.25

_log = logging.getLogger("tollgate.journal")


class JournalWriter:
    """The journal of one process; implements `gateway.ports.Journal`. Not thread-safe, by design.

    `directory` must exist; `inflight` names the directory of the in-flight tables, or None where this writer has no
    calls. Never raises for a disk that fails, not even here.
    """

    def __init__(
        self,
        directory: Path,
        writer: str,
        settings: Settings,
        *,
        worker: int = -1,
        inflight: Path | None = None,
        slots: int = SLOTS,
        capture: Capture = "off",
        capture_bytes: int = 65_536,
        secrets: Iterable[str] = (),
        disk: Disk | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self.token = os.urandom(8)
        self.lost = 0
        self._seed = seed_of(self.token)
        self._directory = directory
        self._writer = writer
        self._worker = worker
        self._disk = disk if disk is not None else Disk()
        self._monotonic = monotonic
        self._now = now
        self._events = 0
        self._fd = -1
        self._segment: Segment | None = None
        self._size = 0
        self._trouble: OSError | None = None
        self._probe_at = 0.0
        self._backlog: deque[tuple[bytes, int]] = deque()
        self._backlog_bytes = 0
        self._unreported = 0
        self._lost_since = 0
        self._unsynced = 0
        self._sync_failed = False
        self.configure(settings, capture=capture, capture_bytes=capture_bytes, secrets=secrets)
        self.table = self._open_table(inflight, slots)
        try:
            self._open()
        except OSError as error:
            self._fail(error)

    @property
    def gauges(self) -> Gauges:
        return self.table.gauges

    def configure(
        self, settings: Settings, *, capture: Capture = "off", capture_bytes: int = 65_536, secrets: Iterable[str] = ()
    ) -> None:
        """Take over a reloaded configuration; from the next record on."""
        self._required = settings.required
        self._fsync = settings.fsync
        self._segment_bytes = self._limit = settings.segment_bytes
        self._convert = Converter(self._worker, capture, capture_bytes, secrets)

    def begin(self, call: Call) -> int:
        """Note a call as in flight. Raises JournalUnavailable; see rule 4."""
        if self._trouble is not None and self._required and not self._probe():
            raise JournalUnavailable("calls cannot be recorded at the moment", retry_after=1)
        return self.table.begin(call)

    def append(self, call: Call, slot: int) -> None:
        """Write the record of a closed call, then free its slot. Never raises."""
        try:
            payload = self._convert.encoded(call)
        except MALFORMED as error:
            _log.error("journal: call %s has an unusable value (%s)", call.id, type(error).__name__)
            payload = encode(self._convert.salvage(call))
        self._put(frame(payload, self._seed), slot)

    def append_record(self, record: Record, *, wait: bool = True) -> bool:
        """Write a record as it is. False where it is not in the file: then it waits, or is lost and counted; without
        `wait` the caller keeps it."""
        return self._put(frame(encode(record), self._seed), -1, wait=wait)

    def append_event(self, kind: str, **detail: str | int | float | bool) -> bool:
        return self.append_record(self._event(kind, detail))

    def tick(self) -> None:
        """Probe a journal in trouble; to be called about once a second, so that it recovers without traffic."""
        if self._trouble is not None:
            self._probe()

    def close(self) -> None:
        """Write what waits, if possible, and give up segment and table. Idempotent."""
        if self.table.closed:
            return
        if self._trouble is not None:
            self._probe_at = 0.0
            if not self._probe():
                for _, slot in self._backlog:
                    self._lose(slot)
                self._backlog.clear()
                self.gauges.set(UNMARKED, 0)
        empty = self._fd >= 0 and self._size == HEADER_BYTES and self._segment is not None
        if empty and self._segment is not None:
            self._segment.path.unlink(missing_ok=True)
        self._abandon()
        self.table.close()

    # -- the file ---------------------------------------------------------------------------------------------

    def _put(self, data: bytes, slot: int, *, wait: bool = True) -> bool:
        if self._trouble is not None and not self._probe():
            if wait:
                self._hold(data, slot)
            return False
        try:
            self._write(data)
        except OSError as first:
            self._repair()
            try:
                self._open()
                self._write(data)
            except OSError as second:
                self._repair()
                self._fail(second)
                if wait:
                    self._hold(data, slot)
                return False
            _log.warning("journal: went on in a new segment after: %s", first)
        self.table.clear(slot)
        return True

    def _write(self, data: bytes) -> None:
        size = len(data)
        if self._size + size > self._limit and self._size > HEADER_BYTES:
            self._rotate()
        written = self._disk.write(self._fd, data)
        if written != size:
            raise OSError(errno.ENOSPC, f"short write: {written} of {size} bytes")
        self._size += size
        if self._fsync:
            self._sync()

    def _sync(self) -> None:
        try:
            self._disk.sync(self._fd)
        except OSError as error:
            self._unsynced += 1
            self.gauges.set("journal_fsync_failures", self._unsynced)
            segment = self._segment.name if self._segment is not None else ""
            self._abandon()
            if not self._sync_failed:
                self._sync_failed = True
                event = self._event("fsync_failed", {"segment": segment, "error": str(error)})
                self._hold(frame(encode(event), self._seed), -1)
            self._fail(error)

    def _rotate(self) -> None:
        """Go on in a new segment; where there can be none, in the old one, for another such length."""
        before = self._fd
        try:
            self._open()
        except OSError as error:
            if self._trouble is None:
                _log.warning("journal: no new segment (%s)", error)
            self._limit += self._segment_bytes
            return
        os.close(before)

    def _open(self) -> None:
        fd, segment = create(self._directory, self._writer, self.token, self._now(), self._disk, sync=self._fsync)
        self._fd, self._segment, self._size, self._limit = fd, segment, HEADER_BYTES, self._segment_bytes

    def _repair(self) -> None:
        """After a failed write: cut off what is left of the frame, then leave the segment."""
        if self._fd >= 0:
            try:
                self._disk.truncate(self._fd, self._size)
            except OSError as error:
                _log.warning("journal: a torn frame stays at the end of a segment (%s)", error)
        self._abandon()

    def _abandon(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._segment = -1, None

    # -- trouble ----------------------------------------------------------------------------------------------

    def _fail(self, error: OSError) -> None:
        if self._trouble is None:
            consequence = "calls are refused" if self._required else "calls go on"
            _log.error("journal: cannot write (%s); %s", error, consequence)
        self._trouble = error
        self._probe_at = self._monotonic() + PROBE_SECONDS
        self.gauges.set("journal_failing", 1)

    def _probe(self) -> bool:
        """Try to get out of trouble: a new segment, then what waits, then the report of what is lost."""
        moment = self._monotonic()
        if moment < self._probe_at:
            return False
        self._probe_at = moment + PROBE_SECONDS
        try:
            self._open()
            while self._backlog:
                data, slot = self._backlog[0]
                self._write(data)
                self._backlog.popleft()
                self._backlog_bytes -= len(data)
                self._release(slot)
            if self._unreported:
                self._write(frame(encode(self._loss()), self._seed))
        except OSError as error:
            self._repair()
            self._fail(error)
            return False
        if self._fd < 0:  # the last fsync failed
            return False
        _log.warning("journal: writing again; %d records were lost", self._unreported)
        self._trouble, self._sync_failed, self._unreported, self._lost_since = None, False, 0, 0
        for name in ("journal_failing", "journal_backlog", "journal_lost_pending"):
            self.gauges.set(name, 0)
        return True

    def _hold(self, data: bytes, slot: int) -> None:
        if len(self._backlog) < BACKLOG and self._backlog_bytes + len(data) <= BACKLOG_BYTES:
            self._backlog.append((data, slot))
            self._backlog_bytes += len(data)
            self.gauges.set("journal_backlog", len(self._backlog))
            if slot < 0:
                self.gauges.add(UNMARKED)
        else:
            self._lose(slot)

    def _release(self, slot: int) -> None:
        """Of a record that waited and is written."""
        if slot < 0:
            self.gauges.add(UNMARKED, -1)
        else:
            self.table.clear(slot)

    def _lose(self, slot: int) -> None:
        self.lost += 1
        self._unreported += 1
        self._lost_since = self._lost_since or self._now()
        self.gauges.set("journal_lost_records", self.lost)
        self.gauges.set("journal_lost_pending", self._unreported)
        self.table.clear(slot)

    def _loss(self) -> EventRecord:
        return self._event(
            "records_lost",
            {
                "count": self._unreported,
                "since": self._lost_since,
                "until": self._now(),
                "reason": str(self._trouble),
            },
        )

    def _event(self, kind: str, detail: dict[str, str | int | float | bool]) -> EventRecord:
        self._events += 1
        return EventRecord(f"{self.token.hex()}-{self._events}", self._now(), kind, self._worker, detail)

    def _open_table(self, directory: Path | None, slots: int) -> InFlight:
        if directory is not None:
            try:
                return InFlight(directory, self._writer, self.token, worker=self._worker, now=self._now(), slots=slots)
            except OSError as error:
                _log.error("journal: no in-flight table (%s); calls of a killed process will not be seen", error)
        return InFlight.anonymous(self._writer, self.token)
