"""A JSON array that arrives in pieces, cut into its elements: the framing of Gemini streams without `alt=sse`.

Objects are found by their brackets outside strings; an object above `MAX_EVENT` is skipped and flagged. A lone
object (an error in place of the array) counts as an element. Time is linear in the bytes.
"""

from __future__ import annotations

import re

from gateway.dialects.sse import MAX_EVENT, Event

_MARK = re.compile(rb'["{}]')
_IN_STRING = re.compile(rb'\\|"')


class ArrayCutter:
    """Elements come as events without a name; `elements` counts them."""

    __slots__ = (
        "_at", "_depth", "_ended", "_rest", "_since", "_skipping", "_start", "_string", "elements", "overflowed",
    )  # fmt: skip

    idle = False  # every piece goes through `feed`

    def __init__(self) -> None:
        self._rest = bytearray()
        self._at = 0  # how far `_rest` has been read
        self._start = 0  # where the object in progress begins
        self._depth = 0
        self._string = False
        self._skipping = False
        self._ended = -1  # where in `_rest` the last element ends
        self._since = 1  # bytes behind it, also of pieces before; nothing can be added before the first
        self.elements = 0
        self.overflowed = False

    @property
    def partial(self) -> bool:
        return self._depth > 0

    def feed(self, data: bytes) -> list[Event]:
        self._rest += data
        self._ended = -1
        found: list[Event] = []
        while self._step(found):
            pass
        self._since = self._since + len(data) if self._ended < 0 else len(self._rest) - self._ended
        if not self._depth:
            self._drop(self._at)
        elif len(self._rest) - self._start > MAX_EVENT:
            self.overflowed = self._skipping = True
            self._drop(self._at)
        return found

    def pending(self, data: bytes) -> int:
        """How many bytes follow the end of the last element."""
        return self._since

    def forget(self) -> None:
        """Drop the element under way."""
        self._drop(len(self._rest))
        self._depth, self._at, self._string = 0, 0, False

    def passed(self) -> None:
        """Nothing is read elsewhere."""

    def end(self) -> list[Event]:
        return []

    def _drop(self, upto: int) -> None:
        del self._rest[:upto]
        self._at -= upto
        self._start = 0

    def _step(self, found: list[Event]) -> bool:
        """Read up to the next mark; false when the bytes are used up."""
        mark = (_IN_STRING if self._string else _MARK).search(self._rest, self._at)
        if mark is None:
            self._at = len(self._rest)
            return False
        at = mark.start()
        char = self._rest[at]
        if char == 0x5C:  # backslash: skips the character after it
            if at + 1 >= len(self._rest):
                self._at = at
                return False
            self._at = at + 2
            return True
        self._at = at + 1
        if char == 0x22:
            self._string = not self._string
        elif char == 0x7B:
            if not self._depth:
                self._start = at
            self._depth += 1
        elif self._depth:
            self._depth -= 1
            if not self._depth:
                self._close(found)
        return True

    def _close(self, found: list[Event]) -> None:
        self.elements += 1
        self._ended = self._at
        if self._skipping:
            self._skipping = False
        else:
            found.append((b"", bytes(self._rest[self._start : self._at])))
