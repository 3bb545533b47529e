"""Which breakers are not closed, by name: from the changes of state that workers write into the journal."""

from __future__ import annotations

from gateway.journal.record import EventRecord
from gateway.recorder.facts import tidy
from gateway.recorder.metrics_store import VALUE_LIMIT, Labels
from gateway.recorder.names import OVERFLOW

EVENTS = frozenset(("breaker", "breakers_reset", "start"))
Ajar = list[tuple[int, str]]


class OpenBreakers:
    """`limit`: names at most; the others are counted together, for names of models come from clients."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ajar: dict[tuple[int, str], None] = {}  # worker and breaker, in the order in which they opened

    def see(self, record: EventRecord) -> None:
        """One of `EVENTS`."""
        if record.kind == "start":  # of the whole gateway: its workers count anew
            self._ajar.clear()
        elif record.kind == "breakers_reset":
            self._ajar = {key: None for key in self._ajar if key[0] != record.worker}
        else:
            key = (record.worker, tidy(str(record.detail.get("breaker", "")), VALUE_LIMIT))
            if record.detail.get("state") == "closed":
                self._ajar.pop(key, None)
            else:
                self._ajar[key] = None

    def read(self) -> dict[Labels, float]:
        """Workers by breaker."""
        found: dict[Labels, float] = {}
        for _, name in self._ajar:
            label = (name,) if (name,) in found or len(found) < self._limit else (OVERFLOW,)
            found[label] = found.get(label, 0.0) + 1
        return found

    def save(self) -> Ajar:
        return list(self._ajar)

    def load(self, saved: Ajar) -> None:
        self._ajar = dict.fromkeys([*saved, *self._ajar])
