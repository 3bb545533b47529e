"""The last bytes of an answer, held back until its record is written."""

from __future__ import annotations

from msgspec import Struct


class Ending(Struct, frozen=True):
    tail: bytes
    complete: bool  # False: the connection is cut behind the tail


ABORT = Ending(b"", complete=False)
