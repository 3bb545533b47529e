"""What is forgotten: segments of the journal that everybody has read, and runs of the ledger as old as those.

The ledger follows the journal's limits, so that it can always be made again from what the journal still holds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from gateway.config.schema import Journal as Settings
from gateway.errors import LedgerUnavailable
from gateway.journal.retain import DAY_NS, retain
from gateway.journal.segment import listing
from gateway.recorder.ledger import Ledger
from gateway.recorder.projection import Positions

RUNS = 200  # removed in one transaction
TURN_SECONDS = 0.5  # of pruning between two batches

_log = logging.getLogger("tollgate.recorder")


class Retention:
    """Called by the loop now and then. `lost(count)` is told of records that were deleted before they were read."""

    def __init__(
        self,
        journal: Path,
        ledger: Ledger,
        settings: Settings,
        lost: Callable[[int], None],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self.settings = settings
        self._journal = journal
        self._ledger = ledger
        self._lost = lost
        self._monotonic = monotonic
        self._now = now

    def __call__(self, committed: Positions) -> None:
        """Never raises for a disk that fails: what cannot be deleted now is deleted later."""
        try:
            done = retain(self._journal, self.settings, committed, self._now())
            if done.lost:
                self._lost(done.lost)
            self._ledger.forget_segments([segment.name for segment in listing(self._journal)])
            self._prune()
        except (LedgerUnavailable, OSError) as e:
            _log.warning("recorder: retention has to wait: %s", e)

    def _prune(self) -> None:
        until = self._monotonic() + TURN_SECONDS
        old = self._now() - int(self.settings.retention_days * DAY_NS)
        while self._ledger.prune(old, RUNS) == RUNS and self._monotonic() < until:
            pass
        while self._ledger.used_bytes() > self.settings.retention_bytes and self._monotonic() < until:
            first_to_stay = self._ledger.start_of_run(RUNS)
            if first_to_stay is None:
                return
            self._ledger.prune(first_to_stay, RUNS, whole=False)
