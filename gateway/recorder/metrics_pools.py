"""What calls say of pools and of overload, counted."""

from __future__ import annotations

from gateway.journal.record import CallRecord
from gateway.policy.overload import PRIORITY, SHED
from gateway.policy.pools import POOL, REFUSED, WAITED
from gateway.recorder.metrics_store import Store


def observe(store: Store, record: CallRecord) -> None:
    """Of a call with notes; most have none of these."""
    notes = record.notes
    if POOL in notes:
        waited = notes.get(WAITED, "")
        if waited.isdecimal():
            store.observe("tollgate_bulkhead_wait_seconds", (notes[POOL],), int(waited))
        if REFUSED in notes:
            store.add("tollgate_bulkhead_refused", (notes[POOL], notes[REFUSED]))
    if SHED in notes:
        store.add("tollgate_shed", (notes[SHED], notes.get(PRIORITY, "")))
