"""JSON objects of one line each (NDJSON), cut at the line ends: the framing of Ollama's streams and of Cohere's v1.

Blank lines mean nothing; a line above `MAX_EVENT` is skipped and flagged. Time is linear in the bytes.
"""

from __future__ import annotations

from gateway.dialects.sse import MAX_EVENT, Event

_NEWLINE = b"\n"


class LineCutter:
    """Lines come as events without a name."""

    __slots__ = ("_rest", "_skipping", "overflowed")

    idle = False  # every piece goes through `feed`

    def __init__(self) -> None:
        self._rest = bytearray()
        self._skipping = False
        self.overflowed = False

    @property
    def partial(self) -> bool:
        return self._skipping or not (not self._rest or self._rest.isspace())

    def feed(self, data: bytes) -> list[Event]:
        rest = self._rest
        cut = data.rfind(_NEWLINE) + 1
        found: list[Event] = []
        if cut:
            lines = (bytes(rest) + data[:cut]).split(_NEWLINE)
            rest.clear()
            found = [(b"", line) for line in lines[self._skipping :] if line and not line.isspace()]
            self._skipping = False
        if not self._skipping:
            rest += data[cut:]
        if len(rest) > MAX_EVENT:
            self.overflowed = self._skipping = True
            rest.clear()
        return found

    def pending(self, data: bytes) -> int:
        """How many bytes follow the last line end; more than `data` has where the line under way began before it."""
        return len(data) + 1 if self._skipping else len(self._rest)

    def forget(self) -> None:
        """Drop the line under way."""
        self._rest.clear()

    def passed(self) -> None:
        """Nothing is read elsewhere."""

    def end(self) -> list[Event]:
        """A last line without its end."""
        line = bytes(self._rest)
        self._rest.clear()
        return [(b"", line)] if line and not line.isspace() else []
