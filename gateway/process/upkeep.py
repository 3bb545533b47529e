"""The supervisor's part of the journal: its own segments, abandoned calls, retention."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from gateway.config.schema import Journal as Settings
from gateway.journal.append import JournalWriter
from gateway.journal.recover import Recovery
from gateway.journal.retain import retain

WRITER = "sup"
RECOVER_EVERY = 5  # ticks
RETAIN_EVERY = 10

_log = logging.getLogger("tollgate.supervisor")


class Upkeep:
    """To be ticked once a second."""

    def __init__(self, directory: Path, inflight: Path, settings: Settings) -> None:
        self.consumed: Mapping[str, int] | None = None  # as the recorder says; None: not said yet
        self._directory = directory
        self._settings = settings
        self._journal = JournalWriter(directory, WRITER, settings, inflight=inflight, slots=0)
        self._recovery = Recovery(inflight, directory, self._journal, WRITER)
        self._ticks = 0
        self._deleted = 0
        self._faults: dict[str, str] = {}

    def configure(self, settings: Settings) -> None:
        self._settings = settings
        self._journal.configure(settings)

    def event(self, kind: str, **detail: str | int | float | bool) -> None:
        self._journal.append_event(kind, **detail)

    def recover(self) -> None:
        """Write down as abandoned what dead processes left in flight. Never raises, nor does `tick`."""
        self._attempt("recovery", self._recover)

    def _recover(self) -> None:
        done = self._recovery.run(time.time_ns())
        if done.calls or done.lost:
            _log.warning("%d calls were abandoned by dead workers, %d records lost", done.calls, done.lost)

    def tick(self) -> None:
        self._ticks += 1
        self._journal.tick()
        if self._ticks % RECOVER_EVERY == 0:
            self.recover()
        if self._ticks % RETAIN_EVERY == 0:
            self.retain()

    def retain(self) -> None:
        """Delete what size and age ask for. Never raises."""
        self._attempt("retention", self._retain)

    def _attempt(self, name: str, work: Callable[[], None]) -> None:
        """What the disk refuses is tried again with the next tick; it is said once."""
        try:
            work()
        except OSError as error:
            if self._faults.get(name) != str(error):
                _log.error("journal: %s is put off: %s", name, error)
            self._faults[name] = str(error)
        else:
            self._faults.pop(name, None)

    def _retain(self) -> None:
        done = retain(self._directory, self._settings, self.consumed, time.time_ns())
        gauges = self._journal.gauges
        gauges.set("journal_bytes", done.bytes)
        if done.deleted:
            self._deleted += done.deleted
            gauges.set("journal_segments_deleted", self._deleted)
            _log.info("journal: %d old segments deleted, %d bytes", done.deleted, done.freed)
        if done.lost:
            gauges.add("journal_lost_records", done.lost)
            _log.error("journal: over its hard cap; %d records deleted before they were read", done.lost)
            self.event("records_lost", count=done.lost, reason="the journal outgrew its hard cap")

    def close(self) -> None:
        self._journal.close()
