"""Messages one behind the other in a stream of bytes: each behind its length (u32, little-endian)."""

from __future__ import annotations

import struct
from collections.abc import Iterator

LENGTH = struct.Struct("<I")


def framed(message: bytes) -> bytes:
    return LENGTH.pack(len(message)) + message


class Frames:
    """Messages out of bytes in pieces of any size. `limit`: bytes of a message; None: as the length allows."""

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The messages that `data` completes. Raises ValueError for one over the limit, before it is there."""
        self._data += data
        while len(self._data) >= LENGTH.size:
            (size,) = LENGTH.unpack_from(self._data)
            if self._limit is not None and size > self._limit:
                raise ValueError(f"a message of {size} bytes")
            end = LENGTH.size + size
            if len(self._data) < end:
                return
            message = bytes(self._data[LENGTH.size : end])
            del self._data[:end]
            yield message
