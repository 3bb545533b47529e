"""What the recorder makes of the journal: the protocols its parts meet in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from gateway.journal.record import Record


class Position(NamedTuple):
    """A place in the journal: all of `segment` before byte `offset` has been read."""

    segment: str
    offset: int


Positions = Mapping[str, int]
"""One place per segment: segment name -> offset. A segment not named has not been begun."""

Batch = Sequence[tuple[Position, Record]]
"""Records, each with the position behind it; ascending within a segment."""


class Source(Protocol):
    """Reads the journal in the order it was written, segment by segment."""

    def read(self, limit: int) -> Batch:
        """Up to `limit` further records; empty when everything written so far was read. Raises OSError."""
        ...

    def close(self) -> None: ...


class Projection(Protocol):
    """A view made of records, which can be thrown away and made again."""

    def apply(self, batch: Sequence[Record]) -> None:
        """Take in further records, in journal order. Never raises, never waits for anything remote."""
        ...

    def close(self, timeout: float) -> None:
        """Flush what is held back, within `timeout` seconds; what cannot be flushed is counted as dropped."""
        ...
