"""What the ledger forgets: runs beyond the limits of the journal, so that it can always be made again from that."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from gateway.config.schema import Journal as Settings
from gateway.errors import LedgerUnavailable
from gateway.recorder.ledger import Ledger

DAY_NS = 86_400 * 10**9
RUNS = 200  # removed in one transaction
TURN_SECONDS = 0.5  # of pruning between two batches

_log = logging.getLogger("tollgate.recorder")


class Retention:
    """Called by the loop now and then, with the names of the segments that the journal still has."""

    def __init__(
        self,
        ledger: Ledger,
        settings: Settings,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self.settings = settings
        self._ledger = ledger
        self._monotonic = monotonic
        self._now = now

    def __call__(self, segments: Sequence[str]) -> None:
        """Never raises: what cannot be deleted now is deleted later."""
        try:
            self._ledger.forget_segments(segments)
            self._prune()
        except LedgerUnavailable as e:
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
