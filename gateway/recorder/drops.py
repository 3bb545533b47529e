"""Telemetry that was given up, by signal and reason; shared by everything in the recorder that may drop."""

from __future__ import annotations

import threading


class Drops:
    """Counts; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, str], int] = {}

    def add(self, signal: str, reason: str, count: int = 1) -> None:
        """`signal` is traces, metrics or logs; `reason` one of a few words."""
        with self._lock:
            key = (signal, reason)
            self._counts[key] = self._counts.get(key, 0) + count

    def counts(self) -> dict[tuple[str, str], int]:
        with self._lock:
            return dict(self._counts)
