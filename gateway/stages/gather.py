"""What passes of an answer, gathered for a cache while it is relayed, within a bound."""

from __future__ import annotations


class Gathered:
    """`pieces`: the decoded body so far; None where it is not wanted (any more) or became larger than `limit` bytes.

    Never raises. What an answer is kept with is the matter of those who are built on it.
    """

    __slots__ = ("_limit", "_size", "_wanted", "pieces")

    def __init__(self, limit: int, *, wanted: bool = True) -> None:
        self._limit = limit
        self._wanted = wanted
        self.pieces: list[bytes] | None = [] if wanted else None
        self._size = 0

    @property
    def overran(self) -> bool:
        """Did it become too large?"""
        return self._size > self._limit

    def restart(self) -> None:
        """What came so far was of an attempt that failed, and nobody has read it."""
        self.pieces, self._size = [] if self._wanted else None, 0

    def gather(self, plain: bytes) -> None:
        if self.pieces is not None:
            self.pieces.append(plain)
            self._size += len(plain)
            if self._size > self._limit:
                self.pieces = None
