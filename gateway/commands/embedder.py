"""`tollgate cache embedder`: what the built-in embedder has, what it lacks and how to get that."""

from __future__ import annotations

from gateway.semantic import parts


def complete() -> bool:
    """Print what is there and what is not."""
    absent = parts.missing()
    for name in (*parts.LIBRARIES, parts.PACKAGE):
        print(f"  {name}: {'not installed' if name in absent else 'installed'}")
    if absent:
        print(f"To have similar questions answered from the cache: {parts.advice(absent)}")
        print("Without it, exact answers are found as before; an upstream with /embeddings can stand in its place.")
    return not absent
