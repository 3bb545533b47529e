"""Giving freed memory back to the system: what a process has freed stays its own as long as the allocator likes."""

from __future__ import annotations

import importlib


def trim() -> None:
    """Milliseconds per gigabyte; for when memory is short."""
    ctypes = importlib.import_module("ctypes")  # 3 ms, which few processes ever need
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc; others have none
    if malloc_trim is not None:
        malloc_trim(0)
