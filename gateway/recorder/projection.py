"""What the recorder makes of the journal: the protocols its parts meet in."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from gateway.journal.read import Position
from gateway.journal.record import Record

Positions = Mapping[str, int]
"""How far a reader has come, by segment: name -> offset. A segment not named has not been begun."""

Batch = Sequence[tuple[Position, Record]]
"""Records, each with the position just behind it; ascending within a segment."""

BREATH = 2e-5  # seconds


class Source(Protocol):
    """What follows the journal; see gateway.journal.read.JournalReader."""

    @property
    def positions(self) -> dict[str, int]:
        """What `read` has delivered so far."""
        ...

    def read(self, limit: int) -> Batch:
        """Up to `limit` further records; empty when everything written so far was read. Raises OSError."""
        ...

    def lag_bytes(self) -> int: ...

    def close(self) -> None: ...


class Projection(Protocol):
    """A view made of records, which can be thrown away and made again."""

    def apply(self, batch: Sequence[Record]) -> None:
        """Take in further records, in journal order. Never raises, never waits for anything remote."""
        ...

    def close(self, timeout: float) -> None:
        """Flush what is held back, within `timeout` seconds; what cannot be flushed is counted as dropped."""
        ...


class Feed:
    """One consumer of the journal and how far it has come, which may be further than what is being read.

    That is so after a start or when the ledger is made again: a record is never given to the same consumer twice.
    """

    def __init__(self, reached: Positions) -> None:
        self.reached = dict(reached)
        self._ahead = dict(reached)

    def rewind(self, start: Positions) -> None:
        """The source starts again, from `start`; what was reached stays reached."""
        self._ahead = {name: offset for name, offset in self.reached.items() if offset > start.get(name, 0)}

    def fresh(self, batch: Batch) -> list[Record]:
        """The records of `batch` that this consumer has not had."""
        if not self._ahead:
            return [record for _, record in batch]
        ahead, out = self._ahead, []
        for (segment, offset), record in batch:
            known = ahead.get(segment, 0)
            if offset > known:
                out.append(record)
            if known and offset >= known:
                del ahead[segment]
        return out

    def advanced(self, positions: Positions) -> dict[str, int]:
        """What is reached once a batch read up to `positions` was taken."""
        if not self._ahead:
            return dict(positions)
        return {name: max(offset, self._ahead.get(name, 0)) for name, offset in positions.items()} | {
            name: offset for name, offset in self._ahead.items() if name not in positions
        }


def behind_all(reached: Sequence[Positions]) -> dict[str, int]:
    """From where to read so that no consumer misses a record: per segment the least, if all have begun it."""
    first, *others = reached
    return {name: min(offset, *(r.get(name, 0) for r in others), offset) for name, offset in first.items()}


def breathe() -> None:
    """Give up the core between two pieces of work. The kernel lets whoever runs finish a slice of some milliseconds: a
    call that needs this core would wait for all of a batch."""
    time.sleep(BREATH)
