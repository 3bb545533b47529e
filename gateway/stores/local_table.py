"""The same bounded map as `shared_table`, for a worker that is alone: in its own memory, without a system call.

What was put longest ago is forgotten first, one entry for each new one: once the table is full its memory stays as it
is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from gateway.stores.shared_table import VALUE_LIMIT

ENTRY_BYTES = 192  # of memory that an entry takes: its value of 60 bytes, key and place; measured
LEAST = 8  # this part of the limit stays, however short memory is: without it calls would find their runs no more


class LocalTable:
    """Implements `ports.Links`."""

    def __init__(self, entries: int) -> None:
        self._limit = self._bound = max(1, entries)
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> bytes | None:
        return self._entries.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Raises ValueError for a value of more than 200 bytes."""
        if len(value) > VALUE_LIMIT:
            raise ValueError(f"a value of {len(value)} bytes; {VALUE_LIMIT} is the limit")
        entries = self._entries
        if key in entries:
            entries.move_to_end(key)
        elif len(entries) >= self._bound:
            entries.popitem(last=False)
        entries[key] = value

    def update(self, key: bytes, change: Callable[[bytes | None], bytes | None]) -> None:
        """Put what `change` makes of the value; None leaves it as it is. Raises ValueError as `put`."""
        value = change(self._entries.get(key))
        if value is not None:
            self.put(key, value)

    @property
    def held(self) -> int:
        """Bytes, about."""
        return len(self._entries) * ENTRY_BYTES

    @property
    def full(self) -> int:
        """Bytes that it may hold, about."""
        return self._limit * ENTRY_BYTES

    def give_way(self, room: int | None) -> int:
        """Hold no more than about so many bytes from now on, but for what is needed at least; None: as ever. Returns
        how many bytes were forgotten."""
        before, least = self.held, max(1, self._limit // LEAST)
        self._bound = self._limit if room is None else min(self._limit, max(least, room // ENTRY_BYTES))
        while len(self._entries) > self._bound:
            self._entries.popitem(last=False)
        return before - self.held

    def close(self) -> None:
        """Idempotent."""
        self._entries.clear()
