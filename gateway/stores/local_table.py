"""The same bounded map as `shared_table`, for a worker that is alone: in its own memory, without a system call.

What was put longest ago is forgotten first, one entry for each new one: once the table is full its memory stays as it
is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from gateway.stores.shared_table import VALUE_LIMIT


class LocalTable:
    """Implements `ports.Links`."""

    def __init__(self, entries: int) -> None:
        self._limit = max(1, entries)
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
        elif len(entries) >= self._limit:
            entries.popitem(last=False)
        entries[key] = value

    def update(self, key: bytes, change: Callable[[bytes | None], bytes | None]) -> None:
        """Put what `change` makes of the value; None leaves it as it is. Raises ValueError as `put`."""
        value = change(self._entries.get(key))
        if value is not None:
            self.put(key, value)

    def close(self) -> None:
        """Idempotent."""
        self._entries.clear()
