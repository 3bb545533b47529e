"""Giving freed memory back to the system: what a process has freed stays its own as long as the allocator likes."""

from __future__ import annotations

import ctypes

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc; others have none


def trim() -> None:
    """Milliseconds per gigabyte; for when memory is short."""
    if _trim is not None:
        _trim(0)
