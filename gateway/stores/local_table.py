"""The same bounded map as `shared_table`, for a worker that is alone: in its own memory, without a system call.

Two generations: when the young one is full it becomes the old one, and what was in the old one is forgotten. So between
half of `entries` and all of them are remembered, the latest ones for certain.
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.stores.shared_table import VALUE_LIMIT


class LocalTable:
    """Implements `ports.Links`."""

    def __init__(self, entries: int) -> None:
        self._limit = max(1, entries // 2)
        self._young: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: bytes) -> bytes | None:
        value = self._young.get(key)
        return value if value is not None else self._old.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Raises ValueError for a value of more than 200 bytes."""
        if len(value) > VALUE_LIMIT:
            raise ValueError(f"a value of {len(value)} bytes; {VALUE_LIMIT} is the limit")
        young = self._young
        young[key] = value
        if len(young) >= self._limit:
            self._old, self._young = young, {}

    def update(self, key: bytes, change: Callable[[bytes | None], bytes | None]) -> None:
        """Put what `change` makes of the value; None leaves it as it is. Raises ValueError as `put`."""
        young = self._young
        value = young.get(key)
        value = change(self._old.get(key) if value is None else value)
        if value is None:
            return
        if len(value) > VALUE_LIMIT:
            raise ValueError(f"a value of {len(value)} bytes; {VALUE_LIMIT} is the limit")
        young[key] = value
        if len(young) >= self._limit:
            self._old, self._young = young, {}

    def close(self) -> None:
        """Idempotent."""
        self._young, self._old = {}, {}
